"""Figure 1 of MV25: the geometry of the data.

Two clusters of opposite classes, N(mu_k, alpha^2 I / D). In every direction alike, the centres' included, the
noise has standard deviation alpha/sqrt(D), yet its length is alpha: nearly all of it lies orthogonal to the centres. A
cluster is a slab, thin where it faces the other and wide where that does not matter. The two are sqrt(2) apart, so an
attack shorter than sqrt(2)/2 - O(alpha/sqrt(D)) changes no label, and beyond sqrt(2)/2 no classifier withstands it on
both. alpha = 1 here: the noise is as long as the centres themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import erf, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preluflow import plots
from preluflow.data import OrthonormalGMM
from preluflow.experiments._harness import Experiment, Outcome, Row, Session, drawn, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HALF = sqrt(0.5)  # sqrt(2)/2, half the distance of two centres

ATTACKS = (0.95 * HALF, HALF)


@dataclass(frozen=True)
class Config:
    """Two clusters of opposite classes; ``each`` points of each, of which ``drawn`` are drawn."""

    dim: int = 1000
    alpha: float = 1.0
    each: int = 2000
    drawn: int = 500


FULL = Config()
QUICK = replace(FULL, each=250, drawn=250)


def sample_clusters(config: Config, seed: int) -> dict[str, NDArray[Any]]:
    """Draw the points and reduce them to what the figure and the table need.

    Returns
    -------
    dict of ndarray
        ``plane`` (n, 2): <x, mu_1> and <x, mu_2>. ``length`` (n,): of the rest of x, which is orthogonal to both
        centres. ``angle`` (n,): of the rest's projection on a random plane of its own. ``noise`` (n,): ||x - mu_z||.
        ``z`` (n,): cluster. ``means_apart`` (): distance between the two clusters' mean points.
    """
    rng_centers, rng_data, rng_plane = np.random.default_rng(seed).spawn(3)
    gmm = OrthonormalGMM(config.dim, 1, 1, config.alpha, rng=rng_centers)
    data = gmm.sample(2 * config.each, balanced=True, dtype="float64", rng=rng_data)
    plane = data.X @ gmm.centers.T
    rest = data.X - plane @ gmm.centers
    across = rest @ rng_plane.standard_normal((config.dim, 2))
    means = [data.X[data.z == k].mean(axis=0) for k in (0, 1)]
    return {
        "plane": plane,
        "length": np.linalg.norm(rest, axis=1),
        "angle": np.arctan2(across[:, 1], across[:, 0]),
        "noise": np.linalg.norm(data.X - gmm.centers[data.z], axis=1),
        "z": data.z,
        "means_apart": np.linalg.norm(means[0] - means[1]),
    }


def measure(session: Session) -> None:
    """Sample: that is all there is to it."""
    session.outcome.arrays = sample_clusters(session.config, session.options.seed)


def _towards_other(arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Position along the way from the second centre to the first; 0 half-way, the centres at +-sqrt(2)/2."""
    return np.asarray((arrays["plane"][:, 0] - arrays["plane"][:, 1]) * HALF)


_LOOKS: tuple[dict[str, Any], ...] = ({"color": plots.BLUE, "marker": "o"}, {"color": plots.ORANGE, "marker": "^"})
_CLUSTER_NAMES = ("$y=+1$", "$y=-1$")


def _subset(outcome: Outcome, k: int) -> NDArray[np.intp]:
    return np.flatnonzero(outcome.arrays["z"] == k)[: outcome.config["drawn"]]


def _gap_arrow(ax: Axes, a: tuple[float, float], b: tuple[float, float]) -> None:
    ax.annotate("", b, a, arrowprops={"arrowstyle": "<->", "color": plots.INK, "lw": 1.1, "shrinkA": 0, "shrinkB": 0})


def _plane_panel(ax: Axes, outcome: Outcome) -> None:
    """Draw the plane of the centres: clusters as specks, balls of radius sqrt(2)/2 that touch at the boundary."""
    from matplotlib.patches import Circle

    centers = np.eye(2)
    for k, (center, look) in enumerate(zip(centers, _LOOKS, strict=True)):
        points = outcome.arrays["plane"][_subset(outcome, k)]
        ax.scatter(points[:, 0], points[:, 1], s=7, lw=0, alpha=0.5, label=_CLUSTER_NAMES[k], **look)
        ax.add_patch(Circle(tuple(center), HALF, fill=False, ec=look["color"], lw=1.4, ls=("-", "--")[k]))
        ax.plot(*center, marker="+", color=plots.INK, ms=11, mew=1.5, ls="")
        ax.annotate(
            rf"$\mu_{k + 1}$",
            (center[0], center[1]),
            xytext=(11, 8),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=11,
        )
    ends = np.array([-0.6, 1.8])
    ax.plot(ends, ends, color=plots.INK, ls=":", lw=1.8, label="Bayes boundary")
    ax.plot(0, 0, marker=".", color=plots.INK)
    ax.annotate("0", (0, 0), xytext=(6, -11), textcoords="offset points")
    ax.annotate("", (0.5, 0.5), (1, 0), arrowprops={"arrowstyle": "->", "color": plots.INK, "shrinkA": 6, "shrinkB": 0})
    ax.text(0.80, 0.33, r"$\sqrt{2}/2$", ha="left", va="center")
    ax.set(xlabel=r"$\langle x,\mu_1\rangle$", ylabel=r"$\langle x,\mu_2\rangle$", aspect="equal")
    ax.set(xlim=(-0.8, 1.8), ylim=(-0.8, 1.8), xticks=(-0.5, 0, 0.5, 1, 1.5), yticks=(-0.5, 0, 0.5, 1, 1.5))
    plots.legend_above(ax, columns=3)
    legend: Any = ax.get_legend()
    for handle in legend.legend_handles[:2]:
        handle.set(alpha=1.0, sizes=[28.0])


