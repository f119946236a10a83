"""How the attacks search: points in blocks, the ball, and the loops over iterates; ``attacks`` says what they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays, _scores
from preluflow._arrays import Float64
from preluflow._scores import Ints, Model
from preluflow.classifiers import as_classifier
from preluflow.sklearn_import import known_labels
from preluflow.typing import Norm, Objective

NORMS: tuple[Norm, ...] = get_args(Norm)

_ROWS = 512  # points handled at a time: memory does not grow with n
_INSIDE = 1.0 - 1e-13  # the ball is shrunk by this, so that no way of summing squares finds a point outside
_FAR = 1e6  # minimal norms are sought up to this many times 1 + ||x||
_TURNS = (math.pi / 8, math.pi / 4, 3 * math.pi / 8, math.pi / 2)
_LAST_GAMMA, _LAST_STEP = 0.001, 0.01  # of FMN: where gamma ends, and the step, as a share of the first
_LOOK = 32  # steps after which an iterate is expected to come back, if it does
_STRETCHES = (0.0, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9)

Bools = NDArray[np.bool_]
Search = Callable[["Points"], Float64]


@dataclass(frozen=True, eq=False)
class Attack:
    """What an attack found.

    Attributes
    ----------
    delta : ndarray, shape (n, D)
        Perturbations, float64. Of attacks within a ball, the iterate of the lowest margin, flipped or not; of
        minimal-norm attacks the shortest that flips, 0 where none was found. 0 where the point is wrong to begin with.
    success : ndarray of bool, shape (n,)
        Whether the margin at x + delta is <= 0, evaluated in float64; true where the point is wrong to begin with. The
        margin is y f of one output, F_y - max_{c != y} F_c of several.
    norms : ndarray, shape (n,)
        Of ``delta``, l2 or l-infinity as asked; of minimal-norm attacks inf where none was found.
    gradients : int
        Gradients evaluated, summed over the points.
    reached : ndarray of int64, shape (n,)
        The class that x + delta is taken for, or that ties with the right one: a rival where ``success``, else the
        right one.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> net = pf.classifiers.cluster_prelu(gmm, p=3)  # F^(3)
    >>> found = pf.attacks.fgsm(net, gmm.centers, gmm.labels, eps=0.9)
    >>> found.norms.round(6).tolist(), found.accuracy  # towards the origin, where f > 0
    ([0.9, 0.9, 0.9, 0.9], 1.0)
    """

    delta: Float64
    success: Bools
    norms: Float64
    gradients: int
    reached: Ints

    @property
    def accuracy(self) -> float:
        """Share of points that survive."""
        return float(1.0 - np.mean(self.success))

    def __repr__(self) -> str:
        """Show how many survive."""
        return f"Attack({len(self.success)} points, accuracy {self.accuracy:.4f}, {self.gradients} gradients)"


# ---- the classifier, the points and the ball


@dataclass(frozen=True, eq=False)
class Points:
    """Points x (m, D) under attack, their targets y (m,) and their numbers in the whole.

    Of one output, y is -1 or +1; of several, the number of the own class. With ``rival`` (m,), numbers of classes, only
    those count: the margin is that of the pair, and what flips it is an error all the same.
    """

    model: Model
    x: Float64
    y: Any
    rows: Ints
    rival: Ints | None = None

    def __len__(self) -> int:
        return len(self.x)

    def only(self, which: Any) -> Points:
        """Those of an index array or a mask."""
        rival = None if self.rival is None else self.rival[which]
        return Points(self.model, self.x[which], self.y[which], self.rows[which], rival)

    def value(self, delta: Float64) -> Float64:
        """Evaluate the margin at x + delta, shape (m,)."""
        outputs = self.model.value(self.x + delta)
        if self.model.outputs == 1:
            return self._known(self.y * outputs)
        return self._pair(outputs)[0]

    def both(self, delta: Float64) -> tuple[Float64, Float64]:
        """Evaluate the margin at x + delta, shape (m,), and its gradient (m, D)."""
        margin, _, gradient = self.scored(delta, "margin")
        return margin, gradient

    def scored(self, delta: Float64, objective: str) -> tuple[Float64, Float64, Float64]:
        """Evaluate the margin (m,), the score of the objective (m,) and its gradient (m, D) at x + delta.

        Of one output every score is y f, of which all objectives are functions.
        """
        if self.model.outputs == 1:
            f, gradient = self.model.both(self.x + delta)
            margin = self._known(self.y * f)
            return margin, margin, self.y[:, None] * gradient
        outputs = self.model.value(self.x + delta)
        margin, rival = self._pair(outputs)
        outputs = np.nan_to_num(outputs)
        if objective == "margin" or self.rival is not None:
            score, weights = margin, _scores.pair_weights(outputs, self.y, rival)
        else:
            score, weights = _scores.SCORES[objective](outputs, self.y, self.model.scale)
        return margin, score, self.model.gradient(self.x + delta, weights)

    def judge(self, delta: Float64) -> tuple[Float64, Ints]:
        """Evaluate the margin at x + delta (m,), and the class taken for, or tied with, there (m,)."""
        outputs, classes = self.model.value(self.x + delta), self.model.classes
        if self.model.outputs == 1:
            margin = self._known(self.y * outputs)
            return margin, classes[((self.y > 0) == (margin > 0)).astype(np.int64)]
        margin, rival = self._pair(outputs)
        return margin, classes[np.where(margin > 0, self.y, rival)]

    def rivals(self, count: int) -> Iterator[Points]:
        """The points against each of their ``count`` nearest rivals alone, where the pair's margin is linear."""
        if self.model.outputs == 1:
            return
        outputs, every = self.model.value(self.x), np.arange(self.model.outputs)
        reach = np.full(outputs.shape, np.inf)
        for c in every:
            rows = np.flatnonzero(self.y != c)
            if not rows.size:
                continue
            weights = _scores.pair_weights(outputs[rows], self.y[rows], np.full(len(rows), c))
            slope = _norms(self.model.gradient(self.x[rows], weights))
            gap = self._known(outputs[rows, self.y[rows]] - outputs[rows, c])
            reach[rows, c] = np.where(slope > 0, gap / np.where(slope > 0, slope, 1.0), np.finfo(np.float64).max)
        order = np.argsort(reach, axis=1, kind="stable")
        for k in range(min(count, self.model.outputs - 1)):
            yield Points(self.model, self.x, self.y, self.rows, order[:, k])

    def _pair(self, outputs: Float64) -> tuple[Float64, Ints]:
        """Margin (m,) and the rival that makes it (m,), of several outputs (m, C)."""
        rows = np.arange(len(outputs))
        rival = _scores.nearest_rival(outputs, self.y) if self.rival is None else self.rival
        return self._known(outputs[rows, self.y] - outputs[rows, rival]), rival

    def _known(self, margin: Float64) -> Float64:
        """The margins, those of points whose outputs leave float64 far from any error."""
        return np.nan_to_num(margin, nan=_scores.FAR) if self.model.singular else margin

    def random(self, seed: int, run: int, count: int, kind: str = "normal") -> Float64:
        """Draw (m, count) numbers, normal or uniform in [-1, 1], that depend on seed, run and row numbers alone."""
        generators = [np.random.default_rng([seed, run, int(row)]) for row in self.rows]
        if kind == "normal":
            return np.stack([rng.standard_normal(count) for rng in generators])
        return np.stack([rng.uniform(-1.0, 1.0, count) for rng in generators])


