"""Errors of pReLU and polynomial nets on rays, at any scale: the oracle of hostile nets in the plane and beyond.

f(x) = sum_j s_j a_j relu(<x,u_j>)^p is homogeneous: with an error its whole ray from the origin is one (so is the
origin), and the distance of x to a ray at angle t <= pi/2 is ||x|| sin t. On the line e + tau d, with e = x/||x|| and
d a unit vector across it, t = arctan(tau) and <.,u_j> = B_j (tau - kink_j). The sign of y f there is that of

    M(tau) = log sum_own a_j relu(.)^p - log sum_rival a_j relu(.)^p,

two log-sum-exp, so no power and no ratio of contributions leaves the range of numbers: contributions from e^-100000 to
e^100000 and points of any norm are ordinary. M is smooth between kinks. It is evaluated at all kinks, where a neuron is
silent exactly, and on grids graded towards them; minima that might dip below 0 are zoomed into; the first crossing is
bisected. A second line, from e + d on, covers angles from pi/4 to pi/2.

Digits: numpy's longdouble where it is asked for, on x86-64 the 80-bit type (64 bits of mantissa, eps 1.1e-19, exponents
to 1e+-4932); ``DIGITS`` says what it is here. ``exact_sign`` and ``exact_distance`` have no rounding that matters: they
take the ray and the network's stored numbers as fractions and 60 decimal digits for logarithms and powers. A claim that
a certificate is too large is made only with a ray for which both agree.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np

LD = np.longdouble
DIGITS = float(np.finfo(LD).eps)
EPS = float(np.finfo(np.float64).eps)
SPLIT = 17  # points of an interval in each round of bisection or zoom
CHUNK = 1 << 16  # terms evaluated together, so that they stay in cache
PRECISION = 60


def graded(uniform, decades):
    """Fractions of [0, 1]: evenly spaced, and 2 per decade towards both ends, down to 10^-decades."""
    ends = 10.0 ** -np.arange(0.5, decades + 0.25, 0.5)
    return np.unique(np.r_[ends, np.linspace(0.0, 1.0, uniform + 1), 1.0 - ends])


FINE, PLAIN, COARSE = graded(48, 14), graded(16, 6), graded(6, 2)


def to_decimal(x):
    """A Fraction or float as a Decimal of the context's precision."""
    x = Fraction(x) if not isinstance(x, Fraction) else x
    return Decimal(x.numerator) / Decimal(x.denominator)


def to_fraction(x):
    """A float or longdouble, exactly."""
    return Fraction(*x.as_integer_ratio())


# ---- networks in a batch


class Nets:
    """Networks side by side: U (N, H, D), log contributions (N, H) in longdouble, sign (N, H), p (N,), all padded.

    Neurons that contribute nothing are left out, and neurons of one direction are one, so that those which cancel
    exactly cancel here. ``residue`` (N,): whether some cancel so far that float64, which has the
    parts and not what is left, knows it badly or, as of v = 1, 1 and -2, not at all.
    """

    def __init__(self, networks):
        count, width = len(networks), max(network.width for network in networks)
        self.networks, self.dim = networks, networks[0].dim
        self.U = np.zeros((count, width, self.dim))
        self.logs = np.full((count, width), -np.inf, dtype=LD)
        self.sign = np.zeros((count, width))
        self.p = np.array([network.p for network in networks])
        self.residue = np.zeros(count, dtype=bool)
        for i, network in enumerate(networks):
            degree = LD(1.0 if network.activation == "prelu" else network.p)
            with np.errstate(invalid="ignore"):
                logs = network.log_abs_v.astype(LD) + degree * network.log_norm.astype(LD)
            alive = np.flatnonzero(np.isfinite(logs))
            U, logs, sign = network.directions[alive].astype(np.float64) + 0.0, logs[alive], network.sign[alive]
            if len(np.unique(U[:, 0])) < len(U):
                U, logs, sign, self.residue[i] = merged(network, alive, U, logs, sign)
            self.U[i, : len(U)], self.logs[i, : len(U)], self.sign[i, : len(U)] = U, logs, sign

    def margin(self, net, X, y, against=0.0):
        """M at points X (R, D) of the nets numbered ``net`` (R,), labels y (R,); -inf where nothing of y is active.

        ``against`` moves every product <x,u_j> against y by so much.
        """
        z = np.einsum("rhd,rd->rh", self.U[net].astype(LD), np.asarray(X, dtype=LD))
        z = z - LD(against) * np.asarray(y)[:, None] * self.sign[net]
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = self.logs[net] + self.p[net][:, None] * np.log(np.maximum(z, 0))
        own = self.sign[net] == np.asarray(y)[:, None]
        return difference(np.where(own, terms, -np.inf).T, np.where(own, -np.inf, terms).T)


