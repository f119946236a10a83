"""Figure 5 of MV25, and what Figure 6 shares with it: two phases.

Neurons align with the centres first, then the loss falls, and the network becomes F^(p).

Setting (App. B.1): n = 5000 balanced points, D = 1000, K1 = K2 = 5, alpha = 0.1, p = 3, epsilon = 1e-7, squared loss,
gradient descent with step 0.2 for 600 iterations. The paper does not state the width; h = 500 here. Figure 6 differs
in the initialisation only: every direction is nudged by 0.05 towards a random centre.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from preluflow import plots, theory
from preluflow.data import Dataset, OrthonormalGMM
from preluflow.distance import distance_estimate
from preluflow.experiments._harness import Experiment, Outcome, Row, Session, drawn, set_title
from preluflow.flow import gradient_flow
from preluflow.initialization import initialize, non_degeneracy_gap
from preluflow.network import TwoLayerNetwork
from preluflow.observe import Observe, Snapshot
from preluflow.results import Run
from preluflow.train import gradient_descent
from preluflow.typing import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WHAT = ("loss", "accuracy", "alignment", "cluster_norms", "distance_estimate", "distance_bracket")


@dataclass(frozen=True)
class Problem:
    """The problem of Figures 4, 5 and 6; the width is ours, the rest the paper's."""

    dim: int = 1000
    positive: int = 5
    negative: int = 5
    alpha: float = 0.1
    n: int = 5000
    width: int = 500
    p: float = 3.0
    scale: float = 1e-7

    def mixture(self, rng: np.random.Generator) -> OrthonormalGMM:
        """Draw the centres."""
        return OrthonormalGMM(self.dim, self.positive, self.negative, self.alpha, rng=rng)

    def draw(
        self, streams: Sequence[np.random.Generator], dtype: DTypeLike = "float32", nudge: float | None = None
    ) -> tuple[OrthonormalGMM, TwoLayerNetwork, Dataset]:
        """Mixture, initial network and balanced data, from a stream each: of centres, data and network."""
        gmm = self.mixture(streams[0])
        data = gmm.sample(self.n, balanced=True, dtype=dtype, rng=streams[1])
        toward = None if nudge is None else gmm
        start = initialize(
            self.width, self.dim, self.scale, nudge=nudge, centers=toward, p=self.p, dtype=dtype, rng=streams[2]
        )
        return gmm, start, data


@dataclass(frozen=True)
class Config(Problem):
    """Problem and recipe; defaults are the paper's."""

    nudge: float | None = None
    step: float = 0.2
    steps: int = 600
    every: int = 20
    recipe: Recipe | None = None  # a second estimator, of c = 1
    recipe_points: int = 1000
    recipe_steps: int = 500


FULL = Config()
QUICK = replace(FULL, dim=200, n=1000, width=100, recipe_points=100, recipe_steps=200)


def estimate_by_recipe(config: Config, at: Snapshot) -> dict[str, float]:
    """Estimate sup |f - F^(p)| by a paper's recipe, one batch of it: ten at 2000 steps would take hours along a run."""
    effort: dict[str, Any] = {"recipe": config.recipe, "batches": 1, "batch": config.recipe_points, "scale": 1.0}
    found = distance_estimate(at.network, at.gmm, steps=config.recipe_steps, num_threads=at.num_threads, **effort)
    return {f"distance_{config.recipe}": found}


def measure(session: Session, what: tuple[str, ...] = WHAT) -> None:
    """Run descent on the noisy data, and on the centres themselves: the dynamics at alpha = 0.

    With the dynamics "flow", also the gradient flow on the noisy data, to the same time.
    """
    config, options = session.config, session.options
    more = () if config.recipe is None else (partial(estimate_by_recipe, config),)
    gmm, network, data = config.draw(session.streams(3), nudge=config.nudge)
    session.outcome.config["gap"] = non_degeneracy_gap(network, gmm)
    descend = partial(gradient_descent, network, step=config.step, steps=config.steps, num_threads=options.num_threads)
    observe = Observe(every=10, what=("loss", "alignment"), gmm=gmm)
    session.keep("nominal", descend(gmm.centers.astype(network.dtype), gmm.labels, observe=observe))
    observe = Observe(every=config.every, what=(*what, *more), gmm=gmm)
    session.keep("noisy", descend(data.X, data.y, observe=observe, progress=options.progress))
    if options.dynamics == "flow":
        observe = Observe(every=config.step * config.every, what=(*what, *more), gmm=gmm)
        t1, threads = config.step * config.steps, options.num_threads
        flow = partial(gradient_flow, t1=t1, observe=observe, progress=options.progress, num_threads=threads)
        session.keep("flow", flow(network, data.X, data.y))


