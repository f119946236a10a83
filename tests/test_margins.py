"""Robust radii: certified <= exact <= attacked, witnesses that hold, known answers, invariances, degenerate cases."""

import numpy as np
import pytest
import reference as ref

import preluflow as pf
from preluflow import margins


class Uncertified:
    """A network that shows nothing but its outputs and their gradient."""

    def __init__(self):
        network = pf.TwoLayerNetwork(np.eye(3), [1.0, -1.0, -1.0], "tanh")
        self.decision_function, self.input_gradient = network.decision_function, lambda X: network.input_gradient(X)


def random_network(rng, D, *, width=None, p=None):
    """A net as hostile as one finds: few neurons, ratios of 10^4, near-opposite pairs, p from 1 to 6."""
    h = int(rng.integers(1, 8)) if width is None else width
    W, v = rng.standard_normal((h, D)), rng.standard_normal(h) * 10 ** rng.uniform(-2, 2, h)
    if h > 1 and rng.random() < 0.3:
        W[1] = -W[0] + 1e-3 * rng.standard_normal(D)
    p = float(rng.choice([1, 1.5, 2, 2.5, 3, 4, 6])) if p is None else p
    return pf.TwoLayerNetwork(W, v, str(rng.choice(["prelu", "polynomial"])), p)


def values(network, X):
    """Outputs up to a positive factor, in float64, by the oracle's formula."""
    c = network.sign * np.exp(network.log_contributions - network.log_contributions.max())
    return ref.relu_power(X @ network.directions.astype(np.float64).T, network.p) @ c


def reached_in_the_plane(network, x, y, angles=720, radii=200):
    """Shortest length on a polar grid around x (2,) with y f <= 0, and the grid's step."""
    turn = np.linspace(0, 2 * np.pi, angles, endpoint=False)
    lengths = np.linalg.norm(x) * np.arange(1, radii + 1) / radii
    for length in lengths:
        points = x + length * np.c_[np.cos(turn), np.sin(turn)]
        if (y * values(network, points) <= 0).any():
            return length
    return lengths[-1]


def test_brackets_hold_against_brute_force_in_the_plane():
    rng = np.random.default_rng(0)
    checked, tight = 0, []
    for _ in range(120):
        network = random_network(rng, 2)
        X = rng.standard_normal((5, 2))
        y = np.where(values(network, X) > 0, 1, -1)
        found = pf.robust_radius(network, X, y)
        for i in np.flatnonzero(found.correct):
            reached = reached_in_the_plane(network, X[i], y[i])
            assert found.lower[i] <= reached * (1 + 1e-9)
            checked += 1
            tight.append(found.upper[i] / reached)
        assert found.consistent.all()
    assert checked > 400
    assert np.quantile(tight, 0.97) < 1.02  # the attack finds what the grid finds


@pytest.mark.parametrize("D", [2, 3, 8, 40])
def test_nothing_within_the_certified_ball_is_an_error(D):
    rng = np.random.default_rng(D)
    for _ in range(60):
        network = random_network(rng, D)
        X = rng.standard_normal((4, D))
        y = np.where(values(network, X) > 0, 1, -1)
        found = pf.robust_radius(network, X, y)
        for i in np.flatnonzero(found.correct):
            d = rng.standard_normal((400, D))
            d[:50] = -X[i] + 0.1 * d[:50]
            U = network.directions
            d[50:100] = -y[i] * (network.sign[:, None] * U)[rng.integers(len(U), size=50)] + 0.1 * d[50:100]
            d *= found.lower[i] / np.linalg.norm(d, axis=1, keepdims=True)
            assert np.all(y[i] * values(network, X[i] + d) > 0) or found.lower[i] == 0


