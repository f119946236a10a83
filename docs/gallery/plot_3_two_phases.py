"""
two_phases
======================

Text.
"""

print(1)
