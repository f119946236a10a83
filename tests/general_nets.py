"""Hostile general networks made from (seed, index) alone, and what must hold of every bracket on them.

``make(seed, index)`` gives a ``Case``: a network with offsets, biases, a centre, normalised input, one to four outputs,
tanh, or some of these, in the plane or in space, with points and labels; ``check`` says what is wrong of a bracket. The
truth is ``general_oracle``, on the network's stored state.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from general_oracle import EPS, LD, ROOM, Adversary, State, nearest_error, refuted

import preluflow as pf

DEGREES = (1.0, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 3.0, 4.0, 5.0)
POINTS = 4  # of each network
WIDTH = 8  # at most
LENGTH = 1e-12  # relative: of a witness as told and as measured


@dataclass
class Case:
    """A network as its constructor's arguments, points and labels, and what ``robust_radius`` is told besides."""

    name: str
    network: dict[str, Any]
    X: np.ndarray  # (n, D)
    y: np.ndarray  # (n,)
    told: dict[str, Any] = field(default_factory=dict)  # fixed, bounds

    def build(self) -> pf.TwoLayerNetwork:
        """Make the network."""
        return pf.TwoLayerNetwork(**self.network)

    @property
    def free(self) -> np.ndarray:
        """Coordinates an adversary can touch, (D,)."""
        return ~self.told.get("fixed", np.zeros(self.X.shape[1], dtype=bool))

    def code(self, level: str, row: int | None = None) -> str:
        """The case as Python to paste, of one point or all."""
        X, y = (self.X, self.y) if row is None else (self.X[row : row + 1], self.y[row : row + 1])
        with np.printoptions(precision=17, floatmode="unique", threshold=10**6, linewidth=10**6):
            parts = ", ".join(f"{key}={_shown(value)}" for key, value in self.network.items())
            told = "".join(f", {key}={_shown(value)}" for key, value in self.told.items())
            return (
                f"net = pf.TwoLayerNetwork({parts})\n"
                f"radius = pf.robust_radius(net, {_shown(X)}, {_shown(y)}, {level!r}{told})"
            )


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "np." + repr(value).replace("dtype=", "dtype=np.").replace("np.bool", "bool").replace("\n", "")
    return repr(value)


# ---- networks


def _weights(rng: np.random.Generator, h: int, D: int) -> np.ndarray:
    """Input weights of a kind drawn at random."""
    W = rng.standard_normal((h, D))
    kind = rng.integers(0, 8)
    if kind == 0:  # ties and kinks that are exact
        W = rng.integers(-2, 3, (h, D)).astype(float)
    elif kind == 1 and h > 1:  # duplicates and opposites
        for j in range(1, h):
            if rng.random() < 0.6:
                W[j] = W[rng.integers(0, j)] * rng.choice([-2.0, -1.0, 1.0, 1.0 + 1e-13, 3.0])
    elif kind == 2:
        W *= 10.0 ** rng.uniform(-3, 3, (h, 1))
    elif kind == 3:  # nearly collinear
        W = W[:1] + 10.0 ** rng.uniform(-9, -1) * W
    if rng.random() < 0.15:
        W[rng.integers(0, h)] = 0.0  # dead
    if not W.any():
        W[0, 0] = 1.0
    return W


def _offsets(rng: np.random.Generator, h: int, W: np.ndarray) -> np.ndarray:
    """Hidden biases of a kind drawn at random."""
    b = rng.standard_normal(h)
    kind = rng.integers(0, 6)
    if kind == 0:
        b = rng.integers(-2, 3, h).astype(float)
    elif kind == 1:
        b *= 10.0 ** rng.uniform(-6, 6)
    elif kind == 2:
        b *= 10.0 ** rng.uniform(-6, 6, h)
    elif kind == 3:
        b = np.abs(b)
    return b * np.where(rng.random() < 0.5, 1.0, np.maximum(np.linalg.norm(W, axis=1), 1e-3))


def _outer(rng: np.random.Generator, h: int, C: int, integers: bool) -> np.ndarray:
    """Output weights (h,) or (h, C): ties, absent classes, silent neurons, one sign alone."""
    shape = (h,) if C == 1 else (h, C)
    v = rng.integers(-2, 3, shape).astype(float) if integers else rng.standard_normal(shape)
    kind = rng.integers(0, 8)
    if kind == 0:
        v = np.abs(v)
    elif kind == 1:
        v *= 10.0 ** rng.uniform(-5, 5, shape)
    elif kind == 2 and C > 1:
        v[:, rng.integers(0, C)] = 0.0  # a class that no neuron speaks for
    elif kind == 3 and C > 2:
        v[:, 1] = v[:, 0]  # two classes are one: all is a tie between them
    elif kind == 4 and C > 1:
        v[np.arange(h), rng.integers(0, C, h)] = 0.0
    return v


