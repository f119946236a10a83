"""Theorem 1 of MV25 as an experiment, and what Proposition 4's shares with it: how loss and distance scale with alpha.

Theorem 1 (p > 2): from an initialisation with a Theta(1) non-degeneracy gap, with D and N of order alpha^-2, there is a
window of time in which L = O~(alpha^4) and sup over the sphere of |f - F^(p)| = O~(alpha^2). Here K = 4, D and N are
ceil(c / alpha^2), every direction is nudged towards a centre of its own class, and epsilon is the same for every alpha.

The window opens 3 K after the last cluster has grown to Z_k = 1/2 and closes 2 K later (in t; K = 4: 12 to 20). At
alpha = 0, 1 - Z_k is e^-12 = 6e-6 when it opens, so that what is measured is what remains of the noise and not of the
transient. The theorem speaks of every time in the window, so each quantity is fitted at its worst there, and at its
least for comparison. They differ where alpha is large: there the network goes on, visibly within the window, to fit the
noise in the points, at a rate of about p^2 alpha^2 / n, which here is of order alpha^4.

The upper end of the distance bracket works on cells of the angle and is above the distance by an amount that does not
depend on alpha. Its value for f = F^(p), where the distance is 0, is called the slack. The upper end is fitted as it is
and, as a second opinion without rigour, less the slack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from preluflow import plots
from preluflow.classifiers import cluster_prelu
from preluflow.data import Dataset, OrthonormalGMM
from preluflow.distance import distance_bracket
from preluflow.events import Event
from preluflow.experiments._harness import Experiment, Options, Outcome, Row, Session, completed, drawn, set_title
from preluflow.experiments._stats import fit_power, over_seeds, smaller_half
from preluflow.flow import gradient_flow
from preluflow.initialization import initialize, non_degeneracy_gap
from preluflow.network import TwoLayerNetwork
from preluflow.observe import OBSERVERS, Observe, Snapshot
from preluflow.results import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

# ---- what both experiments share


@dataclass(frozen=True)
class Problem:
    """What does not depend on alpha, and the alphas.

    ``ratio`` is c: D = N = ceil(c / alpha^2).
    """

    alphas: tuple[float, ...] = tuple(np.geomspace(0.4, 0.04, 7).tolist())
    seeds: int = 5
    positive: int = 2
    negative: int = 2
    ratio: float = 4.0
    width: int = 40
    p: float = 3.0
    nudge: float = 0.5
    scale: float = 1e-7
    rtol: float = 1e-5

    @property
    def clusters(self) -> int:
        """K."""
        return self.positive + self.negative

    def size(self, alpha: float) -> int:
        """Dimension, and points of a cluster: ceil(c / alpha^2)."""
        return math.ceil(round(self.ratio / alpha**2, 9))

    def grid(self) -> tuple[Array, Array]:
        """The alphas, and the size at each."""
        return np.array(self.alphas), np.array([self.size(alpha) for alpha in self.alphas], dtype=np.float64)


def own_class_nudge(network: TwoLayerNetwork, gmm: OrthonormalGMM, delta: float) -> TwoLayerNetwork:
    """Move every direction towards a centre of its own class: u <- normalise(u + delta (mu - u)); norms stay.

    The centres of a class take turns, so that every Voronoi region holds a neuron if there are enough of them. For
    large D the gap tends to 1 - sqrt(1 - c^2/2), c = delta / sqrt(delta^2 + (1-delta)^2) (two or more centres a class),
    whatever alpha is.
    """
    U = network.directions.astype(np.float64)
    for label in (1.0, -1.0):
        mine, centers = np.flatnonzero(network.sign == label), gmm.centers[gmm.labels == label]
        U[mine] += delta * (centers[np.arange(len(mine)) % len(centers)] - U[mine])
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    return network.replace(U=U.astype(network.dtype))


def gap_limit(delta: float) -> float:
    """The gap after ``own_class_nudge`` as D grows."""
    square = delta**2 / (delta**2 + (1.0 - delta) ** 2)
    return 1.0 - math.sqrt(1.0 - square / 2.0)


def draw_problem(
    problem: Problem, alpha: float, size: int, rng: np.random.Generator, dtype: DTypeLike = "float32"
) -> tuple[OrthonormalGMM, TwoLayerNetwork, Dataset]:
    """Mixture of dimension ``size``, nudged network and ``size`` points of each cluster.

    The points are drawn in float32 whatever the dtype, so that float64 repeats the same problem.
    """
    rng_centers, rng_data, rng_network = rng.spawn(3)
    gmm = OrthonormalGMM(size, problem.positive, problem.negative, alpha, rng=rng_centers)
    network = initialize(problem.width, size, problem.scale, p=problem.p, dtype="float64", rng=rng_network)
    network = own_class_nudge(network, gmm, problem.nudge).astype(dtype)
    data = gmm.sample(problem.clusters * size, balanced=True, rng=rng_data)
    return gmm, network, Dataset(data.X.astype(dtype, copy=False), data.y.astype(dtype, copy=False), data.z)


# ---- Theorem 1

QUANTITIES = ("loss", "distance_estimate", "distance_lower", "distance_upper")
THEORY = {"loss": 4, "distance_estimate": 2, "distance_lower": 2, "distance_upper": 2, "less_slack": 2}
NAMES = {
    "loss": "loss",
    "distance_estimate": "distance, paper's estimator",
    "distance_lower": "distance, lower end",
    "distance_upper": "distance, upper end",
    "less_slack": "distance, upper end less slack",
}


@dataclass(frozen=True)
class Theorem1(Problem):
    """Problem and window.

    ``window``: times of the window after the last Z_k has reached 1/2, in units of K. ``longest``: give up waiting for
    it, in units of K. ``checked``: this many seeds are run again, in float64 with half the rtol.
    """

    window: tuple[float, ...] = (3.0, 3.5, 4.0, 4.5, 5.0)
    longest: float = 50.0
    checked: int = 1


FULL = Theorem1()
QUICK = replace(FULL, alphas=tuple(np.geomspace(0.4, 0.125, 4).tolist()), seeds=3)


def half_grown(at: Snapshot) -> float:
    """Become >= 0 when every cluster has sum ||w_j||^2 >= 1/2."""
    return float(np.min(OBSERVERS["cluster_norms"].records(at)["cluster_norms"])) - 0.5


def through_window(
    config: Theorem1, gmm: OrthonormalGMM, network: TwoLayerNetwork, data: Dataset, rtol: float, options: Options
) -> tuple[float, Run | None]:
    """Time t_half and the run through the window, stops in the window only; NaN and None if a cluster does not grow."""
    flow = partial(gradient_flow, X=data.X, y=data.y, rtol=rtol, num_threads=options.num_threads)
    event = Event("half_grown", half_grown, terminal=True, needs_gmm=True)
    longest = config.longest * config.clusters
    before = completed(flow(network, t1=longest, observe=Observe(gmm=gmm, what=()), events=[event]))
    if before.status != "event":
        return math.nan, None
    start = float(before.stats["t"])
    times = [start + config.clusters * offset for offset in config.window]
    what = ("loss", "cluster_norms", "distance_estimate", "distance_bracket")
    observe = Observe(at=times, what=what, gmm=gmm, estimator={"rng": options.seed})
    run = completed(flow(before, t1=times[-1], observe=observe))
    return start, run if run.status == "finished" else None


def bracket_slack(config: Theorem1, options: Options) -> float:
    """The upper end of the bracket for F^(p) itself, whose distance is 0; it depends on p, K1 and K2 only."""
    gmm = OrthonormalGMM(config.clusters, config.positive, config.negative, 0.0, centers="canonical")
    return distance_bracket(cluster_prelu(gmm, config.p), gmm, num_threads=options.num_threads).upper


def measure(session: Session) -> None:
    """Run every seed at every alpha, the largest problems first: what is small fills the processors at the end."""
    config, options, arrays = session.config, session.options, session.arrays
    seeds, count, stops = config.seeds, len(config.alphas), len(config.window)
    session.empty({name: (seeds, count, stops) for name in (*QUANTITIES, "norm_error")})
    session.empty({f"check_{name}": (seeds, count, stops) for name in QUANTITIES})
    session.empty({"gap": (seeds, count), "t_half": (seeds, count)})
    arrays["alphas"], arrays["sizes"] = config.grid()
    arrays["slack"] = np.array(bracket_slack(config, options))
    every = product((False, True), range(seeds), range(count))
    runs = [(check, s, i) for check, s, i in every if s < config.checked or not check]
    runs.sort(key=lambda run: (-arrays["sizes"][run[2]], run[0]))  # a repetition after what it repeats
    for (run,), found in session.computed(partial(cell, config, session.cell_options), {"run": runs}):
        check, s, i = run
        for name in QUANTITIES if check else (*QUANTITIES, "norm_error", "gap", "t_half"):
            arrays[f"check_{name}" if check else name][s, i] = found[name]


def cell(config: Theorem1, options: Options, run: tuple[bool, int, int]) -> dict[str, Any]:
    """Run one seed at one alpha, or repeat it; NaN where the window is not reached."""
    check, s, i = run
    alpha, rng = config.alphas[i], np.random.default_rng((options.seed, s, i))
    gmm, network, data = draw_problem(config, alpha, config.size(alpha), rng, "float64" if check else "float32")
    start, flow = through_window(config, gmm, network, data, config.rtol / 2 if check else config.rtol, options)
    stops = len(config.window)
    found = dict.fromkeys((*QUANTITIES, "norm_error"), np.full(stops, np.nan))
    if flow is not None:
        found = {name: flow[name][-stops:] for name in QUANTITIES}
        found["norm_error"] = np.abs(flow["cluster_norms"][-stops:] - 1.0).max(axis=1)
    return {**found, "gap": non_degeneracy_gap(network, gmm), "t_half": start}


def in_window(arrays: Mapping[str, NDArray[Any]], name: str) -> Array:
    """A quantity in the window, (seeds, alphas, times)."""
    if name == "less_slack":
        return np.asarray(arrays["distance_upper"] - arrays["slack"])
    return arrays[name]


def worst(values: Array) -> Array:
    """Largest value in the window, (seeds, alphas)."""
    return np.asarray(values.max(axis=2))


def check_difference(arrays: Mapping[str, NDArray[Any]], name: str) -> float:
    """Largest relative change of a quantity in float64 with half the rtol; NaN if that was not run."""
    change = np.abs(arrays[f"check_{name}"] / arrays[name] - 1.0)
    return float(np.nanmax(change)) if np.isfinite(change).any() else math.nan


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw loss and distances against alpha."""
    config, arrays = outcome.config, outcome.arrays
    alphas = arrays["alphas"]
    figure, (left, right) = plots.new_figure(2, height=4.2)
    series(left, alphas, worst(arrays["loss"]), "loss", plots.INK, "o")
    left.plot(alphas, 9 * alphas**2 / arrays["sizes"], color=plots.GREY, ls="-.", label=r"floor $9\,\alpha^2/D$")
    plots.slope_guide(left, alphas, worst(arrays["loss"]), 4, above=1.6)
    left.set(ylabel=r"mean squared loss (no unit)")
    looks = {"distance_upper": (plots.BLUE, "^"), "distance_lower": (plots.INK, "v")}
    looks["distance_estimate"] = (plots.ORANGE, "s")
    for name, (color, marker) in looks.items():
        series(right, alphas, worst(arrays[name]), NAMES[name].removeprefix("distance, "), color, marker)
    slack = r"upper end for $F^{(p)}$ (slack)"
    right.axhline(float(arrays["slack"]), color=plots.GREY, ls="-.", label=slack)
    plots.slope_guide(right, alphas, worst(arrays["distance_upper"]), 2, above=1.6)
    right.set(ylabel=r"sup$\,|f-F^{(p)}|$ over $\|x\|=1$ (no unit)")
    for ax in (left, right):
        plots.log_log(ax, alphas, r"$\alpha$, standard deviation of a cluster (length; $\|\mu_k\|=1$)")
        plots.legend_above(ax, columns=2)
    size = rf"D=N=$\lceil${config['ratio']:g}/$\alpha^2\rceil$"
    set_title(
        figure, outcome, "Theorem 1: worst in the window", "K", size, "width", "p", "scale", "seeds", "open: each seed"
    )
    return figure


