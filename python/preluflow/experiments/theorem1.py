"""Theorem 1 and Proposition 4 of MV25 as experiments: how loss, distance to F^(p) and alignment scale with alpha.

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

Proposition 4: while f ~ 0 the neurons align up to 1 - cos = O~(alpha^2). With epsilon = 1e-100 nothing else happens for
hundreds of units of time, so that the alignment phase is seen to its end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from preluflow import plots
from preluflow._progress import progress_bar
from preluflow.classifiers import cluster_prelu
from preluflow.data import Dataset, OrthonormalGMM
from preluflow.distance import distance_bracket
from preluflow.events import Event
from preluflow.experiments._experiment import Experiment, Options, Outcome, Row, completed, options_config, over_seeds
from preluflow.flow import gradient_flow
from preluflow.initialization import VOID, initialize, non_degeneracy_gap, voronoi_regions
from preluflow.network import TwoLayerNetwork
from preluflow.observe import OBSERVERS, Observe, Snapshot
from preluflow.results import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

# 97.5% quantiles of Student's t, 1 to 9 degrees of freedom.
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


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

    def config(self, options: Options) -> dict[str, Any]:
        """Everything that decides the numbers, as JSON keeps it."""
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {**options_config(options), **fields}


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


def counted(cells: Iterable[Any], total: int, progress: bool) -> Iterator[Any]:
    """Go through the cells, with a progress bar if there shall be one."""
    bar = progress_bar(total, "run", progress)
    try:
        for cell in cells:
            yield cell
            bar.update(1)
    finally:
        bar.close()


@dataclass(frozen=True)
class Fit:
    """A power law fitted by least squares in the logarithms, with its spread over seeds.

    Attributes
    ----------
    exponent, factor : float
        value = factor * alpha^exponent. With every seed at every alpha this is least squares over all points.
    low, high : float
        95% confidence interval of the exponent from Student's t over the seeds' own exponents.
    boot_low, boot_high : float
        The same from 4000 bootstrap samples of seeds; with five seeds it is somewhat too narrow.
    """

    exponent: float
    factor: float
    low: float
    high: float
    boot_low: float
    boot_high: float

    def __str__(self) -> str:
        """Show exponent and both intervals."""
        if not math.isfinite(self.exponent):
            return "-"
        return (
            f"{self.exponent:.2f} [{self.low:.2f}, {self.high:.2f}], "
            f"bootstrap [{self.boot_low:.2f}, {self.boot_high:.2f}]"
        )

    def against(self, theory: float) -> str:
        """Say where the interval lies."""
        if not math.isfinite(self.low + self.high):
            return "no interval"
        if self.low > theory:
            return "steeper"
        return "shallower" if self.high < theory else "within the interval"


def fit_power(alphas: Array, values: Array) -> Fit:
    """Fit values, (seeds, alphas), by factor * alpha^exponent; what is not positive and finite is left out."""
    lines = []
    for row in values:
        use = np.isfinite(row) & (row > 0)
        if np.count_nonzero(use) >= 2:
            lines.append(np.polyfit(np.log(alphas[use]), np.log(row[use]), 1))
    if not lines:
        return Fit(*[math.nan] * 6)
    exponents, intercepts = np.array(lines).T
    count, exponent = len(exponents), float(exponents.mean())
    half, boot = math.nan, (math.nan, math.nan)
    if count > 1:
        half = _T975[min(count - 2, len(_T975) - 1)] * float(exponents.std(ddof=1)) / math.sqrt(count)
        draws = np.random.default_rng(0).integers(count, size=(4000, count))
        boot = tuple(np.quantile(exponents[draws].mean(axis=1), (0.025, 0.975)).tolist())
    return Fit(exponent, math.exp(float(intercepts.mean())), exponent - half, exponent + half, *boot)


def smaller_half(alphas: Array) -> NDArray[np.bool_]:
    """Mark the smaller alphas, the middle one included."""
    return np.asarray(alphas <= np.sort(alphas)[len(alphas) // 2])


def _empty(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    return {name: np.full(shape, np.nan) for name, shape in shapes.items()}


def _outcome(name: str, config: dict[str, Any], arrays: dict[str, Array], done: int, stopped: bool) -> Outcome:
    return Outcome(name, config, arrays=arrays if done else {}, stopped=stopped)


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


def run_theorem1(options: Options) -> Outcome:
    """Run the experiment of Theorem 1: every seed at every alpha."""
    config = QUICK if options.quick else FULL
    config = config if options.width is None else replace(config, width=options.width)
    seeds, count, stops = config.seeds, len(config.alphas), len(config.window)
    shapes: dict[str, tuple[int, ...]] = {name: (seeds, count, stops) for name in (*QUANTITIES, "norm_error")}
    shapes |= {f"check_{name}": (seeds, count, stops) for name in QUANTITIES}
    arrays = _empty({**shapes, "gap": (seeds, count), "t_half": (seeds, count)})
    arrays["alphas"] = np.array(config.alphas)
    arrays["sizes"] = np.array([config.size(alpha) for alpha in config.alphas], dtype=np.float64)
    arrays["slack"] = np.array(bracket_slack(config, options))
    # The repetitions come last: Ctrl-C during them costs nothing but them.
    cells = [(False, s, i) for s in range(seeds) for i in range(count)]
    cells += [(True, s, i) for s in range(config.checked) for i in range(count)]
    done, stopped = 0, False
    try:
        for check, s, i in counted(cells, len(cells), options.progress):
            alpha = config.alphas[i]
            rng = np.random.default_rng((options.seed, s, i))
            gmm, network, data = draw_problem(config, alpha, config.size(alpha), rng, "float64" if check else "float32")
            rtol = config.rtol / 2 if check else config.rtol
            start, run = through_window(config, gmm, network, data, rtol, options)
            if run is not None:
                for name in QUANTITIES:
                    arrays["check_" * check + name][s, i] = run[name][-stops:]
            if not check:
                arrays["gap"][s, i], arrays["t_half"][s, i] = non_degeneracy_gap(network, gmm), start
                if run is not None:
                    arrays["norm_error"][s, i] = np.abs(run["cluster_norms"][-stops:] - 1.0).max(axis=1)
            done += 1
    except KeyboardInterrupt:
        stopped = True
    return _outcome("theorem1", config.config(options), arrays, done, stopped)


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


def draw_theorem1(outcome: Outcome) -> Figure:
    """Draw loss and distances against alpha."""
    config, arrays = outcome.config, outcome.arrays
    alphas = arrays["alphas"]
    with plots.style():
        figure, (left, right) = plots.new_figure(2, height=4.2)
        _series(left, alphas, worst(arrays["loss"]), "loss", plots.INK, "o")
        left.plot(alphas, 9 * alphas**2 / arrays["sizes"], color=plots.GREY, ls="-.", label=r"floor $9\,\alpha^2/D$")
        plots.slope_guide(left, alphas, worst(arrays["loss"]), 4, above=1.6)
        left.set(ylabel=r"mean squared loss (no unit)")
        looks = {"distance_upper": (plots.BLUE, "^"), "distance_lower": (plots.INK, "v")}
        looks["distance_estimate"] = (plots.ORANGE, "s")
        for name, (color, marker) in looks.items():
            _series(right, alphas, worst(arrays[name]), NAMES[name].removeprefix("distance, "), color, marker)
        slack = r"upper end for $F^{(p)}$ (slack)"
        right.axhline(float(arrays["slack"]), color=plots.GREY, ls="-.", label=slack)
        plots.slope_guide(right, alphas, worst(arrays["distance_upper"]), 2, above=1.6)
        right.set(ylabel=r"sup$\,|f-F^{(p)}|$ over $\|x\|=1$ (no unit)")
        for ax in (left, right):
            plots.log_log(ax, alphas, r"$\alpha$, standard deviation of a cluster (length; $\|\mu_k\|=1$)")
            plots.legend_above(ax, columns=2)
        figure.suptitle(
            f"Theorem 1: worst in the window (K={config['positive'] + config['negative']}, "
            rf"D=N=$\lceil${config['ratio']:g}/$\alpha^2\rceil$, h={config['width']}, p={config['p']:g}, "
            rf"$\epsilon$={config['scale']:g}, {config['seeds']} seeds from {config['seed']}{outcome.marks})",
            fontsize=10,
        )
        figure.canvas.draw()
    return figure


def _series(ax: Axes, alphas: Array, values: Array, label: str, color: str, marker: str) -> None:
    fit = fit_power(alphas, values)
    plots.power_law(ax, alphas, values, over_seeds(values, np.median), fit.exponent, fit.factor, label, color, marker)


def table_theorem1(outcome: Outcome) -> list[Row]:
    """Print epsilon, gaps and exponents."""
    config, arrays = outcome.config, outcome.arrays
    alphas, sizes = arrays["alphas"], arrays["sizes"]
    clusters = config["positive"] + config["negative"]
    rows = [Row("epsilon, the same for every alpha", f"{config['scale']:g}")]
    rows += gap_rows(outcome, clusters)
    few = {
        "": np.full(len(alphas), True),
        f", alpha <= {alphas[smaller_half(alphas)].max():.2g}": smaller_half(alphas),
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
        Row(f"loss / (9 alpha^2/D) at alpha = {alphas[i]:.2g}", f"{ratio[i]:.3f}", "-", "1"),
        Row(f"  at alpha = {alphas[j]:.2g}", f"{ratio[j]:.3f}", "-", "1"),
        Row(f"loss, most / least in the window, alpha = {alphas[i]:.2g}", f"{drift[i]:.4f}", "-", "1"),
        Row(f"  at alpha = {alphas[j]:.2g}", f"{drift[j]:.4f}", "-", "1"),
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


# ---- Proposition 4


@dataclass(frozen=True)
class Proposition4(Problem):
    """Problem and the times looked at, in units of K; the middle one is called the end of the alignment phase.

    ``fixed``: D and N of the second series, in which they do not grow.
    """

    scale: float = 1e-100
    times: tuple[float, ...] = (3.0, 5.0, 8.0)
    fixed: int = 400


SERIES = ("growing", "fixed")
FULL4 = Proposition4()
QUICK4 = replace(FULL4, alphas=tuple(np.geomspace(0.4, 0.125, 4).tolist()), seeds=3, fixed=100)


def one_minus_cosine(at: Snapshot) -> dict[str, Any]:
    """Measure 1 - cos(u_j, mu) to the centre whose region neuron j started in, NaN if void; and how large f may be."""
    target = voronoi_regions(at.start, at.gmm)
    U = at.network.directions.astype(np.float64)
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    centers = at.gmm.centers[target]
    cosine = np.einsum("jd,jd->j", U, centers)
    # For small angles from the sine: 1 - cosine would keep few digits.
    square = np.sum((U - cosine[:, None] * centers) ** 2, axis=1)
    gap = np.where(cosine > 0.5, square / (1.0 + np.abs(cosine)), 1.0 - cosine)
    bound = np.logaddexp.reduce(at.network.log_contributions) / np.log(10.0)
    return {"one_minus_cosine": np.where(target == VOID, np.nan, gap), "log10_f": bound}


def run_proposition4(options: Options) -> Outcome:
    """Run the experiment of Proposition 4: growing and fixed D and N, every seed at every alpha."""
    config = QUICK4 if options.quick else FULL4
    config = config if options.width is None else replace(config, width=options.width)
    times = [config.clusters * time for time in config.times]
    shape = (config.seeds, len(config.alphas))
    shapes = {f"{key}_{what}": (*shape, len(times)) for key in SERIES for what in ("median", "worst", "log10_f")}
    arrays = _empty({**shapes, "gap": shape, "fixed_gap": shape, "void": shape, "fixed_void": shape})
    arrays["alphas"] = np.array(config.alphas)
    arrays["sizes"] = np.array([config.size(alpha) for alpha in config.alphas], dtype=np.float64)
    cells = [(s, i, key) for s in range(config.seeds) for i in range(len(config.alphas)) for key in SERIES]
    done, stopped = 0, False
    try:
        for s, i, key in counted(cells, len(cells), options.progress):
            alpha, prefix = config.alphas[i], "fixed_" * (key == "fixed")
            size = config.fixed if prefix else config.size(alpha)
            rng = np.random.default_rng((options.seed, s, i, SERIES.index(key)))
            gmm, network, data = draw_problem(config, alpha, size, rng)
            observe = Observe(at=times, what=(one_minus_cosine,), gmm=gmm)
            flow = partial(gradient_flow, rtol=config.rtol, observe=observe, num_threads=options.num_threads)
            run = completed(flow(network, data.X, data.y, t1=times[-1]))
            arrays[f"{prefix}gap"][s, i] = non_degeneracy_gap(network, gmm)
            found = run["one_minus_cosine"][-len(times) :]
            inside = np.isfinite(found[0])
            arrays[f"{prefix}void"][s, i] = np.count_nonzero(~inside)
            if run.status == "finished" and inside.any():
                arrays[f"{key}_median"][s, i] = np.median(found[:, inside], axis=1)
                arrays[f"{key}_worst"][s, i] = found[:, inside].max(axis=1)
                arrays[f"{key}_log10_f"][s, i] = run["log10_f"][-len(times) :]
            done += 1
    except KeyboardInterrupt:
        stopped = True
    return _outcome("proposition4", config.config(options), arrays, done, stopped)


def at_end(outcome: Outcome, name: str) -> Array:
    """What was measured at the end of the alignment phase, (seeds, alphas)."""
    return np.asarray(outcome.arrays[name][:, :, len(outcome.config["times"]) // 2])


def draw_proposition4(outcome: Outcome) -> Figure:
    """Draw 1 - cos against alpha, D and N growing (left) and fixed (right)."""
    config, arrays = outcome.config, outcome.arrays
    alphas = arrays["alphas"]
    sizes = {"growing": arrays["sizes"], "fixed": np.full(len(alphas), float(config["fixed"]))}
    titles = {"growing": rf"D=N=$\lceil${config['ratio']:g}/$\alpha^2\rceil$", "fixed": f"D=N={config['fixed']}"}
    with plots.style():
        figure, axes = plots.new_figure(2, height=4.2)
        for ax, key in zip(axes, SERIES, strict=True):
            _series(ax, alphas, at_end(outcome, f"{key}_median"), "median neuron", plots.INK, "o")
            _series(ax, alphas, at_end(outcome, f"{key}_worst"), "worst neuron", plots.ORANGE, "^")
            ax.plot(alphas, alphas**2 / (2 * sizes[key]), color=plots.GREY, ls="-.", label=r"$\alpha^2/(2N)$")
            plots.slope_guide(ax, alphas, at_end(outcome, f"{key}_worst"), 2, above=1.6)
            label = r"$\alpha$, standard deviation of a cluster (length; $\|\mu_k\|=1$)"
            plots.log_log(ax, alphas, f"{label}\n{titles[key]}")
            ax.set(ylabel=r"$1-\cos(u_j, \mu)$ (no unit)")
            plots.legend_above(ax, columns=2)
        low = min(ax.get_ylim()[0] for ax in axes)
        high = max(ax.get_ylim()[1] for ax in axes)
        for ax in axes:
            ax.set_ylim(low, high)
        figure.suptitle(
            f"Proposition 4: end of alignment (K={config['positive'] + config['negative']}, h={config['width']}, "
            rf"p={config['p']:g}, $\epsilon$={config['scale']:g}, "
            f"{config['seeds']} seeds from {config['seed']}{outcome.marks})",
            fontsize=10,
        )
        figure.canvas.draw()
    return figure


def table_proposition4(outcome: Outcome) -> list[Row]:
    """Print gaps, exponents and how far alignment is from moving on."""
    config, arrays = outcome.config, outcome.arrays
    alphas = arrays["alphas"]
    clusters = config["positive"] + config["negative"]
    rows = [Row("epsilon, the same for every alpha", f"{config['scale']:g}"), *gap_rows(outcome, clusters)]
    sizes = {"growing": arrays["sizes"], "fixed": np.full(len(alphas), float(config["fixed"]))}
    words = {"growing": ("D, N growing", 4.0), "fixed": (f"D = N = {config['fixed']}", 2.0)}
    i = int(np.argmin(alphas))
    for key, (label, sampled) in words.items():
        for which in ("median", "worst"):
            fit = fit_power(alphas, at_end(outcome, f"{key}_{which}"))
            told = f"2 at least: {fit.against(2.0)}; alpha^2/(2N): {sampled:g}"
            rows.append(Row(f"exponent of 1 - cos, {which} neuron, {label}", str(fit), "O~(alpha^2)", told))
        ratio = over_seeds(at_end(outcome, f"{key}_median"), np.median) * 2 * sizes[key] / alphas**2
        rows.append(Row(f"  median / (alpha^2/(2N)) at alpha = {alphas[i]:.2g}", f"{ratio[i]:.3f}", "-", "1"))
    first, last = config["times"][0], config["times"][-1]
    change = np.abs(arrays["growing_worst"][:, :, -1] / arrays["growing_worst"][:, :, 0] - 1.0)
    finite = change[np.isfinite(change)]
    moved = f"{finite.max():.1e}" if finite.size else "-"
    rows.append(Row(f"worst neuron: change from t = {first * clusters:g} to {last * clusters:g}", moved, "-", "0"))
    sizes_f = np.concatenate([arrays[f"{key}_log10_f"].ravel() for key in SERIES])
    sizes_f = sizes_f[np.isfinite(sizes_f)]
    rows.append(Row(f"|f| until t = {last * clusters:g}, at most", f"1e{sizes_f.max():.0f}" if sizes_f.size else "-"))
    void = np.nansum(arrays["void"]) + np.nansum(arrays["fixed_void"])
    rows.append(Row("neurons in the void region at the start, all runs", f"{void:.0f}", "-", "0"))
    return rows


THEOREM1 = Experiment(
    "theorem1",
    "exponents of loss and distance to F^(p) in alpha, from an own-class nudged initialisation",
    run_theorem1,
    draw_theorem1,
    table_theorem1,
    presets={"paper": FULL, "quick": QUICK},
)
PROPOSITION4 = Experiment(
    "proposition4",
    "exponent of 1 - cos in alpha at the end of the alignment phase",
    run_proposition4,
    draw_proposition4,
    table_proposition4,
    presets={"paper": FULL4, "quick": QUICK4},
)
