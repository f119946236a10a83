"""The package's one style of picture, and the panels the figures are made of. Matplotlib is imported when drawing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from preluflow.results import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Dark to light, so that the curves stay apart in grey; line styles tell them apart besides.
INK, BLUE, ORANGE, GREY = "#111111", "#1f5a96", "#d9822b", "#9a9a9a"

_STYLE: dict[str, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.7,
    "legend.fontsize": 9,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the package's style; the user's own matplotlib settings come back afterwards."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


def new_figure(columns: int, *, width: float = 4.6, height: float = 3.5) -> tuple[Figure, list[Axes]]:
    """Return a figure with a row of panels, independent of pyplot and of any display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def legend_above(ax: Axes, columns: int) -> None:
    """Put the legend over the panel, where it hides nothing."""
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, frameon=False, columnspacing=1.2)


def _axis(ax: Axes, run: Run, flow: Run | None) -> str:
    """Iterations along the abscissa; time, if a flow is drawn beside descent. Returns the attribute of a run to use."""
    if flow is None:
        ax.set(xlabel="iteration", xlim=(0, max(int(run.config["steps"]), 1)))
        return "iterations"
    ax.set(xlabel=r"time $t$ = step $\times$ iteration", xlim=(0, max(float(flow.config["t1"]), 1e-12)))
    return "t"


def alignment_panel(ax: Axes, run: Run, *, nominal: Run | None = None, flow: Run | None = None) -> None:
    """Median and quartiles over neurons of max_k cos(mu_k, w_j) against the iteration (Figures 5 and 6, left).

    ``nominal``: the same run without noise (alpha = 0), drawn dotted. ``flow``: the gradient flow of the same problem,
    drawn instead on a common time axis, with descent dashed.
    """
    x = _axis(ax, run, flow)
    main = run if flow is None else flow
    low, median, high = main["alignment_quartiles"].T
    ax.fill_between(getattr(main, x), low, high, color=GREY, alpha=0.45, lw=0, label="first to third quartile")
    ax.plot(getattr(main, x), median, color=INK, label="median" if flow is None else "median, flow")
    if flow is not None:
        ax.plot(run.t, run["alignment_quartiles"][:, 1], color=BLUE, ls="--", label="median, descent")
    if nominal is not None:
        middle = nominal["alignment_quartiles"][:, 1]
        ax.plot(getattr(nominal, x), middle, color=ORANGE, ls=":", lw=2.2, label=r"median at $\alpha=0$")
    ax.set(ylabel=r"$\max_k\,\cos(\mu_k, w_j)$ over neurons $j$", ylim=(-0.02, 1.04))
    legend_above(ax, columns=3 if flow is None else 2)


def loss_and_distance_panel(ax: Axes, run: Run, *, flow: Run | None = None) -> None:
    """Loss, the paper's distance estimate and the bracket on the distance (Figures 5 and 6, right).

    ``flow`` as in ``alignment_panel``.
    """
    x = _axis(ax, run, flow)
    main = run if flow is None else flow
    ax.fill_between(
        getattr(main, x),
        main["distance_lower"],
        main["distance_upper"],
        color=BLUE,
        alpha=0.35,
        lw=2.5,
        ec=BLUE,
        label=r"sup$\,|f-F^{(p)}|$ over $\|x\|=1$, bracket",
    )
    ax.plot(getattr(main, x), main["distance_estimate"], color=ORANGE, ls="--", label="the same, paper's estimator")
    ax.plot(getattr(main, x), main["loss"], color=INK, label="loss" if flow is None else "loss, flow")
    if flow is not None:
        ax.plot(run.t, run["loss"], color=BLUE, ls=(0, (4, 2)), label="loss, descent")
    ax.set(ylabel="loss, distance", ylim=(-0.02, 1.06))
    legend_above(ax, columns=2)
