"""What fig7-recipes says: every way of training held against the published curves, as attacked there and in truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preluflow import plots
from preluflow._recipes import MV24_BATCH
from preluflow.experiments._harness import Outcome, Row, drawn, set_title
from preluflow.experiments.robust.models import accuracy
from preluflow.experiments.robust.table import PUBLISHED, Published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

TOLERANCE = 0.05
ATTACKS = ("papers' attack", "certified", "attacked")


@dataclass(frozen=True)
class Curve:
    """A published curve: its label, its points, and the radii at which networks are attacked as in the papers."""

    label: str
    published: tuple[Published, ...]
    radii: tuple[float, ...]


def _curve(label: str, key: str, *more: float) -> Curve:
    points = PUBLISHED["fig7"][key]
    return Curve(label, points, tuple(sorted({*(point[0] for point in points), *more})))


CURVES = {
    "prelu_small": _curve("pReLU, small init", "prelu_small", 0.75),
    "prelu_large": _curve("pReLU, large init", "prelu_large", 0.5, 0.65),
    "poly_small": _curve("polynomial, small init", "poly_small", 0.1, 0.3),
    "poly_large": _curve("polynomial, large init", "poly_large", 0.0, 0.2, 0.3),
}


def radii_of(curves: Iterable[str]) -> tuple[float, ...]:
    """Return the radii at which networks held against some curves are attacked."""
    return tuple(sorted({radius for curve in curves for radius in CURVES[curve].radii}))


@dataclass(frozen=True)
class Found:
    """What was found of a way of training at one of its stops, over the seeds that reached it, against one curve.

    ``lower``, ``upper``: (seeds, test). ``pgd``: (seeds, R), at the way's radii. ``facts``: (seeds, 4), epoch, loss,
    training accuracy, median of y f over the test points.
    """

    key: str
    way: Mapping[str, Any]
    stop: int
    lower: Array
    upper: Array
    pgd: Array
    facts: Array

    @property
    def curve(self) -> Curve:
        """The published one."""
        return CURVES[self.key]

    @property
    def how(self) -> str:
        """In a few words: start, loss and step."""
        way = self.way
        return f"std {way['std']:g}, {way['loss']}, step {way['step']:g}, batch {way['batch']}"

    @property
    def when(self) -> str:
        """The stop."""
        if self.stop:
            return f"epoch {self.stop}"
        epochs = self.facts[:, 0]
        return f"first accuracy 1 (epoch {_over(epochs, '.0f')})"

    def at(self, radius: float) -> dict[str, Array]:
        """Robust accuracy at a radius by each of ``ATTACKS``, (seeds,)."""
        certified = accuracy(self.lower, [radius], attacked=False)[:, 0]
        attacked = accuracy(self.upper, [radius], attacked=True)[:, 0]
        pgd = self.pgd[:, radii_of(self.way["curves"]).index(radius)]
        return dict(zip(ATTACKS, (pgd, certified, attacked), strict=True))

    def miss(self, by: str) -> float:
        """Largest distance of the median over seeds from a published point."""
        return max(_off(float(np.median(self.at(point[0])[by])), point) for point in self.curve.published)


def _off(value: float, point: Published) -> float:
    return max(point[1] - value, value - point[2], 0.0)


def _over(values: Array, form: str) -> str:
    """Median, and the range if the seeds differ."""
    middle = format(np.median(values), form)
    least, most = format(values.min(), form), format(values.max(), form)
    return middle if least == most else f"{middle} ({least}-{most})"


def everything(outcome: Outcome) -> list[Found]:
    """Return what was found, by curve, then in the order of the ways and their stops."""
    found = []
    pairs = [(way, stop) for way in outcome.config["ways"] for stop in way["stops"]]
    for key, (way, stop) in product(CURVES, pairs):
        name = f"{way['key']}.{stop}"
        if key not in way["curves"] or f"{name}.facts" not in outcome.arrays:
            continue
        there = ~np.isnan(outcome.arrays[f"{name}.facts"][:, 0])
        arrays = (outcome.arrays[f"{name}.{what}"][there] for what in ("lower", "upper", "pgd", "facts"))
        found.append(Found(key, way, stop, *arrays))
    return found


# ---- the table


def table(outcome: Outcome) -> list[Row]:
    """Hold every way, at every stop, against the published points; then say which comes nearest to each curve."""
    config = outcome.config
    told = f"D={config['dim']}, K={config['positive']}+{config['negative']}, n={config['n']}, h={config['width']}"
    rows = [
        Row("problem", told, "-" if config["quick"] else "the same"),
        Row("alpha, seeds", f"{config['alpha']:g}, {config['seeds']}", "not stated"),
        Row("points bracketed, of which attacked as in MV24", f"{config['test']}, {config['pgd_points']}"),
        Row("papers' attack", f"MV24's code: float32, mean of {MV24_BATCH}, {config['pgd_steps']} steps, last iterate"),
    ]
    found = everything(outcome)
    for each in found:
        rows += _found_rows(each, config)
    if not config["quick"]:
        for key in CURVES:
            rows += _verdict_rows([each for each in found if each.key == key])
    for way in config["ways"]:
        rows += _missing_rows(outcome, way)
    return rows


def _found_rows(found: Found, config: Mapping[str, Any]) -> list[Row]:
    _, loss, right, output = found.facts.T
    told = f"loss {_over(loss, '.2g')}, training accuracy {_over(right, '.4f')}, median y f {_over(output, '.2g')}"
    told += f"; {len(loss)} of {config['seeds']} seeds"
    rows = [Row(f"{found.curve.label}: {found.how}; {found.when}", told)]
    points = {point[0]: point for point in found.curve.published}
    for radius in found.curve.radii:
        values = found.at(radius)
        measured = ", ".join(f"{name} {_over(value, '.2f')}" for name, value in values.items())
        paper, point = "-", points.get(radius)
        if point is not None and not config["quick"]:
            met = [name for name in (ATTACKS[0], ATTACKS[2]) if _met(values[name], point)]
            paper = f"{point[3]}: {'met by ' + ' and '.join(met) if met else 'not met'}"
        rows.append(Row(f"  at {radius:.3f}", measured, paper))
    return rows


def _met(values: Array, point: Published) -> bool:
    return _off(float(np.median(values)), point) <= TOLERANCE


def _verdict_rows(found: list[Found]) -> list[Row]:
    """Say of one curve what comes nearest, as the papers attack and in truth."""
    rows = []
    for by in (ATTACKS[0], ATTACKS[2]) if found else ():
        best = min(found, key=lambda each: each.miss(by))
        met = "every point met" if best.miss(by) <= TOLERANCE else f"off by {best.miss(by):.2f} at most"
        told = f"{best.how}; {best.when}: {met}"
        rows.append(Row(f"{best.curve.label}: nearest by {by}", told, f"within {TOLERANCE}"))
    return rows


def _missing_rows(outcome: Outcome, way: Mapping[str, Any]) -> list[Row]:
    """Say where a stop was not reached by every seed that was run."""
    done = outcome.arrays.get(f"{way['key']}.reached", np.array([]))
    rows, ran = [], int(np.count_nonzero(~np.isnan(done)))
    for stop in way["stops"] if ran else ():
        facts = outcome.arrays.get(f"{way['key']}.{stop}.facts", np.full((1, 1), np.nan))
        reached = int(np.count_nonzero(~np.isnan(facts[:, 0])))
        if reached < ran:
            name = f"epoch {stop}" if stop else f"training accuracy 1 within {way['epochs']} epochs"
            told = f"note: {way['activation']}, std {way['std']:g}, {way['loss']}, step {way['step']:g}"
            rows.append(Row(told, f"{name}: {reached} of {ran} seeds"))
    return rows


# ---- the figure

_LOOKS = (
    (plots.BLUE, "-", "o"),
    (plots.ORANGE, "--", "s"),
    (plots.GREEN, "-.", "^"),
    (plots.PURPLE, ":", "D"),
    (plots.INK, (0, (3, 1)), "v"),
    (plots.SKY, (0, (5, 1, 1, 1, 1, 1)), "P"),
)
_WINDOWS = {"prelu_small": (0.5, 0.8), "prelu_large": (0.0, 0.8), "poly_small": (0.0, 0.4), "poly_large": (0.0, 0.4)}


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw a panel for each published curve: its points, the papers' attack on each network, and the truth."""
    config, found = outcome.config, everything(outcome)
    curves = [key for key in CURVES if any(key in way["curves"] for way in config["ways"])]
    figure = plots.blank_figure(4.6 * len(curves), 5.6)
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for ax, key in zip(axes, curves, strict=True):
        _panel(ax, key, [each for each in found if each.key == key], published=not config["quick"])
    axes[0].set_ylabel("robust accuracy (share of points)")
    head = (
        "Figure 7, what was published and what is true: crosses as published, hollow what MV24's attack leaves,\n"
        f"bands from certified to attacked, {config['test']} test points; median over {config['seeds']} seeds "
        f"from {config['seed']}\n"
    )
    set_title(figure, outcome, head, "dim", "K1+K2", "n", "width", "alpha")
    return figure


