"""
digits
======================

Text.
"""

print(1)
