"""The figure of mv24: distance, contributions, cosines and robust accuracy, a row for each p."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from preluflow import plots
from preluflow.experiments._harness import Outcome, bracket_of, drawn, set_title
from preluflow.experiments._mv24_config import PS, dominant_count
from preluflow.experiments._stats import over_seeds
from preluflow.theory import MAX_RADIUS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    repeats = f"{config['repeats']} repeat{'s' * (config['repeats'] > 1)}"
    told = f"{config['loss']} loss", f"batch {config['batch']}, step {config['step']:g}, {config['epochs']} epochs"
    shown = rf"right of the first column $\alpha$={config['alpha']:g}; {repeats} from seed {config['seed']}"
    weights = f"weights of s.d. {config['std']:g}"
    head = "What SGD learns: class averages with p = 1, clusters with p = 3, and how robust either is, after MV24\n"
    set_title(figure, outcome, head, "dim", "K1+K2", "n", "width", weights, *told, shown)
    return figure


def _distance_panel(ax: Axes, outcome: Outcome, row: int) -> None:
    """Draw the bracket at every alpha."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    arrays = outcome.arrays
    alphas = arrays["alphas"]
    lower, upper, estimate, away = (
        arrays[name][row].T for name in ("distance_lower", "distance_upper", "estimate", "astray")
    )
    use = np.isfinite(lower).any(axis=0)
    at = alphas[use]
    least, most = over_seeds(lower, np.min)[use], over_seeds(upper, np.max)[use]
    ax.fill_between(at, least, most, color=plots.GREY, alpha=0.45, lw=0)
    ax.plot(at, over_seeds(upper, np.median)[use], color=plots.BLUE, marker="v", ls="--", label="at most")
    ax.plot(at, over_seeds(lower, np.median)[use], color=plots.INK, marker="^", label="at least")
    look: dict[str, Any] = {"color": plots.PURPLE, "marker": "o", "mfc": "white", "ls": ":"}
    ax.plot(at, over_seeds(estimate, np.median)[use], label="authors' estimator", **look)
    stars = np.nan_to_num(away) > 0.01
    if stars.any():
        label = "neurons between targets"
        x = np.broadcast_to(alphas, upper.shape)[stars]
        ax.plot(x, upper[stars], ls="none", marker="*", ms=13, color=plots.ORANGE, label=label, zorder=5)
    ax.set_xscale("log")
    marked = alphas if len(alphas) <= 6 else alphas[np.isin(alphas, alphas[[0, len(alphas) // 2, -2, -1]])]
    ax.xaxis.set_major_locator(FixedLocator(marked.tolist()))
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
    last = max(0.85, min(1.1, config["radii"][-1]))
    grid = np.linspace(0.0, last, 1701)
    certified, attacked = bracket_of(outcome, f"_p{p:g}").accuracy(grid)
    ax.fill_between(grid, certified, attacked, color=plots.GREY, alpha=0.6, lw=0, label="between")
    ax.plot(grid, attacked, color=plots.BLUE, ls="--", label="attacked")
    ax.plot(grid, certified, color=plots.INK, label="certified")
    pgd = over_seeds(outcome.arrays["pgd"][PS.index(p)], np.median)
    look: dict[str, Any] = {"color": plots.PURPLE, "marker": "o", "mfc": "white", "ls": ":"}
    ax.plot(config["radii"], pgd, label="authors' PGD", **look)
    K = config["positive"] + config["negative"]
    for value, name in ((1.0 / math.sqrt(K), r"$1/\sqrt{K}$"), (MAX_RADIUS, r"$\sqrt{2}/2$")):
        ax.axvline(value, color=plots.ORANGE, ls=":", lw=1.8, zorder=1)
        ax.annotate(name, (value, 0.55), xytext=(4, 0), textcoords="offset points", fontsize=10)
    ax.set(xlabel=r"$\ell_2$ radius", ylabel="robust accuracy", xlim=(0, last), ylim=(-0.03, 1.04))
    ax.set_title(f"robust accuracy, {config['points']} fresh points", fontsize=10)
    ax.legend(loc="lower left" if p > 1 else "upper right", frameon=False)
