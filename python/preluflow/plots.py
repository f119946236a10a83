"""The package's one style of picture, and the panels the figures are made of. Matplotlib is imported when drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preluflow import _arrays
from preluflow._radius import RobustRadius
from preluflow.results import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Dark to light, so that the curves stay apart in grey; line styles tell them apart besides.
INK, BLUE, ORANGE, GREY = "#111111", "#1f5a96", "#d9822b", "#9a9a9a"
# For pictures of more than four curves, which markers tell apart besides.
PURPLE, GREEN, SKY, RED = "#7b3f8c", "#2f8560", "#6db6e8", "#b3423a"

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
_MOST_CURVES = 12  # of one record
_LARGEST = 400.0  # inches: at 160 dots each, what matplotlib can still save


# ---- what came


def _check_axes(ax: Any, *, sphere: bool = False) -> None:
    from matplotlib.axes import Axes
    from mpl_toolkits.mplot3d import Axes3D  # type: ignore[import-untyped]

    _arrays.instance(ax, "ax", Axes3D if sphere else Axes)


def _check_color(color: Any, name: str = "color") -> None:
    from matplotlib.colors import is_color_like

    if (isinstance(color, np.ndarray) and color.ndim == 0) or not is_color_like(color):
        raise ValueError(f"{name} must be a colour as matplotlib takes them, got {_arrays.shown(color)}")


def _check_marker(marker: Any) -> None:
    from matplotlib.markers import MarkerStyle

    try:
        MarkerStyle(marker)
    except Exception:  # matplotlib's errors are of many kinds here
        raise ValueError(f"marker must be one matplotlib knows, got {_arrays.shown(marker)}") from None


def _maybe_fitted(value: Any, name: str) -> float:
    """Return a real number, or NaN or inf where a fit found none."""
    return float(value) if isinstance(value, (float, np.floating)) else _arrays.real(value, name)


def _record(run: Run, name: str, record: str) -> NDArray[Any]:
    """Return what a run, the argument ``name``, observed."""
    if record not in run:
        raise ValueError(f"{name} must have {record!r} observed, it has {list(run)}")
    return run[record]


# ---- pictures


@contextmanager
def style() -> Iterator[None]:
    """Draw in the package's style; the user's own matplotlib settings come back afterwards.

    Examples
    --------
    >>> with pf.plots.style():
    ...     figure, axes = pf.plots.new_figure(2)
    >>> len(axes)
    2
    """
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


def new_figure(columns: int, *, width: float = 4.6, height: float = 3.5) -> tuple[Figure, list[Axes]]:
    """Return a figure with a row of panels, independent of pyplot and of any display.

    Examples
    --------
    >>> figure, (left, right) = pf.plots.new_figure(2, width=4.0, height=3.0)
    >>> figure.get_size_inches().tolist()
    [8.0, 3.0]
    """
    columns = _arrays.integer(columns, "columns", minimum=1, maximum=100)
    width = _arrays.real(width, "width", above=0.0, maximum=_LARGEST / columns)
    figure = blank_figure(width * columns, height)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def legend_above(ax: Axes, columns: int) -> None:
    """Put the legend over the panel, where it hides nothing.

    Examples
    --------
    >>> figure, (ax,) = pf.plots.new_figure(1)
    >>> _ = ax.plot([0, 1], [0, 1], label="a line")
    >>> pf.plots.legend_above(ax, columns=1)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['a line']
    """
    _check_axes(ax)
    columns = _arrays.integer(columns, "columns", minimum=1, maximum=_arrays.INT32)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, frameon=False, columnspacing=1.2)


def _abscissa(run: Run) -> NDArray[Any]:
    """Where the stops of a run are: iterations of descent, epochs of SGD, times of the flow."""
    if run.method == "gradient_flow":
        return run.t
    return run["epoch"] if run.method == "sgd" and "epoch" in run else run.iterations


def _axis(ax: Axes, run: Run, flow: Run | None) -> Callable[[Run], NDArray[Any]]:
    """Label the abscissa, and return where on it a run's stops are; time, if a flow is drawn beside descent."""
    _check_axes(ax)
    _arrays.instance(run, "run", Run)
    if flow is not None and _arrays.instance(flow, "flow", Run).method != "gradient_flow":
        raise ValueError(f"flow must be a run of gradient_flow, got one of {flow.method}")
    if flow is not None:
        ax.set(xlabel=r"time $t$ = step $\times$ iteration", xlim=(0, max(float(flow.config["t1"]), 1e-12)))
        return lambda each: each.t
    label, end = {
        "gradient_flow": (r"time $t$", "t1"),
        "sgd": ("epoch", "epochs"),
    }.get(run.method, ("iteration", "steps"))
    at = _abscissa(run)
    last = float(run.config.get(end, at[-1] if len(at) else 0))
    first = min(0.0, float(at[0])) if len(at) else 0.0
    ax.set(xlabel=label, xlim=(first, last if last > first else first + 1.0))
    return _abscissa


