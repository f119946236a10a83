"""Certified <= exact <= attacked on hostile nets in the plane and in space, against the brute force of exact_radius.

Tolerances, all one-sided. lower is compared with the length of a perturbation that the oracle saw succeed, times
1 + 1e-9: this leaves no room for rounding of f, which the certificate has to bound itself, and for that of the oracle
(up to 1e-16 ||x||, seen in 50 digits) by taking off a few units of rounding of ||x||. For upper and its witness
the oracle moves every cosine by ROUNDING against y, what float64 does to <x,u>/||x||: a witness must be an error of a
net that close, and no shorter than its exact radius.
"""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from exact_radius import FINE, Cone, advantage, reached, units

import preluflow as pf

ROUNDING = 2e-15
DEGREES = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
FAST, SLOW, EXACT = {2: 2000, 3: 500}, {2: 7500, 3: 2500}, {2: 160, 3: 64}  # nets by dimension
NOISE = 1e-9  # a radius below NOISE ||x|| says nothing of the attack: f(x) is mostly rounding


# ---- hostile nets: (rng, D, h) -> W, v


def plain(rng, D, h):
    """Gaussian."""
    return rng.standard_normal((h, D)), rng.standard_normal(h)


def opposite(rng, D, h):
    """Pairs at an angle of pi minus 0.1 to 1e-6."""
    W, v = plain(rng, D, h)
    for j in range(1, h, 2):
        W[j] = -W[j - 1] * rng.uniform(0.5, 2) + 10 ** -rng.uniform(1, 6) * rng.standard_normal(D)
    return W, v


def collinear(rng, D, h):
    """Bundles 0.1 to 1e-8 apart, of both signs."""
    W, v = plain(rng, D, h)
    for j in range(1, h):
        if rng.random() < 0.7:
            W[j] = W[rng.integers(j)] * rng.uniform(0.5, 2) + 10 ** -rng.uniform(1, 8) * rng.standard_normal(D)
    return W, v


def ratios(rng, D, h):
    """Contributions in ratios up to 1e8."""
    W, v = plain(rng, D, h)
    return W, v * 10 ** -rng.uniform(0, 8, h)


def one_sign(rng, D, h):
    """No rivals: the error is where no neuron is active."""
    W, v = plain(rng, D, h)
    return W, np.abs(v) * rng.choice([-1, 1])


def cancelling(rng, D, h):
    """Pairs of opposite sign and nearly the same direction and weight."""
    W, v = plain(rng, D, h)
    for j in range(1, h, 2):
        W[j] = W[j - 1] + 10 ** -rng.uniform(1, 8) * rng.standard_normal(D)
        v[j] = -v[j - 1] * (1 + rng.choice([0, 1]) * 10 ** -rng.uniform(1, 8))
    return W, v


def lattice(rng, D, h):
    """Small integers: ties, kinks, dead neurons, neurons that cancel exactly."""
    return rng.integers(-2, 3, (h, D)).astype(float), rng.integers(-2, 3, h).astype(float)


def tiny(rng, D, h):
    """Weights of 1e-200 (or 1e150), whose powers leave float64."""
    W, v = plain(rng, D, h)
    return W * rng.choice([1e-200, 1e150]), v * 10 ** rng.uniform(-100, 100)


FAMILIES = (plain, opposite, collinear, ratios, one_sign, cancelling, lattice, tiny)


# ---- points of a net: the five kinds


def points_of(rng, network, W, whole):
    """(5, D) points: random, on a kink, along a neuron, near the boundary (1e-3 to 1e-10), huge or tiny; and labels."""
    D = W.shape[1]
    X = rng.integers(-2, 3, (5, D)).astype(float) if whole else rng.standard_normal((5, D))
    X[3] = rng.standard_normal(D)
    scaled = W / np.maximum(np.abs(W).max(axis=1, keepdims=True), 1e-300) if not whole else W
    first, second = scaled[rng.integers(len(W), size=2)]
    X[1] = np.array([-first[1], first[0]]) if D == 2 else np.cross(first, X[1])
    X[1] *= rng.choice([-1.0, 1.0])
    X[2] = second * rng.choice([-1.0, 1.0])
    X[4] *= rng.choice([1e6, 1e-6])
    y = np.where(advantage(network, X, np.ones(5)) > 0, 1.0, -1.0)
    cone, x = Cone(network), units(X[3:4])[0][0]
    e = rng.standard_normal(D)
    e -= (e @ x) * x
    e /= np.linalg.norm(e)
    t = cone.first_error((cone.U @ x)[None], (cone.U @ e)[None], y[3:4], FINE)[0] if len(cone.c) else 0.0
    if 0 < t < 1.5:
        t *= 1 - 10 ** -rng.uniform(3, 10)
        X[3] = np.cos(t) * x + np.sin(t) * e
    y[rng.random(5) < 0.05] *= -1  # misclassified
    return X, y


class Case(NamedTuple):
    """A net, some points, and the oracle's radii of them."""

    name: str
    W: np.ndarray
    v: np.ndarray
    network: pf.TwoLayerNetwork
    X: np.ndarray
    y: np.ndarray
    kind: np.ndarray
    exact: np.ndarray

    def tell(self, i, found, claim):
        """All that is needed to see it again."""
        net = self.network
        return (
            f"{claim}\n{self.name}, point {i} (kind {self.kind[i]}): lower {found.lower[i]:.17g}, "
            f"exact {self.exact[i]:.17g}, upper {found.upper[i]:.17g}, correct {found.correct[i]}\n"
            f"W = {self.W.tolist()}\nv = {self.v.tolist()}\n"
            f"net = pf.TwoLayerNetwork(W, v, {net.activation!r}, {net.p})\nx = {self.X[i].tolist()}\n"
            f"y = {self.y[i]}\nwitness = {found.witness[i].tolist()}"
        )