def test_witnesses_change_the_decision_and_are_as_long_as_said():
    rng = np.random.default_rng(1)
    for dtype in ("float32", "float64"):
        network = random_network(rng, 20, width=12, p=3.0).astype(dtype)
        X = rng.standard_normal((200, 20)).astype(dtype)
        y = rng.choice([-1.0, 1.0], 200)
        found = pf.robust_radius(network, X, y)
        assert found.upper.dtype == found.lower.dtype == found.witness.dtype == np.float64
        right = y * values(network, X.astype(np.float64)) > 0
        np.testing.assert_array_equal(found.correct, right)
        np.testing.assert_allclose(np.linalg.norm(found.witness, axis=1), found.upper, rtol=1e-14)
        after = y * values(network, X.astype(np.float64) + found.witness)
        assert np.all(after <= 1e-12 * np.abs(values(network, X.astype(np.float64))).max())
        assert np.all(found.upper[~right] == 0)
        assert np.all(found.lower[~right] == 0)
        assert np.all(found.lower <= np.linalg.norm(X, axis=1))


def test_the_radius_of_nearest_cluster_like_networks_is_known():
    # F^(p) on a plane of one centre each: the boundary is <x,mu_1> = <x,mu_2>, and lower = upper.
    gmm = pf.OrthonormalGMM(30, 1, 1, 0.3, rng=0)
    data = gmm.sample(100, dtype="float64", rng=1)
    for p in (1.0, 2.0, 3.0, 4.5):
        network = pf.classifiers.cluster_prelu(gmm, p).astype("float64")
        found = pf.robust_radius(network, data.X, data.y)
        exact = pf.theory.nearest_cluster_radius(gmm, data.X, data.y)
        np.testing.assert_allclose(found.upper, exact, rtol=1e-7)
        assert np.all(found.lower <= exact * (1 + 1e-9))
        if p == 1.0:
            inside = (data.X @ gmm.centers.T).min(axis=1) > 0
            np.testing.assert_allclose(found.lower[inside], exact[inside], rtol=1e-6)


def test_of_one_neuron_the_boundary_is_its_half_space():
    x = np.array([[3.0, 4.0], [-1.0, 0.0]])
    found = pf.robust_radius(pf.TwoLayerNetwork([[2.0, 0.0]], [5.0], p=3.0), x, [1, 1])
    np.testing.assert_allclose(found.lower, [3.0, 0.0], rtol=1e-8)
    np.testing.assert_allclose(found.upper, [3.0, 0.0], rtol=1e-12)
    np.testing.assert_array_equal(found.correct, [True, False])  # f = 0 is an error


@pytest.fixture(scope="module")
def trained():
    """A small net learned by the flow, and fresh points."""
    gmm = pf.OrthonormalGMM(120, 3, 2, 0.4, rng=0)
    data = gmm.sample(1000, balanced=True, rng=1)
    run = pf.gradient_flow(pf.initialize(40, 120, 1e-6, rng=2), data.X, data.y, t1=60.0, rtol=1e-2)
    return run.network, gmm.sample(300, rng=3), gmm


def test_what_the_flow_learns_is_bracketed_within_a_percent(trained):
    network, fresh, gmm = trained
    found = pf.robust_radius(network, fresh.X, fresh.y)
    assert found.correct.mean() > 0.99
    assert np.median(found.lower[found.correct] / found.upper[found.correct]) > 0.98
    # Proposition 1: no more than 1 - min(K1, K2)/K survive sqrt(2)/2, whatever a gradient attack says.
    certified, attacked = found.accuracy(pf.theory.MAX_RADIUS)
    assert certified <= attacked <= pf.theory.max_robust_accuracy(gmm) + 3 * np.sqrt(0.24 / 300)


def test_accuracy_counts_points(trained):
    network, fresh, _ = trained
    found = pf.robust_radius(network, fresh.X, fresh.y)
    radii = np.array([0.0, 0.2, 0.6, float(np.median(found.upper)), 2.0])
    certified, attacked = found.accuracy(radii)
    for r, low, high in zip(radii, certified, attacked, strict=True):
        assert low == pytest.approx(np.mean(found.correct & (found.lower >= r)))
        assert high == pytest.approx(np.mean(found.correct & (found.upper > r)))
    assert found.accuracy(0.0)[1] == found.correct.mean()
    assert "certified / attacked" in found.summary()


