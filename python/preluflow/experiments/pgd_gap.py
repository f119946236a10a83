"""Why robustness is told as a bracket: gradient attacks on a pReLU network, beside what is certain about it.

One network is learned by the flow and attacked at the same fresh points by the papers' PGD, by PGD on the margin, by
APGD and by DDN; beside them stands the bracket of ``robust_radius``. By Proposition 1 no classifier whatever keeps more
than 1 - min(K1, K2)/K of its accuracy at sqrt(2)/2; a curve that enters the region above is the attack's failure. Why
it fails: an attack first lowers the own coordinate, whose gradient is large, and is left on the surface of the ball
where the rival coordinate's gradient, about p t^(p-1), is flat (docs/mathematics.md#attack).

It is attacked in the coordinates of the span of its directions, where it is the same (``preluflow._span``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preluflow import _span, attacks, plots
from preluflow._arrays import Float64
from preluflow._recipes import MV24_BATCH
from preluflow._span import in_span
from preluflow.experiments._harness import (
    Experiment,
    Options,
    Outcome,
    Row,
    Session,
    bracket_of,
    completed,
    drawn,
    every_point,
    set_title,
)
from preluflow.experiments._stats import share
from preluflow.experiments.fig5 import Problem
from preluflow.flow import gradient_flow
from preluflow.margins import RobustRadius, robust_radius
from preluflow.network import TwoLayerNetwork
from preluflow.results import Run
from preluflow.theory import MAX_RADIUS
from preluflow.typing import Level, Method, Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from preluflow._searches import Attack

TOLD = (0.65, MAX_RADIUS, 0.72, 0.80)  # radii of the table
_ROWS = 100  # points attacked together: one block of the kernel, and one thread


@dataclass(frozen=True)
class Config(Problem):
    """Problem, recipe and the budgets of the attacks."""

    dim: int = 2000
    positive: int = 12
    negative: int = 8
    n: int = 20_000
    width: int = 200
    t1: float = 240.0
    method: Method = "bosh3"
    rtol: float = 1e-2
    points: int = 200
    radii: tuple[float, ...] = (0.3, 0.5, 0.6, 0.65, 0.68, MAX_RADIUS, 0.72, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
    pgd_steps: int = 2000
    recipe: Recipe | None = None  # of the papers' PGD
    apgd_steps: int = 100
    apgd_starts: int = 5
    ddn_steps: int = 1000
    level: Level = "tight"


FULL = Config()
QUICK = replace(
    FULL,
    dim=300,
    positive=6,
    negative=4,
    n=1000,
    width=80,
    t1=130.0,
    points=60,
    radii=(0.5, 0.65, MAX_RADIUS, 0.72, 0.8, 0.9, 1.0),
    pgd_steps=500,
    apgd_starts=2,
    ddn_steps=300,
)


# ---- running


@dataclass(frozen=True)
class Ball:
    """An attack of a given radius: how it is run, and how a figure and a table call it."""

    name: str
    steps: Callable[[Mapping[str, Any]], str]
    run: Callable[[Config, TwoLayerNetwork, Float64, Float64, float, int], Attack]


def _papers(config: Config, network: TwoLayerNetwork, X: Float64, y: Float64, eps: float, seed: int) -> Attack:
    batch = None if config.recipe is None else MV24_BATCH
    return attacks.pgd(network, X, y, eps=eps, steps=config.pgd_steps, recipe=config.recipe, batch=batch)


def _margin(config: Config, network: TwoLayerNetwork, X: Float64, y: Float64, eps: float, seed: int) -> Attack:
    return attacks.pgd(network, X, y, eps=eps, steps=config.pgd_steps, objective="margin")


def _apgd(config: Config, network: TwoLayerNetwork, X: Float64, y: Float64, eps: float, seed: int) -> Attack:
    steps, restarts = config.apgd_steps, config.apgd_starts - 1
    return _span.apgd(network, X, y, eps=eps, dim=config.dim, steps=steps, restarts=restarts, seed=seed)


BALLS: dict[str, Ball] = {
    "papers": Ball("papers' PGD", lambda c: f"{c['pgd_steps']} steps{' as in MV24' * bool(c.get('recipe'))}", _papers),
    "margin": Ball("PGD on the margin", lambda c: f"{c['pgd_steps']} unit-gradient steps", _margin),
    "apgd": Ball("APGD", lambda c: f"{c['apgd_starts']} starts of {c['apgd_steps']} steps", _apgd),
}


def in_blocks(
    attack: Callable[[Float64, Float64, int], Attack], X: Float64, y: Float64
) -> tuple[NDArray[np.bool_], Float64, int]:
    """Attack some points at a time, with the number of the first; returns success, norms and gradients in all."""
    blocks = [slice(first, first + _ROWS) for first in range(0, len(X), _ROWS)]
    found = [attack(X[rows], y[rows], rows.start) for rows in blocks]
    success, norms = (np.concatenate([getattr(part, name) for part in found]) for name in ("success", "norms"))
    return success, norms, sum(part.gradients for part in found)


def train(config: Config, options: Options) -> tuple[Run, Any]:
    """Learn the network by the flow; returns the run and the points it is attacked at, with their labels."""
    *streams, rng_fresh = np.random.default_rng(options.seed).spawn(4)
    gmm, network, data = config.draw(streams)
    run = gradient_flow(
        network,
        data.X,
        data.y,
        t1=config.t1,
        method=config.method,
        rtol=config.rtol,
        progress=options.progress,
        num_threads=options.num_threads,
    )
    return completed(run), gmm.sample(config.points, balanced=True, dtype="float64", rng=rng_fresh)


def measure(session: Session) -> None:
    """Train, attack: the bracket comes first, then radius by radius, the table's first."""
    trained, fresh = train(session.config, session.options)
    attack_all(session, trained, fresh.X, fresh.y)