def alignment_panel(ax: Axes, run: Run, *, nominal: Run | None = None, flow: Run | None = None) -> None:
    """Median and quartiles over neurons of max_k cos(mu_k, w_j) against the iteration (Figures 5 and 6, left).

    ``nominal``: the same run without noise (alpha = 0), drawn dotted. ``flow``: the gradient flow of the same problem,
    drawn instead on a common time axis, with descent dashed.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> look = pf.Observe(every=5.0, what=["loss", "alignment"], gmm=gmm)
    >>> run = pf.gradient_flow(net, data.X, data.y, t1=30, observe=look)
    >>> figure, (ax,) = pf.plots.new_figure(1)
    >>> pf.plots.alignment_panel(ax, run)
    """
    x = _axis(ax, run, flow)
    main = run if flow is None else flow
    if nominal is not None and _arrays.instance(nominal, "nominal", Run).method != run.method:
        raise ValueError(f"nominal must be a run of {run.method} as run, got one of {nominal.method}")
    low, median, high = _record(main, "run" if flow is None else "flow", "alignment_quartiles").T
    ax.fill_between(x(main), low, high, color=GREY, alpha=0.45, lw=0, label="first to third quartile")
    ax.plot(x(main), median, color=INK, label="median" if flow is None else "median, flow")
    if flow is not None:
        ax.plot(run.t, _record(run, "run", "alignment_quartiles")[:, 1], color=BLUE, ls="--", label="median, descent")
    if nominal is not None:
        middle = _record(nominal, "nominal", "alignment_quartiles")[:, 1]
        ax.plot(x(nominal), middle, color=ORANGE, ls=":", lw=2.2, label=r"median at $\alpha=0$")
    ax.set(ylabel=r"$\max_k\,\cos(\mu_k, w_j)$ over neurons $j$", ylim=(-0.02, 1.04))
    legend_above(ax, columns=3 if flow is None else 2)


def loss_and_distance_panel(ax: Axes, run: Run, *, flow: Run | None = None) -> None:
    """Loss, the paper's distance estimate and the bracket on the distance (Figures 5 and 6, right).

    ``flow`` as in ``alignment_panel``.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> look = pf.Observe(every=10.0, what=["loss", "distance_estimate", "distance_bracket"], gmm=gmm)
    >>> run = pf.gradient_flow(net, data.X, data.y, t1=30, observe=look)
    >>> figure, (ax,) = pf.plots.new_figure(1)
    >>> pf.plots.loss_and_distance_panel(ax, run)
    """
    x = _axis(ax, run, flow)
    main = run if flow is None else flow
    for record in ("loss", "distance_estimate", "distance_lower", "distance_upper"):
        _record(main, "run" if flow is None else "flow", record)
    _record(run, "run", "loss")
    ax.fill_between(
        x(main),
        main["distance_lower"],
        main["distance_upper"],
        color=BLUE,
        alpha=0.35,
        lw=2.5,
        ec=BLUE,
        label=r"sup$\,|f-F^{(p)}|$ over $\|x\|=1$, bracket",
    )
    ax.plot(x(main), main["distance_estimate"], color=ORANGE, ls="--", label="the same, paper's estimator")
    ax.plot(x(main), main["loss"], color=INK, label="loss" if flow is None else "loss, flow")
    if flow is not None:
        ax.plot(run.t, run["loss"], color=BLUE, ls=(0, (4, 2)), label="loss, descent")
    ax.set(ylabel="loss, distance", ylim=(-0.02, 1.06))
    legend_above(ax, columns=2)


