import numpy as np
import pytest
import reference as ref
from scipy.optimize import minimize

import preluflow as pf

P = (1.0, 1.5, 2.0, 3.0, 4.5)
each_p = pytest.mark.parametrize("p", P)


def sphere(dim):
    """A dense grid on the unit sphere of R^2 or R^3."""
    if dim == 2:
        angle = np.linspace(0.0, 2 * np.pi, 20_000, endpoint=False)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    k = np.arange(60_000) + 0.5
    height, angle = 1 - 2 * k / len(k), np.pi * (1 + np.sqrt(5)) * k
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)


def difference(network, gmm, X):
    """|f - F^(p)|, by the oracle."""
    f = ref.forward(network.W.astype(float), network.v, X, network.activation, network.p)
    return np.abs(f - ref.cluster_prelu(gmm.centers, gmm.labels, X, network.p))


def searched(network, gmm):
    """Sup |f - F^(p)| over the sphere: a dense grid, its best points refined."""
    points = sphere(gmm.dim)
    values = difference(network, gmm, points)

    def objective(x):
        return -difference(network, gmm, (x / np.linalg.norm(x))[None])[0]

    best = values.max()
    for start in points[np.argsort(-values)[:3]]:
        found = minimize(objective, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
        best = max(best, -found.fun)
    return best


def assert_brackets(network, gmm):
    bracket = pf.distance_bracket(network, gmm)
    true = searched(network, gmm)
    assert bracket.lower <= true * (1 + 1e-7) + 1e-9
    assert true <= bracket.upper * (1 + 1e-12)
    assert np.linalg.norm(bracket.witness) == pytest.approx(1.0, abs=1e-14)
    assert bracket.witness.dtype == np.float64
    at_witness = difference(network, gmm, bracket.witness[None])[0]
    assert bracket.lower == pytest.approx(at_witness, rel=1e-5 if network.dtype == np.float32 else 1e-10, abs=1e-12)
    assert pf.distance_estimate(network, gmm) <= bracket.upper


MIXTURES = [(2, 1, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2)]
each_mixture = pytest.mark.parametrize(("dim", "positive", "negative"), MIXTURES)


@each_p
@each_mixture
@pytest.mark.parametrize("activation", ["prelu", "polynomial"])
def test_bracket_holds_for_random_networks(p, dim, positive, negative, activation):
    gmm = pf.OrthonormalGMM(dim, positive, negative, 0.1, rng=dim)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        W, v = 0.7 * rng.standard_normal((4, dim)), 0.7 * rng.standard_normal(4)
        v[3] *= seed  # once 0
        assert_brackets(pf.TwoLayerNetwork(W, v, activation, p, dtype=("float64", "float32")[seed % 2]), gmm)


@each_p
@each_mixture
def test_bracket_holds_for_nearly_learned_networks(p, dim, positive, negative):
    gmm = pf.OrthonormalGMM(dim, positive, negative, 0.1, rng=dim)
    for seed, noise in enumerate((0.01, 0.1, 0.4)):
        rng = np.random.default_rng(seed)
        # Two neurons a cluster, with half its weight each, not quite aligned.
        U = np.repeat(gmm.centers, 2, axis=0) + noise * rng.standard_normal((2 * gmm.clusters, dim))
        a = 0.5 * (1 + noise * rng.standard_normal(len(U)))
        W = U / np.linalg.norm(U, axis=1, keepdims=True)
        assert_brackets(pf.TwoLayerNetwork(W, a * np.repeat(gmm.labels, 2), p=p), gmm)


@each_p
@each_mixture
def test_bracket_holds_with_neurons_in_the_void(p, dim, positive, negative):
    gmm = pf.OrthonormalGMM(dim, positive, negative, 0.1, rng=dim)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        W = -np.abs(rng.standard_normal((2, gmm.clusters))) @ gmm.centers
        network = pf.TwoLayerNetwork(np.vstack([gmm.centers, W]), [*gmm.labels, 0.3, -0.4], p=p)
        assert (pf.voronoi_regions(network, gmm)[-2:] == -1).all()
        assert_brackets(network, gmm)


@each_p
@pytest.mark.parametrize(("positive", "negative"), [(1, 1), (5, 5), (6, 4), (2, 7)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_at_a_tiny_initialisation_the_distance_is_known(p, positive, negative, dtype):
    gmm = pf.OrthonormalGMM(60, positive, negative, 0.1, rng=0)
    network = pf.initialize(40, 60, 1e-7, p=p, dtype=dtype, rng=1)
    bracket = pf.distance_bracket(network, gmm)
    true = max(positive, negative) ** max(0.0, 1 - p / 2)
    assert bracket.lower == pytest.approx(true, rel=1e-3)
    assert bracket.lower <= true * (1 + 1e-6)
    assert true <= bracket.upper * (1 + 1e-6)
    assert bracket.upper == pytest.approx(true, rel=5e-3)
    assert pf.distance_estimate(network, gmm) <= bracket.upper


@each_p
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_target_itself_is_at_distance_zero(gmm, p, dtype):
    target = pf.classifiers.cluster_prelu(gmm, p)
    bracket = pf.distance_bracket(target.astype(dtype), gmm)
    assert bracket.lower < {"float32": 1e-6, "float64": 1e-13}[dtype]
    # The upper end works on 2048 cells: p pi / 4096 a centre, and no better.
    assert bracket.upper < 1.1 * gmm.clusters * p * np.pi / 4096
    assert pf.distance_estimate(target, gmm) < 1e-13


@each_p
def test_wrong_weights_on_the_right_centres_have_a_known_distance(gmm, p):
    # f - F^(p) = sum_k y_k d_k sigma(x_k)^p; one sign at a time, by Hoelder: max d_k (p >= 2), ||d||_{2/(2-p)} (p < 2).
    excess = np.array([0.3, -0.2, 0.1, 0.25, -0.15])
    network = pf.TwoLayerNetwork((1 + excess)[:, None] * gmm.centers, gmm.labels, p=p)
    signed = gmm.labels * excess
    sides = [np.maximum(side * signed, 0.0) for side in (1, -1)]
    true = max(d.max() if p >= 2 else np.sum(d ** (2 / (2 - p))) ** ((2 - p) / 2) for d in sides)
    bracket = pf.distance_bracket(network, gmm)
    assert bracket.lower == pytest.approx(true, rel=1e-6)
    assert true <= bracket.upper
    assert bracket.upper == pytest.approx(true, abs=gmm.clusters * 1.3 * p * np.pi / 4096)


@pytest.mark.parametrize("p", [2.0, 3.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("c", [1e-300, 1e-30, 1e3, 1e15, 1e30, 1e150])
def test_the_target_at_another_scale_has_a_known_distance(gmm, p, dtype, c):
    # sup |c F^(p) - F^(p)| = |c - 1| for p >= 2, however large c is.
    target = pf.classifiers.cluster_prelu(gmm, p).astype(dtype)
    bracket = pf.distance_bracket(target.replace(log_abs_v=np.full(gmm.clusters, np.log(c))), gmm)
    assert bracket.lower == pytest.approx(abs(c - 1), rel={"float32": 1e-5, "float64": 1e-12}[dtype])
    assert bracket.lower <= bracket.upper
    assert bracket.upper == pytest.approx(abs(c - 1), rel=0.02)


def test_more_ascent_and_more_points_only_help(gmm):
    network = pf.initialize(30, gmm.dim, 0.3, dtype="float64", rng=3)
    lows = [pf.distance_bracket(network, gmm, steps=steps, keep=64).lower for steps in (0, 5, 40)]
    assert lows == sorted(lows)
    estimates = [pf.distance_estimate(network, gmm, batch=batch, rng=0) for batch in (1, 50)]
    assert estimates[0] <= estimates[1] <= pf.distance_bracket(network, gmm).upper
    assert pf.distance_estimate(network, gmm, rng=5) == pf.distance_estimate(network, gmm, rng=5)


def test_estimator_is_projected_ascent_by_the_book(gmm):
    network, p = pf.initialize(6, gmm.dim, 0.4, dtype="float64", rng=3), 3.0
    W = np.vstack([network.W, gmm.centers])
    v = np.concatenate([network.v, -gmm.labels])
    points = np.random.default_rng(11).standard_normal((4, gmm.dim))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    for _ in range(9):
        sign = np.sign(ref.forward(W, v, points, "prelu", p))[:, None]
        points = points + 0.2 * sign * ref.input_gradient(W, v, points, "prelu", p)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    expected = np.abs(ref.forward(W, v, points, "prelu", p)).max()
    found = pf.distance_estimate(network, gmm, batch=4, steps=9, step_size=0.2, rng=11)
    assert found == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("function", [pf.distance_bracket, pf.distance_estimate])
def test_tanh_and_foreign_dimensions_are_refused(gmm, function):
    with pytest.raises(ValueError, match="not for 'tanh'"):
        function(pf.TwoLayerNetwork(np.eye(12), np.ones(12), "tanh"), gmm)
    with pytest.raises(ValueError, match="network has input dimension 3 but gmm has 12"):
        function(pf.TwoLayerNetwork(np.eye(3), np.ones(3)), gmm)
