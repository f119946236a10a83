"""mv24: what an outcome promises."""

import math
from functools import cache

import numpy as np
import pytest

import preluflow as pf
from preluflow.classifiers import cluster_prelu
from preluflow.experiments import MV24, Options, mv24


@cache
def quick():
    """The quick form, run once; not to be changed."""
    return MV24.run(Options(seed=1, quick=True))


@pytest.fixture
def gmm():
    return pf.OrthonormalGMM(15, 3, 2, 0.1, rng=0)


# ---- what was found


def test_p_1_learns_averages_and_p_3_clusters():
    outcome = quick()
    arrays = outcome.arrays
    config, shown = mv24.QUICK, mv24.QUICK.alphas.index(mv24.QUICK.alpha)
    assert not outcome.interrupted
    for name in mv24.CELLS:
        assert arrays[name].shape == (2, len(config.alphas))
        assert np.isfinite(arrays[name]).all()
    assert np.all(arrays["distance_lower"] <= arrays["distance_upper"])
    assert np.all(arrays["distance_upper"][:, shown] < 0.35)
    assert arrays["accuracy"].min() == 1.0
    assert np.all(arrays["radius_lower"] <= arrays["radius_upper"])
    assert np.all(arrays["astray"][:, shown] < 0.01)
    K = config.clusters
    assert arrays["radius_upper"][0, shown] == pytest.approx(1 / math.sqrt(K), rel=0.05)
    assert 0.62 < arrays["radius_lower"][1, shown] <= arrays["radius_upper"][1, shown] < math.sqrt(0.5) * 1.02
    for p in mv24.PS:
        a = arrays[f"contributions_p{p:g}"]
        assert np.all(np.diff(a) <= 0)
        count = mv24.dominant_count(a)
        assert a[:count].sum() >= 0.99 * a.sum() > a[: count - 1].sum()
        cosines = arrays[f"cosines_p{p:g}"][:count]
        nearest = cosines[:, :2].max(axis=1) if p == 1.0 else cosines[:, 2:].max(axis=1)
        assert nearest.min() > 0.98
    assert mv24.dominant_count(arrays["contributions_p3"]) >= K


def test_a_neuron_between_two_centres_is_astray(gmm):
    target = cluster_prelu(gmm, 3.0)
    assert mv24.astray(target, target) == 0.0
    U = np.vstack([target.directions, (gmm.centers[:1] + gmm.centers[1:2]) / math.sqrt(2.0)])
    network = pf.TwoLayerNetwork(U, np.append(target.v, 1.0), p=3.0)
    assert mv24.astray(network, target) == pytest.approx(1 / 6)


def test_the_options_that_count():
    config = MV24.configure(Options(quick=True, alpha=0.2, width=30, batch=20, loss="logistic", epochs=7))
    assert config.alphas == (0.5, 0.2, 0.1)
    assert (config.alpha, config.width, config.batch, config.loss, config.epochs) == (0.2, 30, 20, "logistic", 7)
    assert MV24.configure(Options(full=True)) == mv24.PAPER
    paper = mv24.PAPER
    assert (paper.dim, paper.positive, paper.negative, paper.n, paper.width) == (1000, 6, 4, 20_000, 2000)
    assert (paper.std, paper.batch, paper.step, paper.loss, paper.epochs) == (1e-7, 100, 0.2, "exponential", 401)