def _slab_panel(ax: Axes, outcome: Outcome) -> None:
    """Look at the same points from the side: their long extent is orthogonal to the way from centre to centre."""
    arrays, config = outcome.arrays, outcome.config
    along, height = _towards_other(arrays), arrays["length"] * np.cos(arrays["angle"])
    thin, extent = config["alpha"] / sqrt(config["dim"]), config["alpha"]
    top = 1.6 * max(extent, 1.0)
    for k, look in enumerate(_LOOKS):
        of, x = _subset(outcome, k), (HALF, -HALF)[k]
        ax.scatter(along[of], height[of], s=7, lw=0, alpha=0.5, **look)
        ax.plot([x, x], [-top, top], color=plots.GREY, lw=1.0, ls="-.", zorder=0)
        ax.plot(x, 0, marker="+", color=plots.INK, ms=11, mew=1.5, ls="")
        ax.annotate(rf"$\mu_{k + 1}$", (x, 0), xytext=(13, 5), textcoords="offset points", ha="left", fontsize=11)
    ax.axvline(0.0, color=plots.INK, ls=":", lw=1.8)
    _gap_arrow(ax, (-HALF, 1.25 * extent), (HALF, 1.25 * extent))
    ax.text(0.04, 1.29 * extent, r"$\sqrt{2}$", ha="left", va="bottom")
    ax.annotate(
        "",
        (0, -0.45 * extent),
        (HALF, -0.45 * extent),
        arrowprops={"arrowstyle": "->", "color": plots.INK, "shrinkB": 0},
    )
    ax.text(HALF / 2, -0.49 * extent, r"$\sqrt{2}/2$", ha="center", va="top", fontsize=9)
    right = HALF + 0.42
    _gap_arrow(ax, (right, -extent), (right, extent))
    ax.text(right + 0.05, 0.0, r"$2\alpha$", va="center")
    ax.text(
        HALF, -1.28 * extent, rf"s.d. $\alpha/\sqrt{{D}}={thin:.3f}$", ha="center", va="top", fontsize=9,
        bbox={"fc": "white", "ec": "none", "pad": 1.5},
    )  # fmt: skip
    ax.set(xlim=(-top, top), ylim=(-top, top), aspect="equal")
    ax.set_xlabel(r"$\langle x,\,\mu_1-\mu_2\rangle/\sqrt{2}$")
    ax.set_ylabel("noise orthogonal to both centres,\nits length kept, turned by a random angle")


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw the plane of the centres, and the slabs from the side."""
    figure, (left, right) = plots.new_figure(2, width=4.6, height=4.7)
    _plane_panel(left, outcome)
    _slab_panel(right, outcome)
    points = f"{outcome.config['each']} points each"
    set_title(figure, outcome, "Figure 1: two clusters", "dim", "alpha", points, "seed")
    return figure


def table(outcome: Outcome) -> list[Row]:
    """Hold the sample against the geometry."""
    arrays, config = outcome.arrays, outcome.config
    alpha, dim, each = config["alpha"], config["dim"], config["each"]
    side = np.where(arrays["z"] == 0, 1.0, -1.0)
    margin = side * _towards_other(arrays)  # distance to the boundary, negative on the wrong side
    thin = alpha / sqrt(dim)
    rows = [
        Row(
            "distance between the clusters' mean points",
            f"{float(arrays['means_apart']):.4f}",
            "1.4142",
            f"{sqrt(2.0 + 2.0 * alpha**2 / each):.4f} (means of {each})",
        ),
        Row("thickness of a slab (s.d. along mu_1 - mu_2)", f"{np.std(margin):.4f}", "-", f"{thin:.4f} alpha/sqrt(D)"),
        Row("narrowest gap between the slabs", f"{margin[side > 0].min() + margin[side < 0].min():.4f}"),
        Row("length of the noise, mean", f"{arrays['noise'].mean():.4f}", "-", f"{alpha:.4f} alpha"),
        Row("  its s.d.", f"{np.std(arrays['noise']):.4f}", "-", f"{thin / sqrt(2.0):.4f} alpha/sqrt(2 D)"),
        Row(
            "nearest centre is the right one, share",
            f"{np.mean(margin > 0):.4f}",
            "-",
            f"{_normal_cdf(HALF / thin):.4f}",
        ),
    ]
    for size in ATTACKS:
        theory = _normal_cdf((HALF - size) / thin)
        rows.append(Row(f"  after an attack of size {size:.4f}", f"{np.mean(margin > size):.4f}", "-", f"{theory:.4f}"))
    return rows


def _normal_cdf(x: float) -> float:
    return 0.5 * (1.0 + erf(x / sqrt(2.0)))


FIG1 = Experiment(
    "fig1",
    "geometry of the data: two clusters and their slabs",
    measure,
    draw,
    table,
    presets={"paper": FULL, "quick": QUICK},
    options=(),
    seconds={"paper": 1, "quick": 1},
)