def merged(network, alive, U, logs, sign):
    """Neurons of bitwise the same direction as one, with the sum of their signed contributions (none if that is 0).

    Last comes whether one of those sums is below e^-11 of its terms: a residue, see ``Nets``.
    """
    groups = defaultdict(list)
    for place, row in enumerate(U):
        groups[row.tobytes()].append(place)
    rows, new_logs, new_sign, residue = [], [], [], False
    for places in groups.values():
        if len(places) == 1:
            log, s = logs[places[0]], sign[places[0]]
        else:
            with localcontext() as context:
                context.prec = PRECISION
                log, s = signed_sum([(int(sign[k]), exact_log(network, alive[k])) for k in places])
                log = LD(str(log)) if s else LD(-np.inf)
            top = logs[places].max()
            residue |= bool(s) and log < top - 11
        if s:
            rows.append(places[0])
            new_logs.append(log)
            new_sign.append(s)
    return U[rows], np.array(new_logs, dtype=LD), np.array(new_sign, dtype=float), residue


def difference(own, rival):
    """Log sum exp of own (K, ...) minus that of rival (K', ...), over the first axis; -inf where own is silent."""
    sums = []
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        for terms in (own, rival):
            if not len(terms):
                sums.append(np.full(terms.shape[1:], -np.inf, dtype=terms.dtype))
                continue
            top = terms.max(axis=0)
            shift = np.where(np.isfinite(top), top, 0)
            sums.append(shift + np.log(np.exp(terms - shift).sum(axis=0)))
        return np.where(np.isneginf(sums[0]), -np.inf, sums[0] - sums[1]).astype(sums[0].dtype)


# ---- lines


