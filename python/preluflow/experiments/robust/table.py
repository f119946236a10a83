"""What Figures 2 and 7 say in words: every model held against the published points and against theory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preluflow import theory
from preluflow._recipes import MV24_BATCH
from preluflow.data import OrthonormalGMM
from preluflow.experiments._harness import Outcome, Row
from preluflow.experiments._stats import share
from preluflow.experiments.robust.models import Recipe, accuracy

Array = NDArray[np.float64]

# ---- what an outcome holds


def mixture(config: Mapping[str, Any], rng: Any = None) -> OrthonormalGMM:
    """Draw the mixture an outcome's configuration describes."""
    return OrthonormalGMM(config["dim"], config["positive"], config["negative"], config["alpha"], rng=rng)


def models(outcome: Outcome) -> list[Recipe]:
    """Recipes of the models that were measured."""
    recipes = [Recipe(**fields) for fields in outcome.config["recipes"]]
    return [recipe for recipe in recipes if f"{recipe.key}.upper" in outcome.arrays]


def seeds_of(outcome: Outcome, key: str, what: str) -> Array:
    """An array of a model, (seeds done, m)."""
    return np.asarray(outcome.arrays[f"{key}.{what}"][~np.isnan(outcome.arrays[f"{key}.upper"][:, 0])])


def bracket_at(outcome: Outcome, key: str, eps: Any) -> tuple[Array, Array]:
    """Certified and attacked accuracy of a model at radii (R,), each (seeds done, R)."""
    certified = accuracy(seeds_of(outcome, key, "lower"), eps, attacked=False)
    return certified, accuracy(seeds_of(outcome, key, "upper"), eps, attacked=True)


# ---- table

Published = tuple[float, float, float, str]  # radius, least and most accuracy, as told
_ROBUST: tuple[Published, ...] = (
    (26 / 39, 1.0, 1.0, "1.0"),
    (27 / 39, 0.92, 0.94, "0.92-0.94"),
    (28 / 39, 0.0, 0.0, "0"),
)
_TO_28: tuple[Published, ...] = ((8 / 39, 0.95, 1.0, "about 1"), (11 / 39, 0.0, 0.05, "about 0"))
_TO_256: tuple[Published, ...] = ((8 / 39, 0.95, 1.0, "about 1"), (10 / 39, 0.0, 0.05, "about 0"))
PUBLISHED: dict[str, dict[str, tuple[Published, ...]]] = {
    "fig2": {
        **dict.fromkeys(("bayes", "flow", "prelu"), _ROBUST),
        **dict.fromkeys(("relu", "mlp"), _TO_28),
        **dict.fromkeys(("tanh", "linear"), _TO_256),
    },
    "fig7": {
        **dict.fromkeys(("bayes", "prelu", "prelu_small"), _ROBUST),
        "prelu_large": ((0.38, 0.98, 1.0, "1.0"), (0.6, 0.6, 0.6, "0.6"), (0.72, 0.0, 0.0, "0")),
        "poly_small": ((0.0, 0.99, 0.99, "0.99"), (0.05, 0.89, 0.89, "0.89"), (0.2, 0.17, 0.17, "about 0.17")),
        "poly_large": ((0.1, 0.95, 1.0, "falls from here"),),
    },
}
TOLERANCE = 0.02
# What else is told of robust models, and of the others.
TOLD: dict[str, dict[str, tuple[float, ...]]] = {
    "fig2": {"far": (0.65, theory.MAX_RADIUS, 0.72), "near": (0.27,)},
    "fig7": {"far": (0.3, theory.MAX_RADIUS), "near": (0.3,)},
}


def table(outcome: Outcome) -> list[Row]:
    """Hold every model against the published points and against theory."""
    config = outcome.config
    floor = theory.max_robust_accuracy(mixture(config, 0))
    told = f"D={config['dim']}, K={config['positive']}+{config['negative']}, n={config['n']}, h={config['width']}"
    rows = [
        Row("problem", told, "-" if config["quick"] else "the same"),
        Row("alpha, batch, loss", f"{config['alpha']:g}, {config['batch']}, {config['loss']}", "not stated"),
        Row("test points, seeds", f"{config['test']}, {config['seeds']}"),
    ]
    for recipe in models(outcome):
        rows.append(_recipe_row(outcome, recipe))
        far = "far" if PUBLISHED[outcome.name].get(recipe.key) == _ROBUST else "near"
        points: dict[float, Published | None] = dict.fromkeys(TOLD[outcome.name][far])
        published = () if config["quick"] else PUBLISHED[outcome.name].get(recipe.key, ())
        points |= {point[0]: point for point in published}
        rows += [_point_row(outcome, recipe, radius, points[radius], floor) for radius in sorted(points)]
        rows.append(_falls_row(outcome, recipe))
    rows += [*_bayes_rows(outcome), _floor_row(outcome, floor), *_pgd_rows(outcome), *_reproduced_rows(outcome)]
    rows += _order_rows(outcome) if outcome.name == "fig7" else []
    return rows + _notes(outcome)


