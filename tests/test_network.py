import numpy as np
import pytest
import reference as ref

import preluflow as pf

TOLERANCE = {"float64": 1e-12, "float32": 5e-6}  # relative to the largest entry, against the oracle
DIFFERENCE_TOLERANCE = {"float64": 3e-8, "float32": 2e-5}

each_kind = pytest.mark.parametrize(("activation", "p"), ref.KINDS)
each_loss = pytest.mark.parametrize("loss", ref.LOSSES)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def assert_close(actual, expected, tolerance):
    expected = np.asarray(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-3))


def rounded(problem, activation, p, dtype):
    """A network in ``dtype``, and the float64 weights and data it stands for after rounding."""
    network = problem.network(activation, p, dtype)
    W = network.directions.astype(np.float64) * network.norms[:, None]
    X = problem.X.astype(dtype)
    return network, W, X


@each_kind
@each_loss
@each_dtype
def test_loss_gradient_is_the_finite_difference_of_the_loss(problem, activation, p, loss, dtype):
    data = problem(n=12, h=4, D=3, gap=0.05)
    network, W, X = rounded(data, activation, p, dtype)
    X64, v = X.astype(np.float64), network.v

    def mean_loss(W, v):
        return pf.TwoLayerNetwork(W, v, activation, p).loss_gradient(X64, data.y, loss=loss).loss

    found = network.loss_gradient(X, data.y, loss=loss)
    assert_close(found.W, ref.central_difference(lambda W: mean_loss(W, v), W), DIFFERENCE_TOLERANCE[dtype])
    assert_close(found.v, ref.central_difference(lambda v: mean_loss(W, v), v), DIFFERENCE_TOLERANCE[dtype])


@each_kind
@each_dtype
def test_input_gradient_is_the_finite_difference_of_the_value(problem, activation, p, dtype):
    network, W, X = rounded(problem(n=10, h=5, D=4, gap=0.05), activation, p, dtype)
    value, gradient = network.value_and_input_gradient(X)
    assert gradient.dtype == np.dtype(dtype)
    assert_close(value, ref.forward(W, network.v, X.astype(np.float64), activation, p), TOLERANCE[dtype])
    exact = pf.TwoLayerNetwork(W, network.v, activation, p)
    X64 = X.astype(np.float64)
    expected = ref.central_difference(lambda X: exact.decision_function(X).sum(), X64)
    assert_close(gradient, expected, DIFFERENCE_TOLERANCE[dtype])
    assert_close(gradient, ref.input_gradient(W, network.v, X64, activation, p), TOLERANCE[dtype])


@each_kind
@each_loss
@each_dtype
def test_parity_with_the_oracle(problem, activation, p, loss, dtype):
    data = problem(n=150, h=70, D=6, seed=1)
    network, W, X = rounded(data, activation, p, dtype)
    X64, v = X.astype(np.float64), network.v
    f = ref.forward(W, v, X64, activation, p)
    W_gradient, v_gradient = ref.loss_gradient(W, v, X64, data.y, activation, p, loss)
    found = network.loss_gradient(X, data.y, loss=loss)
    tolerance = TOLERANCE[dtype]
    assert found.loss == pytest.approx(ref.losses(f, data.y, loss).mean(), rel=tolerance * max(1, np.abs(f).max()))
    assert_close(found.outputs, f, tolerance)
    assert_close(network.decision_function(X), f, tolerance)
    # The residual belongs to the outputs found, whatever their rounding.
    assert_close(found.residual, ref.residual(found.outputs, data.y, loss), 1e-14)
    gradient_tolerance = tolerance * max(1, np.abs(f).max())
    assert_close(found.W, W_gradient, gradient_tolerance)
    assert_close(found.v, v_gradient, gradient_tolerance)
    np.testing.assert_array_equal(network.predict(X), np.where(found.outputs > 0, 1, -1))


@each_dtype
@pytest.mark.parametrize("activation", ref.ACTIVATIONS)
def test_polar_round_trip(problem, activation, dtype):
    data = problem(h=9, D=7)
    data.W *= np.logspace(-8, 8, 9)[:, None]
    data.v *= np.logspace(8, -8, 9)
    network = data.network(activation, 2.7, dtype)
    assert network.W.dtype == np.dtype(dtype)
    np.testing.assert_allclose(network.W, data.W, rtol={"float64": 1e-14, "float32": 3e-7}[dtype])
    np.testing.assert_allclose(network.v, data.v, rtol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(network.directions.astype(float), axis=1), 1.0, atol=1e-7)
    again = pf.TwoLayerNetwork.from_polar(
        network.directions, network.log_norm, network.sign, network.log_abs_v, activation, 2.7
    )
    for name in ("directions", "log_norm", "sign", "log_abs_v"):
        np.testing.assert_array_equal(getattr(again, name), getattr(network, name))
    assert (again.activation, again.p, again.dtype) == (activation, 2.7, np.dtype(dtype))


