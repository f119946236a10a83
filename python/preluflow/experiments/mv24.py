"""What SGD learns with p = 1 and with p = 3, after MV24: class averages or clusters, and the robustness that follows.

A ReLU network (p = 1) becomes F(x) = sqrt(K1) sigma(<x,mu_+>) - sqrt(K2) sigma(<x,mu_->) up to a scale, mu_+- the class
averages, and is robust to 1/sqrt(K) only; with p = 3 it becomes F^(p), and is robust to sqrt(2)/2. For several alpha
the distance to what it should become is bracketed; at one alpha are shown the contributions |v_j| ||w_j||, where the
dominant neurons point, and the bracket on the robust accuracy.

The paper's size (``--scale``): D = 1000, K = 6 + 4, n = 20000, h = 2000, every weight N(0, (1e-7)^2), SGD on the
exponential loss, batches of 100, step 0.2, 401 epochs: half an hour for each p and alpha. By default n and h
are a tenth, and so are the steps SGD takes. The alphas are ours.

The distance has the scale fitted, dist(f, F) = inf_{c>0} sup_{||x||=1} |c f(x) - F(x)|, and is bracketed here for any F
that is a sum b_k sigma(<x,t_k>)^p with signs over orthonormal t_k (docs/mathematics.md#distance-upper, weights b_k):

- below, min_c max_{x in S} |c f(x) - F(x)| over points found by ascent: a convex piecewise linear function of c, whose
  minimum is known exactly; ascent at the minimising c adds to S until nothing is gained;
- above, the bound on cells of the angles to t_k, which is jointly convex in c and in its multiplier; for p = 1 also
  ``MeanBound``, far tighter where the neurons of a class share a direction that is not quite the class average.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preluflow import plots
from preluflow._arrays import Float64
from preluflow.classifiers import class_average_relu, cluster_prelu
from preluflow.data import OrthonormalGMM
from preluflow.distance import _CELLS, _OUTWARD, _lagrange, _power, _unit_rows
from preluflow.experiments._harness import (
    Experiment,
    Outcome,
    Row,
    Session,
    batch_fits,
    completed,
    drawn,
    every_point,
    set_title,
    without_witnesses,
)
from preluflow.initialization import initialize
from preluflow.margins import RobustRadius, robust_radius
from preluflow.network import TwoLayerNetwork
from preluflow.observe import Observe
from preluflow.results import Run
from preluflow.theory import MAX_RADIUS
from preluflow.train import sgd
from preluflow.typing import Loss

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PS = (1.0, 3.0)
_DRAWN = 40  # neurons of the heat map at most
_DOMINANT = 0.99  # share of all contributions the dominant neurons make


@dataclass(frozen=True)
class Config:
    """Problem and recipe; the paper's but for the alphas, and ``alpha``, the one shown in detail."""

    dim: int = 1000
    positive: int = 6
    negative: int = 4
    alphas: tuple[float, ...] = (1.0, 0.5, 0.3, 0.1)
    alpha: float = 0.1
    n: int = 20_000
    width: int = 2000
    std: float = 1e-7
    step: float = 0.2
    batch: int = 100
    epochs: int = 401
    loss: Loss = "exponential"
    points: int = 400

    @property
    def clusters(self) -> int:
        """K."""
        return self.positive + self.negative


PAPER = Config()
FULL = replace(PAPER, n=2000, width=200)
QUICK = replace(PAPER, dim=200, n=500, width=80, batch=50, epochs=400, alphas=(0.5, 0.1), points=100)


def settle(config: Config) -> Config:
    """See that the alpha to show is among the alphas."""
    return replace(batch_fits(config), alphas=tuple(sorted({*config.alphas, config.alpha}, reverse=True)))


# ---- distance to a sum over orthonormal directions, up to a scale


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


