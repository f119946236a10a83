"""How the attacks search: points in blocks, the ball, and the loops over iterates; ``attacks`` says what they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays
from preluflow._arrays import Float64
from preluflow.network import TwoLayerNetwork
from preluflow.typing import Norm

NORMS: tuple[Norm, ...] = get_args(Norm)

_ROWS = 512  # points handled at a time: memory does not grow with n
_INSIDE = 1.0 - 1e-13  # the ball is shrunk by this, so that no way of summing squares finds a point outside
_FAR = 1e6  # minimal norms are sought up to this many times 1 + ||x||
_TURNS = (math.pi / 8, math.pi / 4, 3 * math.pi / 8, math.pi / 2)
_STRETCHES = (0.0, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9)

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Search = Callable[["Points"], Float64]


@dataclass(frozen=True, eq=False)
class Attack:
    """What an attack found.

    Attributes
    ----------
    delta : ndarray, shape (n, D)
        Perturbations, float64. Of attacks within a ball, the iterate of the lowest y f, flipped or not; of minimal-norm
        attacks the shortest that flips, 0 where none was found. 0 where the point is wrong to begin with.
    success : ndarray of bool, shape (n,)
        Whether y f(x + delta) <= 0, evaluated on x + delta in float64; true where the point is wrong to begin with.
    norms : ndarray, shape (n,)
        Of ``delta``, l2 or l-infinity as asked; of minimal-norm attacks inf where none was found.
    gradients : int
        Gradients evaluated, summed over the points.
    """

    delta: Float64
    success: Bools
    norms: Float64
    gradients: int

    @property
    def accuracy(self) -> float:
        """Share of points that survive."""
        return float(1.0 - np.mean(self.success))

    def __repr__(self) -> str:
        """Show how many survive."""
        return f"Attack({len(self.success)} points, accuracy {self.accuracy:.4f}, {self.gradients} gradients)"


# ---- the classifier, the points and the ball


class Margin:
    """The classifier in float64, every gradient counted.

    A TwoLayerNetwork is rescaled, so that its sign survives where f underflows: f = exp(log_scale) times what is here.
    """

    def __init__(self, classifier: Any) -> None:
        self.log_scale = 0.0
        self.gradients = 0
        if isinstance(classifier, type):
            raise TypeError(f"classifier must be an object, not the class {classifier.__name__}")
        if isinstance(classifier, TwoLayerNetwork):
            rescaled, self.log_scale = classifier.rescaled()
            classifier = rescaled.astype("float64")
        for name in ("decision_function", "input_gradient"):
            if not callable(getattr(classifier, name, None)):
                raise TypeError(f"classifier must have a method {name}, but {type(classifier).__name__} has none")
        self.classifier = classifier

    def value(self, x: Float64) -> Float64:
        """Evaluate f at x (m, D), shape (m,)."""
        return _output(self.classifier.decision_function(x), "decision_function", x.shape[:1])

    def both(self, x: Float64) -> tuple[Float64, Float64]:
        """Evaluate f at x (m, D), shape (m,), and its gradient (m, D)."""
        self.gradients += len(x)
        if callable(getattr(self.classifier, "value_and_input_gradient", None)):
            f, gradient = self.classifier.value_and_input_gradient(x)
        else:
            f, gradient = self.classifier.decision_function(x), self.classifier.input_gradient(x)
        return _output(f, "decision_function", x.shape[:1]), _output(gradient, "input_gradient", x.shape)


def _output(array: ArrayLike, name: str, shape: tuple[int, ...]) -> Float64:
    result = np.asarray(array, dtype=np.float64)
    if result.shape != shape:
        raise ValueError(f"classifier.{name} must return shape {shape}, got {result.shape}")
    if not np.isfinite(result).all():
        raise ValueError(f"classifier.{name} returned values that are not finite")
    return result


@dataclass(frozen=True, eq=False)
class Points:
    """Points x (m, D) under attack, their labels y (m,) and their numbers in the whole."""

    model: Margin
    x: Float64
    y: Float64
    rows: Ints

    def __len__(self) -> int:
        return len(self.x)

    def only(self, which: Any) -> Points:
        """Those of an index array or a mask."""
        return Points(self.model, self.x[which], self.y[which], self.rows[which])

    def value(self, delta: Float64) -> Float64:
        """Evaluate y f at x + delta, shape (m,)."""
        return self.y * self.model.value(self.x + delta)

    def both(self, delta: Float64) -> tuple[Float64, Float64]:
        """Evaluate y f at x + delta, shape (m,), and its gradient (m, D)."""
        f, gradient = self.model.both(self.x + delta)
        return self.y * f, self.y[:, None] * gradient

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


def run(classifier: Any, X: ArrayLike, y: ArrayLike, search: Search, ball: Ball) -> Attack:
    """Search, in blocks, for perturbations of the points that are right, and judge what comes back.

    Of minimal norms (``ball.eps`` infinite) what does not flip is dropped.
    """
    model = Margin(classifier)
    data = _arrays.points(X)
    target = _arrays.labels(y, n=len(data))
    if ball.bounds is not None and not (ball.bounds[0] <= data.min() and data.max() <= ball.bounds[1]):
        raise ValueError(f"X must lie within bounds {ball.bounds}, got values from {data.min()} to {data.max()}")
    minimal = math.isinf(ball.eps)
    delta = np.zeros(data.shape)
    success = np.ones(len(data), dtype=bool)
    for first in range(0, len(data), _ROWS):
        rows = np.arange(first, min(first + _ROWS, len(data)))
        block = Points(model, data[rows].astype(np.float64), target[rows], rows)
        block = block.only(block.value(np.zeros(1)) > 0)
        if not len(block):
            continue
        found = search(block)
        success[block.rows] = False
        # Minimal norms end on the boundary, where rounding may say otherwise another time: go a hair further.
        for stretch in _STRETCHES if minimal else (0.0,):
            trial = _clip(block.x, found * (1.0 + stretch), ball.bounds)
            flipped = block.value(trial) <= 0
            success[block.rows] = flipped
            kept = flipped if minimal else np.ones(len(block), dtype=bool)
            delta[block.rows[kept]] = trial[kept]
            block, found = block.only(~flipped), found[~flipped]
            if not len(block):
                break
    norms = _norms(delta, ball.norm)
    if minimal:
        norms[~success] = np.inf
    return Attack(delta, success, norms, model.gradients)


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
    """The iterate of the lowest y f for each point."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.delta, self.margin = np.zeros(shape), np.full(shape[0], np.inf)

    def see(self, live: Ints, delta: Float64, margin: Float64) -> Bools:
        """Take iterates of the points ``live`` into account; returns where they are better."""
        better = margin < self.margin[live]
        self.delta[live[better]], self.margin[live[better]] = delta[better], margin[better]
        return np.asarray(better)


