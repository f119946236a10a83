"""How far a network is, up to a scale, from a sum over orthonormal directions: F of the class averages, or F^(p).

dist(f, F) = inf_{c>0} sup_{||x||=1} |c f(x) - F(x)| is bracketed for any F that is a sum b_k sigma(<x,t_k>)^p with
signs over orthonormal t_k:

- below, min_c max_{x in S} |c f(x) - F(x)| over points found by ascent: a convex piecewise linear function of c, whose
  minimum is known exactly; ascent at the minimising c adds to S until nothing is gained;
- above, ``CellBound``, which is jointly convex in c and in its multiplier; for p = 1 also ``MeanBound``, far tighter
  where the neurons of a class share a direction that is not quite the class average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from preluflow._arrays import Float64
from preluflow.distance import _OUTWARD, CellBound, ascend, golden_section, unit_rows
from preluflow.network import TwoLayerNetwork


@dataclass(frozen=True)
class FittedDistance:
    """Bounds on inf_{c>0} sup_{||x||=1} |c f - F|.

    Attributes
    ----------
    lower, upper : float
        The distance lies in [lower, upper].
    scale : float
        The c at which sup |c f - F| <= upper.
    """

    lower: float
    upper: float
    scale: float


def fitted_distance(network: TwoLayerNetwork, target: TwoLayerNetwork, *, steps: int = 40) -> FittedDistance:
    """Bracket inf_{c>0} sup_{||x||=1} |c f(x) - F(x)|; module docstring.

    Parameters
    ----------
    network : TwoLayerNetwork
        f; pReLU, any p >= 1.
    target : TwoLayerNetwork
        F, of the same p and dimension, its directions orthonormal.
    steps : int, default 40
        Ascent steps.
    """
    scaled, m = network.rescaled()  # the scale is fitted anyway, so none can underflow
    exact = scaled.astype("float64")
    lower, c = _lower_end(exact, target, steps)
    upper, best = _upper_end(exact, target, c)
    return FittedDistance(lower, max(upper, lower), best * math.exp(-m))


# ---- lower end


def _lower_end(network: TwoLayerNetwork, target: TwoLayerNetwork, steps: int) -> tuple[float, float]:
    """Return the minimum over c of max |c f - F| over points found by ascent, and that c."""
    points = _starts(network, target)
    f, F = network.decision_function(points), target.decision_function(points)
    lower, c = best_scale(f, F)
    for _ in range(8):
        found = ascend(_difference(network, target, c), points[np.argsort(-np.abs(c * f - F))[:64]], steps)
        points = np.concatenate([points, found])
        f = np.append(f, network.decision_function(found))
        F = np.append(F, target.decision_function(found))
        before, (lower, c) = lower, best_scale(f, F)
        if lower <= before * (1.0 + 1e-6):
            break
    return lower, c


def best_scale(f: Float64, F: Float64) -> tuple[float, float]:
    """Minimise max_i |c f_i - F_i| over c >= 0; returns the minimum and a c at which it is attained.

    The function is the maximum of the lines +-(f_i c - F_i): of the active ones at both ends of an interval around the
    minimum, one falling and one rising, the intersection is a lower bound, and the next end.
    """
    slopes, offsets = np.concatenate([f, -f]), np.concatenate([-F, F])

    def active(c: float) -> int:
        return int(np.argmax(slopes * c + offsets))

    left = active(0.0)
    if slopes[left] >= 0:
        return float(offsets[left]), 0.0
    right = int(np.argmax(slopes))
    for _ in range(len(slopes)):
        c = float((offsets[left] - offsets[right]) / (slopes[right] - slopes[left]))
        value, new = float(slopes[left] * c + offsets[left]), active(c)
        if slopes[new] * c + offsets[new] <= value * (1.0 + 1e-13):
            break
        if slopes[new] >= 0:
            right = new
        else:
            left = new
    return max(value, 0.0), c


def _starts(network: TwoLayerNetwork, target: TwoLayerNetwork) -> Float64:
    """+- the directions of both, their sums in pairs, and the averages of either sign."""
    top = network.directions[np.argsort(-network.log_contributions)[:12]].astype(np.float64)
    own = target.directions.astype(np.float64)
    rows = [own, top, *(a + b for group in (own, top) for a, b in combinations(group, 2))]
    rows += [sign @ own for sign in (target.sign > 0, target.sign < 0, target.sign, np.abs(target.sign))]
    stacked = unit_rows(np.vstack(rows))
    return np.asarray(np.concatenate([stacked, -stacked]))


def _difference(network: TwoLayerNetwork, target: TwoLayerNetwork, c: float) -> TwoLayerNetwork:
    """Return c f - F as one network."""
    with np.errstate(divide="ignore"):
        log_v = np.concatenate([network.log_abs_v + np.log(c), target.log_abs_v])
    return TwoLayerNetwork.from_polar(
        np.concatenate([network.directions, target.directions]),
        np.concatenate([network.log_norm, target.log_norm]),
        np.where(np.isneginf(log_v), 0.0, np.concatenate([network.sign, -target.sign])),
        log_v,
        "prelu",
        network.p,
    )


# ---- upper end


def cell_bound(network: TwoLayerNetwork, target: TwoLayerNetwork) -> CellBound:
    """Give every neuron the nearest target of its sign, those that are not at an acute angle to it none."""
    own = target.directions.astype(np.float64)
    cosines = np.where(network.sign[:, None] == target.sign, network.directions.astype(np.float64) @ own.T, -np.inf)
    region = np.where(cosines.max(axis=1) > 0, cosines.argmax(axis=1), -1)
    return CellBound(network, own, target.sign, target.contributions, region)


class MeanBound:
    """For p = 1 and one target of each sign, sup_{||x||=1} |c f - F| is at most ``at(c)``, convex in c.

    Of one sign let m = sum a_j u_j, A = sum a_j, r_j = u_j - m/A, d = c m - b t and
    e = (1/2) sqrt(A lambda_max(sum a_j r_j r_j^T)): the bound is max(||d_+||, ||d_-||, ||d_+ - d_-||) + c max(e_+, e_-)
    (docs/mathematics.md#mean-bound).
    """

    def __init__(self, network: TwoLayerNetwork, target: TwoLayerNetwork) -> None:
        self.means, self.targets = np.zeros((2, network.dim)), np.zeros((2, network.dim))
        self.excess = 0.0
        for row, sign in enumerate((1.0, -1.0)):
            mine = np.flatnonzero((network.sign == sign) & (network.contributions > 0))
            a, U = network.contributions[mine], network.directions[mine].astype(np.float64)
            self.targets[row] = target.contributions[target.sign == sign] @ target.directions[target.sign == sign]
            if mine.size:
                self.means[row] = a @ U
                spread = np.sqrt(a)[:, None] * (U - self.means[row] / a.sum())
                excess = 0.5 * math.sqrt(a.sum()) * float(np.linalg.norm(spread, 2))
                self.excess = max(self.excess, excess)

    def at(self, c: float) -> float:
        """Bound sup |c f - F|."""
        d = c * self.means - self.targets
        longest = max(float(np.linalg.norm(vector)) for vector in (*d, d[0] - d[1]))
        return float((longest + c * self.excess) * (1.0 + _OUTWARD))


def _upper_end(network: TwoLayerNetwork, target: TwoLayerNetwork, guess: float) -> tuple[float, float]:
    """Return the least upper bound over c, and that c."""
    bounds: list[CellBound | MeanBound] = [cell_bound(network, target)]
    if network.p == 1.0 and sorted(target.sign) == [-1.0, 1.0]:
        bounds.append(MeanBound(network, target))
    return min(_least(bound, guess) for bound in bounds)


def _least(bound: CellBound | MeanBound, guess: float) -> tuple[float, float]:
    """Minimise a bound over c around the c of the lower end; returns it and c."""
    best = min((bound.at(c), c) for c in {0.0, guess})
    return best if guess == 0.0 else min(best, golden_section(bound.at, 3.0 * guess, 29))