def _over_seeds(values: Array, digits: int = 3) -> str:
    """Median, and the range if there are several."""
    middle = f"{np.median(values):.{digits}f}"
    return middle if len(values) < 2 else f"{middle} ({values.min():.{digits}f}-{values.max():.{digits}f})"


def _recipe_row(outcome: Outcome, recipe: Recipe) -> Row:
    config = outcome.config
    if recipe.kind == "bayes":
        return Row("Bayes: recipe", "none: known from the mixture")
    right, loss, length = seeds_of(outcome, recipe.key, "facts").T
    reached = f"training accuracy {right.min():.4f} at least, loss {np.median(loss):.1e}"
    if recipe.kind == "flow":
        t1 = config["flow_time"] * (config["positive"] + config["negative"])
        how = f"squared loss to t={t1:g}, {config['flow_method']}, rtol {config['flow_rtol']:g}"
        ran = f"{length.min():.0f}-{length.max():.0f} gradients"
    else:
        epochs = config["epochs"] or recipe.epochs
        how = f"SGD, {recipe.loss or config['loss']} loss, step {recipe.step_of(config['loss']):g}"
        ran = f"until settled, at most {epochs} epochs"
        if np.all(np.isfinite(length)):
            ran = f"{length.min():.0f}-{length.max():.0f} of at most {epochs} epochs"
    paper = "SGD, small init" if outcome.name == "fig2" and recipe.kind != "flow" else "-"
    return Row(f"{recipe.label}: recipe", f"{recipe.start()}; {how}, {ran}; {reached}", paper)


def _point_row(outcome: Outcome, recipe: Recipe, radius: float, point: Published | None, floor: float) -> Row:
    certified, attacked = (curve[:, 0] for curve in bracket_at(outcome, recipe.key, [radius]))
    told = f"attacked {_over_seeds(attacked)}"
    if recipe.certified:
        told = f"certified {_over_seeds(certified)}, {told}"
    near = np.flatnonzero(np.isclose(outcome.config["pgd_radii"], radius))
    if f"{recipe.key}.pgd" in outcome.arrays and near.size:
        told += f", papers' PGD {outcome.arrays[f'{recipe.key}.pgd'][near[0]]:.2f}"
    paper, expected = "-", "-"
    if point is not None:
        paper = f"{point[3]}: {'met' if _met(attacked, point) else 'not met'} within {TOLERANCE}"
    if recipe.kind == "bayes":
        expected = f"{theory.nearest_cluster_accuracy(mixture(outcome.config, 0), radius):.4f} (quadrature)"
    elif radius >= theory.MAX_RADIUS:
        expected = f"<= {floor:g} (Prop. 1)"
    return Row(f"  {recipe.label}: accuracy at {radius:.3f}", told, paper, expected)


def _met(attacked: Array, point: Published) -> bool:
    return bool(point[1] - TOLERANCE <= np.median(attacked) <= point[2] + TOLERANCE)


def _reproduced_rows(outcome: Outcome) -> list[Row]:
    """Say which published curves are met at every point told of them, by the median over seeds."""
    verdicts: dict[bool, list[str]] = {True: [], False: []}
    for recipe in [] if outcome.config["quick"] else models(outcome):
        points = PUBLISHED[outcome.name].get(recipe.key, ())
        if points:
            met = [_met(bracket_at(outcome, recipe.key, [point[0]])[1][:, 0], point) for point in points]
            verdicts[all(met)].append(recipe.label)
    names = {True: "published curves met at every point", False: "published curves not met"}
    return [Row(names[met], ", ".join(labels)) for met, labels in verdicts.items() if labels]


def _falls_row(outcome: Outcome, recipe: Recipe) -> Row:
    upper = seeds_of(outcome, recipe.key, "upper")
    where = [_over_seeds(np.quantile(np.maximum(upper, 0.0), 1.0 - level, axis=1)) for level in (0.9, 0.5, 0.1)]
    return Row(f"  {recipe.label}: radii at which 0.9, 0.5, 0.1 are left, attacked", ", ".join(where))


