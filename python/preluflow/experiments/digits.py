"""Networks of scikit-learn's digits, certified: p = 1 .. 4 and polynomial ReLU, by the flow and by SGD, five seeds.

Images are centred by the training mean and divided by their norm, networks have no biases and start balanced at a small
scale. Ten classes are trained by cross-entropy, even against odd by the logistic loss. Radii are those of test images
on the unit sphere, in units of its radius: the perturbed point may leave the sphere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preluflow import plots
from preluflow.data import Features, from_features, load_digits
from preluflow.events import loss_below
from preluflow.experiments._harness import (
    Experiment,
    Options,
    Outcome,
    Row,
    Session,
    completed,
    drawn,
    every_point,
    set_title,
)
from preluflow.experiments._needs import needs_sklearn
from preluflow.experiments._stats import Array
from preluflow.flow import gradient_flow
from preluflow.initialization import initialize
from preluflow.margins import robust_radius
from preluflow.network import TwoLayerNetwork
from preluflow.observe import Observe, Snapshot
from preluflow.results import Run
from preluflow.train import sgd
from preluflow.typing import Activation, TrainingLoss

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TASKS = ("ten", "even-odd")
METHODS = ("flow", "sgd")
WORDS = {"ten": "ten classes", "even-odd": "even or odd", "flow": "gradient flow", "sgd": "SGD"}


@dataclass(frozen=True)
class Digits:
    """Data, networks and recipes.

    ``kinds``: activation, p and epsilon, which is larger for polynomial networks: their neurons grow as ||w||^(p-1),
    and would not within t1. ``enough``: the flow ends where the training loss falls to it, or at ``t1``; SGD takes
    ``epochs`` at ``step`` in batches of ``batch``. ``points`` test images of each seed are certified at level tight.
    """

    kinds: tuple[tuple[Activation, float, float], ...] = (
        ("prelu", 1.0, 1e-2),
        ("prelu", 2.0, 1e-2),
        ("prelu", 3.0, 1e-2),
        ("prelu", 4.0, 1e-2),
        ("polynomial", 3.0, 0.1),
    )
    seeds: int = 5
    train: int = 1200
    width: int = 64
    enough: float = 0.05
    t1: float = 4000.0
    stops: int = 24
    step: float = 1.0
    batch: int = 32
    epochs: int = 50
    points: int = 60
    shown: int = 5


FULL = Digits()
QUICK = replace(FULL, kinds=(FULL.kinds[0], FULL.kinds[2]), seeds=2, width=32, points=12, stops=12)


def split(task: str, count: int, rng: np.random.Generator) -> tuple[Features, Features]:
    """Training and test images, centred and of norm 1; the test by the training mean."""
    whole = load_digits("ten" if task == "ten" else "even-odd")
    order = rng.permutation(len(whole.X))
    first, rest = order[:count], order[count:]
    train = from_features(whole.X[first], whole.y[first])
    assert train.center is not None
    return train, from_features(whole.X[rest], whole.y[rest], center=train.center)


def stable_rank(network: TwoLayerNetwork) -> float:
    """||W||_F^2 / ||W||_2^2 of the hidden layer, whatever its scale."""
    W = network.directions * np.exp(network.log_norm - network.log_norm.max())[:, None]
    singular = np.linalg.svd(W.astype(np.float64), compute_uv=False)
    return float((singular**2).sum() / singular[0] ** 2)


def rank_of(at: Snapshot) -> dict[str, Any]:
    """Observe it."""
    return {"stable_rank": stable_rank(at.network)}


def train_one(
    config: Digits, options: Options, task: str, kind: tuple[Activation, float, float], method: str, s: int
) -> tuple[Run, Features]:
    """Train one network; all of a seed and task see the same images."""
    rng_split, rng_network, rng_order = np.random.default_rng((options.seed, TASKS.index(task), s)).spawn(3)
    train, test = split(task, config.train, rng_split)
    activation, p, scale = kind
    loss: TrainingLoss = "cross_entropy" if task == "ten" else "logistic"
    start = initialize(
        config.width,
        scale=scale,
        like=train.X,
        p=p,
        activation=activation,
        outputs=10 if task == "ten" else 1,
        rng=rng_network,
    )
    what: list[str | Callable[[Snapshot], Any]] = ["loss", "accuracy", rank_of]
    if method == "flow":
        times = np.geomspace(0.1, config.t1, config.stops)[:-1]
        observe = Observe(at=times, what=what)
        events = [loss_below(config.enough, terminal=True)]
        run = gradient_flow(
            start,
            train.X,
            train.y,
            t1=config.t1,
            loss=loss,
            method="rkc",  # images are correlated
            observe=observe,
            events=events,
            num_threads=options.num_threads,
        )
    else:
        run = sgd(
            start,
            train.X,
            train.y,
            step=config.step,
            batch=config.batch,
            epochs=config.epochs,
            loss=loss,
            rng=rng_order,
            observe=Observe(what=what),
            num_threads=options.num_threads,
        )
    return completed(run), test


def measure(session: Session) -> None:
    """Train and certify every network; a seed after the other, so that Ctrl-C leaves whole ones."""
    config, arrays = session.config, session.arrays
    shape = (len(TASKS), len(config.kinds), len(METHODS), config.seeds)
    session.empty({name: shape for name in ("accuracy", "loss", "stable_rank", "seconds")})
    session.empty({name: (*shape, config.points) for name in ("lower", "upper")})
    session.empty({name: (*shape, config.stops + 1) for name in ("rank_t", "rank")})
    session.empty({"images": (len(TASKS), len(config.kinds), config.shown, 64)})
    measured = partial(cell, config, session.cell_options)
    sizes = {"s": config.seeds, "a": len(TASKS), "k": len(config.kinds), "m": len(METHODS)}
    for (s, a, k, m), found in session.computed(measured, {name: range(size) for name, size in sizes.items()}):
        for name in found.keys() - {"images"}:
            arrays[name][a, k, m, s] = found[name]
        if s == 0 and METHODS[m] == "flow":
            arrays["images"][a, k] = found["images"]


def cell(config: Digits, options: Options, s: int, a: int, k: int, m: int) -> dict[str, Any]:
    """Train and certify the network of a seed, task, kind and method."""
    run, test = train_one(config, options, TASKS[a], config.kinds[k], METHODS[m], s)
    X, y = test.X[: config.points].astype(np.float64), test.y[: config.points]
    radius = robust_radius(run.network.astype("float64"), X, y, level="tight", num_threads=options.num_threads)
    radius = every_point(radius, len(X))
    count = min(len(run.t), config.stops + 1)
    rank_t, rank = np.full((2, config.stops + 1), np.nan)
    rank_t[:count], rank[:count] = run.t[:count], run["stable_rank"][:count]
    return {
        "lower": radius.lower,
        "upper": radius.upper,
        "accuracy": np.mean(run.network.predict(test.X) == test.y),
        "loss": run["loss"][-1],
        "stable_rank": run["stable_rank"][-1],
        "seconds": run.stats["seconds"],
        "rank_t": rank_t,
        "rank": rank,
        "images": largest_neurons(run.network, config.shown),
    }


def largest_neurons(network: TwoLayerNetwork, count: int) -> Array:
    """Directions of the neurons that contribute most, (count, D): the cosine of each pixel with the neuron."""
    total = np.logaddexp.reduce(network.log_contributions.reshape(network.width, -1), axis=1)
    return np.asarray(network.directions[np.argsort(-total)[:count]], dtype=np.float64)


# ---- pictures

LOOKS = (
    (plots.SKY, ":"),
    (plots.ORANGE, "--"),
    (plots.BLUE, "-"),
    (plots.PURPLE, "-."),
    (plots.INK, (0, (3, 1, 1, 1, 1, 1))),
)


def name_of(kind: Any) -> str:
    """What a curve is called."""
    return f"p={kind[1]:g}" if kind[0] == "prelu" else f"polynomial, p={kind[1]:g}"


def robust_curves(ax: Axes, kinds: Any, lower: Array, upper: Array) -> None:
    """Robust accuracy of each kind against the radius, from radii (kinds, seeds, points): certified to attacked.

    Lines are the certified share of all points of all seeds, bands reach from the least certified share of a seed to
    the largest attacked one.
    """
    longest = np.max(upper, initial=0.0, where=np.isfinite(upper))
    eps = np.linspace(0.0, 1.02 * longest, 200)
    for k, kind in enumerate(kinds):
        color, style = LOOKS[k % len(LOOKS)]
        there = np.isfinite(lower[k]).all(axis=1)
        if not there.any():
            continue
        certified = np.stack(
            [(lower[k, s] > 0)[:, None] & (lower[k, s][:, None] >= eps) for s in np.flatnonzero(there)]
        )
        attacked = np.stack([(upper[k, s][:, None] > eps) for s in np.flatnonzero(there)])
        ax.plot(eps, certified.mean(axis=(0, 1)), color=color, ls=style, label=name_of(kind))
        low, high = certified.mean(axis=1).min(axis=0), attacked.mean(axis=1).max(axis=0)
        ax.fill_between(eps, low, high, color=color, alpha=0.15, lw=0)
    ax.set(ylim=(0.0, 1.02))


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw robust accuracy by flow and SGD, the stable rank along the flow, and neurons."""
    config, arrays = outcome.config, outcome.arrays
    figure = plots.blank_figure(15.5, 7.4)
    axes = figure.subplots(2, 4, width_ratios=(1.0, 1.0, 1.0, 1.15))
    for a, task in enumerate(TASKS):
        for m, method in enumerate(METHODS):
            ax = axes[a, m]
            robust_curves(ax, config["kinds"], arrays["lower"][a, :, m], arrays["upper"][a, :, m])
            ax.set_title(f"{WORDS[task]}, {WORDS[method]}", fontsize=10)
            ax.set(xlabel="l2 radius (images have norm 1)", ylabel="robust accuracy, certified to attacked")
        _ranks(axes[a, 2], outcome, a)
        _images(figure, axes[a, 3], outcome, a)
    axes[0, 0].legend(loc="upper right")
    marks = f"h={config['width']}, {config['points']} images a seed"
    set_title(figure, outcome, "scikit-learn's digits", marks, "seeds", "bands: all seeds")
    return figure


