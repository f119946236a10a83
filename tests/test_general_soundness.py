"""Brackets of general networks: known answers by hand, identities between networks, and a sweep against brute force."""

import general_nets as general
import numpy as np
import pytest
from general_oracle import LD, Adversary, State, nearest_error

import preluflow as pf

LEVELS = ("fast", "tight", "exact")
NETS = 60  # of the sweep, at each level
FREE = Adversary(np.ones(2, dtype=bool))


def linear_network(A, B, *, p=1.0, **parts):
    """F = A x + B (C, D), (C,): each row as the difference of relu(<a,x>) and relu(-<a,x>); one output of a vector."""
    A = np.atleast_2d(A)
    W = np.concatenate([A, -A])
    v = np.concatenate([np.eye(len(A)), -np.eye(len(A))])
    return pf.TwoLayerNetwork(W, v[:, 0] if len(A) == 1 else v, p=p, output_bias=B, **parts)


def random_network(seed, *, C=3, h=12, D=5, p=2.0, activation="prelu", **parts):
    rng = np.random.default_rng(seed)
    W, v = rng.standard_normal((h, D)), rng.standard_normal((h, C) if C > 1 else h)
    return W, v, {"activation": activation, "p": p, **parts}, rng.standard_normal((10, D))


def bracket(network, X, level, y=None, **told):
    y = network.predict(X) if y is None else y
    radius = pf.robust_radius(network, X, y, level, **told)
    assert radius.consistent.all()
    return radius


# ---- the oracle


def test_the_oracle_finds_what_is_known():
    rng = np.random.default_rng(0)
    W = rng.standard_normal((3, 2))
    net = linear_network(W, np.array([0.2, -0.1, 0.4]))
    for x in rng.standard_normal((10, 2)):
        F, y = net.decision_function(x[None])[0], int(net.predict(x[None])[0])
        exact = min((F[y] - F[c]) / np.linalg.norm(W[y] - W[c]) for c in range(3) if c != y)
        assert nearest_error(State.of(net), x, y, FREE) == pytest.approx(exact, rel=1e-8)
    relu = pf.TwoLayerNetwork([[3.0, 4.0]], [2.0], p=3.0, hidden_bias=[5.0])  # dead beyond <w,x> = -5: a tie
    assert nearest_error(State.of(relu), np.array([1.0, 1.0]), 1, FREE) == pytest.approx(12.0 / 5.0, rel=1e-12)


@pytest.mark.parametrize("index", range(40))
def test_the_oracle_computes_what_the_network_does(index):
    case = general.make(11, index)
    network, state = case.build(), State.of(case.build())
    own = state.number(network.predict(case.X))
    margins, bound = state.margins(case.X, own, LD)[0], state.margins(case.X, own, np.float64)[1]
    assert np.all(margins >= -bound)  # the largest is the largest, but for rounding
    F = np.asarray(network.decision_function(case.X))
    F = np.stack([0 * F, F], axis=1) if F.ndim == 1 else F
    there = np.isfinite(F).all(axis=1) & (np.abs(F).max(axis=1) > 1e-290)
    if there.any():
        rows = np.arange(len(F))
        found = F[rows, own][:, None] - F
        scale = np.abs(F).max() / np.maximum(np.abs(state.outputs(case.X, LD)).max(), 1e-300)
        others = np.arange(F.shape[1]) != own[:, None]
        error = np.abs(found / float(scale) - margins.astype(float))[others & there[:, None]]
        assert np.all(error <= 4.0 * bound.astype(float)[others & there[:, None]] + 1e-300 + 1e-12 * error)


# ---- known answers


@pytest.mark.parametrize("level", LEVELS)
def test_a_biased_linear_network(level):
    rng = np.random.default_rng(1)
    w, b, center = rng.standard_normal(6), 0.7, rng.standard_normal(6)
    X = rng.standard_normal((20, 6))
    for net, value in (
        (linear_network(w, b), X @ w + b),
        (linear_network(w, b, center=center), (X - center) @ w + b),
        (pf.TwoLayerNetwork([w, -w], [1.0, -1.0], p=1.0, hidden_bias=[b, -b]), X @ w + b),
    ):
        radius = bracket(net, X, level)
        exact = np.abs(value) / np.linalg.norm(w)
        np.testing.assert_allclose(radius.upper, exact, rtol=1e-9)
        assert np.all(radius.lower <= exact * (1 + 1e-12))
        if level == "exact":
            np.testing.assert_allclose(radius.lower, exact, rtol=2e-3)
        np.testing.assert_array_equal(radius.reached, -net.predict(X))