def test_radii_do_not_see_scale_rotation_order_or_a_neuron_split_in_two(trained):
    network, fresh, _ = trained
    base = pf.robust_radius(network.astype("float64"), fresh.X.astype("float64"), fresh.y, restarts=0)
    W, v = network.astype("float64").W, network.v
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((120, 120)))[0]
    order = np.random.default_rng(1).permutation(len(v))
    variants = {
        "scaled": (pf.TwoLayerNetwork(W, 1e5 * v, p=3.0), fresh.X),
        "rotated": (pf.TwoLayerNetwork(W @ Q.T, v, p=3.0), fresh.X.astype("float64") @ Q.T),
        "permuted": (pf.TwoLayerNetwork(W[order], v[order], p=3.0), fresh.X),
        "split": (pf.TwoLayerNetwork(np.r_[W, W[:1]], np.r_[0.3 * v[:1], v[1:], 0.7 * v[:1]], p=3.0), fresh.X),
    }
    for name, (net, X) in variants.items():
        found = pf.robust_radius(net, X.astype("float64"), fresh.y, restarts=0)
        np.testing.assert_allclose(found.lower, base.lower, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(found.upper, base.upper, rtol=1e-3, err_msg=name)


def test_bits_do_not_depend_on_threads_or_blocks(trained):
    network, fresh, _ = trained
    base = pf.robust_radius(network, fresh.X, fresh.y, num_threads=1)
    for threads in (2, 3):
        found = pf.robust_radius(network, fresh.X, fresh.y, num_threads=threads)
        np.testing.assert_array_equal(found.lower, base.lower)
        np.testing.assert_array_equal(found.upper, base.upper)
        np.testing.assert_array_equal(found.witness, base.witness)


def test_degenerate_networks_and_points():
    X = np.array([[1.0, 0.5], [0.0, 0.0], [-1.0, -1.0]])
    positive = pf.robust_radius(pf.TwoLayerNetwork(np.eye(2), [1.0, 2.0], p=3.0), X, [1, 1, 1])
    np.testing.assert_allclose(positive.upper, [np.hypot(1.0, 0.5), 0.0, 0.0], rtol=1e-9)
    assert positive.lower[0] <= positive.upper[0]
    with_dead = pf.TwoLayerNetwork([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], [1.0, 3.0, -1.0], p=3.0)
    without = pf.TwoLayerNetwork([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0], p=3.0)
    one, other = (pf.robust_radius(net, X[:1], [1]) for net in (with_dead, without))
    np.testing.assert_array_equal(one.upper, other.upper)
    nothing = pf.robust_radius(pf.TwoLayerNetwork(np.zeros((2, 2)), [1.0, -1.0], p=3.0), X, [1, 1, 1])
    assert not nothing.correct.any()
    assert not nothing.upper.any()


def test_results_are_saved_and_loaded(trained, tmp_path):
    network, fresh, _ = trained
    found = pf.robust_radius(network, fresh.X[:20], fresh.y[:20])
    found.save(tmp_path / "radius.npz")
    loaded = pf.RobustRadius.load(tmp_path / "radius.npz")
    for name in ("lower", "upper", "witness", "correct"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(found, name))
    assert loaded.config == found.config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "net"}, "classifier"),
        ({"network": Uncertified(), "level": "tight"}, "level"),
        ({"network": Uncertified(), "fixed": [True, False, False]}, "fixed"),
        ({"network": Uncertified(), "bounds": (-5.0, 5.0)}, "bounds"),
        ({"fixed": [1, 0, 0]}, "fixed must hold bools"),
        ({"fixed": [True, True, True]}, "fixed must leave"),
        ({"bounds": (0.0, 0.5)}, "X must lie within bounds"),
        ({"bounds": (1.0, 1.0)}, "low < high"),
        ({"bounds": 3.0}, "pair"),
        ({"bounds": ([0.0, 0.0], 2.0)}, "bounds\\[0\\] must be a number or have shape"),
        ({"level": "best"}, "level"),
        ({"max_nodes": 0}, "max_nodes"),
        ({"X": np.ones((2, 4))}, "X must have shape"),
        ({"X": np.full((2, 3), np.nan)}, "X must be finite"),
        ({"y": [1, 0]}, "labels"),
        ({"starts": -1}, "starts"),
        ({"starts": 0, "level": "tight"}, "starts"),
        ({"restarts": -1}, "restarts"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"network": pf.TwoLayerNetwork(np.ones((1, 3)), [1.0]), "X": np.ones((2, 3)), "y": [1, 1], **change}
    with pytest.raises((TypeError, ValueError), match=message):
        pf.robust_radius(arguments.pop("network"), arguments.pop("X"), arguments.pop("y"), **arguments)