def _panel(ax: Axes, key: str, found: list[Found], *, published: bool) -> None:
    low, high = _WINDOWS[key]
    grid = np.linspace(low, high, 601)
    for (color, dashes, marker), each in zip(_LOOKS, found, strict=False):
        certified = np.median(accuracy(each.lower, grid, attacked=False), axis=0)
        attacked = np.median(accuracy(each.upper, grid, attacked=True), axis=0)
        ax.fill_between(grid, certified, attacked, color=color, alpha=0.3, lw=0)
        label = f"{each.how},\n{each.when}"
        ax.plot(grid, attacked, color=color, ls=dashes, lw=1.6, label=label)
        pgd = [np.median(each.at(radius)[ATTACKS[0]]) for radius in each.curve.radii]
        ax.plot(each.curve.radii, pgd, color=color, ls=dashes, lw=0.7, marker=marker, ms=7, mfc="white")
    if published:
        points = CURVES[key].published
        x, y = [point[0] for point in points], [(point[1] + point[2]) / 2 for point in points]
        ax.plot(x, y, ls="none", marker="x", ms=11, mew=2.6, color=plots.INK, zorder=6, label="published")
    ax.set(xlim=(low, high), ylim=(-0.03, 1.05), xlabel=r"$\ell_2$ radius")
    ax.set_title(CURVES[key].label, fontsize=10)
    left_out = max(0, len(found) - len(_LOOKS))
    if left_out:
        ax.plot([], [], ls="none", label=f"and {left_out} more in the table")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False, fontsize=8)
