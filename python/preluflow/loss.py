"""Losses of a network's outputs, and their gradient in its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from preluflow._arrays import Float, Float64
from preluflow._trained_form import gradient_start
from preluflow.typing import Loss, TrainingLoss

if TYPE_CHECKING:
    from preluflow._targets import Targets
    from preluflow.network import TwoLayerNetwork

LOSSES: tuple[Loss, ...] = get_args(Loss)
TRAINING_LOSSES: tuple[TrainingLoss, ...] = get_args(TrainingLoss)


@dataclass(frozen=True)
class LossGradient:
    """Mean loss of a network over data, with what was found on the way.

    Attributes
    ----------
    loss : float
        Mean loss.
    outputs : ndarray, shape (n,) or (n, C)
        F(x_i), float64.
    residual : ndarray, shape (n,) or (n, C)
        r_i = -(1/n) d loss / d F at point i, float64.
    W, v : ndarray, shapes (h, D) and (h,) or (h, C)
        Gradient of the mean loss in w_j and v_j, float64.
    hidden_bias, output_bias : ndarray or None, shapes (h,) and (C,)
        Gradient in the biases; None in those the network does not have.

    Examples
    --------
    >>> net = pf.TwoLayerNetwork(W=[[1.0, 0.0]], v=[0.5], p=1)
    >>> at = net.loss_gradient([[1.0, 0.0]], [1.0])
    >>> round(at.loss, 6), at.outputs.tolist(), at.v.tolist()  # (1 - 0.5)^2, and dL/dv = -2 (1 - 0.5)
    (0.25, [0.5], [-1.0])
    """

    loss: float
    outputs: Float64
    residual: Float64
    W: Float64
    v: Float64
    hidden_bias: Float64 | None = None
    output_bias: Float64 | None = None


def loss_gradient(
    network: TwoLayerNetwork, X: Float, targets: Targets, loss: TrainingLoss, weight: Float64 | None, threads: int
) -> LossGradient:
    """Mean loss over X (n, D) and its gradient in the weights; input as checked."""
    start = gradient_start(network)
    value, F, G, s, b = start.loss_gradient(X, targets.values, weight, loss, threads)
    # G_j = sum <R,v_.j> phi' x and s_j = sum R phi; the chain rule through each parametrization.
    one = network.num_outputs == 1
    U, v, norms = network.directions.astype(np.float64), network.v.reshape(s.shape), network.norms
    length = np.linalg.norm(v, axis=1)
    along = s[:, 0] if one else (v * s).sum(axis=1) / np.where(length > 0.0, length, 1.0)
    push = -(v[:, :1] if one else length[:, None])
    if network.activation == "polynomial":
        push = push * norms[:, None] ** (network.p - 1.0)
    inner = G.astype(np.float64)
    if network.activation == "prelu":
        inner[:, : network.dim] -= (network.p - 1.0) * along[:, None] * U
    inner *= push
    power = {"prelu": 1.0, "polynomial": network.p, "tanh": 0.0}[network.activation]
    outer = -(norms**power)[:, None] * s
    R = _residuals(loss, targets.values, F) / len(X)
    if weight is not None:
        R *= weight[:, None]
    return LossGradient(
        value,
        F[:, 0].copy() if one else F,
        R[:, 0].copy() if one else R,
        np.ascontiguousarray(inner[:, : network.dim]),
        outer[:, 0].copy() if one else outer,
        None if network.offsets is None else inner[:, -1].copy(),
        None if network.output_bias is None else -b,
    )


def _residuals(loss: TrainingLoss, y: Float64, F: Float64) -> Float64:
    """-d loss / d F at outputs F (n, C) for targets y (n, C)."""
    if loss != "cross_entropy":
        return residual(loss, y, F)
    shares = np.exp(F - F.max(axis=1, keepdims=True))
    return np.asarray(y - shares / shares.sum(axis=1, keepdims=True))


def residual(loss: Loss, y: Float64, f: Float64) -> Float64:
    """-d loss / d f at outputs f (n,) for labels y (n,)."""
    if loss == "squared":
        return np.asarray(2.0 * (y - f))
    if loss == "exponential":
        return np.asarray(y * np.exp(-y * f))
    return np.asarray(y * np.exp(-np.logaddexp(0.0, y * f)))


def point_losses(loss: Loss, y: Float64, f: Float64) -> Float64:
    """Losses of outputs f for labels or targets y, of any one shape, entry by entry."""
    if loss == "squared":
        return np.asarray((y - f) ** 2)
    if loss == "exponential":
        return np.asarray(np.exp(-y * f))
    return np.asarray(np.logaddexp(0.0, -y * f))


def mean_loss(loss: Loss, y: Float64, f: Float64) -> float:
    """Mean loss of outputs f (n,) for labels y (n,)."""
    return float(np.mean(point_losses(loss, y, f)))