# ---- levels


def hostile_points(rng, D, count=5):
    """A hostile net and points it classifies correctly."""
    network = random_network(rng, D)
    X = rng.standard_normal((count, D))
    return network, X, np.where(values(network, X) > 0, 1, -1)


@pytest.mark.parametrize("D", [2, 3, 8])
def test_levels_only_tighten(D):
    rng = np.random.default_rng(100 + D)
    for _ in range(40):
        network, X, y = hostile_points(rng, D)
        fast, tight, exact = (pf.robust_radius(network, X, y, level) for level in ("fast", "tight", "exact"))
        assert np.all(fast.lower <= tight.lower)
        assert np.all(tight.lower <= exact.lower)
        assert np.all(exact.upper <= fast.upper)
        for found in (fast, tight, exact):
            assert found.consistent.all()
            np.testing.assert_allclose(np.linalg.norm(found.witness, axis=1), found.upper, rtol=1e-14)


@pytest.mark.parametrize("D", [2, 3, 8])
def test_exact_radii_close_the_bracket(D):
    rng = np.random.default_rng(200 + D)
    gaps = []
    for _ in range(60):
        network, X, y = hostile_points(rng, D)
        found = pf.robust_radius(network, X, y, "exact")
        right = found.correct & (found.upper > 0)
        gaps.append(1 - found.lower[right] / found.upper[right])
    gaps = np.concatenate(gaps)
    assert gaps.max() <= 1.01e-4


def test_exact_radii_shorten_what_the_attack_found():
    # Two own neurons in the way: the shortest perturbation kills both, along no swap and no gradient.
    network = pf.TwoLayerNetwork([[1.0, 0.2], [0.2, 1.0], [-1.0, -1.0]], [1.0, 1.0, -1e-6], p=3.0)
    x = np.array([[0.8, 0.8]])
    found = pf.robust_radius(network, x, [1], "exact", restarts=0)
    assert found.lower[0] >= found.upper[0] * (1 - 1.01e-4)
    reached = reached_in_the_plane(network, x[0], 1, angles=3600, radii=2000)
    assert found.upper[0] == pytest.approx(reached, rel=2e-3)


@pytest.fixture(scope="module")
def rough():
    """A ReLU net from a large initialisation, far from any mixture of clusters, and fresh points."""
    gmm = pf.OrthonormalGMM(60, 3, 2, 0.1, rng=0)
    data = gmm.sample(1000, balanced=True, rng=1)
    start = pf.initialize(30, 60, 0.5, kind="gaussian", p=1.0, rng=2)
    run = pf.sgd(start, data.X, data.y, step=0.02, batch=50, epochs=40, rng=3)
    return run.network, gmm.sample(150, rng=4)


def test_tight_brackets_networks_that_the_tangent_form_does_not(rough):
    network, fresh = rough
    ratios = {}
    for level in ("fast", "tight"):
        found = pf.robust_radius(network, fresh.X, fresh.y, level)
        assert found.correct.mean() > 0.95
        ratios[level] = found.lower[found.correct] / found.upper[found.correct]
    assert np.median(ratios["fast"]) < 0.8
    assert np.median(ratios["tight"]) > 0.95
    assert np.quantile(ratios["tight"], 0.05) > 0.85


@pytest.mark.parametrize("level", ["tight", "exact"])
def test_bits_of_levels_do_not_depend_on_threads(rough, level):
    network, fresh = rough
    one, more = (
        pf.robust_radius(network, fresh.X[:20], fresh.y[:20], level, max_nodes=200, num_threads=threads)
        for threads in (1, 3)
    )
    np.testing.assert_array_equal(one.lower, more.lower)
    np.testing.assert_array_equal(one.witness, more.witness)


