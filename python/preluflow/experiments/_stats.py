"""Fits over seeds, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_NO_SCIPY = "no interval without SciPy: pip install 'preluflow[stats]'"


def _scipy_stats() -> Any:
    """Return ``scipy.stats``, or None where it is not installed: then exponents and shares come without intervals."""
    try:
        from scipy import stats
    except ImportError:
        return None
    return stats


def share(count: int, of: int, digits: int = 4) -> str:
    """Tell a share with its 95% interval after Wilson, which stays within [0, 1] and is not empty at its ends."""
    stats = _scipy_stats()
    told = f"{count / of:.{digits}f}"
    if stats is None:
        return f"{told} ({_NO_SCIPY})"
    interval = stats.binomtest(count, of).proportion_ci(0.95, method="wilson")
    return f"{told} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def over_seeds(values: NDArray[np.float64], reduce: Callable[..., Any]) -> NDArray[np.float64]:
    """Reduce values, (seeds, m), over the seeds that are there; NaN where there is none."""
    columns = [column[np.isfinite(column)] for column in values.T]
    return np.array([reduce(column) if column.size else np.nan for column in columns])


@dataclass(frozen=True)
class Fit:
    """A power law fitted by least squares in the logarithms, with its spread over seeds.

    Attributes
    ----------
    exponent, factor : float
        value = factor * alpha^exponent. With every seed at every alpha this is least squares over all points.
    low, high : float
        95% confidence interval of the exponent from Student's t over the seeds' own exponents.
    boot_low, boot_high : float
        The same from 4000 bootstrap samples of seeds; with five seeds it is somewhat too narrow.
    """

    exponent: float
    factor: float
    low: float
    high: float
    boot_low: float
    boot_high: float

    def __str__(self) -> str:
        """Show exponent and both intervals."""
        if not math.isfinite(self.exponent):
            return "-"
        if not math.isfinite(self.low):
            return f"{self.exponent:.2f} ({'one seed' if _scipy_stats() else _NO_SCIPY})"
        return (
            f"{self.exponent:.2f} [{self.low:.2f}, {self.high:.2f}], "
            f"bootstrap [{self.boot_low:.2f}, {self.boot_high:.2f}]"
        )

    def against(self, theory: float) -> str:
        """Say where the interval lies."""
        if not math.isfinite(self.low + self.high):
            return "no interval"
        if self.low > theory:
            return "steeper"
        return "shallower" if self.high < theory else "within the interval"


def fit_power(alphas: Array, values: Array) -> Fit:
    """Fit values, (seeds, alphas), by factor * alpha^exponent; what is not positive and finite is left out."""
    lines = []
    for row in values:
        use = np.isfinite(row) & (row > 0)
        if np.count_nonzero(use) >= 2:
            lines.append(np.polyfit(np.log(alphas[use]), np.log(row[use]), 1))
    if not lines:
        return Fit(*[math.nan] * 6)
    exponents, intercepts = np.array(lines).T
    count, exponent = len(exponents), float(exponents.mean())
    half, boot = math.nan, (math.nan, math.nan)
    stats = _scipy_stats()
    if count > 1 and stats is not None:
        half = float(stats.t.ppf(0.975, count - 1) * exponents.std(ddof=1)) / math.sqrt(count)
        rng = np.random.default_rng(0)
        found = stats.bootstrap((exponents,), np.mean, n_resamples=4000, method="percentile", random_state=rng)
        boot = float(found.confidence_interval.low), float(found.confidence_interval.high)
    return Fit(exponent, math.exp(float(intercepts.mean())), exponent - half, exponent + half, *boot)


def smaller_half(alphas: Array) -> NDArray[np.bool_]:
    """Mark the smaller alphas, the middle one included."""
    return np.asarray(alphas <= np.sort(alphas)[len(alphas) // 2])
