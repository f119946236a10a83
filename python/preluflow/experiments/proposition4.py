"""Proposition 4 of MV25 as an experiment: how alignment scales with alpha.

While f ~ 0 the neurons align up to 1 - cos = O~(alpha^2). With epsilon = 1e-100 nothing else happens for
hundreds of units of time, so that the alignment phase is seen to its end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from preluflow import plots
from preluflow.experiments._harness import Experiment, Outcome, Row, Session, completed, drawn, set_title
from preluflow.experiments._stats import Array, fit_power, over_seeds
from preluflow.experiments.theorem1 import Problem, draw_problem, gap_rows, series
from preluflow.flow import gradient_flow
from preluflow.initialization import VOID, non_degeneracy_gap, voronoi_regions
from preluflow.observe import Observe, Snapshot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Proposition4(Problem):
    """Problem and the times looked at, in units of K; the middle one is called the end of the alignment phase.

    ``fixed``: D and N of the second series, in which they do not grow.
    """

    scale: float = 1e-100
    times: tuple[float, ...] = (3.0, 5.0, 8.0)
    fixed: int = 400


SERIES = ("growing", "fixed")
FULL = Proposition4()
QUICK = replace(FULL, alphas=tuple(np.geomspace(0.4, 0.125, 4).tolist()), seeds=3, fixed=100)


def one_minus_cosine(at: Snapshot) -> dict[str, Any]:
    """Measure 1 - cos(u_j, mu) to the centre whose region neuron j started in, NaN if void; and how large f may be."""
    target = voronoi_regions(at.start, at.gmm)
    U = at.network.directions.astype(np.float64)
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    centers = at.gmm.centers[target]
    cosine = np.einsum("jd,jd->j", U, centers)
    # For small angles from the sine: 1 - cosine would keep few digits.
    square = np.sum((U - cosine[:, None] * centers) ** 2, axis=1)
    gap = np.where(cosine > 0.5, square / (1.0 + np.abs(cosine)), 1.0 - cosine)
    bound = np.logaddexp.reduce(at.network.log_contributions) / np.log(10.0)
    return {"one_minus_cosine": np.where(target == VOID, np.nan, gap), "log10_f": bound}


def measure(session: Session) -> None:
    """Run growing and fixed D and N, every seed at every alpha."""
    config, arrays = session.config, session.arrays
    times = config.times
    shape = (config.seeds, len(config.alphas))
    session.empty({f"{key}_{what}": (*shape, len(times)) for key in SERIES for what in ("median", "worst", "log10_f")})
    session.empty({"gap": shape, "fixed_gap": shape, "void": shape, "fixed_void": shape})
    arrays["alphas"], arrays["sizes"] = config.grid()
    measured = partial(cell, config, session.options.seed)
    largest_first = sorted(range(shape[1]), key=lambda i: -arrays["sizes"][i])
    over = {"i": largest_first, "s": range(shape[0]), "key": SERIES}
    for (i, s, key), found in session.computed(measured, over):
        prefix = "fixed_" * (key == "fixed")
        arrays[f"{prefix}gap"][s, i], arrays[f"{prefix}void"][s, i] = found["gap"], found["void"]
        for what in ("median", "worst", "log10_f"):
            arrays[f"{key}_{what}"][s, i] = found[what]


def cell(config: Proposition4, seed: int, s: int, i: int, key: str) -> dict[str, Any]:
    """Run one seed at one alpha, of one of the series; NaN where there is nothing to measure."""
    alpha = config.alphas[i]
    size = config.fixed if key == "fixed" else config.size(alpha)
    rng = np.random.default_rng((seed, s, i, SERIES.index(key)))
    gmm, network, data = draw_problem(config, alpha, size, rng)
    times = [config.clusters * time for time in config.times]
    observe = Observe(at=times, what=(one_minus_cosine,), gmm=gmm)
    flow = partial(gradient_flow, rtol=config.rtol, observe=observe)
    run = completed(flow(network, data.X, data.y, t1=times[-1]))
    angles = run["one_minus_cosine"][-len(times) :]
    inside = np.isfinite(angles[0])
    nothing = np.full(len(times), np.nan)
    found = {"gap": non_degeneracy_gap(network, gmm), "void": float(np.count_nonzero(~inside))}
    if run.status != "finished" or not inside.any():
        return {**found, "median": nothing, "worst": nothing, "log10_f": nothing}
    angles = angles[:, inside]
    log10_f = run["log10_f"][-len(times) :]
    return {**found, "median": np.median(angles, axis=1), "worst": angles.max(axis=1), "log10_f": log10_f}


def at_end(outcome: Outcome, name: str) -> Array:
    """What was measured at the end of the alignment phase, (seeds, alphas)."""
    return np.asarray(outcome.arrays[name][:, :, len(outcome.config["times"]) // 2])


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw 1 - cos against alpha, D and N growing (left) and fixed (right)."""
    config, arrays = outcome.config, outcome.arrays
    alphas = arrays["alphas"]
    sizes = {"growing": arrays["sizes"], "fixed": np.full(len(alphas), float(config["fixed"]))}
    titles = {"growing": rf"D=N=$\lceil${config['ratio']:g}/$\alpha^2\rceil$", "fixed": f"D=N={config['fixed']}"}
    figure, axes = plots.new_figure(2, height=4.2)
    for ax, key in zip(axes, SERIES, strict=True):
        series(ax, alphas, at_end(outcome, f"{key}_median"), "median neuron", plots.INK, "o")
        series(ax, alphas, at_end(outcome, f"{key}_worst"), "worst neuron", plots.ORANGE, "^")
        predicted = alphas**2 / (2 * sizes[key])  # broad and pale: what is found lies on it
        ax.plot(alphas, predicted, color=plots.GREY, alpha=0.4, lw=6.0, zorder=1, label=r"$\alpha^2/(2N)$")
        plots.slope_guide(ax, alphas, at_end(outcome, f"{key}_worst"), 2, above=1.6)
        label = r"$\alpha$, standard deviation of a cluster (length; $\|\mu_k\|=1$)"
        plots.log_log(ax, alphas, f"{label}\n{titles[key]}")
        ax.set(ylabel=r"$1-\cos(u_j, \mu)$ (no unit)")
        plots.legend_above(ax, columns=2)
    low = min(ax.get_ylim()[0] for ax in axes)
    high = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)
    set_title(
        figure, outcome, "Proposition 4: end of alignment", "K", "width", "p", "scale", "seeds", "open: each seed"
    )
    return figure


