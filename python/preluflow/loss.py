"""Losses of a network's outputs, and their gradient in its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from preluflow._arrays import Float, Float64
from preluflow.typing import Loss

if TYPE_CHECKING:
    from preluflow.network import TwoLayerNetwork

LOSSES: tuple[Loss, ...] = get_args(Loss)


@dataclass(frozen=True)
class LossGradient:
    """Mean loss of a network over data, with what was found on the way.

    Attributes
    ----------
    loss : float
        Mean loss.
    outputs : ndarray, shape (n,)
        f(x_i), float64.
    residual : ndarray, shape (n,)
        r_i = -(1/n) d loss / d f at point i, float64.
    W, v : ndarray, shapes (h, D) and (h,)
        Gradient of the mean loss in w_j and v_j, float64.
    """

    loss: float
    outputs: Float64
    residual: Float64
    W: Float64
    v: Float64


def loss_gradient(network: TwoLayerNetwork, X: Float, target: Float64, loss: Loss, threads: int) -> LossGradient:
    """Mean loss over X (n, D) and labels (n,) and its gradient in W and v; input as checked, the network plain."""
    value, f, G, s = network._core.loss_gradient(X, target, loss, threads)
    # G_j = sum r phi' x and s_j = sum r phi; the chain rule through each parametrization.
    U, v, norms = network.directions.astype(np.float64), network.v[:, None], network.norms
    if network.activation == "prelu":
        W_gradient, v_gradient = -v * (G - (network.p - 1.0) * s[:, None] * U), -norms * s
    elif network.activation == "polynomial":
        W_gradient, v_gradient = -v * norms[:, None] ** (network.p - 1.0) * G, -(norms**network.p) * s
    else:
        W_gradient, v_gradient = -v * G, -s
    return LossGradient(value, f, residual(loss, target, f) / len(X), W_gradient, v_gradient)


def residual(loss: Loss, y: Float64, f: Float64) -> Float64:
    """-d loss / d f at outputs f (n,) for labels y (n,)."""
    if loss == "squared":
        return np.asarray(2.0 * (y - f))
    if loss == "exponential":
        return np.asarray(y * np.exp(-y * f))
    return np.asarray(y * np.exp(-np.logaddexp(0.0, y * f)))


def mean_loss(loss: Loss, y: Float64, f: Float64) -> float:
    """Mean loss of outputs f (n,) for labels y (n,)."""
    if loss == "squared":
        return float(np.mean((y - f) ** 2))
    if loss == "exponential":
        return float(np.mean(np.exp(-y * f)))
    return float(np.mean(np.logaddexp(0.0, -y * f)))