def attack_all(session: Session, trained: Run, X: Float64, y: Float64) -> None:
    """Fill the outcome's arrays.

    ``lower``, ``upper``, ``correct`` (m,): the bracket. ``ddn`` (m,): DDN's norms. ``broken_<attack>`` (R, m): whether
    the attack of each radius found an error, with ``radii`` (R,), ``gradients_<attack>`` and ``seconds_<attack>``.
    """
    config, options, arrays, network = session.config, session.options, session.arrays, trained.network
    began = time.perf_counter()
    bracket = robust_radius(network, X, y, config.level, num_threads=options.num_threads)
    every_point(bracket, len(X))
    seconds = time.perf_counter() - began
    reduced, Q = in_span(network)
    Z = X @ Q
    began = time.perf_counter()
    _, norms, gradients = in_blocks(
        lambda x, label, first: attacks.ddn(reduced, x, label, steps=config.ddn_steps, seed=options.seed + first), Z, y
    )
    arrays.update({"lower": bracket.lower, "upper": bracket.upper, "correct": bracket.correct, "ddn": norms})
    arrays["seconds_bracket"], arrays["seconds_ddn"] = np.array(seconds), np.array(time.perf_counter() - began)
    arrays["gradients_ddn"] = np.array(gradients)
    arrays["rank"] = np.array(reduced.dim)
    arrays["radii"] = np.zeros(0)
    session.outcome.arrays, session.outcome.runs = arrays, {"flow": trained}
    order = sorted(config.radii, key=lambda radius: (radius not in TOLD, radius))
    measured = partial(attack_at, config, options.seed, reduced, Z, y)
    for (eps,), found in session.computed(measured, {"eps": order}, "radius"):
        place = int(np.searchsorted(arrays["radii"], eps))
        more = {"radii": np.insert(arrays["radii"], place, eps)}
        for name, value in found.items():
            before = arrays.get(name, np.zeros((0, *np.shape(value)), dtype=np.asarray(value).dtype))
            more[name] = np.insert(before, place, value, axis=0)
        arrays.update(more)  # at once: Ctrl-C cannot split a radius


def attack_at(
    config: Config, seed: int, network: TwoLayerNetwork, X: Float64, y: Float64, eps: float
) -> dict[str, Any]:
    """Attack every point at a radius, in every way."""
    found: dict[str, Any] = {}
    for key, ball in BALLS.items():
        began = time.perf_counter()
        found[f"broken_{key}"], _, found[f"gradients_{key}"] = in_blocks(
            partial(_at, ball, config, network, eps, seed), X, y
        )
        found[f"seconds_{key}"] = time.perf_counter() - began
    return found


