"""What MV25 proves and what follows from it, as numbers to hold a measurement against.

Everything is float64 and needs no data: the nominal dynamics at alpha = 0, the phases of a run, the propositions on
robustness, and the exact robust accuracy of the nearest-cluster rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays
from preluflow._arrays import Float64
from preluflow._dispatch import core
from preluflow.data import OrthonormalGMM
from preluflow.initialization import VOID
from preluflow.network import LOSSES
from preluflow.results import Run
from preluflow.typing import Loss

# sum_i |r_i| at f = 0: the rate of the alignment phase (Prop. 4).
RATE = {"squared": 2.0, "exponential": 1.0, "logistic": 0.5}

MAX_RADIUS = math.sqrt(0.5)  # no classifier keeps its accuracy beyond (Prop. 1)


# ---- nominal dynamics (alpha = 0)


def nominal_alignment(t: ArrayLike, c0: ArrayLike, *, clusters: int, p: float = 3.0, loss: Loss = "squared") -> Float64:
    """Cosine c(t) of a neuron that has one positive cosine of its own class, while f ~ 0 (Prop. 4, eq. 13; alpha = 0).

    c' = (C p / K) c^(p-1) (1 - c^2) with C = 2, 1, 0.5 for the squared, exponential and logistic loss; for p = 3,
    artanh(c) - 1/c grows by 3 C t / K.

    Parameters
    ----------
    t : array, shape (S,)
        Times, not negative.
    c0 : float or array, shape (m,)
        Cosines at t = 0, in (0, 1).
    clusters : int
        K.
    p : float, default 3
        Degree of the activation.
    loss : {"squared", "exponential", "logistic"}
        As in ``gradient_flow``.

    Returns
    -------
    ndarray, shape (S,) or (S, m)

    Raises
    ------
    ValueError, TypeError
        If a time is negative, or too late to be reached (for slow neurons, far beyond 1e6), c0 is outside (0, 1),
        p < 1 or clusters < 1.

    Examples
    --------
    >>> pf.theory.nominal_alignment([0.0, 20.0], 0.2, clusters=10, p=3).round(3).tolist()
    [0.2, 1.0]
    """
    times = _times(t)
    start = np.atleast_1d(_arrays.numbers_in(c0, "c0"))
    if not start.size or np.any((start <= 0) | (start >= 1)):
        raise ValueError(f"c0 must be in (0, 1), got {_arrays.shown(c0)}")
    p = _arrays.real(p, "p", minimum=1.0)
    rate = RATE[_arrays.choice(loss, "loss", LOSSES)] * p / _arrays.integer(clusters, "clusters", minimum=1)
    # In x = artanh(c) the equation is x' = rate tanh(x)^(p-1): smooth and bounded.
    x = _integrate(
        lambda x: rate * np.tanh(x) ** (p - 1.0),
        np.arctanh(start)[:, None],
        times,
        0.02 / rate,
        rested=lambda x, slope, left: x[:, 0] > 20.0,  # tanh is 1 there
    )[:, :, 0]
    return np.asarray(np.tanh(x) if np.ndim(c0) else np.tanh(x)[:, 0])


def nominal_cosines(
    t: ArrayLike,
    cosines: ArrayLike,
    sign: ArrayLike,
    labels: ArrayLike,
    *,
    p: float = 3.0,
    loss: Loss = "squared",
) -> Float64:
    """Cosines with all centres of neurons that move alone, while f ~ 0 (docs/mathematics.md#nominal).

    c_k' = (C p / K) s (y_k [c_k]_+^(p-1) - c_k sum_l y_l [c_l]_+^p).

    Parameters
    ----------
    t : array, shape (S,)
        Times, not negative.
    cosines : array, shape (h, K)
        At t = 0; ``center_cosines(network, gmm)``.
    sign : array, shape (h,)
        Signs of the output weights.
    labels : array, shape (K,)
        ``gmm.labels``.
    p : float, default 3
        Degree of the activation.
    loss : {"squared", "exponential", "logistic"}
        As in ``gradient_flow``.

    Returns
    -------
    ndarray, shape (S, h, K)

    Examples
    --------
    >>> start = [[0.3, 0.2, 0.1]]  # one neuron, three centres: the largest of its own class wins
    >>> pf.theory.nominal_cosines([0.0, 20.0], start, [1.0], [1.0, 1.0, -1.0], p=3)[-1].round(3).tolist()
    [[1.0, 0.0, 0.0]]
    """
    times = _times(t)
    start = _arrays.real_array(cosines, "cosines", dtype=np.float64, ndim=2).astype(np.float64)
    s = _arrays.real_array(sign, "sign", dtype=np.float64, ndim=1)[:, None]
    y = _arrays.labels(labels, n=start.shape[1], name="labels")[None, :]
    if len(s) != len(start):
        raise ValueError(f"sign must have shape ({len(start)},) to match cosines, got ({len(s)},)")
    p = _arrays.real(p, "p", minimum=1.0)
    rate = RATE[_arrays.choice(loss, "loss", LOSSES)] * p / start.shape[1]

    def field(c: Float64) -> Float64:
        positive = np.maximum(c, 0.0)
        power = np.where(c > 0, positive ** (p - 1.0), 0.0)
        return np.asarray(rate * s * (y * power - c * (y * power * positive).sum(axis=1, keepdims=True)))

    def rested(c: Float64, slope: Float64, left: Float64) -> NDArray[np.bool_]:
        """Whether a neuron's cosines keep their digits for ever: constant, vanished, or at a stable fixed point."""
        pull = (s * y * np.maximum(c, 0.0) ** p).sum(axis=1, keepdims=True)
        growing, speed = c * slope > 0, np.abs(slope)
        still = speed * left[:, None] <= 1e-15 * np.abs(c)
        vanished = ~growing & (np.abs(c) <= 1e-30)
        settled = (pull > 1e-3) & (speed <= 1e-11 * rate * pull * np.where(growing, np.abs(c), 1.0))
        return np.asarray((still | vanished | settled).all(axis=1))

    # Below degree 2 cosines reach and leave 0 in finite time, and need no digits there; above, all of them.
    return _integrate(field, start, times, 0.02 / rate, rested, least=1e-3 if p < 2.0 else 1e-200)


def nominal_norm(t: ArrayLike, log_Z0: float, *, clusters: int, loss: Loss = "squared") -> Float64:
    """Z(t) = sum over a cluster's neurons of ||w_j||^2, all aligned with its centre (eq. 14; balanced, alpha = 0).

    Z' = (4/K) (1 - Z) Z, (2/K) Z e^(-Z), (2/K) Z / (1 + e^Z) for the squared, exponential and logistic loss. The
    paper's time for the squared loss is 2 t / K.

    Parameters
    ----------
    t : array, shape (S,)
        Times since Z = Z0, not negative.
    log_Z0 : float
        log Z0, so that an initialisation of 1e-300 is an ordinary number.
    clusters : int
        K.
    loss : {"squared", "exponential", "logistic"}
        As in ``gradient_flow``.

    Returns
    -------
    ndarray, shape (S,)

    Examples
    --------
    >>> pf.theory.nominal_norm(10 / 4 * np.log(99.0), np.log(0.01), clusters=10).round(6).tolist()
    [0.5]
    """
    times = _times(t)
    log_Z0 = _arrays.real(log_Z0, "log_Z0")
    K = _arrays.integer(clusters, "clusters", minimum=1)
    loss = _arrays.choice(loss, "loss", LOSSES)
    if loss == "squared":
        # Z = 1 / (1 + (1/Z0 - 1) e^(-4t/K)), in logarithms.
        if log_Z0 == 0.0:
            return np.ones_like(times)
        excess = (math.log(abs(math.expm1(-log_Z0))) if log_Z0 > -700.0 else -log_Z0) - 4.0 * times / K
        if log_Z0 < 0.0:
            return np.asarray(np.exp(-np.logaddexp(0.0, excess)))
        with np.errstate(divide="ignore", over="ignore"):  # Z0 beyond float64 is inf
            return np.asarray(-1.0 / np.expm1(excess))

    def field(y: Float64) -> Float64:
        if loss == "exponential":
            return np.asarray((2.0 / K) * np.exp(-np.exp(y)))
        return np.asarray((2.0 / K) / (1.0 + np.exp(np.exp(y))))

    with np.errstate(over="ignore"):  # e^(e^y): the slope is 0 there
        log_Z = _integrate(field, np.array([[log_Z0]]), times, 0.02 * K, least=1.0)
        return np.asarray(np.exp(log_Z[:, 0, 0]))


Field = Callable[[Float64], Float64]
Rested = Callable[[Float64, Float64, Float64], NDArray[np.bool_]]

_MOST_STEPS = 20_000  # of a fixed length
_MOST_MORE = 4000  # of adaptive length
_DOP853 = next(method for method in core.tableaus() if method["name"] == "dop853")


def _times(t: ArrayLike) -> Float64:
    times = np.atleast_1d(_arrays.numbers_in(t, "t"))
    if not times.size:
        raise ValueError("t must not be empty")
    if times.min() < 0:
        raise ValueError(f"t must not be negative, got {times.min():g}")
    return times


def _integrate(
    field: Field,
    start: Float64,
    times: Float64,
    step: float,
    rested: Rested | None = None,
    least: float = 1e-200,
) -> Float64:
    """Solve y' = field(y), row by row of y (m, k), and return y at ``times``, (S, m, k).

    Until ``_MOST_STEPS`` steps by the classical Runge-Kutta method, of a fixed length; later times by ``_far``.
    """
    order, y, now = np.argsort(times, kind="stable"), start, 0.0
    out = np.empty((len(times), *start.shape))
    for index in order:
        span = times[index] - now
        if times[index] > _MOST_STEPS * step:
            y = _far(field, y, span, step, rested, least)
        elif span > 0:
            count = max(1, math.ceil(span / step))
            h = span / count
            for _ in range(count):
                k1 = field(y)
                k2 = field(y + 0.5 * h * k1)
                k3 = field(y + 0.5 * h * k2)
                y = y + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + field(y + h * k3))
        now = times[index]
        out[index] = y
    return out


