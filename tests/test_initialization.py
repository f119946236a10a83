import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

import preluflow as pf
from preluflow.initialization import VOID


def test_balanced_networks_are_balanced_at_every_scale():
    for epsilon in (1e-300, 1e-7, 0.5):
        network = pf.initialize(50, 30, epsilon, dtype="float64", rng=0)
        np.testing.assert_array_equal(network.log_norm, network.log_abs_v)
        np.testing.assert_allclose(np.abs(network.v), network.norms, rtol=1e-15)
        unit = pf.initialize(50, 30, 1.0, dtype="float64", rng=0)
        np.testing.assert_array_equal(network.directions, unit.directions)
        np.testing.assert_array_equal(network.sign, unit.sign)
        np.testing.assert_allclose(network.log_norm - unit.log_norm, np.log(epsilon), rtol=1e-13)


def test_balanced_entries_are_gaussian_and_signs_a_fair_coin():
    network = pf.initialize(4000, 5, 0.01, dtype="float64", rng=1)
    assert stats.kstest(network.W.ravel() / 0.01, "norm").pvalue > 1e-3
    assert abs(np.sum(network.sign)) < 5 * np.sqrt(4000)
    assert set(network.sign.tolist()) == {-1.0, 1.0}
    assert abs(np.corrcoef(network.sign, network.W[:, 0])[0, 1]) < 5 / np.sqrt(4000)


def test_gaussian_networks_have_gaussian_entries_everywhere():
    network = pf.initialize(4000, 5, 0.5, kind="gaussian", dtype="float64", rng=1)
    assert stats.kstest(network.W.ravel() / 0.5, "norm").pvalue > 1e-3
    assert stats.kstest(network.v / 0.5, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(np.abs(network.v), network.norms)[0, 1]) < 5 / np.sqrt(4000)


def test_one_output_has_the_numbers_it_always_had():
    for kind in ("balanced", "gaussian"):
        network = pf.initialize(30, 5, 0.1, kind=kind, dtype="float64", rng=7, outputs=1)
        rng = np.random.default_rng(7)
        W = rng.standard_normal((30, 5))
        lengths = np.linalg.norm(W, axis=1)
        v = rng.choice([-1.0, 1.0], size=30) * lengths if kind == "balanced" else rng.standard_normal(30)
        np.testing.assert_allclose(network.W, 0.1 * W, rtol=1e-14)
        np.testing.assert_allclose(network.v, 0.1 * v, rtol=1e-14)
        assert network.v.shape == (30,)


@pytest.mark.parametrize("epsilon", [1e-300, 0.1])
def test_balanced_networks_of_several_outputs_have_uniform_directions_and_the_length_of_their_weights(epsilon):
    network = pf.initialize(4000, 5, epsilon, dtype="float64", rng=1, outputs=3)
    assert network.num_outputs == 3 and network.classes.tolist() == [0, 1, 2]
    log_length = 0.5 * np.logaddexp.reduce(2.0 * network.log_abs_v, axis=1)
    np.testing.assert_allclose(log_length, network.log_norm, rtol=0, atol=1e-12)
    units = network.sign * np.exp(network.log_abs_v - log_length[:, None])
    for along in (*np.eye(3), [1.0, 1.0, 1.0], [1.0, -2.0, 0.5]):  # on the sphere in R^3 every component is uniform
        component = units @ along / np.linalg.norm(along)
        assert stats.kstest(component, "uniform", args=(-1.0, 2.0)).pvalue > 1e-3
    one = pf.initialize(4000, 5, epsilon, dtype="float64", rng=1)
    np.testing.assert_array_equal(one.directions, network.directions)


def test_gaussian_networks_of_several_outputs_have_gaussian_entries():
    network = pf.initialize(2000, 5, 0.5, kind="gaussian", dtype="float64", rng=1, outputs=4)
    assert network.v.shape == (2000, 4)
    assert stats.kstest(network.v.ravel() / 0.5, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(network.v[:, 0], network.v[:, 1])[0, 1]) < 5 / np.sqrt(2000)