def _at(
    ball: Ball, config: Config, network: TwoLayerNetwork, eps: float, seed: int, X: Float64, y: Float64, first: int
) -> Attack:
    return ball.run(config, network, X, y, eps, seed + first)


# ---- what was found


def ddn_accuracy(outcome: Outcome, radii: Any) -> Float64:
    """Share of points DDN found no error for within each radius."""
    norms = np.sort(outcome.arrays["ddn"])
    return np.asarray(1.0 - np.searchsorted(norms, radii, side="right") / len(norms))


def ball_accuracy(outcome: Outcome, key: str) -> Float64:
    """Share of points that survive the attack of each radius done, shape (R,)."""
    broken = outcome.arrays.get(f"broken_{key}", np.zeros((0, 1)))
    return np.asarray(1.0 - broken.mean(axis=1))


def floor(outcome: Outcome) -> float:
    """Largest accuracy any classifier can have at sqrt(2)/2 (Prop. 1)."""
    counts = outcome.config["positive"], outcome.config["negative"]
    return float(1.0 - min(counts) / sum(counts))


# ---- drawing

_LOOKS: dict[str, dict[str, Any]] = {
    "papers": {"color": plots.ORANGE, "marker": "o", "lw": 2.4, "ms": 6},
    "margin": {"color": plots.BLUE, "marker": "s", "ls": "--", "ms": 5},
    "apgd": {"color": plots.PURPLE, "marker": "^", "ls": "-.", "ms": 6, "mfc": "white"},
}
_DDN_LOOK: dict[str, Any] = {"color": plots.GREY, "ls": (0, (1, 0.9)), "lw": 2.6}
_BAND_LOOK: dict[str, Any] = {"color": plots.INK, "alpha": 0.3}
_FORBIDDEN_LOOK: dict[str, Any] = {"fc": "#ececec", "ec": "#c4c4c4", "hatch": "///", "lw": 0}
_TOP = 1.06


def _curves(ax: Axes, outcome: Outcome, low: float, high: float) -> None:
    """Draw every curve between two radii, and shade what Proposition 1 forbids."""
    from matplotlib.patches import Rectangle

    grid = np.linspace(low, high, 2001)
    certified, attacked = bracket_of(outcome).accuracy(grid)
    ax.fill_between(grid, certified, attacked, lw=0, step="mid", **_BAND_LOOK)
    for curve in (certified, attacked):
        ax.plot(grid, curve, color=plots.INK, lw=1.6, zorder=5)
    ax.plot(grid, ddn_accuracy(outcome, grid), zorder=6, **_DDN_LOOK)
    start = float(np.mean(outcome.arrays["correct"]))
    for key, look in _LOOKS.items():
        values = ball_accuracy(outcome, key)
        if values.size:
            x = np.append(0.0, outcome.arrays["radii"])
            ax.plot(x, np.append(start, values), zorder=4, markevery=slice(1, None), **look)
    level = floor(outcome)
    ax.add_patch(Rectangle((MAX_RADIUS, level), high - MAX_RADIUS, _TOP - level, zorder=0, **_FORBIDDEN_LOOK))
    ax.plot([MAX_RADIUS, MAX_RADIUS, high], [_TOP, level, level], color=plots.INK, lw=1.0, ls=":", zorder=1)
    ax.set(xlim=(low, high), ylim=(-0.03, _TOP), xlabel=r"$\ell_2$ radius of the attack")


