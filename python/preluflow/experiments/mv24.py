"""What SGD learns with p = 1 and with p = 3, after MV24: class averages or clusters, and the robustness that follows.

A ReLU network (p = 1) becomes F(x) = sqrt(K1) sigma(<x,mu_+>) - sqrt(K2) sigma(<x,mu_->) up to a scale, mu_+- the class
averages, and is robust to 1/sqrt(K) only; with p = 3 it becomes F^(p), and is robust to sqrt(2)/2. For several alpha
the distance to what it should become is bracketed; at one alpha are shown the contributions |v_j| ||w_j||, where the
dominant neurons point, and the bracket on the robust accuracy.

The paper's size (``--scale``): D = 1000, K = 6 + 4, n = 20000, h = 2000, every weight N(0, (1e-7)^2), SGD on the
exponential loss, batches of 100, step 0.2, 401 epochs: half an hour for each p and alpha. By default n and h
are a tenth, and so are the steps SGD takes. The alphas are ours.

The distance has the scale fitted: ``fitted_distance``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preluflow import plots
from preluflow._arrays import Float64
from preluflow._fitted_distance import fitted_distance
from preluflow.classifiers import class_average_relu, cluster_prelu
from preluflow.data import OrthonormalGMM
from preluflow.experiments._harness import (
    Experiment,
    Outcome,
    Row,
    Session,
    batch_fits,
    bracket_of,
    completed,
    drawn,
    every_point,
    set_title,
)
from preluflow.initialization import initialize
from preluflow.margins import robust_radius
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


# ---- running


def reference(gmm: OrthonormalGMM, p: float) -> TwoLayerNetwork:
    """What a network of this p should become: F for p = 1, else F^(p)."""
    return class_average_relu(gmm) if p == 1.0 else cluster_prelu(gmm, p)


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
    certified, attacked = bracket_of(outcome, f"_p{p:g}").accuracy(grid)
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
    bracket = bracket_of(outcome, f"_p{p:g}")
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
    seconds={"laptop": 45, "quick": 3, "paper": 4 * 3600},
)