def _far(
    field: Field, y: Float64, span: float, step: float, rested: Rested | None, least: float, rtol: float = 1e-12
) -> Float64:
    """Go on for ``span`` by Dormand and Prince's 8(5,3), every row of y (m, k) with steps of its own.

    Errors are relative to y, but not to less than ``least``. The solutions here slow down, grow like powers of t, or
    come to rest, after which ``rested`` (of y, its slope and the time left) leaves them alone: steps grow with t.
    """
    a, b, e = _DOP853["a"], np.array(_DOP853["b"]), np.array(_DOP853["e"][0])
    left, h = np.full(len(y), span), np.full(len(y), step)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for _ in range(_MOST_MORE):
            slopes = [field(y)]
            if rested is not None:
                left[rested(y, slopes[0], left)] = 0.0
            if not left.any():
                return y
            h = np.minimum(h, left)
            for row in a:
                slopes.append(field(y + h[:, None] * sum(w * k for w, k in zip(row, slopes, strict=True) if w)))
            ahead = y + h[:, None] * np.tensordot(b, slopes, 1)
            slopes.append(field(ahead))
            wrong = np.abs(h[:, None] * np.tensordot(e, slopes[: len(e)], 1))
            size = np.maximum(np.maximum(np.abs(y), np.abs(ahead)), least)
            error = np.nan_to_num((wrong / (rtol * size)).max(axis=1), nan=np.inf)
            taken = (error <= 1.0) & (left > 0)
            y = np.where(taken[:, None], ahead, y)
            left[taken & (h >= left)] = 0.0
            left[taken] = np.maximum(left[taken] - h[taken], 0.0)
            h = h * np.clip(0.9 * np.maximum(error, 1e-30) ** (-1.0 / 8.0), 0.2, 5.0)
    raise ValueError(f"t must be smaller for this p: {_MOST_MORE} steps do not reach {span:g}")


