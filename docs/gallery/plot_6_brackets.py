"""
brackets
======================

Text.
"""

print(1)