@cache
def case(D, index):
    """The net number ``index`` in dimension D, with five points in the plane and two in space."""
    rng = np.random.default_rng([D, index])
    family = FAMILIES[index % len(FAMILIES)]
    W, v = family(rng, D, int(rng.integers(1, 9)))
    p, activation = float(rng.choice(DEGREES)), str(rng.choice(["prelu", "polynomial"]))
    network = pf.TwoLayerNetwork(W, v, activation, p)
    X, y = points_of(rng, network, W, family is lattice)
    kind = np.arange(5) if D == 2 else rng.choice(5, 2, replace=False)
    X, y = X[kind], y[kind]
    name = f"case({D}, {index}) of family {family.__name__}"
    return Case(name, W, v, network, X, y, kind, reached(network, X, y))


def bracket(network, X, y, level):
    """robust_radius, where any warning is an error; few nodes at level exact: what is proved until then must hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return pf.robust_radius(network, X, y, level, max_nodes=2000)


def violations(here, found):
    """What is wrong with a bracket, one claim a point."""
    network, X, y = here.network, here.X, here.y
    sure, maybe = advantage(network, X, y, ROUNDING) > 0, advantage(network, X, y, -ROUNDING) > 0
    length = np.linalg.norm(found.witness, axis=1)
    error = advantage(network, X + found.witness, y, ROUNDING) <= 0
    finite = np.isfinite(found.lower) & np.isfinite(found.upper) & np.isfinite(found.witness).all(axis=1)
    claims = {
        "not finite": ~finite,
        "lower above the exact radius": found.lower > here.exact * (1 + 1e-9),
        "lower above upper": ~found.consistent,
        "correct is wrong": np.where(found.correct, ~maybe, sure),
        "upper is not the witness's length": np.abs(length - found.upper) > 1e-14 * length,
        "the witness is no error": found.correct & ~error,
        "upper beyond the origin": found.upper > np.linalg.norm(X, axis=1) * (1 + 1e-14),
        "a radius of a misclassified point": ~found.correct & ((found.lower != 0) | (found.upper != 0)),
    }
    if network.dim == 2:
        short = found.upper < here.exact * (1 - 1e-9)
        if short.any():  # than the radius as computed: than that of a net within rounding, too?
            short &= found.upper < reached(network, X, y, slack=ROUNDING) * (1 - 1e-9)
        claims["upper below the exact radius"] = found.correct & short
    return [(claim, i) for claim, bad in claims.items() for i in np.flatnonzero(bad)]


def check(D, indices, level):
    """Assert that no bracket is wrong; return lower / exact and upper / exact of the points beyond NOISE."""
    told, count, ratios = [], Counter(), []
    for index in indices:
        here = case(D, index)
        try:
            found = bracket(here.network, here.X, here.y, level)
        except (Warning, ArithmeticError, ValueError) as error:
            pytest.fail(f"{error!r}\n{here}")
        for claim, i in violations(here, found):
            count[claim] += 1
            if len(told) < 3:
                told.append(here.tell(i, found, claim))
        right = found.correct & (here.exact > NOISE * np.linalg.norm(here.X, axis=1))
        ratios.append(np.c_[found.lower, found.upper][right] / here.exact[right, None])
    assert not count, f"{dict(count)} of {len(indices)} nets; the first ones:\n\n" + "\n\n".join(told)
    return np.concatenate(ratios).T


@pytest.mark.parametrize("D", [2, 3])
def test_certified_exact_attacked(D):
    for level in ("fast", "tight"):  # in one process, so that the oracle looks at every net once
        _, upper = check(D, range(FAST[D]), level)
        assert len(upper) > FAST[D]
        assert np.mean(upper < 1.01) > {2: 0.96, 3: 0.90}[D]


@pytest.mark.slow
@pytest.mark.parametrize("D", [2, 3])
def test_certified_exact_attacked_on_ten_thousand_nets(D):
    for level in ("fast", "tight"):
        check(D, range(SLOW[D]), level)


@pytest.mark.parametrize("D", [2, 3])
def test_level_exact_is_exact_where_it_comes_to_an_end(D):
    lower, upper = check(D, range(EXACT[D]), "exact")
    if D == 2:
        assert np.mean(lower > 1 - 2e-4) > 0.9
        assert np.mean(upper < 1.01) > 0.98


@pytest.mark.slow
@pytest.mark.parametrize("D", [2, 3])
def test_level_exact_on_more_nets(D):
    check(D, range(5 * EXACT[D]), "exact")


@pytest.mark.parametrize("p", DEGREES)
def test_the_oracle_finds_what_half_a_million_angles_find(p):
    rng = np.random.default_rng(int(10 * p))
    turn = np.linspace(-np.pi, np.pi, 500_001)
    circle = np.c_[np.cos(turn), np.sin(turn)]
    for width in (1, 3, 8):
        network = pf.TwoLayerNetwork(*plain(rng, 2, width), p=p)
        X = rng.standard_normal((3, 2))
        plus = advantage(network, circle, np.ones(len(circle)))
        y = np.where(advantage(network, X, np.ones(3)) > 0, 1.0, -1.0)
        for x, label, radius in zip(X, y, reached(network, X, y), strict=True):
            off = np.abs(turn - np.arctan2(x[1], x[0]))
            off = np.minimum(off, 2 * np.pi - off)[label * plus <= 0]
            nearest = min(off.min(initial=np.inf), np.pi / 2)
            assert radius == pytest.approx(np.linalg.norm(x) * np.sin(nearest), abs=2e-5 * np.linalg.norm(x))