def test_too_few_nodes_still_certify(rough):
    network, fresh = rough
    tight, few, more = (
        pf.robust_radius(network, fresh.X[:10], fresh.y[:10], level, max_nodes=nodes)
        for level, nodes in (("tight", 1), ("exact", 5), ("exact", 500))
    )
    assert np.all(tight.lower <= few.lower)
    assert np.all(few.lower <= more.lower * (1 + 1e-9))
    assert np.all(more.lower <= few.upper)


# ---- other classifiers


def test_classifiers_bring_their_own_certificates():
    gmm = pf.OrthonormalGMM(40, 3, 2, 0.5, rng=0)
    fresh = gmm.sample(200, rng=1)
    linear = pf.classifiers.Linear(np.ones(40), 0.3)
    found = pf.robust_radius(linear, fresh.X, np.where(linear.decision_function(fresh.X) > 0, 1, -1))
    exact = np.abs(linear.decision_function(fresh.X)) / np.sqrt(40)
    np.testing.assert_allclose(found.lower, exact, rtol=1e-8)
    np.testing.assert_allclose(found.upper, exact, rtol=1e-8)
    nearest = pf.robust_radius(pf.classifiers.NearestCluster(gmm), fresh.X, fresh.y)
    np.testing.assert_allclose(nearest.upper, pf.theory.nearest_cluster_radius(gmm, fresh.X, fresh.y), rtol=1e-8)
    np.testing.assert_allclose(nearest.lower, nearest.upper, rtol=1e-8)
    bayes = pf.robust_radius(pf.classifiers.Bayes(gmm), fresh.X, fresh.y)
    assert bayes.consistent.all()
    assert np.median(bayes.lower[bayes.correct] / bayes.upper[bayes.correct]) > 0.97
    assert "attacked only" not in bayes.summary() + repr(bayes)


def test_without_starts_there_are_certificates_alone(trained):
    network, fresh, _ = trained
    y = np.where(np.arange(len(fresh.y)) % 7, fresh.y, -fresh.y)  # some are wrong
    alone, whole = (pf.robust_radius(network, fresh.X, y, **options) for options in ({"starts": 0}, {}))
    np.testing.assert_array_equal(alone.lower, whole.lower)
    np.testing.assert_array_equal(alone.correct, whole.correct)
    np.testing.assert_array_equal(alone.reached[~alone.correct], whole.reached[~alone.correct])
    np.testing.assert_array_equal(alone.upper, np.where(alone.correct, np.inf, 0.0))
    assert not alone.witness.any()
    three = np.random.default_rng(0).standard_normal((5, 3))
    net = pf.TwoLayerNetwork(
        np.eye(3), [[1.0, 0.0, -1.0], [0.0, 1.0, 0.0], [0.5, 0.0, 1.0]], output_bias=[0.5, 0.0, 0.0]
    )
    of_three = pf.robust_radius(net, three, [0, 0, 0, 0, 1], starts=0)
    np.testing.assert_array_equal(of_three.lower, pf.robust_radius(net, three, [0, 0, 0, 0, 1]).lower)
    np.testing.assert_array_equal(of_three.upper, np.where(of_three.correct, np.inf, 0.0))
    assert of_three.correct.any()
    assert not of_three.witness.any()
    other = pf.robust_radius(Uncertified(), three, [1, 1, 1, -1, -1], starts=0)
    seen = pf.robust_radius(Uncertified(), three, [1, 1, 1, -1, -1])
    np.testing.assert_array_equal(other.correct, seen.correct)
    np.testing.assert_array_equal(other.upper, np.where(other.correct, np.inf, 0.0))
    with pytest.raises(ValueError, match="starts"):
        pf.robust_radius(network, fresh.X, y, "tight", starts=0)