def test_a_network_is_immutable_and_takes_no_hold_of_its_arguments():
    U, zeros = np.eye(2), np.zeros(2)
    network = pf.TwoLayerNetwork.from_polar(U, zeros, [1, -1], zeros)
    U[0, 0] = 5.0
    zeros[0] = 3.0
    np.testing.assert_array_equal(network.W, np.eye(2))
    np.testing.assert_array_equal(network.v, [1.0, -1.0])
    with pytest.raises(ValueError, match="read-only"):
        network.directions[0, 0] = 2.0


def test_contributions(problem):
    data = problem(h=4)
    norms = np.linalg.norm(data.W, axis=1)
    np.testing.assert_allclose(data.network("prelu", 2.7).contributions, np.abs(data.v) * norms, rtol=1e-13)
    np.testing.assert_allclose(data.network("polynomial", 2.7).contributions, np.abs(data.v) * norms**2.7, rtol=1e-13)
    with pytest.raises(ValueError, match="tanh"):
        _ = data.network("tanh").contributions


@each_dtype
@pytest.mark.parametrize("p", [1.0, 2.7, 3.0])
@pytest.mark.parametrize("epsilon", [1e-7, 1e-30, 1e-300])
def test_no_scale_loses_digits(problem, epsilon, p, dtype):
    data = problem(n=40, h=6, D=5)
    unit, X = data.network("prelu", p, dtype), data.X.astype(dtype)
    tiny = unit.replace(log_norm=unit.log_norm + np.log(epsilon), log_abs_v=unit.log_abs_v + np.log(epsilon))
    scaled, m = tiny.rescaled()
    at_unit, m_unit = unit.rescaled()
    assert m - m_unit == pytest.approx(2 * np.log(epsilon), rel=1e-13)
    digits = {"float64": 1e-12, "float32": 1e-6}[dtype]
    assert_close(scaled.decision_function(X), at_unit.decision_function(X), digits)
    np.testing.assert_array_equal(tiny.predict(X), unit.predict(X))
    assert len(set(tiny.predict(X).tolist())) == 2
    if epsilon > 1e-100:  # f itself is a float64 there
        assert_close(tiny.decision_function(X) / epsilon**2, unit.decision_function(X), digits)
        gradient = tiny.loss_gradient(X, data.y)
        at_zero = -2.0 * data.y / len(data.y)  # -r_i at f = 0
        sums = np.array([at_zero @ ref.neuron(X.astype(float), w, "prelu", p) for w in unit.W.astype(float)])
        assert_close(gradient.v / epsilon, sums, {"float64": 1e-12, "float32": 5e-6}[dtype])


def test_raw_weights_of_1e_300_are_read_exactly(problem):
    data = problem(h=5)
    tiny = pf.TwoLayerNetwork(data.W * 1e-300, data.v * 1e-300)
    np.testing.assert_allclose(tiny.directions, data.network().directions, rtol=1e-13)
    np.testing.assert_allclose(tiny.W, data.W * 1e-300, rtol=1e-12)


@pytest.mark.parametrize(("activation", "p"), [("prelu", 1.0), ("prelu", 3.0), ("polynomial", 2.0), ("tanh", 3.0)])
def test_dead_neurons_and_zero_output_weights(problem, activation, p):
    data = problem(n=15, h=6, D=4)
    data.W[1] = 0.0
    data.v[3] = 0.0
    data.W[4], data.v[4] = 0.0, 0.0
    network = data.network(activation, p)
    assert np.isneginf(network.log_norm[[1, 4]]).all()
    assert np.isneginf(network.log_abs_v[[3, 4]]).all()
    np.testing.assert_allclose(network.W, data.W, rtol=1e-14)
    np.testing.assert_allclose(network.v, data.v, rtol=1e-14)
    arguments = (data.W, data.v, data.X, data.y, activation, p, "squared")
    W_gradient, v_gradient = ref.loss_gradient(*arguments)
    found = network.loss_gradient(data.X, data.y)
    assert found.loss == pytest.approx(ref.mean_loss(*arguments), rel=1e-13)
    assert_close(found.W, W_gradient, 1e-13)
    assert_close(found.v, v_gradient, 1e-13)
    assert_close(network.input_gradient(data.X), ref.input_gradient(data.W, data.v, data.X, activation, p), 1e-13)


