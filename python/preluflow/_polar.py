"""A pReLU or polynomial network as directions and contributions, and its robust radii; the core does the work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preluflow._arrays import Float64
from preluflow._dispatch import core
from preluflow.network import TwoLayerNetwork, require_plain
from preluflow.typing import Level

Flags = NDArray[np.uint8]

EPS = float(np.finfo(np.float64).eps)
NEAR = 0.9  # cosine above which neurons of one sign form a group for the attack's starts
SAME = 4.0 * EPS  # largest difference of directions that are one neuron, but for rounding
TIGHT = 1e-3  # level "tight" leaves points alone whose certificate is within this of the attack
GAP = 1e-4  # level "exact" ends there
_FEW_INPUTS = 32  # up to so many the attack works in coordinates, which keep small differences of neurons
_CONFIRMED = 64  # witnesses confirmed at a time
# By how much witnesses are lengthened until they hold: in units of slack, which room asks for; of ||x||; of themselves.
_ROOM = (8.0, 32.0, 128.0, 1024.0, 8192.0)
_HAIRS = (0.0, *(10.0**k for k in range(-14, -8)))
_SHARES = tuple(10.0 ** np.arange(-8.5, -0.9, 0.5))
_PUSHES = (0.0, 1e-14, 1e-12, 1e-10, 1e-8)  # of ||x||, beyond an edge
_EDGE = 1e-9  # cosines within it are on an edge
_ZERO = 1e-11  # a coordinate of a boundary point below it, in units of ||x||, may be meant to be 0


@dataclass(frozen=True)
class Effort:
    """How much to do for each point; see ``robust_radius``."""

    level: Level
    starts: int
    restarts: int
    steps: int
    seed: int
    max_nodes: int
    max_seconds: float | None
    num_threads: int


class Block(NamedTuple):
    """What is known of some points; ``done`` where it is what was asked for, ``error`` what ended it early."""

    lower: Float64
    upper: Float64
    witness: Float64
    correct: NDArray[np.bool_]
    done: NDArray[np.bool_]
    error: KeyboardInterrupt | None = None

    def head(self, count: int) -> Block:
        """Return the first ``count`` points."""
        return Block(
            self.lower[:count], self.upper[:count], self.witness[:count], self.correct[:count], self.done[:count]
        )


class Units(NamedTuple):
    """Rows x = size 2^exponent e with unit vectors e: no square of theirs leaves float64."""

    e: Float64
    size: Float64
    exponent: NDArray[np.int32]

    @classmethod
    def of(cls, X: Float64) -> Units:
        """Take rows apart; e = 0 where x = 0."""
        exponent = np.frexp(np.abs(X).max(axis=1, initial=0.0))[1]
        scaled = np.ldexp(X, -exponent[:, None])
        size = np.sqrt(np.einsum("id,id->i", scaled, scaled))
        return cls(scaled / np.where(size > 0, size, 1.0)[:, None], size, exponent)

    def take(self, rows: NDArray[np.intp]) -> Units:
        """Return some of the rows."""
        return Units(self.e[rows], self.size[rows], self.exponent[rows])

    def lengths(self) -> Float64:
        """||x||, inf only where it is beyond float64."""
        with np.errstate(over="ignore"):
            return np.asarray(np.ldexp(self.size, self.exponent))

    def back(self, values: Float64) -> Float64:
        """Values (n,) or (n, D) in units of ||x||, in the units of x."""
        if values.ndim == 1:
            return np.asarray(np.ldexp(values * self.size, self.exponent))
        return np.asarray(np.ldexp(values * self.size[:, None], self.exponent[:, None]))

    def back_down(self, values: Float64) -> Float64:
        """The same for values (n,) that may not become larger, where subnormal (docs/mathematics.md#rounding-units)."""
        result = self.back(values)
        return np.where(result < np.finfo(np.float64).tiny, np.nextafter(result, 0.0), result)


class Polar:
    """A network as f = sum_j s_j a_j sigma(<x,u_j>)^p: contributing neurons only, collinear ones merged.

    ``slack`` bounds what float64 does to a cosine <x,u_j>/||x||, ``doubt`` to a contribution, relatively
    (docs/mathematics.md#rounding-products, docs/mathematics.md#rounding-contributions).
    """

    def __init__(self, network: TwoLayerNetwork, num_threads: int = 1) -> None:
        require_plain(network, "robust_radius")
        self.network = network.astype(np.float64)
        log_a = network.log_contributions
        U = network.directions.astype(np.float64)
        norms = np.linalg.norm(U, axis=1)  # float32 rows are units within 1e-7 only; the rest belongs to a
        alive = np.isfinite(log_a) & (norms > 0)
        self.p, degree = float(network.p), float(network.p) if network.activation == "polynomial" else 1.0
        U, log_a, sign = (
            U[alive] / norms[alive, None],
            log_a[alive] + self.p * np.log(norms[alive]),
            network.sign[alive],
        )
        logs = [np.abs(degree * network.log_norm[alive]), np.abs(network.log_abs_v[alive]), np.abs(log_a)]
        largest = float(np.max(logs, initial=0.0))
        self.doubt = 8.0 * EPS * (largest + self.p + 4.0)
        size = np.stack([network.log_norm[alive], network.log_abs_v[alive]], axis=1)
        kept = _not_cancelled(np.concatenate([network.directions[alive], size], axis=1), sign)
        self._merge(U[kept], log_a[kept] - log_a[kept].max(initial=-np.inf), sign[kept].astype(np.float64))
        D = network.dim
        self.slack = (min(D, 256) + D / 256 + 16.0) * EPS / 2.0 + (2.0 * SAME * np.sqrt(D) if self.merged else 0.0)
        if len(self.log_a):
            self._prepare(num_threads)

    def _merge(self, U: Float64, log_a: Float64, sign: Float64) -> None:
        """Make neurons of one direction and sign one."""
        first, group = _same(U, sign)
        self.merged = int(np.bincount(group).max(initial=1)) - 1 if len(group) else 0
        self.doubt += EPS * self.merged * (float(np.abs(log_a).max(initial=0.0)) + 2.0)
        self.log_a = np.full(len(first), -np.inf)
        np.logaddexp.at(self.log_a, group, log_a)
        self.U, self.sign = np.ascontiguousarray(U[first]), np.ascontiguousarray(sign[first])

    def _prepare(self, num_threads: int) -> None:
        """What all points share."""
        gram = core.products(self.U, self.U, num_threads)
        group, count = _groups(gram, self.sign, self.log_a)
        h, D = self.U.shape
        self.rows = self.U if D <= max(_FEW_INPUTS, h // 2) else np.empty((h, 0))
        plus, minus = (_log_lipschitz(gram, self.log_a, self.sign == y, self.p, self.slack) for y in (1.0, -1.0))
        self.margin = core.Margin(
            gram, self.log_a, self.sign, self.p, plus, minus, self.slack, self.doubt, group, count, self.rows
        )
        self._span: tuple[Float64, Any] | None = None

    def inputs(self, d: Float64, num_threads: int) -> Float64:
        """Perturbations that the attack found, in input coordinates."""
        return d if self.rows.shape[1] else core.products(d, np.ascontiguousarray(self.U.T), num_threads)

    def span(self, num_threads: int) -> tuple[Float64, Any]:
        """An orthonormal basis of the neurons' span, (rank, D), and what works in its coordinates.

        docs/mathematics.md#span; the slack of values there: docs/mathematics.md#rounding-span.
        """
        if self._span is None:
            h, D = self.U.shape
            tolerance = 4.0 * EPS * np.sqrt(D)
            basis = core.orthonormal_basis(self.U, tolerance)
            coordinates = core.products(self.U, basis, num_threads)
            rank, dot = len(basis), (min(D, 256) + D / 256 + 2.0) * EPS / 2.0
            # How far the basis is from orthonormal, as measured; inputs themselves (h >= D) are so exactly.
            gram = core.products(basis, basis, num_threads)
            gap = float(np.abs(gram - np.eye(rank)).sum(axis=1).max()) + rank * dot + tolerance if h < D else 0.0
            # Coordinates of x and of u_j err by dot in every entry, their product by rank units more.
            slack = self.slack + 2.0 * np.sqrt(rank) * dot + gap + (rank + 8.0) * EPS
            self._span = basis, core.Span(coordinates, self.log_a, self.sign, self.p, slack, self.doubt)
        return self._span

    def bracket(self, X: Float64, y: Float64, first: int, effort: Effort) -> Block:
        """Bracket a block of points, the first of which has number ``first``."""
        n = len(X)
        if not len(self.log_a):
            return Block(np.zeros(n), np.zeros(n), np.zeros_like(X), np.zeros(n, dtype=bool), np.ones(n, dtype=bool))
        search = _Search(self, X, y, effort)
        error = None
        try:
            search.attack(first)
            if effort.level != "fast":
                search.tighten()
            if effort.level == "exact":
                search.exact()
        except KeyboardInterrupt as stop:
            error = stop
        return search.result(error)


class _Search:
    """What is done to one block of points, in units of ||x|| until the end."""

    def __init__(self, polar: Polar, X: Float64, y: Float64, effort: Effort) -> None:
        n = len(X)
        self.polar, self.X, self.y, self.effort = polar, X, y, effort
        self.units = Units.of(X)
        self.lower, self.upper = np.zeros(n), np.full(n, np.nan)
        self.correct = np.zeros(n, dtype=np.uint8)
        self.witness = np.zeros_like(X)
        self.tight, self.nodes = np.zeros(n, dtype=np.uint8), np.full(n, -1, dtype=np.int64)
        self.gap = TIGHT if effort.level == "tight" else GAP

    def attack(self, first: int) -> None:
        """Fast certificates and witnesses."""
        polar, effort, threads = self.polar, self.effort, self.effort.num_threads
        z = core.products(self.units.e, polar.U, threads)
        polar.margin.certify(z, self.y, self.lower, self.correct, threads)
        found, corner = np.full(len(z), np.nan), np.full(len(z), np.inf)
        shape = len(z), polar.rows.shape[1] or z.shape[1]
        d, corner_d = np.zeros(shape), np.zeros(shape)
        try:
            polar.margin.attack(
                z, self.y, self.correct, self.lower, effort.starts, effort.restarts, effort.steps, effort.seed, first,
                found, d, corner, corner_d, threads,
            )  # fmt: skip
        except KeyboardInterrupt:
            self._take_attack(found, d, corner, corner_d)
            raise
        self._take_attack(found, d, corner, corner_d)

    def _take_attack(self, found: Float64, d: Float64, corner: Float64, corner_d: Float64) -> None:
        """Confirm what the attack found for the points it came to."""
        polar, threads = self.polar, self.effort.num_threads
        done = ~np.isnan(found)
        self.upper[done & (self.correct == 0)] = 0.0
        rows = np.flatnonzero(done & (self.correct > 0))
        self._take(rows, polar.inputs(d[rows], threads))
        rows = np.flatnonzero(done & (corner < self.upper))
        self._take(rows, polar.inputs(corner_d[rows], threads))

    def tighten(self) -> None:
        """Trust-region certificates where a gap is left."""
        rows = self._open()
        if rows.size:
            _, span, x, d = self._in_span(rows)
            lower, done = self.lower[rows], np.zeros(len(rows), dtype=np.uint8)
            try:
                span.tighten(x, d, self.y[rows], self.gap, lower, done, self.effort.num_threads)
            finally:
                self.lower[rows], self.tight[rows] = lower, done

    def exact(self) -> None:
        """Branch and bound where a gap is left; again from a shorter witness, where one was found."""
        effort = self.effort
        seconds = np.inf if effort.max_seconds is None else effort.max_seconds
        rows = self._open()
        for _ in range(3):
            if not rows.size:
                return
            basis, span, x, d = self._in_span(rows)
            lower, nodes = self.lower[rows], np.full(len(rows), -1, dtype=np.int64)
            try:
                span.exact(x, d, self.y[rows], self.gap, effort.max_nodes, seconds, lower, nodes, effort.num_threads)
            except KeyboardInterrupt:
                self.lower[rows], self.nodes[rows] = lower, nodes
                raise
            self.lower[rows], self.nodes[rows] = lower, nodes
            shorter = self._take(rows, core.products(d, np.ascontiguousarray(basis.T), effort.num_threads))
            rows = rows[shorter & (nodes < effort.max_nodes)]
            rows = rows[np.isin(rows, self._open())]

    def result(self, error: KeyboardInterrupt | None) -> Block:
        """The brackets in the units of X."""
        correct = self.correct.astype(bool)
        done = ~np.isnan(self.upper)
        open_ = np.zeros(len(done), dtype=bool)
        open_[self._open()] = True
        if self.effort.level == "tight":
            done &= ~open_ | (self.tight > 0)
        elif self.effort.level == "exact":
            done &= ~open_ | (self.nodes >= 0)
        lower = np.where(correct, self.units.back_down(self.lower * (1.0 - 4.0 * EPS)), 0.0)
        upper = np.where(correct, Units.of(self.witness).lengths(), 0.0)
        return Block(lower, upper, self.witness, correct, done, error)

    def _open(self) -> NDArray[np.intp]:
        """Points whose bracket is wider than asked for."""
        return np.flatnonzero((self.correct > 0) & (self.lower < (1.0 - self.gap) * self.upper))

    def _in_span(self, rows: NDArray[np.intp]) -> tuple[Float64, Any, Float64, Float64]:
        """The span, and points and witnesses in its coordinates and in units of ||x||."""
        threads = self.effort.num_threads
        basis, span = self.polar.span(threads)
        units = self.units.take(rows)
        d = np.ldexp(self.witness[rows], -units.exponent[:, None]) / units.size[:, None]
        return basis, span, core.products(units.e, basis, threads), core.products(d, basis, threads)

    def _take(self, rows: NDArray[np.intp], d: Float64) -> NDArray[np.bool_]:
        """Confirm perturbations d, in units of ||x||, and keep those that are shorter than what there is.

        A few at a time: a point has an upper end once its witness is in its place, whenever Ctrl-C comes.
        """
        shorter = np.zeros(len(rows), dtype=bool)
        for first in range(0, len(rows), _CONFIRMED):
            part = slice(first, first + _CONFIRMED)
            some = rows[part]
            found = _Confirmation(self, some, d[part]).witness()
            scaled = np.ldexp(found, -self.units.exponent[some, None])
            lengths = np.linalg.norm(scaled, axis=1) / self.units.size[some]
            better = np.isnan(self.upper[some]) | (lengths < self.upper[some])
            self.witness[some[better]] = found[better]
            self.upper[some[better]] = lengths[better]
            shorter[part] = better
        return shorter


class _Confirmation:
    """Perturbations that hold in the units of X: through the public call, and with room for rounding if possible.

    docs/mathematics.md#rounding-witness
    """

    def __init__(self, search: _Search, rows: NDArray[np.intp], d: Float64) -> None:
        self.polar, self.threads = search.polar, search.effort.num_threads
        self.X, self.y = search.X[rows], search.y[rows]
        self.units = search.units.take(rows)
        self.d = d
        self.found = -self.X  # the origin is an error
        self.open = np.flatnonzero(d.any(axis=1))

    def witness(self) -> Float64:
        """Lengthen each by as little as it takes; to the origin, if it takes more than a tenth."""
        slack = self.polar.slack
        if self._stretch((k * slack for k in _ROOM), room=True):
            self._push_off_corners(room=True)
        if self._stretch(_HAIRS, room=False):
            self._push_off_corners(room=False)
        self._stretch(_SHARES, room=True, relative=True)
        longer = Units.of(self.found).lengths() > self.units.lengths()
        self.found[longer] = -self.X[longer]
        return self.found

    def _stretch(self, stretches: Iterable[float], *, room: bool, relative: bool = False) -> bool:
        """Try lengths longer by these shares of ||x||, or of their own; whether any are left."""
        for stretch in stretches:
            if not self.open.size:
                break
            d = self.d[self.open]
            lengths = np.linalg.norm(d, axis=1, keepdims=True)
            self._try(self.open, d * (1.0 + stretch / (1.0 if relative else np.maximum(lengths, 1e-300))), room)
        return bool(self.open.size)

    def _try(self, rows: NDArray[np.intp], d: Float64, room: bool) -> None:
        """Keep those of d, in units of ||x||, that are errors."""
        units = self.units.take(rows)
        trial = units.back(d)
        if not room:  # own neurons are to be silent: on an axis that takes zeros, not numbers close to it
            trial = np.where(np.abs(units.e + d) <= _ZERO, -self.X[rows], trial)
        wins = self._wins(self.X[rows], trial, self.y[rows], room)
        self.found[rows[wins]] = trial[wins]
        self.open = np.setdiff1d(self.open, rows[wins], assume_unique=True)

    def _wins(self, X: Float64, trial: Float64, y: Float64, room: bool) -> NDArray[np.bool_]:
        polar = self.polar
        moved = X + trial
        wins = np.asarray(y * polar.network.decision_function(moved, num_threads=self.threads) <= 0)
        wins &= trial.any(axis=1)
        rows = np.flatnonzero(wins)
        if rows.size:
            cosines = core.products(Units.of(moved[rows]).e, polar.U, self.threads)
            flags = np.zeros(len(rows), dtype=np.uint8)
            polar.margin.errors(cosines, y[rows], room, flags)
            wins[rows] = (flags > 0) | ~moved[rows].any(axis=1)
        return wins

    def _push_off_corners(self, *, room: bool) -> None:
        """Push neurons that a witness only just silences below 0: an error that is met in a corner only."""
        for i in self.open:
            e, d = self.units.e[i], self.d[i]
            cosines = np.einsum("hd,d->h", self.polar.U, e + d)
            edge = np.flatnonzero(np.abs(cosines) <= _EDGE)
            if not edge.size:
                continue
            back = np.linalg.pinv(self.polar.U[edge])
            onto, push = np.einsum("dk,k->d", back, cosines[edge]), back.sum(axis=1)
            for shift in _PUSHES:
                self._try(np.array([i]), (d - onto - shift * push)[None], room)
                if i not in self.open:
                    break


def _not_cancelled(neurons: Float64, sign: Float64) -> NDArray[np.bool_]:
    """Leave out pairs of opposite sign that are the same bit for bit, direction and sizes: no rounding is involved."""
    kept = np.ones(len(sign), dtype=bool)
    places: dict[bytes, list[int]] = {}
    for j, row in enumerate(neurons + 0.0):
        waiting = places.setdefault(row.tobytes(), [])
        if waiting and sign[waiting[-1]] != sign[j]:
            kept[[waiting.pop(), j]] = False
        else:
            waiting.append(j)
    return kept


def _same(U: Float64, sign: Float64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that are one direction and sign, but for rounding: the first of each group, and the group of each row."""
    # Along a direction that is no axis: candidates lie together there, and others seldom.
    along = np.random.default_rng(0).standard_normal(U.shape[1])
    place = np.einsum("hd,d->h", U, along)
    width = (SAME + U.shape[1] * EPS) * float(np.abs(along).sum())
    order = np.lexsort((place, sign))
    group = np.full(len(U), -1, dtype=np.int64)
    first: list[int] = []
    for i, j in enumerate(order):
        if group[j] >= 0:
            continue
        group[j] = len(first)
        for k in order[i + 1 :]:
            if sign[k] != sign[j] or place[k] - place[j] > width:
                break
            if group[k] < 0 and np.abs(U[k] - U[j]).max() <= SAME:
                group[k] = group[j]
        first.append(int(j))
    return np.array(first, dtype=np.int64), group


def _groups(gram: Float64, sign: Float64, log_a: Float64) -> tuple[NDArray[np.int64], int]:
    """Put neurons of one sign whose cosine with the heaviest of a group is at least ``NEAR`` into that group."""
    group = np.full(len(log_a), -1, dtype=np.int64)
    count = 0
    for j in np.argsort(-log_a, kind="stable"):
        if group[j] < 0:
            group[(group < 0) & (sign == sign[j]) & (gram[j] >= NEAR)] = count
            group[j] = count
            count += 1
    return group, count


def _log_lipschitz(gram: Float64, log_a: Float64, own: NDArray[np.bool_], p: float, slack: float) -> float:
    """Logarithm of L of g_S on the unit sphere: lambda_max(sum a u u^T)^(1/p), or by Hoelder for p < 2; rounded up.

    docs/mathematics.md#lipschitz
    """
    if not own.any():
        return -float(np.inf)
    most = float(log_a[own].max())
    a = np.exp(log_a[own] - most)  # what underflows is made up for below
    root = np.sqrt(a)
    weighted = gram[np.ix_(own, own)]
    weighted *= root  # in place: NumPy's reuse of temporaries does not survive it when memory ends
    weighted *= root[:, None]
    # Entries of gram err by at most slack, the matrix by slack times the sum of a.
    largest = np.log(core.largest_eigenvalue(weighted) + slack * a.sum() + 1e-300) + 1e-12
    if p >= 2.0:
        return float((largest + most) / p)
    return float((1.0 / p - 0.5) * (np.log(a.sum()) + 1e-12) + 0.5 * largest + most / p)