def record_panel(ax: Axes, run: Run, record: str = "loss") -> None:
    """Draw what any run recorded under a name: a number as a curve, an array by its median and quartiles.

    An array of up to 12 entries, such as one for each cluster, has a curve for each.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> run = pf.gradient_flow(net, data.X, data.y, t1=30, observe=pf.Observe(every=5.0))
    >>> figure, (ax,) = pf.plots.new_figure(1)
    >>> pf.plots.record_panel(ax, run, "accuracy")
    >>> ax.get_ylabel()
    'accuracy'
    """
    _arrays.instance(run, "run", Run)
    if not isinstance(record, str) or record not in run:
        raise ValueError(f"record must be a name of what run observed, {list(run)}, got {_arrays.shown(record)}")
    x, values = _axis(ax, run, None), run[record]
    at, rows = x(run), values.reshape(len(values), -1).astype(np.float64)
    if rows.shape[1] > _MOST_CURVES:
        low, median, high = np.quantile(rows, (0.25, 0.5, 0.75), axis=1)
        ax.fill_between(at, low, high, color=GREY, alpha=0.45, lw=0, label="first to third quartile")
        ax.plot(at, median, color=INK, label="median")
        legend_above(ax, columns=2)
    else:
        colors = (INK, BLUE, ORANGE, PURPLE, GREEN, SKY)
        for i, row in enumerate(rows.T):
            ax.plot(at, row, color=colors[i % len(colors)], ls=("-", "--")[i // len(colors)], label=str(i))
        if rows.shape[1] > 1:
            legend_above(ax, columns=6)
    ax.set_ylabel(record.replace("_", " "))


def radius_panel(ax: Axes, radius: RobustRadius) -> None:
    """Draw robust accuracy against the l2 radius, exactly: the band between certified and attacked accuracy.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> net = pf.classifiers.cluster_prelu(gmm, p=3)  # F^(3)
    >>> figure, (ax,) = pf.plots.new_figure(1)
    >>> pf.plots.radius_panel(ax, pf.robust_radius(net, gmm.centers, gmm.labels))
    >>> ax.get_ylabel()
    'robust accuracy (share of points)'
    """
    _check_axes(ax)
    _arrays.instance(radius, "radius", RobustRadius)
    ends = np.concatenate([radius.lower, radius.upper])[np.tile(radius.correct, 2)]
    finite = np.unique(ends[np.isfinite(ends)])
    far = 1.05 * float(finite[-1]) if len(finite) and finite[-1] > 0 else 1.0
    # Both curves are constant between radii; which of its values a curve has at one does not show.
    eps = np.unique(np.concatenate([[0.0, far], finite, np.nextafter(finite, np.inf)]))
    certified, attacked = radius.accuracy(eps)
    if radius.config.get("certified", True):
        ax.fill_between(eps, certified, attacked, color=BLUE, alpha=0.3, lw=0, label="between")
        ax.plot(eps, certified, color=BLUE, ls="--", label="certified")
    ax.plot(eps, attacked, color=INK, label="attacked")
    ax.set(
        yscale="linear",
        xlim=(0.0, far),
        ylim=(-0.02, 1.04),
        xlabel=r"$\ell_2$ radius",
        ylabel="robust accuracy (share of points)",
    )
    legend_above(ax, columns=3)


def distance_panel(ax: Axes, run: Run, *, flow: Run | None = None) -> None:
    """Distance to F^(p) on a logarithmic axis: its bracket and the paper's estimate, which misses most of it.

    ``flow`` as in ``alignment_panel``.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> look = pf.Observe(every=10.0, what=["distance_estimate", "distance_bracket"], gmm=gmm)
    >>> run = pf.gradient_flow(net, data.X, data.y, t1=30, observe=look)
    >>> figure, (ax,) = pf.plots.new_figure(1)
    >>> pf.plots.distance_panel(ax, run)
    """
    x = _axis(ax, run, flow)
    main, name = (run, "run") if flow is None else (flow, "flow")
    lower, upper, estimate = (_record(main, name, f"distance_{each}") for each in ("lower", "upper", "estimate"))
    at = x(main)
    ax.fill_between(at, lower, upper, color=BLUE, alpha=0.25, lw=0)
    for values, marker, label in ((upper, "v", "at most"), (lower, "^", "at least")):
        ax.plot(at, values, color=BLUE, lw=1.4, marker=marker, ms=4, markevery=max(len(at) // 8, 1), label=label)
    ax.plot(at, estimate, color=ORANGE, ls="--", label="paper's estimator")
    ax.set(yscale="log", ylabel=r"sup$\,|f-F^{(p)}|$ over $\|x\|=1$")
    legend_above(ax, columns=3)


def blank_figure(width: float, height: float, *, layout: str | None = "constrained") -> Figure:
    """Return a figure without panels, sizes in inches, independent of pyplot and of any display; notebooks show it.

    Examples
    --------
    >>> len(pf.plots.blank_figure(4.0, 3.0).axes)
    0
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from preluflow._notebook_figure import NotebookFigure

    width = _arrays.real(width, "width", above=0.0, maximum=_LARGEST)
    height = _arrays.real(height, "height", above=0.0, maximum=_LARGEST)
    if layout is not None:
        _arrays.choice(layout, "layout", ("constrained", "compressed", "tight", "none"))
    figure = NotebookFigure(figsize=(width, height), layout=layout)  # type: ignore[arg-type]
    FigureCanvasAgg(figure)
    return figure


def _view_direction(ax: Any) -> NDArray[np.float64]:
    elevation, azimuth = np.deg2rad([ax.elev, ax.azim])
    return np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])


def sphere_panel(figure: Figure, position: Any, *, view: tuple[float, float], zoom: float = 1.5) -> Any:
    """Add a panel that looks at the unit sphere of R^3 from far away; ``view`` is elevation and azimuth in degrees.

    Examples
    --------
    >>> ax = pf.plots.sphere_panel(pf.plots.blank_figure(4.0, 4.0), 111, view=(25, 40))
    >>> ax.name
    '3d'
    """
    from matplotlib.figure import Figure

    _arrays.instance(figure, "figure", Figure)
    elevation, azimuth = _arrays.curve(view, "view", 2)
    if not np.isfinite(elevation + azimuth):
        raise ValueError(f"view must be finite, got {_arrays.shown(view)}")
    zoom = _arrays.real(zoom, "zoom", above=0.0)
    try:
        ax: Any = figure.add_subplot(position, projection="3d", computed_zorder=False)
    except (ValueError, TypeError) as error:
        raise type(error)(f"position must be a place in the figure as add_subplot takes it: {error}") from None
    ax.set_proj_type("ortho")
    ax.view_init(elevation, azimuth)
    ax.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), zlim=(-1.2, 1.2))
    ax.set_box_aspect((1, 1, 1), zoom=zoom)
    ax.set_axis_off()
    return ax


def sphere_outline(ax: Any, *, face: str = "#f3f3f3", alpha: float = 0.6) -> None:
    """Draw the sphere as its viewer sees it, with the three great circles of the axes (hidden halves dotted).

    Examples
    --------
    >>> ax = pf.plots.sphere_panel(pf.plots.blank_figure(4.0, 4.0), 111, view=(25, 40))
    >>> pf.plots.sphere_outline(ax)
    """
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]

    _check_axes(ax, sphere=True)
    _check_color(face, "face")
    alpha = _arrays.real(alpha, "alpha", minimum=0.0, maximum=1.0)
    away = _view_direction(ax)
    side = np.cross(away, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side)
    angle = np.linspace(0.0, 2.0 * np.pi, 181)
    rim = np.outer(np.cos(angle), side) + np.outer(np.sin(angle), np.cross(side, away))
    ax.add_collection3d(Poly3DCollection([rim], facecolor=face, edgecolor="none", alpha=alpha, zorder=2))
    ax.plot(*rim.T, color=GREY, lw=1.0, zorder=3)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        circle = np.zeros((angle.size, 3))
        circle[:, i], circle[:, j] = np.cos(angle), np.sin(angle)
        sphere_curve(ax, circle, color="#bdbdbd", lw=0.7)


def sphere_curve(ax: Any, points: NDArray[Any], **line: Any) -> None:
    """Draw a curve on the sphere, dotted and thin where the sphere hides it.

    Examples
    --------
    >>> ax = pf.plots.sphere_panel(pf.plots.blank_figure(4.0, 4.0), 111, view=(25, 40))
    >>> angle = np.linspace(0, np.pi, 50)
    >>> pf.plots.sphere_curve(ax, np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1), color="black")
    """
    _check_axes(ax, sphere=True)
    points = _arrays.curve(points, "points", None, 3)
    seen = (points @ _view_direction(ax) >= 0.0)[:, None]
    ax.plot(*np.where(seen, points, np.nan).T, zorder=4, **line)
    ax.plot(*np.where(seen, np.nan, points).T, zorder=1, **{**line, "lw": 0.6 * line.get("lw", 1.0), "ls": ":"})


def sphere_points(ax: Any, points: NDArray[Any], sizes: Any, *, hollow: bool = False, **marker: Any) -> list[Any]:
    """Draw points of the sphere, faint where the sphere hides them; returns what was drawn, the near ones first.

    Examples
    --------
    >>> ax = pf.plots.sphere_panel(pf.plots.blank_figure(4.0, 4.0), 111, view=(25, 40))
    >>> len(pf.plots.sphere_points(ax, np.eye(3), 20.0))  # the near ones and the far ones
    2
    """
    _check_axes(ax, sphere=True)
    points = _arrays.curve(points, "points", None, 3)
    areas = _arrays.numbers_in(sizes, "sizes", minimum=0.0)
    if areas.shape not in ((), (len(points),)):
        raise ValueError(f"sizes must be a number or have shape ({len(points)},), got {areas.shape}")
    hollow = _arrays.flag(hollow, "hollow")
    seen = points @ _view_direction(ax) >= 0.0
    areas = np.broadcast_to(areas, len(points))
    color = marker.pop("color", INK)
    _check_color(color)
    drawn = []
    for side, zorder, alpha in ((seen, 6, 0.9), (~seen, 1, 0.5)):
        colors = {"facecolors": "none", "edgecolors": color} if hollow else {"color": color, "edgecolors": "white"}
        drawn.append(
            ax.scatter(
                *points[side].T,
                s=areas[side],
                alpha=alpha,
                zorder=zorder,
                depthshade=False,
                linewidths=1.0 if hollow else 0.4,
                **colors,
                **marker,
            )
        )
    return drawn


def sphere_arrow(ax: Any, direction: NDArray[Any], label: str, *, reach: float = 1.22, color: str = INK) -> None:
    """Draw a unit vector as an arrow that leaves the sphere where it points, with its name at the tip.

    Examples
    --------
    >>> ax = pf.plots.sphere_panel(pf.plots.blank_figure(4.0, 4.0), 111, view=(25, 40))
    >>> pf.plots.sphere_arrow(ax, np.array([0.0, 0.0, 1.0]), "north")
    """
    _check_axes(ax, sphere=True)
    direction = _arrays.curve(direction, "direction", 3)
    if not np.isfinite(direction).all():
        raise ValueError(f"direction must be finite, got {_arrays.shown(direction)}")
    _arrays.instance(label, "label", str)
    reach = _arrays.real(reach, "reach", above=0.0, maximum=100.0)
    _check_color(color)
    away = _view_direction(ax)
    near = direction @ away >= 0.0
    across = direction - (direction @ away) * away  # beside the tip as the viewer sees it, however foreshortened
    beside = reach * direction + 0.12 * across / max(float(np.linalg.norm(across)), 1e-9)
    ax.quiver(
        *direction,
        *(reach - 1.0) * direction,
        color=color,
        lw=1.6,
        arrow_length_ratio=0.4,
        clip_on=False,
        zorder=8 if near else 1,
    )
    ax.text(*beside, label, color=color, ha="center", va="center", zorder=9, fontsize=11)


def log_log(ax: Axes, ticks: Any, xlabel: str) -> None:
    """Make both axes logarithmic, the horizontal one marked at ``ticks``.

    Examples
    --------
    >>> figure, (ax,) = pf.plots.new_figure(1)
    >>> pf.plots.log_log(ax, [0.1, 0.3, 1.0], "alpha")
    >>> ax.get_xscale(), ax.get_yscale(), ax.get_xlabel()
    ('log', 'log', 'alpha')
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    _check_axes(ax)
    ticks = _arrays.curve(ticks, "ticks", None)
    if not np.all(ticks > 0):
        raise ValueError(f"ticks must be greater than 0, got {_arrays.shown(ticks)}")
    _arrays.instance(xlabel, "xlabel", str)
    ax.set(xscale="log", yscale="log", xlabel=xlabel)
    ax.xaxis.set_major_locator(FixedLocator(list(ticks)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def power_law(
    ax: Axes,
    x: Any,
    values: Any,
    middle: Any,
    exponent: float,
    factor: float,
    label: str,
    color: str,
    marker: str,
) -> None:
    """Show a quantity at each x = alpha: every seed small and open, the median filled, the fitted power law as a line.

    ``values``: shape (seeds, len(x)), NaN where there is none.

    Examples
    --------
    >>> figure, (ax,) = pf.plots.new_figure(1)
    >>> x = np.array([0.1, 0.3, 1.0])
    >>> pf.plots.power_law(ax, x, [x**2, 1.1 * x**2], 1.05 * x**2, 2.0, 1.05, "loss", pf.plots.BLUE, "o")
    >>> len(ax.lines)  # two seeds, the fit, the median
    4
    """
    _check_axes(ax)
    x = _arrays.curve(x, "x", None)
    values = _arrays.curve(values, "values", None, len(x), match="x")
    middle = _arrays.curve(middle, "middle", len(x), match="x")
    exponent, factor = _maybe_fitted(exponent, "exponent"), _maybe_fitted(factor, "factor")
    _arrays.instance(label, "label", str)
    _check_color(color)
    _check_marker(marker)
    for row in values:
        use = np.isfinite(row)
        ax.plot(x[use], row[use], ls="none", marker=marker, ms=5, mfc="none", mec=color, mew=0.7, alpha=0.6)
    if np.isfinite(exponent):
        with np.errstate(over="ignore"):
            ax.plot(x, factor * x**exponent, color=color, lw=1.2)
    use = np.isfinite(middle)
    text = rf"{label}, fit $\propto\alpha^{{{exponent:.2f}}}$"
    ax.plot(x[use], middle[use], ls="none", marker=marker, ms=6, color=color, label=text)


def slope_guide(ax: Axes, x: Any, values: Any, slope: float, *, above: float, label: str = "theory") -> None:
    """Draw a slope as a dotted line, ``above`` times over the lowest such line that has all values under it.

    ``values``: shape (seeds, len(x)), NaN where there is none.

    Examples
    --------
    >>> figure, (ax,) = pf.plots.new_figure(1)
    >>> pf.plots.slope_guide(ax, [0.1, 1.0], [[0.01, 1.0]], 2.0, above=1.5)
    >>> [round(float(y), 6) for y in ax.lines[0].get_ydata()]
    [0.015, 1.5]
    """
    _check_axes(ax)
    x = _arrays.curve(x, "x", None)
    values = _arrays.curve(values, "values", None, len(x), match="x")
    slope, above = _arrays.real(slope, "slope"), _arrays.real(above, "above", above=0.0)
    _arrays.instance(label, "label", str)
    with np.errstate(all="ignore"):  # where there is nothing finite, nothing is drawn
        ratio = values / x**slope
        guide = above * np.nanmax(ratio) * x**slope if np.isfinite(ratio).any() else None
    if guide is not None:
        ax.plot(x, guide, color=INK, ls=":", lw=1.6, label=f"slope {slope:g} ({label})")
