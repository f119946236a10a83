"""Answers to "Voronoi regions"."""

from __future__ import annotations

import math


def void_probability(centers_of_class: int) -> float:
    """A random neuron is in the void if its cosines with all centres of its class are negative.

    Those with orthonormal centres are independent, and each is negative with probability 1/2.
    """
    return 0.5**centers_of_class


def width_for_all_regions(positive: int, negative: int, probability: float = 0.99) -> int:
    """A width at which every region holds a neuron with at least this probability.

    A neuron is positive with probability 1/2, outside the void with 1 - 2^-K1, and then in each of K1 regions alike:
    q = (1 - 2^-K1) / (2 K1). A region stays empty with (1-q)^h, some region with at most the sum of these.
    """
    q = {count: (1.0 - void_probability(count)) / (2.0 * count) for count in (positive, negative)}
    width = 1
    while sum(count * math.pow(1.0 - q[count], width) for count in (positive, negative)) > 1.0 - probability:
        width += 1
    return width
