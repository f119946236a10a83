"""Figures and theorems of the papers, one a module; ``REGISTRY`` lists them."""

from __future__ import annotations

from preluflow.experiments._harness import Experiment, Options, Outcome, Row, Session
from preluflow.experiments.beyond import BEYOND
from preluflow.experiments.descent_vs_flow import DESCENT_VS_FLOW
from preluflow.experiments.digits import DIGITS
from preluflow.experiments.fig1 import FIG1
from preluflow.experiments.fig2 import FIG2
from preluflow.experiments.fig3 import FIG3
from preluflow.experiments.fig4 import FIG4
from preluflow.experiments.fig5 import FIG5
from preluflow.experiments.fig6 import FIG6
from preluflow.experiments.fig7 import FIG7
from preluflow.experiments.fig7_recipes import FIG7_RECIPES
from preluflow.experiments.mnist import MNIST
from preluflow.experiments.mv24 import MV24
from preluflow.experiments.neurons import NEURONS
from preluflow.experiments.orthogonal import ORTHOGONAL
from preluflow.experiments.pgd_gap import PGD_GAP
from preluflow.experiments.proposition4 import PROPOSITION4
from preluflow.experiments.theorem1 import THEOREM1

_ALL = (
    *(FIG1, FIG2, FIG3, FIG4, FIG5, FIG6, FIG7),
    *(FIG7_RECIPES, PGD_GAP, MV24, NEURONS, THEOREM1, PROPOSITION4, DESCENT_VS_FLOW),
    *(BEYOND, ORTHOGONAL, DIGITS, MNIST),
)
REGISTRY: dict[str, Experiment] = {experiment.name: experiment for experiment in _ALL}

__all__ = ["REGISTRY", "Experiment", "Options", "Outcome", "Row", "Session"]
