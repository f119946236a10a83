"""Figures 1 and 3 of MV25: the geometry of the data, and the regions of directions its centres make.

Figure 1: two clusters of opposite classes, N(mu_k, alpha^2 I / D). In every direction alike, the centres' included, the
noise has standard deviation alpha/sqrt(D), yet its length is alpha: nearly all of it lies orthogonal to the centres. A
cluster is a slab, thin where it faces the other and wide where that does not matter. The two are sqrt(2) apart, so an
attack shorter than sqrt(2)/2 - O(alpha/sqrt(D)) changes no label, and beyond sqrt(2)/2 no classifier withstands it on
both. alpha = 1 here: the noise is as long as the centres themselves.

Figure 3: the regions of two centres of one class (Def. 1) on the sphere in R^3, and the way of positive neurons on
them at alpha = 0 and p = 3. The flow learns from the two centres alone, from epsilon = 1e-300, so that even at t = 300
the network's output is zero and every neuron moves by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import erf, pi, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preluflow import plots
from preluflow.data import OrthonormalGMM
from preluflow.experiments._experiment import Experiment, Options, Outcome, Row, options_config
from preluflow.flow import gradient_flow
from preluflow.initialization import VOID, initialize, voronoi_regions
from preluflow.network import TwoLayerNetwork
from preluflow.observe import Observe, Snapshot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HALF = sqrt(0.5)  # sqrt(2)/2, half the distance of two centres

ATTACKS = (0.95 * HALF, HALF)


# ---- Figure 1


@dataclass(frozen=True)
class Clusters:
    """Two clusters of opposite classes; ``each`` points of each, of which ``drawn`` are drawn."""

    dim: int = 1000
    alpha: float = 1.0
    each: int = 2000
    drawn: int = 500


CLUSTERS = Clusters()
CLUSTERS_QUICK = replace(CLUSTERS, each=250, drawn=250)


def sample_clusters(config: Clusters, seed: int) -> dict[str, NDArray[Any]]:
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


def run_clusters(options: Options) -> Outcome:
    """Run Figure 1: sampling is all there is to it."""
    config = CLUSTERS_QUICK if options.quick else CLUSTERS
    outcome = Outcome("fig1", {**options_config(options), **vars(config)})
    try:
        outcome.arrays = sample_clusters(config, options.seed)
    except KeyboardInterrupt:
        outcome.stopped = True
    return outcome


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


def draw_clusters(outcome: Outcome) -> Figure:
    """Draw Figure 1: the plane of the centres, and the slabs from the side."""
    config = outcome.config
    with plots.style():
        figure, (left, right) = plots.new_figure(2, width=4.6, height=4.7)
        _plane_panel(left, outcome)
        _slab_panel(right, outcome)
        figure.suptitle(
            rf"Figure 1: two clusters (D={config['dim']}, $\alpha$={config['alpha']:g}, "
            f"{config['each']} points each, seed {config['seed']}{', quick' * config['quick']})",
            fontsize=10,
        )
        figure.canvas.draw()
    return figure


def table_clusters(outcome: Outcome) -> list[Row]:
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
    run_clusters,
    draw_clusters,
    table_clusters,
    presets={"paper": CLUSTERS, "quick": CLUSTERS_QUICK},
    options=(),
)


# ---- Figure 3


@dataclass(frozen=True)
class Regions:
    """Positive neurons and two positive centres in R^3; of ``width`` neurons the ways of ``drawn`` are kept."""

    width: int = 4000
    drawn: int = 48
    p: float = 3.0
    scale: float = 1e-300
    first: float = 0.02
    t1: float = 300.0
    stops: int = 240


REGIONS = Regions()
REGIONS_QUICK = replace(REGIONS, width=400)

SHARES = (3 / 8, 3 / 8, 1 / 4)  # of the directions: 135, 135 and 90 degrees around the axis orthogonal to both centres

_REGION_LOOKS: tuple[dict[str, Any], ...] = (
    {"name": r"$R_1$", "color": plots.BLUE, "face": "#d3e1ee", "hatch": "", "marker": "o"},
    {"name": r"$R_2$", "color": "#b4610c", "face": "#fbe9d3", "hatch": "///", "marker": "^"},
    {"name": "void", "color": "#6a6a6a", "face": "#e2e2e2", "hatch": "...", "marker": "s"},
)


def run_regions(options: Options) -> Outcome:
    """Run Figure 3: the flow on the two centres alone."""
    config = REGIONS_QUICK if options.quick else REGIONS
    if options.width is not None:
        config = replace(config, width=options.width)
    drawn = min(config.drawn, config.width)
    gmm = OrthonormalGMM(3, 2, 1, 0.0, centers="canonical")  # the third cluster is of the other class, and not learned
    random = initialize(config.width, 3, config.scale, p=config.p, dtype="float64", rng=options.seed)
    positive = TwoLayerNetwork.from_polar(
        random.directions, random.log_norm, np.ones(config.width), random.log_norm, p=config.p
    )

    def look(at: Snapshot) -> dict[str, Any]:
        return {"directions": at.network.directions[:drawn]}

    kept = gradient_flow(
        positive,
        gmm.centers[:2],
        np.ones(2),
        t1=config.t1,
        rtol=1e-5,
        observe=Observe(at=np.geomspace(config.first, config.t1, config.stops), what=("loss", look)),
        progress=options.progress,
        num_threads=options.num_threads,
    )
    arrays = {"start": positive.directions, "region": voronoi_regions(positive, gmm)}
    return Outcome("fig3", {**options_config(options), **vars(config)}, {"centers": kept}, "centers", arrays)


def _disc_panel(ax: Axes, outcome: Outcome) -> None:
    """Draw the cosines with the two centres: the sphere seen along the axis orthogonal to both."""
    from matplotlib.patches import Wedge

    paths, region = outcome.runs["centers"]["directions"], outcome.arrays["region"]
    for look, (a, b) in zip(_REGION_LOOKS, ((-90, 45), (45, 180), (180, 270)), strict=True):
        wedge = Wedge((0, 0), 1.0, a, b, fc=look["face"], ec="white", hatch=look["hatch"], lw=0.0, zorder=0.6)
        ax.add_patch(wedge)
        middle = np.deg2rad((a + b) / 2)
        ax.text(1.2 * np.cos(middle), 1.18 * np.sin(middle), look["name"], ha="center", va="center", fontsize=12)
    for x, y in ((HALF, HALF), (-1, 0), (0, -1)):
        ax.plot([0, x], [0, y], color=plots.INK, lw=1.5, zorder=1)
    angle = np.linspace(0, 2 * pi, 181)
    ax.plot(np.cos(angle), np.sin(angle), color=plots.GREY, lw=1.0, zorder=1)
    for j in range(paths.shape[1]):
        look = _REGION_LOOKS[region[j]]  # the void, -1, is the last
        xy = paths[:, j, :2]
        ax.plot(*xy.T, color=look["color"], lw=0.9, zorder=2)
        ax.plot(*xy[0], marker=look["marker"], color=look["color"], mec="white", mew=0.5, ms=5.5, zorder=3)
        _arrow_on(ax, xy, look["color"])
    for k, (x, y) in enumerate(np.eye(2)):
        ax.plot(x, y, marker="*", color=plots.INK, ms=13, mec="white", mew=0.6, zorder=4)
        ax.annotate(rf"$\mu_{k + 1}$", (x, y), xytext=((9, -1), (0, 9))[k], textcoords="offset points", fontsize=11,
                    ha=("left", "center")[k], va=("center", "bottom")[k])  # fmt: skip
    ax.set(xlim=(-1.32, 1.32), ylim=(-1.32, 1.32), aspect="equal")
    ax.set(xlabel=r"$\cos(\mu_1, w_j)$", ylabel=r"$\cos(\mu_2, w_j)$")
    ax.set(xticks=(-1, -0.5, 0, 0.5, 1), yticks=(-1, -0.5, 0, 0.5, 1))
    ax.grid(False)


def _arrow_on(ax: Axes, xy: NDArray[Any], color: str) -> None:
    """Put an arrowhead half-way on a path, if there is a way to go."""
    gone = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(xy, axis=0), axis=1))])
    if gone[-1] < 0.15:
        return
    x, y = (np.interp(np.array([0.5, 0.52]) * gone[-1], gone, column) for column in xy.T)
    ax.annotate(
        "",
        (x[1], y[1]),
        (x[0], y[0]),
        arrowprops={"arrowstyle": "-|>", "color": color, "lw": 0.9, "mutation_scale": 9, "shrinkA": 0},
    )


def _sphere_of_regions(ax: Any) -> None:
    """Shade the half of the sphere that is seen by region, and draw the boundaries."""
    polar, around = np.meshgrid(np.linspace(0, pi, 61), np.deg2rad(np.arange(-90, 271, 3.0)), indexing="ij")
    xyz = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], axis=-1)
    degrees = np.rad2deg((around[:-1, :-1] + around[1:, 1:]) / 2)
    which = np.where(degrees < 45, 0, np.where(degrees < 180, 1, 2))
    faces = np.array([look["face"] for look in _REGION_LOOKS])[which]
    ax.plot_surface(
        *np.moveaxis(xyz, -1, 0), facecolors=faces, rstride=1, cstride=1, shade=False, linewidth=0, antialiased=False,
        alpha=0.85, zorder=2,
    )  # fmt: skip
    for degree in (45.0, 180.0, 270.0):
        way, turn = np.linspace(0, pi, 91), np.deg2rad(degree)
        curve = np.stack([np.sin(way) * np.cos(turn), np.sin(way) * np.sin(turn), np.cos(way)], axis=-1)
        plots.sphere_curve(ax, curve, color=plots.INK, lw=1.5)


def _sphere_panel(figure: Figure, position: Any, outcome: Outcome) -> Any:
    ax = plots.sphere_panel(figure, position, view=(48.0, 25.0), zoom=1.5)
    paths, region = outcome.runs["centers"]["directions"], outcome.arrays["region"]
    plots.sphere_outline(ax, alpha=0.0)
    _sphere_of_regions(ax)
    for k, look in ((0, _REGION_LOOKS[0]), (1, _REGION_LOOKS[1]), (VOID, _REGION_LOOKS[2])):
        mine = np.flatnonzero(region[: paths.shape[1]] == k)
        for j in mine:
            plots.sphere_curve(ax, paths[:, j], color=look["color"], lw=0.9)
        plots.sphere_points(ax, paths[0, mine], 30.0, color=look["color"], marker=look["marker"])
    for direction, name in ((np.eye(3)[0], r"$\mu_1$"), (np.eye(3)[1], r"$\mu_2$")):
        plots.sphere_arrow(ax, direction, name)
    return ax


def draw_regions(outcome: Outcome) -> Figure:
    """Draw Figure 3: the sphere with its regions, and the disc of the two cosines."""
    from matplotlib.lines import Line2D

    config = outcome.config
    with plots.style():
        figure = plots.blank_figure(9.6, 5.2)
        grid = figure.add_gridspec(1, 2)
        sphere = _sphere_panel(figure, grid[0, 0], outcome)
        sphere.set_title("directions in $R^3$", fontsize=10)
        for look, place in zip(_REGION_LOOKS, ((0.08, 0.36), (0.86, 0.74), (0.36, 0.92)), strict=True):
            sphere.text2D(*place, look["name"], transform=sphere.transAxes, ha="center", va="center", fontsize=12)
        disc = figure.add_subplot(grid[0, 1])
        _disc_panel(disc, outcome)
        disc.set_title("the same, seen along the axis orthogonal to both centres", fontsize=10)
        handles = [
            Line2D([], [], marker=look["marker"], color=look["color"], lw=0.9, ms=6, label=f"start in {look['name']}")
            for look in _REGION_LOOKS
        ]
        handles.append(Line2D([], [], marker="*", color=plots.INK, ls="", ms=11, label="centre"))
        handles.append(Line2D([], [], color=plots.INK, lw=1.5, label="boundary"))
        figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
        figure.suptitle(
            rf"Figure 3: regions of two centres, and the flow of directions at $\alpha=0$ (p={config['p']:g}, "
            f"t=0 to {outcome.runs['centers'].t[-1]:g}, seed {config['seed']}{outcome.marks})",
            fontsize=10,
        )
        figure.canvas.draw()
    return figure


def table_regions(outcome: Outcome) -> list[Row]:
    """Hold shares and ends against Def. 1."""
    kept, start, region = outcome.runs["centers"], outcome.arrays["start"], outcome.arrays["region"]
    end, width = kept.network.directions, len(region)
    rows = []
    for k, share, name in ((0, SHARES[0], "R_1"), (1, SHARES[1], "R_2"), (VOID, SHARES[2], "the void")):
        spread = sqrt(share * (1 - share) / width)
        rows.append(Row(f"share of {width} neurons that start in {name}", f"{np.mean(region == k):.4f}", "-",
                        f"{share:g} +- {spread:.4f}"))  # fmt: skip
    live, still = region != VOID, region == VOID
    if live.any():
        cosine = end[live, region[live]]
        rows.append(
            Row("  of R_1 and R_2: end with cos > 0.99 with the centre", f"{np.mean(cosine > 0.99):.4f}", "-", "1")
        )
        late = np.flatnonzero(live)[np.argmin(cosine)]
        begin = start[late, region[late]]
        rows.append(
            Row(
                "  the slowest: its cosine at the start, at the end",
                f"{begin:.5f}, {cosine.min():.5f}",
                "-",
                f"arrives near t = {1 / (3 * begin):.0f} of {kept.t[-1]:g}",
            )
        )
    if still.any():
        moved = np.linalg.norm(end[still] - start[still], axis=1).max()
        rows.append(Row("  of the void: the farthest any moved", f"{moved:.1e}", "-", "0"))
    rows.append(Row("loss at the end (1: nothing fitted yet)", f"{kept['loss'][-1]:.6f}", "-", "1"))
    return rows


FIG3 = Experiment(
    "fig3",
    "Voronoi regions of two centres and the flow of directions",
    run_regions,
    draw_regions,
    table_regions,
    presets={"paper": REGIONS, "quick": REGIONS_QUICK},
)
