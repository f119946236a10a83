"""Figure 4 of MV25, measured: first every cluster's neurons align with its centre, then their norms grow to one.

The paper's figure is a sketch. Here the gradient flow runs on Figure 5's problem from several seeds; over what is
measured lie the nominal curves: the same flow on the centres themselves (alpha = 0), and eq. 14's growth of
Z_k = sum ||w_j||^2 from the moment alignment is over. How the phases are read off: ``theory.PhaseTimes``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from preluflow import plots, theory
from preluflow.experiments._harness import Experiment, Outcome, Row, Session, completed, drawn, set_title
from preluflow.experiments.fig5 import Problem
from preluflow.flow import gradient_flow
from preluflow.initialization import initialize
from preluflow.observe import Observe
from preluflow.results import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("nominal", "noisy", "nudged")
WHAT = ("loss", "alignment", "cluster_alignment", "cluster_norms", "target")


@dataclass(frozen=True)
class Config(Problem):
    """Problem and recipe; Figure 5's, by the flow."""

    t1: float = 140.0
    every: float = 1.0
    rtol: float = 1e-3
    nudge: float = 0.05
    tau: float = 0.05
    seeds: int = 5


FULL = Config()
QUICK = replace(FULL, dim=200, n=1000, width=100, seeds=2)


def measure(session: Session) -> None:
    """Run every seed; one that is cut off is not drawn, so its runs are kept together or not at all."""
    for seed in range(session.options.seed, session.options.seed + session.config.seeds):
        session.outcome.runs.update(run_seed(session, seed))


def run_seed(session: Session, seed: int) -> dict[str, Run]:
    """Run the flow on a sample, on the centres from the same network, and on the sample from a nudged one (Fig. 6)."""
    config, options = session.config, session.options
    rng_centers, rng_data, rng_network = np.random.default_rng(seed).spawn(3)
    gmm = config.mixture(rng_centers)
    data = gmm.sample(config.n, balanced=True, rng=rng_data)
    drawn_seed = int(rng_network.integers(2**32))
    start = partial(initialize, config.width, config.dim, config.scale, p=config.p, rng=drawn_seed)
    look = Observe(every=config.every, what=WHAT, gmm=gmm)
    flow = partial(gradient_flow, t1=config.t1, rtol=config.rtol, observe=look, num_threads=options.num_threads)
    noisy = partial(flow, X=data.X, y=data.y, progress=options.progress)
    return {
        f"nominal{seed}": completed(flow(start(), gmm.centers.astype(data.X.dtype), gmm.labels)),
        f"noisy{seed}": completed(noisy(start())),
        f"nudged{seed}": completed(noisy(start(nudge=config.nudge, centers=gmm))),
    }


