"""A flow between its stops: the steps' dense output, kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preluflow import _npz
from preluflow._arrays import Float, Float64
from preluflow.network import TwoLayerNetwork

NAMES = ("dense.t", "dense.phi", "dense.l", "dense.rho")


@dataclass(frozen=True)
class Step:
    """The state from ``begin`` to ``end``, as polynomials in theta = (t - begin) / (end - begin).

    ``phi`` (q + 1, h, D) are the coefficients of weights in units of their norm at ``begin`` (flow.hpp), in the
    network's dtype, ``l`` and ``rho`` (q + 1, h) those of the logarithm of that norm and of v in units of it.
    """

    begin: float
    end: float
    phi: Float
    l: Float64  # noqa: E741 - as in the equations
    rho: Float64

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return self.phi.nbytes + self.l.nbytes + self.rho.nbytes

    def network(self, t: float, like: TwoLayerNetwork) -> TwoLayerNetwork:
        """The network at t; neurons that never move are those of ``like``, which is of the same kind."""
        theta = (t - self.begin) / (self.end - self.begin)
        phi = self.phi[-1].astype(np.float64)
        for coefficient in self.phi[-2::-1]:
            phi *= theta
            phi += coefficient
        norm = np.linalg.norm(phi, axis=1)
        dead = np.isneginf(self.l[0])
        with np.errstate(divide="ignore", invalid="ignore"):
            l, rho = (_horner(values, theta) for values in (self.l, self.rho))  # noqa: E741
            log_norm = l + np.log(norm) if like.activation == "tanh" else l
            log_abs_v = l + np.log(np.abs(rho))
        log_norm[dead] = -np.inf
        return like.replace(
            U=(phi / np.where(norm > 0.0, norm, 1.0)[:, None]).astype(like.dtype),
            log_norm=log_norm,
            sign=np.where(dead, like.sign, np.sign(rho)),
            log_abs_v=np.where(dead, like.log_abs_v, log_abs_v),
        )


def _horner(coefficients: Float64, theta: float) -> Float64:
    value: Float64 = coefficients[-1].copy()
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

    def network(self, t: float, like: TwoLayerNetwork) -> TwoLayerNetwork:
        """The network at t, which is within the steps."""
        begins = [step.begin for step in self.steps]
        return self.steps[int(np.searchsorted(begins, t, side="right")) - 1].network(t, like)

    def __add__(self, other: Dense) -> Dense:
        """Return the steps of both."""
        return Dense(self.steps + other.steps)

    def arrays(self, network: TwoLayerNetwork) -> dict[str, NDArray[Any]]:
        """Return all under flat names, for npz files; ``network``: any of them."""
        if not self.steps:
            shape = (0, 2, network.width)
            phi = np.empty((*shape, network.dim), dtype=network.dtype)
            return dict(zip(NAMES, (np.empty((0, 2)), phi, np.empty(shape), np.empty(shape)), strict=True))
        return {
            "dense.t": np.array([[step.begin, step.end] for step in self.steps]),
            "dense.phi": np.stack([step.phi for step in self.steps]),
            "dense.l": np.stack([step.l for step in self.steps]),
            "dense.rho": np.stack([step.rho for step in self.steps]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], network: TwoLayerNetwork) -> Dense:
        """Undo ``arrays``; ValueError if they are not steps of such a network."""
        t = _npz.expect(arrays["dense.t"], "dense.t", "f", ("S", 2))
        count, width = len(t), network.width
        phi = _npz.expect(arrays["dense.phi"], "dense.phi", "f", (count, "q", width, network.dim))
        if phi.dtype != network.dtype:
            raise ValueError(f"dense.phi must be {network.dtype} as the network, got {phi.dtype}")
        q = phi.shape[1]
        l, rho = (  # noqa: E741
            _npz.expect(arrays[f"dense.{name}"], f"dense.{name}", "f", (count, q, width)) for name in ("l", "rho")
        )
        if q < 2:
            raise ValueError(f"dense.phi must have two coefficients at least, got shape {phi.shape}")
        if not np.isfinite(t).all() or np.any(t[:, 0] >= t[:, 1]) or np.any(t[1:, 0] > t[:-1, 1]):
            raise ValueError("dense.t must hold the ends of steps without gaps")
        if np.any(t[1:, 0] <= t[:-1, 0]):
            raise ValueError("dense.t must increase")
        finite = np.isfinite(phi).all() and np.isfinite(rho).all() and np.isfinite(l[:, 1:]).all()
        if not finite or not (l[:, 0] < np.inf).all():
            raise ValueError("dense.phi, dense.l and dense.rho must be finite")
        steps = [Step(float(a), float(b), *rest) for (a, b), *rest in zip(t, phi, l, rho, strict=True)]
        return cls(tuple(steps))