def series(ax: Axes, alphas: Array, values: Array, label: str, color: str, marker: str) -> None:
    fit = fit_power(alphas, values)
    plots.power_law(ax, alphas, values, over_seeds(values, np.median), fit.exponent, fit.factor, label, color, marker)


def table(outcome: Outcome) -> list[Row]:
    """Print epsilon, gaps and exponents."""
    config, arrays = outcome.config, outcome.arrays
    alphas, sizes = arrays["alphas"], arrays["sizes"]
    clusters = config["positive"] + config["negative"]
    rows = [Row("epsilon, the same for every alpha", f"{config['scale']:g}")]
    rows += gap_rows(outcome, clusters)
    few = {
        "": np.full(len(alphas), True),
        f", alpha <= {alphas[smaller_half(alphas)].max():.3g}": smaller_half(alphas),
        ", the two smallest alphas": alphas <= np.sort(alphas)[1],
    }
    for name, theory in THEORY.items():
        values = in_window(arrays, name)
        for label, use in few.items():
            fit = fit_power(alphas[use], worst(values)[:, use])
            told = f"{theory}: {fit.against(theory)}"
            rows.append(Row(f"exponent of {NAMES[name]}{label}", str(fit), f"O~(alpha^{theory})", told))
        least = fit_power(alphas, values.min(axis=2))
        told = f"{theory}: {least.against(theory)}"
        rows.append(Row("  the same at its least in the window", str(least), f"O~(alpha^{theory})", told))
    i = int(np.argmin(alphas))
    floor = 9 * alphas**2 / sizes
    ratio = over_seeds(worst(arrays["loss"]), np.median) / floor
    drift = over_seeds(arrays["loss"].max(axis=2) / arrays["loss"].min(axis=2), np.median)
    j = int(np.argmax(alphas))
    rows += [
        Row(f"loss / (9 alpha^2/D) at alpha = {alphas[i]:.3g}", f"{ratio[i]:.3f}", "-", "1"),
        Row(f"  at alpha = {alphas[j]:.3g}", f"{ratio[j]:.3f}", "-", "1"),
        Row(f"loss, most / least in the window, alpha = {alphas[i]:.3g}", f"{drift[i]:.4f}", "-", "1"),
        Row(f"  at alpha = {alphas[j]:.3g}", f"{drift[j]:.4f}", "-", "1"),
    ]
    rows.append(Row("slack of the upper end (its value for F^(p))", f"{float(arrays['slack']):.1e}", "-", "0"))
    for name in QUANTITIES:
        change = check_difference(arrays, name)
        rows.append(Row(f"{NAMES[name]}: float64 and half the rtol change it by", f"{change:.1e}", "-", "< 1e-2"))
    missing = int(np.count_nonzero(~np.isfinite(arrays["loss"][:, :, 0])))
    if missing:
        rows.append(Row("runs missing (interrupted, or a cluster did not grow)", str(missing)))
    return rows


def gap_rows(outcome: Outcome, clusters: int) -> list[Row]:
    """Print the gap at the start, median and least over seeds, for each alpha."""
    arrays, rows = outcome.arrays, []
    for i, (alpha, size) in enumerate(zip(arrays["alphas"], arrays["sizes"], strict=True)):
        gap = arrays["gap"][:, i]
        gap = gap[np.isfinite(gap)]
        if gap.size:
            label = f"gap at alpha = {alpha:.3f} (D = {size:.0f}, n = {clusters * size:.0f})"
            limit = f"{gap_limit(outcome.config['nudge']):.3f} as D grows"
            rows.append(Row(label, f"{np.median(gap):.3f} (least {gap.min():.4f})", "Theta(1)", limit))
    return rows


THEOREM1 = Experiment(
    "theorem1",
    "exponents of loss and distance to F^(p) in alpha, from an own-class nudged initialisation",
    measure,
    draw,
    table,
    presets={"paper": FULL, "quick": QUICK},
    options=("width", "scheduler"),
    seconds={"paper": 35, "quick": 2},
)
