"""Networks with several outputs, biases, a centre, normalised input and classes."""

import copy
import itertools
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import reference as ref
from conftest import make_problem

import preluflow as pf
from preluflow import results

DEGREES = (1.0, 1.5, 2.0, 3.0, 4.0)
KINDS = [(activation, p) for activation in ("prelu", "polynomial") for p in DEGREES] + [("tanh", 3.0)]
each_kind = pytest.mark.parametrize(("activation", "p"), KINDS)
each_count = pytest.mark.parametrize("outputs", [1, 2, 5])

# Which parts there are.
PARTS = [set(names) for k in range(5) for names in itertools.combinations(("b", "B", "center", "normalized"), k)]


@dataclass
class General:
    """A random network of moderate scale with some of the parts, and its formula."""

    W: np.ndarray
    v: np.ndarray
    parts: dict
    activation: str
    p: float

    def network(self, dtype="float64"):
        v = self.v[:, 0] if self.v.shape[1] == 1 else self.v
        return pf.TwoLayerNetwork(self.W, v, self.activation, self.p, dtype=dtype, **self.parts)

    def __call__(self, X):
        names = {"hidden_bias": "hidden_bias", "output_bias": "output_bias", "center": "center"}
        given = {new: self.parts[old] for old, new in names.items() if old in self.parts}
        normalized = self.parts.get("normalize_input", False)
        return ref.general_forward(self.W, self.v, X, self.activation, self.p, **given, normalized=normalized)


def make(activation, p, outputs, parts=("b", "B", "center", "normalized"), h=9, D=6, seed=0):
    rng = np.random.default_rng(seed)
    found = {}
    if "b" in parts:
        found["hidden_bias"] = 0.5 * rng.standard_normal(h)
    if "B" in parts:
        found["output_bias"] = rng.standard_normal(outputs)
    if "center" in parts:
        found["center"] = rng.standard_normal(D)
    if "normalized" in parts and activation != "tanh":
        found["normalize_input"] = True
    return General(rng.standard_normal((h, D)), rng.standard_normal((h, outputs)), found, activation, p)


def points(n=40, D=6, seed=1):
    return np.random.default_rng(seed).standard_normal((n, D))


def outputs_of(network, X):
    return network.decision_function(X).reshape(len(X), -1)


# ---- what it computes


