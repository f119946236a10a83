"""How far a network is from F^(p): the paper's estimator, and a bracket that cannot be fooled.

The distance is sup_{||x||=1} |f(x) - F^(p)(x)|. f - F^(p) is itself a two-layer network (the neurons of f and, with
opposite signs, the centres), so ascent on it uses the same kernel as everything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from preluflow import _arrays, _recipes
from preluflow._arrays import Float, Float64
from preluflow.classifiers import class_average_relu, cluster_prelu
from preluflow.data import OrthonormalGMM, Rng
from preluflow.initialization import voronoi_regions
from preluflow.network import TwoLayerNetwork, require_plain
from preluflow.typing import Recipe

RECIPES: tuple[Recipe, ...] = get_args(Recipe)
_CELLS = 2048  # cells of [0, pi/2] for the upper end
EPS = float(np.finfo(np.float64).eps)
_OUTWARD = 1e-12  # relative rounding of the upper end (docs/mathematics.md#rounding-distance)


@dataclass(frozen=True)
class DistanceBracket:
    """Bounds on sup_{||x||=1} |f - F^(p)|.

    Attributes
    ----------
    lower, upper : float
        The distance lies in [lower, upper].
    witness : ndarray, shape (D,)
        Unit vector at which |f - F^(p)| = lower, float64.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> bracket = pf.distance_bracket(pf.initialize(20, 20, 1e-7, rng=0), gmm)
    >>> round(float(np.linalg.norm(bracket.witness)), 6)  # a point of the sphere where it is ``lower``
    1.0
    """

    lower: float
    upper: float
    witness: Float64


def difference_network(network: TwoLayerNetwork, gmm: OrthonormalGMM) -> TwoLayerNetwork:
    """The function f - F^(p) as one network of width h + K, with the p and activation of ``network`` (not tanh)."""
    require_comparable(network, gmm)
    zeros = np.zeros(gmm.clusters)
    return _minus(network, gmm.centers, gmm.labels, zeros)


def require_comparable(network: TwoLayerNetwork, gmm: OrthonormalGMM) -> None:
    """Refuse a network that is at no distance to F^(p), or a mixture of another dimension."""
    _arrays.instance(network, "network", TwoLayerNetwork)
    require_plain(network, "a distance to F^(p)")
    _arrays.instance(gmm, "gmm", OrthonormalGMM)
    if network.activation == "tanh":
        raise ValueError("the distance to F^(p) is defined for 'prelu' and 'polynomial' networks, not for 'tanh'")
    if network.dim != gmm.dim:
        raise ValueError(f"network has input dimension {network.dim} but gmm has {gmm.dim}")


def _minus(network: TwoLayerNetwork, units: Float, sign: Float64, log_abs_v: Float64) -> TwoLayerNetwork:
    """Take from a network one of the same kind whose input weights are unit vectors (K, D)."""
    return TwoLayerNetwork.from_polar(
        np.concatenate([network.directions, units.astype(network.dtype)]),
        np.concatenate([network.log_norm, np.zeros(len(units))]),
        np.concatenate([network.sign, -sign]),
        np.concatenate([network.log_abs_v, log_abs_v]),
        network.activation,
        network.p,
    )


def unit_rows(points: Float) -> Float:
    # Each array by itself: what NumPy casts or allocates within a ufunc does not survive it when memory ends.
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    result = np.array(points)
    result /= lengths
    return result


class Effort(NamedTuple):
    """What ``distance_estimate`` is to do, checked."""

    recipe: Recipe | None
    batches: int
    batch: int
    steps: int
    step_size: float
    scale: float | None
    generator: np.random.Generator


def estimator_options(
    batch: int | None = None,
    steps: int | None = None,
    step_size: float | None = None,
    rng: Rng = 0,
    recipe: Recipe | None = None,
    batches: int | None = None,
    scale: float | None = None,
    of: str = "",
) -> Effort:
    """The checked options of ``distance_estimate``; ``of`` comes before their names in messages."""
    if recipe is not None:
        recipe = _arrays.choice(recipe, f"{of}recipe", RECIPES)
    else:
        for name, value in (("batches", batches), ("scale", scale)):
            if value is not None:
                raise ValueError(f"{of}{name} must be None without a recipe, got {_arrays.shown(value)}")
    own = (1, 100, 33, 0.1) if recipe is None else (10, 1000, 2000, 0.01)
    given = (batches, batch, steps, step_size)
    many, points, count, size = (mine if value is None else value for value, mine in zip(given, own, strict=True))
    return Effort(
        recipe,
        _arrays.integer(many, f"{of}batches", minimum=1),
        _arrays.integer(points, f"{of}batch", minimum=1),
        _arrays.integer(count, f"{of}steps", minimum=0),
        _arrays.real(size, f"{of}step_size", above=0.0, maximum=_recipes.LARGEST_STEP),
        None if scale is None else _arrays.real(scale, f"{of}scale", above=0.0),
        _arrays.generator(rng, f"{of}rng"),
    )


def distance_estimate(
    network: TwoLayerNetwork,
    gmm: OrthonormalGMM,
    *,
    batch: int | None = None,
    steps: int | None = None,
    step_size: float | None = None,
    rng: Rng = 0,
    recipe: Recipe | None = None,
    batches: int | None = None,
    scale: float | None = None,
    num_threads: int | None = None,
) -> float:
    """Estimate sup |f - F^(p)| as MV25 does: projected gradient ascent on |f - F^(p)| from random unit vectors.

    A lower bound only, and a loose one: F^(p) is flat at a random point of a high-dimensional sphere, so the value
    depends on the effort. The paper does not state its effort; with these defaults the estimate at Figure 5's
    initialisation has median 0.58 over 20 seeds (0.07 to 0.92), where the paper shows about 0.52 and the true value
    is 1. Use ``distance_bracket`` for numbers.

    ``recipe="mv24"`` is instead what the code of MV24's authors does, in float32, for |c f - F| of the fitted scale
    c = E[f F] / E[f^2], means over samples of the mixture, as many as starting points, drawn before these. F is F^(p),
    for p = 1 that of the class averages. Of each batch of random unit vectors

        x <- normalise(x + step_size * g / (||g|| + 1e-7)),    g the gradient in x of the batch's mean of (c f - F)^2,

    and the largest |c f - F| at the last iterates of all batches is returned. What is found is a lower bound of
    sup |c f - F| at this c, which is not the best one and may be negative: inf_c sup |c f - F| may be far below. Of
    Figure 5's start (one seed), where f is nothing but noise, it is 88, as c is fitted at points to which all neurons
    are nearly orthogonal. With c = 1 it is 1.0 there, the truth; of f = 0 it is 0.02 / 0.49 / 0.91 / 1.0 by 20 / 100 /
    200 / 500 steps of one batch, so that Figure 5's 0.52 comes from far less effort.

    Parameters
    ----------
    network : TwoLayerNetwork
        f; "prelu" or "polynomial". Its p is that of F^(p). The recipe evaluates it in float32, whatever its dtype.
    gmm : OrthonormalGMM
        Its centres make F^(p).
    batch, steps : int, optional
        Number of random starting points, of the recipe in each batch, and of ascent steps from each. By default 100 and
        33, of the recipe 1000 and 2000.
    step_size : float, optional
        x <- normalise(x + step_size * sign(g) grad g) with g = f - F^(p). By default 0.1, of the recipe 0.01.
    rng : None, int or Generator
        Draws the starting points; fixed by default, so that values along a run are comparable.
    recipe : {"mv24"}, optional
        As above.
    batches : int, optional
        Of the recipe, 10 by default.
    scale : float, optional
        Of the recipe: c, > 0, fitted by default. 1 gives |f - F|, which is what ``distance_bracket`` bounds.
    num_threads : int, optional
        All cores by default.

    Returns
    -------
    float
        Largest |f - F^(p)| over the last iterates, evaluated in float64 and rounded down; of the recipe |c f - F|, as
        its authors do in float32.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> net = pf.initialize(20, 20, 1e-7, rng=0)
    >>> bool(pf.distance_estimate(net, gmm) <= pf.distance_bracket(net, gmm).upper)  # it never says too much
    True
    """
    effort = estimator_options(batch, steps, step_size, rng, recipe, batches, scale)
    num_threads = _arrays.threads(num_threads)
    if effort.recipe is not None:
        return _by_recipe(network, gmm, effort, num_threads)
    # Of f - F^(p) = e^m g only g is evaluated: a run that diverges must not overflow here. F^(p) makes m >= 0.
    difference, m = difference_network(network, gmm).rescaled()
    _arrays.require_room("batch", effort.batch, gmm.dim)
    points = unit_rows(effort.generator.standard_normal((effort.batch, gmm.dim)).astype(network.dtype))
    stay = network.dtype.type(np.exp(-m))
    for _ in range(effort.steps):
        value, gradient = difference.value_and_input_gradient(points, num_threads=num_threads)
        ahead = (effort.step_size * np.sign(value)).astype(network.dtype)[:, None]
        points = unit_rows(stay * points + ahead * gradient)
    return _largest(network, gmm, points, num_threads)[0]


def _by_recipe(network: TwoLayerNetwork, gmm: OrthonormalGMM, effort: Effort, num_threads: int) -> float:
    """Fit c, then search every batch. c f does not depend on the scale of f, which may underflow float32."""
    require_comparable(network, gmm)
    _arrays.require_room("batch", effort.batch, gmm.dim)
    _arrays.require_room("batches", effort.batches, effort.batch)
    target = (class_average_relu(gmm) if network.p == 1.0 else cluster_prelu(gmm, network.p)).astype("float32")
    single = network.astype("float32")
    if effort.scale is None:
        single = single.rescaled()[0]
        sign, log_c = _fitted_scale(single, target, gmm, effort, num_threads)
    else:
        sign, log_c = 1.0, math.log(effort.scale)
    fitted = single.replace(sign=sign * single.sign, log_abs_v=single.log_abs_v + log_c)
    difference = _minus(fitted, target.directions, target.sign, target.log_abs_v)
    largest = 0.0
    for _ in range(effort.batches):
        points = unit_rows(effort.generator.standard_normal((effort.batch, gmm.dim)).astype(np.float32))
        found = _recipes.mv24_largest(difference, points, effort.steps, effort.step_size, num_threads)
        largest = max(largest, found)
    return largest


def _fitted_scale(
    network: TwoLayerNetwork, target: TwoLayerNetwork, gmm: OrthonormalGMM, effort: Effort, num_threads: int
) -> tuple[float, float]:
    """Return sign and logarithm of c = E[f F] / E[f^2]."""
    f, F = np.zeros((2, effort.batches, effort.batch))
    for i in range(effort.batches):
        X = gmm.sample(effort.batch, dtype="float32", rng=effort.generator).X
        f[i], F[i] = (each.decision_function(X, num_threads=num_threads) for each in (network, target))
    return _recipes.best_fit(f.reshape(-1), F.reshape(-1))


def distance_bracket(
    network: TwoLayerNetwork,
    gmm: OrthonormalGMM,
    *,
    steps: int = 40,
    keep: int = 64,
    num_threads: int | None = None,
) -> DistanceBracket:
    """Lower and upper bound on sup_{||x||=1} |f - F^(p)|, any p >= 1 (docs/mathematics.md#distance-upper).

    Lower end: ascent with a step size per point, from +-mu_k, +-u_j of the neurons that contribute most, their
    pairwise sums and the class averages; evaluated at the end in float64. Upper end: every neuron is given its nearest
    own-class centre, and a Lagrange bound on cells of the angles to the centres follows.

    Parameters
    ----------
    network : TwoLayerNetwork
        f; "prelu" or "polynomial". Its p is that of F^(p).
    gmm : OrthonormalGMM
        Its centres make F^(p).
    steps : int, default 40
        Ascent steps.
    keep : int, default 64
        Number of starting points kept, best first; the centres are always among them.
    num_threads : int, optional
        All cores by default.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> bracket = pf.distance_bracket(pf.classifiers.cluster_prelu(gmm, p=3), gmm)
    >>> round(bracket.lower, 2), round(bracket.upper, 2)
    (0.0, 0.0)
    >>> bracket = pf.distance_bracket(pf.initialize(20, 20, 1e-7, rng=0), gmm)  # f = 0, and F^(3)(mu_k) = 1
    >>> round(bracket.lower, 3), round(bracket.upper, 3)
    (1.0, 1.0)
    """
    steps = _arrays.integer(steps, "steps", minimum=0)
    keep = _arrays.integer(keep, "keep", minimum=1)
    num_threads = _arrays.threads(num_threads)
    difference = difference_network(network, gmm)
    lower, witness = _lower_end(difference.rescaled()[0], network, gmm, steps, keep, num_threads)
    return DistanceBracket(lower, _upper_end(network, gmm), witness)


def _unscaled(value: float, m: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(m) * value) if value > 0 else 0.0


def _cosine_units(dim: int) -> float:
    """Units of rounding, EPS / 2 each, that a product of D terms in runs of 256 may be wrong by."""
    return min(dim, 256) + dim / 256


# ---- lower end


def _starting_points(network: TwoLayerNetwork, gmm: OrthonormalGMM) -> Float64:
    top = np.argsort(-network.log_contributions)[:12]
    neurons = network.directions[top].astype(np.float64)
    classes = np.stack([gmm.centers[gmm.labels == label].sum(axis=0) for label in (1.0, -1.0)])
    pairs = [a + b for group in (gmm.centers[:32], neurons) for a, b in combinations(group, 2)]
    rows = np.concatenate([gmm.centers, neurons, classes, classes[:1] + classes[1:], classes[:1] - classes[1:]])
    rows = np.concatenate([rows, np.reshape(pairs, (-1, gmm.dim))])
    return np.asarray(unit_rows(np.concatenate([rows, -rows])), dtype=np.float64)


def ascend(difference: TwoLayerNetwork, points: Float, steps: int, num_threads: int | None = None) -> Float:
    """Ascend |difference| on the sphere from the points, with a step size per point; they are moved in place."""
    value, gradient = difference.value_and_input_gradient(points, num_threads=num_threads)
    step_sizes = np.ones(len(points))
    for _ in range(steps):
        here = points.astype(np.float64)
        tangent = np.sign(value)[:, None] * gradient.astype(np.float64)
        tangent -= np.einsum("bd,bd->b", tangent, here)[:, None] * here
        trial = unit_rows((here + step_sizes[:, None] * tangent).astype(points.dtype))
        trial_value, trial_gradient = difference.value_and_input_gradient(trial, num_threads=num_threads)
        better = np.abs(trial_value) > np.abs(value)
        points[better], value[better], gradient[better] = trial[better], trial_value[better], trial_gradient[better]
        step_sizes *= np.where(better, 1.5, 0.3)
    return points


def _lower_end(
    difference: TwoLayerNetwork,
    network: TwoLayerNetwork,
    gmm: OrthonormalGMM,
    steps: int,
    keep: int,
    num_threads: int | None,
) -> tuple[float, Float64]:
    starts = _starting_points(network, gmm).astype(network.dtype)
    values = np.abs(difference.decision_function(starts, num_threads=num_threads))
    values[: gmm.clusters] += 1e3  # the centres stay
    points = starts[np.argsort(-values, kind="stable")[:keep]]

    return _largest(network, gmm, ascend(difference, points, steps, num_threads), num_threads)


def _largest(
    network: TwoLayerNetwork, gmm: OrthonormalGMM, points: Float, num_threads: int | None
) -> tuple[float, Float64]:
    """Return what the largest |f - F^(p)| at points (B, D) is at least, in float64, and the unit vector it is at."""
    exact, m = difference_network(network.astype(np.float64), gmm).rescaled()  # with the centres unrounded
    finalists = unit_rows(points.astype(np.float64))
    final = np.abs(exact.decision_function(finalists, num_threads=num_threads))
    best = int(np.argmax(final))
    # What float64 may have done: to a cosine, p times of it to a power, to their sum, and to a through its logarithm
    # (docs/mathematics.md#distance-lower).
    a, logs = exact.contributions, np.abs(exact.log_norm) * max(1.0, exact.p) + np.abs(exact.log_abs_v)
    units = exact.p * (_cosine_units(exact.dim) + 16.0) + exact.width + np.where(a > 0, logs, 0.0) + 16.0
    value = max(final[best] - EPS * float((a * units).sum()), 0.0) * (1.0 - 4.0 * EPS * (abs(m) + 4.0))
    return _unscaled(value, m), finalists[best]


# ---- upper end


def _power(x: Float64, p: float) -> Float64:
    """x^p for x >= 0, small integer p by multiplication."""
    if p == int(p) and p <= 8:
        result = x
        for _ in range(int(p) - 1):
            result = result * x
        return result
    return np.asarray(x**p)


def _weighted(weights: Float64, rows: Float64) -> Float64:
    """Sum of rows (m, c) by weights (m,), without NumPy's BLAS, which ends the process where it finds no memory."""
    return np.asarray(np.einsum("m,mc->c", weights, rows))


class CellBound:
    """sup_{||x||=1} |c f - F| is at most ``at(c)``, convex in c (docs/mathematics.md#distance-upper).

    F(x) = sum_k s_k b_k sigma(<x,t_k>)^p over orthonormal t_k, of the p of f; every neuron is given one of its sign, at
    angle theta_j < pi/2, and those that have none are split by sign (each moves f one way only).

    For x on the sphere let phi_k be its angle to t_k: that of x and u_j lies in [phi_k - theta_j, phi_k + theta_j]. So
    on a cell phi_k in [fa, fb] the share of c f that goes to t_k exceeds F's by at most up_k, and falls short by at
    most dn_k. As sum_k cos^2 phi_k <= 1, for every lambda >= 0
        sup <= c sum_O a_j + lambda + sum_k max_cells (Psi_k - lambda cos^2 fb)_+ .

    Parameters
    ----------
    network : TwoLayerNetwork
        f.
    targets : ndarray, shape (K, D)
        t_k.
    signs, weights : ndarray, shape (K,)
        s_k, and b_k > 0.
    region : ndarray, shape (h,)
        Each neuron's target, of its sign and of positive cosine with it; negative if it has none.
    """

    def __init__(
        self, network: TwoLayerNetwork, targets: Float64, signs: Float64, weights: Float64, region: NDArray[np.intp]
    ) -> None:
        p, self.signs = network.p, signs
        # Directions stored in float32 are unit vectors up to rounding only; the bound shall hold for what is stored.
        lengths = np.linalg.norm(network.directions.astype(np.float64), axis=1)
        a = network.contributions * lengths**p
        self.finite = bool(np.isfinite(a).all())
        theta = _angles(network, targets, np.maximum(region, 0), lengths)
        # Neurons too small to matter cost less as a constant than as cells.
        loose = (region < 0) | (a < 1e-9 / len(a))
        self.loose = [float(a[loose & (network.sign == sign)].sum()) for sign in (1.0, -1.0)]
        edges = np.linspace(0.0, np.pi / 2, _CELLS + 1)
        fa, fb = edges[:-1], edges[1:]
        self.budget = np.append(np.cos(fb) ** 2, 0.0)  # the last column is <x,t_k> <= 0
        self.most = np.outer(weights, np.append(_power(np.cos(fa), p), 0.0))
        self.least = np.outer(weights, np.append(_power(np.cos(fb).clip(0.0), p), 0.0))
        self.over, self.under = np.zeros((2, len(targets), _CELLS + 1))  # sums over neurons
        for k in range(len(targets)):
            mine = np.flatnonzero((region == k) & ~loose)
            over = _power(np.cos(np.maximum(fa[None] - theta[mine, None], 0.0)), p)
            under = _power(np.cos(np.minimum(fb[None] + theta[mine, None], np.pi / 2)).clip(0.0), p)
            self.over[k, :-1], self.under[k, :-1] = _weighted(a[mine], over), _weighted(a[mine], under)
            self.over[k, -1] = _weighted(a[mine], _power(np.sin(theta[mine]), p)[:, None])[0]
        # What float64 does to sums of a and of F, and to a through their logarithms.
        degree = 1.0 if network.activation == "prelu" else p
        logs = np.where(a > 0, np.abs(degree * network.log_norm) + np.abs(network.log_abs_v), 0.0)
        self.rounding = float((a * (logs + network.width + p + 16.0)).sum()), float(weights.sum() * (p + 16.0))

    def at(self, c: float) -> float:
        """Bound sup |c f - F|, outward."""
        if not self.finite:
            return float("inf")
        up, down = c * self.over - self.least, self.most - c * self.under
        ends = []
        for sign, loose in zip((1.0, -1.0), self.loose, strict=True):
            psi = np.where((self.signs == sign)[:, None], up, down)
            ends.append(c * loose + _lagrange(psi, self.budget))
        return max(ends) * (1.0 + _OUTWARD) + 8.0 * EPS * (c * self.rounding[0] + self.rounding[1])


def _upper_end(network: TwoLayerNetwork, gmm: OrthonormalGMM) -> float:
    """Bound sup |f - F^(p)|: its targets are the centres, its weights 1 (docs/mathematics.md#distance-upper)."""
    region = voronoi_regions(network, gmm)
    return CellBound(network, gmm.centers, gmm.labels, np.ones(gmm.clusters), region).at(1.0)


def _angles(network: TwoLayerNetwork, targets: Float64, region: NDArray[np.intp], lengths: Float64) -> Float64:
    """Angle of each neuron to its target, rounded up, at most pi/2: by its tangent, as a cosine near 1 tells little."""
    theta = np.zeros(network.width)
    rounding = (network.dim / 2 + 32.0) * EPS
    for k in np.unique(region):
        rows = region == k
        U = network.directions[rows].astype(np.float64)
        along = np.einsum("jd,d->j", U, targets[k])
        across = np.linalg.norm(U - along[:, None] * targets[k], axis=1)
        theta[rows] = np.arctan2(across + rounding * lengths[rows], along - rounding * lengths[rows])
    return np.clip(theta, 0.0, np.pi / 2)


def _lagrange(psi: Float64, budget: Float64) -> float:
    """Minimise the convex bound over lambda; any lambda is valid, so golden section needs no exactness."""

    def bound(multiplier: float) -> float:
        return multiplier + float(np.maximum((psi - multiplier * budget).max(axis=1), 0.0).sum())

    high = bound(0.0)
    return min(high, golden_section(bound, high, 60)[0])


def golden_section(function: Callable[[float], float], high: float, steps: int) -> tuple[float, float]:
    """Least value of a convex function seen on [0, high], and where."""
    low, ratio = 0.0, (math.sqrt(5.0) - 1.0) / 2.0
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    best = min((at_left, left), (at_right, right))
    for _ in range(steps):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
        best = min(best, (at_left, left), (at_right, right))
    return best