def reference(gmm: OrthonormalGMM, p: float) -> TwoLayerNetwork:
    """What a network of this p should become: F for p = 1, else F^(p)."""
    return class_average_relu(gmm) if p == 1.0 else cluster_prelu(gmm, p)


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
    lower, c = _fitted_lower(exact, target, steps)
    upper, best = _fitted_upper(exact, target, c)
    return FittedDistance(lower, max(upper, lower), best * math.exp(-m))


def _fitted_lower(network: TwoLayerNetwork, target: TwoLayerNetwork, steps: int) -> tuple[float, float]:
    """Return the minimum over c of max |c f - F| over points found by ascent, and that c."""
    points = _starts(network, target)
    f, F = network.decision_function(points), target.decision_function(points)
    lower, c = best_scale(f, F)
    for _ in range(8):
        found = _ascend(_difference(network, target, c), points[np.argsort(-np.abs(c * f - F))[:64]], steps)
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
    stacked = _unit_rows(np.vstack(rows))
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


def _ascend(difference: TwoLayerNetwork, points: Float64, steps: int) -> Float64:
    """Ascend |c f - F| on the sphere with a step size per point, as ``distance_bracket`` does."""
    value, gradient = difference.value_and_input_gradient(points)
    step_sizes = np.ones(len(points))
    for _ in range(steps):
        tangent = np.sign(value)[:, None] * gradient
        tangent -= np.einsum("bd,bd->b", tangent, points)[:, None] * points
        trial = np.asarray(_unit_rows(points + step_sizes[:, None] * tangent), dtype=np.float64)
        trial_value, trial_gradient = difference.value_and_input_gradient(trial)
        better = np.abs(trial_value) > np.abs(value)
        points[better], value[better], gradient[better] = trial[better], trial_value[better], trial_gradient[better]
        step_sizes *= np.where(better, 1.5, 0.3)
    return points


class UpperBound:
    """sup_{||x||=1} |c f - F| is at most ``at(c)``, convex in c (docs/mathematics.md#distance-upper, with weights).

    Every neuron is given the nearest target t_k of its sign, at angle theta_j < pi/2 (the others count as constants).
    On a cell phi in [fa, fb] of the angle to t_k the cluster's share of c f exceeds b_k cos^p phi by at most
    up = c sum a_j cos^p((fa - theta_j)_+) - b_k cos^p fb, and falls short of it by at most
    dn = b_k cos^p fa - c sum a_j cos_+^p(fb + theta_j); where <x,t_k> <= 0, up = c sum a_j sin^p theta_j and dn = 0.
    """

    def __init__(self, network: TwoLayerNetwork, target: TwoLayerNetwork) -> None:
        p, own, b = network.p, target.directions.astype(np.float64), target.contributions
        U = network.directions.astype(np.float64)
        lengths = np.linalg.norm(U, axis=1)  # 1 up to rounding, where directions are float32
        a = network.contributions * lengths**p
        cosines = U @ own.T / np.where(lengths > 0, lengths, 1.0)[:, None]
        cosines = np.where(network.sign[:, None] == target.sign, cosines, -np.inf)
        region, nearest = cosines.argmax(axis=1), cosines.max(axis=1)
        loose = (nearest <= 0) | (a < 1e-9 / len(a))
        theta = np.arccos(np.clip(nearest, 0.0, 1.0))
        edges = np.linspace(0.0, np.pi / 2, _CELLS + 1)
        fa, fb = edges[:-1], edges[1:]
        self.budget = np.append(np.cos(fb) ** 2, 0.0)  # the last column is <x,t_k> <= 0
        self.sign = target.sign
        self.loose = [float(a[loose & (network.sign == sign)].sum()) for sign in (1.0, -1.0)]
        shape = (len(own), _CELLS + 1)
        self.over, self.under = np.zeros(shape), np.zeros(shape)  # sums over neurons
        most, least = (_power(np.cos(ends).clip(0.0), p) for ends in (fa, fb))
        self.most, self.least = np.outer(b, np.append(most, 0.0)), np.outer(b, np.append(least, 0.0))
        for k in range(len(own)):
            mine = np.flatnonzero((region == k) & ~loose)
            angle = theta[mine, None]
            self.over[k, :-1] = a[mine] @ _power(np.cos(np.maximum(fa - angle, 0.0)), p)
            self.under[k, :-1] = a[mine] @ _power(np.cos(np.minimum(fb + angle, np.pi / 2)).clip(0.0), p)
            self.over[k, -1] = a[mine] @ _power(np.sin(theta[mine]), p)

    def at(self, c: float) -> float:
        """Bound sup |c f - F|."""
        up, down = c * self.over - self.least, self.most - c * self.under
        ends = []
        for sign, loose in zip((1.0, -1.0), self.loose, strict=True):
            psi = np.where((self.sign == sign)[:, None], up, down)
            ends.append(c * loose + _lagrange(psi, self.budget))
        return float(max(ends) * (1.0 + _OUTWARD))