@each_kind
@each_count
@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: "+".join(sorted(parts)) or "none")
def test_outputs_are_those_of_the_formula(activation, p, outputs, parts):
    general, X = make(activation, p, outputs, parts), points()
    expected = general(X)
    network = general.network()
    assert network.num_outputs == outputs
    assert network.decision_function(X).shape == ((len(X),) if outputs == 1 else (len(X), outputs))
    np.testing.assert_allclose(outputs_of(network, X), expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    labels = np.argmax(expected, axis=1) if outputs > 1 else np.where(expected[:, 0] > 0, 1, -1)
    np.testing.assert_array_equal(network.predict(X), labels)
    assert network.predict(X).dtype == np.int64
    single = general.network("float32")  # evaluated in float64, unless it is plain
    found = outputs_of(single, X.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-5 * max(1.0, np.abs(expected).max()))


@each_kind
@each_count
@pytest.mark.parametrize("parts", [set(), {"b"}, {"b", "B", "center"}, {"normalized"}, {"b", "center", "normalized"}])
def test_the_gradient_of_weighted_outputs_is_a_finite_difference(activation, p, outputs, parts):
    general, X = make(activation, p, outputs, parts), points(20)
    weights = np.random.default_rng(2).standard_normal((len(X), outputs))
    network = general.network()
    values, found = network.value_and_input_gradient(X, weights)
    np.testing.assert_array_equal(values, network.decision_function(X))
    np.testing.assert_array_equal(found, network.input_gradient(X, weights))
    moved = X - general.parts.get("center", 0.0)
    z = moved @ general.W.T + general.parts.get("hidden_bias", 0.0)
    away = np.abs(z).min(axis=1) > 1e-3  # of the kinks of p < 2
    expected = ref.central_difference(lambda X: (weights * general(X)).sum(), X)
    np.testing.assert_allclose(found[away], expected[away], rtol=0, atol=3e-8 * np.abs(expected).max())
    assert away.sum() > 10


@each_kind
@each_count
@pytest.mark.parametrize("parts", PARTS[::3])
def test_a_row_depends_on_itself_alone_bit_for_bit(activation, p, outputs, parts):
    general, X = make(activation, p, outputs, parts, h=37, D=17), points(131, D=17)
    network, weights = general.network(), np.ones((131, outputs))
    F, slopes = network.value_and_input_gradient(X, weights)
    for rows in (slice(0, 1), slice(3, 10), slice(50, 131), slice(130, 131)):
        np.testing.assert_array_equal(network.decision_function(X[rows]), F[rows])
        if not network.plain:
            np.testing.assert_array_equal(network.input_gradient(X[rows], weights[rows]), slopes[rows])
    for threads in (1, 2):
        again = network.value_and_input_gradient(X, weights, num_threads=threads)
        np.testing.assert_array_equal(again[0], F)
        np.testing.assert_array_equal(again[1], slopes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("activation", "p"), ref.KINDS)
def test_a_row_of_a_plain_network_depends_on_itself_alone_too(activation, p, dtype):
    data = make_problem(n=300, h=70, D=33)
    network, X = data.network(activation, p, dtype), data.X.astype(dtype)
    X[::7] *= 1e-30  # some rows leave what float32 holds of powers
    f = network.decision_function(X)
    for start, stop in ((0, 1), (1, 8), (24, 49), (97, 300), (299, 300)):
        np.testing.assert_array_equal(network.decision_function(X[start:stop]), f[start:stop])


@pytest.mark.parametrize(("activation", "p"), ref.KINDS)
@pytest.mark.parametrize("scale", [1.0, 1e-7, 1e-120, 1e60])
def test_the_evaluator_has_the_bits_of_plain_networks(activation, p, scale):
    data = make_problem(n=200, h=53, D=31)
    data.W *= scale
    network = data.network(activation, p)
    X = data.X * np.logspace(-80, 80, 200)[:, None]
    f = network.decision_function(X)
    np.testing.assert_array_equal(network._evaluator.outputs(X, 2)[:, 0], f)
    values, slopes = network._evaluator.gradient(X, np.ones((200, 1)), 2)
    np.testing.assert_array_equal(values[:, 0], f)
    ordinary = np.abs(np.log10(np.linalg.norm(X, axis=1))) < 5.0
    expected = network.input_gradient(X)[ordinary]
    np.testing.assert_allclose(slopes[ordinary], expected, rtol=0, atol=1e-300 + 1e-11 * np.abs(expected).max())


@each_kind
def test_two_outputs_are_their_difference(activation, p):
    general, X = make(activation, p, 2), points()
    two = general.network()
    one = pf.TwoLayerNetwork(
        general.W,
        general.v[:, 1] - general.v[:, 0],
        activation,
        p,
        **{**general.parts, "output_bias": np.diff(general.parts["output_bias"])},
        classes=[0, 1],
    )
    F, f = two.decision_function(X), one.decision_function(X)
    np.testing.assert_allclose(F[:, 1] - F[:, 0], f, rtol=0, atol=1e-12 * np.abs(F).max())
    np.testing.assert_array_equal(two.predict(X), one.predict(X))
    weights = np.tile([-1.0, 1.0], (len(X), 1))
    slopes = one.input_gradient(X)
    np.testing.assert_allclose(two.input_gradient(X, weights), slopes, rtol=0, atol=1e-12 * np.abs(slopes).max())


@each_kind
def test_a_centre_is_a_shift_and_an_offset_moves_a_kink(activation, p):
    general = make(activation, p, 3, {"b", "B"})
    shift = np.arange(6.0)
    moved = general.network().replace(center=shift)
    X = points()
    np.testing.assert_allclose(
        moved.decision_function(X + shift), general.network().decision_function(X), rtol=1e-11, atol=1e-11
    )
    by_hand = pf.TwoLayerNetwork([[3.0, 4.0]], [2.0], "prelu", 2.0, hidden_bias=[-5.0], output_bias=0.5)
    # z = <x,w> - 5, f = 2 sigma(z)^2 / 5 + 1/2
    np.testing.assert_allclose(
        by_hand.decision_function([[1.0, 0.5], [2.0, 1.0], [0.0, 0.0]]), [0.5, 2 * 25 / 5 + 0.5, 0.5], rtol=1e-15
    )


def test_one_input_that_is_normalised_by_hand():
    network = pf.TwoLayerNetwork([[2.0, 0.0]], [1.0], "prelu", 3.0, normalize_input=True, output_bias=[-1.0])
    # ||x||^-2 sigma(2 x_1)^3 / 4 - 1 = 2 x_1^3 / ||x||^2 - 1
    X = np.array([[1.0, 1.0], [3.0, 4.0], [-1.0, 0.0], [0.0, 0.0], [1e-200, 0.0], [1e200, 1e200]])
    expected = [0.0, 2 * 27 / 25 - 1.0, -1.0, -1.0, -1.0, 1e200]
    np.testing.assert_allclose(network.decision_function(X), expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_array_equal(network.input_gradient([[0.0, 0.0]]), 0.0)
    np.testing.assert_array_equal(network.predict([[0.0, 0.0]]), -1)


# ---- at any scale


@each_kind
@pytest.mark.parametrize("log_scale", [-700.0, -300.0, 250.0])
def test_a_factor_of_the_weights_is_one_of_the_outputs(activation, p, log_scale):
    general, X = make(activation, p, 3, {"b", "center", "normalized"}), points()
    network = general.network()
    F = network.decision_function(X)
    # What the norms lose the outer weights gain, so that outputs stay float64.
    degree = {"prelu": 1.0, "polynomial": p, "tanh": 0.0}[activation]
    outer = -degree * log_scale
    norm = network.log_norm if activation == "tanh" else network.log_norm + log_scale
    other = network.replace(log_norm=norm, log_abs_v=network.log_abs_v + outer)
    np.testing.assert_allclose(other.decision_function(X), F, rtol=0, atol=3e-12 * np.abs(F).max())
    weights = np.random.default_rng(3).standard_normal(F.shape)
    slopes = network.input_gradient(X, weights)
    np.testing.assert_allclose(other.input_gradient(X, weights), slopes, rtol=0, atol=3e-12 * np.abs(slopes).max())
    tiny = network.replace(log_abs_v=network.log_abs_v - 600.0)
    np.testing.assert_allclose(tiny.decision_function(X), F * np.exp(-600.0), rtol=1e-10, atol=0)
    vanishing = network.replace(log_abs_v=network.log_abs_v - 2000.0)
    np.testing.assert_array_equal(vanishing.decision_function(X), 0.0)
    np.testing.assert_array_equal(vanishing.predict(X), network.predict(X))


@pytest.mark.parametrize("activation", ["prelu", "polynomial"])
@pytest.mark.parametrize("p", DEGREES)
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("exponent", [-400, -60, 60, 300])
def test_a_factor_of_the_input_is_one_of_the_outputs(activation, p, normalized, exponent):
    general, X = make(activation, p, 2, {"b", "center"} | ({"normalized"} if normalized else set())), points()
    network = general.network()
    scale = 2.0**exponent
    power = exponent if normalized else p * exponent
    shrunk = network.replace(
        offsets=network.offsets * scale,
        center=network.center * scale,
        log_abs_v=network.log_abs_v - power * np.log(2.0),
    )
    F = network.decision_function(X)
    np.testing.assert_allclose(shrunk.decision_function(X * scale), F, rtol=0, atol=1e-11 * np.abs(F).max())
    weights = np.tile([0.3, -2.0], (len(X), 1))
    slopes = network.input_gradient(X, weights)
    with np.errstate(over="ignore"):
        expected = slopes / scale
    found = shrunk.input_gradient(X * scale, weights)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_epsilon_of_1e_300_is_ordinary():
    rng = np.random.default_rng(0)
    W, v, X = rng.standard_normal((5, 4)), rng.standard_normal((5, 3)), points(30, D=4)
    network = pf.TwoLayerNetwork(1e-300 * W, 1e-300 * v, hidden_bias=1e-300 * np.ones(5))
    unit = pf.TwoLayerNetwork(W, v, hidden_bias=np.ones(5))
    np.testing.assert_allclose(network.offsets, unit.offsets, rtol=1e-13)
    np.testing.assert_array_equal(network.predict(X), unit.predict(X))
    scaled, m = network.rescaled()
    at_unit, m_unit = unit.rescaled()
    assert m - m_unit == pytest.approx(2 * np.log(1e-300), rel=1e-13)
    np.testing.assert_allclose(scaled.decision_function(X), at_unit.decision_function(X), rtol=1e-11, atol=1e-11)


@each_kind
def test_offsets_of_1e6_cancel_as_far_as_float64_lets_them(activation, p):
    general = make(activation, p, 2, {"b", "B"})
    x = points(30)
    U = general.W / np.linalg.norm(general.W, axis=1, keepdims=True)
    far = np.zeros(6)
    far[0] = 1e6
    general.parts["hidden_bias"] = general.parts["hidden_bias"] - general.W @ far
    assert np.abs(U @ far).max() > 1e5
    near = make(activation, p, 2, {"b", "B"}).network()
    F = near.decision_function(x)
    found = general.network().decision_function(x + far)
    np.testing.assert_allclose(found, F, rtol=0, atol=1e-7 * np.abs(F).max())


def test_the_order_of_outputs_survives_where_they_leave_float64():
    network = pf.TwoLayerNetwork(np.eye(2), [[1.0, 2.0], [3.0, 1.0]], "prelu", 4.0)
    X = np.array([[1e100, 1e90], [1e90, 1e100], [1e-100, 1e-110], [1e-110, 1e-100]])
    np.testing.assert_array_equal(network.decision_function(X[:2]), np.inf)
    np.testing.assert_array_equal(network.decision_function(X[2:]), 0.0)
    np.testing.assert_array_equal(network.predict(X), [1, 0, 1, 0])
    biased = network.replace(output_bias=[0.0, -1e-300])
    np.testing.assert_array_equal(biased.predict(X[2:]), [0, 0])


@pytest.mark.parametrize("p", [1.0, 3.0])
def test_a_tiny_plain_network_at_a_huge_point(p):
    unit = pf.TwoLayerNetwork([[1.0, 0.5]], [1.0], "prelu", p)
    network = unit.replace(log_norm=unit.log_norm - 400.0, log_abs_v=unit.log_abs_v - 450.0)
    x = np.array([[np.exp(845.0 / p / 2), 0.0]])  # e^-850 f(x): far within float64 for p = 3
    exact = -850.0 + p * np.log(x[0, 0] * 1.0 / np.sqrt(1.25)) + np.log(np.sqrt(1.25))
    np.testing.assert_allclose(network.decision_function(x), np.exp(exact), rtol=1e-10)


# ---- dead neurons, ties, and what is taken away


def test_a_dead_neuron_with_a_bias_is_a_constant():
    W, v, b = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 0.5], [2.0, -3.0]]), np.array([0.5, 0.7])
    X = points(10, D=2)
    for activation, p, constant in (("prelu", 1.0, 0.7), ("polynomial", 2.0, 0.49), ("tanh", 3.0, np.tanh(0.7))):
        network = pf.TwoLayerNetwork(W, v, activation, p, hidden_bias=b, output_bias=[0.1, 0.2])
        np.testing.assert_allclose(network.output_bias, np.array([0.1, 0.2]) + constant * v[1], rtol=1e-15)
        alone = pf.TwoLayerNetwork(W[:1], v[:1], activation, p, hidden_bias=b[:1], output_bias=network.output_bias)
        np.testing.assert_allclose(network.decision_function(X), alone.decision_function(X), rtol=1e-14)
        assert network.offsets[1] == 0.0
        assert network.hidden_bias[1] == 0.0
    nothing = pf.TwoLayerNetwork(W, v, "prelu", 3.0, hidden_bias=b)
    assert nothing.output_bias is None
    with pytest.raises(ValueError, match=r"hidden_bias\[1\] must be 0 where W\[1\] is"):
        pf.TwoLayerNetwork(W, v, "polynomial", 2.0, hidden_bias=b, normalize_input=True)
    dead = pf.TwoLayerNetwork.from_polar(np.zeros((1, 2)), [-np.inf], [1.0], [0.0], offsets=[3.0], output_bias=[2.0])
    assert dead.offsets is None
    np.testing.assert_array_equal(dead.decision_function(X), 2.0)
    np.testing.assert_array_equal(dead.input_gradient(X), 0.0)