@each_dtype
def test_a_network_of_dead_neurons_is_zero(dtype):
    network = pf.TwoLayerNetwork(np.zeros((3, 2)), [1.0, -2.0, 0.0], dtype=dtype)
    X = np.ones((4, 2), dtype=dtype)
    np.testing.assert_array_equal(network.decision_function(X), 0.0)
    np.testing.assert_array_equal(network.input_gradient(X), 0.0)
    np.testing.assert_array_equal(network.predict(X), -1)  # an error for either label, reported as -1
    scaled, m = network.rescaled()
    assert m == 0.0
    np.testing.assert_array_equal(scaled.decision_function(X), 0.0)


@each_dtype
@pytest.mark.parametrize("p", ref.DEGREES)
@pytest.mark.parametrize("activation", ["prelu", "polynomial"])
def test_slope_is_zero_at_and_below_the_kink(activation, p, dtype):
    network = pf.TwoLayerNetwork([[2.0, 0.0]], [3.0], activation, p, dtype=dtype)
    X = np.array([[0.0, 1.0], [-1.0, 1.0], [0.0, 0.0]], dtype=dtype)
    np.testing.assert_array_equal(network.input_gradient(X), 0.0)
    found = network.loss_gradient(X, [1, -1, 1])
    np.testing.assert_array_equal(found.W, 0.0)
    np.testing.assert_array_equal(found.v, 0.0)


@pytest.mark.parametrize("p", ref.DEGREES)
@pytest.mark.parametrize("activation", ["prelu", "polynomial"])
def test_homogeneity(problem, activation, p):
    data = problem(n=30, h=6, D=5)
    network = data.network(activation, p)
    f = network.decision_function(data.X)
    gamma, c = 1.7, 0.6
    assert_close(network.decision_function(gamma * data.X), gamma**p * f, 1e-13)
    grown = pf.TwoLayerNetwork(c * data.W, c * data.v, activation, p)
    degree = 2.0 if activation == "prelu" else p + 1.0
    assert_close(grown.decision_function(data.X), c**degree * f, 1e-13)
    # Euler's identity ties the input gradient to the value.
    euler = np.einsum("nd,nd->n", data.X, network.input_gradient(data.X))
    assert_close(euler, p * f, 1e-13)


@pytest.mark.parametrize("p", ref.DEGREES)
def test_prelu_and_polynomial_are_the_same_functions(problem, p):
    data = problem(n=30, h=6, D=5)
    norms = np.linalg.norm(data.W, axis=1)
    polynomial = pf.TwoLayerNetwork(data.W, data.v / norms ** (p - 1.0), "polynomial", p)
    assert_close(polynomial.decision_function(data.X), data.network("prelu", p).decision_function(data.X), 1e-13)


def test_reference_classifiers_agree_with_the_oracle(gmm):
    X = np.random.default_rng(3).standard_normal((50, gmm.dim))
    for p in ref.DEGREES:
        network = pf.classifiers.cluster_prelu(gmm, p)
        assert_close(network.decision_function(X), ref.cluster_prelu(gmm.centers, gmm.labels, X, p), 1e-13)
    average = pf.classifiers.class_average_relu(gmm)
    assert_close(average.decision_function(X), ref.class_average_relu(gmm.centers, gmm.labels, X), 1e-13)


@pytest.mark.parametrize(("n", "h", "D"), [(10, 5, 4), (3, 2, 5), (1, 9, 3), (300, 70, 17)])
@each_dtype
def test_the_same_call_gives_the_same_bits(problem, n, h, D, dtype):
    data = problem(n=n, h=h, D=D)
    network, X = data.network("prelu", 1.5, dtype), data.X.astype(dtype)
    kept = []  # results stay alive, so that every call writes to another address
    for k in range(24):
        kept.append((*network.value_and_input_gradient(X, num_threads=k % 3 + 1), np.empty(k + 1)))
    f = network.decision_function(X)
    for value, gradient, _ in kept:
        np.testing.assert_array_equal(value, f)
        np.testing.assert_array_equal(gradient, kept[0][1])
        np.testing.assert_array_equal(network.input_gradient(X), kept[0][1])


def test_a_points_company_does_not_matter(problem):
    data = problem(n=300, h=70, D=17)
    network = data.network("prelu", 2.7)
    f = network.decision_function(data.X)
    for start in (0, 7, 127, 299):
        alone = network.decision_function(data.X[start : start + 1])
        np.testing.assert_allclose(alone, f[start : start + 1], rtol=0, atol=1e-14 * np.abs(f).max())