@dataclass(frozen=True)
class Ball:
    """Perturbations of at most ``eps`` in ``norm`` that keep x within ``bounds``."""

    eps: float
    norm: Norm
    bounds: tuple[float, float] | None

    @classmethod
    def of(cls, eps: float, norm: Norm, bounds: Any) -> Ball:
        return cls(_arrays.real(eps, "eps", above=0.0), _arrays.choice(norm, "norm", NORMS), box(bounds))

    def project(self, x: Float64, delta: Float64) -> Float64:
        """Nearest point of the ball, then of the box: clipping towards x only shortens."""
        if self.norm == "linf":
            return _clip(x, np.clip(delta, -self.eps, self.eps), self.bounds)
        radius = self.eps * _INSIDE
        length = _norms(delta, "l2")
        return _clip(x, delta * (radius / np.maximum(length, radius))[:, None], self.bounds)

    def steepest(self, gradient: Float64) -> Float64:
        """Unit step along which a linear function grows most; 0 where the gradient is."""
        return np.sign(gradient) if self.norm == "linf" else _unit(gradient)

    def start(self, points: Points, seed: int, run: int) -> Float64:
        """Random points of the surface."""
        drawn = points.random(seed, run, points.x.shape[1], "uniform" if self.norm == "linf" else "normal")
        return self.project(points.x, self.eps * drawn / _norms(drawn, self.norm)[:, None])


