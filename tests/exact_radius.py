"""Exact radii of pReLU and polynomial nets in the plane, and near-exact ones in space, by brute force.

f(x) = sum_j s_j a_j relu(<x,u_j>)^p is positively homogeneous: the errors {y f <= 0} form a cone, and the distance of x
to it is ||x|| sin(t), t the smallest angle (at most pi/2: the origin is an error) between x and an error. Along the
great circle cos(t) x/||x|| + sin(t) e the sign of y f is that of phi = (own - rival) / (own + rival), own and rival the
sums of the neurons of either sign; phi is smooth between the angles at which a neuron switches on or off. phi is
evaluated on a grid that has all these angles and is graded towards them; the first crossing is bisected, and every
local minimum before it is zoomed into, for it may dip below 0 between two points of the grid.

An error is where phi <= 0 as computed in float64, so what is returned is the length of a perturbation that was seen to
succeed. ``slack`` (default 0) moves every cosine against y by so much, <x,u_j>/||x|| - slack for own and + slack for
rival neurons: the radius is then a lower estimate, for claims of the other direction.
"""

from __future__ import annotations

import numpy as np

SPLIT = 17  # points of an interval in each round of bisection or zoom
RIGHT = np.pi / 2


def graded(uniform, decades):
    """Fractions of [0, 1]: evenly spaced, and 2 per decade towards both ends, down to 10^-decades."""
    ends = 10.0 ** -np.arange(0.5, decades + 0.25, 0.5)
    inner = np.r_[ends, np.linspace(0.0, 1.0, uniform + 1)]
    return np.unique(np.r_[inner, 1.0 - ends])


FINE, COARSE = (graded(48, 13), 14), (graded(8, 3), 4)  # fractions, rounds of zoom and bisection


def relu_power(z, p):
    """relu(z)^p; small whole and half powers by products, which is faster than pow."""
    z = np.maximum(z, 0.0)
    whole = int(p)
    if p - whole not in (0.0, 0.5):
        return z**p
    result = np.sqrt(z) if p > whole else None
    for _ in range(whole):
        result = z if result is None else result * z
    return result


class Cone:
    """The errors of a network (directions, log_contributions, sign, p), seen along great circles."""

    def __init__(self, network, slack=0.0):
        logs = np.asarray(network.log_contributions)
        alive = np.isfinite(logs)
        U = network.directions[alive].astype(np.float64)
        c = network.sign[alive] * np.exp(logs[alive] - logs[alive].max()) if alive.any() else np.zeros(0)
        # Neurons of one direction as one: those that cancel exactly would leave nothing but rounding of the others.
        self.U, group = np.unique(U + 0.0, axis=0, return_inverse=True) if len(U) else (U, np.zeros(0, dtype=int))
        self.c = np.bincount(group.ravel(), weights=c, minlength=len(self.U))
        self.p, self.slack = float(network.p), slack

    def phi(self, z, y):
        """(own - rival) / (own + rival) for cosines z (..., h) and labels y (...); 0 where nothing is active."""
        side = y[..., None] * self.c
        if self.slack:
            z = z - self.slack * np.sign(side)
        parts = relu_power(z, self.p) * side
        total = np.abs(parts).sum(axis=-1)
        return parts.sum(axis=-1) / np.where(total > 0, total, 1.0)

    def first_error(self, along, across, y, care=FINE):
        """Smallest angle in [0, pi/2] with an error, for circles given by cosines (R, h) at 0 and at pi/2; y (R,)."""
        R, (fractions, rounds) = len(along), care

        def phi(rows, t):
            z = along[rows][:, None, :] * np.cos(t)[..., None] + across[rows][:, None, :] * np.sin(t)[..., None]
            return self.phi(z, np.broadcast_to(y[rows][:, None], t.shape))

        turns = np.arctan2(-along, across)  # where <x,u_j> = 0, modulo pi
        turns = np.where(turns < 0, turns + np.pi, turns)
        edges = np.sort(np.c_[np.zeros(R), np.minimum(turns, RIGHT), np.full(R, RIGHT)], axis=1)
        low, width = edges[:, :-1], np.diff(edges, axis=1)
        t = (low[..., None] + width[..., None] * fractions).reshape(R, -1)
        values = phi(np.arange(R), t)
        wrong = values <= 0
        first = np.where(wrong.any(axis=1), wrong.argmax(axis=1), t.shape[1])
        result = np.where(first == 0, 0.0, RIGHT)

        # Local minima ahead of the first error on the grid.
        inner = values[:, 1:-1]
        dips = (inner <= values[:, :-2]) & (inner <= values[:, 2:]) & (inner < 1) & (t[:, :-2] < t[:, 2:])
        dips &= np.arange(1, t.shape[1] - 1) < first[:, None]
        rows, k = np.nonzero(dips)
        lows, highs = t[rows, k], t[rows, k + 2]
        start = lows.copy()
        found_rows, found_low, found_high = [], [], []
        pick = np.arange(len(rows))
        for _ in range(rounds):
            if not len(rows):
                break
            points = lows[:, None] + (highs - lows)[:, None] * np.linspace(0.0, 1.0, SPLIT)
            level = phi(rows, points)
            best = level.argmin(axis=1)
            here = pick[: len(rows)]
            hit = level[here, best] <= 0
            found_rows.append(rows[hit])
            found_low.append(start[hit])
            found_high.append(points[here, best][hit])
            left, right = points[here, np.maximum(best - 1, 0)], points[here, np.minimum(best + 1, SPLIT - 1)]
            keep = ~hit & (right - left > 1e-16)
            rows, start, lows, highs = rows[keep], start[keep], left[keep], right[keep]

        # Bisection of all, lower ends without and upper ends with an error.
        crossing = np.flatnonzero((first > 0) & (first < t.shape[1]))
        rows = np.concatenate([crossing, *found_rows]).astype(int)
        lows = np.concatenate([t[crossing, first[crossing] - 1], *found_low])
        highs = np.concatenate([t[crossing, first[crossing]], *found_high])
        here = np.arange(len(rows))
        for _ in range(rounds):
            if not len(rows):
                break
            points = lows[:, None] + (highs - lows)[:, None] * np.linspace(0.0, 1.0, SPLIT)
            points[:, -1] = highs
            level = phi(rows, points)
            level[:, 0], level[:, -1] = 1.0, -1.0  # known
            k = (level <= 0).argmax(axis=1)
            lows, highs = points[here, k - 1], points[here, k]
        np.minimum.at(result, rows, highs)
        return result