class MeanBound:
    """For p = 1 and one target of each sign, sup_{||x||=1} |c f - F| is at most ``at(c)``, convex in c.

    Of one sign let m = sum a_j u_j, A = sum a_j, r_j = u_j - m/A, b t the target. As sigma is sublinear,
    sum a_j sigma(<x,u_j>) - sigma(<x,m>) = (sum a_j |<x,u_j>| - |<x,m>|)/2 lies between 0 and
    (1/2) sum a_j |<x,r_j>| <= e = (1/2) sqrt(A lambda_max(sum a_j r_j r_j^T)). And sigma(c <x,m>) - sigma(b <x,t>) lies
    between 0 and <x,d>, d = c m - b t. So c f - F is <x, s_+ d_+ - s_- d_-> with some s in [0, 1]^2, up to c e_+ above
    and c e_- below, and |c f - F| <= max(||d_+||, ||d_-||, ||d_+ - d_-||) + c max(e_+, e_-).
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


def _fitted_upper(network: TwoLayerNetwork, target: TwoLayerNetwork, guess: float) -> tuple[float, float]:
    """Return the least upper bound over c, and that c."""
    bounds: list[UpperBound | MeanBound] = [UpperBound(network, target)]
    if network.p == 1.0 and sorted(target.sign) == [-1.0, 1.0]:
        bounds.append(MeanBound(network, target))
    return min(_least(bound, guess) for bound in bounds)


def _least(bound: UpperBound | MeanBound, guess: float) -> tuple[float, float]:
    """Minimise a bound over c by golden section, around the c of the lower end; returns it and c."""
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    low, high = 0.0, 3.0 * guess
    best = min((bound.at(c), c) for c in {0.0, guess})
    if guess == 0.0:
        return best
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = bound.at(left), bound.at(right)
    for _ in range(30):
        best = min(best, (at_left, left), (at_right, right))
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = bound.at(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = bound.at(right)
    return best


# ---- running


def measure(session: Session) -> None:
    """Run every alpha and p, the alpha that is shown in detail first."""
    config, arrays = session.config, session.arrays
    session.empty(dict.fromkeys(CELLS, (len(PS), len(config.alphas))))
    arrays["alphas"] = np.array(config.alphas)
    order = sorted(range(len(config.alphas)), key=lambda i: config.alphas[i] != config.alpha)
    for i, (row, p) in session.cells(product(order, enumerate(PS))):
        trained, cell, details = run_cell(session, config.alphas[i], p)
        for name, value in cell.items():
            arrays[name][row, i] = value
        if config.alphas[i] == config.alpha:
            session.outcome.runs[f"p{p:g}"] = trained
            arrays.update({f"{name}_p{p:g}": array for name, array in details.items()})


CELLS = (
    "distance_lower",
    "distance_upper",
    "scale",
    "loss",
    "accuracy",
    "fresh",
    "radius_lower",
    "radius_upper",
    "astray",
)


def run_cell(session: Session, alpha: float, p: float) -> tuple[Run, dict[str, float], dict[str, NDArray[Any]]]:
    """Train at one alpha and p; returns the run, the numbers of ``CELLS``, and what the detailed panels need.

    Centres and initial directions are the same at every alpha and p, and so is the noise up to alpha.
    """
    config, options = session.config, session.options
    # On a problem this small two threads wait for each other more than they work; no number depends on it.
    threads = 1 if options.quick and options.num_threads is None else options.num_threads
    rng_centers, rng_data, rng_network, rng_order, rng_fresh = session.streams(5)
    gmm = OrthonormalGMM(config.dim, config.positive, config.negative, alpha, rng=rng_centers)
    data = gmm.sample(config.n, rng=rng_data)
    start = initialize(config.width, config.dim, config.std, kind="gaussian", p=p, rng=rng_network)
    trained = completed(
        sgd(
            start,
            data.X,
            data.y,
            step=config.step,
            batch=config.batch,
            epochs=config.epochs,
            loss=config.loss,
            rng=rng_order,
            observe=Observe(every=max(1, config.epochs // 20)),
            progress=options.progress,
            num_threads=threads,
        )
    )
    network = trained.network
    distance = fitted_distance(network, reference(gmm, p))
    fresh = gmm.sample(config.points, dtype="float64", rng=rng_fresh)
    radius = robust_radius(network, fresh.X, fresh.y, "tight", num_threads=threads)
    every_point(radius, config.points)
    cell = {
        "distance_lower": distance.lower,
        "distance_upper": distance.upper,
        "scale": distance.scale,
        "loss": float(trained["loss"][-1]),
        "accuracy": float(trained["accuracy"][-1]),
        "fresh": float(radius.correct.mean()),
        "radius_lower": float(np.median(radius.lower)),
        "radius_upper": float(np.median(radius.upper)),
        "astray": astray(network, reference(gmm, p)),
    }
    details = {"lower": radius.lower, "upper": radius.upper, "correct": radius.correct, **dominant(network, gmm)}
    return trained, cell, details


def astray(network: TwoLayerNetwork, target: TwoLayerNetwork) -> float:
    """Return the share of all contributions made by neurons whose cosine with every target of their sign is below 0.9.

    With p = 3 the midpoint of two centres is a saddle of the alignment: a neuron that starts near it may stay so long
    that it grows there and serves both clusters.
    """
    cosines = network.directions.astype(np.float64) @ target.directions.T
    nearest = np.where(network.sign[:, None] == target.sign, cosines, -1.0).max(axis=1)
    return float(network.contributions[nearest < 0.9].sum() / network.contributions.sum())


def dominant(network: TwoLayerNetwork, gmm: OrthonormalGMM) -> dict[str, NDArray[Any]]:
    """Sorted contributions and their signs, (h,), and cosines of the largest with mu_+, mu_- and mu_k, (m, 2 + K)."""
    order = np.argsort(-network.log_contributions, kind="stable")
    directions = np.concatenate([class_average_relu(gmm).directions, gmm.centers])
    largest = network.directions[order[:_DRAWN]].astype(np.float64)
    return {
        "contributions": network.contributions[order],
        "signs": network.sign[order],
        "cosines": largest @ directions.T,
    }


def dominant_count(contributions: Float64) -> int:
    """How many of the largest make 99% of all contributions."""
    share = np.cumsum(contributions) / contributions.sum()
    return int(np.searchsorted(share, _DOMINANT)) + 1


# ---- drawing


_TARGETS = {1.0: "$F$, class averages", 3.0: r"$F^{(3)}$, clusters"}


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw a row of four panels for each p."""
    config = outcome.config
    figure = plots.blank_figure(15.0, 7.2)
    axes = figure.subplots(len(PS), 4, width_ratios=(1.0, 1.0, 1.15, 1.15))
    for row, p in enumerate(PS):
        distance, contributions, heat, accuracy = axes[row]
        _distance_panel(distance, outcome, row)
        distance.set_title(f"p = {p:g}: distance to {_TARGETS[p]}", fontsize=10)
        if f"lower_p{p:g}" not in outcome.arrays:
            for ax in (contributions, heat, accuracy):
                ax.set_axis_off()
                ax.text(0.5, 0.5, "not run", ha="center", transform=ax.transAxes)
            continue
        _contributions_panel(contributions, outcome, p)
        _heat_panel(figure, heat, outcome, p)
        _accuracy_panel(accuracy, outcome, p)
    told = f"{config['loss']} loss", f"batch {config['batch']}, step {config['step']:g}, {config['epochs']} epochs"
    shown = rf"right of the first column $\alpha$={config['alpha']:g}; seed {config['seed']}"
    weights = f"weights of s.d. {config['std']:g}"
    head = "What SGD learns: class averages with p = 1, clusters with p = 3, and how robust either is, after MV24\n"
    set_title(figure, outcome, head, "dim", "K1+K2", "n", "width", weights, *told, shown)
    return figure


