"""Answers to "Brackets and certificates"."""

from __future__ import annotations

import numpy as np

import preluflow as pf


def check(net: pf.TwoLayerNetwork, X: np.ndarray, y: np.ndarray, radius: pf.RobustRadius, rng: int = 0) -> None:
    """Raise AssertionError where a bracket of a float64 network is refuted.

    Witnesses must be errors, as long as ``upper`` says. Within ``lower`` nothing may be one: tried are random
    directions, the gradient's, and the witness's own.
    """
    right = radius.correct
    moved = X + radius.witness
    assert np.all(y[right] * net.decision_function(moved[right]) <= 0)
    np.testing.assert_allclose(np.linalg.norm(radius.witness, axis=1), radius.upper, rtol=1e-9)
    assert np.all(radius.lower <= radius.upper)
    noise = np.random.default_rng(rng).standard_normal((20, *X.shape))
    ways = [*noise, -y[:, None] * net.input_gradient(X), radius.witness]
    for way in ways:
        norms = np.linalg.norm(way, axis=1)
        use = right & (norms > 0)
        step = way[use] * (0.999 * radius.lower[use] / norms[use])[:, None]
        assert np.all(y[use] * net.decision_function(X[use] + step) > 0)


def radius_of_two(a: float, u: np.ndarray, b: float, w: np.ndarray, x: np.ndarray) -> float:
    """Radius of x with y = +1 under a sigma(<x,u>) - b sigma(<x,w>).

    f > 0 if and only if <x,u> > 0 and a <x,u> > b <x,w>; so the errors are two half-spaces, and the radius is the
    distance to the nearer one. The second is that of the linear classifier a u - b w.
    """
    both = a * u - b * w
    return max(0.0, min(float(x @ u) / float(np.linalg.norm(u)), float(x @ both) / float(np.linalg.norm(both))))
