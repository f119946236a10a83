"""Data: Gaussian mixtures, of which MV25's is one, people's own features, and what describes either."""

from preluflow.data.mixture import Dataset, GaussianMixture, OrthonormalGMM, Rng

__all__ = ["Dataset", "GaussianMixture", "OrthonormalGMM", "Rng"]
