"""How far the conclusion of MV25's Theorem 1 survives its assumptions: correlated centres, imbalance, low-rank noise.

The flow from a small balanced initialisation learns mixtures that leave the paper's one at a time: unit centres whose
pairwise cosine grows, a class that becomes rarer, noise of the same power on ever fewer directions of a cluster's own.
Certified and attacked radii of fresh points are told in units of half the distance from a point's centre to the nearest
centre of the other class: sqrt(2)/2 for orthonormal centres, the most that Proposition 1 leaves any classifier, and
what the nearest-centre rule reaches as the noise vanishes. Beside them stands that rule, whose radius is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preluflow import plots
from preluflow.classifiers import NearestCenter
from preluflow.data import GaussianMixture
from preluflow.experiments._harness import (
    Experiment,
    Outcome,
    Row,
    Session,
    completed,
    drawn,
    every_point,
    set_title,
)
from preluflow.experiments._stats import Array, over_seeds
from preluflow.flow import gradient_flow
from preluflow.initialization import initialize
from preluflow.margins import robust_radius
from preluflow.observe import Observe
from preluflow.typing import Loss

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Beyond:
    """Mixtures and recipe.

    ``cosines``, ``imbalances`` (how much more frequent the positive class is) and ``ranks`` of the noise are varied one
    at a time; the first of each is the paper's mixture but for ``ranks``, where it is the last. E||x - mu||^2 is
    alpha^2 always.
    """

    cosines: tuple[float, ...] = (0.0, 0.15, 0.3, 0.45, 0.6)
    imbalances: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    ranks: tuple[int, ...] = (1, 3, 10, 30, 100)
    degrees: tuple[float, ...] = (1.0, 2.0, 3.0)
    seeds: int = 5
    dim: int = 100
    positive: int = 3
    negative: int = 3
    n: int = 1200
    width: int = 60
    alpha: float = 0.3
    scale: float = 1e-5
    loss: Loss = "squared"
    t1: float = 240.0
    rtol: float = 1e-3
    points: int = 120


FULL = Beyond()
QUICK = replace(FULL, cosines=(0.0, 0.4), imbalances=(1.0, 8.0), ranks=(1, 100), seeds=2, n=300, t1=120.0, points=40)

AXES = ("cosines", "imbalances", "ranks")
LABELS = {
    "cosines": "cosine between any two centres (no unit)",
    "imbalances": "frequency of the positive class / negative (no unit)",
    "ranks": "rank of each cluster's noise (directions)",
}
FOUND = ("lower", "upper", "rule")


def mixture(config: Beyond, axis: str, value: float, rng: np.random.Generator) -> GaussianMixture:
    """Return the paper's mixture but for one thing."""
    K, dim = config.positive + config.negative, config.dim
    cosine = value if axis == "cosines" else 0.0
    basis = np.linalg.qr(rng.standard_normal((dim, K + 1)))[0].T
    centers = np.sqrt(1.0 - cosine) * basis[:K] + np.sqrt(cosine) * basis[K]
    labels = np.repeat([1, -1], (config.positive, config.negative))
    odds = value if axis == "imbalances" else 1.0
    weights = np.where(labels == 1, odds / config.positive, 1.0 / config.negative)
    noise: Any = config.alpha
    if axis == "ranks" and value < dim:
        rank = int(value)
        directions = [np.linalg.qr(rng.standard_normal((dim, rank)))[0] for _ in range(K)]
        noise = config.alpha / np.sqrt(rank) * np.stack(directions)
    return GaussianMixture(centers, labels, weights, noise=noise)


def half_distances(gmm: GaussianMixture, z: NDArray[np.intp]) -> Array:
    """Half the distance from the centre of each point to the nearest centre of the other class, (n,)."""
    gaps = np.linalg.norm(gmm.centers[:, None] - gmm.centers[None], axis=2)
    gaps[gmm.labels[:, None] == gmm.labels[None]] = np.inf
    return np.asarray(0.5 * gaps.min(axis=1)[z])


def shape_of(config: Beyond, axis: str) -> tuple[int, int, int]:
    """How many values, degrees and seeds."""
    return len(getattr(config, axis)), len(config.degrees), config.seeds


def cell(config: Beyond, seed: int, axis: str, i: int, d: int, s: int) -> dict[str, float]:
    """Train one network and measure it; all degrees of a seed see the same mixture and points."""
    rng_mixture, rng_train, rng_test, rng_network = np.random.default_rng((seed, AXES.index(axis), i, s)).spawn(4)
    gmm = mixture(config, axis, getattr(config, axis)[i], rng_mixture)
    data = gmm.sample(config.n, rng=rng_train)
    test = gmm.sample(config.points, balanced=False, dtype="float64", rng=rng_test)
    start = initialize(config.width, config.dim, config.scale, p=config.degrees[d], rng=rng_network)
    run = completed(
        gradient_flow(
            start,
            data.X,
            data.y,
            t1=config.t1,
            loss=config.loss,
            # Stiff where centres correlate or a class is rare; at p = 1 it is kinks that hold steps short.
            method="bosh3" if config.degrees[d] == 1.0 else "rkc",
            rtol=config.rtol,
            observe=Observe(what=["loss", "accuracy"]),
        )
    )
    network = run.network.astype("float64")
    radius = robust_radius(network, test.X, test.y, level="tight")
    radius = every_point(radius, config.points)
    unit = half_distances(gmm, test.z)
    rule = NearestCenter(gmm).certified_radius(test.X, test.y)
    return {
        "lower": float(np.median(radius.lower / unit)),
        "upper": float(np.median(radius.upper / unit)),
        "rule": float(np.median(rule / unit)),
        "accuracy": float(np.mean(radius.correct)),
        "loss": float(run["loss"][-1]),
    }


