"""Figures and theorems of the papers, one a module; ``REGISTRY`` lists them."""

from __future__ import annotations

from preluflow.experiments import geometry, neurons, phases, two_phases
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
    )
}

__all__ = ["REGISTRY", "Experiment", "Options", "Outcome", "Row"]