# ---- what a run does


def _observed(run: Run, *names: str) -> list[NDArray[Any]]:
    """The records of those names, of a run that has them and a stop at least."""
    _arrays.instance(run, "run", Run)
    missing = [name for name in names if name not in run]
    if missing:
        raise ValueError(
            f"run must have {', '.join(map(repr, missing))} observed, it has {', '.join(run) or 'nothing'}"
        )
    if not len(run.t):
        raise ValueError("run must have at least one stop, it has none")
    return [run[name] for name in names]


def target_agreement(run: Run) -> Float64:
    """Share of neurons whose Voronoi region at each stop is the one they end in: how well Def. 1 predicts the target.

    Parameters
    ----------
    run : Run
        With ``"target"`` observed.

    Returns
    -------
    ndarray, shape (S,)
        Over the neurons that are not void at the end; NaN if all are. The prediction for a network by itself is
        ``voronoi_regions``.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> look = pf.Observe(every=15.0, what=["loss", "target"], gmm=gmm)
    >>> run = pf.gradient_flow(net, data.X, data.y, t1=30, observe=look)
    >>> pf.theory.target_agreement(run)[-1].tolist()
    1.0
    """
    target = _observed(run, "target")[0]
    kept = target[-1] != VOID
    if not kept.any():
        return np.full(len(target), np.nan)
    return np.asarray((target[:, kept] == target[-1, kept]).mean(axis=1))


