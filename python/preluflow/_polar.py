"""A pReLU or polynomial network as directions and contributions, and its robust radii; the core does the work."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preluflow._arrays import Float64
from preluflow._dispatch import core
from preluflow.network import TwoLayerNetwork

NEAR = 0.9  # cosine above which neurons of one sign form a group for the attack's starts
SAME = 1.0 - 1e-14  # cosine above which they are one neuron
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
        self._merge()

    def _merge(self) -> None:
        if not len(self.a):
            return
        group, count = _groups(self.U @ self.U.T, self.sign, self.a, SAME)
        if count == len(self.a):
            return
        first = np.array([np.flatnonzero(group == g)[0] for g in range(count)])
        self.a = np.bincount(group, weights=self.a, minlength=count)
        self.U, self.sign = np.ascontiguousarray(self.U[first]), self.sign[first]

    @cached_property
    def margin(self) -> Any:
        """Certificates and attacks on inner products."""
        gram = np.ascontiguousarray(self.U @ self.U.T)
        group, count = _groups(gram, self.sign, self.a, NEAR)
        L_plus, L_minus = (_lipschitz(gram, self.a, self.sign == label, self.p) for label in (1.0, -1.0))
        return core.Margin(gram, self.a, self.sign, self.p, L_plus, L_minus, group, count)

    @cached_property
    def span(self) -> tuple[Float64, Any]:
        """An orthonormal basis of the neurons' span, (D, rank), and what works in its coordinates."""
        basis, coordinates = np.linalg.qr(self.U.T)
        return basis, core.Span(np.ascontiguousarray(coordinates.T), self.a, self.sign, self.p)

    def margins(self, X: Float64, y: Float64) -> Float64:
        """Return y f(x), up to a positive factor, shape (n,)."""
        z = np.maximum(X @ self.U.T, 0.0)
        return np.asarray(y * ((z**self.p) @ (self.sign * self.a)))

    def bracket(self, X: Float64, y: Float64, first: int, effort: Effort) -> tuple[Any, ...]:
        """Lower, upper, witness, correct of a block of points, the first of which has number ``first``."""
        if not len(self.a):
            return np.zeros(len(X)), np.zeros(len(X)), np.zeros_like(X), np.zeros(len(X), dtype=bool)
        norms = np.linalg.norm(X, axis=1)
        z = np.ascontiguousarray(X @ self.U.T)
        lower = self.margin.certify(z, y, norms, effort.num_threads)
        correct = self.margins(X, y) > 0
        lower[~correct] = 0.0
        _, beta = self.margin.attack(
            z, y, lower, effort.starts, effort.restarts, effort.steps, effort.seed, first, effort.num_threads
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
            lower[open_] = span.tighten(x, d, y[open_], lower[open_], gap, effort.num_threads)
        open_ = np.flatnonzero(correct & (lower < (1.0 - gap) * upper))
        if effort.level == "exact" and open_.size:
            x, d = (np.ascontiguousarray(rows[open_] @ basis) for rows in (X, witness))
            lower[open_], d, _ = span.exact(x, d, y[open_], lower[open_], gap, effort.max_nodes, effort.num_threads)
            found = self._confirmed(X[open_], y[open_], d @ basis.T)
            lengths = np.linalg.norm(found, axis=1)
            shorter = lengths < upper[open_]
            witness[open_[shorter]], upper[open_[shorter]] = found[shorter], lengths[shorter]
        return lower, upper, witness, correct

    def _confirmed(self, X: Float64, y: Float64, witness: Float64) -> Float64:
        """Witnesses that hold in input coordinates: a hair longer if rounding says so, else to the origin, an error."""
        witness = witness.copy()
        broken = np.arange(len(X))
        for stretch in (0.0, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9):
            trial = witness[broken] * (1.0 + stretch)
            wins = (self.margins(X[broken] + trial, y[broken]) <= 0) & trial.any(axis=1)
            witness[broken[wins]] = trial[wins]
            broken = broken[~wins]
            if not broken.size:
                break
        for i in broken:
            witness[i] = self._off_corner(X[i], y[i], witness[i])
        longer = np.linalg.norm(witness, axis=1) > np.linalg.norm(X, axis=1)
        witness[longer] = -X[longer]
        return witness

    def _off_corner(self, x: Float64, y: float, d: Float64) -> Float64:
        """Push neurons that the witness only just silences below 0; -x, to the origin, if that is no error either."""
        size = np.linalg.norm(x)
        edge = self.U[np.abs(self.U @ (x + d)) <= 1e-9 * size]
        if len(edge) and d.any():
            push = np.linalg.pinv(edge).sum(axis=1) * size
            for shift in (1e-14, 1e-12, 1e-10, 1e-8):
                trial = d - shift * push
                if self.margins((x + trial)[None], np.array([y]))[0] <= 0:
                    return np.asarray(trial)
        return np.asarray(-x)


def _groups(gram: Float64, sign: Float64, a: Float64, near: float) -> tuple[NDArray[np.int64], int]:
    """Put neurons of one sign whose cosine with the heaviest of a group exceeds ``near`` into that group."""
    group = np.full(len(a), -1, dtype=np.int64)
    count = 0
    for j in np.argsort(-a, kind="stable"):
        if group[j] < 0:
            group[(group < 0) & (sign == sign[j]) & (gram[j] >= near)] = count
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