def crossing(iterations: NDArray[Any], values: NDArray[Any], level: float) -> float:
    """First iteration at which ``values`` crosses ``level``, linear between stops; NaN if it does not."""
    above = values > level
    turns = np.flatnonzero(above[1:] != above[:-1])
    if not turns.size:
        return float("nan")
    return theory.between(iterations, values, int(turns[0]), level)


def crossings(run: Run) -> tuple[float, float]:
    """Iterations at which the median alignment and the loss cross 0.5."""
    return (crossing(run.iterations, run["alignment_quartiles"][:, 1], 0.5), crossing(run.iterations, run["loss"], 0.5))


def crossing_times(run: Run) -> tuple[float, float]:
    """Times at which the median alignment and the loss cross 0.5."""
    return crossing(run.t, run["alignment_quartiles"][:, 1], 0.5), crossing(run.t, run["loss"], 0.5)


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw the paper's two panels, and the distance again where small values show."""
    config, noisy = outcome.config, outcome.runs["noisy"]
    figure, (left, right, small) = plots.new_figure(3, width=4.4)
    flow = outcome.runs.get("flow")
    plots.alignment_panel(left, noisy, nominal=outcome.runs["nominal"], flow=flow)
    plots.loss_and_distance_panel(right, noisy, flow=flow)
    plots.distance_panel(small, noisy, flow=flow)
    _draw_recipe(outcome, right, small)
    _mark_crossings(left, right, config, noisy if flow is None else flow, flow is None)
    start = "random initialisation" if config["nudge"] is None else f"nudged by {config['nudge']:g}"
    head = f"Figure {outcome.name[-1]}: {start}"
    set_title(figure, outcome, head, "dim", "n", "width", "p", "alpha", "scale", "seed")
    return figure


def _draw_recipe(outcome: Outcome, *panels: Axes) -> None:
    """Draw the estimator by a paper's recipe beside the bracket, if there is one."""
    name = f"distance_{outcome.config.get('recipe')}"
    main, x = (outcome.runs["flow"], "t") if "flow" in outcome.runs else (outcome.runs["noisy"], "iterations")
    if name not in main.records:
        return
    for ax in panels:
        ax.plot(getattr(main, x), main[name], color=plots.PURPLE, ls=":", lw=2.2, label="estimator as in MV24, c = 1")
        plots.legend_above(ax, columns=2)


def _mark_crossings(left: Axes, right: Axes, config: Mapping[str, Any], run: Run, iterations: bool) -> None:
    """Say how it started and where alignment and loss cross 0.5: what tells Figures 5 and 6 apart."""
    start = "random start" if config["nudge"] is None else f"start nudged by {config['nudge']:g}"
    told = f"{start}:\nmedian {run['alignment_quartiles'][0, 1]:.3f}"
    box = {"fc": "white", "ec": plots.GREY, "lw": 0.6, "pad": 3.0}
    left.text(0.97, 0.06, told, transform=left.transAxes, ha="right", va="bottom", fontsize=9, bbox=box)
    for ax, where in zip((left, right), crossings(run) if iterations else crossing_times(run), strict=True):
        if np.isfinite(where):
            ax.plot(where, 0.5, marker="o", ms=6, mfc="white", mec=plots.INK, zorder=6)
            ax.annotate(
                f"{where:.0f}", (where, 0.5), xytext=(-7, 3), textcoords="offset points", ha="right", fontsize=9
            )


