"""Answers to "From tiny epsilon to large"."""

from __future__ import annotations

import numpy as np

import preluflow as pf


def alignment_ends(epsilon: float) -> float:
    """When all neurons outside the void are within 0.05 of a centre. It does not depend on epsilon.

    While f = 0 the residual is that of f = 0, and a direction's speed knows nothing of its neuron's norm. (Nudged
    towards a centre, so that no neuron is so slow that the loss falls first.)
    """
    gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, centers="canonical")
    start = pf.initialize(20, 20, epsilon, nudge=0.3, centers=gmm, p=3, dtype="float64", rng=1)
    events = [pf.events.aligned(0.05)]
    look = pf.Observe(every=0.5, what=["alignment"], gmm=gmm)
    run = pf.gradient_flow(start, gmm.centers, gmm.labels, t1=20, rtol=1e-6, events=events, observe=look)
    return float(run.events[events[0].name][0])


def underflows_from(inner: float = 0.1, power: float = 3.0) -> float:
    """The largest power of ten epsilon for which (epsilon * inner)^power is 0 in float64.

    The least positive number is 4.9e-324, and what is below half of it is 0: (epsilon/10)^3 < 2.5e-324 at 1e-107.
    """
    exponent = 0
    while np.float64(10.0**exponent * inner) ** power > 0.0:
        exponent -= 1
    return 10.0**exponent
