"""What following the gradient flow costs: error at the end against gradients, for descent and all methods but "rkc".

Figure 5's problem at a smaller size (D = 300, n = 1000, h = 150, K = 10, alpha = 0.1, p = 3, epsilon = 1e-7, squared
loss, t = 120), in float64. The error of a run is

    E = max over neurons of max(angle between the directions at t, |difference of log ||w_j|| at t|)

against the flow by "dop853" at rtol 1e-10. Gradient descent is Euler's method on (W, v), "euler" the same on the
log-polar state. A gradient is one pass over the data forward and back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from preluflow import plots
from preluflow.data import Dataset
from preluflow.experiments._harness import Experiment, Outcome, Row, Session, completed, drawn, set_title
from preluflow.experiments._stats import over_seeds
from preluflow.experiments.fig5 import Problem
from preluflow.flow import gradient_flow
from preluflow.network import TwoLayerNetwork
from preluflow.observe import Observe
from preluflow.results import Run
from preluflow.train import gradient_descent
from preluflow.typing import Method

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

FIXED = ("descent", "euler", "rk4")  # their levels are steps, those of the others rtol
ORDERS = {"descent": 1, "euler": 1, "rk4": 4}
MEASURED = ("gradients", "error", "median_error")
TARGETS = (0.02, 1e-4)
LOOKS = {
    "descent": (plots.INK, "o", "-"),
    "euler": (plots.GREY, "x", "--"),
    "bosh3": (plots.ORANGE, "^", "-."),
    "rk4": (plots.GREEN, "s", ":"),
    "dopri5": (plots.BLUE, "D", "--"),
    "tsit5": (plots.PURPLE, "v", "-"),
    "dop853": (plots.SKY, "P", "-."),
    "flow43": (plots.RED, "X", (0, (5, 1, 1, 1, 1, 1))),
}


def _levels() -> dict[Method | Literal["descent"], tuple[float, ...]]:
    return {
        "descent": (0.4, 0.2, 0.1, 0.05, 0.02),
        "euler": (0.4, 0.2, 0.1, 0.05),
        "rk4": (2.0, 1.0, 0.5),
        "bosh3": (1e-1, 1e-2, 1e-3, 1e-4),
        "tsit5": (1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
        "dopri5": (1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
        "dop853": (1e-1, 1e-2, 1e-3, 1e-4, 1e-6),
        "flow43": (1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
    }


@dataclass(frozen=True)
class Config(Problem):
    """Problem, and for each method its steps or tolerances, coarse to fine."""

    dim: int = 300
    n: int = 1000
    width: int = 150
    t1: float = 120.0
    seeds: int = 5
    reference: float = 1e-10
    levels: Mapping[Method | Literal["descent"], tuple[float, ...]] = field(
        default_factory=_levels,
        metadata={"kept": False},  # in the arrays
    )


FULL = Config()
QUICK = replace(
    FULL,
    dim=60,
    n=200,
    width=30,
    seeds=2,
    levels={**{name: levels[:4] for name, levels in _levels().items()}, "descent": (0.4, 0.2, 0.1, 0.05)},
)


def neuron_errors(network: TwoLayerNetwork, reference: TwoLayerNetwork) -> Array:
    """For each neuron the angle between its directions in the two, or the difference of log ||w_j|| if larger."""
    chord = np.linalg.norm(network.directions - reference.directions, axis=1)
    angle = 2.0 * np.arcsin(np.clip(chord / 2.0, 0.0, 1.0))
    return np.asarray(np.maximum(angle, np.abs(network.log_norm - reference.log_norm)))


def integrate(
    config: Config,
    network: TwoLayerNetwork,
    data: Dataset,
    method: Method | Literal["descent"],
    level: float,
) -> Run:
    """Run a method at a step or rtol; Ctrl-C goes up."""
    observe = Observe(what=())  # so that no gradient is spent on a loss
    if method == "descent":
        steps = round(config.t1 / level)
        run = gradient_descent(network, data.X, data.y, step=level, steps=steps, observe=observe)
    else:
        run = gradient_flow(
            network,
            data.X,
            data.y,
            t1=config.t1,
            method=method,
            rtol=1e-3 if method in FIXED else level,
            step=level if method in FIXED else None,
            observe=observe,
        )
    return completed(run)


def measure(session: Session) -> None:
    """Run every method at every level, seed by seed, against the seed's reference."""
    config, arrays = session.config, session.arrays
    for method, levels in config.levels.items():
        arrays[f"{method}.level"] = np.array(levels)
        session.empty(dict.fromkeys((f"{method}.{w}" for w in MEASURED), (config.seeds, len(levels))))
    session.empty({"reference.gradients": (config.seeds,)})
    each = [(method, i) for method, levels in config.levels.items() for i in range(len(levels))]
    for s in range(config.seeds):
        with session.threads():
            exact = reference(config, session.options.seed, s)
        arrays["reference.gradients"][s] = exact.stats["gradients"]
        measured = partial(cell, config, session.options.seed, s, exact.network)
        for (number,), found in session.computed(measured, {"number": range(len(each))}):
            method, i = each[number]
            for name in MEASURED:
                arrays[f"{method}.{name}"][s, i] = found[name]


