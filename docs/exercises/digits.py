"""Answers to "Digits"."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression

import preluflow as pf


def _images() -> tuple[pf.Dataset, pf.Dataset]:
    digits = pf.data.load_digits("ten")
    train = pf.data.from_features(digits.X[:1400], digits.y[:1400])
    return train, pf.data.from_features(digits.X[1400:1500], digits.y[1400:1500], center=train.center)


def linear_and_network() -> tuple[pf.RobustRadius, pf.RobustRadius]:
    """Radii of a logistic regression, exact to rounding, and of a network with p = 3.

    The linear one is wrong more often, and its median radius is the smaller one.
    """
    train, test = _images()
    linear = LogisticRegression(max_iter=1000).fit(train.X, train.y)
    start = pf.initialize(width=60, scale=1e-3, like=train.X, outputs=10, p=3, rng=0)
    run = pf.sgd(start, train.X, train.y, step=0.5, batch=50, epochs=60, loss="cross_entropy", rng=1)
    exact = pf.robust_radius(linear, test.X, test.y)
    return exact, pf.robust_radius(run.network, test.X, test.y, "tight")


def raw_pixels() -> tuple[np.ndarray, pf.RobustRadius, pf.RobustRadius]:
    """Images in [0, 1], and the radii of a network of them without and with bounds.

    An adversary who must keep pixels within [0, 1] can do less: no radius becomes smaller.
    """
    digits = pf.data.load_digits("ten")
    train, test = slice(0, 1400), slice(1400, 1420)
    start = pf.initialize(width=40, scale=1e-2, like=digits.X, outputs=10, p=1, rng=0)
    run = pf.sgd(start, digits.X[train], digits.y[train], step=0.05, batch=50, epochs=30, loss="cross_entropy", rng=1)
    images, labels = digits.X[test], digits.y[test]
    free = pf.robust_radius(run.network, images, labels, "tight")
    return images, free, pf.robust_radius(run.network, images, labels, "tight", bounds=(0, 1))
