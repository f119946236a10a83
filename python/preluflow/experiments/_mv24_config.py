"""What mv24 runs, and what it is told by: configurations, and the names of what is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from preluflow._arrays import Float64
from preluflow.typing import Loss

PS = (1.0, 3.0)
_DOMINANT = 0.99  # share of all contributions the dominant neurons make


@dataclass(frozen=True)
class Config:
    """Problem and recipe, the authors'; ``alpha`` is the one shown in detail.

    ``radii``, ``pgd_steps``: of the authors' attack, on ``points`` fresh points. ``dist_batches``, ``dist_points``,
    ``dist_steps``: of their estimator.
    """

    dim: int = 1000
    positive: int = 6
    negative: int = 4
    alphas: tuple[float, ...] = tuple(float(f"{alpha:.12g}") for alpha in np.linspace(0.3, 0.01, 15))
    alpha: float = 0.01
    repeats: int = 5
    n: int = 20_000
    width: int = 2000
    std: float = 1e-7
    step: float = 0.2
    batch: int = 100
    epochs: int = 401
    loss: Loss = "exponential"
    points: int = 200
    radii: tuple[float, ...] = tuple(float(f"{radius:.12g}") for radius in np.linspace(0.0, 1.5, 15))
    pgd_steps: int = 2000
    dist_batches: int = 10
    dist_points: int = 1000
    dist_steps: int = 2000

    @property
    def clusters(self) -> int:
        """K."""
        return self.positive + self.negative


PAPER = Config()
FULL = replace(
    PAPER, n=2000, width=200, alphas=(1.0, 0.5, 0.3, 0.1, 0.01), alpha=0.1, repeats=2, dist_batches=1, dist_points=200
)
QUICK = replace(
    FULL,
    dim=200,
    n=500,
    width=80,
    batch=50,
    epochs=400,
    alphas=(0.5, 0.1),
    repeats=1,
    points=100,
    pgd_steps=100,
    dist_points=50,
    dist_steps=100,
)

CELLS = (
    "distance_lower",
    "distance_upper",
    "estimate",
    "scale",
    "loss",
    "accuracy",
    "fresh",
    "radius_lower",
    "radius_upper",
    "astray",
)
CURVES = ("certified", "attacked", "pgd")  # robust accuracy at ``radii``, of the alpha that is shown


def dominant_count(contributions: Float64) -> int:
    """How many of the largest make 99% of all contributions."""
    share = np.cumsum(contributions) / contributions.sum()
    return int(np.searchsorted(share, _DOMINANT)) + 1