def seeds(outcome: Outcome) -> list[int]:
    """Seeds that were run."""
    return [int(key[len("noisy") :]) for key in outcome.runs if key.startswith("noisy")]


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw alignment and norms of every cluster, the nominal curves over them, and the phases."""
    config = outcome.config
    first = seeds(outcome)[0]
    noisy = outcome.runs[f"noisy{first}"]
    times = theory.phase_times(noisy, config["tau"])
    figure, (left, right) = plots.new_figure(2, width=5.0, height=3.9)
    _curves(left, outcome, "cluster_alignment")
    left.set(ylabel=r"$\cos(\mu_k, w_j)$, mean weighted by $\|w_j\|^2$", ylim=(-0.02, 1.14))
    _curves(right, outcome, "cluster_norms")
    if np.isfinite(times.t1):
        start = int(np.searchsorted(noisy.t, times.t1))
        Z = np.exp(np.mean(np.log(noisy["cluster_norms"][start])))
        later = noisy.t[start:]
        K = config["positive"] + config["negative"]
        curve = theory.nominal_norm(later - later[0], float(np.log(Z)), clusters=K)
        right.plot(later, curve, color=plots.INK, ls="--", lw=2.0, zorder=5, label=r"eq. 14 from $t_1$")
    right.set(ylabel=r"$Z_k = \sum_{j \in \mathcal{N}_k}\|w_j\|^2$", ylim=(-0.02, 1.24))
    for ax in (left, right):
        ax.set(xlabel=r"time $t$", xlim=(0, noisy.t[-1]))
        _mark(ax, times)
        plots.legend_above(ax, columns=2)
    told = f"{len(seeds(outcome))} seeds from {first}"
    set_title(figure, outcome, "Figure 4, measured", "dim", "n", "width", "p", "alpha", "scale", told)
    return figure


def _curves(ax: Axes, outcome: Outcome, record: str) -> None:
    """Range over seeds of the clusters' median; the first seed's clusters; the same at alpha = 0."""
    chosen = seeds(outcome)
    noisy, nominal = outcome.runs[f"noisy{chosen[0]}"], outcome.runs[f"nominal{chosen[0]}"]
    medians = np.array([np.median(outcome.runs[f"noisy{seed}"][record], axis=1) for seed in chosen])
    ax.fill_between(
        noisy.t,
        medians.min(0),
        medians.max(0),
        fc=plots.BLUE,
        ec=plots.BLUE,
        alpha=0.6,
        lw=1.0,
        zorder=3,
        label="median cluster, all seeds",
    )
    for k, curve in enumerate(noisy[record].T):
        ax.plot(noisy.t, curve, color=plots.GREY, lw=0.7, label="clusters, first seed" if k == 0 else None)
    for k, curve in enumerate(nominal[record].T):
        label = r"the same at $\alpha=0$" if k == 0 else None
        ax.plot(nominal.t, curve, color=plots.ORANGE, ls=":", lw=1.2, zorder=2.5, label=label)


def _mark(ax: Axes, times: theory.PhaseTimes) -> None:
    top = ax.get_ylim()[1]
    for name, value in (("$t_1$", times.t1), ("$t_2$", times.t2), ("$t^*$", times.t_star), ("$T^*$", times.T_star)):
        if np.isfinite(value):
            ax.axvline(value, color=plots.GREY, lw=1.0, ls=(0, (1, 1)))
            side = "right" if value > 0.98 * ax.get_xlim()[1] else "center"
            ax.annotate(name, (value, top), ha=side, va="top", fontsize=9, backgroundcolor="white")


def phases(outcome: Outcome, kind: str) -> NDArray[np.float64]:
    """Phase times t1, t2, t*, T* of each seed, (seeds, 4)."""
    tau = outcome.config["tau"]
    found = [theory.phase_times(outcome.runs[f"{kind}{seed}"], tau) for seed in seeds(outcome)]
    return np.array([(each.t1, each.t2, each.t_star, each.T_star) for each in found])


def table(outcome: Outcome) -> list[Row]:
    """Hold the phases against those at alpha = 0, and the predicted targets against where the neurons end."""
    chosen = seeds(outcome)
    noisy, nominal = phases(outcome, "noisy"), phases(outcome, "nominal")
    rows = []
    names = ("t1: alignment is over", "t2: the loss begins to fall", "t*: F^(p) is reached", "T*: last time it is")
    for i, name in enumerate(names):
        rows.append(Row(name, _spread(noisy[:, i]), "-", f"{_spread(nominal[:, i])} (alpha = 0)"))
    ordered = [bool(np.all(np.diff(row) >= 0)) for row in noisy]
    rows.append(Row("t1 <= t2 <= t* <= T*", f"{sum(ordered)} of {len(ordered)} seeds", "always", "always"))
    last = [outcome.runs[f"noisy{seed}"]["cluster_norms"][-1] for seed in chosen]
    rows.append(Row("Z_k at the end, all clusters", f"{np.min(last):.4f} to {np.max(last):.4f}", "1", "1"))
    for kind, name in (("noisy", "random start"), ("nudged", "nudged start")):
        moments = phases(outcome, kind)[:, 0]
        for share, when in ((0.0, "at the start"), (0.5, "at t1 / 2"), (1.0, "at t1")):
            agreement = []
            for seed, t1 in zip(chosen, moments, strict=True):
                part = outcome.runs[f"{kind}{seed}"]
                stop = int(np.searchsorted(part.t, share * t1)) if np.isfinite(t1) else 0
                agreement.append(theory.target_agreement(part)[stop])
            rows.append(
                Row(f"{name}: neurons that end in the region they are in {when}", _spread(np.array(agreement), 3))
            )
    return rows


def _spread(values: NDArray[np.float64], digits: int = 1) -> str:
    """Median and range over the seeds."""
    return f"{np.median(values):.{digits}f} ({values.min():.{digits}f} to {values.max():.{digits}f})"


SUMMARY = "the two phases along the flow: alignment and norm of every cluster, nominal curves over them"

FIG4 = Experiment(
    "fig4",
    SUMMARY,
    measure,
    draw,
    table,
    presets={"paper": FULL, "quick": QUICK},
    main="noisy{seed}",
    seconds={"paper": 170, "quick": 2},
)