def reference(config: Config, seed: int, s: int) -> Run:
    """Integrate a seed's problem as exactly as is asked."""
    _, network, data = config.draw(np.random.default_rng((seed, s)).spawn(3), "float64")
    return integrate(config, network, data, "dop853", config.reference)


def cell(config: Config, seed: int, s: int, exact: TwoLayerNetwork, number: int) -> dict[str, float]:
    """Run the method and level of this number from a seed; errors are NaN where it does not get to the end."""
    method, level = [(method, level) for method, levels in config.levels.items() for level in levels][number]
    _, network, data = config.draw(np.random.default_rng((seed, s)).spawn(3), "float64")
    run = integrate(config, network, data, method, level)
    errors = neuron_errors(run.network, exact) if run.status == "finished" else np.array(np.nan)
    return {
        "gradients": run.stats["gradients"],
        "error": float(errors.max()),
        "median_error": float(np.median(errors)),
    }


def methods(outcome: Outcome) -> list[str]:
    """The methods measured, in the order of the legend."""
    return [name for name in LOOKS if f"{name}.level" in outcome.arrays]


def gradients_to(target: float, gradients: Array, errors: Array) -> float:
    """Gradients at which the error has come down to the target for good, on straight lines in the logarithms.

    inf if it does not, and minus the fewest gradients measured if these already suffice.
    """
    use = np.isfinite(gradients) & np.isfinite(errors) & (errors > 0)
    order = np.argsort(gradients[use], kind="stable")
    gradients, errors = gradients[use][order], errors[use][order]
    if not gradients.size:
        return math.nan
    above = np.flatnonzero(errors > target)
    if not above.size:
        return -float(gradients[0])
    i = int(above[-1])
    if i == len(errors) - 1:
        return math.inf
    share = math.log(errors[i] / target) / math.log(errors[i] / errors[i + 1])
    return float(gradients[i] * (gradients[i + 1] / gradients[i]) ** share)


