"""A flow between its stops: the steps' dense output, kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preluflow import _npz
from preluflow._arrays import Float, Float64
from preluflow._trained_form import TrainedForm
from preluflow.network import TwoLayerNetwork
from preluflow.typing import Trained

NAMES = ("dense.t", "dense.phi", "dense.l", "dense.rho")
BIAS = "dense.output_bias"  # there if outputs have biases


@dataclass(frozen=True)
class Step:
    """The state from ``begin`` to ``end``, as polynomials in theta = (t - begin) / (end - begin).

    ``phi`` (q + 1, h, D) are the coefficients of weights in units of their norm at ``begin`` (flow.hpp), in the
    network's dtype, ``l`` (q + 1, h) and ``rho`` (q + 1, h), or (q + 1, h, C) of several outputs, those of the
    logarithm of that norm and of V in units of it, ``bias`` (q + 1, C) of the biases of outputs, with C = 0 if there
    are none. Where neurons have biases phi is of (w, b), (q + 1, h, D + 1). Of a frozen inner layer it is (q + 1, h,
    0), and of a frozen outer one rho is: the layer is that of the run's network.

    Of a dead neuron l begins with -inf; the rest is the logarithm by which weight decay shrinks its V.
    """

    begin: float
    end: float
    phi: Float
    l: Float64  # noqa: E741 - as in the equations
    rho: Float64
    bias: Float64

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return self.phi.nbytes + self.l.nbytes + self.rho.nbytes + self.bias.nbytes

    @property
    def trained(self) -> Trained:
        """Which layer is trained."""
        return "outer" if self.phi.shape[2] == 0 else "inner" if _frozen(self.rho) else "both"

    def network(self, t: float, like: TwoLayerNetwork, shrunk: Float64) -> TwoLayerNetwork:
        """The network at t, where ``like`` is that of the run.

        ``shrunk`` (h,) are the logarithms by which dead neurons' V shrink from t until ``like``.
        """
        theta = (t - self.begin) / (self.end - self.begin)
        trained = self.trained
        hidden = like.offsets is not None if trained == "outer" else self.phi.shape[2] > like.dim
        form = TrainedForm(like, hidden, self.bias.shape[1] > 0, trained)
        U, log_norm, log_abs_v = form.inner(like)
        outer = (like.width, like.num_outputs)
        sign, log_abs_v = like.sign.reshape(outer), log_abs_v.reshape(outer)
        dead = np.isneginf(self.l[0])
        l = _horner(self.l, theta)  # noqa: E741
        if trained != "outer":
            phi = _horner(self.phi, theta)
            norm = np.linalg.norm(phi, axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                log_norm = l + np.log(norm) if like.activation == "tanh" else l
            log_norm[dead] = -np.inf
            U = (phi / np.where(norm > 0.0, norm, 1.0)[:, None]).astype(like.dtype)
        if trained != "inner":
            rho = _horner(self.rho, theta).reshape(outer)
            with np.errstate(divide="ignore", invalid="ignore"):
                moved = l[:, None] + np.log(np.abs(rho))
            sign = np.where(dead[:, None], sign, np.sign(rho))
            log_abs_v = np.where(dead[:, None], log_abs_v - shrunk[:, None], moved)
        return form.network((U, log_norm, sign, log_abs_v, _horner(self.bias, theta)))


def _frozen(rho: Float64) -> bool:
    """Whether coefficients rho are those of a frozen layer."""
    return rho.ndim == 3 and rho.shape[2] == 0


def _horner(coefficients: Float, theta: float) -> Float64:
    value: Float64 = coefficients[-1].astype(np.float64)
    for coefficient in coefficients[-2::-1]:
        value *= theta
        value += coefficient
    return value


@dataclass(frozen=True)
class Dense:
    """Steps of a flow in the order of their beginnings; a later one counts where it overlaps an earlier."""

    steps: tuple[Step, ...]

    @property
    def nbytes(self) -> int:
        """Bytes all of them take."""
        return sum(step.nbytes for step in self.steps)

    def network(self, t: float, like: TwoLayerNetwork, end: float) -> TwoLayerNetwork:
        """The network at t, which is within the steps, of a run that ended at ``end`` with the network ``like``."""
        begins = [step.begin for step in self.steps]
        i = int(np.searchsorted(begins, t, side="right")) - 1
        shrunk = np.zeros(like.width)
        for step, until in zip(self.steps[i:], [*begins[i + 1 :], end], strict=True):
            rates = step.l[1:].sum(axis=0) / (step.end - step.begin)
            shrunk += (until - max(t, step.begin)) * np.where(np.isneginf(step.l[0]), rates, 0.0)
        return self.steps[i].network(t, like, shrunk)

    def __add__(self, other: Dense) -> Dense:
        """Return the steps of both."""
        return Dense(self.steps + other.steps)

    def arrays(self, network: TwoLayerNetwork) -> dict[str, NDArray[Any]]:
        """Return all under flat names, for npz files; ``network``: any of them."""
        if not self.steps:
            shape = (0, 2, network.width)
            dim = network.dim + (network.offsets is not None)
            phi, rho = np.empty((*shape, dim), dtype=network.dtype), np.empty((*shape, *network.sign.shape[1:]))
            nothing = dict(zip(NAMES, (np.empty((0, 2)), phi, np.empty(shape), rho), strict=True))
            return nothing if network.output_bias is None else {**nothing, BIAS: np.empty((0, 2, network.num_outputs))}
        found = {
            "dense.t": np.array([[step.begin, step.end] for step in self.steps]),
            "dense.phi": np.stack([step.phi for step in self.steps]),
            "dense.l": np.stack([step.l for step in self.steps]),
            "dense.rho": np.stack([step.rho for step in self.steps]),
        }
        bias = np.stack([step.bias for step in self.steps])
        return {**found, BIAS: bias} if bias.shape[2] else found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], network: TwoLayerNetwork) -> Dense:
        """Undo ``arrays``; ValueError if they are not steps of such a network."""
        t = _npz.expect(arrays["dense.t"], "dense.t", "f", ("S", 2))
        count, width, outputs = len(t), network.width, network.num_outputs
        phi = _npz.expect(arrays["dense.phi"], "dense.phi", "f", (count, "q", width, "D"))
        if phi.dtype != network.dtype:
            raise ValueError(f"dense.phi must be {network.dtype} as the network, got {phi.dtype}")
        q = phi.shape[1]
        if q < 2:
            raise ValueError(f"dense.phi must have two coefficients at least, got shape {phi.shape}")
        l = _npz.expect(arrays["dense.l"], "dense.l", "f", (count, q, width))  # noqa: E741
        rho = _expect_rho(arrays["dense.rho"], (count, q, width), outputs)
        _expect_columns(phi, rho, network)
        if network.output_bias is not None and BIAS not in arrays:
            raise ValueError(f"{BIAS} is missing")
        bias = _npz.expect(arrays.get(BIAS, np.empty((count, q, 0))), BIAS, "f", (count, q, "C"))
        if BIAS in arrays and bias.shape[2] != outputs:
            raise ValueError(f"{BIAS} must have {outputs} columns, got shape {bias.shape}")
        if not np.isfinite(t).all() or np.any(t[:, 0] >= t[:, 1]) or np.any(t[1:, 0] > t[:-1, 1]):
            raise ValueError("dense.t must hold the ends of steps without gaps")
        if np.any(t[1:, 0] <= t[:-1, 0]):
            raise ValueError("dense.t must increase")
        finite = all(np.isfinite(values).all() for values in (phi, rho, l[:, 1:], bias))
        if not finite or not (l[:, 0] < np.inf).all():
            raise ValueError("dense.phi, dense.l, dense.rho and dense.output_bias must be finite")
        steps = [Step(float(a), float(b), *rest) for (a, b), *rest in zip(t, phi, l, rho, bias, strict=True)]
        return cls(tuple(steps))


def _expect_rho(rho: NDArray[Any], shape: tuple[int, ...], outputs: int) -> Float64:
    """Coefficients rho, as they are of one output or of several, or of a frozen layer."""
    if rho.ndim == 4 and rho.shape[3] == 0:
        return _npz.expect(rho, "dense.rho", "f", (*shape, 0))
    return _npz.expect(rho, "dense.rho", "f", shape if outputs == 1 else (*shape, outputs))


def _expect_columns(phi: Float, rho: Float64, network: TwoLayerNetwork) -> None:
    """Refuse phi of other inputs than the network's, and two frozen layers."""
    columns, dim = phi.shape[3], network.dim
    if columns == 0 and rho.ndim == 4 and rho.shape[3] == 0:
        raise ValueError("dense.phi and dense.rho must not both be of frozen layers")
    fit = [dim + 1] if network.offsets is not None else [dim, dim + 1]
    if columns and columns not in fit:
        raise ValueError(f"dense.phi must have {' or '.join(map(str, fit))} columns, got shape {phi.shape}")
