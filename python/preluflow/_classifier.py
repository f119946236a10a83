"""What classifiers have in common: products of points, certificates rounded down, witnesses beyond the boundary."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow._arrays import Float, Float64

_ROWS = 4096  # rows converted to float64 at a time: X itself is not copied
# On certificates: some are exactly tight, and rounding must not push them above the truth
# (docs/mathematics.md#rounding-closed-forms).
_SAFETY = 1.0 - 1e-9
_EPS = float(np.finfo(np.float64).eps)
_HAIR = 1e-13  # how far beyond the boundary witnesses go, relative to ||x|| + ||d||: rounding must not bring them back


class _Classifier(ABC):
    """What the classifiers here have in common. They take X of any real dtype; work and results are float64."""

    @abstractmethod
    def decision_function(self, X: ArrayLike) -> Float64:
        """Evaluate f on X (n, D); returns (n,)."""

    @abstractmethod
    def value_and_input_gradient(self, X: ArrayLike) -> tuple[Float64, Float64]:
        """Return f (n,) and its gradient in x (n, D), in one pass."""

    def input_gradient(self, X: ArrayLike) -> Float64:
        """Gradient of f in x at each row of X (n, D); returns (n, D)."""
        return self.value_and_input_gradient(X)[1]

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Predict labels -1 and +1 of X (n, D); f = 0, an error for either label, is returned as -1."""
        return np.where(self.decision_function(X) > 0, 1, -1)


def _products(points: Float, vectors: Float64) -> Float64:
    """Inner products of points (n, D) and vectors (K, D): (n, K), float64."""
    out = np.empty((len(points), len(vectors)))
    for first in range(0, len(points), _ROWS):
        rows = slice(first, first + _ROWS)
        np.matmul(points[rows].astype(np.float64, copy=False), vectors.T, out=out[rows])
    return out


def _rounded_down(radius: Float64, points: Float, clusters: int = 0, offset: float = 0.0) -> Float64:
    """A certified radius (n,): less 1e-9 of it, and less what float64 may have done to the products it is made of.

    An inner product of D terms is off by D/2 EPS ||x||, a difference of two by twice that, what is summed over the
    clusters by a few units for each; ``offset`` is the length of what is added besides.
    """
    size = np.linalg.norm(points.astype(np.float64, copy=False), axis=1) + offset
    units = 2.0 * (points.shape[1] + 16.0) + 8.0 * (clusters + 4.0)
    return np.asarray(np.maximum(_SAFETY * radius - units * _EPS * size, 0.0))


def _beyond(points: Float, d: Float64, hairs: float = 1.0) -> Float64:
    """Perturbations d (n, D), lengthened by a hair or more; zeros stay zeros."""
    length = np.linalg.norm(d, axis=1)
    reach = length + np.linalg.norm(points.astype(np.float64, copy=False), axis=1)
    return np.asarray(d * (1.0 + hairs * _HAIR * reach / np.where(length > 0, length, 1.0))[:, None])


def _log_sum_exp(z: Float64) -> tuple[Float64, Float64]:
    """Log of the sum of exp z_k over each row (n,), and its gradient, the softmax (n, k)."""
    top = z.max(axis=1, keepdims=True)
    shares = np.exp(z - top)
    total = shares.sum(axis=1, keepdims=True)
    return (top + np.log(total))[:, 0], shares / total