def pgd(
    points: Points,
    delta: Float64,
    *,
    ball: Ball,
    steps: int,
    ascent: Callable[[float, Float64, Float64], Float64],
    stop_early: bool,
) -> Best:
    best, live = Best(delta.shape), np.arange(len(points))
    for _ in range(steps):
        margin, gradient = points.both(delta)
        best.see(live, delta, margin)
        if stop_early and (margin <= 0).any():
            on = margin > 0
            points = points.only(on)
            live, delta, margin, gradient = _only(on, live, delta, margin, gradient)
            if not live.size:
                return best
        delta = ball.project(points.x, delta + ascent(points.model.log_scale, margin, gradient))
    best.see(live, delta, points.value(delta))
    return best


def _checkpoints(steps: int) -> list[int]:
    """w_j = ceil(p_j steps), without w_0 = 0; rounded first, for 0.22 + 0.19 is not 0.41."""
    before, now, points = 0.0, 0.22, []
    while now <= 1.0 + 1e-9:
        points.append(math.ceil(round(now * steps, 9)))
        before, now = now, now + max(now - before - 0.03, 0.06)
    return points


def apgd(points: Points, delta: Float64, *, ball: Ball, steps: int, rho: float, momentum: float) -> Best:
    best, live = Best(delta.shape), np.arange(len(points))
    checkpoints, last_check = _checkpoints(steps), 0
    margin, gradient = points.both(delta)
    best.see(live, delta, margin)
    previous, top_gradient, top_then = delta, gradient.copy(), margin
    size = np.full(len(points), 2.0 * ball.eps)
    rises, halved = np.zeros(len(points)), np.zeros(len(points), dtype=bool)
    for k in range(1, steps + 1):
        if (margin <= 0).any():
            on = margin > 0
            points = points.only(on)
            live, margin, size, rises, halved, top_then = _only(on, live, margin, size, rises, halved, top_then)
            delta, previous, gradient, top_gradient = _only(on, delta, previous, gradient, top_gradient)
            if not live.size:
                break
        ahead = ball.project(points.x, delta + size[:, None] * ball.steepest(-gradient))
        weight = momentum if k > 1 else 1.0
        ahead = ball.project(points.x, delta + weight * (ahead - delta) + (1.0 - weight) * (delta - previous))
        previous, delta, before = delta, ahead, margin
        margin, gradient = points.both(delta) if k < steps else (points.value(delta), gradient)
        rises += margin < before
        better = best.see(live, delta, margin)
        top_gradient[better] = gradient[better]
        if k in checkpoints and k < steps:
            stuck = (rises < rho * (k - last_check)) | (~halved & (top_then == best.margin[live]))
            # A point that is flipped is done at the next step; all others go on from their best.
            size, halved, top_then = np.where(stuck, 0.5 * size, size), stuck, best.margin[live]
            delta = np.where(stuck[:, None], best.delta[live], delta)
            gradient = np.where(stuck[:, None], top_gradient, gradient)
            margin = np.where(stuck, best.margin[live], margin)
            rises, last_check = np.zeros(len(live)), k
    return best


