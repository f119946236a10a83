"""Level "exact": against brute force in the plane, on networks whose certificates are hard to come by, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from exact_radius import exact_radius_2d

import preluflow as pf

GAP = 1.1e-4  # what level "exact" ends at, and what rounding of a witness may add


def random_network(rng, width, dim, p, **parts):
    """Unequal neurons in all directions."""
    W = rng.standard_normal((width, dim)) * np.exp(rng.normal(size=(width, 1)))
    return pf.TwoLayerNetwork(W, rng.standard_normal(width), p=p, **parts)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, 4.5])
def test_the_plane(p):
    rng = np.random.default_rng(int(10 * p))
    for width in (3, 6, 12):
        network = random_network(rng, width, 2, p)
        X = rng.standard_normal((20, 2))
        y = np.where(network.decision_function(X) > 0, 1, -1)
        found = pf.robust_radius(network, X, y, "exact")
        truth = exact_radius_2d(network, X, y)
        assert np.all(found.lower <= truth * (1 + 1e-9))
        assert np.all(found.upper >= truth * (1 - 1e-7))
        closed = found.lower >= (1 - GAP) * found.upper
        assert closed.mean() >= 0.95


@pytest.fixture(scope="module")
def mixture():
    return pf.OrthonormalGMM(60, 3, 3, 0.1, rng=0)


@pytest.mark.parametrize(("activation", "p"), [("prelu", 3.0), ("polynomial", 3.0), ("prelu", 1.0), ("prelu", 2.0)])
def test_networks_from_a_large_initialisation(mixture, activation, p):
    # Their neurons point anywhere, and level tight leaves gaps of several percent on most points.
    data = mixture.sample(600, rng=1)
    start = pf.initialize(40, 60, 0.5, kind="gaussian", activation=activation, p=p, rng=2)
    network = pf.sgd(start, data.X, data.y, step=0.1, epochs=60, batch=50, rng=3).network
    fresh = mixture.sample(12, rng=4)
    tight, found = (pf.robust_radius(network, fresh.X, fresh.y, level, max_nodes=300) for level in ("tight", "exact"))
    right = found.correct
    assert right.mean() > 0.8
    # Level tight inside of level exact aims at another gap: radii it finds differ by as much.
    assert np.all(found.lower[right] >= tight.lower[right] * (1 - 1e-3))
    assert np.all(found.lower[right] <= tight.upper[right])
    assert np.all(tight.lower[right] <= found.upper[right])
    assert np.mean(found.lower[right] >= (1 - 1e-3) * found.upper[right]) >= 0.9


def test_offsets_move_a_network():
    # f(x) = g(x - c): radii are those of g at x - c, which the search knows of offsets only.
    rng = np.random.default_rng(5)
    plain = random_network(rng, 8, 3, 3.0)
    shift = rng.standard_normal(3)
    moved = pf.TwoLayerNetwork(plain.W, plain.v, p=3.0, hidden_bias=-plain.W @ shift)
    X = rng.standard_normal((10, 3))
    y = np.where(plain.decision_function(X) > 0, 1, -1)
    one, other = pf.robust_radius(plain, X, y, "exact"), pf.robust_radius(moved, X + shift, y, "exact")
    assert np.all(one.lower <= other.upper * (1 + 1e-9))
    assert np.all(other.lower <= one.upper * (1 + 1e-9))
    # Radii that reach beyond the origin's neighbourhood are flat there; all others close.
    near = one.upper < 0.9 * np.linalg.norm(X, axis=1)
    assert np.all(other.lower[near] >= (1 - 1e-3) * one.lower[near])


def test_a_biased_linear_network_by_hand():
    # relu(2 x_1 + 1) - 3: right where x_1 > 1.
    network = pf.TwoLayerNetwork(np.array([[2.0, 0.0]]), np.ones(1), p=1.0, hidden_bias=np.ones(1), output_bias=-3.0)
    X = np.array([[1.5, 0.3], [4.0, -2.0], [0.0, 0.0], [-3.0, 1.0]])
    found = pf.robust_radius(network, X, np.array([1, 1, -1, -1]), "exact")
    np.testing.assert_allclose(found.lower, [0.5, 3.0, 1.0, 4.0], rtol=GAP)
    np.testing.assert_allclose(found.upper, [0.5, 3.0, 1.0, 4.0], rtol=GAP)


def test_a_node_limit_keeps_what_is_proved():
    rng = np.random.default_rng(6)
    network = random_network(rng, 40, 20, 3.0)
    X = rng.standard_normal((4, 20))
    y = np.where(network.decision_function(X) > 0, 1, -1)
    fast = pf.robust_radius(network, X, y, "tight")
    before = fast.lower
    for most in (1, 5, 25):
        found = pf.robust_radius(network, X, y, "exact", max_nodes=most)
        assert np.all(found.lower >= before * (1 - 1e-9))
        assert np.all(found.lower <= found.upper)
        before = found.lower


@pytest.mark.parametrize("most", [1, 2, 7, 20])
def test_nodes_are_counted_over_all_rival_classes(most):
    rng = np.random.default_rng(8)
    W, V = rng.standard_normal((100, 30)), rng.standard_normal((100, 4))  # trust regions leave one of its points open
    network = pf.TwoLayerNetwork(W, V, p=4.0, hidden_bias=0.3 * rng.standard_normal(100))
    X = rng.standard_normal((20, 30))
    y = network.predict(X)
    found = pf.robust_radius(network, X, y, "exact", max_nodes=most)
    assert found.trace["nodes"].max() <= most
    assert (found.trace["nodes"] > 0).any()
    assert found.consistent.all()
