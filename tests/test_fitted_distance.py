"""The distance up to a scale, to F of the class averages and to F^(p)."""

import math

import numpy as np
import pytest

import preluflow as pf
from preluflow._fitted_distance import MeanBound, _upper_end, best_scale, cell_bound, fitted_distance
from preluflow.classifiers import class_average_relu, cluster_prelu
from preluflow.experiments.mv24 import reference


@pytest.fixture
def gmm():
    return pf.OrthonormalGMM(15, 3, 2, 0.1, rng=0)


def random_network(p, h=8, dim=15, seed=0):
    return pf.initialize(h, dim, 1.0, p=p, dtype="float64", rng=seed)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("log_scale", [0.0, -200.0, 3.0])
def test_the_target_itself_is_at_distance_0_whatever_its_scale(gmm, p, log_scale):
    target = reference(gmm, p)
    found = fitted_distance(target.replace(log_abs_v=target.log_abs_v + log_scale), target)
    assert found.lower == pytest.approx(0.0, abs=1e-12)
    # On cells the bound has a slack of its own; the class averages' is exact.
    assert found.upper <= (1e-9 if p == 1.0 else 5e-3)
    assert found.scale == pytest.approx(math.exp(-log_scale), rel=5e-3)


@pytest.mark.parametrize(("p", "known"), [(1.0, math.sqrt(3.0)), (2.0, 1.0), (3.0, 1.0)])
def test_a_network_without_output_is_as_far_as_the_target_is_large(gmm, p, known):
    network = random_network(p)
    silent = pf.TwoLayerNetwork(network.directions, np.zeros(8), p=p)
    found = fitted_distance(silent, reference(gmm, p))
    assert found.lower == pytest.approx(known, rel=1e-9)
    assert known * (1 - 1e-12) <= found.upper <= known * 1.005


@pytest.mark.parametrize("p", [1.0, 3.0])
def test_the_opposite_network_gets_no_weight(gmm, p):
    target = reference(gmm, p)
    found = fitted_distance(target.replace(sign=-target.sign), target)
    assert found.lower <= found.upper
    assert found.lower == pytest.approx(math.sqrt(3.0) if p == 1.0 else 1.0, rel=1e-9)


@pytest.mark.parametrize("p", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_ends_are_in_order_and_hold_what_sampling_finds(gmm, p, seed):
    rng = np.random.default_rng(seed)
    target = reference(gmm, p)
    near = seed % 2 == 0
    if near:  # the target's own directions, each in three noisy copies
        U = np.repeat(target.directions, 3, axis=0) + 0.1 * rng.standard_normal((3 * target.width, 15))
        v = np.repeat(target.sign * target.contributions, 3) * rng.uniform(0.2, 0.5, 3 * target.width)
        network = pf.TwoLayerNetwork(U / np.linalg.norm(U, axis=1, keepdims=True), v, p=p)
    else:
        network = random_network(p, seed=seed)
    found = fitted_distance(network, target)
    assert 0 < found.lower <= found.upper
    scaled = network.rescaled()[0]
    assert _upper_end(scaled, target, 1.0)[0] >= found.lower  # nothing had to be clipped
    X = rng.standard_normal((4000, 15))
    X[::2] = np.repeat(np.vstack([target.directions, network.directions]), 4000, axis=0)[rng.permutation(4000)[:2000]]
    X += 0.1 * rng.standard_normal(X.shape)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    f, F = network.decision_function(X), target.decision_function(X)
    # The lower end is the minimum over c of what was found at points; the upper end holds at its own c.
    assert best_scale(f, F)[0] <= found.lower * 1.05 or not near
    assert np.abs(found.scale * f - F).max() <= found.upper


def test_without_a_fit_it_is_the_bracket_of_the_package(gmm):
    network = random_network(3.0, h=12, seed=3).astype("float64")
    bracket = pf.distance_bracket(network, gmm)
    target = cluster_prelu(gmm, 3.0)
    assert cell_bound(network, target).at(1.0) == pytest.approx(bracket.upper, rel=1e-9)
    found = fitted_distance(network, target)
    assert found.lower <= bracket.upper  # the best scale is at least as good as 1
    assert found.upper <= bracket.upper * (1 + 1e-9)


def test_the_mean_bound_holds_at_any_scale(gmm):
    target = class_average_relu(gmm)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        network = random_network(1.0, h=10, seed=seed)
        bounds = MeanBound(network, target), cell_bound(network, target)
        X = rng.standard_normal((5000, 15)) + 3.0 * network.directions[rng.integers(10, size=5000)]
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        f, F = network.decision_function(X), target.decision_function(X)
        for c in (0.0, 0.3, 1.0, 4.0):
            assert np.abs(c * f - F).max() <= min(bound.at(c) for bound in bounds)


def test_the_best_scale_is_the_minimum():
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 50):
        for _ in range(50):
            f, F = rng.standard_normal((2, size))
            value, c = best_scale(f, F)
            grid = np.append(np.linspace(0.0, 20.0, 4001), c)
            least = np.abs(np.outer(grid, f) - F).max(axis=1).min()
            assert c >= 0
            assert value == pytest.approx(np.abs(c * f - F).max(), rel=1e-9, abs=1e-12)
            assert value <= least * (1 + 1e-9) + 1e-12
    assert best_scale(np.zeros(3), np.array([1.0, -2.0, 0.5])) == (2.0, 0.0)
    assert best_scale(np.array([1.0, 2.0]), np.array([3.0, 6.0]))[0] == pytest.approx(0.0, abs=1e-12)
