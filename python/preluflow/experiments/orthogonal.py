"""Regression on orthogonal inputs by the ReLU flow from small scale: alignment, then a step of the loss for each sign.

n orthonormal inputs x_i with real targets y_i of both signs, p = 1, balanced at epsilon, mean squared loss. While f ~ 0
a neuron of sign s is driven along (2/n) s sum y_i x_i over the inputs it is active on: those of the other sign fall
silent, and the neurons that grow fastest, at the rate Y_s (2/n) with Y_s = ||(y_i : s y_i > 0)||, are those active on
all inputs of their own sign, whose direction becomes sum_i |y_i| x_i / Y_s. As long as they are the only ones,
f(x_i) = s m_s |y_i| / Y_s with m_s the sum of their contributions, and

    m_s' = (4/n) (Y_s - m_s) m_s ,      L = sum_s (Y_s - m_s)^2 / n :

two logistic steps, from saddle to saddle, at times that grow as n/(2 Y_s) log(1/epsilon). Signs do not
see each other. What is compared has nothing fitted but the time at which m_s is Y_s / 2. Derivation:
docs/mathematics.md#orthogonal-inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preluflow import plots
from preluflow.experiments._harness import Experiment, Outcome, Row, Session, completed, drawn, set_title
from preluflow.experiments._stats import Array, over_seeds
from preluflow.flow import gradient_flow
from preluflow.initialization import initialize
from preluflow.observe import Observe, Snapshot
from preluflow.results import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIGNS = (1.0, -1.0)
WORDS = ("positive", "negative")


@dataclass(frozen=True)
class Orthogonal:
    """Inputs, network and times.

    ``positive``, ``negative``: inputs with targets of each sign, drawn from [1, 2] and [0.5, 1], so that the positive
    step comes first. ``beyond``: t goes on to this many times the expected time of the last step.
    """

    positive: int = 3
    negative: int = 3
    dim: int = 12
    width: int = 200
    scales: tuple[float, ...] = (1e-3, 1e-6, 1e-12, 1e-24, 1e-48)
    seeds: int = 5
    beyond: float = 1.4
    stops: int = 240
    rtol: float = 1e-4

    @property
    def points(self) -> int:
        """Inputs."""
        return self.positive + self.negative


FULL = Orthogonal()
QUICK = replace(FULL, scales=(1e-4, 1e-12), seeds=2, stops=150, rtol=1e-3)


def problem(config: Orthogonal, rng: np.random.Generator) -> tuple[Array, Array]:
    """Orthonormal inputs (n, D) and targets (n,).

    The inputs are rows of the identity, which is no loss as initial directions are uniform: what a factorisation leaves
    of their products, 1e-17, would wake silent neurons at the smallest scales.
    """
    X = np.eye(config.points, config.dim)
    y = np.concatenate([rng.uniform(1.0, 2.0, config.positive), -rng.uniform(0.5, 1.0, config.negative)])
    return X, y


def lengths(y: Array) -> Array:
    """Y_s, for both signs."""
    return np.array([np.linalg.norm(y[y * sign > 0]) for sign in SIGNS])


def sums(at: Snapshot) -> dict[str, Any]:
    """m_s = sum of contributions of the neurons of each sign, and their mean cosine with the sign's direction."""
    network, y = at.network, np.asarray(at.y)
    m, cosine = np.zeros(2), np.zeros(2)
    for k, sign in enumerate(SIGNS):
        mine, own = network.sign == sign, y * sign > 0
        weights = np.exp(network.log_contributions[mine] - network.log_contributions[mine].max())
        direction = np.abs(y[own]) @ at.X[own]
        cosines = network.directions[mine] @ direction / np.linalg.norm(direction)
        m[k] = np.exp(np.logaddexp.reduce(network.log_contributions[mine]))
        cosine[k] = weights @ cosines / weights.sum()
    return {"m": m, "cosine": cosine}


def expected(config: Orthogonal, Y: Array, scale: float) -> Array:
    """Leading order of the times of the two steps: n/(2 Y_s) log(1/epsilon)."""
    return np.asarray(config.points / (2.0 * Y) * np.log(1.0 / scale))


def logistic(t: Array, Y: float, half: float, n: int) -> Array:
    """m_s along t, which is Y_s / 2 at ``half``."""
    with np.errstate(over="ignore"):
        return np.asarray(Y / (1.0 + np.exp(-4.0 * Y / n * (t - half))))