@dataclass(frozen=True)
class PhaseTimes:
    """When the phases of a run ended; NaN for what it did not see.

    The paper names the times and bounds them but cannot say how to read them off a run; these are our readings.

    Attributes
    ----------
    t1 : float
        Alignment is over: in every cluster the mean of cos(mu_k, w_j), weighted by ||w_j||^2, exceeds 1 - tau for good.
    t2 : float
        The loss begins to fall: it is below (1 - tau) times its start.
    t_star : float
        F^(p) is reached: every cluster's Z_k = sum ||w_j||^2 is within tau of 1.
    T_star : float
        End of the window: the last time they all are; the end of the run if they still are.

    Examples
    --------
    >>> times = pf.theory.PhaseTimes(t1=10.0, t2=40.0, t_star=60.0, T_star=90.0)
    >>> times.T_star - times.t_star  # how long the window of Theorem 1 lasts
    30.0
    """

    t1: float
    t2: float
    t_star: float
    T_star: float


def phase_times(run: Run, tau: float = 0.05) -> PhaseTimes:
    """Read the phases of a run off its records, linearly between stops.

    Parameters
    ----------
    run : Run
        With ``"loss"``, ``"cluster_norms"`` and ``"cluster_alignment"`` observed.
    tau : float, default 0.05
        What "over", "begins" and "reached" mean; see ``PhaseTimes``.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> look = pf.Observe(every=0.5, what=["loss", "cluster_norms", "cluster_alignment"], gmm=gmm)
    >>> times = pf.theory.phase_times(pf.gradient_flow(net, data.X, data.y, t1=60, observe=look), tau=0.1)
    >>> bool(times.t2 < times.t_star < times.T_star)
    True
    """
    tau = _arrays.real(tau, "tau", above=0.0, maximum=0.5)
    loss, norms, alignment = _observed(run, "loss", "cluster_norms", "cluster_alignment")
    worst = np.asarray(alignment).min(axis=1)
    off = np.abs(norms - 1.0).max(axis=1)
    first = _crossing(run.t, off, tau)
    inside = np.flatnonzero(off <= tau)
    last = float("nan")
    if inside.size:
        end = int(inside[-1])
        last = float(run.t[end]) if end + 1 == len(off) else _between(run.t, off, end, tau)
    return PhaseTimes(
        t1=_crossing(run.t, -worst, tau - 1.0, last=True),
        t2=_crossing(run.t, loss, (1.0 - tau) * loss[0]),
        t_star=first,
        T_star=last,
    )


def _crossing(t: Float64, values: Float64, level: float, last: bool = False) -> float:
    """First (or last) time at which ``values`` falls to ``level``; NaN if it does not stay below in the last case."""
    below = values <= level
    if last and not below[-1]:
        return float("nan")
    falls = np.flatnonzero(~below[:-1] & below[1:])
    if below[0] and (not last or not falls.size):
        return float(t[0])
    return _between(t, values, int(falls[-1 if last else 0]), level) if falls.size else float("nan")


