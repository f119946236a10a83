"""Fits over seeds, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# 97.5% quantiles of Student's t, 1 to 9 degrees of freedom.
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


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
    if count > 1:
        half = _T975[min(count - 2, len(_T975) - 1)] * float(exponents.std(ddof=1)) / math.sqrt(count)
        draws = np.random.default_rng(0).integers(count, size=(4000, count))
        boot = tuple(np.quantile(exponents[draws].mean(axis=1), (0.025, 0.975)).tolist())
    return Fit(exponent, math.exp(float(intercepts.mean())), exponent - half, exponent + half, *boot)


def smaller_half(alphas: Array) -> NDArray[np.bool_]:
    """Mark the smaller alphas, the middle one included."""
    return np.asarray(alphas <= np.sort(alphas)[len(alphas) // 2])