def prepared(classifier: Any, X: ArrayLike) -> tuple[Model, NDArray[Any]]:
    """The classifier as the attacks see it, and the points (n, D)."""
    model, data = Model(as_classifier(classifier)), _arrays.points(X)
    model.known = partial(known_labels, classifier)
    model.look(data)
    return model, data


def run(model: Model, data: NDArray[Any], y: ArrayLike, search: Search, ball: Ball) -> Attack:
    """Search, in blocks, for perturbations of the points that are right, and judge what comes back.

    Of minimal norms (``ball.eps`` infinite) what does not flip is dropped.
    """
    target = model.targets(y, n=len(data))
    if ball.bounds is not None and not (ball.bounds[0] <= data.min() and data.max() <= ball.bounds[1]):
        raise ValueError(f"X must lie within bounds {ball.bounds}, got values from {data.min()} to {data.max()}")
    minimal = math.isinf(ball.eps)
    delta = np.zeros(data.shape)
    success = np.ones(len(data), dtype=bool)
    reached = np.zeros(len(data), dtype=np.int64)
    for first in range(0, len(data), _ROWS):
        rows = np.arange(first, min(first + _ROWS, len(data)))
        block = Points(model, data[rows].astype(np.float64), target[rows], rows)
        margin, reached[rows] = block.judge(np.zeros(1))
        block = block.only(margin > 0)
        if not len(block):
            continue
        found = search(block)
        success[block.rows] = False
        # Minimal norms end on the boundary, where rounding may say otherwise another time: go a hair further.
        for stretch in _STRETCHES if minimal else (0.0,):
            trial = _clip(block.x, found * (1.0 + stretch), ball.bounds)
            margin, taken = block.judge(trial)
            flipped = margin <= 0
            success[block.rows] = flipped
            kept = flipped if minimal else np.ones(len(block), dtype=bool)
            reached[block.rows[kept]] = taken[kept]
            delta[block.rows[kept]] = trial[kept]
            block, found = block.only(~flipped), found[~flipped]
            if not len(block):
                break
    norms = _norms(delta, ball.norm)
    if minimal:
        norms[~success] = np.inf
    return Attack(delta, success, norms, model.gradients, reached)


def _norms(array: Float64, norm: str = "l2") -> Float64:
    """Norm of each row."""
    return np.asarray(np.linalg.norm(array, axis=1) if norm == "l2" else np.abs(array).max(axis=1))


def _unit(array: Float64) -> Float64:
    """Rows divided by their l2 norm, scaled first so that squares neither underflow nor overflow; zero rows stay."""
    largest = np.abs(array).max(axis=1, keepdims=True)
    scaled = array / np.where(largest > 0, largest, 1.0)
    length = _norms(scaled)
    return np.asarray(scaled / np.where(length > 0, length, 1.0)[:, None])


def _clip(x: Float64, delta: Float64, bounds: tuple[float, float] | None) -> Float64:
    """Delta with x + delta, as rounded, within the bounds; entries that are within stay as they are."""
    if bounds is None:
        return delta
    low, high = bounds
    moved = x + delta
    delta = np.where(moved > high, high - x, np.where(moved < low, low - x, delta))
    moved = x + delta
    return np.where((moved > high) | (moved < low), np.nextafter(delta, 0.0), delta)


def _only(rows: Bools, *arrays: Any) -> list[Any]:
    """Those rows of every array."""
    return [array[rows] for array in arrays]