# ---- searches for minimal l2 norms: delta (m, D), 0 where nothing is found


def ddn(
    points: Points,
    *,
    steps: int,
    gamma: float,
    init_eps: float,
    seed: int,
    bounds: tuple[float, float] | None,
) -> Float64:
    x = points.x
    best, shortest = np.zeros_like(x), np.full(len(x), np.inf)
    farthest = _FAR * (1.0 + _norms(x))
    if bounds is not None:
        farthest = _norms(np.maximum(x - bounds[0], bounds[1] - x))
    delta, radius = np.zeros_like(x), np.minimum(init_eps, farthest)
    for k in range(steps + 1):
        margin, gradient = points.both(delta) if k < steps else (points.value(delta), delta)
        flipped, length = margin <= 0, _norms(delta)
        better = flipped & (length < shortest)
        best[better], shortest[better] = delta[better], length[better]
        if k == steps:
            break
        uphill = _unit(-gradient)
        lost = np.flatnonzero(~gradient.any(axis=1))
        if lost.size:
            uphill[lost] = _unit(points.only(lost).random(seed, k, x.shape[1]))
        rate = 0.01 + 0.99 * (1.0 + math.cos(math.pi * k / steps)) / 2.0
        radius = np.minimum(radius * np.where(flipped, 1.0 - gamma, 1.0 + gamma), farthest)
        delta = _clip(x, radius[:, None] * _unit(delta + rate * uphill), bounds)
    return best


@dataclass(frozen=True, eq=False)
class Centers:
    """Unit centres (K, D), their lengths (K,) and labels (K,)."""

    units: Float64
    lengths: Float64
    labels: Float64

    @classmethod
    def of(cls, centers: ArrayLike, center_labels: ArrayLike, X: ArrayLike) -> Centers:
        array = np.asarray(_arrays.real_array(centers, "centers", dtype=np.float64, ndim=2), dtype=np.float64)
        shape = np.shape(_arrays.as_array(X, "X"))
        if len(shape) == 2 and array.shape[1] != shape[1]:
            raise ValueError(f"centers must have shape (K, {shape[1]}) to match X, got {array.shape}")
        lengths = _norms(array)
        if not lengths.all():
            raise ValueError(f"centers must not be 0, but centers[{int(np.argmin(lengths))}] is")
        return cls(_unit(array), lengths, _arrays.labels(center_labels, n=len(array), name="center_labels"))

    def own(self, x: Float64, y: Float64) -> Float64:
        """Unit own centres (m, D); 0 where no centre has the label."""
        products = np.where(self.labels == y[:, None], x @ self.units.T, -np.inf)
        exists = (self.labels == y[:, None]).any(axis=1)
        return np.asarray(self.units[np.argmax(products, axis=1)] * exists[:, None])

    def rivals(self, x: Float64, y: Float64) -> tuple[Ints, Ints]:
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


def swap_options(starts: Any, steps: Any, restarts: Any, seed: Any) -> dict[str, Any]:
    return {
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
    first: Float64 | None = None,
) -> Float64:
    best, shortest = np.zeros_like(points.x), np.full(len(points), np.inf)
    for direction, length in _starts(points, mixture, starts, restarts, seed, first, shortest):
        some = np.flatnonzero(np.isfinite(length))
        if some.size:
            found = _refine(points.only(some), direction[some], length[some], steps)
            better = _norms(found) < shortest[some]
            best[some[better]] = found[better]
            shortest[some[better]] = _norms(found[better])
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
