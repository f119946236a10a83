"""Figure 3 of MV25: the regions of directions that the centres make.

The regions of two centres of one class (Def. 1) on the sphere in R^3, and the way of positive neurons on
them at alpha = 0 and p = 3. The flow learns from the two centres alone, from epsilon = 1e-300, so that even at t = 300
the network's output is zero and every neuron moves by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import pi, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preluflow import plots
from preluflow.data import OrthonormalGMM
from preluflow.experiments._harness import Experiment, Outcome, Row, Session, drawn, set_title
from preluflow.experiments._stats import share as share_of
from preluflow.flow import gradient_flow
from preluflow.initialization import VOID, initialize, voronoi_regions
from preluflow.network import TwoLayerNetwork
from preluflow.observe import Observe, Snapshot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HALF = sqrt(0.5)


@dataclass(frozen=True)
class Config:
    """Positive neurons and two positive centres in R^3; of ``width`` neurons the ways of ``drawn`` are kept."""

    width: int = 4000
    drawn: int = 48
    p: float = 3.0
    scale: float = 1e-300
    first: float = 0.02
    t1: float = 300.0
    stops: int = 240


FULL = Config()
QUICK = replace(FULL, width=400)

SHARES = (3 / 8, 3 / 8, 1 / 4)  # of the directions: 135, 135 and 90 degrees around the axis orthogonal to both centres

_LOOKS: tuple[dict[str, Any], ...] = (
    {"name": r"$R_1$", "color": plots.BLUE, "face": "#d3e1ee", "hatch": "", "marker": "o"},
    {"name": r"$R_2$", "color": "#b4610c", "face": "#fbe9d3", "hatch": "///", "marker": "^"},
    {"name": "void", "color": "#6a6a6a", "face": "#e2e2e2", "hatch": "...", "marker": "s"},
)


def measure(session: Session) -> None:
    """Run the flow on the two centres alone."""
    config, options = session.config, session.options
    shown = min(config.drawn, config.width)
    gmm = OrthonormalGMM(3, 2, 1, 0.0, centers="canonical")  # the third cluster is of the other class, and not learned
    random = initialize(config.width, 3, config.scale, p=config.p, dtype="float64", rng=options.seed)
    positive = TwoLayerNetwork.from_polar(
        random.directions, random.log_norm, np.ones(config.width), random.log_norm, p=config.p
    )

    def look(at: Snapshot) -> dict[str, Any]:
        return {"directions": at.network.directions[:shown]}

    session.outcome.arrays = {"start": positive.directions, "region": voronoi_regions(positive, gmm)}
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
    session.keep("centers", kept)


def _disc_panel(ax: Axes, outcome: Outcome) -> None:
    """Draw the cosines with the two centres: the sphere seen along the axis orthogonal to both."""
    from matplotlib.patches import Wedge

    paths, region = outcome.runs["centers"]["directions"], outcome.arrays["region"]
    for look, (a, b) in zip(_LOOKS, ((-90, 45), (45, 180), (180, 270)), strict=True):
        wedge = Wedge((0, 0), 1.0, a, b, fc=look["face"], ec="white", hatch=look["hatch"], lw=0.0, zorder=0.6)
        ax.add_patch(wedge)
        middle = np.deg2rad((a + b) / 2)
        ax.text(1.2 * np.cos(middle), 1.18 * np.sin(middle), look["name"], ha="center", va="center", fontsize=12)
    for x, y in ((HALF, HALF), (-1, 0), (0, -1)):
        ax.plot([0, x], [0, y], color=plots.INK, lw=1.5, zorder=1)
    angle = np.linspace(0, 2 * pi, 181)
    ax.plot(np.cos(angle), np.sin(angle), color=plots.GREY, lw=1.0, zorder=1)
    for j in range(paths.shape[1]):
        look = _LOOKS[region[j]]  # the void, -1, is the last
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
    faces = np.array([look["face"] for look in _LOOKS])[which]
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
    for k, look in ((0, _LOOKS[0]), (1, _LOOKS[1]), (VOID, _LOOKS[2])):
        mine = np.flatnonzero(region[: paths.shape[1]] == k)
        for j in mine:
            plots.sphere_curve(ax, paths[:, j], color=look["color"], lw=0.9)
        plots.sphere_points(ax, paths[0, mine], 30.0, color=look["color"], marker=look["marker"])
    for direction, name in ((np.eye(3)[0], r"$\mu_1$"), (np.eye(3)[1], r"$\mu_2$")):
        plots.sphere_arrow(ax, direction, name)
    return ax


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw Figure 3: the sphere with its regions, and the disc of the two cosines."""
    from matplotlib.lines import Line2D

    figure = plots.blank_figure(9.6, 5.2)
    grid = figure.add_gridspec(1, 2)
    sphere = _sphere_panel(figure, grid[0, 0], outcome)
    sphere.set_title("directions in $R^3$", fontsize=10)
    for look, place in zip(_LOOKS, ((0.08, 0.36), (0.86, 0.74), (0.36, 0.92)), strict=True):
        sphere.text2D(*place, look["name"], transform=sphere.transAxes, ha="center", va="center", fontsize=12)
    disc = figure.add_subplot(grid[0, 1])
    _disc_panel(disc, outcome)
    disc.set_title("the same, seen along the axis orthogonal to both centres", fontsize=10)
    handles = [
        Line2D([], [], marker=look["marker"], color=look["color"], lw=0.9, ms=6, label=f"start in {look['name']}")
        for look in _LOOKS
    ]
    handles.append(Line2D([], [], marker="*", color=plots.INK, ls="", ms=11, label="centre"))
    handles.append(Line2D([], [], color=plots.INK, lw=1.5, label="boundary"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    until = f"t=0 to {outcome.runs['centers'].t[-1]:g}"
    head = r"Figure 3: regions of two centres, and the flow of directions at $\alpha=0$"
    set_title(figure, outcome, head, "p", until, "seed")
    return figure


def table(outcome: Outcome) -> list[Row]:
    """Hold shares and ends against Def. 1."""
    kept, start, region = outcome.runs["centers"], outcome.arrays["start"], outcome.arrays["region"]
    end, width = kept.network.directions, len(region)
    rows = []
    for k, share, name in ((0, SHARES[0], "R_1"), (1, SHARES[1], "R_2"), (VOID, SHARES[2], "the void")):
        spread = sqrt(share * (1 - share) / width)
        told = share_of(int(np.count_nonzero(region == k)), width)
        theory = f"{share:g} +- {spread:.4f}"
        rows.append(Row(f"share of {width} neurons that start in {name}", told, "-", theory))
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
    measure,
    draw,
    table,
    presets={"paper": FULL, "quick": QUICK},
    main="centers",
    seconds={"paper": 2, "quick": 1},
)