def _distance_panel(ax: Axes, outcome: Outcome, row: int) -> None:
    """Draw the bracket at every alpha."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    arrays = outcome.arrays
    alphas, lower, upper = arrays["alphas"], arrays["distance_lower"][row], arrays["distance_upper"][row]
    use = np.isfinite(lower)
    ax.fill_between(alphas[use], lower[use], upper[use], color=plots.GREY, alpha=0.45, lw=0)
    ax.plot(alphas[use], upper[use], color=plots.BLUE, marker="v", ls="--", label="at most")
    ax.plot(alphas[use], lower[use], color=plots.INK, marker="^", label="at least")
    away = use & (arrays["astray"][row] > 0.01)
    if away.any():
        label = "neurons between targets"
        ax.plot(alphas[away], upper[away], ls="none", marker="*", ms=13, color=plots.ORANGE, label=label, zorder=5)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(alphas.tolist()))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set(xlabel=r"$\alpha$", ylabel=r"$\inf_c\,\sup_{\|x\|=1}\,|c\,f-F|$")
    ax.set_xlim(0.85 * alphas.min(), 1.18 * alphas.max())
    ax.set_ylim(0.0, 1.5 * float(np.nanmax(arrays["distance_upper"])))
    ax.legend(loc="upper left", frameon=False)


def _contributions_panel(ax: Axes, outcome: Outcome, p: float) -> None:
    """Draw the contributions from the largest down, by sign."""
    a, signs = outcome.arrays[f"contributions_p{p:g}"], outcome.arrays[f"signs_p{p:g}"]
    rank, count = np.arange(1, len(a) + 1), dominant_count(a)
    looks: tuple[tuple[float, str, dict[str, Any]], ...] = (
        (1.0, "$v_j>0$", {"color": plots.BLUE, "marker": "o"}),
        (-1.0, "$v_j<0$", {"color": plots.ORANGE, "marker": "^", "mfc": "white"}),
    )
    for sign, label, look in looks:
        use = (signs == sign) & (a > 0)
        ax.plot(rank[use], a[use], ls="none", ms=4.5, label=label, **look)
    ax.axvline(count + 0.5, color=plots.INK, ls=":", lw=1.3)
    side = "right" if count > len(a) ** 0.6 else "left"
    text = f" {count} neurons \n make 99% "
    ax.text(count + 0.5, 0.98, text, transform=ax.get_xaxis_transform(), ha=side, va="top", fontsize=9)
    ax.set(xscale="log", yscale="log", xlabel="rank", ylabel=r"$|v_j|\,\|w_j\|$")
    ax.set_ylim(max(float(a[a > 0].min()), 1e-9 * float(a.max())) / 3, 300.0 * float(a.max()))
    ax.set_title("contributions, sorted", fontsize=10)
    ax.legend(loc="lower left", frameon=True, framealpha=0.85, edgecolor="none")


def _heat_panel(figure: Figure, ax: Axes, outcome: Outcome, p: float) -> None:
    """Draw the cosines of the dominant neurons, by the centre they are nearest to."""
    from matplotlib.colors import LinearSegmentedColormap

    cosines, signs = outcome.arrays[f"cosines_p{p:g}"], outcome.arrays[f"signs_p{p:g}"]
    of = dominant_count(outcome.arrays[f"contributions_p{p:g}"])
    count = min(of, len(cosines))
    nearest = cosines[:count, 2:].argmax(axis=1) if p > 1 else np.zeros(count)
    rows = np.lexsort((nearest, -signs[:count]))
    # Zero is white; in grey, too, 1 is far darker than -1.
    colors = LinearSegmentedColormap.from_list("cosine", [plots.ORANGE, "#ffffff", "#0b2c4d"])
    picture = ax.imshow(cosines[rows], aspect="auto", cmap=colors, vmin=-1.0, vmax=1.0, interpolation="nearest")
    positive = int(np.count_nonzero(signs[:count] > 0))
    if 0 < positive < count:
        ax.axhline(positive - 0.5, color=plots.INK, lw=1.0)
    ax.axvline(1.5, color=plots.INK, lw=1.0)
    names = [r"$\mu_+$", r"$\mu_-$", *(rf"$\mu_{{{k}}}$" for k in range(1, cosines.shape[1] - 1))]
    ax.set_xticks(range(len(names)), names, fontsize=9)
    ax.set_yticks([])
    ax.grid(False)
    ax.set_ylabel("neurons, $v_j>0$ on top")
    ax.set_title(f"cosines, {count} of {of} dominant neurons", fontsize=10)
    figure.colorbar(picture, ax=ax, shrink=0.9, pad=0.02)


def _accuracy_panel(ax: Axes, outcome: Outcome, p: float) -> None:
    """Draw the bracket on the robust accuracy, and the radii the theory names."""
    config = outcome.config
    grid = np.linspace(0.0, 0.85, 1701)
    certified, attacked = bracket_of(outcome, p).accuracy(grid)
    ax.fill_between(grid, certified, attacked, color=plots.GREY, alpha=0.6, lw=0, label="between")
    ax.plot(grid, attacked, color=plots.BLUE, ls="--", label="attacked")
    ax.plot(grid, certified, color=plots.INK, label="certified")
    K = config["positive"] + config["negative"]
    for value, name in ((1.0 / math.sqrt(K), r"$1/\sqrt{K}$"), (MAX_RADIUS, r"$\sqrt{2}/2$")):
        ax.axvline(value, color=plots.ORANGE, ls=":", lw=1.8, zorder=1)
        ax.annotate(name, (value, 0.55), xytext=(4, 0), textcoords="offset points", fontsize=10)
    ax.set(xlabel=r"$\ell_2$ radius", ylabel="robust accuracy", xlim=(0, 0.85), ylim=(-0.03, 1.04))
    ax.set_title(f"robust accuracy, {config['points']} fresh points", fontsize=10)
    ax.legend(
        loc="lower left" if p > 1 else "upper left", bbox_to_anchor=(0.42, 1.0) if p == 1 else None, frameon=False
    )


# ---- the table


def bracket_of(outcome: Outcome, p: float) -> RobustRadius:
    """Return the bracket at the alpha that is shown, without witnesses."""
    return without_witnesses(*(outcome.arrays[f"{name}_p{p:g}"] for name in ("lower", "upper", "correct")))


def table(outcome: Outcome) -> list[Row]:
    """Hold both networks against what they should become."""
    config = outcome.config
    steps = math.ceil(config["n"] / config["batch"]) * config["epochs"]
    rows = [
        Row(
            "D, K, n, h, s.d. of the weights",
            f"{config['dim']}, {config['positive']}+{config['negative']}, {config['n']}, {config['width']}, "
            f"{config['std']:g}",
            f"{PAPER.dim}, {PAPER.positive}+{PAPER.negative}, {PAPER.n}, {PAPER.width}, {PAPER.std:g}",
        ),
        Row(
            "loss, batch, step, epochs (steps of SGD)",
            f"{config['loss']}, {config['batch']}, {config['step']:g}, {config['epochs']} ({steps})",
            f"{PAPER.loss}, {PAPER.batch}, {PAPER.step:g}, {PAPER.epochs} ({PAPER.n // PAPER.batch * PAPER.epochs})",
        ),
        Row("alpha shown; fresh points", f"{config['alpha']:g}; {config['points']}", "not stated"),
    ]
    for row, p in enumerate(PS):
        rows += _rows(outcome, row, p)
    return rows


def _rows(outcome: Outcome, row: int, p: float) -> list[Row]:
    config, arrays = outcome.config, outcome.arrays
    K = config["positive"] + config["negative"]
    name, limit = (
        ("F", f"{1 / math.sqrt(K):.4f} 1/sqrt(K)") if p == 1.0 else (f"F^({p:g})", f"{MAX_RADIUS:.4f} sqrt(2)/2")
    )
    rows = []
    for i in np.flatnonzero(np.isfinite(arrays["loss"][row])):
        cell = {key: float(arrays[key][row, i]) for key in CELLS}
        rows += [
            Row(
                f"p = {p:g}, alpha = {arrays['alphas'][i]:g}: distance to {name}, scale fitted",
                f"[{cell['distance_lower']:.4f}, {cell['distance_upper']:.4f}]",
                "-",
                f"{_largest(config, p):.4f} at f = 0",
            ),
            Row(
                "  median radius, certified to attacked", _range(cell, "radius"), "-", f"{limit} for {name}, alpha = 0"
            ),
            Row("  share of contributions with no target at cosine 0.9 or more", f"{cell['astray']:.4f}", "-", "0"),
            Row(
                "  loss, training accuracy, fresh accuracy",
                f"{cell['loss']:.1e}, {cell['accuracy']:.4f}, {cell['fresh']:.4f}",
            ),
        ]
    if f"lower_p{p:g}" not in arrays:
        return rows
    bracket = bracket_of(outcome, p)
    radii = (0.9 / math.sqrt(K), 1.1 / math.sqrt(K), 0.9 * MAX_RADIUS, MAX_RADIUS)
    certified, attacked = bracket.accuracy(radii)
    expected = (
        ("1", "0", "0", "0")
        if p == 1.0
        else ("1", "1", "1", f"{1 - min(config['positive'], config['negative']) / K:g} at most")
    )
    for radius, low, high, theory in zip(radii, certified, attacked, expected, strict=True):
        told = f"p = {p:g}, alpha = {config['alpha']:g}: robust accuracy at {radius:.4f}"
        rows.append(Row(told, f"[{low:.3f}, {high:.3f}]", "-", theory))
    count = dominant_count(arrays[f"contributions_p{p:g}"])
    cosines = arrays[f"cosines_p{p:g}"][:count]
    best = (cosines[:, :2] if p == 1.0 else cosines[:, 2:]).max(axis=1)
    rows.append(Row("  neurons that make 99% of the contributions", f"{count} of {config['width']}"))
    of = "a class average" if p == 1.0 else "a centre"
    rows.append(Row(f"  their cosine with {of}: median, least", f"{np.median(best):.4f}, {best.min():.4f}", "-", "1"))
    return rows


def _range(cell: Mapping[str, float], name: str) -> str:
    return f"{cell[f'{name}_lower']:.4f} to {cell[f'{name}_upper']:.4f}"


def _largest(config: Mapping[str, Any], p: float) -> float:
    """Return sup |F| over the sphere."""
    most = max(config["positive"], config["negative"])
    return math.sqrt(most) if p == 1.0 else 1.0


MV24 = Experiment(
    "mv24",
    "what SGD learns with p = 1 and p = 3: distance, contributions, directions, robust accuracy",
    measure,
    draw,
    table,
    presets={"laptop": FULL, "quick": QUICK, "paper": PAPER},
    options=("width", "alpha", "batch", "loss", "epochs", "full"),
    settle=settle,
    seconds={"quick": 3, "paper": 4 * 3600},
)
