"""preluflow: gradient flow on normalised polynomial-ReLU networks, and how robust what it learns is.

After H. Min and R. Vidal, "Gradient Flow Provably Learns Robust Classifiers for Orthonormal GMMs", ICML 2025 (MV25).
"""

from preluflow import attacks, classifiers, data, events, plots, theory, typing
from preluflow._version import __version__
from preluflow.attacks import Attack
from preluflow.data import Dataset, GaussianMixture, OrthonormalGMM
from preluflow.distance import DistanceBracket, distance_bracket, distance_estimate
from preluflow.events import Event
from preluflow.flow import gradient_flow
from preluflow.initialization import (
    center_cosines,
    covers_all_regions,
    initialize,
    non_degeneracy_gap,
    voronoi_regions,
)
from preluflow.margins import RobustRadius, functional_margins, normalized_margins, robust_radius
from preluflow.network import LossGradient, TwoLayerNetwork
from preluflow.observe import Observe, Snapshot
from preluflow.results import Run
from preluflow.sweep import sweep
from preluflow.train import adam, gradient_descent, sgd

__all__ = [
    "Attack",
    "Dataset",
    "DistanceBracket",
    "Event",
    "GaussianMixture",
    "LossGradient",
    "Observe",
    "OrthonormalGMM",
    "RobustRadius",
    "Run",
    "Snapshot",
    "TwoLayerNetwork",
    "__version__",
    "adam",
    "attacks",
    "center_cosines",
    "classifiers",
    "covers_all_regions",
    "data",
    "distance_bracket",
    "distance_estimate",
    "events",
    "functional_margins",
    "gradient_descent",
    "gradient_flow",
    "initialize",
    "non_degeneracy_gap",
    "normalized_margins",
    "plots",
    "robust_radius",
    "sgd",
    "sweep",
    "theory",
    "typing",
    "voronoi_regions",
]
