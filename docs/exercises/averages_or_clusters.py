"""Answers to "Averages or clusters"."""

from __future__ import annotations

import math

import numpy as np

import preluflow as pf


def perturbation_of_averages(gmm: pf.OrthonormalGMM, k: int) -> np.ndarray:
    """The shortest way to make mu_k an error of F(x) = sqrt(K1) sigma(<x,mu_+>) - sqrt(K2) sigma(<x,mu_->).

    sqrt(K1) mu_+ is the sum of the positive centres, so F(x) = sigma(<x, sum of own>) - sigma(<x, sum of others>), up
    to sign. It is 1 at mu_k, and falls fastest along (sum of others) - (sum of own), whose norm is sqrt(K): the
    distance is 1/sqrt(K). (Where the own sum is <= 0 F is an error, too, but that is 1/sqrt(number of own) away.)
    """
    signs = np.where(gmm.labels == gmm.labels[k], -1.0, 1.0)
    return signs @ gmm.centers / gmm.clusters


def perturbation_of_clusters(gmm: pf.OrthonormalGMM, k: int) -> np.ndarray:
    """A way of length sqrt(2)/2 to make mu_k an error of F^(p): half of it, and half of a rival's centre.

    At (mu_k + mu_l)/2 both terms are 2^-p and F^(p) = 0. There is none that is shorter by much for *any* classifier
    that is right at mu_k and at mu_l: this point is as far from the one as from the other, sqrt(2)/2.
    """
    rival = int(np.flatnonzero(gmm.labels != gmm.labels[k])[0])
    return (gmm.centers[rival] - gmm.centers[k]) / 2.0


LENGTH_FOR_CLUSTERS = math.sqrt(2.0) / 2.0
