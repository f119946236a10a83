"""Figure 6 of MV25: Figure 5 with every direction nudged by 0.05 towards a random centre to begin with."""

from __future__ import annotations

from preluflow.experiments.fig5 import experiment

FIG6 = experiment(
    "fig6", 0.05, "alignment, loss and distance to F^(p) along descent from a nudged (non-degenerate) start"
)
