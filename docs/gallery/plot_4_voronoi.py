"""
voronoi
======================

Text.
"""

print(1)