def _legend(ax: Axes, outcome: Outcome) -> None:
    """Explain the curves in the empty corner below them, in the order in which they fall."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    config = outcome.config
    handles: list[Any] = [Patch(label="no classifier can be here (Prop. 1)", **_FORBIDDEN_LOOK)]
    for key, look in _LOOKS.items():
        handles.append(Line2D([], [], label=f"{BALLS[key].name}, {BALLS[key].steps(config)}", **look))
    handles.append(Line2D([], [], label=f"DDN, {config['ddn_steps']} steps", **_DDN_LOOK))
    handles.append(Patch(label="bracket: certified to attacked", fc="#b8b8b8", ec=plots.INK, lw=1.4))
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.02, 0.04), frameon=False, labelspacing=0.7)


def _show_gap(ax: Axes, outcome: Outcome) -> None:
    """Draw an arrow from where half of the points are broken in truth to where the papers' PGD breaks half."""
    radii, values = outcome.arrays["radii"], ball_accuracy(outcome, "papers")
    truth = float(np.median(outcome.arrays["upper"]))
    falls = np.flatnonzero((values[:-1] > 0.5) & (values[1:] <= 0.5))
    if not falls.size:
        return
    i = int(falls[0])
    there = float(np.interp(0.5, values[i : i + 2][::-1], radii[i : i + 2][::-1]))
    if there < 1.1 * truth:  # no room for an arrow
        return
    arrow = {"arrowstyle": "<->", "color": plots.INK, "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (there, 0.5), (truth, 0.5), arrowprops=arrow, zorder=7)
    box = {"fc": "white", "ec": "none", "pad": 1.0, "alpha": 0.9}
    text = f"overstated\nby {100 * (there / truth - 1.0):.0f}%"
    ax.text(truth + 0.012, 0.475, text, ha="left", va="top", fontsize=9, bbox=box, zorder=7)


def _near(outcome: Outcome) -> tuple[float, float]:
    """Radii the right panel shows: where the bracket falls, and sqrt(2)/2."""
    arrays = outcome.arrays
    last = min(float(np.quantile(arrays["upper"], 0.99)), 1.0)
    ends = (float(np.quantile(arrays["lower"], 0.01)), last, MAX_RADIUS)
    room = 0.3 * max(max(ends) - min(ends), 0.01)
    return max(min(ends) - room, 0.0), min(max(ends) + room, 1.0)


def impossible(outcome: Outcome) -> bool:
    """Whether a gradient attack reports more than Proposition 1 allows, by two standard deviations of the sample."""
    beyond = outcome.arrays["radii"] >= MAX_RADIUS
    level = floor(outcome)
    limit = level + 2.0 * math.sqrt(level * (1.0 - level) / len(outcome.arrays["lower"]))
    return any(bool(np.any(ball_accuracy(outcome, key)[beyond] > limit)) for key in BALLS if beyond.any())


def _claim(outcome: Outcome) -> str:
    return "report robustness that a theorem rules out" if impossible(outcome) else "beside what is certain"


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw robust accuracy against radius, whole and near sqrt(2)/2."""
    figure = plots.blank_figure(10.4, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.9, 1.0))
    _curves(left, outcome, 0.0, 1.0)
    left.set(ylabel="robust accuracy at fresh points", title="what the attacks report")
    _legend(left, outcome)
    _show_gap(left, outcome)
    _curves(right, outcome, *_near(outcome))
    right.locator_params(axis="x", nbins=5)
    right.set_title(r"the same near $\sqrt{2}/2$")
    for ax in (left, right):
        ax.title.set_fontsize(10)
        ax.annotate(
            r"$\sqrt{2}/2$", (MAX_RADIUS, floor(outcome)), xytext=(3, -2), textcoords="offset points",
            ha="left", va="top", fontsize=9,
        )  # fmt: skip
    head = f"An attack that fails proves nothing: gradient attacks {_claim(outcome)}\n"
    points = f"{len(outcome.arrays['lower'])} points"
    set_title(figure, outcome, head, "pReLU by gradient flow", "dim", "K1+K2", "width", "alpha", points, "seed")
    return figure


# ---- the table


def table(outcome: Outcome) -> list[Row]:
    """Print what every attack reports, at what cost, beside what is certain."""
    config, arrays = outcome.config, outcome.arrays
    bracket = bracket_of(outcome)
    certified, attacked = bracket.accuracy(TOLD)
    m = len(arrays["lower"])
    told = " / ".join(f"{radius:.4g}" for radius in TOLD)
    truth = " / ".join(_interval(a, b) for a, b in zip(certified, attacked, strict=True))
    full = not config["quick"]
    rows = [
        Row(
            "D, K, h, n, p, epsilon, alpha",
            f"{config['dim']}, {config['positive']}+{config['negative']}, {config['width']}, {config['n']}, "
            f"{config['p']:g}, {config['scale']:g}, {config['alpha']:g}",
        ),
        Row("points attacked, dimension of the span they are attacked in", f"{m}, {int(arrays['rank'])}"),
        Row("accuracy without an attack", share(int(arrays["correct"].sum()), m)),
        Row(
            "median radius, certified to attacked", f"{np.median(bracket.lower):.4f} to {np.median(bracket.upper):.4f}"
        ),
        Row("  certified / attacked: median, least", _ratios(bracket), _known(config, _RATIOS) if full else "-"),
        Row("  seconds", f"{float(arrays['seconds_bracket']):.1f}"),
        Row(f"robust accuracy at {told}, certified", _list(certified), "-", "the truth, at least"),
        Row(f"robust accuracy at {told}, attacked", _list(attacked), "-", _forbids(outcome)),
        Row(
            f"DDN, {config['ddn_steps']} steps: the same",
            _list(ddn_accuracy(outcome, np.array(TOLD))),
            _known(config, _DDN) if full else "-",
            truth,
        ),
        Row("  median radius", f"{np.median(arrays['ddn']):.4f}"),
        Row(*_cost(arrays["gradients_ddn"], arrays["seconds_ddn"], m)),
    ]
    for key, ball in BALLS.items():
        values = ball_accuracy(outcome, key)
        rows.append(
            Row(
                f"{ball.name}, {ball.steps(config)}: the same",
                _list(_at_told(arrays["radii"], values)),
                _known(config, _PAPERS) if full and key == "papers" else "-",
                truth,
            )
        )
        rows.append(Row("  median radius, between the radii tried", _median(arrays["radii"], values)))
        if values.size:
            rows.append(Row(*_cost(arrays[f"gradients_{key}"], arrays[f"seconds_{key}"], m)))
    return rows


# What prototypes measured, by alpha.
_RATIOS = {0.1: "0.9994, 0.9969", 1.0: "0.9922, 0.9702"}
_DDN = {0.1: "0 at 0.72 (section 8)", 1.0: "0.015 at 0.72 (section 8)"}
_PAPERS = {0.1: "1 at 0.80 (section 8)", 1.0: "0.31 at 0.72 (section 8)"}


def _known(config: Mapping[str, Any], known: Mapping[float, str]) -> str:
    return known.get(float(config["alpha"]), "-")


def _list(values: Any) -> str:
    return " / ".join("-" if math.isnan(value) else f"{value:.3f}" for value in values)


def _interval(low: float, high: float) -> str:
    return f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"[{low:.3f}, {high:.3f}]"


def _forbids(outcome: Outcome) -> str:
    level = floor(outcome)
    return f"from {MAX_RADIUS:.4f} on: {level:g} at most (Prop. 1)"


def _ratios(bracket: RobustRadius) -> str:
    right = bracket.correct & (bracket.upper > 0)
    if not right.any():
        return "-"
    ratio = bracket.lower[right] / bracket.upper[right]
    return f"{np.median(ratio):.4f}, {ratio.min():.4f}"


def _at_told(radii: Float64, values: Float64) -> list[float]:
    """Accuracy at the table's radii, NaN where there was no attack."""
    places = [np.flatnonzero(np.isclose(radii, radius)) for radius in TOLD]
    return [float(values[place[0]]) if place.size else math.nan for place in places]


def _median(radii: Float64, values: Float64) -> str:
    below = np.flatnonzero(values <= 0.5)
    if not values.size:
        return "-"
    if not below.size:
        return f"above {radii[-1]:.4g}"
    first = int(below[0])
    return f"{radii[first - 1]:.4g} to {radii[first]:.4g}" if first else f"below {radii[0]:.4g}"


def _cost(gradients: Any, seconds: Any, m: int) -> tuple[str, str]:
    """Gradients a point; of attacks at several radii the most, which is where no point is broken."""
    radii = np.size(gradients)
    of = "" if np.ndim(gradients) == 0 else f" ({radii} radii)"
    return "  gradients a point at most, seconds in all", f"{np.max(gradients) / m:.0f}, {np.sum(seconds):.1f}{of}"


PGD_GAP = Experiment(
    "pgd-gap",
    "gradient attacks on one pReLU network beside the bracket, and what Proposition 1 forbids",
    measure,
    draw,
    table,
    presets={"paper": FULL, "quick": QUICK},
    options=("width", "alpha", "recipe", "scheduler"),
    seconds={"paper": 50, "quick": 1},
)
