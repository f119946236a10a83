"""
averages_or_clusters
======================

Text.
"""

print(1)