def between(t: ArrayLike, values: ArrayLike, i: int, level: float) -> float:
    """Where ``values`` (S,) at times ``t`` (S,) take ``level``, on the straight line from stop i to the next.

    Examples
    --------
    >>> pf.theory.between([0.0, 1.0, 3.0], [5.0, 4.0, 2.0], 1, 3.0)
    2.0
    """
    times = _arrays.curve(t, "t", None)
    return _between(
        times,
        _arrays.curve(values, "values", len(times), match="t"),
        _arrays.integer(i, "i", minimum=0, maximum=len(times) - 2),
        _arrays.real(level, "level"),
    )


def _between(t: NDArray[Any], values: NDArray[Any], i: int, level: float) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (level - values[i]) / (values[i + 1] - values[i])
    return float(t[i] + share * (t[i + 1] - t[i]))


# ---- robustness


def max_robust_accuracy(gmm: OrthonormalGMM) -> float:
    """Largest robust accuracy any classifier can have at l2 radius sqrt(2)/2: 1 - min(K1, K2)/K (Prop. 1).

    A measurement above it, beyond sampling error, is a weak attack and not a robust network.

    Examples
    --------
    >>> pf.theory.max_robust_accuracy(pf.OrthonormalGMM(20, positive=3, negative=2, alpha=0.1, rng=0))
    0.6
    """
    _arrays.instance(gmm, "gmm", OrthonormalGMM)
    return 1.0 - min(gmm.positive, gmm.negative) / gmm.clusters


@dataclass(frozen=True)
class Guarantee:
    """Robust at ``radius`` (l2) with at least this ``probability``; both may be vacuous, <= 0.

    Examples
    --------
    >>> found = pf.theory.Guarantee(radius=0.6, probability=0.99)
    >>> found.radius, found.probability
    (0.6, 0.99)
    """

    radius: float
    probability: float


def bayes_guarantee(gmm: OrthonormalGMM, nu: float) -> Guarantee:
    """Radius (sqrt(2) - nu)/2 the Bayes classifier is robust at, and the probability 1 - 2K exp(-D nu^2/(64 alpha^2)).

    MV25, Prop. 2, for 2 sqrt(2) alpha^2 log(K)/D <= nu <= sqrt(2).

    Raises
    ------
    ValueError
        If ``nu`` is outside that range.

    Examples
    --------
    >>> found = pf.theory.bayes_guarantee(pf.OrthonormalGMM(1000, 5, 5, alpha=0.1, rng=0), nu=0.1)
    >>> round(found.radius, 4), round(found.probability, 4)
    (0.6571, 1.0)
    """
    _arrays.instance(gmm, "gmm", OrthonormalGMM)
    least = 2.0 * math.sqrt(2.0) * gmm.alpha**2 * math.log(gmm.clusters) / gmm.dim
    nu = _arrays.real(nu, "nu", minimum=least, maximum=math.sqrt(2.0))
    failure = 2.0 * gmm.clusters * _tail(gmm.dim * nu**2 / 64.0, gmm.alpha)
    return Guarantee((math.sqrt(2.0) - nu) / 2.0, 1.0 - failure)