def table(outcome: Outcome) -> list[Row]:
    """Hold the run against the paper's curves and against what theory says."""
    config, noisy, nominal = outcome.config, outcome.runs["noisy"], outcome.runs["nominal"]
    nudged = config["nudge"] is not None
    median = noisy["alignment_quartiles"][:, 1]
    aligned, fell = crossings(noisy)
    aligned_nominal, fell_nominal = crossings(nominal)
    floor = 9 * config["alpha"] ** 2 / config["dim"]
    paper = (
        {"start": "0.06", "aligned": "near 140", "fell": "near 360", "loss": "0", "distance": "0.52"}
        if nudged
        else {"aligned": "225-240", "fell": "395-400", "loss": "0 by 470", "distance": "0.52"}
    )
    if config["quick"]:
        paper = {}
    last = noisy.iterations[-1]
    rows = [
        Row("median alignment at the start", f"{median[0]:.3f}", paper.get("start", "-")),
        Row("non-degeneracy gap at the start", f"{config['gap']:.1e}"),
        Row(
            "median alignment crosses 0.5 (iteration)",
            f"{aligned:.0f}",
            paper.get("aligned", "-"),
            f"{aligned_nominal:.0f} (alpha = 0)",
        ),
        Row("loss crosses 0.5 (iteration)", f"{fell:.0f}", paper.get("fell", "-"), f"{fell_nominal:.0f} (alpha = 0)"),
        Row(f"loss at {last}", f"{noisy['loss'][-1]:.2e}", paper.get("loss", "-"), f"{floor:.1e} (floor 9 alpha^2/D)"),
        Row("training accuracy at the end", f"{noisy['accuracy'][-1]:.4f}", "-", "1"),
        Row(
            "distance to F^(p) at the start, estimator",
            f"{noisy['distance_estimate'][0]:.3f}",
            paper.get("distance", "-"),
            "1 (exact)",
        ),
        Row("  the same, bracket", _bracket(noisy, 0), "-", "1 (exact)"),
        *_recipe_rows(outcome),
        Row(
            f"distance to F^(p) at {last}, estimator",
            f"{noisy['distance_estimate'][-1]:.1e}",
            "0" if paper else "-",
            f"O~({config['alpha'] ** 2:.2g})",
        ),
        Row("  the same, bracket", _bracket(noisy, -1), "-", f"O~({config['alpha'] ** 2:.2g})"),
    ]
    if "flow" in outcome.runs:
        flow, step = outcome.runs["flow"], config["step"]
        aligned_flow, fell_flow = (t / step for t in crossing_times(flow))
        rows += [
            Row("flow: median alignment crosses 0.5 (t / step)", f"{aligned_flow:.0f}"),
            Row("flow: loss crosses 0.5 (t / step)", f"{fell_flow:.0f}"),
            Row(f"flow: loss at t = {flow.t[-1]:g}", f"{flow['loss'][-1]:.2e}"),
            Row("gradients, flow and descent", f"{flow.stats['gradients']} and {noisy.stats['gradients']}"),
        ]
    return rows


def _recipe_rows(outcome: Outcome) -> list[Row]:
    config, noisy = outcome.config, outcome.runs["noisy"]
    if config.get("recipe") is None:
        return []
    values = noisy[f"distance_{config['recipe']}"]
    how = f"one batch of {config['recipe_points']}, {config['recipe_steps']} steps"
    return [Row(f"  as in MV24, c = 1, {how}: at the start, at the end", f"{values[0]:.4f}, {values[-1]:.1e}")]


def _bracket(run: Run, stop: int) -> str:
    return f"[{run['distance_lower'][stop]:.4f}, {run['distance_upper'][stop]:.4f}]"


def experiment(name: str, nudge: float | None, summary: str) -> Experiment:
    """Figure 5 or 6, which differ in the start."""
    presets = {"paper": replace(FULL, nudge=nudge), "quick": replace(QUICK, nudge=nudge)}
    options, seconds = ("width", "dynamics", "recipe"), {"paper": 25, "quick": 2}
    return Experiment(name, summary, measure, draw, table, presets, options, main="noisy", seconds=seconds)


FIG5 = experiment("fig5", None, "alignment, loss and distance to F^(p) along descent from a random initialisation")