def units(X):
    """Rows divided by their norms, and the norms; rows of zeros stay."""
    largest = np.abs(X).max(axis=1, keepdims=True)
    scaled = X / np.where(largest > 0, largest, 1.0)
    lengths = np.linalg.norm(scaled, axis=1)
    return scaled / np.where(lengths > 0, lengths, 1.0)[:, None], lengths * largest[:, 0]


def exact_radius_2d(network, X, y, slack=0.0):
    """Distance of points X (n, 2) with labels y to the errors: the smallest angle to the left and to the right."""
    cone, (E, norms) = Cone(network, slack), units(np.asarray(X, dtype=np.float64))
    y = np.asarray(y, dtype=np.float64)
    if not len(cone.c):
        return np.zeros(len(E))
    along, across = E @ cone.U.T, np.c_[-E[:, 1], E[:, 0]] @ cone.U.T
    t = cone.first_error(np.r_[along, along], np.r_[across, -across], np.r_[y, y])
    return norms * np.sin(np.minimum(t[: len(E)], t[len(E) :]))


def reached_3d(network, X, y, azimuths=120, minima=4, rounds=7, slack=0.0):
    """Upper bounds, near the minimum, on the distance of points X (n, 3) to the errors.

    Great circles leave x in many directions, also straight to and from every neuron; around the best local minima over
    the direction more and more circles are laid, with the fine grid at the end.
    """
    cone, (E, norms) = Cone(network, slack), units(np.asarray(X, dtype=np.float64))
    if not len(cone.c):
        return np.zeros(len(E))
    result = np.empty(len(E))
    for i, e in enumerate(E):
        if not norms[i] > 0:
            result[i] = 0.0
            continue
        one = np.eye(3)[np.abs(e).argmin()]
        one = one - (one @ e) * e
        one /= np.linalg.norm(one)
        two = np.cross(e, one)
        along, first, second = cone.U @ e, cone.U @ one, cone.U @ two

        def angles(psi, care=COARSE, along=along, first=first, second=second, label=float(y[i])):
            across = np.cos(psi)[:, None] * first + np.sin(psi)[:, None] * second
            return cone.first_error(np.tile(along, (len(psi), 1)), across, np.full(len(psi), label), care)

        neurons = np.arctan2(second, first)
        psi = np.linspace(-np.pi, np.pi, azimuths, endpoint=False)
        psi = np.sort(np.r_[psi, neurons, np.where(neurons > 0, neurons - np.pi, neurons + np.pi)])
        t = angles(psi)
        valley = np.flatnonzero((t <= np.roll(t, 1)) & (t <= np.roll(t, -1)))
        valley = valley[np.argsort(t[valley], kind="stable")[:minima]]
        best, step = t.min(), np.full(len(valley), 2 * np.pi / azimuths)
        centre = psi[valley]
        for _ in range(rounds):
            around = centre[:, None] + step[:, None] * np.linspace(-1.0, 1.0, 9)
            fan = angles(around.ravel()).reshape(around.shape)
            centre = around[np.arange(len(centre)), fan.argmin(axis=1)]
            best = min(best, fan.min())
            step *= 0.26
        best = min(best, angles(centre, FINE).min())
        result[i] = norms[i] * np.sin(best)
    return result


def reached(network, X, y, slack=0.0):
    """The oracle of the network's dimension, 2 or 3."""
    return (exact_radius_2d if network.dim == 2 else reached_3d)(network, X, y, slack=slack)


def advantage(network, X, y, slack=0.0):
    """(own - rival) / (own + rival) at points X, every cosine moved against y by ``slack``; <= 0: an error."""
    cone = Cone(network)
    X = np.asarray(X, dtype=np.float64)
    E, _ = units(X)
    z = E @ cone.U.T - np.asarray(slack)[..., None] * (np.asarray(y)[:, None] * np.sign(cone.c))
    return cone.phi(z, np.asarray(y, dtype=np.float64))