def test_without_a_certificate_a_result_says_attacked_only(tmp_path):
    network = Uncertified()
    x = np.array([[1.0, 0.2, 0.1], [0.1, 0.9, 0.0]])
    found = pf.robust_radius(network, x, [1, -1])
    assert not found.lower.any()
    assert np.all(found.upper > 0)
    after = [1, -1] * network.decision_function(x + found.witness)
    assert np.all(after <= 0)
    assert "attacked only" in found.summary()
    found.save(tmp_path / "radius.npz")
    assert "attacked only" in repr(pf.RobustRadius.load(tmp_path / "radius.npz"))


def test_a_polynomial_and_a_prelu_net_of_one_function_have_one_radius(trained):
    network, fresh, _ = trained
    same = pf.TwoLayerNetwork.from_polar(
        network.directions, np.zeros(network.width), network.sign, network.log_contributions, "polynomial", network.p
    )
    one, other = (pf.robust_radius(net, fresh.X[:50], fresh.y[:50]) for net in (network, same))
    np.testing.assert_allclose(one.lower, other.lower, rtol=1e-12)
    np.testing.assert_allclose(one.upper, other.upper, rtol=1e-9)


# ---- margins


def test_margins_are_what_they_say():
    rng = np.random.default_rng(0)
    W, v = rng.standard_normal((6, 9)), rng.standard_normal(6)
    X, y = rng.standard_normal((20, 9)), rng.choice([-1.0, 1.0], 20)
    for activation, degree in (("prelu", 2.0), ("polynomial", 4.0)):
        network = pf.TwoLayerNetwork(W, v, activation, 3.0)
        functional = pf.functional_margins(network, X, y)
        np.testing.assert_allclose(functional, y * network.decision_function(X), rtol=1e-12)
        normalized = pf.normalized_margins(network, X, y)
        theta = np.sqrt((W**2).sum() + (v**2).sum())
        np.testing.assert_allclose(normalized, functional / theta**degree, rtol=1e-12)
        tiny = pf.TwoLayerNetwork(1e-120 * W, 1e-120 * v, activation, 3.0)
        np.testing.assert_allclose(pf.normalized_margins(tiny, X, y), normalized, rtol=1e-9)
    with pytest.raises(ValueError, match="tanh"):
        pf.normalized_margins(pf.TwoLayerNetwork(W, v, "tanh"), X, y)
    with pytest.raises(ValueError, match="not 0"):
        pf.normalized_margins(pf.TwoLayerNetwork(0 * W, 0 * v), X, y)


@pytest.mark.parametrize("level", ["fast", "exact"])
def test_points_in_float32_have_the_brackets_of_the_same_in_float64(trained, level):
    network, fresh, _ = trained
    X, y = fresh.X[:40].astype(np.float32), fresh.y[:40]
    few, many = (pf.robust_radius(network, points, y, level) for points in (X, X.astype(np.float64)))
    spread = pf.robust_radius(network, np.repeat(X, 2, axis=1)[:, ::2], y, level)  # not side by side in memory
    for other in (many, spread):
        for name in ("lower", "upper", "witness", "correct", "reached"):
            np.testing.assert_array_equal(getattr(few, name), getattr(other, name))
    assert few.witness.dtype == np.float64 and not few.witness[~few.correct].any()


def test_ctrl_c_returns_the_points_done(trained, monkeypatch):
    network, fresh, _ = trained
    whole = pf.robust_radius(network, fresh.X[:30], fresh.y[:30])
    bracket, calls = margins.Brackets.bracket, []

    def interrupted(self, X, y, first, effort, witness):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(first)
        return bracket(self, X, y, first, effort, witness)

    monkeypatch.setitem(margins._ROWS, "fast", 10)
    monkeypatch.setattr(margins.Brackets, "bracket", interrupted)
    found = pf.robust_radius(network, fresh.X[:30], fresh.y[:30])
    assert calls == [0, 10]
    np.testing.assert_allclose(found.lower, whole.lower[:20], rtol=1e-12)
    np.testing.assert_allclose(found.upper, whole.upper[:20], rtol=1e-9)
    calls[:] = [None, None]
    with pytest.raises(KeyboardInterrupt):  # nothing is done yet
        pf.robust_radius(network, fresh.X[:30], fresh.y[:30])