def prelu_guarantee(gmm: OrthonormalGMM, distance: float, p: float = 3.0) -> Guarantee:
    """What closeness to F^(p) guarantees: radius (sqrt(2) - 8 nu^(1/p))/2, nu = dist(f, F^(p)).

    MV25, Prop. 3, for p > 2 and nu <= (sqrt(2)/8)^p, with probability at least
    1 - 2K exp(-D nu^(2/p)/(2 K^2 alpha^2)) - 4 exp(-3/(8 alpha^2)). Corollary 1 is this with the distance O~(alpha^2)
    of Theorem 1: give the upper end of a measured ``distance_bracket``, and it holds for that very network.

    Its text says degree 1 in x while f^(p) and F^(p) have degree p; the slack in its constants covers degree p, so that
    radius and probability stand as stated (docs/mathematics.md#guarantee).

    Parameters
    ----------
    gmm : OrthonormalGMM
        The mixture.
    distance : float
        nu, in (0, (sqrt(2)/8)^p].
    p : float, default 3
        Greater than 2.

    Raises
    ------
    ValueError
        If ``p`` <= 2 or ``distance`` is out of range.

    Examples
    --------
    >>> found = pf.theory.prelu_guarantee(pf.OrthonormalGMM(1000, 5, 5, alpha=0.1, rng=0), distance=1e-3, p=3)
    >>> round(found.radius, 4), round(found.probability, 4)
    (0.3071, 0.8652)
    """
    _arrays.instance(gmm, "gmm", OrthonormalGMM)
    p = _arrays.real(p, "p", above=2.0)
    distance = _arrays.real(distance, "distance", above=0.0)
    most = (math.sqrt(2.0) / 8.0) ** p
    if distance > most:
        raise ValueError(f"distance must be at most (sqrt(2)/8)^p = {most:g}, got {distance:g}")
    root = distance ** (1.0 / p)
    failure = 2.0 * gmm.clusters * _tail(gmm.dim * root**2 / (2.0 * gmm.clusters**2), gmm.alpha)
    failure += 4.0 * _tail(3.0 / 8.0, gmm.alpha)
    return Guarantee((math.sqrt(2.0) - 8.0 * root) / 2.0, 1.0 - failure)


def _tail(exponent: float, alpha: float) -> float:
    """exp(-exponent / alpha^2), 0 at alpha = 0 and where alpha^2 underflows."""
    return math.exp(-exponent / alpha**2) if alpha**2 > 0 else 0.0


def bayes_deviation(gmm: OrthonormalGMM, X: ArrayLike) -> tuple[Float64, float]:
    """How far the Bayes rule is from the nearest-cluster rule, in units of inner products (MV25, eq. 4).

    Bayes compares (alpha^2/D) log sum_k exp(D <x,mu_k>/alpha^2) of the two classes, nearest cluster max_k <x,mu_k>; the
    difference of the two margins is at most alpha^2 log(max(K1, K2)) / D at any x.

    Parameters
    ----------
    gmm : OrthonormalGMM
        With alpha > 0.
    X : array, shape (n, D)
        Points.

    Returns
    -------
    deviation : ndarray, shape (n,)
        Bayes margin minus nearest-cluster margin.
    bound : float

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> deviation, bound = pf.theory.bayes_deviation(gmm, gmm.centers)
    >>> bool(abs(deviation).max() <= bound)
    True
    """
    _arrays.instance(gmm, "gmm", OrthonormalGMM)
    temperature = gmm.alpha**2 / gmm.dim
    if temperature == 0:
        raise ValueError(f"gmm must have alpha > 0, got {gmm.alpha:g}: without noise the two rules are the same")
    products = _arrays.points(X, dim=gmm.dim, of="mixture").astype(np.float64) @ gmm.centers.T
    margins = []
    for label in (1.0, -1.0):
        own = products[:, gmm.labels == label]
        top = own.max(axis=1)
        margins.append(temperature * np.log(np.exp((own - top[:, None]) / temperature).sum(axis=1)))
    return margins[0] - margins[1], temperature * math.log(max(gmm.positive, gmm.negative))