def _ranks(ax: Axes, outcome: Outcome, a: int) -> None:
    arrays = outcome.arrays
    for k, kind in enumerate(outcome.config["kinds"]):
        color, style = LOOKS[k % len(LOOKS)]
        for s in range(outcome.config["seeds"]):
            t, rank = arrays["rank_t"][a, k, 0, s], arrays["rank"][a, k, 0, s]
            use = np.isfinite(rank) & (t > 0)
            ax.plot(t[use], rank[use], color=color, ls=style, lw=1.0, label=name_of(kind) if s == 0 else None)
    ax.set_xscale("log")
    ax.set(xlabel="t (time of the flow)", ylabel=r"stable rank $\|W\|_F^2/\|W\|_2^2$ (no unit)", ylim=(0.0, None))
    ax.set_title(f"{WORDS[TASKS[a]]}, hidden layer along the flow", fontsize=10)


def _images(figure: Figure, ax: Axes, outcome: Outcome, a: int) -> None:
    """Neurons that contribute most, a row for each kind, each on the scale of its own largest pixel."""
    images = outcome.arrays["images"][a]
    kinds, count = images.shape[:2]
    board = np.full((kinds * 9 - 1, count * 9 - 1), np.nan)
    for k, j in product(range(kinds), range(count)):
        image = images[k, j].reshape(8, 8)
        board[9 * k : 9 * k + 8, 9 * j : 9 * j + 8] = image / max(float(np.nanmax(np.abs(image), initial=0.0)), 1e-300)
    shown = ax.imshow(board, cmap="cividis", vmin=-1.0, vmax=1.0, interpolation="nearest")
    ax.set_yticks([9 * k + 3.5 for k in range(kinds)], [name_of(kind) for kind in outcome.config["kinds"]])
    ax.set_xticks([])
    ax.set(xlabel="images of 8 x 8 pixels, the largest contribution first", ylabel="network")
    ax.grid(visible=False)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_title(f"{WORDS[TASKS[a]]}: the {count} largest neurons", fontsize=10)
    figure.colorbar(shown, ax=ax, shrink=0.7, label="weight / largest of the neuron")


