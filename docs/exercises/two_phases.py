"""Answers to "The loss in two phases"."""

from __future__ import annotations

import math

import preluflow as pf


def time_to_half(Z0: float, clusters: int) -> float:
    """When Z' = (4/K) (1 - Z) Z, Z(0) = Z0, reaches 1/2.

    log(Z/(1-Z)) grows by 4 t / K, and is 0 at Z = 1/2: t = (K/4) log(1/Z0 - 1).
    """
    return clusters / 4.0 * math.log(1.0 / Z0 - 1.0)


def predicted_delay(epsilon: float, smaller: float, clusters: int) -> float:
    """By how much later the loss falls from the smaller start.

    Alignment takes as long from both, and Z0 is proportional to epsilon^2: (K/4) log((epsilon/smaller)^2).
    """
    return clusters / 2.0 * math.log(epsilon / smaller)


def measured_delay(epsilon: float, smaller: float) -> float:
    """The same, by the flow on the centres of a mixture with K = 5."""
    gmm = pf.OrthonormalGMM(dim=50, positive=3, negative=2, alpha=0.1, centers="canonical")
    times = []
    for scale in (epsilon, smaller):
        start = pf.initialize(60, 50, scale, p=3, dtype="float64", rng=0)
        event = pf.events.loss_below(0.5, terminal=True)
        run = pf.gradient_flow(start, gmm.centers, gmm.labels, t1=500, rtol=1e-6, events=[event])
        times.append(float(run.t[-1]))
    return times[1] - times[0]