def nearest_cluster_radius(gmm: OrthonormalGMM, X: ArrayLike, y: ArrayLike) -> Float64:
    """Exact distance of each point to the decision boundary of the nearest-cluster rule; 0 where it errs.

    With own inner products o_1 >= o_2 >= ... and the largest other l: the smallest m with o_(m+1) <= t =
    (l + sum_{i<=m} o_i)/(m+1); radius = sqrt((t-l)^2 + sum_{i<=m} (o_i-t)^2)
    (docs/mathematics.md#nearest-cluster).

    Parameters
    ----------
    gmm : OrthonormalGMM
        Gives the centres.
    X : array, shape (n, D)
        Points.
    y : array, shape (n,)
        Labels -1 and +1.

    Returns
    -------
    ndarray, shape (n,)

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> pf.theory.nearest_cluster_radius(gmm, gmm.centers, gmm.labels).round(4).tolist()
    [0.7071, 0.7071, 0.7071, 0.7071]
    """
    _arrays.instance(gmm, "gmm", OrthonormalGMM)
    points = _arrays.points(X, dim=gmm.dim, of="mixture").astype(np.float64)
    target = _arrays.labels(y, n=len(points))
    products = points @ gmm.centers.T
    radius = np.zeros(len(points))
    for label in (1.0, -1.0):
        rows = target == label
        own = -np.sort(-products[rows][:, gmm.labels == label], axis=1)
        rival = products[rows][:, gmm.labels != label].max(axis=1)
        sums = np.cumsum(own, axis=1)
        count = own.shape[1]
        level = (rival[:, None] + sums) / np.arange(2, count + 2)  # t for m = 1, 2, ...
        after = np.concatenate([own[:, 1:], np.full((len(own), 1), -np.inf)], axis=1)
        m = np.argmax(after <= level, axis=1)
        t = np.take_along_axis(level, m[:, None], axis=1)
        moved = np.where(np.arange(count)[None, :] <= m[:, None], own - t, 0.0)
        exact = np.sqrt((t[:, 0] - rival) ** 2 + (moved**2).sum(axis=1))
        radius[rows] = np.where(own[:, 0] > rival, exact, 0.0)
    return radius


def nearest_cluster_accuracy(gmm: OrthonormalGMM, radius: ArrayLike) -> Float64:
    """Robust accuracy of the nearest-cluster rule at l2 radii, by quadrature over the Gaussian mixture.

    With s = alpha/sqrt(D), A(k1, k2) = int [1 - Phi(b + (sqrt(2) r - 1)/s) Phi(b + sqrt(2) r/s)^(k1-1)]
    k2 phi(b) Phi(b)^(k2-1) db, accuracy = (K1 A(K1,K2) + K2 A(K2,K1))/K
    (docs/mathematics.md#nearest-cluster-accuracy). It takes the radius for (o_1 - l)/sqrt(2), a lower bound in general
    and tight here; Bayes' is the same within alpha^2 log(K)/D.

    Parameters
    ----------
    gmm : OrthonormalGMM
        The mixture.
    radius : float or array, shape (R,)
        Not negative.

    Returns
    -------
    ndarray, shape () or (R,)

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=2000, positive=12, negative=8, alpha=0.3, rng=0)
    >>> pf.theory.nearest_cluster_accuracy(gmm, [0.5, 27 / 39, 0.72]).round(3).tolist()  # Figure 2's Bayes
    [1.0, 0.916, 0.0]
    """
    _arrays.instance(gmm, "gmm", OrthonormalGMM)
    radii = _arrays.numbers_in(radius, "radius", minimum=0.0)
    flat = np.sqrt(2.0) * radii.reshape(-1, 1)
    if gmm.alpha == 0:
        return np.asarray((flat[:, 0] < 1.0).astype(np.float64).reshape(radii.shape))
    s = gmm.alpha / math.sqrt(gmm.dim)
    b, weights = _quadrature()

    def share(own: int, other: int) -> Float64:
        fails = _normal_cdf(b + (flat - 1.0) / s) * _normal_cdf(b + flat / s) ** (own - 1)
        density = other * np.exp(-0.5 * b**2) / math.sqrt(2.0 * math.pi) * _normal_cdf(b) ** (other - 1)
        return np.asarray(((1.0 - fails) * density) @ weights)

    K1, K2 = gmm.positive, gmm.negative
    accuracy = (K1 * share(K1, K2) + K2 * share(K2, K1)) / gmm.clusters
    return np.asarray(np.clip(accuracy, 0.0, 1.0).reshape(radii.shape))


@cache
def _quadrature() -> tuple[Float64, Float64]:
    """Nodes and weights for integrals from -9 to 9."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    return 9.0 * nodes, 9.0 * weights


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _normal_cdf(x: Float64) -> Float64:
    return np.asarray(0.5 * _erfc(-x / math.sqrt(2.0)))
