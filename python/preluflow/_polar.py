"""A pReLU or polynomial network as directions and contributions, and its robust radii; the core does the work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preluflow._arrays import Float64
from preluflow._dispatch import core
from preluflow.network import TwoLayerNetwork

NEAR = 0.9  # cosine above which neurons of one sign form a group for the attack's starts
SAME = 4.0 * np.finfo(np.float64).eps  # largest difference of directions that are one neuron, but for rounding
TIGHT = 1e-3  # level "tight" leaves points alone whose certificate is within this of the attack
GAP = 1e-4  # level "exact" ends there


@dataclass(frozen=True)
class Effort:
    """How much to do for each point; see ``robust_radius``."""

    level: str
    starts: int
    restarts: int
    steps: int
    seed: int
    max_nodes: int
    num_threads: int


class Polar:
    """A network as f = sum_j s_j a_j sigma(<x,u_j>)^p: contributing neurons only, collinear ones merged, max a = 1."""

    def __init__(self, network: TwoLayerNetwork) -> None:
        log_a = network.log_contributions
        alive = np.isfinite(log_a)
        a = np.exp(log_a[alive] - log_a[alive].max()) if alive.any() else np.empty(0)
        U = network.directions[alive].astype(np.float64)
        norms = np.linalg.norm(U, axis=1)  # float32 rows are units within 1e-7 only; the rest belongs to a
        a, U = a * norms**network.p, U / norms[:, None]
        kept = a > 0
        self.a, self.U, self.sign = a[kept], U[kept], network.sign[alive][kept].astype(np.float64)
        self.p = float(network.p)
        self.whole = self.U, self.sign * self.a
        first, group = _same(self.U, self.sign)
        self.a = np.bincount(group, weights=self.a, minlength=len(first))
        self.U, self.sign = np.ascontiguousarray(self.U[first]), self.sign[first]

    @cached_property
    def margin(self) -> Any:
        """Certificates and attacks on inner products."""
        gram = np.ascontiguousarray(self.U @ self.U.T)
        group, count = _groups(gram, self.sign, self.a)
        L_plus, L_minus = (_lipschitz(gram, self.a, self.sign == label, self.p) for label in (1.0, -1.0))
        return core.Margin(gram, self.a, self.sign, self.p, L_plus, L_minus, group, count)

    @cached_property
    def span(self) -> tuple[Float64, Any]:
        """An orthonormal basis of the neurons' span, (D, rank), and what works in its coordinates."""
        basis, coordinates = np.linalg.qr(self.U.T)
        return basis, core.Span(np.ascontiguousarray(coordinates.T), self.a, self.sign, self.p)

    def margins(self, X: Float64, y: Float64) -> Float64:
        """Return y f(x) of the network as it was given, up to a positive factor, shape (n,)."""
        U, weights = self.whole
        return np.asarray(y * (self._activated(X @ U.T) @ weights))

    def _activated(self, z: Float64) -> Float64:
        z = np.maximum(z, 0.0)
        return z * z * z if self.p == 3.0 else np.asarray(z**self.p)

    def bracket(self, X: Float64, y: Float64, first: int, effort: Effort) -> tuple[Any, ...]:
        """Lower, upper, witness, correct of a block of points, the first of which has number ``first``."""
        if not len(self.a):
            return np.zeros(len(X)), np.zeros(len(X)), np.zeros_like(X), np.zeros(len(X), dtype=bool)
        norms = np.linalg.norm(X, axis=1)
        z = np.ascontiguousarray(X @ self.U.T)
        lower = self.margin.certify(z, y, norms, effort.num_threads)
        # Without neurons merged the products are those of the network as it was given.
        merged = len(self.a) < len(self.whole[1])
        correct = (self.margins(X, y) if merged else y * (self._activated(z) @ (self.sign * self.a))) > 0
        lower[~correct] = 0.0
        _, beta = self.margin.attack(
            z, y, norms, lower, effort.starts, effort.restarts, effort.steps, effort.seed, first, effort.num_threads
        )
        witness = np.where(np.isfinite(beta), beta, 0.0) @ self.U
        witness[correct] = self._confirmed(X[correct], y[correct], witness[correct])
        witness[~correct] = 0.0
        upper = np.linalg.norm(witness, axis=1)
        if effort.level == "fast":
            return lower, upper, witness, correct
        gap = TIGHT if effort.level == "tight" else GAP
        open_ = np.flatnonzero(correct & (lower < (1.0 - gap) * upper))
        if open_.size:
            basis, span = self.span
            x, d = (np.ascontiguousarray(rows[open_] @ basis) for rows in (X, witness))
            lower[open_] = span.tighten(x, d, y[open_], norms[open_], lower[open_], gap, effort.num_threads)
        undecided = correct & (lower < (1.0 - gap) * upper)
        # Again from a shorter witness, where a search ended without one that meets its bound.
        for _ in range(3 if effort.level == "exact" else 0):
            open_ = np.flatnonzero(undecided & (lower < (1.0 - gap) * upper))
            if not open_.size:
                break
            x, d = (np.ascontiguousarray(rows[open_] @ basis) for rows in (X, witness))
            lower[open_], d, nodes = span.exact(
                x, d, y[open_], norms[open_], lower[open_], gap, effort.max_nodes, effort.num_threads
            )
            found = self._confirmed(X[open_], y[open_], d @ basis.T)
            lengths = np.linalg.norm(found, axis=1)
            shorter = lengths < upper[open_]
            witness[open_[shorter]], upper[open_[shorter]] = found[shorter], lengths[shorter]
            undecided[open_[~shorter | (nodes >= effort.max_nodes)]] = False
        return lower, upper, witness, correct

    def _confirmed(self, X: Float64, y: Float64, witness: Float64) -> Float64:
        """Witnesses that hold in input coordinates: longer if rounding asks for it, else to the origin, an error."""
        witness = witness.copy()
        broken = np.arange(len(X))

        def stretched(exponents: Iterable[float]) -> Any:
            left = broken
            for stretch in (0.0, *(10.0**exponent for exponent in exponents)):
                if not left.size:
                    break
                trial = witness[left] * (1.0 + stretch)
                wins = (self.margins(X[left] + trial, y[left]) <= 0) & trial.any(axis=1)
                witness[left[wins]] = trial[wins]
                left = left[~wins]
            return left

        broken = stretched(range(-13, -8))
        for i in broken:
            witness[i] = self._off_corner(X[i], y[i], witness[i])
        broken = stretched(np.arange(-8.5, -0.9, 0.5))
        witness[broken] = -X[broken]
        longer = np.linalg.norm(witness, axis=1) > np.linalg.norm(X, axis=1)
        witness[longer] = -X[longer]
        return witness

    def _off_corner(self, x: Float64, y: float, d: Float64) -> Float64:
        """Push neurons that the witness only just silences below 0, if that is an error; else the witness as it was."""
        size = np.linalg.norm(x)
        edge = self.U[np.abs(self.U @ (x + d)) <= 1e-9 * size]
        if len(edge) and d.any():
            push = np.linalg.pinv(edge).sum(axis=1) * size
            for shift in (1e-14, 1e-12, 1e-10, 1e-8):
                trial = d - shift * push
                if self.margins((x + trial)[None], np.array([y]))[0] <= 0:
                    return np.asarray(trial)
        return d