def make(seed: int, index: int) -> Case:
    """The case of that number."""
    rng = np.random.default_rng([seed, index])
    D, h, C = int(rng.choice([2, 2, 3])), int(rng.integers(1, WIDTH + 1)), int(rng.choice([1, 2, 3, 4]))
    activation = str(rng.choice(["prelu", "prelu", "prelu", "polynomial", "tanh"]))
    p = float(rng.choice(DEGREES))
    W = _weights(rng, h, D)
    integers = bool((np.round(W) == W).all())
    network: dict[str, Any] = {"W": W, "v": _outer(rng, h, C, integers), "activation": activation, "p": p}
    if rng.random() < 0.65:
        network["hidden_bias"] = _offsets(rng, h, W)
    if rng.random() < 0.5:
        bias = rng.standard_normal(C) * 10.0 ** rng.choice([0.0, 0.0, rng.uniform(-6, 6)])
        network["output_bias"] = np.round(bias) if integers else bias
        if C > 1 and rng.random() < 0.15:
            network["output_bias"][rng.integers(0, C)] = -1e6  # absent
    if rng.random() < 0.3:
        center = rng.standard_normal(D) * 10.0 ** rng.choice([0.0, 0.0, rng.uniform(-3, 6)])
        network["center"] = np.round(center) if integers else center
    if activation != "tanh" and rng.random() < 0.35:
        network["normalize_input"] = True
        if "hidden_bias" in network:  # no constants then
            network["hidden_bias"] = network["hidden_bias"] * W.any(axis=1)
    if rng.random() < 0.15:
        network["classes"] = rng.permutation(20)[: max(C, 2)] - 7
    if rng.random() < 0.1:
        factor = 10.0 ** rng.uniform(-140, 140)
        network["v"] = network["v"] * factor
        if "output_bias" in network:
            network["output_bias"] = network["output_bias"] * factor
    told: dict[str, Any] = {}
    if rng.random() < 0.2:
        told["fixed"] = np.arange(D) < rng.integers(1, D)
    X = _points(rng, network, D, integers)
    if rng.random() < 0.15:
        low, high = X.min() - rng.exponential(), X.max() + rng.exponential()
        told["bounds"] = (float(low), float(high))
    return Case(f"seed {seed}, case {index}", network, X, _labels(rng, network, X), told)


def _points(rng: np.random.Generator, network: dict[str, Any], D: int, integers: bool) -> np.ndarray:
    """Points: anywhere, at the centre or a hair from it, on a kink, near the boundary, on a lattice."""
    center, W = network.get("center", np.zeros(D)), network["W"]
    b = network.get("hidden_bias", np.zeros(len(W)))
    X = center + rng.standard_normal((POINTS, D)) * 10.0 ** rng.choice([0.0, 0.0, 0.0, rng.uniform(-5, 5)])
    if integers:
        X = np.round(2.0 * X) / 2.0
    for row in range(1, POINTS):
        kind = rng.integers(0, 7)
        if kind == 0:
            X[row] = center
        elif kind == 1:
            X[row] = center + 10.0 ** rng.uniform(-14, -3) * rng.standard_normal(D)
        elif kind == 2 and W.any():
            j = rng.choice(np.flatnonzero(W.any(axis=1)))
            X[row] -= W[j] * ((X[row] - center) @ W[j] + b[j]) / (W[j] @ W[j])
        elif kind == 3:
            X[row] = _near_boundary(pf.TwoLayerNetwork(**network), X[0], X[row], rng)
    return X