def half_time(t: Array, m: Array, Y: float) -> float:
    """When m passes Y/2, NaN if it does not; log m/(Y-m), which the closed form has grow linearly, in between."""
    above = np.flatnonzero(m >= Y / 2.0)
    if not above.size or above[0] == 0:
        return float("nan")
    i = above[0]
    a, b = (float(np.log(m[j] / max(Y - m[j], 1e-300))) for j in (i - 1, i))
    return float(t[i - 1] - (t[i] - t[i - 1]) * a / (b - a))


def train_one(config: Orthogonal, seed: int, i: int, s: int) -> tuple[Run, Array]:
    """Run the flow from one scale; every scale of a seed has the same inputs, targets and shape."""
    rng_problem, rng_network = np.random.default_rng((seed, s)).spawn(2)
    X, y = problem(config, rng_problem)
    Y, scale = lengths(y), config.scales[i]
    start = initialize(config.width, config.dim, scale, p=1.0, dtype="float64", rng=rng_network)
    t1 = config.beyond * float(expected(config, Y, scale).max())
    observe = Observe(every=t1 / config.stops, what=["loss", sums])
    return completed(gradient_flow(start, X, y, t1=t1, rtol=config.rtol, observe=observe)), Y


def cell(config: Orthogonal, seed: int, i: int, s: int) -> dict[str, Any]:
    """Run the flow of a seed from one scale, and hold it against the closed form."""
    run, Y = train_one(config, seed, i, s)
    half = np.array([half_time(run.t, run["m"][:, k], Y[k]) for k in range(2)])
    told = closed_form(run.t, Y, half, config.points)
    stops = config.stops + 1
    found: dict[str, Any] = {"t": run.t, "loss": run["loss"], "m": run["m"], "along": run["cosine"]}
    for name, values in found.items():
        found[name] = np.full((stops, *values.shape[1:]), np.nan)
        found[name][: len(values)] = values[:stops]
    worst = np.abs(run["loss"] - told).max() / run["loss"][0]
    return {**found, "Y": Y, "half": half, "worst": worst, "cosine": run["cosine"][-1]}


def measure(session: Session) -> None:
    """Run every seed from every scale."""
    config, arrays = session.config, session.arrays
    shape, stops = (len(config.scales), config.seeds), config.stops + 1
    session.empty({"half": (*shape, 2), "worst": shape, "cosine": (*shape, 2), "Y": (config.seeds, 2)})
    session.empty({"t": (*shape, stops), "loss": (*shape, stops), "m": (*shape, stops, 2), "along": (*shape, stops, 2)})
    arrays["scales"] = np.array(config.scales)
    over = {"i": range(shape[0]), "s": range(shape[1])}
    for (i, s), found in session.computed(partial(cell, config, session.options.seed), over):
        arrays["Y"][s] = found["Y"]
        for name in ("t", "loss", "m", "along", "half", "worst", "cosine"):
            arrays[name][i, s] = found[name]