def box(bounds: Any) -> tuple[float, float] | None:
    if bounds is None:
        return None
    try:
        low, high = bounds
    except (TypeError, ValueError):
        raise ValueError(f"bounds must be (low, high) or None, got {_arrays.shown(bounds)}") from None
    low = _arrays.real(low, "bounds[0]")
    return low, _arrays.real(high, "bounds[1]", above=low)


# ---- searches within a ball: points that are right in, delta (m, D) out


def fgsm(points: Points, *, ball: Ball) -> Float64:
    return ball.project(points.x, ball.eps * ball.steepest(-points.both(np.zeros_like(points.x))[1]))


def restarted(
    once: Callable[[Points, Float64], Best],
    points: Points,
    *,
    ball: Ball,
    restarts: int,
    seed: int,
    from_point: bool,
) -> Float64:
    """Run from the points themselves or random ones, then again from random ones for the survivors; keep the best."""
    best = Best(points.x.shape)
    for run in range(1 + restarts):
        live = np.flatnonzero(best.margin > 0)
        if not live.size:
            break
        some = points.only(live)
        found = once(some, np.zeros_like(some.x) if from_point and run == 0 else ball.start(some, seed, run))
        best.see(live, found.delta, found.margin)
    return best.delta


class Best:
    """The iterate of the lowest margin for each point."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.delta, self.margin = np.zeros(shape), np.full(shape[0], np.inf)

    def see(self, live: Ints, delta: Float64, margin: Float64) -> Bools:
        """Take iterates of the points ``live`` into account; returns where they are better."""
        better = margin < self.margin[live]
        self.delta[live[better]], self.margin[live[better]] = delta[better], margin[better]
        return np.asarray(better)


class Orbit:
    """Notices iterates that come back: what a step does depends on where it begins alone, so the rest is known.

    Runs that settle do so within some tens or hundreds of steps, in a point or in going to and fro by a last digit.

    Parameters
    ----------
    delta : ndarray, shape (m, D)
        Where the runs begin.
    """

    def __init__(self, delta: NDArray[Any]) -> None:
        self.held, self.at = delta.copy(), 0

    def period(self, step: int, delta: NDArray[Any]) -> Ints:
        """Steps (m,) since each was where it is after ``step`` steps, called with every one; 0 if it is not known."""
        back = np.asarray((delta == self.held).all(axis=1))
        period = np.where(back, step - self.at, 0)
        if step - self.at == _LOOK:
            self.held, self.at = delta.copy(), step
        return period

    def only(self, rows: Bools) -> None:
        """Go on with those rows."""
        self.held = self.held[rows]


def pgd(
    points: Points,
    delta: Float64,
    *,
    ball: Ball,
    steps: int,
    objective: Objective,
    ascent: Callable[[Model, Float64, Float64], Float64],
    stop_early: bool,
) -> Best:
    best, live, orbit = Best(delta.shape), np.arange(len(points)), Orbit(delta)
    for k in range(1, steps + 1):
        margin, score, gradient = points.scored(delta, objective)
        best.see(live, delta, margin)
        on = margin > 0 if stop_early else np.ones(len(live), dtype=bool)
        ahead = ball.project(points.x, delta + ascent(points.model, score, gradient))
        on &= orbit.period(k, ahead) == 0  # where it has been, it was seen
        if not on.all():
            points = points.only(on)
            live, ahead = _only(on, live, ahead)
            orbit.only(on)
        if not live.size:
            return best
        delta = ahead
    best.see(live, delta, points.value(delta))
    return best


def _checkpoints(steps: int) -> list[int]:
    """w_j = ceil(p_j steps), without w_0 = 0; rounded first, for 0.22 + 0.19 is not 0.41."""
    before, now, points = 0.0, 0.22, []
    while now <= 1.0 + 1e-9:
        points.append(math.ceil(round(now * steps, 9)))
        before, now = now, now + max(now - before - 0.03, 0.06)
    return points


def apgd(
    points: Points,
    delta: Float64,
    *,
    ball: Ball,
    steps: int,
    objective: Objective,
    rho: float = 0.75,
    momentum: float = 0.75,
) -> Best:
    best, live = Best(delta.shape), np.arange(len(points))
    # The steps go by the objective, the answer by the margin; where these are one, so are their best.
    top = best if points.model.outputs == 1 or objective == "margin" else Best(delta.shape)
    checkpoints, last_check = _checkpoints(steps), 0
    margin, score, gradient = points.scored(delta, objective)
    best.see(live, delta, margin)
    top.see(live, delta, score)
    previous, top_gradient, top_then = delta, gradient.copy(), score
    size = np.full(len(points), 2.0 * ball.eps)
    rises, halved = np.zeros(len(points)), np.zeros(len(points), dtype=bool)
    for k in range(1, steps + 1):
        if (margin <= 0).any():
            on = margin > 0
            points = points.only(on)
            live, score, size, rises, halved, top_then = _only(on, live, score, size, rises, halved, top_then)
            delta, previous, gradient, top_gradient = _only(on, delta, previous, gradient, top_gradient)
            if not live.size:
                break
        ahead = ball.project(points.x, delta + size[:, None] * ball.steepest(-gradient))
        weight = momentum if k > 1 else 1.0
        ahead = ball.project(points.x, delta + weight * (ahead - delta) + (1.0 - weight) * (delta - previous))
        previous, delta, before = delta, ahead, score
        if k == steps:
            best.see(live, delta, points.value(delta))
            break
        margin, score, gradient = points.scored(delta, objective)
        rises += score < before
        better = best.see(live, delta, margin)
        if top is not best:
            better = top.see(live, delta, score)
        top_gradient[better] = gradient[better]
        if k in checkpoints:
            stuck = (rises < rho * (k - last_check)) | (~halved & (top_then == top.margin[live]))
            # A point that is flipped is done at the next step; all others go on from their best.
            size, halved, top_then = np.where(stuck, 0.5 * size, size), stuck, top.margin[live]
            delta = np.where(stuck[:, None], top.delta[live], delta)
            gradient = np.where(stuck[:, None], top_gradient, gradient)
            score = np.where(stuck, top.margin[live], score)
            rises, last_check = np.zeros(len(live)), k
    return best


# ---- searches for minimal l2 norms: delta (m, D), 0 where nothing is found


def with_rivals(search: Search, points: Points, rivals: int) -> Float64:
    """The shortest of a search against all rivals at once and, of several outputs, of those against one at a time."""
    best = search(points)
    length = _norms(best)
    shortest = np.where(length > 0, length, np.inf)
    for pair in points.rivals(rivals):
        _shorter(best, shortest, np.arange(len(points)), search(pair))
    return best


def _shorter(best: Float64, shortest: Float64, rows: Ints, found: Float64) -> None:
    """Put what is found for the rows (0 where nothing) into ``best`` where it is shorter."""
    length = _norms(found)
    better = (length > 0) & (length < shortest[rows])
    best[rows[better]], shortest[rows[better]] = found[better], length[better]


def _farthest(x: Float64, bounds: tuple[float, float] | None) -> Float64:
    """Length (m,) beyond which nothing is sought."""
    if bounds is not None:
        return _norms(np.maximum(x - bounds[0], bounds[1] - x))
    return np.asarray(_FAR * (1.0 + _norms(x)))


def _annealed(first: float, last: float, k: int, steps: int) -> float:
    """From first to last by a cosine, as k goes from 0 to ``steps``."""
    return last + (first - last) * (1.0 + math.cos(math.pi * k / steps)) / 2.0


def _uphill(points: Points, gradient: Float64, seed: int, run: int) -> Float64:
    """Unit steps down the margin, (m, D); random ones where its gradient vanishes."""
    uphill = _unit(-gradient)
    lost = np.flatnonzero(~gradient.any(axis=1))
    if lost.size:
        uphill[lost] = _unit(points.only(lost).random(seed, run, gradient.shape[1]))
    return uphill


def ddn(
    points: Points,
    *,
    steps: int,
    gamma: float,
    init_eps: float,
    seed: int,
    bounds: tuple[float, float] | None,
    objective: Objective = "cross_entropy",
) -> Float64:
    x = points.x
    best, shortest = np.zeros_like(x), np.full(len(x), np.inf)
    farthest = _farthest(x, bounds)
    delta, radius = np.zeros_like(x), np.minimum(init_eps, farthest)
    for k in range(steps + 1):
        margin, _, gradient = points.scored(delta, objective) if k < steps else (points.value(delta), None, delta)
        flipped, length = margin <= 0, _norms(delta)
        better = flipped & (length < shortest)
        best[better], shortest[better] = delta[better], length[better]
        if k == steps:
            break
        radius = np.minimum(radius * np.where(flipped, 1.0 - gamma, 1.0 + gamma), farthest)
        step = _annealed(1.0, 0.01, k, steps) * _uphill(points, gradient, seed, k)
        delta = _clip(x, radius[:, None] * _unit(delta + step), bounds)
    return best


def fmn(
    points: Points,
    *,
    steps: int,
    step: float,
    gamma: float,
    seed: int,
    bounds: tuple[float, float] | None,
) -> Float64:
    x = points.x
    best, shortest = np.zeros_like(x), np.full(len(x), np.inf)
    farthest = _farthest(x, bounds)
    delta, radius = np.zeros_like(x), farthest.copy()
    for k in range(steps + 1):
        margin, gradient = points.both(delta) if k < steps else (points.value(delta), delta)
        flipped, length = margin <= 0, _norms(delta)
        better = flipped & (length < shortest)
        best[better], shortest[better] = delta[better], length[better]
        if k == steps:
            break
        share = _annealed(gamma, _LAST_GAMMA, k, steps)
        slope = _norms(gradient)
        ahead = np.where(slope > 0, length + np.abs(margin) / np.where(slope > 0, slope, 1.0), farthest)
        larger = np.where(np.isfinite(shortest), radius * (1.0 + share), ahead)
        radius = np.where(flipped, np.minimum(radius * (1.0 - share), shortest), np.minimum(larger, farthest))
        delta = delta + _annealed(step, step * _LAST_STEP, k, steps) * _uphill(points, gradient, seed, k)
        length = _norms(delta)
        delta = _clip(x, delta * (radius / np.maximum(length, radius))[:, None], bounds)
    return best


@dataclass(frozen=True, eq=False)
class Centers:
    """Unit centres (K, D), their lengths (K,) and labels (K,), coded as those of the points are."""

    units: Float64
    lengths: Float64
    labels: NDArray[Any]

    @classmethod
    def of(cls, centers: ArrayLike, center_labels: ArrayLike, model: Model, data: NDArray[Any]) -> Centers:
        array = np.asarray(_arrays.real_array(centers, "centers", dtype=np.float64, ndim=2), dtype=np.float64)
        if array.shape[1] != data.shape[1]:
            raise ValueError(f"centers must have shape (K, {data.shape[1]}) to match X, got {array.shape}")
        lengths = _norms(array)
        if not lengths.all():
            raise ValueError(f"centers must not be 0, but centers[{int(np.argmin(lengths))}] is")
        return cls(_unit(array), lengths, model.targets(center_labels, n=len(array), name="center_labels"))

    def own(self, x: Float64, y: Any) -> Float64:
        """Unit own centres (m, D); 0 where no centre has the label."""
        products = np.where(self.labels == y[:, None], x @ self.units.T, -np.inf)
        exists = (self.labels == y[:, None]).any(axis=1)
        return np.asarray(self.units[np.argmax(products, axis=1)] * exists[:, None])

    def rivals(self, x: Float64, y: Any) -> tuple[Ints, Ints]:
        """Numbers of the rival centres, nearest first (m, K), and how many there are (m,)."""
        rival = self.labels != y[:, None]
        order = np.argsort(np.where(rival, -(x @ self.units.T), np.inf), axis=1, kind="stable")
        return order, rival.sum(axis=1)

    def ray(self, x: Float64, own: Float64, rival: Ints, variant: Ints) -> Float64:
        """Unit directions (m, D): swaps at angle _TURNS[variant], or, for the variant after those, to mu_rival."""
        towards = variant == len(_TURNS)
        t = np.where(towards, 0.0, np.append(_TURNS, 0.0)[variant])
        weight = np.where(towards, self.lengths[rival], np.sin(t))[:, None]
        return _unit(weight * self.units[rival] - np.where(towards[:, None], x, np.cos(t)[:, None] * own))


def swap_options(starts: Any, steps: Any, restarts: Any, seed: Any, rivals: Any) -> dict[str, Any]:
    return {
        "rivals": _arrays.integer(rivals, "rivals", minimum=0),
        "starts": _arrays.integer(starts, "starts", minimum=1),
        "steps": _arrays.integer(steps, "steps", minimum=0),
        "restarts": _arrays.integer(restarts, "restarts", minimum=0),
        "seed": _arrays.integer(seed, "seed", minimum=0, maximum=_arrays.UINT64),
    }


def swap(
    points: Points,
    *,
    mixture: Centers | None,
    starts: int,
    steps: int,
    restarts: int,
    seed: int,
    rivals: int,
    first: Float64 | None = None,
) -> Float64:
    best, shortest = np.zeros_like(points.x), np.full(len(points), np.inf)
    for direction, length in _starts(points, mixture, starts, restarts, seed, first, shortest):
        some = np.flatnonzero(np.isfinite(length))
        if some.size:
            _shorter(best, shortest, some, _refine(points.only(some), direction[some], length[some], steps))
    for pair in points.rivals(rivals):
        direction = _unit(-pair.both(np.zeros_like(pair.x))[1])
        length = _first_crossing(pair, direction, 2.0 * shortest)
        some = np.flatnonzero(np.isfinite(length))
        if some.size:
            _shorter(best, shortest, some, _refine(pair.only(some), direction[some], length[some], steps))
    some = np.flatnonzero(np.isfinite(shortest))
    if some.size:
        direction = _unit(best[some])
        length = _boundary(points.only(some), direction, np.zeros(len(some)), shortest[some], 48)
        best[some] = length[:, None] * direction
    return best


def _starts(
    points: Points,
    mixture: Centers | None,
    starts: int,
    restarts: int,
    seed: int,
    first: Float64 | None,
    shortest: Float64,
) -> Iterator[tuple[Float64, Float64]]:
    """Directions (m, D) and lengths (m,) that flip, inf where none is known.

    ``shortest`` (m,) is what the caller knows by now: no ray is followed beyond twice that, for a longer start may well
    be refined into a shorter way.
    """
    x, y = points.x, points.y
    if first is not None:
        length = _norms(first)
        yield _unit(first), np.where(length > 0, length, np.inf)
    downhill = _unit(-points.both(np.zeros_like(x))[1])
    for direction in (downhill, _unit(-x)):
        yield direction, _first_crossing(points, direction, 2.0 * shortest)
    base, centers = downhill, 0
    if mixture is not None:
        own, centers = mixture.own(x, y), len(mixture.labels)
        order, reach, variant = _rays(points, mixture, own, 2.0 * shortest)
        some = np.arange(len(points))
        for j in np.argsort(reach, axis=0, kind="stable")[:starts]:
            yield mixture.ray(x, own, order[some, j], variant[j, some]), reach[j, some]
    for run in range(restarts):
        noise = points.random(seed, run, x.shape[1] + centers)
        if mixture is not None:
            weights = np.where(mixture.labels == y[:, None], 0.0, noise[:, x.shape[1] :] ** 2)
            base = _unit(_unit(weights @ mixture.units) - own)
        direction = _unit(base + 0.5 * _unit(noise[:, : x.shape[1]]))
        yield direction, _first_crossing(points, direction, 2.0 * shortest)


def _rays(points: Points, mixture: Centers, own: Float64, limit: Float64) -> tuple[Ints, Float64, Ints]:
    """Rivals of each point, nearest first (m, K), the length of the best ray to each (K, m), inf if none; and which."""
    order, count = mixture.rivals(points.x, points.y)
    reach = np.full((int(count.max()), len(points)), np.inf)
    variant = np.zeros(reach.shape, dtype=np.int64)
    for j in range(len(reach)):
        for v in range(len(_TURNS) + 1):
            direction = mixture.ray(points.x, own, order[:, j], np.full(len(points), v))
            length = _first_crossing(points, direction, np.where(j < count, limit, 0.0))
            better = length < reach[j]
            reach[j, better], variant[j, better] = length[better], v
    return order, reach, variant


def _first_crossing(points: Points, direction: Float64, limit: Float64) -> Float64:
    """Length (m,) at which the rays are flipped, at most ``limit``, inf where they are not.

    Where ``limit`` is inf, lengths are doubled from a small one.
    """
    scale = 1.0 + _norms(points.x)
    length, low = np.full(len(points), np.inf), np.zeros(len(points))
    trial = np.where(np.isfinite(limit), limit, scale / 64.0)
    live = np.flatnonzero(direction.any(axis=1) & (limit > 0))
    while live.size:
        flipped = points.only(live).value(trial[live, None] * direction[live]) <= 0
        length[live[flipped]] = trial[live[flipped]]
        live = live[~flipped & np.isinf(limit[live]) & (trial[live] < _FAR * scale[live])]
        low[live], trial[live] = trial[live], 2.0 * trial[live]
    some = np.flatnonzero(np.isfinite(length))
    if some.size:
        length[some] = _boundary(points.only(some), direction[some], low[some], length[some], 6)
    return length


def _boundary(points: Points, direction: Float64, low: Float64, high: Float64, iterations: int) -> Float64:
    """Shorten ``high`` (m,), flipped, towards ``low``, not flipped, along unit directions; stays flipped.

    False position that halves the value of an end that stays (Illinois), with a bisection every third time. Where f is
    0 at ``high``, which may lie deep in a region where f is, only bisections, and as many as it takes.
    """
    low, high = low.copy(), high.copy()
    above, below = (points.value(t[:, None] * direction) for t in (low, high))
    stayed = np.zeros(len(points))
    for k in range(max(iterations, 48)):
        live = np.flatnonzero((high - low > 1e-14 * high) & ((below == 0) | (k < iterations)))
        if not live.size:
            break
        secant = np.clip(above[live] / (above[live] - below[live]), 1e-3, 1.0 - 1e-3)
        share = np.where((below[live] < 0) & (k % 3 < 2), secant, 0.5)
        middle = low[live] + share * (high[live] - low[live])
        value = points.only(live).value(middle[:, None] * direction[live])
        for moves, side, end, at_end, at_other in (
            (value <= 0, 1.0, high, below, above),
            (value > 0, -1.0, low, above, below),
        ):
            moved = live[moves]
            end[moved], at_end[moved] = middle[moves], value[moves]
            at_other[moved] *= np.where(stayed[moved] == side, 0.5, 1.0)
            stayed[moved] = side
    return high


def _refine(points: Points, direction: Float64, length: Float64, steps: int) -> Float64:
    """Shorten flipped perturbations length (m,) * direction (m, D): minimal-norm steps on f = 0.

    The shortest way to {f = 0}, linearised at a boundary point, goes along the gradient there.
    """
    direction = direction.copy()
    length = _boundary(points, direction, np.zeros(len(points)), length, 12)
    turn, live = np.ones(len(points)), np.arange(len(points))
    for _ in range(steps):
        at, along, reach = points.only(live), direction[live], length[live]
        # A hair before the boundary: beyond it f and its gradient may vanish.
        uphill = _unit(-at.both((reach * (1.0 - 1e-7))[:, None] * along)[1])
        trial = _unit(along + turn[live, None] * (uphill - along))
        # Worth following only if the boundary is nearer along it.
        aim = reach * (1.0 - 1e-12)
        helps = np.flatnonzero(at.value(aim[:, None] * trial) <= 0)
        turn[live] *= 0.5
        slow = np.asarray(~uphill.any(axis=1))
        if helps.size:
            better = live[helps]
            length[better] = _boundary(at.only(helps), trial[helps], np.zeros(len(helps)), aim[helps], 12)
            direction[better] = trial[helps]
            turn[better] = np.minimum(1.0, 4.0 * turn[better])
            slow[helps] |= length[better] > reach[helps] * (1.0 - 1e-10)
        live = live[(turn[live] > 1e-3) & ~slow]
        if not live.size:
            break
    return length[:, None] * direction