def _same(U: Float64, sign: Float64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that are one direction and sign, but for rounding: the first of each group, and the group of each row."""
    order = np.lexsort((U[:, 0], sign)) if len(U) else np.empty(0, dtype=np.int64)
    group = np.full(len(U), -1, dtype=np.int64)
    first: list[int] = []
    for i, j in enumerate(order):
        if group[j] >= 0:
            continue
        group[j] = len(first)
        for k in order[i + 1 :]:  # candidates lie together in the first coordinate
            if sign[k] != sign[j] or U[k, 0] - U[j, 0] > SAME:
                break
            if group[k] < 0 and np.abs(U[k] - U[j]).max() <= SAME:
                group[k] = group[j]
        first.append(int(j))
    return np.array(first, dtype=np.int64), group


def _groups(gram: Float64, sign: Float64, a: Float64) -> tuple[NDArray[np.int64], int]:
    """Put neurons of one sign whose cosine with the heaviest of a group is at least ``NEAR`` into that group."""
    group = np.full(len(a), -1, dtype=np.int64)
    count = 0
    for j in np.argsort(-a, kind="stable"):
        if group[j] < 0:
            group[(group < 0) & (sign == sign[j]) & (gram[j] >= NEAR)] = count
            group[j] = count
            count += 1
    return group, count


def _lipschitz(gram: Float64, a: Float64, own: NDArray[np.bool_], p: float) -> float:
    """L of g_S on the unit sphere: lambda_max(sum a u u^T)^(1/p), or by Hoelder for p < 2; rounded up."""
    if not own.any():
        return 0.0
    root = np.sqrt(a[own])
    largest = float(np.linalg.eigvalsh(gram[np.ix_(own, own)] * root[:, None] * root[None, :])[-1]) * (1.0 + 1e-12)
    if p >= 2.0:
        return float(largest ** (1.0 / p))
    return float(a[own].sum() ** (1.0 / p - 0.5) * largest**0.5)