def closed_form(t: Array, Y: Array, half: Array, n: int) -> Array:
    """The loss along t."""
    return np.asarray(sum((Y[k] - logistic(t, Y[k], half[k], n)) ** 2 for k in range(2)) / n)


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw the loss and m_s of the smallest scale over the closed form, and the times of the steps against scale."""
    figure, axes = plots.new_figure(3, width=4.3, height=4.1)
    i = last_scale(outcome)
    _loss(axes[0], outcome, i)
    _growth(axes[1], outcome, i)
    _times(axes[2], outcome)
    for ax in axes:
        plots.legend_above(ax, columns=1)
    config = outcome.config
    told = rf"$\epsilon$={config['scales'][i]:g} (left, middle)"
    targets = f"{config['positive']}+{config['negative']} targets"
    set_title(figure, outcome, "Orthogonal inputs, p=1", "dim", targets, "width", told, "seeds")
    return figure


def last_scale(outcome: Outcome) -> int:
    """The smallest scale of which something is there."""
    there = np.isfinite(outcome.arrays["worst"]).any(axis=1)
    return int(np.flatnonzero(there)[-1])


def _drawn_seed(outcome: Outcome, i: int) -> tuple[int, NDArray[np.bool_]]:
    s = int(np.flatnonzero(np.isfinite(outcome.arrays["worst"][i]))[0])
    return s, np.isfinite(outcome.arrays["loss"][i, s])


def _loss(ax: Axes, outcome: Outcome, i: int) -> None:
    arrays, n = outcome.arrays, outcome.config["positive"] + outcome.config["negative"]
    s, use = _drawn_seed(outcome, i)
    t, Y, half = arrays["t"][i, s, use], arrays["Y"][s], arrays["half"][i, s]
    ax.plot(
        t, closed_form(t, Y, half, n), color=plots.ORANGE, lw=5.0, alpha=0.5, label="closed form: two logistic steps"
    )
    ax.plot(t, arrays["loss"][i, s, use], color=plots.INK, label="the flow")
    for level, label in ((float(Y @ Y) / n, "saddles"), (float(Y[1] ** 2) / n, None)):
        ax.axhline(level, color=plots.GREY, ls=":", lw=1.2, label=label)
    ax.set(xlabel="t (time of the flow)", ylabel="mean squared loss (no unit)")


def _growth(ax: Axes, outcome: Outcome, i: int) -> None:
    arrays, n = outcome.arrays, outcome.config["positive"] + outcome.config["negative"]
    s, use = _drawn_seed(outcome, i)
    t, Y = arrays["t"][i, s, use], arrays["Y"][s]
    for k, (color, style, dots) in enumerate(((plots.BLUE, "-", ":"), (plots.PURPLE, "--", (0, (1, 3))))):
        told = logistic(t, Y[k], arrays["half"][i, s, k], n) / Y[k]
        ax.plot(t, told, color=plots.ORANGE, lw=5.0, alpha=0.5, label="closed form" if k == 0 else None)
        ax.plot(t, arrays["m"][i, s, use, k] / Y[k], color=color, ls=style, label=f"$m_s/Y_s$, {WORDS[k]}")
        ax.plot(t, arrays["along"][i, s, use, k], color=color, ls=dots, label=f"cosine of neurons, {WORDS[k]}")
    ax.set(xlabel="t (time of the flow)", ylabel="share fitted, cosine (no unit)", ylim=(-0.05, 1.08))


def _times(ax: Axes, outcome: Outcome) -> None:
    arrays, n = outcome.arrays, outcome.config["positive"] + outcome.config["negative"]
    x = np.log10(1.0 / arrays["scales"])
    for k, (color, marker) in enumerate(((plots.BLUE, "o"), (plots.PURPLE, "s"))):
        scaled = arrays["half"][:, :, k] * 2.0 * arrays["Y"][:, k] / n
        middle = over_seeds(scaled.T, np.median)
        ax.plot(x, middle, color=color, marker=marker, ls="none", label=f"step of the {WORDS[k]} targets")
        ax.fill_between(x, over_seeds(scaled.T, np.min), over_seeds(scaled.T, np.max), color=color, alpha=0.25, lw=0)
    ax.plot(x, x * np.log(10.0), color=plots.GREY, ls="--", label=r"theory: $\log(1/\epsilon)$")
    ax.set(xlabel=r"$\log_{10}(1/\epsilon)$ (no unit)", ylabel=r"time of the step $\times\,2Y_s/n$ (no unit)")


def slopes(outcome: Outcome, k: int) -> Array:
    """Of each seed, how much 2 Y_s/n times the time of the step grows with log(1/epsilon), between smallest scales."""
    arrays, n = outcome.arrays, outcome.config["positive"] + outcome.config["negative"]
    scaled = arrays["half"][:, :, k] * 2.0 * arrays["Y"][:, k] / n
    return np.asarray((scaled[-1] - scaled[-2]) / np.log(arrays["scales"][-2] / arrays["scales"][-1]))


def table(outcome: Outcome) -> list[Row]:
    """Print how far the loss is from the closed form, alignment at the end, and how times grow."""
    arrays, rows = outcome.arrays, []
    for i, scale in enumerate(arrays["scales"]):
        worst = arrays["worst"][i][np.isfinite(arrays["worst"][i])]
        if worst.size:
            told = f"{np.median(worst):.1e}, worst {worst.max():.1e}"
            rows.append(Row(f"epsilon = {scale:g}: |loss - closed form| / loss at the start", told, "-", "0"))
    for k, word in enumerate(WORDS):
        cosine = arrays["cosine"][-1, :, k]
        cosine = cosine[np.isfinite(cosine)]
        if cosine.size:
            told = f"{np.median(cosine):.6f}, worst {cosine.min():.6f}"
            rows.append(Row(f"cosine of {word} neurons with sum |y_i| x_i at the end", told, "-", "1"))
        slope = slopes(outcome, k)
        slope = slope[np.isfinite(slope)]
        if slope.size:
            told = f"{np.median(slope):.4f} [{slope.min():.4f}, {slope.max():.4f}]"
            rows.append(Row(f"step of the {word} targets: growth of 2 Y t/n in log(1/epsilon)", told, "-", "1"))
    return rows


ORTHOGONAL = Experiment(
    "orthogonal",
    "regression on orthogonal inputs: alignment and the loss from saddle to saddle, against the closed form",
    measure,
    draw,
    table,
    presets={"default": FULL, "quick": QUICK},
    options=("scheduler",),
    seconds={"default": 10, "quick": 1},
)
