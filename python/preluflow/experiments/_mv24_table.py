"""The table of mv24: what was learnt held against what it should become."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from preluflow._arrays import Float64
from preluflow.experiments._harness import Outcome, Row, bracket_of
from preluflow.experiments._mv24_config import CELLS, CURVES, PAPER, PS, dominant_count
from preluflow.theory import MAX_RADIUS


def table(outcome: Outcome) -> list[Row]:
    """Hold both networks against what they should become."""
    config = outcome.config
    steps = math.ceil(config["n"] / config["batch"]) * config["epochs"]
    rows = [
        Row(
            "D, K, n, h, s.d. of the weights",
            f"{config['dim']}, {config['positive']}+{config['negative']}, {config['n']}, {config['width']}, "
            f"{config['std']:g}",
            f"{PAPER.dim}, {PAPER.positive}+{PAPER.negative}, {PAPER.n}, {PAPER.width}, {PAPER.std:g}",
        ),
        Row(
            "loss, batch, step, epochs (steps of SGD)",
            f"{config['loss']}, {config['batch']}, {config['step']:g}, {config['epochs']} ({steps})",
            f"{PAPER.loss}, {PAPER.batch}, {PAPER.step:g}, {PAPER.epochs} ({PAPER.n // PAPER.batch * PAPER.epochs})",
        ),
        Row(
            "alphas, repeats; alpha shown, points attacked",
            f"{_few(config['alphas'])}, {config['repeats']}; {config['alpha']:g}, {config['points']}",
            f"{_few(PAPER.alphas)}, {PAPER.repeats}; {PAPER.alpha:g}, {PAPER.n}",
        ),
        Row(
            "estimator: batches, points, steps; steps of the attack",
            f"{config['dist_batches']}, {config['dist_points']}, {config['dist_steps']}; {config['pgd_steps']}",
            f"{PAPER.dist_batches}, {PAPER.dist_points}, {PAPER.dist_steps}; {PAPER.pgd_steps}",
        ),
    ]
    for row, p in enumerate(PS):
        rows += [*_distance_rows(outcome, row, p), *_detail_rows(outcome, row, p)]
    done = np.isfinite(outcome.arrays["loss"])
    if not done.all():
        rows.append(Row("note: cells done", f"{np.count_nonzero(done)} of {done.size}"))
    return rows


def _few(values: Sequence[float]) -> str:
    """Tell a few numbers, or how many there are between which."""
    told = [f"{value:g}" for value in sorted(values)]
    return " ".join(told) if len(told) <= 6 else f"{len(told)} from {told[0]} to {told[-1]}"


def _distance_rows(outcome: Outcome, row: int, p: float) -> list[Row]:
    """Tell every alpha: medians over the repeats that are done, ranges where there are several."""
    config, arrays = outcome.config, outcome.arrays
    name, limit = _target(config, p)
    rows = []
    for i in np.flatnonzero(np.isfinite(arrays["loss"][row]).any(axis=1)):
        done = np.isfinite(arrays["loss"][row, i])
        cell = {key: arrays[key][row, i, done] for key in CELLS}
        rows += [
            Row(
                f"p = {p:g}, alpha = {arrays['alphas'][i]:g}: distance to {name}, scale fitted",
                f"[{_over(cell['distance_lower'])}, {_over(cell['distance_upper'])}]",
                "-",
                f"{_largest(config, p):.4f} at f = 0",
            ),
            Row("  the authors' estimator of it", _over(cell["estimate"], ".3g")),
            Row(
                "  median radius, certified to attacked",
                f"{_over(cell['radius_lower'])} to {_over(cell['radius_upper'])}",
                "-",
                f"{limit} for {name}, alpha = 0",
            ),
            Row("  share of contributions with no target at cosine 0.9 or more", _over(cell["astray"]), "-", "0"),
            Row(
                "  loss, training accuracy, fresh accuracy",
                f"{_over(cell['loss'], '.1e')}, {_over(cell['accuracy'])}, {_over(cell['fresh'])}",
            ),
        ]
    return rows


def _over(values: Float64, form: str = ".4f") -> str:
    """Median, and the range if there are several."""
    middle = format(np.median(values), form)
    return middle if len(values) < 2 else f"{middle} ({values.min():{form}}-{values.max():{form}})"


def _target(config: Mapping[str, Any], p: float) -> tuple[str, str]:
    """What a network of this p should become, and the radius it is robust to."""
    K = config["positive"] + config["negative"]
    if p == 1.0:
        return "F", f"{1 / math.sqrt(K):.4f} 1/sqrt(K)"
    return f"F^({p:g})", f"{MAX_RADIUS:.4f} sqrt(2)/2"


def _detail_rows(outcome: Outcome, row: int, p: float) -> list[Row]:
    """Tell the alpha that is shown: robust accuracy, bracketed and as the authors attack, and the dominant neurons."""
    config, arrays = outcome.config, outcome.arrays
    K = config["positive"] + config["negative"]
    rows: list[Row] = []
    if f"lower_p{p:g}" not in arrays:
        return rows
    bracket = bracket_of(outcome, f"_p{p:g}")
    radii = (0.9 / math.sqrt(K), 1.1 / math.sqrt(K), 0.9 * MAX_RADIUS, MAX_RADIUS)
    certified, attacked = bracket.accuracy(radii)
    expected = (
        ("1", "0", "0", "0")
        if p == 1.0
        else ("1", "1", "1", f"{1 - min(config['positive'], config['negative']) / K:g} at most")
    )
    for radius, low, high, theory in zip(radii, certified, attacked, expected, strict=True):
        told = f"p = {p:g}, alpha = {config['alpha']:g}: robust accuracy at {radius:.4f}"
        rows.append(Row(told, f"[{low:.3f}, {high:.3f}]", "-", theory))
    done = np.isfinite(arrays["pgd"][row, :, 0])
    certified, attacked, pgd = (arrays[name][row, done] for name in CURVES)
    for i in np.flatnonzero((pgd > attacked + 0.02).any(axis=0)):
        told = f"p = {p:g}: at {config['radii'][i]:.4f} the authors' attack leaves; certified, attacked"
        rows.append(
            Row(told, f"{_over(pgd[:, i], '.3f')}; {_over(certified[:, i], '.3f')}, {_over(attacked[:, i], '.3f')}")
        )
    count = dominant_count(arrays[f"contributions_p{p:g}"])
    cosines = arrays[f"cosines_p{p:g}"][:count]
    best = (cosines[:, :2] if p == 1.0 else cosines[:, 2:]).max(axis=1)
    rows.append(Row("  neurons that make 99% of the contributions", f"{count} of {config['width']}"))
    of = "a class average" if p == 1.0 else "a centre"
    rows.append(Row(f"  their cosine with {of}: median, least", f"{np.median(best):.4f}, {best.min():.4f}", "-", "1"))
    return rows


def _largest(config: Mapping[str, Any], p: float) -> float:
    """Return sup |F| over the sphere."""
    most = max(config["positive"], config["negative"])
    return math.sqrt(most) if p == 1.0 else 1.0
