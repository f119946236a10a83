"""Reference classifiers of the papers, made of the same parts as the networks that are trained."""

from __future__ import annotations

import numpy as np

from preluflow import _arrays
from preluflow.data import OrthonormalGMM
from preluflow.network import TwoLayerNetwork


def cluster_prelu(gmm: OrthonormalGMM, p: float = 3.0) -> TwoLayerNetwork:
    """F^(p)(x) = sum_{k<=K1} sigma(<x,mu_k>)^p - sum_{k>K1} sigma(<x,mu_k>)^p (MV25, eq. 9), in float64.

    One neuron per cluster: nearly robust up to sqrt(2)/2, and what gradient flow from a tiny initialisation learns.
    """
    p = _arrays.real(p, "p", minimum=1.0)
    zeros = np.zeros(gmm.clusters)
    return TwoLayerNetwork.from_polar(gmm.centers, zeros, gmm.labels, zeros, "prelu", p)


def class_average_relu(gmm: OrthonormalGMM) -> TwoLayerNetwork:
    """F(x) = sqrt(K1) sigma(<x,mu_+>) - sqrt(K2) sigma(<x,mu_->), in float64: what ReLU networks learn (MV24).

    mu_+ and mu_- are the normalised averages of the centres of each class. Robust only up to about 1/sqrt(K).
    """
    counts = np.array([gmm.positive, gmm.negative], dtype=float)
    sums = np.stack([gmm.centers[gmm.labels == label].sum(axis=0) for label in (1.0, -1.0)])
    directions = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return TwoLayerNetwork.from_polar(directions, np.zeros(2), [1.0, -1.0], 0.5 * np.log(counts), "prelu", 1.0)
