"""Hostile networks and points, made from (seed, index) alone, and what must hold of every bracket on them.

``make(seed, indices, dim)`` gives a ``Batch`` of nets with points, ``ask`` brackets them through the public API,
``violations`` says what is wrong, with the case as Python to paste. Truth is ``cone_oracle``, which has no scale.

A certificate is called too large only if an error within lower - 4 eps ||x|| was found and holds in exact arithmetic.
Everything else allows what is said beside the claim.
"""

from __future__ import annotations

import inspect
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cone_oracle import (
    EPS,
    FINE,
    LD,
    PLAIN,
    Nets,
    errors_along,
    exact_error_near,
    exact_sign,
    kink_beside,
    plane_directions,
    plane_radius,
    slack_of,
    slopes,
    space_errors,
    tangents,
    to_fraction,
    units,
)

import preluflow as pf

DEGREES = (1.0, 1.0 + 1e-9, 1.2, 1.5, 2.0, 2.5, 3.0, 3.0, 4.7, 6.0, 10.0, 30.0, 50.0)
POINTS = 12  # of each net
WIDTH = 12  # at most
ROOM = 4 * EPS  # of ||x||: what the last roundings of a bracket may do
CERTAIN = 16 * EPS  # of ||x||: products of x and u_j that differ by less are one in float64
STRETCHES = 10.0 ** np.arange(-12.0, -8.0)
NOISE = 1e-9  # a radius below NOISE ||x|| says nothing of the attack
SCALES = (-150.0, 150.0)
KNOWS_SECONDS = "max_seconds" in inspect.signature(pf.robust_radius).parameters


# ---- nets: (rng, D, h) -> what to make one of


def weights(W, v):
    return {"W": np.asarray(W, dtype=float), "v": np.asarray(v, dtype=float)}


def polar(U, logs, sign):
    """By contributions e^logs, put at random into the two logarithms."""
    return {"U": U, "logs": np.asarray(logs, dtype=float), "sign": np.asarray(sign, dtype=float)}


def gaussian(rng, D, h):
    return rng.standard_normal((h, D)), rng.standard_normal(h)


def spheres(rng, D, h):
    U = rng.standard_normal((h, D))
    return U / np.linalg.norm(U, axis=1, keepdims=True)


def signs(rng, h):
    return rng.choice([-1.0, 1.0], h)


def plain(rng, D, h):
    """Gaussian."""
    return weights(*gaussian(rng, D, h))


def opposite(rng, D, h):
    """Pairs at an angle of pi minus 0.1 to 1e-17."""
    W, v = gaussian(rng, D, h)
    for j in range(1, h, 2):
        W[j] = -W[j - 1] * rng.uniform(0.5, 2) + 10 ** -rng.uniform(1, 17) * rng.standard_normal(D)
    return weights(W, v)


