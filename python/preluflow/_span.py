"""A network in the coordinates of the span of its directions: the same problem of robustness, in fewer dimensions.

A network depends on x by the inner products with its directions alone, U = (Q R)^T with Q of orthonormal columns, and
so does its gradient. In the coordinates Q^T x the same network has inputs of dimension rank <= h in place of D. PGD and
DDN start at the point itself and never leave x + span{u_j}: there they are the same iteration (but for the direction
DDN draws at random where the gradient vanishes). APGD starts at a random point of the ball, which lies almost wholly
outside the span. What it adds from there on has nothing outside, and so it leaves the start's part outside in its
direction: one coordinate more tells all of it (``apgd``). This is the attack in R^D up to a rotation; only the random
numbers fall differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from preluflow import _searches
from preluflow._arrays import Float64
from preluflow.network import TwoLayerNetwork


class InBasis:
    """A network of the first r coordinates, as a classifier of points that have more."""

    def __init__(self, network: TwoLayerNetwork) -> None:
        self.network = network

    def decision_function(self, X: ArrayLike) -> Float64:
        """Evaluate f on X (n, D >= r); returns (n,)."""
        return self.network.decision_function(np.asarray(X)[:, : self.network.dim])

    def value_and_input_gradient(self, X: ArrayLike) -> tuple[Float64, Float64]:
        """Return f (n,) and its gradient in x (n, D), 0 in the other coordinates."""
        points = np.asarray(X)
        gradient = np.zeros(points.shape)
        value, gradient[:, : self.network.dim] = self.network.value_and_input_gradient(points[:, : self.network.dim])
        return value, gradient

    def input_gradient(self, X: ArrayLike) -> Float64:
        """Gradient of f in x at each row of X (n, D); returns (n, D)."""
        return self.value_and_input_gradient(X)[1]


def in_span(network: TwoLayerNetwork) -> tuple[TwoLayerNetwork, Float64]:
    """Return the network in coordinates of the span of its directions, float64, and Q (D, r), r <= min(h, D).

    With U^T = Q R: f(x) = g(Q^T x), and the gradient of f at x is Q times that of g at Q^T x. Of an attack delta on g
    at Q^T x, delta Q^T is the one on f at x, as long.
    """
    exact = network.astype("float64")
    Q, R = np.linalg.qr(exact.directions.T)
    return exact.replace(U=np.ascontiguousarray(R.T)), np.asarray(Q)


@dataclass(frozen=True)
class FoldedBall(_searches.Ball):
    """The l2 ball of R^dim in the coordinates of a span and one more, along what a run's start has outside of it."""

    dim: int

    def start(self, points: _searches.Points, seed: int, run: int) -> Float64:
        """Random points of the surface in R^dim, folded."""
        rank = points.x.shape[1] - 1
        drawn = points.random(seed, run, self.dim)
        folded = np.column_stack([drawn[:, :rank], np.linalg.norm(drawn[:, rank:], axis=1)])
        return self.project(points.x, self.eps * folded / np.linalg.norm(folded, axis=1)[:, None])


def apgd(
    network: TwoLayerNetwork, X: Float64, y: ArrayLike, *, eps: float, dim: int, steps: int, restarts: int, seed: int
) -> _searches.Attack:
    """``attacks.apgd`` in R^dim on a network in the coordinates of a span, X (n, r): with the same random numbers that
    it is in (n, dim) where the other coordinates are 0 and do not count. ``delta`` is (n, r + 1).
    """
    ball = FoldedBall(eps, "l2", None, max(dim, network.dim))
    once = partial(_searches.apgd, ball=ball, steps=steps, objective="margin")
    search = partial(_searches.restarted, once, ball=ball, restarts=restarts, seed=seed, from_point=False)
    folded = np.column_stack([X, np.zeros(len(X))])
    return _searches.run(*_searches.prepared(InBasis(network), folded), y, search, ball)