@pytest.mark.parametrize("level", LEVELS)
def test_a_linear_network_of_several_classes(level):
    rng = np.random.default_rng(2)
    A, B = rng.standard_normal((4, 5)), rng.standard_normal(4)
    net, X = linear_network(A, B), rng.standard_normal((20, 5))
    F, y = X @ A.T + B, net.predict(X)
    np.testing.assert_array_equal(y, F.argmax(axis=1))
    rows = np.arange(len(X))
    length = np.linalg.norm(A[y][:, None] - A, axis=2)
    pairs = np.where(length > 0, (F[rows, y][:, None] - F) / np.where(length > 0, length, 1.0), np.inf)
    radius = bracket(net, X, level)
    np.testing.assert_allclose(radius.upper, pairs.min(axis=1), rtol=1e-6)
    assert np.all(radius.lower <= pairs.min(axis=1) * (1 + 1e-12))
    np.testing.assert_array_equal(radius.reached, pairs.argmin(axis=1))
    if level == "exact":
        np.testing.assert_allclose(radius.lower, pairs.min(axis=1), rtol=2e-3)


@pytest.mark.parametrize("level", LEVELS)
def test_fixed_coordinates_of_a_linear_network(level):
    rng = np.random.default_rng(3)
    w, X = rng.standard_normal(6), rng.standard_normal((10, 6))
    net, fixed = linear_network(w, 0.3), np.array([True, False, False, True, False, False])
    radius = bracket(net, X, level, fixed=fixed)
    exact = np.abs(X @ w + 0.3) / np.linalg.norm(w[~fixed])
    np.testing.assert_allclose(radius.upper, exact, rtol=1e-9)
    assert np.all(radius.lower <= exact * (1 + 1e-12))
    np.testing.assert_array_equal(radius.witness[:, fixed], 0.0)


@pytest.mark.parametrize("level", LEVELS)
def test_one_tanh_neuron_and_a_bias(level):
    w, b, B = np.array([0.3, -0.4]), 0.2, -0.5
    net = pf.TwoLayerNetwork([w], [1.0], activation="tanh", hidden_bias=[b], output_bias=B)
    X = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, -3.0], [-2.0, 0.5]])
    exact = np.abs(X @ w + b - np.arctanh(-B)) / 0.5
    radius = bracket(net, X, level)
    np.testing.assert_allclose(radius.upper, exact, rtol=1e-9)
    assert np.all((0 < radius.lower) & (radius.lower <= exact * (1 + 1e-12)))


# ---- two networks that are one


# Certificates of one form differ by rounding; where they are searched for, the last bits decide which search wins.
SEARCHED = {"fast": 1e-9, "tight": 2e-2, "exact": 1e-3}


def assert_same(first, second, level):
    np.testing.assert_allclose(first.lower, second.lower, rtol=SEARCHED[level])
    np.testing.assert_allclose(first.upper, second.upper, rtol=1e-3)
    np.testing.assert_array_equal(first.correct, second.correct)
    assert np.all(first.lower <= second.upper) and np.all(second.lower <= first.upper)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("p", [1.0, 1.5, 3.0])
def test_two_classes_are_their_difference(level, p):
    W, v, options, X = random_network(4, C=2, p=p)
    B = np.array([0.4, 0.1])
    two = pf.TwoLayerNetwork(W, v, output_bias=B, **options)
    one = pf.TwoLayerNetwork(W, v[:, 1] - v[:, 0], output_bias=B[1] - B[0], **options)
    first, second = bracket(two, X, level), bracket(one, X, level)
    assert_same(first, second, level)
    if level == "fast":  # rounding is in proportion to ||x||
        assert np.all(np.abs(first.lower - second.lower) <= 1e-12 * np.linalg.norm(X, axis=1))
    np.testing.assert_array_equal(first.reached, np.where(second.reached > 0, 1, 0))


