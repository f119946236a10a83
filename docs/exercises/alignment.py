"""Answers to "Alignment of neurons"."""

from __future__ import annotations

import math

import numpy as np

import preluflow as pf


def alignment_time(c0: float, c1: float, clusters: int) -> float:
    """How long a neuron takes from cosine c0 to c1: p = 3, squared loss (C = 2), one positive cosine.

    1/(c^2 (1 - c^2)) = 1/c^2 + 1/(1 - c^2) integrates to artanh(c) - 1/c, which therefore grows by 3 C t / K = 6 t / K.
    """

    def potential(c: float) -> float:
        return math.atanh(c) - 1.0 / c

    return clusters / 6.0 * (potential(c1) - potential(c0))


def median_alignment_time(dim: int) -> float:
    """When the median of 1000 neurons reaches a cosine of 1/2, by the flow on the centres of one cluster a class.

    From a small c0 almost all of the time goes into 1/c0, and c0 is about 1/sqrt(D): four times the dimension takes
    twice the time. (Neurons in the void never arrive; the median is over those that see their centre.)
    """
    gmm = pf.OrthonormalGMM(dim=dim, positive=1, negative=1, alpha=0.1, centers="canonical")
    start = pf.initialize(1000, dim, 1e-30, p=3, dtype="float64", rng=0)
    look = pf.Observe(every=0.25, what=["alignment"], gmm=gmm)
    run = pf.gradient_flow(start, gmm.centers, gmm.labels, t1=20, observe=look)
    sees_its_own = pf.voronoi_regions(start, gmm) >= 0
    median = np.median(run["alignment"][:, sees_its_own], axis=1)
    return float(run.t[np.argmax(median >= 0.5)])
