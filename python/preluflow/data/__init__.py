"""Data: Gaussian mixtures, of which MV25's is one, people's own features, digits, and what describes any of them."""

from preluflow.data.description import Description, describe
from preluflow.data.features import Features, from_features, load_digits, load_mnist5k
from preluflow.data.mixture import Dataset, GaussianMixture, OrthonormalGMM, Rng
from preluflow.data.mnist import load_mnist

__all__ = [
    "Dataset",
    "Description",
    "Features",
    "GaussianMixture",
    "OrthonormalGMM",
    "Rng",
    "describe",
    "from_features",
    "load_digits",
    "load_mnist",
    "load_mnist5k",
]