def _bayes_rows(outcome: Outcome) -> list[Row]:
    """Compare Bayes with the nearest-cluster quadrature, which is the same but for alpha^2 log(K)/D."""
    if "bayes.upper" not in outcome.arrays:
        return []
    grid = np.linspace(0.0, 0.8, 401)
    exact = theory.nearest_cluster_accuracy(mixture(outcome.config, 0), grid)
    certified, attacked = bracket_at(outcome, "bayes", grid)
    gap = np.maximum(certified - exact, exact - attacked).max(axis=1)
    # Dvoretzky-Kiefer-Wolfowitz, 1% for all seeds together.
    error = np.sqrt(np.log(2.0 * len(gap) / 0.01) / (2.0 * outcome.config["test"]))
    told = f"{gap.max():.4f} worst over seeds"
    return [Row("Bayes: largest gap between bracket and quadrature", told, "-", f"<= {error:.4f} (sampling, 99%)")]


def _floor_row(outcome: Outcome, floor: float) -> Row:
    worst = {
        recipe.label: float(bracket_at(outcome, recipe.key, [theory.MAX_RADIUS])[1].max()) for recipe in models(outcome)
    }
    label = max(worst, key=lambda name: worst[name])
    n = outcome.config["test"]
    error = 3.0 * np.sqrt(floor * (1.0 - floor) / n)
    told = f"<= {floor:g} + {error:.3f} (Prop. 1, three standard errors)"
    return Row(
        "largest attacked accuracy at sqrt(2)/2, any seed",
        f"{share(round(worst[label] * n), n, 3)} ({label})",
        "-",
        told,
    )


def _pgd_rows(outcome: Outcome) -> list[Row]:
    """Hold the papers' PGD against our attack at the same points of the first seed."""
    config, rows = outcome.config, []
    eps = np.array(config["pgd_radii"])
    for recipe in models(outcome):
        if f"{recipe.key}.pgd" not in outcome.arrays:
            continue
        pgd = outcome.arrays[f"{recipe.key}.pgd"]
        ours = accuracy(outcome.arrays[f"{recipe.key}.upper"][0, : config["pgd_points"]], eps, attacked=True)
        i = int(np.argmax(pgd - ours))
        told = "nowhere"
        if pgd[i] > ours[i]:
            told = f"{pgd[i]:.2f} at {eps[i]:.3f}, where our attack leaves {ours[i]:.2f}"
            told += "".join(f"; {pgd[j]:.2f} at {eps[j]:.3f}" for j in np.flatnonzero((eps > 0.68) & (pgd > 0)))
        rows.append(Row(f"papers' PGD on {recipe.label}, where it overstates most", told))
    return rows


def _order_rows(outcome: Outcome) -> list[Row]:
    """Order the models by the attacked accuracy at 0.3; equal if their ranges over seeds overlap."""
    values = {recipe.label: bracket_at(outcome, recipe.key, [0.3])[1][:, 0] for recipe in models(outcome)}
    ordered = sorted(values, key=lambda label: -float(np.median(values[label])))
    text = ""
    for before, label in zip(["", *ordered], ordered, strict=False):
        if before:
            text += " = " if values[label].max() >= values[before].min() else " > "
        text += f"{label} {_over_seeds(values[label])}"
    published = "pReLU small = Bayes >= pReLU large > polynomial large > polynomial small"
    return [Row("attacked accuracy at 0.3, ordered", text, "-" if outcome.config["quick"] else published)]


def _notes(outcome: Outcome) -> list[Row]:
    config, rows = outcome.config, []
    given = [name for name in ("batch", "loss", "epochs") if config["given"].get(name) is not None]
    if given:
        rows.append(
            Row(
                f"note: {', '.join(given)}",
                "of SGD; not for Bayes and the flow (squared loss); logistic regression keeps its loss",
            )
        )
    if config.get("recipe"):
        rows.append(Row("note: papers' PGD", f"as in MV24: float32, mean of {MV24_BATCH} points, last iterate"))
    rows.append(Row("note: Bayes, logistic regression", "PGD not run: radius in closed form"))
    if outcome.name == "fig2" and not config["torch"]:
        rows.append(Row("note: 4-layer ReLU MLP", "left out: torch is not installed"))
    rows += [Row("note: diverged, left out", told) for told in config["diverged"]]
    done = {recipe.key: len(seeds_of(outcome, recipe.key, "upper")) for recipe in models(outcome)}
    if outcome.stopped:
        rows.append(Row("note: interrupted; seeds done", ", ".join(f"{key} {count}" for key, count in done.items())))
    return rows
