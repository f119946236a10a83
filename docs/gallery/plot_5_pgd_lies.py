"""
pgd_lies
======================

Text.
"""

print(1)
