"""
alignment
======================

Text.
"""

print(1)
