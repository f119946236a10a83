"""Figures and theorems of the papers, one a module; ``REGISTRY`` lists them."""

from __future__ import annotations

from preluflow.experiments import phases, two_phases
from preluflow.experiments._experiment import Experiment, Options, Outcome, Row

REGISTRY: dict[str, Experiment] = {entry.name: entry for entry in (phases.FIG4, two_phases.FIG5, two_phases.FIG6)}

__all__ = ["REGISTRY", "Experiment", "Options", "Outcome", "Row"]