def table(outcome: Outcome) -> list[Row]:
    """Print gaps, exponents and how far alignment is from moving on."""
    config, arrays = outcome.config, outcome.arrays
    alphas = arrays["alphas"]
    clusters = config["positive"] + config["negative"]
    rows = [Row("epsilon, the same for every alpha", f"{config['scale']:g}"), *gap_rows(outcome, clusters)]
    sizes = {"growing": arrays["sizes"], "fixed": np.full(len(alphas), float(config["fixed"]))}
    words = {"growing": ("D, N growing", 4.0), "fixed": (f"D = N = {config['fixed']}", 2.0)}
    i = int(np.argmin(alphas))
    for key, (label, sampled) in words.items():
        for which in ("median", "worst"):
            fit = fit_power(alphas, at_end(outcome, f"{key}_{which}"))
            told = f"2 at least: {fit.against(2.0)}; alpha^2/(2N): {sampled:g}"
            rows.append(Row(f"exponent of 1 - cos, {which} neuron, {label}", str(fit), "O~(alpha^2)", told))
        ratio = over_seeds(at_end(outcome, f"{key}_median"), np.median) * 2 * sizes[key] / alphas**2
        rows.append(Row(f"  median / (alpha^2/(2N)) at alpha = {alphas[i]:.3g}", f"{ratio[i]:.3f}", "-", "1"))
    first, last = config["times"][0], config["times"][-1]
    change = np.abs(arrays["growing_worst"][:, :, -1] / arrays["growing_worst"][:, :, 0] - 1.0)
    finite = change[np.isfinite(change)]
    moved = f"{finite.max():.1e}" if finite.size else "-"
    rows.append(Row(f"worst neuron: change from t = {first * clusters:g} to {last * clusters:g}", moved, "-", "0"))
    sizes_f = np.concatenate([arrays[f"{key}_log10_f"].ravel() for key in SERIES])
    sizes_f = sizes_f[np.isfinite(sizes_f)]
    rows.append(Row(f"|f| until t = {last * clusters:g}, at most", f"1e{sizes_f.max():.0f}" if sizes_f.size else "-"))
    void = np.nansum(arrays["void"]) + np.nansum(arrays["fixed_void"])
    rows.append(Row("neurons in the void region at the start, all runs", f"{void:.0f}", "-", "0"))
    return rows


PROPOSITION4 = Experiment(
    "proposition4",
    "exponent of 1 - cos in alpha at the end of the alignment phase",
    measure,
    draw,
    table,
    presets={"paper": FULL, "quick": QUICK},
    options=("width", "scheduler"),
    seconds={"paper": 15, "quick": 1},
)
