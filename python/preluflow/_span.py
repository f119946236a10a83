"""A network in the coordinates of the span of its directions: the same problem of robustness, in fewer dimensions.

A network depends on x by the inner products with its directions alone, U = (Q R)^T with Q of orthonormal columns, and
so does its gradient. In the coordinates Q^T x the same network has inputs of dimension rank <= h in place of D. PGD and
DDN start at the point itself and never leave x + span{u_j}: there they are the same iteration (but for the direction
DDN draws at random where the gradient vanishes). APGD starts at a random point of the ball, which lies almost wholly
outside the span; its points keep all D coordinates, of which the network sees the first (``InBasis``). This is the
attack in R^D up to a rotation; only the random numbers fall differently.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

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