def _near_boundary(network: pf.TwoLayerNetwork, a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A point between a and b that is a little before where the class changes; b where it does not."""
    if network.predict(a[None])[0] == network.predict(b[None])[0]:
        return b
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        same = network.predict((a + middle * (b - a))[None])[0] == network.predict(a[None])[0]
        low, high = (middle, high) if same else (low, middle)
    return a + max(low - 10.0 ** rng.uniform(-13, -1), 0.0) * (b - a)


def _labels(rng: np.random.Generator, network: dict[str, Any], X: np.ndarray) -> np.ndarray:
    """Mostly what the network says."""
    built = pf.TwoLayerNetwork(**network)
    return np.where(rng.random(len(X)) < 0.1, rng.choice(built.classes, len(X)), built.predict(X))


# ---- claims


@dataclass(frozen=True)
class Violation:
    """A claim that fails, and what to paste."""

    claim: str
    text: str


@dataclass(frozen=True)
class Seen:
    """Violations, and of the points that are right lower, upper and the nearest error that the oracle found."""

    violations: list[Violation]
    lower: np.ndarray
    upper: np.ndarray
    nearest: np.ndarray


def check(case: Case, level: str, radius: Any = None, **options: Any) -> Seen:
    """Bracket the points of a case, and hold every claim against the oracle."""
    network = case.build()
    if radius is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            radius = pf.robust_radius(network, case.X, case.y, level, **case.told, **options)
    state = State.of(network)
    own = state.number(case.y)
    wrong: list[Violation] = []

    def tell(claim: str, rows: np.ndarray, note: Any) -> None:
        for row in np.flatnonzero(rows)[:1]:
            text = f"# {case.name}, {level}, point {row}: {claim}\n# {note(row)}\n{case.code(level, int(row))}"
            wrong.append(Violation(claim, text))

    bracket = lambda i: f"lower {radius.lower[i]!r}, upper {radius.upper[i]!r}"  # noqa: E731
    sane = (radius.lower >= 0) & np.isfinite(radius.lower) | ~case.free.any() | np.isposinf(radius.upper)
    tell("lower is a radius", ~(sane & ~np.isnan(radius.lower)), bracket)
    tell("lower <= upper", ~(radius.lower <= radius.upper), bracket)
    error, right = state.sure(case.X, own), state.clearly_right(case.X, own)
    tell("correct where it is", right & ~radius.correct, bracket)
    room = ROOM * (np.linalg.norm(case.X, axis=1) + np.linalg.norm(state.center))
    missed = state.clearly_wrong(case.X, own) | (error & (radius.lower > room))
    tell("wrong where it is", missed & radius.correct, bracket)
    tell("radius 0 where it is wrong", ~radius.correct & ((radius.lower != 0) | (radius.upper != 0)), bracket)
    _witnesses(case, state, radius, own, tell, bracket)
    nearest, adversary = np.full(len(case.X), np.inf), Adversary(case.free, case.told.get("bounds"))
    for row in np.flatnonzero(radius.correct & ~error):
        x, y = case.X[row], case.y[row]
        hints = radius.witness[row : row + 1]
        nearest[row] = min(
            nearest_error(state, x, y, adversary, hints=hints, seed=int(row)),
            refuted(state, x, y, adversary, float(radius.lower[row]), seed=int(row)),
        )
    above = radius.lower * (1 - 4 * EPS) - room > nearest
    center = np.abs(nearest / np.linalg.norm(case.X - state.center, axis=1).clip(1e-300) - 1) < 1e-15
    for claim, rows in (("certified <= nearest error", ~center), ("certified <= the centre, an error", center)):
        tell(claim, above & rows, lambda i: f"{bracket(i)}, but there is an error at {nearest[i]!r}")
    kept = radius.correct & ~error
    return Seen(wrong, radius.lower[kept], radius.upper[kept], nearest[kept])


def _witnesses(case: Case, state: State, radius: Any, own: np.ndarray, tell: Any, bracket: Any) -> None:
    """Witnesses are errors, as long as told, touch what they may, stay in the box, and reach the class they say."""
    found = np.isfinite(radius.upper)
    length = np.linalg.norm(radius.witness, axis=1)
    told = np.where(found, radius.upper, 0.0)
    tell("witness as long as told", found & (np.abs(length - told) > LENGTH * told), bracket)
    tell("fixed coordinates stay", (radius.witness[:, ~case.free] != 0).any(axis=1), bracket)
    moved = case.X + radius.witness
    bound = state.margins(moved, own, np.float64)[1]
    exact = state.margins(moved, own, LD)[0].astype(float)
    lowest = (exact - bound).min(axis=1)
    tell("witness is an error", found & ~(lowest <= 0), lambda i: f"{bracket(i)}, margin {exact[i].min()!r}")
    if "bounds" in case.told:
        low, high = case.told["bounds"]
        free = case.free
        outside = ((moved < low) | (moved > high))[:, free].any(axis=1)
        tell("witness within bounds", found & outside & radius.correct, bracket)
    reached = state.number(radius.reached)
    rows = np.arange(len(own))
    known = (np.asarray(radius.reached)[:, None] == state.classes).any(axis=1)
    tell("reached is a class", found & ~known, bracket)
    tell("reached is a rival", found & (reached == own), bracket)
    tied = (exact - bound)[rows, reached] <= 0
    tell("reached ties or wins", found & (reached != own) & ~tied, bracket)