def test_the_first_of_equal_outputs_is_predicted():
    network = pf.TwoLayerNetwork([[1.0, 0.0]], [[1.0, 1.0, 0.0]], "prelu", 1.0, classes=[7, 3, 5])
    np.testing.assert_array_equal(network.predict([[1.0, 0.0], [-1.0, 0.0]]), [7, 7])
    one = pf.TwoLayerNetwork([[1.0, 0.0]], [1.0], "prelu", 1.0, classes=[4, 2], output_bias=-1.0)
    np.testing.assert_array_equal(one.predict([[1.0, 0.0], [1.5, 0.0], [0.0, 0.0]]), [4, 2, 4])


def test_what_is_zero_everywhere_is_no_part():
    zeros = {"hidden_bias": np.zeros(2), "output_bias": 0.0, "center": np.zeros(3)}
    network = pf.TwoLayerNetwork(np.ones((2, 3)), [1.0, -1.0], **zeros)
    assert network.plain
    assert network.offsets is network.hidden_bias is network.output_bias is network.center is None
    general = make("prelu", 3.0, 2).network()
    bare = general.replace(offsets=np.zeros(9), output_bias=np.zeros(2), center=np.zeros(6), normalize_input=False)
    assert bare.unusual == ("2 outputs",)
    assert bare.replace(sign=bare.sign[:, 0], log_abs_v=bare.log_abs_v[:, 0]).plain


