"""Answers to "Why PGD lies"."""

from __future__ import annotations

import numpy as np

import preluflow as pf


def gradient_on_the_way(gmm: pf.OrthonormalGMM, s: float, p: float) -> np.ndarray:
    """Gradient of F^(p) at (1 - s) mu_1: p (1-s)^(p-1) mu_1, and p 0^(p-1) = 0 for every other centre, if p > 1."""
    return p * (1.0 - s) ** (p - 1.0) * gmm.centers[0]


def swap(net: pf.TwoLayerNetwork, gmm: pf.OrthonormalGMM, X: np.ndarray, y: np.ndarray, eps: float) -> np.ndarray:
    """Perturbations of length eps from the nearest own centre to the nearest rival one."""
    cosines = X @ gmm.centers.T
    own = np.argmax(np.where(gmm.labels == y[:, None], cosines, -np.inf), axis=1)
    rival = np.argmax(np.where(gmm.labels != y[:, None], cosines, -np.inf), axis=1)
    ways = gmm.centers[rival] - gmm.centers[own]
    return eps * ways / np.linalg.norm(ways, axis=1, keepdims=True)