def slope(levels: Array, errors: Array) -> float:
    """Exponent of the error in the step, least squares over all seeds in the logarithms; NaN below two points."""
    x, y = np.broadcast_to(levels, errors.shape), errors
    use = np.isfinite(y) & (y > 0)
    if len(set(x[use].tolist())) < 2:
        return math.nan
    return float(np.polyfit(np.log(x[use]), np.log(y[use]), 1)[0])


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw error against gradients, and error against the step of the methods with fixed steps."""
    config, arrays = outcome.config, outcome.arrays
    figure, (left, right) = plots.new_figure(2, width=5.0, height=4.6)
    for method in methods(outcome):
        color, marker, line = LOOKS[method]
        level, error = arrays[f"{method}.level"], arrays[f"{method}.error"]
        worst, middle = over_seeds(error, np.max), over_seeds(error, np.median)
        look: dict[str, Any] = {"color": color, "marker": marker, "ls": line, "ms": 6, "label": method}
        # Adaptive methods take different numbers of gradients for different seeds.
        gradients = over_seeds(arrays[f"{method}.gradients"], np.median)
        left.plot(gradients, worst, **look)
        left.plot(gradients, middle, color=color, marker=marker, ls="none", mfc="none", ms=4, mew=0.8)
        if method in FIXED:
            right.plot(level, worst, **look)
            right.plot(level, middle, color=color, marker=marker, ls="none", mfc="none", ms=4, mew=0.8)
    left.set(xscale="log", yscale="log", xlabel="gradients (passes over the data), median of seeds")
    left.set(ylabel=f"error $E$ at $t={config['t1']:g}$ (radians; log-norm)")
    plots.slope_guide(right, arrays["descent.level"], arrays["descent.error"], 1, above=1.8, label="Euler")
    plots.slope_guide(right, arrays["rk4.level"], arrays["rk4.error"], 4, above=1.8, label="order 4")
    right.set(xscale="log", yscale="log", xlabel="step (time $t$)")
    right.set(ylabel=f"error $E$ at $t={config['t1']:g}$ (radians; log-norm)")
    plots.legend_above(left, columns=4)
    plots.legend_above(right, columns=3)
    seeds = f"{config['seeds']} seeds from {config['seed']}"
    head = f"Descent against flow: worst of {seeds}, median small and open\n"
    set_title(figure, outcome, head, "dim", "n", "width", "K", "p", "alpha", "scale")
    return figure


def table(outcome: Outcome) -> list[Row]:
    """Print gradients to reach given errors, and the orders of the methods with fixed steps."""
    arrays, rows = outcome.arrays, []
    for target in TARGETS:
        for method in methods(outcome):
            gradients, error = over_seeds(arrays[f"{method}.gradients"], np.median), arrays[f"{method}.error"]
            worst, middle = (gradients_to(target, gradients, over_seeds(error, how)) for how in (np.max, np.median))
            best = float(np.nanmax(gradients)) if np.isfinite(gradients).any() else math.nan
            told = f"{_count(worst, best)} (median {_count(middle, best)})"
            rows.append(Row(f"gradients to E <= {target:g} for every seed, {method}", told))
    for method in FIXED:
        order = slope(arrays[f"{method}.level"], arrays[f"{method}.error"])
        rows.append(Row(f"exponent of E in the step, {method}", f"{order:.2f}", "-", f"{ORDERS[method]}"))
    errors = arrays["descent.error"][:, arrays["descent.level"] == 0.2]
    typical = arrays["descent.median_error"][:, arrays["descent.level"] == 0.2]
    if np.isfinite(errors).any():
        told = f"{np.nanmin(errors):.2g} to {np.nanmax(errors):.2g}"
        rows.append(Row("E of descent with the paper's step 0.2, over seeds", told))
        rows.append(Row("  of its median neuron", f"{np.nanmin(typical):.1g} to {np.nanmax(typical):.1g}"))
    used = arrays["reference.gradients"]
    if np.isfinite(used).any():
        label = f"gradients of the reference, dop853 at rtol {outcome.config['reference']:g}"
        rows.append(Row(label, f"{np.nanmedian(used):.0f}"))
    return rows


def _count(value: float, most: float) -> str:
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return f"> {most:.0f}"
    return f"<= {-value:.0f}" if value < 0 else f"{value:.0f}"


DESCENT_VS_FLOW = Experiment(
    "descent-vs-flow",
    "error against gradients for descent and for every method of the flow but rkc",
    measure,
    draw,
    table,
    presets={"paper": FULL, "quick": QUICK},
    options=("scheduler",),
    seconds={"paper": 300, "quick": 2},
)