def antipodal(rng, D, h):
    """Exactly opposite pairs, of either sign."""
    W, v = gaussian(rng, D, h)
    W[1::2] = -W[: 2 * (h // 2) : 2] * 2.0 ** rng.integers(-2, 3)
    return weights(W, v * rng.choice([1, 2], h))


def collinear(rng, D, h):
    """Bundles 1e-1 to 1e-17 apart, of both signs; also beside an axis, where 1e-17 is another direction."""
    W, v = gaussian(rng, D, h)
    if rng.random() < 0.4:
        W[0] = np.eye(D)[rng.integers(D)]
    for j in range(1, h):
        if rng.random() < 0.7:
            W[j] = W[rng.integers(j)] * rng.uniform(0.5, 2) + 10 ** -rng.uniform(1, 17) * rng.standard_normal(D)
    return weights(W, v)


def ratios(rng, D, h):
    """Contributions in ratios up to 1e8, or 1e300."""
    W, v = gaussian(rng, D, h)
    return weights(W, v * 10 ** -rng.uniform(0, rng.choice([8, 16, 300]), h))


def beyond(rng, D, h):
    """Contributions in ratios beyond float64: e^700 to e^100000."""
    reach = rng.choice([700.0, 745.0, 5000.0, 1e5])
    return polar(spheres(rng, D, h), rng.uniform(-reach, reach, h), signs(rng, h))


def dominant(rng, D, h):
    """One contribution 1e12 times the rest, or more."""
    W, v = gaussian(rng, D, h)
    v[rng.integers(h)] *= 10 ** rng.choice([12.0, 12.0, 15.0, 20.0])
    return weights(W, v)


def one_sign(rng, D, h):
    """No rivals, or no own: the error is where no neuron is active, or everywhere."""
    W, v = gaussian(rng, D, h)
    return weights(W, np.abs(v) * rng.choice([-1, 1]))


def single(rng, D, h):
    """One neuron."""
    W, v = gaussian(rng, D, 1)
    return weights(W * 10 ** rng.uniform(*SCALES), v * 10 ** rng.uniform(*SCALES))


def cancelling(rng, D, h):
    """Pairs of opposite sign and nearly the same direction and weight."""
    W, v = gaussian(rng, D, h)
    for j in range(1, h, 2):
        W[j] = W[j - 1] + 10 ** -rng.uniform(1, 17) * rng.standard_normal(D)
        v[j] = -v[j - 1] * (1 + rng.choice([0, 1]) * 10 ** -rng.uniform(1, 16))
    return weights(W, v)


def annulled(rng, D, h):
    """Pairs that cancel exactly, the larger the better, and few that are left."""
    W, v = gaussian(rng, D, max(h, 3))
    h = len(v)
    for j in range(1, h - 1, 2):
        W[j], v[j - 1] = W[j - 1], v[j - 1] * 10 ** rng.uniform(0, 12)
        v[j] = -v[j - 1]
    return weights(W, v)


def lattice(rng, D, h):
    """Small integers: ties, kinks, dead neurons, neurons that cancel."""
    return weights(rng.integers(-2, 3, (h, D)), rng.integers(-2, 3, h))


def axes(rng, D, h):
    """Along the axes, either way."""
    return weights(np.eye(D)[rng.integers(D, size=h)] * signs(rng, h)[:, None], rng.choice([-2.0, -1.0, 1.0, 2.0], h))


def dying(rng, D, h):
    """Own neurons within a narrow cone, which die together; rivals behind them: errors where f = 0."""
    W, v = gaussian(rng, D, h)
    middle = rng.standard_normal(D)
    W = np.where(rng.random(h)[:, None] < 0.7, middle + rng.choice([0.05, 0.5, 1.0]) * W, -middle + W)
    v = np.abs(v) * np.sign(W @ middle) * rng.choice([-1, 1])
    return weights(np.round(W, int(rng.integers(0, 3))), v)


def duplicated(rng, D, h):
    """Some neurons several times, as they are or at another length."""
    W, v = gaussian(rng, D, h)
    pick = rng.integers(max(1, h // 2), size=h)
    return weights(W[pick] * rng.choice([1.0, 1.0, 0.5, 0.3], h)[:, None], np.where(rng.random(h) < 0.7, v[pick], v))


def tiny(rng, D, h):
    """Weights of 1e-200 or 1e150, whose powers leave float64."""
    W, v = gaussian(rng, D, h)
    return weights(W * rng.choice([1e-200, 1e150]), v * 10 ** rng.uniform(-100, 100))


def scaled(rng, D, h):
    """Every weight at a scale of its own, 1e-150 to 1e150."""
    W, v = gaussian(rng, D, h)
    return weights(W * 10 ** rng.uniform(*SCALES, (h, 1)), v * 10 ** rng.uniform(*SCALES, h))


def denormal(rng, D, h):
    """Weights of a few units of 5e-324, or of some digits."""
    W, v = gaussian(rng, D, h)
    return weights(W * rng.choice([5e-324, 3e-322, 1e-310]) * 4, v * rng.choice([1.0, 1e-310, 1e300]))


FAMILIES = (
    plain,
    opposite,
    antipodal,
    collinear,
    ratios,
    beyond,
    dominant,
    one_sign,
    single,
    cancelling,
    annulled,
    lattice,
    axes,
    dying,
    duplicated,
    tiny,
    scaled,
    denormal,
)


@dataclass
class Spec:
    """How to make a network, and from where it came."""

    name: str
    parts: dict[str, Any]
    activation: str
    p: float
    dtype: str

    def network(self):
        if "W" in self.parts:
            return pf.TwoLayerNetwork(self.parts["W"], self.parts["v"], self.activation, self.p, dtype=self.dtype)
        return pf.TwoLayerNetwork.from_polar(*self.parts.values(), self.activation, self.p, dtype=self.dtype)

    def code(self):
        values = ", ".join(repr(value.tolist()) for value in self.parts.values())
        maker = "pf.TwoLayerNetwork" if "W" in self.parts else "pf.TwoLayerNetwork.from_polar"
        return f"net = {maker}({values}, {self.activation!r}, {self.p!r}, dtype={self.dtype!r})  # {self.name}"


def dimension(index):
    """Of the net numbered so: mostly the plane."""
    return (2, 2, 2, 3, 2, 2, 2, 3, 2, 4 + index // 9 % 7)[index % 10]


def spec_of(seed, index, dim=None):
    """The net numbered ``index``; its points come from the generator that is left."""
    rng = np.random.default_rng([seed, index])
    D = dimension(index) if dim is None else dim
    family = FAMILIES[int(rng.integers(len(FAMILIES)))]
    parts = family(rng, D, int(rng.integers(1, WIDTH + 1)) if rng.random() < 0.3 else int(rng.integers(1, 7)))
    activation, p = str(rng.choice(["prelu", "polynomial"])), float(rng.choice(DEGREES))
    dtype = "float32" if rng.random() < 0.1 else "float64"
    if "logs" in parts:
        share = rng.uniform(0, 1, len(parts["logs"]))
        degree = 1.0 if activation == "prelu" else p
        log_norm = share * parts["logs"] / degree
        U = parts["U"].astype(dtype).astype(float)
        log_abs_v = parts["logs"] - degree * log_norm
        parts = {"U": U, "log_norm": log_norm, "sign": parts["sign"], "log_abs_v": log_abs_v}
    return Spec(f"{family.__name__}, seed {seed}, index {index}", parts, activation, p, dtype), rng


# ---- points


KINDS = (
    "random",
    "random, another scale",
    "kink",
    "along a neuron",
    "near the boundary",
    "near the boundary, another scale",
    "on the boundary",
    "between two neurons",
    "lattice",
    "axis",
    "extreme scale",
    "misclassified, or at 0",
)


def raw_points(rng, U, D):
    """(POINTS, D) points in the order of KINDS, of any label; those at the boundary are random still."""
    X = rng.standard_normal((POINTS, D))
    one, two, three = U[rng.integers(len(U), size=3)]
    X[2] -= (X[2] @ one) * one
    if D == 2:
        X[2] = np.array([-one[1], one[0]]) * signs(rng, 1)
    X[3] = two * signs(rng, 1)
    X[7] = one + two if rng.random() < 0.5 else one - three
    X[8] = rng.integers(-2, 3, D)
    X[9] = np.eye(D)[rng.integers(D)] * signs(rng, 1)
    if rng.random() < 0.05:
        X[11] = 0.0
    return X


def rescale(rng, X):
    """Scales of 1e-150 to 1e150, exact powers of two now and then, and beyond."""
    X[[1, 5]] *= 10 ** rng.uniform(*SCALES) if rng.random() < 0.7 else 2.0 ** rng.integers(-400, 400)
    X[10] *= rng.choice([1e-300, 1e-310, 1e-322, 1e300, 1e-160, 1e155, 1e-80, 1e80])
    return X


@dataclass
class Batch:
    """Nets with POINTS points each: rows of X (N * POINTS, D) belong to net ``row // POINTS``."""

    specs: list[Spec]
    nets: Nets
    X: np.ndarray
    y: np.ndarray

    @property
    def net(self):
        return np.repeat(np.arange(len(self.specs)), POINTS)

    def code(self, row):
        lines = [self.specs[row // POINTS].code(), f"x, y = np.array([{self.X[row].tolist()}]), [{self.y[row]}]"]
        return "\n".join([*lines, f"# point {row % POINTS}: {KINDS[row % POINTS]}"])


def make(seed, indices, dim):
    """Nets of one dimension with points near and far, labelled as the net does but for one in POINTS."""
    made = [spec_of(seed, index, dim) for index in indices]
    specs, rngs = [spec for spec, _ in made], [rng for _, rng in made]
    nets = Nets([spec.network() for spec in specs])
    X = np.stack([raw_points(r, n.directions.astype(float), dim) for r, n in zip(rngs, nets.networks, strict=True)])
    to_boundary(nets, rngs, X)
    X = np.stack([rescale(rng, x) for rng, x in zip(rngs, X, strict=True)]).reshape(-1, dim)
    net = np.repeat(np.arange(len(specs)), POINTS)
    y = np.where(nets.margin(net, units(X)[0], np.ones(len(X))) > 0, 1.0, -1.0)
    y[POINTS - 1 :: POINTS] *= -1
    return Batch(specs, nets, X, y)


def to_boundary(nets, rngs, X):
    """Moves points 4, 5 (1e-3 to 1e-14 short of the boundary) and 6 (on it) between two points of other labels."""
    count = len(X)
    net, pick = np.tile(np.arange(count), 3), [4, 5, 6]
    a, b = np.concatenate([X[:, k] for k in pick]), np.concatenate([X[:, k] for k in (0, 1, 7)])
    one = np.ones(len(net))
    label = np.where(nets.margin(net, a, one) > 0, 1.0, -1.0)
    apart = label * nets.margin(net, b, one) < 0
    low, high = np.zeros(len(net)), np.ones(len(net))
    for _ in range(54):
        middle = 0.5 * (low + high)
        right = nets.margin(net, a + middle[:, None] * (b - a), label) > 0
        low, high = np.where(right, middle, low), np.where(right, high, middle)
    short = np.array([[10 ** -rng.uniform(3, 14), 10 ** -rng.uniform(3, 14), 0.0] for rng in rngs]).T.ravel()
    moved = np.where(apart[:, None], a + (low * (1 - short))[:, None] * (b - a), a)
    for k, part in zip(pick, np.split(moved, 3), strict=True):
        X[:, k] = part


# ---- brackets


@dataclass
class Found:
    """Brackets of all rows of a batch."""

    lower: np.ndarray
    upper: np.ndarray
    witness: np.ndarray
    correct: np.ndarray
    failed: dict[int, str] = field(default_factory=dict)  # net: what was raised
    warned: dict[int, str] = field(default_factory=dict)
    seconds: np.ndarray | None = None  # of each net


def limits(level, max_nodes=200, max_seconds=1.0):
    """Options that keep ``exact`` short."""
    if level != "exact":
        return {}
    return {"max_nodes": max_nodes, **({"max_seconds": max_seconds} if KNOWS_SECONDS else {})}


def bracket(network, X, y, level, strict=True, **options):
    """robust_radius, where warnings are errors, but for that on lower > upper, which ``violations`` looks for."""
    with warnings.catch_warnings():
        warnings.simplefilter("error" if strict else "ignore")
        warnings.filterwarnings("ignore", "certified radius above")
        return pf.robust_radius(network, X, y, level, **{**limits(level), **options})


def ask(batch, level, **options):
    """Brackets of a batch, net by net."""
    options = {"num_threads": 1, **options}
    count, D = batch.X.shape
    nothing = np.full(count, np.nan)
    found = Found(nothing.copy(), nothing.copy(), np.full((count, D), np.nan), np.zeros(count, bool))
    found.seconds = np.zeros(len(batch.specs))
    for i, network in enumerate(batch.nets.networks):
        rows, start = slice(i * POINTS, (i + 1) * POINTS), time.perf_counter()
        try:
            try:
                got = bracket(network, batch.X[rows], batch.y[rows], level, **options)
            except Warning as warning:
                found.warned[i] = repr(warning)
                got = bracket(network, batch.X[rows], batch.y[rows], level, strict=False, **options)
        except (ArithmeticError, ValueError, TypeError, MemoryError) as error:
            found.failed[i] = repr(error)
            continue
        found.seconds[i] = time.perf_counter() - start
        found.lower[rows], found.upper[rows], found.witness[rows] = got.lower, got.upper, got.witness
        found.correct[rows] = got.correct
    return found


# ---- claims


@dataclass
class Violation:
    claim: str
    row: int
    text: str


def lengths(V):
    return units(V)[1]


def flips(network, X, y):
    """Whether y f <= 0 as a user sees it in float64, shape (n,); f may be infinite, but not nan."""
    with np.errstate(all="ignore"):
        return y * network.astype("float64").decision_function(X, num_threads=1) <= 0


def too_large(batch, found, towards=None, rng=None):
    """Rows whose lower end is above an error's distance, with that distance (exact)."""
    norms = lengths(batch.X)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(norms > 0, found.lower / np.where(norms > 0, norms, 1) - ROOM, 0)
    rows = np.flatnonzero((found.lower > 0) & (reach > 0))
    if not len(rows):
        return {}
    net, y, reach = batch.net[rows], batch.y[rows], reach[rows]
    if batch.nets.dim == 2:
        doubt = slack_of(batch.nets, net)
        radius, ray = plane_radius(batch.nets, net, batch.X[rows], y, reach, PLAIN, np.float64, 0, doubt)
        near = np.flatnonzero(np.isfinite(radius))
        radius, ray = plane_radius(batch.nets, net[near], batch.X[rows[near]], y[near], reach[near])
        seen = np.isfinite(radius)
        rows, rays = rows[near[seen]], ray[seen]
    else:
        aim = None if towards is None else towards[rows]
        seen, rays = space_errors(batch.nets, net, batch.X[rows], y, reach, aim, rng)
        rows, rays = rows[seen], rays[seen]
    result = {}
    for row, ray in zip(rows, rays, strict=True):
        within = float(np.nextafter(found.lower[row], 0))
        distance = exact_error_near(batch.nets.networks[row // POINTS], batch.X[row], batch.y[row], ray, within)
        if distance is not None:
            result[row] = distance
    return result


def not_errors(batch, found):
    """Rows whose witness ends farther than rounding from every error: 1e-9 upper + 8 eps (||x|| + upper)."""
    rows = np.flatnonzero(found.correct & np.isfinite(found.upper) & np.isfinite(found.witness).all(axis=1))
    X, y, net = batch.X[rows], batch.y[rows], batch.net[rows]
    with np.errstate(over="ignore"):
        Q = X + found.witness[rows]
    E, norms = units(Q)
    room = 1e-9 * found.upper[rows].astype(LD) + 2 * ROOM * (lengths(X) + found.upper[rows]) + LD(1e-323)
    bad = (norms > room) & (batch.nets.margin(net, E, y) > 0)
    rows, E, y, net = rows[bad], E[bad], y[bad], net[bad]
    reach = room[bad] / norms[bad]
    if batch.nets.dim == 2:
        directions = plane_directions(E).transpose(1, 0, 2)
    else:
        U = batch.nets.U[net].astype(LD)
        directions = tangents(E, np.concatenate([slopes(batch.nets, net, E, y)[:, None], U, -U], axis=1))
    B = directions.shape[1]
    flat, d = np.repeat(np.arange(len(rows)), B), directions.reshape(-1, E.shape[1])
    real = np.flatnonzero((d * d).sum(axis=1) > 0.5)
    k = flat[real]
    sine, _, _ = errors_along(batch.nets, net[k], E[k], d[real], y[k], reach[k], PLAIN, LD, 0)
    bad = np.ones(len(rows), bool)
    bad[k[np.isfinite(sine)]] = False
    # Where neurons nearly cancel 80 bits are noise, too: the same rays in exact arithmetic.
    far = reach[:, None, None] * directions
    for i in np.flatnonzero(bad):
        network, q = batch.nets.networks[net[i]], E[i]
        rays = [q, *(q + step for step in far[i] if np.any(step))]
        kinks = [kink_beside(u, q) for u in network.directions.astype(np.float64)] if len(q) == 2 else []
        exact = [[to_fraction(c) for c in ray] for ray in rays] + [kink for kink in kinks if kink is not None]
        bad[i] = all(exact_sign(network, y[i], ray) == 1 for ray in exact)
    return rows[bad]


def undercut(batch, found):
    """Rows in the plane whose upper end is below the exact radius: the witness is no error, nor is one as near."""
    rows = not_errors(batch, found)
    if not len(rows):
        return {}
    radius, _ = plane_radius(batch.nets, batch.net[rows], batch.X[rows], batch.y[rows])
    room = ROOM * (lengths(batch.X[rows]) + found.upper[rows]) + LD(1e-323)
    short = found.upper[rows] < radius * (1 - LD(1e-9)) - room
    return {row: f"the nearest error at {float(far):.17g}" for row, far in zip(rows[short], radius[short], strict=True)}


def claims(batch, found, towards=None, rng=None):
    """(claim, row) of all that is wrong with brackets of a batch, and notes by row."""
    X, y, net = batch.X, batch.y, batch.net
    gone = np.isin(net, list(found.failed))
    norms, length = lengths(X), np.full(len(X), np.nan, LD)
    whole = np.isfinite(found.witness).all(axis=1)
    length[whole] = lengths(found.witness[whole])
    finite = np.isfinite(found.lower) & np.isfinite(found.upper) & whole
    # Certain is a sign that no rounding of products and logarithms changes.
    slack = slack_of(batch.nets, net)
    right = (batch.nets.margin(net, units(X)[0], y, CERTAIN) > slack) & (norms > 0)
    wrong = (batch.nets.margin(net, units(X)[0], y, -CERTAIN) <= -slack) | (norms == 0)
    fine = finite & found.correct
    with np.errstate(all="ignore"):
        result = {
            "not finite": ~finite & ~gone,
            "lower above upper": finite & ~((found.lower >= 0) & (found.lower <= found.upper)),
            "correct is wrong": ~gone & ~batch.nets.residue[net] & np.where(found.correct, wrong, right),
            "upper is not the witness's length": fine & ~(abs(length - found.upper) <= 1e-14 * length + LD(5e-324)),
            "upper beyond the origin": fine & (found.upper > norms * (1 + LD(1e-14)) + LD(5e-324)),
            "a radius of a misclassified point": finite & ~found.correct & ((found.lower != 0) | (found.upper != 0)),
        }
    kept = np.ones(len(X), bool)
    for i, network in enumerate(batch.nets.networks):
        rows = np.arange(i * POINTS, (i + 1) * POINTS)
        rows = rows[fine[rows]]
        if len(rows):
            with np.errstate(all="ignore"):
                kept[rows] = flips(network, X[rows] + found.witness[rows], y[rows])
    result["the witness does not flip the network"] = ~kept
    result = {claim: list(np.flatnonzero(bad)) for claim, bad in result.items()}
    result["the witness is no error"] = list(not_errors(batch, found)) if batch.nets.dim != 2 else []
    short = undercut(batch, found) if batch.nets.dim == 2 else {}
    over = too_large(batch, found, towards, rng)
    over = {row: f"an error at {distance:.17g}" for row, distance in over.items()}
    raised, warned = ({i * POINTS: text for i, text in told.items()} for told in (found.failed, found.warned))
    for claim, told in (
        ("upper below the exact radius", short),
        ("lower above the exact radius", over),
        ("raised", raised),
        ("warned", warned),
    ):
        result[claim] = list(told)
    notes = warned | raised | short | over
    return [(claim, row) for claim, rows in result.items() for row in rows], notes


def violations(batch, found, level, towards=None, rng=None):
    """All that is wrong, told so that it can be pasted."""
    wrong, notes = claims(batch, found, towards, rng)
    return [Violation(claim, row, tell(batch, found, level, claim, row, notes.get(row, ""))) for claim, row in wrong]


def tell(batch, found, level, claim, row, note=""):
    """The case as Python."""
    extra = "".join(f", {name}={value}" for name, value in limits(level).items())
    return (
        f"# {claim}: lower {found.lower[row]:.17g}, upper {found.upper[row]:.17g}, correct {found.correct[row]}"
        f"{', ' + note if note else ''}\n{batch.code(row)}\n"
        f"r = pf.robust_radius(net, x, y, {level!r}{extra})  # alone; found as one of {POINTS} points"
    )


def differences(batch, found, level, rng, share=0.25):
    """Brackets again, of some nets: with two threads the same bits, at another power of two radii within 1e-12."""
    result = []
    for i, network in enumerate(batch.nets.networks):
        # A time limit (see ``limits``) that was met may be met elsewhere the next time.
        hurried = level == "exact" and found.seconds is not None and found.seconds[i] > 0.5
        if rng.random() > share or i in found.failed or hurried:
            continue
        rows, k = np.arange(i * POINTS, (i + 1) * POINTS), int(rng.integers(-300, 300))
        try:
            result += other_threads(network, batch, found, level, rows) + other_scale(network, batch, level, rows, k)
        except (Warning, ArithmeticError, ValueError, TypeError, MemoryError) as error:
            claim = "warned" if isinstance(error, Warning) else "raised"
            result.append((claim, rows[0], f"{error!r} for X * 2**{k} (where that is exact)"))
    return [Violation(claim, row, tell(batch, found, level, claim, row, note)) for claim, row, note in result]


def other_threads(network, batch, found, level, rows):
    """Where two threads give other bits."""
    two, result = bracket(network, batch.X[rows], batch.y[rows], level, num_threads=2), []
    for name in ("lower", "upper", "witness", "correct"):
        before, after = getattr(found, name)[rows], getattr(two, name)
        differ = (before != after) & ~((before != before) & (after != after))
        differ = differ.reshape(POINTS, -1).any(axis=1)
        result += [("bits depend on num_threads", row, name) for row in rows[differ]]
    return result


def other_scale(network, batch, level, rows, k):
    """Where X * 2**k, of points that lose nothing by it, has other radii."""
    size = np.where(batch.X[rows] != 0, np.abs(batch.X[rows]), 1.0)
    with np.errstate(all="ignore"):
        moved = np.ldexp(size, k)
    rows = rows[((size > 1e-280) & (size < 1e280) & (moved > 1e-280) & (moved < 1e280)).all(axis=1)]
    if not len(rows):
        return []
    X, y, result = batch.X[rows], batch.y[rows], []
    one, other = (bracket(network, Z, y, level, num_threads=1) for Z in (X, np.ldexp(X, k)))
    # A witness holds through the public call: where neurons cancel that is rounding, other at every scale.
    U, sign = network.directions.astype(float), network.sign
    cancel = ((U @ U.T > 1 - 1e-6) & (np.outer(sign, sign) < 0)).any()
    for name in ("lower",) if cancel else ("lower", "upper"):
        before, after = getattr(one, name), np.ldexp(getattr(other, name), -k)
        # A witness holds through the public call, whose powers round otherwise at another scale: by a stretch or so.
        room = 1e-12 * np.abs(before) + (ROOM if name == "lower" else 1e-12) * lengths(X).astype(float)
        result += [(name, row) for row in rows[~(np.abs(before - after) <= room)]]
    result += [("correct", row) for row in rows[one.correct != other.correct]]
    return [("depends on the scale of x", row, f"{name}, X * 2**{k}") for name, row in result]


def against_exact(batch, found):
    """Where a certificate of another level is longer than the witness that level exact found."""
    result = []
    room = ROOM * lengths(batch.X)
    for level in ("fast", "tight"):
        other = ask(batch, level)
        with np.errstate(invalid="ignore"):
            bad = found.correct & other.correct & (other.lower > found.upper + room)
        for row in np.flatnonzero(bad):
            note = f"level exact has a witness of {found.upper[row]:.17g}"
            text = tell(batch, other, level, "lower above the witness of exact", row, note)
            result.append(Violation("lower above the witness of exact", row, text))
    return result


def quality(batch, found):
    """Lower and upper over the exact radius in the plane, of the points that are classified rightly, not by noise.

    Left out are points whose nearest error float64 cannot hold: where y f, as evaluated, is not <= 0 all along a little
    beyond it, as at rays of measure 0 and where neurons cancel but for rounding.
    """
    E, norms = units(batch.X)
    rows = np.flatnonzero(found.correct & np.isfinite(found.upper) & (norms > 1e-290) & (norms < 1e290))
    radius, ray = plane_radius(batch.nets, batch.net[rows], batch.X[rows], batch.y[rows], None, FINE, np.float64, 12)
    kept = radius > NOISE * norms[rows]
    onto = (np.einsum("rd,rd->r", E[rows], ray)[:, None] * ray - E[rows]) * norms[rows, None]
    for i, network in enumerate(batch.nets.networks):
        mine = np.flatnonzero(kept & (batch.net[rows] == i))
        for stretch in STRETCHES if len(mine) else ():
            moved = batch.X[rows[mine]] + (onto[mine] * (1 + stretch)).astype(float)
            kept[mine] &= flips(network, moved, batch.y[rows[mine]])
    rows, radius = rows[kept], radius[kept]
    return rows, (found.lower[rows] / radius).astype(float), (found.upper[rows] / radius).astype(float)