def table(outcome: Outcome) -> list[Row]:
    """Print accuracies and median radii, median over seeds and worst seed."""
    arrays, rows = outcome.arrays, []
    for (a, task), (m, method) in product(enumerate(TASKS), enumerate(METHODS)):
        rows.append(Row(f"{WORDS[task]}, {WORDS[method]}", "accuracy; median radius [certified, attacked]"))
        for k, kind in enumerate(outcome.config["kinds"]):
            there = np.isfinite(arrays["accuracy"][a, k, m])
            if not there.any():
                continue
            accuracy = arrays["accuracy"][a, k, m, there]
            lower = np.median(arrays["lower"][a, k, m, there], axis=1)
            upper = np.median(arrays["upper"][a, k, m, there], axis=1)
            rank = arrays["stable_rank"][a, k, m, there]
            told = (
                f"{np.median(accuracy):.3f} (worst {accuracy.min():.3f}); [{np.median(lower):.4f}, "
                f"{np.median(upper):.4f}] (worst {lower.min():.4f}); stable rank {np.median(rank):.1f}"
            )
            rows.append(Row(f"  {name_of(kind)}", told))
    return rows


def brackets(outcome: Outcome) -> NDArray[np.float64]:
    """Certified / attacked of every point that is no error."""
    lower, upper = outcome.arrays["lower"], outcome.arrays["upper"]
    use = np.isfinite(lower) & np.isfinite(upper) & (upper > 0)
    return np.asarray(lower[use] / upper[use])


DIGITS = Experiment(
    "digits",
    "scikit-learn's digits, ten classes and even-odd: certified and attacked radii by the flow and by SGD, neurons",
    measure,
    draw,
    table,
    presets={"default": FULL, "quick": QUICK},
    options=("width", "scheduler"),
    missing=lambda config: needs_sklearn(),
    seconds={"default": 45, "quick": 3},
)
