"""Figures 2 and 7 of MV25: robust accuracy against the l2 radius, every curve a band between certified and attacked.

Setting: D = 2000, K1 = 12, K2 = 8, n = 20000, h = 200, no biases. The paper leaves alpha, batch, loss, epochs and steps
unstated. alpha = 0.3 here: the quadrature of the nearest-cluster rule then gives the published 0.92 at radius 27/39.
Batches of 100 and, in Figure 2, the exponential loss are MV24's; in Figure 7 the logistic loss, as the outputs that std
0.5 starts with are too large for the exponential one (most such runs overflow at once). Training ends by ``Settled``.
All radii are had in one pass, as 1 less the empirical distribution of the points' radii; the papers' PGD is run besides
at some radii and points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preluflow import plots, theory, typing
from preluflow.data import Dataset, OrthonormalGMM
from preluflow.experiments._harness import Experiment, Options, Outcome, Session, batch_fits, drawn, set_title
from preluflow.experiments.robust.models import Diverged, Recipe, Training, has_torch, pgd_accuracy, radii, train
from preluflow.experiments.robust.table import bracket_at, mixture, models, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

BAYES = Recipe("bayes", "Bayes", "bayes")
SMALL = Recipe("prelu", "pReLU, SGD")

# Colour, dashes and marker: no two of a figure share any, but for Bayes' wide solid line.
LOOKS: dict[str, tuple[str, Any, str]] = {
    "bayes": (plots.GREY, "-", "None"),
    "flow": (plots.BLUE, "-", "o"),
    "prelu": (plots.ORANGE, "--", "s"),
    "relu": (plots.INK, (0, (3, 1)), "^"),
    "tanh": (plots.PURPLE, "-.", "D"),
    "linear": (plots.GREEN, ":", "v"),
    "mlp": (plots.SKY, (0, (5, 1, 1, 1, 1, 1)), "P"),
    "prelu_small": (plots.INK, (0, (3, 1)), "o"),
    "prelu_large": (plots.BLUE, "-.", "D"),
    "poly_small": (plots.GREEN, (0, (5, 1, 1, 1, 1, 1)), "v"),
    "poly_large": (plots.PURPLE, ":", "^"),
}


@dataclass(frozen=True)
class Config(Training):
    """Problem, recipes and what is measured.

    ``pgd_points`` test points of the first seed are attacked by the papers' PGD with ``pgd_steps`` steps at
    ``pgd_radii``.
    """

    recipes: tuple[Recipe, ...] = ()
    dim: int = 2000
    positive: int = 12
    negative: int = 8
    alpha: float = 0.3
    n: int = 20_000
    test: int = 2000
    seeds: int = 5
    pgd_radii: tuple[float, ...] = tuple(k / 39 for k in (0, 2, 4, 6, 8, 9, 10, 11, 15, 20, 24, 26, 27, 28, 30))
    pgd_points: int = 100
    pgd_steps: int = 2000
    recipe: typing.Recipe | None = None  # of the papers' PGD

    @property
    def has_all(self) -> bool:
        """Whether what its recipes need is installed: torch, for the MLP."""
        return all(recipe.kind != "mlp" for recipe in self.recipes) or has_torch()


def quick(config: Config) -> Config:
    """The same at a size that runs in seconds: alpha / sqrt(D) as in full, so that radii scatter as much."""
    return replace(
        config,
        dim=300,
        positive=6,
        negative=4,
        alpha=0.12,
        n=2000,
        width=80,
        test=300,
        seeds=2,
        pgd_radii=tuple(k / 39 for k in (0, 2, 4, 8, 11, 12, 13, 15, 20, 27, 28, 30)),
        pgd_points=60,
        pgd_steps=300,
        recipes=tuple(replace(recipe, epochs=5 * recipe.epochs) for recipe in config.recipes),
    )


def facts(config: Config, options: Options) -> dict[str, Any]:
    """What decides the numbers besides: whether there is torch, and what was said by the user and not by us."""
    given = {name: getattr(options, name) for name in ("batch", "loss", "epochs")}
    return {"torch": config.has_all, "given": {name: value for name, value in given.items() if value is not None}}


def measure(session: Session) -> None:
    """Train and attack every model, seed by seed."""
    config, arrays = session.config, session.arrays
    diverged = session.outcome.config["diverged"] = []
    recipes = [recipe for recipe in config.recipes if recipe.kind != "mlp" or config.has_all]
    measured = partial(cell, replace(config, recipes=tuple(recipes)), session.options.seed)
    over = {"s": range(config.seeds), "number": range(1, len(recipes) + 1)}
    try:
        for (s, number), found in session.computed(measured, over, "model"):
            recipe = recipes[number - 1]
            if str(found["diverged"]):
                diverged.append(f"{recipe.label}, seed {s}: {found['diverged']}")
                continue
            if s == 0 and recipe.attacked_by_pgd:
                arrays[f"{recipe.key}.pgd"] = found["pgd"]
            for what in ("lower", "upper", "facts"):
                shape = (config.seeds, len(found[what]))
                arrays.setdefault(f"{recipe.key}.{what}", np.full(shape, np.nan))[s] = found[what]
    finally:
        problem.cache_clear()  # the data of a seed


@lru_cache(maxsize=1)
def problem(config: Config, seed: int, s: int) -> tuple[OrthonormalGMM, Dataset, Dataset]:
    """Draw what the models of a seed share: the mixture, training and test points."""
    rng_centers, rng_data, rng_test = np.random.default_rng((seed, s)).spawn(3)
    gmm = mixture(vars(config), rng_centers)
    return gmm, gmm.sample(config.n, rng=rng_data), gmm.sample(config.test, rng=rng_test)


def cell(config: Config, seed: int, s: int, number: int) -> dict[str, Any]:
    """Train and attack a model, of the recipe with this number from 1 on."""
    recipe = config.recipes[number - 1]
    gmm, data, test = problem(config, seed, s)
    nothing = {what: np.full(config.test, np.nan) for what in ("lower", "upper")}
    told = {**nothing, "facts": np.full(3, np.nan), "pgd": np.full(len(config.pgd_radii), np.nan), "diverged": ""}
    rng = np.random.default_rng((seed, s, number))  # 0 would seed like the data
    try:
        model = train(recipe, config, gmm, data, rng)
    except Diverged as error:
        return {**told, "diverged": str(error)}
    told["lower"], told["upper"] = radii(model, recipe, gmm, test)
    if s == 0 and recipe.attacked_by_pgd:
        few = Dataset(test.X[: config.pgd_points], test.y[: config.pgd_points], test.z[: config.pgd_points])
        told["pgd"] = pgd_accuracy(model, few, config.pgd_radii, config.pgd_steps, config.recipe)
    told["facts"] = np.array([model.facts.get(fact, np.nan) for fact in ("accuracy", "loss", "length")])
    return told


# ---- figure


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw the curves of the first seed there is of each model, over all radii and where they fall."""
    config, fig2 = outcome.config, outcome.name == "fig2"
    low = (config["positive"] + config["negative"]) ** -0.5
    windows = {"all radii": (0.0, 0.8), r"the same near $1/\sqrt{K}$": (0.85 * low if fig2 else 0.0, 1.45 * low)}
    if fig2:
        windows[r"the same near $\sqrt{2}/2$"] = (0.62, 0.76)
    figure, axes = plots.new_figure(len(windows), height=4.8)
    for ax, (title, window) in zip(axes, windows.items(), strict=True):
        curves_panel(ax, outcome, window)
        ax.set_title(title, fontsize=10)
    axes[0].set_ylabel("robust accuracy (share of points)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4 if fig2 else 3, frameon=False)
    missing = ", MLP left out: no torch" if fig2 and not config["torch"] else ""
    head = (
        f"Figure {outcome.name[-1]}: bands from certified to attacked, {config['test']} test points, "
        f"first of {config['seeds']} seeds from {config['seed']}{missing}\n"
    )
    told = f"{config['loss']} loss", f"batch {config['batch']}"
    set_title(figure, outcome, head, "dim", "K1+K2", "n", "width", "alpha", *told)
    return figure


def _places(curve: Array, number: int) -> list[int]:
    """Where on the grid a curve gets its markers: at levels of its own as it falls, and some along the way."""
    levels = np.linspace(0.9, 0.15, 4) - 0.02 * number
    falls = [int(np.argmax(curve < level)) for level in levels if np.any(curve < level) and curve[0] >= level]
    return sorted({*falls, *range(30 + 17 * number, len(curve), 200)})


def curves_panel(ax: Axes, outcome: Outcome, window: tuple[float, float]) -> None:
    """Draw every model's band within a window of radii, what Proposition 1 excludes, and 1/sqrt(K)."""
    config = outcome.config
    grid = np.linspace(*window, 801)
    for number, recipe in enumerate(models(outcome)):
        color, dashes, marker = LOOKS[recipe.key]
        certified, attacked = (curve[0] for curve in bracket_at(outcome, recipe.key, grid))
        wide = 4.5 if recipe.kind == "bayes" else 1.7
        label = recipe.label if recipe.certified else f"{recipe.label} (attacked only)"
        if recipe.certified:
            ax.fill_between(grid, certified, attacked, color=color, alpha=0.3, lw=0)
            ax.plot(grid, certified, color=color, ls=dashes, lw=0.8)
        places = _places(attacked, number)
        look = {"color": color, "ls": dashes, "marker": marker, "ms": 5}
        ax.plot(grid, attacked, lw=wide, markevery=places, label=label, **look)
        if f"{recipe.key}.pgd" in outcome.arrays:
            pgd = outcome.arrays[f"{recipe.key}.pgd"]
            ax.plot(config["pgd_radii"], pgd, lw=0.7, mfc="white", mew=0.8, **look)
    how = ", as in MV24" if config.get("recipe") else ""
    told = f"hollow, thin: papers' PGD on it ({config['pgd_steps']} steps, {config['pgd_points']} points{how})"
    ax.plot([], [], ls="none", label=told)
    floor = theory.max_robust_accuracy(mixture(config, 0))
    ax.fill_between(
        [theory.MAX_RADIUS, 0.9],
        floor,
        1.1,
        facecolor="none",
        edgecolor=plots.GREY,
        hatch="///",
        lw=0.8,
        label="excluded by Proposition 1",
    )
    low = (config["positive"] + config["negative"]) ** -0.5
    for x, name, dashes in ((low, r"$1/\sqrt{K}$", ":"), (theory.MAX_RADIUS, r"$\sqrt{2}/2$", "--")):
        ax.axvline(x, color=plots.INK, lw=0.9, ls=dashes, label=name)
    ax.set(xlim=window, ylim=(-0.02, 1.04), xlabel=r"$\ell_2$ radius (length; $\|\mu_k\|=1$)")


def experiment(name: str, summary: str, config: Config, seconds: Mapping[str, float]) -> Experiment:
    """Figure 2 or 7, which differ in what is trained."""
    presets, options = (
        {"paper": config, "quick": quick(config)},
        ("width", "alpha", "batch", "loss", "epochs", "recipe", "scheduler"),
    )
    return Experiment(
        name, summary, measure, draw, table, presets, options, settle=batch_fits, facts=facts, seconds=seconds
    )
