"""What SGD learns with p = 1 and with p = 3, after MV24: class averages or clusters, and the robustness that follows.

A ReLU network (p = 1) becomes F(x) = sqrt(K1) sigma(<x,mu_+>) - sqrt(K2) sigma(<x,mu_->) up to a scale, mu_+- the class
averages, and is robust to 1/sqrt(K) only; with p = 3 it becomes F^(p), and is robust to sqrt(2)/2. For several alpha
the distance to what it should become is bracketed, and estimated as the authors do; at one alpha are shown the
contributions |v_j| ||w_j||, where the dominant neurons point, and the robust accuracy: the bracket, and what the
authors' attack leaves.

The authors' size (``--full``): D = 1000, K = 6 + 4, n = 20000, h = 2000, every weight N(0, (1e-7)^2), SGD on the
exponential loss, batches of 100, step 0.2, 401 epochs; 15 values of alpha (their sigma, a cluster being
N(mu, sigma^2 I/D)) from 0.01 to 0.3, five repeats, radii from 0 to 1.5 in 15 steps. Every cell, a network, is saved as
it ends, and a further run in the same folder computes what is missing. On two cores that is estimated to take three
days: training 22 hours (2.6 s of one core an epoch), and most of the rest their estimator. By default n and h are a
tenth, and so are the steps SGD takes; the alphas are ours then.

The distance has the scale fitted: ``fitted_distance``. Both of the authors' searches are run without the neurons whose
contributions together are below 1e-6 of all, which changes no c f by more than that, and the attack in the span of the
others, which changes nothing; on fewer test points than theirs, but with their n in the mean (``attacks.pgd``).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preluflow import attacks
from preluflow._arrays import Float64
from preluflow._fitted_distance import fitted_distance
from preluflow._recipes import MV24_BATCH
from preluflow.classifiers import class_average_relu, cluster_prelu
from preluflow.data import Dataset, OrthonormalGMM
from preluflow.distance import distance_estimate
from preluflow.experiments._cells import Store
from preluflow.experiments._harness import (
    Experiment,
    Options,
    Outcome,
    Session,
    batch_fits,
    completed,
    every_point,
    plain,
)
from preluflow.experiments._mv24_config import CELLS, CURVES, FULL, PAPER, PS, QUICK, Config, dominant_count
from preluflow.experiments._mv24_figure import draw
from preluflow.experiments._mv24_table import table
from preluflow.experiments.robust.models import span
from preluflow.initialization import initialize
from preluflow.margins import robust_radius
from preluflow.network import TwoLayerNetwork
from preluflow.observe import Observe
from preluflow.results import Run
from preluflow.train import sgd

__all__ = ["CELLS", "CURVES", "FULL", "MV24", "PAPER", "PS", "QUICK", "Config", "dominant_count"]

_DRAWN = 40  # neurons of the heat map at most
_NEGLIGIBLE = 1e-6  # share of all contributions that neurons left out of the authors' searches make at most


def settle(config: Config) -> Config:
    """See that the alpha to show is among the alphas."""
    return replace(batch_fits(config), alphas=tuple(sorted({*config.alphas, config.alpha}, reverse=True)))


# ---- running


def reference(gmm: OrthonormalGMM, p: float) -> TwoLayerNetwork:
    """What a network of this p should become: F for p = 1, else F^(p)."""
    return class_average_relu(gmm) if p == 1.0 else cluster_prelu(gmm, p)


def measure(session: Session) -> None:
    """Run every repeat, alpha and p; the alpha that is shown in detail first, and so on that any few span them all."""
    config, arrays = session.config, session.arrays
    shape = (len(PS), len(config.alphas), config.repeats)
    session.empty(dict.fromkeys(CELLS, shape))
    session.empty(dict.fromkeys(CURVES, (len(PS), config.repeats, len(config.radii))))
    arrays["alphas"] = np.array(config.alphas)
    order = sorted(range(len(config.alphas)), key=lambda i: (config.alphas[i] != config.alpha, -(i & -i or np.inf)))
    keep_run = session.options.scheduler is None  # a network of full size is not sent around
    measured = partial(stored_cell, config, session.cell_options, session.cell_store, keep_run)
    over = {"repeat": range(config.repeats), "i": order, "row": range(len(PS))}
    for (repeat, i, row), cell in session.computed(measured, over):
        p = PS[row]
        for name in CELLS:
            arrays[name][row, i, repeat] = cell.arrays[name]
        if config.alphas[i] == config.alpha:
            for name in CURVES:
                arrays[name][row, repeat] = cell.arrays[name]
        if config.alphas[i] == config.alpha and repeat == 0:
            session.outcome.runs.update({f"p{p:g}": run for run in cell.runs.values()})
            left = set(cell.arrays) - {*CELLS, *CURVES}
            arrays.update({f"{name}_p{p:g}": cell.arrays[name] for name in sorted(left)})


def stored_cell(
    config: Config, options: Options, store: Store | None, keep_run: bool, repeat: int, i: int, row: int
) -> Outcome:
    """Take a cell from the store, if there is one and the cell is there, or run it."""
    alpha, p = config.alphas[i], PS[row]
    shared = {name: value for name, value in plain(config).items() if name not in ("alphas", "alpha", "repeats")}
    detailed = alpha == config.alpha
    own = {"p": p, "alpha": alpha, "repeat": repeat, "detailed": detailed, "quick": options.quick}
    settings = {**shared, **own, "seed": options.seed}

    def compute() -> Outcome:
        run, arrays = run_cell(config, options, alpha, p, repeat, detailed=detailed)
        return Outcome(
            "mv24-cell", settings, {"run": run} if keep_run and detailed and repeat == 0 else {}, None, arrays
        )

    if store is None:
        return compute()
    return store.cell(f"p{p:g}-alpha{alpha:.4g}-repeat{repeat}", settings, compute)


def run_cell(
    config: Config, options: Options, alpha: float, p: float, repeat: int, *, detailed: bool
) -> tuple[Run, dict[str, NDArray[Any]]]:
    """Train at one alpha and p; returns the run, the numbers of ``CELLS``, and what the detailed panels need.

    Centres and initial directions are the same at every alpha and p of a repeat, and so is the noise up to alpha.
    """
    threads = 1 if options.quick else None  # on so small a problem two wait for each other more than they work
    rng_centers, rng_data, rng_network, rng_order, rng_fresh, rng_search = np.random.default_rng(
        (options.seed, repeat)
    ).spawn(6)
    gmm = OrthonormalGMM(config.dim, config.positive, config.negative, alpha, rng=rng_centers)
    data = gmm.sample(config.n, rng=rng_data)
    trained = completed(
        sgd(
            initialize(config.width, config.dim, config.std, kind="gaussian", p=p, rng=rng_network),
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
    few = without_negligible(network)
    effort: dict[str, Any] = {"batches": config.dist_batches, "batch": config.dist_points, "steps": config.dist_steps}
    estimate = distance_estimate(few, gmm, recipe="mv24", rng=rng_search, num_threads=threads, **effort)
    fresh = gmm.sample(config.points, dtype="float64", rng=rng_fresh)
    radius = robust_radius(network, fresh.X, fresh.y, "tight", num_threads=threads)
    every_point(radius, config.points)
    cell = {
        "distance_lower": distance.lower,
        "distance_upper": distance.upper,
        "estimate": estimate,
        "scale": distance.scale,
        "loss": float(trained["loss"][-1]),
        "accuracy": float(trained["accuracy"][-1]),
        "fresh": float(radius.correct.mean()),
        "radius_lower": float(np.median(radius.lower)),
        "radius_upper": float(np.median(radius.upper)),
        "astray": astray(network, reference(gmm, p)),
    }
    arrays = {name: np.array(value) for name, value in cell.items()}
    if detailed:
        arrays |= {"lower": radius.lower, "upper": radius.upper, "correct": radius.correct, **dominant(network, gmm)}
        arrays["certified"], arrays["attacked"] = radius.accuracy(config.radii)
        arrays["pgd"] = pgd_accuracy(few, gmm, fresh, config)
    return trained, arrays


def without_negligible(network: TwoLayerNetwork, share: float = _NEGLIGIBLE) -> TwoLayerNetwork:
    """Leave out the smallest contributions, which together make at most ``share`` of all.

    On the unit sphere that changes f by at most as much as they make together.
    """
    a = np.exp(network.log_contributions - network.log_contributions.max())
    order = np.argsort(a, kind="stable")
    kept = np.sort(order[np.cumsum(a[order]) > share * a.sum()])
    state = (network.directions, network.log_norm, network.sign, network.log_abs_v)
    return network.replace(*(part[kept] for part in state))


def pgd_accuracy(network: TwoLayerNetwork, gmm: OrthonormalGMM, fresh: Dataset, config: Config) -> Float64:
    """Accuracy that the authors' attack leaves at ``config.radii``, (R,); attacked within the span of the neurons."""
    basis = span(gmm, network.directions)
    inside, X = network.replace(network.directions.astype(np.float64) @ basis), fresh.X @ basis
    attack = partial(attacks.pgd, inside, X, fresh.y, steps=config.pgd_steps, recipe="mv24", batch=MV24_BATCH)
    right = float(np.mean(fresh.y * inside.decision_function(X) > 0))
    left = [attack(eps=radius).accuracy if radius > 0 else right for radius in config.radii]
    return np.array(left)


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


MV24 = Experiment(
    "mv24",
    "what SGD learns with p = 1 and p = 3: distance, contributions, directions, robust accuracy",
    measure,
    draw,
    table,
    presets={"laptop": FULL, "quick": QUICK, "paper": PAPER},
    options=("width", "alpha", "batch", "loss", "epochs", "full", "scheduler"),
    settle=settle,
    seconds={"laptop": 150, "quick": 3, "paper": 73 * 3600},
    stores=True,
)