class Lines:
    """Rows of lines along + tau across (R, H) of cosines, tau in [0, stop] (R,), seen by nets (logs, own, p)."""

    def __init__(self, logs, own, p, along, across, stop, kind=np.float64):
        along, across = along.astype(LD), across.astype(LD)
        level = np.abs(across) <= np.abs(along) * LD(1e-300)  # nothing changes along the line
        across = np.where(level, along * LD(1e-300), across)
        with np.errstate(divide="ignore", invalid="ignore"):
            kink = np.where(across != 0, -along / across, 0).astype(kind)
            c = logs + p[:, None] * np.log(np.abs(across))
            relative = c - np.max(c, axis=1, keepdims=True, initial=-np.inf, where=np.isfinite(c))
        side = np.where(across > 0, 1, -1).astype(kind)
        stop = np.asarray(stop, dtype=kind)
        used = np.isfinite(c) & np.where(side > 0, kink < stop[:, None], kink > 0)
        self.p, self.stop, self.kind, self.rows = p.astype(kind), stop, kind, len(stop)
        self.kink = np.where(used, kink, 0)
        self.sides = []
        for mine in (own & used, ~own & used):
            order = np.argsort(~mine, axis=1, kind="stable")[:, : max(int(mine.sum(axis=1).max(initial=0)), 1)]
            pick = lambda values, order=order: np.ascontiguousarray(np.take_along_axis(values, order, 1).T)  # noqa: E731
            terms = pick(np.where(mine, relative, -np.inf).astype(kind))
            self.sides.append((terms, pick(kink), pick(side), mine.sum(axis=1)))

    def values(self, rows, tau):
        """M at tau (S, G) of the lines ``rows`` (S,)."""
        result = np.empty(tau.shape, dtype=self.kind)
        width = self.sides[0][3][rows] + self.sides[1][3][rows]
        order = np.argsort(width, kind="stable")
        start = 0
        while start < len(rows):
            most = int(width[order[min(start + 255, len(rows) - 1)]])
            size = max(1, CHUNK // (max(most, 1) * tau.shape[1]))
            pick = order[start : start + size]
            result[pick] = self._chunk(rows[pick], tau[pick])
            start += size
        return result

    def _chunk(self, rows, tau):
        parts = []
        p = self.p[rows][None, :, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            for c, kink, side, count in self.sides:
                k = int(count[rows].max())
                off = tau[None] - kink[:k, rows][..., None]
                off *= side[:k, rows][..., None]
                np.maximum(off, 0, out=off)
                np.log(off, out=off)
                off *= p
                off += c[:k, rows][..., None]
                parts.append(off)
        return difference(*parts)

    def segments(self):
        """Pieces of the lines between kinks: rows (S,), low and high (S,)."""
        inner = (self.kink > 0) & (self.kink < self.stop[:, None])
        edges = np.sort(np.where(inner, self.kink, 0), axis=1)
        edges = np.c_[edges, self.stop]
        low, high = edges[:, :-1], edges[:, 1:]
        first = np.zeros((self.rows, 1), dtype=self.kind)
        low, high = np.c_[first, low], np.c_[edges[:, :1], high]
        rows, k = np.nonzero(high > low)
        return rows, low[rows, k], high[rows, k]

    def first_error(self, fractions=PLAIN, tolerance=0.0, rounds=14):
        """First tau with M <= tolerance (R,), inf for none; an upper end of it if ``rounds`` of bisection are few.

        Also the least M seen on each line, and where.
        """
        rows, low, high = self.segments()
        f = fractions.astype(self.kind)
        tau = low[:, None] + (high - low)[:, None] * f
        tau[:, -1] = high
        tolerance = np.broadcast_to(np.asarray(tolerance, dtype=self.kind), (self.rows,))
        M = self.values(rows, tau)
        result, good = np.full(self.rows, np.inf, self.kind), np.zeros(self.rows, self.kind)
        least, where = np.full(self.rows, np.inf, self.kind), np.zeros(self.rows, self.kind)
        if not len(rows):
            return result, least, where
        wrong = M <= tolerance[rows][:, None]
        first = np.where(wrong.any(axis=1), wrong.argmax(axis=1), len(f))
        hit = np.flatnonzero(first < len(f))
        take_first(result, good, rows[hit], tau[hit, first[hit]], tau[hit, np.maximum(first[hit] - 1, 0)])
        self._zoom(result, good, rows, tau, M, first, tolerance)
        place = M.argmin(axis=1)
        order = np.argsort(-M[np.arange(len(rows)), place], kind="stable")
        least[rows[order]] = M[np.arange(len(rows)), place][order]
        where[rows[order]] = tau[np.arange(len(rows)), place][order]
        self._bisect(result, good, tolerance, rounds)
        return result, least, where

    def _zoom(self, result, good, rows, tau, M, first, tolerance):
        """Into local minima that may dip below the tolerance, ahead of the first error found."""
        inner = M[:, 1:-1]
        with np.errstate(invalid="ignore"):
            dips = (inner <= M[:, :-2]) & (inner <= M[:, 2:]) & (tau[:, :-2] < tau[:, 2:]) & np.isfinite(inner)
            rise = np.maximum(M[:, :-2], M[:, 2:]) - inner
            dips &= inner - 2 * rise <= tolerance[rows][:, None]
        dips &= np.arange(1, M.shape[1] - 1) < first[:, None]
        dips &= tau[:, 1:-1] < result[rows][:, None]
        s, k = np.nonzero(dips)
        rows, low, high, start = rows[s], tau[s, k], tau[s, k + 2], tau[s, k]
        split = np.linspace(0.0, 1.0, SPLIT).astype(self.kind)
        for _ in range(16):
            if not len(rows):
                break
            points = low[:, None] + (high - low)[:, None] * split
            level = self.values(rows, points)
            best, here = level.argmin(axis=1), np.arange(len(rows))
            hit = level[here, best] <= tolerance[rows]
            take_first(result, good, rows[hit], points[here, best][hit], start[hit])
            left, right = np.maximum(best - 1, 0), np.minimum(best + 1, SPLIT - 1)
            with np.errstate(invalid="ignore"):
                rise = np.maximum(level[here, left], level[here, right]) - level[here, best]
                keep = ~hit & (level[here, best] - 2 * rise <= tolerance[rows])
            low, high = points[here, left], points[here, right]
            keep &= high - low > 4 * np.finfo(self.kind).eps * high
            rows, start, low, high = rows[keep], start[keep], low[keep], high[keep]

    def _bisect(self, result, good, tolerance, rounds):
        rows = np.flatnonzero(np.isfinite(result) & (result > good))
        split = np.linspace(0.0, 1.0, SPLIT).astype(self.kind)
        low, high = good[rows], result[rows]
        for _ in range(rounds):
            if not len(rows):
                break
            points = low[:, None] + (high - low)[:, None] * split
            points[:, -1] = high
            wrong = self.values(rows, points) <= tolerance[rows][:, None]
            wrong[:, -1] = True
            k, here = np.maximum(wrong.argmax(axis=1), 1), np.arange(len(rows))
            low, high = points[here, k - 1], points[here, k]
        result[rows] = high


def take_first(result, good, rows, bad, before):
    """Put errors at ``bad`` that come before those in ``result`` there, with the last point known to be none."""
    order = np.argsort(-bad, kind="stable")
    rows, bad, before = rows[order], bad[order], before[order]
    better = bad < result[rows]
    result[rows[better]], good[rows[better]] = bad[better], before[better]


# ---- radii


def units(X):
    """Rows divided by their norms, and the norms, in longdouble; rows of zeros stay."""
    X = np.asarray(X, dtype=np.float64).astype(LD)
    largest = np.abs(X).max(axis=1, keepdims=True)
    scaled = X / np.where(largest > 0, largest, 1)
    lengths = np.sqrt((scaled * scaled).sum(axis=1))
    return scaled / np.where(lengths > 0, lengths, 1)[:, None], lengths * largest[:, 0]


def slack_of(nets, net):
    """What float64 may do to M away from kinks: of the powers, and of the logarithms."""
    logs = np.where(np.isfinite(nets.logs[net]), nets.logs[net], 0)
    spread = (logs.max(axis=1) - logs.min(axis=1)).astype(np.float64)
    return 1e-11 * (1 + nets.p[net]) + 4 * EPS * spread


def errors_along(nets, net, E, directions, y, reach, fractions, kind, rounds, doubt=0.0):
    """First errors on the quarter circles from E (R, D) towards unit ``directions`` (R, D), to sines ``reach`` (R,).

    Returns sines (R,) (inf for none), rays (R, D), and the least M seen.
    """
    logs, p, own = nets.logs[net], nets.p[net].astype(LD), nets.sign[net] == y[:, None]
    U = nets.U[net].astype(LD)
    along, across = np.einsum("rhd,rd->rh", U, E), np.einsum("rhd,rd->rh", U, directions)
    half, angle = np.arctan(LD(1)), np.arcsin(np.minimum(np.asarray(reach, dtype=LD), 1))
    sine, least = np.full(len(net), np.inf, LD), np.full(len(net), np.inf, LD)
    ray = np.zeros((len(net), nets.dim), LD)
    turned = np.flatnonzero(angle > half)
    for rows, shift in ((np.arange(len(net)), LD(0)), (turned, half)):
        if shift:
            rows = rows[~np.isfinite(sine[rows])]
        if not len(rows):
            continue
        # Angles up to 45 degrees from e, and from 45 degrees on from (e + d)/sqrt(2).
        root = np.sqrt(LD(0.5)) if shift else LD(1)
        base, go = ((along + across) * root, (across - along) * root) if shift else (along, across)
        stop = np.tan(np.minimum(angle[rows] - shift, half))
        lines = Lines(logs[rows], own[rows], p[rows], base[rows], go[rows], stop, kind)
        tau, low, _ = lines.first_error(fractions, doubt if np.isscalar(doubt) else doubt[rows], rounds)
        found = np.isfinite(tau)
        least[rows] = np.minimum(least[rows], low)
        t = shift + np.arctan(tau[found].astype(LD))
        k = rows[found]
        sine[k] = np.sin(t)
        ray[k] = np.cos(t)[:, None] * E[k] + np.sin(t)[:, None] * directions[k]
    return sine, ray, least


def plane_directions(E):
    """Left and right of each row (R, 2): (2, R, 2)."""
    across = np.c_[-E[:, 1], E[:, 0]]
    return np.stack([across, -across])


def plane_radius(nets, net, X, y, reach=None, fractions=FINE, kind=LD, rounds=16, doubt=0.0):
    """Distances of points X (R, 2) to the errors within ``reach`` (R,) times ||x|| (default 1), inf for none; rays.

    The length of a perturbation seen to succeed, the shortest but for what the grid misses.
    """
    E, norms = units(X)
    count = len(E)
    reach = np.ones(count, LD) if reach is None else np.asarray(reach, dtype=LD)
    one = np.tile(np.arange(count), 2)
    doubt = doubt if np.isscalar(doubt) else doubt[one]
    directions = plane_directions(E).reshape(-1, 2)
    sine, ray, _ = errors_along(nets, net[one], E[one], directions, y[one], reach[one], fractions, kind, rounds, doubt)
    left = sine[:count] <= sine[count:]
    sine, ray = np.where(left, sine[:count], sine[count:]), np.where(left[:, None], ray[:count], ray[count:])
    whole = ~np.isfinite(sine) & (reach >= 1)
    sine[whole], ray[whole] = 1, 0  # the origin
    sine[norms == 0], ray[norms == 0] = 0, 0
    return np.where(np.isfinite(sine), sine * norms, np.inf), ray


def tangents(E, V):
    """Parts of V (R, B, D) across E (R, D), as unit vectors; zeros where nothing is left."""
    size = np.sqrt((V * V).sum(axis=-1, keepdims=True))
    V = V - np.einsum("rbd,rd->rb", V, E)[..., None] * E[:, None]
    length = np.sqrt((V * V).sum(axis=-1, keepdims=True))
    return np.where(length > 1e-12 * size, V / np.where(length > 0, length, 1), 0)


def slopes(nets, net, E, y):
    """Unit -grad M at E (R, D), 0 where it is not defined: where errors lie, to first order."""
    U, own = nets.U[net].astype(LD), nets.sign[net] == y[:, None]
    z = np.einsum("rhd,rd->rh", U, E)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(z > 0, nets.logs[net] + nets.p[net][:, None] * np.log(np.maximum(z, 0)), -np.inf)
    result = np.zeros(E.shape, LD)
    for mine, factor in ((own, -1), (~own, 1)):
        terms = np.where(mine, logs, -np.inf)
        top = terms.max(axis=1, keepdims=True)
        share = np.exp(terms - np.where(np.isfinite(top), top, 0))
        share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-300)
        result += factor * np.einsum("rh,rhd->rd", share / np.where(z > 0, z, 1), U)
    return result


def corners(nets, net, E):
    """Directions from E (R, D) to the nearest rays on which two neurons are silent: (R, pairs, D)."""
    U = nets.U[net].astype(LD)
    length = np.sqrt((U * U).sum(axis=-1, keepdims=True))
    U = U / np.where(length > 0, length, 1)
    one, two = np.triu_indices(U.shape[1], 1)
    z, gram = np.einsum("rhd,rd->rh", U, E), np.einsum("rhd,rkd->rhk", U, U)
    a, b, g = z[:, one], z[:, two], gram[:, one, two]
    return -((a - g * b)[..., None] * U[:, one] + (b - g * a)[..., None] * U[:, two])


def space_errors(nets, net, X, y, reach, towards=None, rng=None, turns=16, rounds=5, kind=np.float64):
    """Some errors within ``reach`` (R,) times ||x|| of points X (R, D), D >= 3: mask (R,), rays; from above only.

    Quarter circles towards and away from neurons, to where two are silent, down M, to ``towards`` (R, B, D), in random
    directions; then hops from those that came nearest. What is found is looked at again in longdouble.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    E, _ = units(X)
    count, D = E.shape
    U = nets.U[net].astype(LD)
    pool = [
        U,
        -U,
        slopes(nets, net, E, y)[:, None],
        corners(nets, net, E),
        rng.standard_normal((count, turns, D)).astype(LD),
    ]
    if towards is not None:
        pool.append(np.asarray(towards, dtype=LD))
    directions = tangents(E, np.concatenate(pool, axis=1))
    found, rays = np.zeros(count, bool), np.zeros((count, D), LD)
    doubt = slack_of(nets, net)
    todo = np.arange(count)
    for step in range(rounds + 1):
        some, B = todo, directions.shape[1]
        flat = np.repeat(some, B)
        d = directions.reshape(-1, D)
        real = np.flatnonzero((d * d).sum(axis=1) > 0.5)
        least = np.full(len(flat), np.inf)
        k = flat[real]
        sine, _, low = errors_along(nets, net[k], E[k], d[real], y[k], reach[k], COARSE, kind, 0, doubt[k])
        least[real] = low
        near = real[np.isfinite(sine)]
        if len(near):
            k = flat[near]
            sine, ray, _ = errors_along(nets, net[k], E[k], d[near], y[k], reach[k], PLAIN, LD, 16)
            seen = np.flatnonzero(np.isfinite(sine))
            seen = seen[np.argsort(-sine[seen], kind="stable")]
            found[k[seen]], rays[k[seen]] = True, ray[seen]
        todo = some[~found[some]]
        if step == rounds or not len(todo):
            break
        # Hops around the two best directions, smaller each time.
        still = ~found[some]
        order = np.argsort(least.reshape(len(some), B)[still], axis=1)[:, :2]
        best = np.take_along_axis(directions[still], order[..., None], axis=1)
        noise = rng.standard_normal((len(todo), 2, 8, D)) * 0.4 * 0.3**step
        hops = (best[:, :, None] + noise.astype(LD)).reshape(len(todo), 16, D)
        directions = tangents(E[todo], np.concatenate([best, hops], axis=1))
    return found, rays


# ---- without rounding


def exact_log(network, j):
    """Logarithm of the contribution of neuron j, a Decimal."""
    degree = Fraction(1) if network.activation == "prelu" else Fraction(network.p)
    return to_decimal(Fraction(float(network.log_abs_v[j])) + degree * Fraction(float(network.log_norm[j])))


def signed_sum(terms):
    """Logarithm and sign (0: cancelled, None: undecided) of sum s e^l over terms (s, l), l Decimals."""
    total = defaultdict(int)
    for s, log in terms:
        total[log] += s
    rest = [(log, s) for log, s in total.items() if s]
    if not rest:
        return None, 0
    top = max(log for log, _ in rest)
    value = sum(s * (log - top).exp() for log, s in rest if log - top > -400)
    far = [s for log, s in rest if log - top <= -400]
    if abs(value) < Decimal(10) ** -(PRECISION - 15) or (value == 0 and far):
        return None, None
    return top + abs(value).ln(), 1 if value > 0 else -1


def exact_sign(network, y, ray):
    """Sign of y f on a ray of Fractions (D,): -1, 0, +1; None where 60 digits do not tell."""
    with localcontext() as context:
        context.prec = PRECISION
        terms, groups = [], defaultdict(list)
        for j in np.flatnonzero(np.isfinite(network.log_abs_v) & np.isfinite(network.log_norm)):
            u = tuple(map(float, network.directions[j] + 0.0))
            groups[u].append((int(network.sign[j] * y), exact_log(network, j)))
        p = to_decimal(network.p)
        for u, parts in groups.items():
            z = sum((Fraction(c) * r for c, r in zip(u, ray, strict=True)), Fraction(0))
            if z > 0:
                log_z = p * (to_decimal(Fraction(z.numerator, 1)).ln() - to_decimal(Fraction(z.denominator, 1)).ln())
                terms += [(s, log + log_z) for s, log in parts]
        return signed_sum(terms)[1]


def exact_distance(x, ray):
    """Distance of x (D,) from the ray, a Decimal: of its nearest point, which is the origin beyond 90 degrees."""
    with localcontext() as context:
        context.prec = PRECISION
        x = [Fraction(float(c)) for c in x]
        inner, square = sum(a * b for a, b in zip(x, ray, strict=True)), sum(b * b for b in ray)
        whole = sum(a * a for a in x)
        rest = whole if inner <= 0 or square == 0 else whole - inner * inner / square
        return to_decimal(rest).sqrt()


BEYOND = (1e-18, 1e-16, 1e-14, 1e-12, 1e-10, -1e-18, -1e-16)  # shares of the way from x to the ray
WITHIN = (1e-3, 0.1, 0.5, 0.9, 1 - 1e-6)  # and of what is left from the ray to the limit


def exact_error_near(network, x, y, ray, within):
    """Distance of an error found on or beside the ray, no farther than ``within`` (a float), in exact arithmetic.

    Tried are the ray, rays beyond it, and in the plane the kinks beside it; None if none holds.
    """
    limit = Decimal(float(within))
    if not np.any(ray):
        found = exact_distance(x, [Fraction(0)] * len(x))
        return found if found <= limit else None
    E, norms = units(np.asarray(x, dtype=np.float64)[None])
    e, r = [to_fraction(c) for c in E[0]], [to_fraction(c) for c in np.asarray(ray, dtype=LD)]
    trials = [r] + [[b + Fraction(f) * (b - a) for a, b in zip(e, r, strict=True)] for f in BEYOND]
    trials += [[to_fraction(c) for c in trial] for trial in farther(E[0], np.asarray(ray, dtype=LD), within / norms[0])]
    if len(x) == 2:
        trials += [kink for u in network.directions.astype(np.float64) if (kink := kink_beside(u, r)) is not None]
    best = None
    for trial in trials:
        distance = exact_distance(x, trial)
        if distance <= limit and (best is None or distance < best) and exact_sign(network, y, trial) in (0, -1):
            best = distance
    return best


def farther(e, ray, sine):
    """Rays beyond ``ray``, seen from e, up to the sine given."""
    across = ray - (ray @ e) * e
    length = np.sqrt(across @ across)
    if not length > 0:
        return []
    angle, most = np.arctan2(length, ray @ e), np.arcsin(min(sine, LD(1)))
    angles = [angle + LD(share) * (most - angle) for share in WITHIN]
    return [np.cos(t) * e + np.sin(t) * across / length for t in angles if t > angle]


def kink_beside(u, ray):
    """The ray across u, exactly, if it is within 1e-13 of ``ray``."""
    perp = [Fraction(-float(u[1])), Fraction(float(u[0]))]
    if abs(sum(float(a) * float(b) for a, b in zip(u, ray, strict=True))) > 1e-13:
        return None
    inner = sum(float(a) * float(b) for a, b in zip(perp, ray, strict=True))
    return [c if inner > 0 else -c for c in perp]