@pytest.mark.parametrize("delta", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("epsilon", [1e-300, 0.1])
def test_nudge_moves_the_unit_direction_towards_a_centre(gmm, delta, epsilon):
    h = 400
    plain = pf.initialize(h, gmm.dim, epsilon, dtype="float64", rng=3)
    nudged = pf.initialize(h, gmm.dim, epsilon, nudge=delta, centers=gmm, dtype="float64", rng=3)
    np.testing.assert_allclose(nudged.log_norm, plain.log_norm, rtol=1e-14)
    np.testing.assert_array_equal(nudged.sign, plain.sign)
    chosen = []
    for u, moved in zip(plain.directions, nudged.directions, strict=True):
        candidates = u + delta * (gmm.centers - u)
        candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
        chosen.append(np.argmin(np.abs(candidates - moved).max(axis=1)))
        np.testing.assert_allclose(moved, candidates[chosen[-1]], rtol=0, atol=1e-14)
    if delta > 0:
        counts = np.bincount(chosen, minlength=gmm.clusters)
        assert stats.chisquare(counts).pvalue > 1e-3
    array = pf.initialize(h, gmm.dim, epsilon, nudge=delta, centers=gmm.centers, dtype="float64", rng=3)
    np.testing.assert_array_equal(array.directions, nudged.directions)


@pytest.mark.parametrize("kind", ["balanced", "gaussian"])
def test_both_dtypes_hold_the_same_network(gmm, kind):
    single, double = (
        pf.initialize(30, gmm.dim, 1e-30, kind=kind, nudge=0.1, centers=gmm, dtype=dtype, rng=4)
        for dtype in ("float32", "float64")
    )
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(single.directions, double.directions.astype(np.float32))
    for name in ("log_norm", "sign", "log_abs_v"):
        np.testing.assert_array_equal(getattr(single, name), getattr(double, name))


def test_seeds():
    one, same, other = (pf.initialize(9, 4, 0.1, rng=rng) for rng in (0, np.random.default_rng(0), 1))
    np.testing.assert_array_equal(one.W, same.W)
    assert np.abs(one.W - other.W).max() > 1e-3
    assert (one.activation, one.p) == ("prelu", 3.0)


# ---- Voronoi regions


def neurons(gmm, W, v):
    return pf.TwoLayerNetwork(np.asarray(W, float) @ gmm.centers, v)


def test_voronoi_regions_by_hand():
    gmm = pf.OrthonormalGMM(5, 2, 1, 0.1, centers="canonical")  # positive centres 0 and 1, negative 2
    network = neurons(
        gmm,
        [[3, 1, 9], [1, 3, 9], [-1, -2, 9], [-1, 0.1, 0], [9, 9, 0.1], [9, 9, -0.1], [0, 0, 5], [2, 1, 0], [0, 0, 0]],
        [1, 1, 1, 1, -1, -1, 1, 0, 1],
    )
    np.testing.assert_array_equal(pf.voronoi_regions(network, gmm), [0, 1, VOID, 1, 2, VOID, VOID, VOID, VOID])
    expected = np.array([[3, 1, 9], [1, 3, 9], [-1, -2, 9]]) / np.sqrt([[91], [91], [86]])
    np.testing.assert_allclose(pf.center_cosines(network, gmm)[:3], expected, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(pf.center_cosines(network, gmm)[8], 0.0)


def test_covers_all_regions():
    gmm = pf.OrthonormalGMM(4, 2, 2, 0.1, rng=0)
    W = np.eye(4) + 0.1
    assert pf.covers_all_regions(neurons(gmm, W, [1, 1, -1, -1]), gmm)
    assert not pf.covers_all_regions(neurons(gmm, W, [1, 1, -1, 1]), gmm)
    assert not pf.covers_all_regions(neurons(gmm, W[[0, 0, 2, 3]], [1, 1, -1, -1]), gmm)
    assert not pf.covers_all_regions(neurons(gmm, W, [1, 0, -1, -1]), gmm)


# ---- the non-degeneracy gap


def farthest_cosine(w, own):
    """Sup of cos(w, s) over S, the union of the boundaries of the Voronoi regions of the centres ``own``.

    By Definition 1 the regions are split by max_k s_k: S holds the points where two own cosines tie for a positive
    maximum, and those where the largest is 0, the boundary of the void. Each piece is a convex cone, on which
    sup cos(w, .) = ||projection of w||; the projection is found numerically.
    """
    K, D = own.shape
    w = w / np.linalg.norm(w)
    pieces = []
    for k in range(K):
        others = np.delete(np.arange(K), k)
        pieces.append((own[k : k + 1], -own[others]))  # s_k = 0 >= s_l
        for other in others[others > k]:
            rest = np.delete(np.arange(K), [k, other])
            pieces.append((own[k : k + 1] - own[other], np.vstack([own[k], own[k] - own[rest]])))  # s_k = s_l >= rest
    best = -np.inf
    for equal, at_least in pieces:
        constraints = [{"type": "eq", "fun": lambda s, A=equal: A @ s, "jac": lambda s, A=equal: A}]
        if len(at_least):
            constraints.append({"type": "ineq", "fun": lambda s, A=at_least: A @ s, "jac": lambda s, A=at_least: A})
        found = minimize(
            lambda s: 0.5 * np.sum((s - w) ** 2),
            np.zeros(D),
            jac=lambda s: s - w,
            constraints=constraints,
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 300},
        )
        assert found.success, found.message
        best = max(best, np.linalg.norm(found.x))
    return best


@pytest.mark.parametrize(("positive", "negative"), [(1, 1), (2, 1), (3, 2), (5, 3)])
@pytest.mark.parametrize("void", [False, True])
def test_gap_is_what_direct_optimisation_finds(positive, negative, void):
    gmm = pf.OrthonormalGMM(positive + negative + 2, positive, negative, 0.1, rng=positive)
    generator, gaps, network = np.random.default_rng(5), [], None
    W, v = [], []
    for case in range(12):
        sign = generator.choice([-1.0, 1.0])
        own = gmm.centers[gmm.labels == sign]
        w = generator.standard_normal(gmm.dim)
        if void:
            w -= own.T @ (own @ w + np.abs(own @ w))
        elif case % 3 == 0:  # a near tie, where the second term decides
            w += own.T @ (np.abs(generator.standard_normal()) + 0.05 * generator.standard_normal(len(own)))
        W.append(w)
        v.append(sign)
        network = pf.TwoLayerNetwork([w], [sign])
        assert not void or pf.voronoi_regions(network, gmm)[0] == VOID
        gaps.append(pf.non_degeneracy_gap(network, gmm))
        assert gaps[-1] == pytest.approx(1.0 - farthest_cosine(w, own), abs=2e-7)
    assert pf.non_degeneracy_gap(pf.TwoLayerNetwork(W, v), gmm) == pytest.approx(min(gaps), rel=1e-12)
    assert max(gaps) > 1e-3


def test_gap_keeps_its_digits_when_tiny():
    gmm = pf.OrthonormalGMM(6, 2, 2, 0.1, centers="canonical")
    for tie in (1e-3, 1e-6, 1e-9):  # d = 1 - sqrt(1 - tie^2 / 2) = tie^2 / 4 + ...
        u = np.array([0.5 + tie / 2, 0.5 - tie / 2, 0, 0, 0.5, 0.5])
        gap = pf.non_degeneracy_gap(pf.TwoLayerNetwork([u], [1.0]), gmm)
        assert gap == pytest.approx(tie**2 / 4, rel=1e-5)


def test_gap_of_known_networks():
    gmm = pf.OrthonormalGMM(6, 3, 2, 0.1, rng=0)
    centres = pf.classifiers.cluster_prelu(gmm)
    assert pf.non_degeneracy_gap(centres, gmm) == pytest.approx(1.0 - np.sqrt(0.5), rel=1e-12)
    tied = pf.TwoLayerNetwork(gmm.centers[:1] + gmm.centers[1:2], [1.0])
    assert pf.non_degeneracy_gap(tied, gmm) == pytest.approx(0.0, abs=1e-30)
    for W, v in (([np.zeros(6)], [1.0]), ([gmm.centers[0]], [0.0])):
        assert pf.non_degeneracy_gap(pf.TwoLayerNetwork(W, v), gmm) == 0.0


# ---- made for data


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_like_takes_dim_and_dtype_from_the_data(dtype):
    X = np.random.default_rng(0).standard_normal((10, 7)).astype(dtype)
    network = pf.initialize(5, scale=0.1, like=X, rng=3)
    assert (network.dim, network.dtype) == (7, np.dtype(dtype))
    same = pf.initialize(5, 7, 0.1, dtype=dtype, rng=3)
    np.testing.assert_array_equal(network.directions, same.directions)
    np.testing.assert_array_equal(network.log_norm, same.log_norm)
    for more in ({"dim": 7}, {"dtype": dtype}, {"dim": 7, "dtype": dtype}):
        again = pf.initialize(5, scale=0.1, like=X, rng=3, **more)
        np.testing.assert_array_equal(again.directions, same.directions)
    assert pf.gradient_descent(network, X, np.sign(X[:, 0]), step=0.1, steps=1).status == "finished"


def test_integers_say_the_dim_and_leave_the_dtype():
    counts = np.arange(12).reshape(4, 3)
    assert pf.initialize(5, scale=0.1, like=counts).dtype == np.float32
    network = pf.initialize(5, scale=0.1, like=counts, dtype="float64")
    assert (network.dim, network.dtype) == (3, np.float64)


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"like": np.ones((2, 3)), "dim": 4}, ValueError, r"dim must be 3.*got 4"),
        ({"like": np.ones((2, 3)), "dtype": "float32"}, ValueError, r"dtype must be float64.*got 'float32'"),
        ({"like": np.ones((2, 3), "float16")}, ValueError, r"dtype of like must be float32 or float64"),
        ({"like": np.ones(3)}, ValueError, r"like must be data of shape \(n, D\)"),
        ({"like": np.ones((0, 3))}, ValueError, r"like .*empty"),
        ({"like": [["a"]]}, TypeError, r"like must hold real numbers"),
        ({}, TypeError, r"dim .*like=X"),
        ({"dim": 3, "scale": None}, TypeError, r"scale must be a real number"),
    ],
)
def test_what_is_at_odds_with_the_data_is_refused(options, error, named):
    with pytest.raises(error, match=named):
        pf.initialize(5, **{"scale": 0.1, **options})


def test_the_error_for_another_dtype_names_the_fix():
    X, y = np.random.default_rng(0).standard_normal((10, 7)), np.ones(10)
    with pytest.raises(TypeError, match=r"X has dtype float64 but the network has float32.*like=X") as caught:
        pf.gradient_descent(pf.initialize(5, 7, 0.1), X, y, step=0.1, steps=1)
    assert "X.astype('float32')" in str(caught.value)
    assert pf.gradient_descent(pf.initialize(5, scale=0.1, like=X), X, y, step=0.1, steps=1).status == "finished"