# ---- as an object


def same(a, b):
    state = ("directions", "log_norm", "sign", "log_abs_v", "offsets", "output_bias", "center", "classes")
    for name in state:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.activation, a.p, a.dtype, a.normalize_input) == (b.activation, b.p, b.dtype, b.normalize_input)
    return True


def networks():
    for (activation, p), outputs in itertools.product(KINDS[::2], (1, 3)):
        for dtype in ("float32", "float64"):
            for parts in (PARTS[0], PARTS[5], PARTS[-1]):
                classes = [9, -4, 2][: max(outputs, 2)] if len(parts) == 4 else None
                yield make(activation, p, outputs, parts).network(dtype).replace(classes=classes)


def test_copies_are_the_same(tmp_path):
    for k, network in enumerate(networks()):
        _ = network._evaluator
        path = tmp_path / f"{k}.npz"
        network.save(path)
        assert same(pf.TwoLayerNetwork.load(path), network)
        for copied in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network), network.replace()):
            assert same(copied, network)
            X = points().astype(network.dtype)
            np.testing.assert_array_equal(copied.decision_function(X), network.decision_function(X))
        other = network.astype("float32" if network.dtype == np.float64 else "float64")
        np.testing.assert_array_equal(other.classes, network.classes)
        np.testing.assert_array_equal(other.offsets, network.offsets)
        again = pf.TwoLayerNetwork(
            network.W,
            network.v,
            network.activation,
            network.p,
            hidden_bias=network.hidden_bias,
            output_bias=network.output_bias,
            center=network.center,
            normalize_input=network.normalize_input,
            classes=network.classes,
        )
        np.testing.assert_allclose(again.decision_function(X), network.decision_function(X), rtol=1e-5, atol=1e-5)


