"""Errors of small general two-layer networks by brute force, and hostile networks to hold brackets against.

The formula is written here anew, on a network's stored state: with x' = x - center and z_j = <x',u_j> + o_j,

    F_c(x) = kappa(x') sum_j v_jc phi_j + B_c,

phi_j = ||w_j|| sigma(z_j)^p (pReLU), ||w_j||^p sigma(z_j)^p (polynomial) or tanh(||w_j|| z_j); kappa = ||x'||^-(p-1)
for normalised input, else 1; at x' = 0 and p > 1 the sum is then 0. x with label y is an error where F_y <= F_c for
another class c; one output f is taken as the pair (0, f). All outputs are divided by one large number, which changes no
error.

A point is called a *sure* error only if its margin in ``LD`` (80 bits on x86-64) is at most minus a bound on its
rounding. A sure error at distance r refutes every certificate above r: that takes no tolerance, and no resolution of
the search.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

LD = np.longdouble
EPS, DIGITS = float(np.finfo(np.float64).eps), float(np.finfo(LD).eps)

ANGLES, SPHERE = 240, 900  # rays from a point in the plane and in space
REACHES = 40  # points of a ray, geometrically
FINEST = 1e-9  # of the scale of a problem: where rays begin
NEAREST = 16  # rays whose crossing is bisected
SPLIT, SPLITS = 16, 11  # parts of an interval at once, and how often: to 1e-13 of it
ROUNDS = 9  # of refining the direction
ROOM = 8 * EPS  # of ||x|| + ||center||: x - center as rounded by whoever takes float64


# ---- the formula


@dataclass(frozen=True)
class State:
    """A network's state, outputs as columns (two of one output), each logarithm less the largest."""

    U: np.ndarray  # (h, D)
    log_norm: np.ndarray  # (h,) of LD
    logs: np.ndarray  # (h, C) of LD: of the coefficients, -inf for 0
    sign: np.ndarray  # (h, C)
    offsets: np.ndarray  # (h,)
    bias: np.ndarray  # (C,) of LD
    center: np.ndarray  # (D,)
    normalized: bool
    tanh: bool
    p: float
    classes: np.ndarray  # (C,)
    depth: float  # largest |logarithm|: its rounding is that of the exponential

    @classmethod
    def of(cls, network: Any) -> State:
        """Read anything with a TwoLayerNetwork's attributes."""
        sign, logs = np.asarray(network.sign, float), np.asarray(network.log_abs_v, float)
        if sign.ndim == 1:
            sign, logs = np.stack([0 * sign, sign], axis=1), np.stack([np.full_like(logs, -np.inf), logs], axis=1)
        U, tanh, p = np.asarray(network.directions, float), network.activation == "tanh", float(network.p)
        log_norm = np.asarray(network.log_norm).astype(LD)
        logs = logs.astype(LD)
        if not tanh:
            logs = logs + (LD(p) if network.activation == "polynomial" else LD(1)) * log_norm[:, None]
        C, h = logs.shape[1], len(U)
        bias = np.zeros(C) if network.output_bias is None else np.asarray(network.output_bias, float)
        bias = (np.r_[0.0, bias] if len(bias) < C else bias).astype(LD)
        with np.errstate(divide="ignore"):
            largest = max(logs.max(), np.log(np.abs(bias)).max())
        largest = LD(0) if np.isneginf(largest) else largest
        finite = np.abs(np.r_[logs[np.isfinite(logs)], log_norm[np.isfinite(log_norm)], largest])
        return cls(
            U=U,
            log_norm=log_norm,
            logs=logs - largest,
            sign=sign,
            offsets=np.zeros(h) if network.offsets is None else np.asarray(network.offsets, float),
            bias=bias * np.exp(-largest),
            center=np.zeros(U.shape[1]) if network.center is None else np.asarray(network.center, float),
            normalized=bool(network.normalize_input),
            tanh=tanh,
            p=p,
            classes=np.asarray(network.classes),
            depth=float(finite.max()),
        )

    def number(self, y: Any) -> np.ndarray:
        """Columns of the labels y (n,)."""
        return np.argmax(np.asarray(y)[:, None] == self.classes, axis=1)

    def outputs(self, X: np.ndarray, kind: type = np.float64) -> np.ndarray:
        """F (m, C), divided by the large number."""
        phi = self._phi(X.astype(kind) - self.center.astype(kind), kind)[1]
        return phi @ self._coefficients(kind) + self.bias.astype(kind)

    def lowest(self, X: np.ndarray, own: int) -> np.ndarray:
        """The margin F_own - max F_c (m,) in float64."""
        coefficients, bias = self._pairs[own]
        return (self._phi(X - self.center, np.float64)[1] @ coefficients + bias).min(axis=1)

    @cached_property
    def _pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Coefficients (h, C - 1) and biases (C - 1,) of the margins of each class."""
        full = self._coefficients(LD)
        found = []
        for own in range(len(self.bias)):
            others = [c for c in range(len(self.bias)) if c != own]
            difference, bias = full[:, own, None] - full[:, others], self.bias[own] - self.bias[others]
            found.append((difference.astype(float), bias.astype(float)))
        return found

    @cached_property
    def _float_norm(self) -> np.ndarray:
        return np.exp(self.log_norm).astype(float)

    def margins(self, X: np.ndarray, own: np.ndarray, kind: type = LD) -> tuple[np.ndarray, np.ndarray]:
        """Margins F_own - F_c (m, C), inf for c = own, and bounds on their rounding (m, C), for X (m, D), own (m,)."""
        phi, rounding, coefficient = *self._rounded(X, kind), self._coefficients(kind)
        rows, eps, bias = np.arange(len(X)), kind(np.finfo(kind).eps), self.bias.astype(kind)
        difference = coefficient.T[own][:, None, :] - coefficient.T[None]  # (m, C, h)
        size = np.abs(coefficient.T)[own][:, None, :] + np.abs(coefficient.T)[None]
        constant = bias[own][:, None] - bias[None]
        around = np.abs(bias)[own][:, None] + np.abs(bias)[None]
        if kind is LD:
            # Equal coefficients and biases cancel without rounding here, so that ties of classes are known to be ties;
            # the bound for float64 is of whoever subtracts outputs.
            size, around = np.where(difference == 0, 0, size), np.where(constant == 0, 0, around)
        found = np.einsum("mch,mh->mc", difference, phi) + constant
        units = len(self.U) + 8.0 + 2.0 * self.depth
        bound = np.einsum("mch,mh->mc", size, rounding + units * np.abs(phi))
        bound = eps * (bound + 4.0 * units * around)
        found[rows, own] = np.inf
        return found, bound

    def _coefficients(self, kind: type) -> np.ndarray:
        """Of phi in F, (h, C)."""
        return np.asarray((self.sign * np.exp(self.logs)).astype(kind))

    def _phi(self, x: np.ndarray, kind: type) -> tuple[np.ndarray, np.ndarray]:
        """Return z (m, h) and phi kappa (m, h) at x' (m, D)."""
        z = x @ self.U.T.astype(kind) + self.offsets.astype(kind)
        if self.tanh:
            return z, np.tanh((self._float_norm if kind is np.float64 else np.exp(self.log_norm)) * z)
        phi = np.maximum(z, 0)
        if self.p != 1:
            phi = phi ** kind(self.p)
        if self.normalized and self.p > 1:
            length = np.linalg.norm(x, axis=1)[:, None]
            with np.errstate(over="ignore", divide="ignore"):  # towards the centre it grows beyond float64
                phi = np.where(length > 0, phi / np.where(length > 0, length, 1) ** kind(self.p - 1), 0)
        return z, phi

    def _rounded(self, X: np.ndarray, kind: type) -> tuple[np.ndarray, np.ndarray]:
        """Return phi kappa (m, h) and bounds on its rounding in units of eps."""
        x = X.astype(kind) - self.center.astype(kind)
        z, phi = self._phi(x, kind)
        size = (np.abs(X) + np.abs(self.center)).astype(kind)
        blur = (X.shape[1] + 4.0) * (size @ np.abs(self.U).T.astype(kind) + np.abs(self.offsets))  # of z, in eps
        if self.tanh:
            norm = np.exp(self.log_norm).astype(kind)
            return phi, 4.0 + norm * (blur + (8.0 + 2.0 * self.depth) * np.abs(z))
        p, eps = kind(self.p), kind(np.finfo(kind).eps)
        # sigma^p after a change of eps blur, at kinks too: p (sigma + eps blur)^(p-1) eps blur.
        near = np.maximum(z + eps * blur, 0)
        change = np.where(near > 0, p * near ** (p - 1), 0) * blur
        if not self.normalized or self.p == 1:
            return phi, change + 8.0 * (p + 2.0) * phi
        length, far = np.linalg.norm(x, axis=1)[:, None], np.linalg.norm(size, axis=1)[:, None]
        safe = np.where(length > 0, length, 1)
        slack = 8.0 * (p + 2.0) + (p - 1) * (X.shape[1] + 4.0) * far / safe
        return phi, np.where(length > 0, change / safe ** (p - 1) + slack * phi, 0)

    def sure(self, X: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Which of X (m, D) are errors for the columns own (m,), whatever rounding did."""
        found, bound = self.margins(X, own)
        return np.asarray((found <= -bound).any(axis=1) & np.isfinite(bound).all(axis=1))

    def clearly_wrong(self, X: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Which of X (m, D) are errors, whatever rounding does in float64."""
        found, bound = self.margins(X, own)[0], self.margins(X, own, np.float64)[1]
        return np.asarray((found < -bound).any(axis=1))

    def clearly_right(self, X: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Which of X (m, D) are no errors, whatever rounding does in float64."""
        found, bound = self.margins(X, own)[0], self.margins(X, own, np.float64)[1]
        return np.asarray((found > bound).all(axis=1))


# ---- the search


@dataclass(frozen=True)
class Adversary:
    """What may be done to a point: the coordinates that are free (D,), and the box the moved point must stay in."""

    free: np.ndarray
    box: tuple[float, float] | None = None

    def may(self, X: np.ndarray) -> np.ndarray:
        """Which of X (m, D) are in the box, as far as coordinates are free."""
        if self.box is None:
            return np.ones(len(X), dtype=bool)
        low, high = self.box
        return np.asarray(((X >= low) & (X <= high))[:, self.free].all(axis=1))

    def lowest(self, state: State, X: np.ndarray, own: int) -> np.ndarray:
        """Margins (m,) in float64, inf where the adversary may not go."""
        return np.where(self.may(X), state.lowest(X, own), np.inf)


def rays(free: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Unit directions (K, D) over the free coordinates: both of a line, even in the plane and in space."""
    count = int(free.sum())
    if count == 1:
        inner = np.array([[1.0], [-1.0]])
    elif count == 2:
        angle = 2 * np.pi * (np.arange(ANGLES) + rng.random()) / ANGLES
        inner = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    else:
        k = np.arange(SPHERE) + 0.5
        height, turn = 1 - 2 * k / SPHERE, np.pi * (1 + 5**0.5) * k
        inner = np.stack([np.sqrt(1 - height**2) * np.cos(turn), np.sqrt(1 - height**2) * np.sin(turn), height], axis=1)
        if count > 3:
            inner = rng.standard_normal((SPHERE, count))
            inner /= np.linalg.norm(inner, axis=1, keepdims=True)
    out = np.zeros((len(inner), len(free)))
    out[:, free] = inner
    return out


def _special(state: State, x: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Directions to kinks and along them, to the centre, and their opposites, (K, D)."""
    U = np.where(free, state.U, 0.0)
    candidates = [U, np.where(free, state.center - x, 0.0)[None]]
    if free.sum() == 2:
        a, b = np.flatnonzero(free)
        turned = np.zeros_like(U)
        turned[:, a], turned[:, b] = -U[:, b], U[:, a]
        candidates.append(turned)
    candidates = np.concatenate(candidates)
    length = np.linalg.norm(candidates, axis=1)
    candidates = candidates[length > 0] / length[length > 0, None]
    return np.concatenate([candidates, -candidates])


def _scales(state: State, x: np.ndarray) -> tuple[float, float]:
    """The least and the largest length that matters at x."""
    z = np.abs((x - state.center) @ state.U.T + state.offsets)
    lengths = np.r_[z, np.linalg.norm(x - state.center), np.linalg.norm(x)]
    if state.tanh:
        with np.errstate(divide="ignore"):
            lengths = np.r_[lengths, np.exp(-state.log_norm[np.isfinite(state.log_norm)]).astype(float)]
    lengths = lengths[(lengths > 0) & np.isfinite(lengths)]
    return (float(lengths.min()), float(lengths.max())) if len(lengths) else (1.0, 1.0)


def _first(
    state: State, x: np.ndarray, own: int, directions: np.ndarray, reaches: np.ndarray, adversary: Adversary
) -> np.ndarray:
    """Where rays (K, D) are first seen in error, (K,), bisected from the reach before; inf where none is."""
    K, R = len(directions), len(reaches)
    points = x + reaches[None, :, None] * directions[:, None, :]
    F = adversary.lowest(state, points.reshape(K * R, -1), own).reshape(K, R)
    wrong = F <= 0
    some = np.flatnonzero(wrong.any(axis=1))
    result = np.full(K, np.inf)
    if not len(some):
        return result
    index = wrong[some].argmax(axis=1)
    high = reaches[index]
    low = np.where(index > 0, reaches[np.maximum(index - 1, 0)], 0.0)
    # Only the nearest few are worth bisecting.
    keep = np.argsort(high, kind="stable")[:NEAREST]
    some, low, high = some[keep], low[keep], high[keep]
    shares, rows = np.arange(1, SPLIT) / SPLIT, np.arange(len(some))
    for _ in range(SPLITS):
        between = low[:, None] + (high - low)[:, None] * shares
        points = x + between[:, :, None] * directions[some][:, None, :]
        value = adversary.lowest(state, points.reshape(-1, len(x)), own).reshape(between.shape)
        edges = np.concatenate([low[:, None], between, high[:, None]], axis=1)
        first = np.where((value <= 0).any(axis=1), (value <= 0).argmax(axis=1) + 1, SPLIT)
        low, high = edges[rows, first - 1], edges[rows, first]
    result[some] = high
    return result


def _made_sure(
    state: State, x: np.ndarray, own: int, direction: np.ndarray, length: float, adversary: Adversary
) -> float:
    """Distance of a sure error a hair beyond length along the ray, as measured; inf where none is found."""
    stretches = np.r_[0.0, 10.0 ** np.arange(-15.0, -2.0)]
    points = x + (length * (1 + stretches))[:, None] * direction
    good = state.sure(points, np.full(len(points), own)) & adversary.may(points)
    if not good.any():
        return float("inf")
    move = points[int(good.argmax())].astype(LD) - x.astype(LD)
    return float(np.sqrt((move**2).sum()) * (1 + 1e-18))


def nearest_error(
    state: State,
    x: np.ndarray,
    y: Any,
    adversary: Adversary,
    *,
    hints: np.ndarray | None = None,
    seed: int = 0,
) -> float:
    """Distance of the nearest sure error found, an upper bound on the radius; inf where none is.

    ``hints`` (K, D), if given, are perturbations whose directions and neighbourhoods are tried besides.
    """
    rng = np.random.default_rng(seed)
    own, free = int(state.number([y])[0]), adversary.free
    if not free.any() or state.sure(x[None], np.array([own]))[0]:
        return 0.0 if state.sure(x[None], np.array([own]))[0] else float("inf")
    least, largest = _scales(state, x)
    reaches = np.geomspace(max(0.03 * least, FINEST * largest), 8.0 * largest, REACHES)
    directions = np.concatenate([_special(state, x, free), rays(free, rng)])
    if hints is not None and len(hints):
        length = np.linalg.norm(hints, axis=1)
        useful = (length > 0) & np.isfinite(length)
        directions = np.concatenate([hints[useful] / length[useful, None], directions])
        reaches = np.unique(np.r_[reaches, length[useful], (1 - 1e-9) * length[useful]])
    found = _first(state, x, own, directions, reaches, adversary)
    best, starts = _at_center(state, x, own, adversary), np.argsort(found)[:2]
    for start in starts[np.isfinite(found[starts])]:
        direction, length = _refined(state, x, own, directions[start], float(found[start]), adversary, rng)
        best = min(best, _made_sure(state, x, own, direction, length, adversary))
    return best


def _at_center(state: State, x: np.ndarray, own: int, adversary: Adversary) -> float:
    """Distance of the centre, where normalised input leaves the biases alone, if it is an error; else inf."""
    center = state.center[None]
    reachable = (x == state.center)[~adversary.free].all() and adversary.may(center)[0]
    if not (reachable and state.sure(center, np.array([own]))[0]):
        return float("inf")
    return float(np.sqrt(((state.center.astype(LD) - x.astype(LD)) ** 2).sum()) * (1 + 1e-18))


def _refined(
    state: State,
    x: np.ndarray,
    own: int,
    direction: np.ndarray,
    length: float,
    adversary: Adversary,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Turn a ray that errs by less and less, keeping what errs nearer."""
    free = adversary.free
    if free.sum() == 1:
        return direction, length
    turn = 0.1
    for _ in range(ROUNDS):
        noise = np.where(free, rng.standard_normal((32, len(x))), 0.0)
        noise -= (noise @ direction)[:, None] * direction
        size = np.linalg.norm(noise, axis=1)
        noise = noise[size > 0] / size[size > 0, None]
        trial = direction + turn * 10.0 ** rng.uniform(-1.5, 0.0, len(noise))[:, None] * noise
        trial /= np.linalg.norm(trial, axis=1, keepdims=True)
        reaches = length * np.array([0.5, 0.8, 0.95, 0.99, 0.999, 0.9999, 1 - 1e-5, 1 - 1e-6, 1 - 1e-8])
        found = _first(state, x, own, trial, reaches, adversary)
        k = int(np.argmin(found))
        if found[k] < length:
            direction, length = trial[k], float(found[k])
        else:
            turn *= 0.3
    return direction, length


def refuted(state: State, x: np.ndarray, y: Any, adversary: Adversary, radius: float, *, seed: int = 0) -> float:
    """Distance of a sure error within ``radius``, less the room of float64; inf where none is found."""
    free = adversary.free
    limit = radius * (1 - 4 * EPS) - ROOM * (np.linalg.norm(x) + np.linalg.norm(state.center))
    if not free.any() or not limit > 0 or not np.isfinite(limit):
        return float("inf")
    own, rng = int(state.number([y])[0]), np.random.default_rng(seed)
    directions = np.concatenate([_special(state, x, free), rays(free, rng)])
    shares = np.array([1.0, 0.999, 0.97, 0.9, 0.75, 0.5, 0.25, 0.05, 1e-3])
    points = (x + limit * shares[:, None, None] * directions).reshape(-1, len(x))
    F = adversary.lowest(state, points, own)
    for k in np.argsort(F)[:4]:
        point, value = points[k], F[k]
        for step in limit * 0.3 ** np.arange(8.0):  # down the margin, within the ball
            trial = point + step * np.where(free, rng.standard_normal((16, len(x))), 0.0)
            move = trial - x
            length = np.linalg.norm(move, axis=1, keepdims=True)
            trial = x + move * np.minimum(1.0, limit / np.where(length > 0, length, 1.0))
            values = adversary.lowest(state, trial, own)
            if values.min() < value:
                point, value = trial[values.argmin()], values.min()
        distance = float(np.sqrt(((point.astype(LD) - x.astype(LD)) ** 2).sum()))
        if distance <= limit and adversary.may(point[None])[0] and state.sure(point[None], np.array([own]))[0]:
            return distance
    return float("inf")