@pytest.mark.parametrize("level", LEVELS)
def test_names_of_the_classes_change_nothing(level):
    W, v, options, X = random_network(5, C=4, hidden_bias=np.linspace(-0.5, 0.5, 12))
    names = np.array([11, -3, 5, 0])
    plain, named = pf.TwoLayerNetwork(W, v, **options), pf.TwoLayerNetwork(W, v, classes=names, **options)
    first, second = bracket(plain, X, level), bracket(named, X, level)
    for name in ("lower", "upper", "witness"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(names[first.reached], second.reached)


@pytest.mark.parametrize("level", LEVELS)
def test_order_of_the_outputs_does_not_matter(level):
    W, v, options, X = random_network(6, C=4, hidden_bias=np.linspace(-0.5, 0.5, 12))
    order, B = np.array([2, 0, 3, 1]), np.array([0.1, 0.0, -0.1, 0.2])
    plain = pf.TwoLayerNetwork(W, v, output_bias=B, **options)
    other = pf.TwoLayerNetwork(W, v[:, order], output_bias=B[order], **options)
    first, second = bracket(plain, X, level), bracket(other, X, level)
    assert_same(first, second, level)
    np.testing.assert_array_equal(first.reached, order[second.reached])


@pytest.mark.parametrize("level", LEVELS)
def test_a_shifted_network_has_the_radii_of_the_one_it_is_a_copy_of(level):
    W, v, options, X = random_network(7, C=1, p=2.5)
    shift = np.array([0.5, -1.0, 2.0, 0.25, -0.75])
    X = np.round(X * 2**20) / 2**20  # so that x + shift - shift is x
    plain = pf.TwoLayerNetwork(W, v, **options)
    centered = pf.TwoLayerNetwork(W, v, center=shift, **options)
    biased = pf.TwoLayerNetwork(W, v, hidden_bias=-W @ shift, **options)
    first, second, third = (
        bracket(net, x, level) for net, x in ((plain, X), (centered, X + shift), (biased, X + shift))
    )
    assert_same(first, second, level)
    # With offsets some certificates do not apply: only what both prove and find must fit.
    assert np.all(third.lower <= first.upper * (1 + 1e-9)) and np.all(first.lower <= third.upper * (1 + 1e-9))
    # Attacks are searches: now and then one of them ends in another valley.
    assert np.mean(np.abs(first.upper / third.upper - 1.0) < 1e-2) >= 0.9


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_fixed_coordinates_are_offsets(level, p):
    W, v, options, X = random_network(8, C=3, D=6, p=p)
    fixed, held = np.arange(6) >= 4, np.array([0.7, -0.3])
    X[:, fixed] = held
    whole = pf.TwoLayerNetwork(W, v, **options)
    lengths = np.linalg.norm(W[:, ~fixed], axis=1) / np.linalg.norm(W, axis=1)
    part = pf.TwoLayerNetwork(W[:, ~fixed], v * lengths[:, None] ** (p - 1), hidden_bias=W[:, fixed] @ held, **options)
    first, second = bracket(whole, X, level, fixed=fixed), bracket(part, X[:, ~fixed], level)
    assert_same(first, second, level)
    np.testing.assert_array_equal(first.witness[:, fixed], 0.0)


@pytest.mark.parametrize("level", LEVELS)
def test_normalised_input_changes_no_sign_without_biases(level):
    W, v, options, X = random_network(9, C=1, p=3.0)
    plain = bracket(pf.TwoLayerNetwork(W, v, **options), X, level)
    normalised = bracket(pf.TwoLayerNetwork(W, v, normalize_input=True, **options), X, level)
    assert np.all(normalised.lower <= plain.upper * (1 + 1e-9))
    assert np.all(plain.lower <= normalised.upper * (1 + 1e-9))
    np.testing.assert_allclose(plain.upper, normalised.upper, rtol=1e-6)


@pytest.mark.parametrize("level", LEVELS)
def test_a_box_keeps_witnesses_and_only_lengthens_them(level):
    W, v, options, X = random_network(10, C=3, hidden_bias=np.linspace(-0.5, 0.5, 12))
    net = pf.TwoLayerNetwork(W, v, **options)
    free, boxed = bracket(net, X, level), bracket(net, X, level, bounds=(X.min() - 0.01, X.max() + 0.01))
    moved = X + boxed.witness
    found = np.isfinite(boxed.upper)
    assert found.any()
    assert np.all((moved >= X.min() - 0.01) & (moved <= X.max() + 0.01))
    assert np.all(boxed.upper >= free.lower)


def test_the_centre_of_a_normalised_network_is_what_its_biases_say():
    # Without offsets the sum vanishes at the centre; F = B there, and where B is an error the radius is at most ||x'||.
    W, v, options, X = random_network(11, C=2, p=3.0)
    for B, right in (([1.0, 0.0], 0), ([0.0, 1.0], 1)):
        net = pf.TwoLayerNetwork(W, v, output_bias=B, normalize_input=True, **options)
        y = net.predict(X)
        for level in LEVELS:
            radius = bracket(net, X, level, y)
            limit = np.where(y == right, np.inf, np.linalg.norm(X, axis=1))
            assert np.all(radius.upper <= limit * (1 + 1e-12))
            at = bracket(net, np.zeros((1, 5)), level, [right])
            assert at.correct.all() and at.upper[0] > 0


# ---- the sweep


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_unsound_on_hostile_general_networks(level):
    first = NETS * LEVELS.index(level)
    failures, ratios = [], []
    for index in range(first, first + NETS):
        seen = general.check(general.make(3, index), level, max_nodes=200)
        failures += [violation.text for violation in seen.violations]
        known = np.isfinite(seen.nearest) & (seen.nearest > 0)
        ratios.extend(seen.lower[known] / seen.nearest[known])
    assert not failures, f"{len(failures)} violations:\n" + "\n\n".join(failures[:3])
    assert len(ratios) > 2 * NETS
    assert np.median(ratios) > {"fast": 0.5, "tight": 0.98, "exact": 0.99}[level]


def test_what_cancels_leaves_no_doubt_on_what_it_is_added_to():
    W = [[0.0, 1.0], [1.0, 1.0], [0.0, 2.0]]
    v = [[-2.0, -2.0], [0.0, -1.0], [1.0, -2.0]]  # of the first class the two along (0, 1) cancel
    found = pf.robust_radius(pf.TwoLayerNetwork(W, v, p=2.5, output_bias=[0.0, 2.0]), [[4.0, 3.0]], [0])
    assert found.correct.all()
    assert found.lower[0] > 0.5


@pytest.mark.parametrize("level", LEVELS)
def test_a_bias_of_normalised_input_against_a_neuron_that_nothing_moves(level):
    # In the free coordinate t the margin times ||x|| is |t| - 2 s^2, s the offset: an error from |t| = 2 s^2 on.
    s = 0.4241781977716909
    net = pf.TwoLayerNetwork(
        [[1.0, 0.0]], [[0.0, -2.0]], p=2.0, hidden_bias=[s], output_bias=[0.0, 1.0], normalize_input=True
    )
    found = bracket(net, np.array([[0.0, 1.0], [0.0, -3.0]]), level, np.array([1, 1]), fixed=np.array([True, False]))
    truth = np.array([1.0, 3.0]) - 2 * s**2
    assert np.all(found.lower <= truth * (1 + 1e-12))
    assert np.all(found.lower >= 0.999 * truth)
    assert found.upper == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("activation", ["tanh", "prelu"])
def test_equal_outputs_tie_wherever_neurons_are_merged(level, activation):
    rng = np.random.default_rng(0)
    W, v = rng.standard_normal((7, 3)), rng.standard_normal((7, 4))
    W[2] = W[3] = -W[5]
    W[4] = W[1]
    v[:, 1] = v[:, 0]
    net = pf.TwoLayerNetwork(W, v, activation=activation)
    X = rng.standard_normal((30, 3))
    for y in (0, 1):
        found = pf.robust_radius(net, X, np.full(30, y), level)
        assert not found.correct.any()
        assert not found.lower.any()
        assert not found.upper.any()


@pytest.mark.parametrize("level", LEVELS)
def test_what_all_but_cancels_in_a_tanh_network_certifies_nothing(level):
    # Merged in another order the sums of both outputs differ by rounding: the margin's sign is not known.
    rng = np.random.default_rng(1)
    shares = rng.standard_normal(5)
    W = np.repeat(rng.standard_normal((1, 3)), 5, axis=0)
    net = pf.TwoLayerNetwork(W, np.column_stack([shares, np.roll(shares, 2)]), activation="tanh")
    X = rng.standard_normal((40, 3))
    for y in (0, 1):
        assert not pf.robust_radius(net, X, np.full(40, y), level).lower.any()