def measure(session: Session) -> None:
    """Train and measure every cell."""
    config = session.config
    names = (*FOUND, "accuracy", "loss")
    session.empty({f"{axis}_{name}": shape_of(config, axis) for axis in AXES for name in names})
    for axis in AXES:
        session.arrays[axis] = np.array(getattr(config, axis), dtype=np.float64)
    for axis in AXES:
        sizes = dict(zip("ids", shape_of(config, axis), strict=True))
        measured = partial(cell, config, session.options.seed, axis)
        for (i, d, s), found in session.computed(measured, {name: range(size) for name, size in sizes.items()}):
            for name, value in found.items():
                session.arrays[f"{axis}_{name}"][i, d, s] = value


_LOOKS = ((plots.SKY, "o", ":"), (plots.ORANGE, "s", "--"), (plots.BLUE, "^", "-"), (plots.PURPLE, "v", "-."))


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw, for each assumption left, what is certified and attacked in units of half the distance."""
    figure, axes = plots.new_figure(3, width=4.3, height=4.1)
    for ax, axis in zip(axes, AXES, strict=True):
        _panel(ax, outcome, axis)
        plots.legend_above(ax, columns=2)
    axes[0].set_ylabel("median radius / half the distance\nof opposite centres (no unit)")
    top = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(0.0, max(top, 1.05))
    set_title(figure, outcome, "Beyond the theorem", "dim", "K1+K2", "n", "width", "alpha", "scale", "seeds")
    return figure


def _panel(ax: Axes, outcome: Outcome, axis: str) -> None:
    arrays = outcome.arrays
    x = arrays[axis]
    for d, degree in enumerate(outcome.config["degrees"]):
        color, marker, style = _LOOKS[d % len(_LOOKS)]
        lower, upper = arrays[f"{axis}_lower"][:, d].T, arrays[f"{axis}_upper"][:, d].T
        middle = over_seeds(lower, np.median)
        ax.plot(x, middle, color=color, marker=marker, ls=style, label=f"p={degree:g}, certified")
        ax.fill_between(x, over_seeds(lower, np.min), over_seeds(upper, np.max), color=color, alpha=0.2, lw=0)
        ax.plot(x, over_seeds(upper, np.median), color=color, marker=marker, ls="none", mfc="white", ms=4)
    ax.plot([], [], color=plots.INK, marker="o", ls="none", mfc="white", ms=4, label="attacked (filled white), any p")
    rule = over_seeds(arrays[f"{axis}_rule"].mean(axis=1).T, np.median)
    ax.plot(x, rule, color=plots.INK, ls=(0, (1, 1)), lw=1.2, label="nearest centre, exact")
    if axis != "cosines":
        ax.set_xscale("log")
        ax.set_xticks(x, [f"{value:g}" for value in x])
        ax.minorticks_off()
    ax.set_xlabel(LABELS[axis])


def table(outcome: Outcome) -> list[Row]:
    """Print medians over seeds, and the worst seed, at both ends of every axis."""
    config, arrays, rows = outcome.config, outcome.arrays, []
    for axis in AXES:
        values = arrays[axis]
        for i in (0, len(values) - 1):
            rows.append(Row(f"{LABELS[axis].rsplit(' (', 1)[0]} = {values[i]:g}", ""))
            for d, degree in enumerate(config["degrees"]):
                lower, upper = arrays[f"{axis}_lower"][i, d], arrays[f"{axis}_upper"][i, d]
                told = f"[{_told(lower, np.median)}, {_told(upper, np.median)}], worst {_told(lower, np.min)}"
                rows.append(
                    Row(f"  p = {degree:g}: median radius / half distance", told, "-", "1" if degree > 2 else "-")
                )
                accuracy = arrays[f"{axis}_accuracy"][i, d]
                rows.append(
                    Row("    accuracy, median and worst", f"{_told(accuracy, np.median)}, {_told(accuracy, np.min)}")
                )
            rows.append(Row("  nearest centre", _told(arrays[f"{axis}_rule"][i].ravel(), np.median)))
    return rows


def _told(values: Array, reduce: Any) -> str:
    values = values[np.isfinite(values)]
    return f"{reduce(values):.3f}" if values.size else "nan"


BEYOND = Experiment(
    "beyond",
    "radius of what the flow learns as centres correlate, classes unbalance and noise loses rank",
    measure,
    draw,
    table,
    presets={"default": FULL, "quick": QUICK},
    options=("scheduler",),
    seconds={"default": 110, "quick": 3},
)
