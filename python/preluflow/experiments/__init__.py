"""Figures and theorems of the papers, one a module; ``REGISTRY`` lists them."""

from __future__ import annotations

from preluflow.experiments import (
    descent_vs_flow,
    geometry,
    mv24,
    neurons,
    pgd_gap,
    phases,
    robust_accuracy,
    theorem1,
    two_phases,
)
from preluflow.experiments._experiment import Experiment, Options, Outcome, Row

REGISTRY: dict[str, Experiment] = {
    entry.name: entry
    for entry in (
        geometry.FIG1,
        geometry.FIG3,
        phases.FIG4,
        two_phases.FIG5,
        two_phases.FIG6,
        neurons.NEURONS,
        theorem1.THEOREM1,
        theorem1.PROPOSITION4,
        descent_vs_flow.DESCENT_VS_FLOW,
        robust_accuracy.FIG2,
        robust_accuracy.FIG7,
        pgd_gap.PGD_GAP,
        mv24.MV24,
    )
}

__all__ = ["REGISTRY", "Experiment", "Options", "Outcome", "Row"]