def test_a_network_of_before_there_were_parts_is_read(tmp_path):
    network = make_problem().network()
    old = ("activation", "p", "directions", "log_norm", "sign", "log_abs_v")
    before = pf.TwoLayerNetwork.__new__(pf.TwoLayerNetwork)
    before.__setstate__({name: getattr(network, name) for name in old})
    assert same(before, network)
    assert set(results.network_arrays(network)) == {f"network.{name}" for name in results.NETWORK}


def test_parts_are_immutable_and_no_hold_is_taken_of_arguments():
    bias, center, classes = np.ones(2), np.ones(3), np.array([1, 2])
    network = pf.TwoLayerNetwork(np.ones((2, 3)), np.ones((2, 2)), hidden_bias=bias, center=center, classes=classes)
    bias[:], center[:], classes[:] = 5.0, 5.0, 5
    np.testing.assert_array_equal(network.center, 1.0)
    np.testing.assert_allclose(network.hidden_bias, 1.0, rtol=1e-15)
    np.testing.assert_array_equal(network.classes, [1, 2])
    for name in ("offsets", "center", "classes", "sign", "log_abs_v"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(network, name)[...] = 0


def test_repr_says_what_it_has():
    assert repr(make_problem(h=6, D=5).network()) == "TwoLayerNetwork(width=6, dim=5, 'prelu', p=3, float64)"
    text = repr(make("prelu", 3.0, 4).network())
    assert text.endswith("float64, 4 outputs, hidden_bias, output_bias, center, normalize_input)")
    one = pf.TwoLayerNetwork([[1.0]], [1.0], classes=[0, 1])
    assert repr(one).endswith("float64, classes 0 and 1)")


# ---- what is refused

REFUSED = {
    "v must have 1 dimension, got shape": {"v": np.ones((2, 1))},
    "hidden_bias must have shape": {"hidden_bias": np.ones(3)},
    "hidden_bias must be finite": {"hidden_bias": [np.nan, 0.0]},
    r"hidden_bias\[0\] must be within float64": {"W": 1e-200 * np.ones((2, 3)), "hidden_bias": [1e200, 0.0]},
    "output_bias must have shape": {"output_bias": np.ones(2)},
    "output_bias must have 1 dimension": {"v": np.ones((2, 2)), "output_bias": 1.0},
    "center must have shape": {"center": np.ones(2)},
    "classes must have shape": {"classes": [0, 1, 2]},
    "classes must be distinct": {"classes": [1, 1]},
    "normalize_input must be False for 'tanh'": {"activation": "tanh", "normalize_input": True},
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_parts_are_refused(message):
    good = {"W": np.ones((2, 3)), "v": np.ones(2)}
    with pytest.raises(ValueError, match=message):
        pf.TwoLayerNetwork(**{**good, **REFUSED[message]})


def test_labels_that_are_no_integers_are_refused():
    for classes in (["a", "b"], [0.0, 1.0], [True, False]):
        with pytest.raises(TypeError, match=r"classes must be integers.*np\.unique"):
            pf.TwoLayerNetwork(np.ones((2, 3)), np.ones(2), classes=classes)


def test_several_outputs_need_weights():
    network, X = make("prelu", 3.0, 3).network(), points()
    with pytest.raises(ValueError, match=r"weights must be given, shape \(40, 3\)"):
        network.input_gradient(X)
    with pytest.raises(ValueError, match=r"weights must have shape \(40, 3\)"):
        network.value_and_input_gradient(X, np.ones((40, 2)))


def test_theory_takes_plain_networks_only():
    gmm = pf.OrthonormalGMM(6, 2, 1, 0.1, rng=0)
    whole = make("prelu", 3.0, 1)
    general = [
        make("prelu", 3.0, 2, ()).network(),
        *(make("prelu", 3.0, 1, {part}).network() for part in ("b", "B", "center", "normalized")),
        make("prelu", 3.0, 1, ()).network().replace(classes=[0, 1]),
    ]
    calls = (
        lambda net: pf.distance_estimate(net, gmm),
        lambda net: pf.distance_bracket(net, gmm),
        lambda net: pf.center_cosines(net, gmm),
        lambda net: pf.voronoi_regions(net, gmm),
        lambda net: net.log_parameter_power,
    )
    for network, call in itertools.product(general, calls):
        with pytest.raises(ValueError, match=r"network must be plain for .*, but this one has "):
            call(network)
    with pytest.raises(ValueError, match=r"has hidden_bias, output_bias, center, normalize_input"):
        pf.center_cosines(whole.network(), gmm)


# ---- files made to mislead

SPOILT = {
    "a part of another shape": lambda a: a.update({"network.center": np.zeros(2)}),
    "a part that is no number": lambda a: a.update({"network.offsets": np.array(["a"] * 9)}),
    "biases of other outputs": lambda a: a.update({"network.output_bias": np.zeros(2)}),
    "an offset that is infinite": lambda a: a.update({"network.offsets": np.full(9, np.inf)}),
    "classes that are the same": lambda a: a.update({"network.classes": np.array([1, 1, 2])}),
    "classes that are floats": lambda a: a.update({"network.classes": np.array([1.0, 2.0, 3.0])}),
    "a flag that is a number": lambda a: a.update({"network.normalize_input": np.array(1)}),
    "a flag of many": lambda a: a.update({"network.normalize_input": np.ones(3, dtype=bool)}),
    "outer weights in three dimensions": lambda a: a.update({"network.sign": np.ones((9, 3, 1))}),
    "outer weights of two shapes": lambda a: a.update({"network.log_abs_v": np.zeros((9, 2))}),
    "an unknown activation": lambda a: a.update({"network.activation": np.array("gelu")}),
    "an array more": lambda a: a.update({"network.more": np.zeros(2)}),
    "an array less": lambda a: a.pop("network.U"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_files_that_are_no_networks_are_refused(name, tmp_path):
    arrays = results.network_arrays(make("prelu", 3.0, 3).network())
    good, path = dict(arrays), tmp_path / "network.npz"
    results.write_npz(path, "network", good, {})
    pf.TwoLayerNetwork.load(path)
    SPOILT[name](arrays)
    results.write_npz(path, "network", arrays, {})
    with pytest.raises(ValueError, match=r"network\.npz"):
        pf.TwoLayerNetwork.load(path)


def test_files_of_other_kinds_and_damaged_ones_are_refused(tmp_path):
    network, path = make("tanh", 3.0, 2).network(), tmp_path / "network.npz"
    network.save(path)
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="expected 'run'"):
        pf.Run.load(path)
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="damaged or not a preluflow file"):
            pf.TwoLayerNetwork.load(path)
    data = make_problem(n=8)
    pf.gradient_descent(data.network(), data.X, data.y, step=0.1, steps=1).save(path)
    with pytest.raises(ValueError, match="expected 'network'"):
        pf.TwoLayerNetwork.load(path)
    with pytest.raises(FileNotFoundError):
        pf.TwoLayerNetwork.load(tmp_path / "nothing.npz")


# ---- at the ends of float64


def test_one_output_beyond_float64_leaves_the_others_of_its_row():
    network = pf.TwoLayerNetwork.from_polar(
        np.eye(2), [0.0, 0.0], np.ones((2, 3)), [[700.0, 0.0, -700.0], [0.0, 0.0, 0.0]], "prelu", 3.0, center=[1.0, 1.0]
    )
    x = np.array([[1.0 + 2.0**40, -1.0], [1.0 + 2.0**200, -1.0]])
    F = network.decision_function(x)
    log_cube = 3 * np.log(2.0) * np.array([40, 200])
    np.testing.assert_array_equal(F[:, 0], np.inf)
    np.testing.assert_allclose(F[:, 1], np.exp(log_cube), rtol=1e-12)
    np.testing.assert_allclose(F[:, 2], np.exp(log_cube - 700.0), rtol=1e-11)
    np.testing.assert_array_equal(network.predict(x), 0)


def test_a_bias_brings_back_what_leaves_float64():
    network = pf.TwoLayerNetwork([[1.0]], [1.0], "prelu", 1.0, output_bias=-1.5e308)
    doubled = network.replace(log_abs_v=network.log_abs_v + np.log(2.0))
    np.testing.assert_allclose(doubled.decision_function([[1.2e308], [1e10]]), [0.9e308, -1.5e308], rtol=1e-12)


def test_values_beside_gradients_are_outputs_where_powers_leave_float64():
    for activation, p in ref.KINDS:
        network = make_problem().network(activation, p)
        X = np.vstack([make_problem().X * 1e120, np.zeros((1, 5))])
        huge = network.replace(log_abs_v=network.log_abs_v + (0.0 if activation == "tanh" else 800.0))
        with np.errstate(over="ignore"):
            values, _ = huge.value_and_input_gradient(X)
        np.testing.assert_array_equal(values, huge.decision_function(X))
