"""Hostile input: refused before any work, by a message that names the argument and says what came."""

import numpy as np
import pytest

import preluflow as pf
from preluflow import _arrays

NAN_X, INF_X = np.ones((2, 3)), np.ones((2, 3))
NAN_X[1, 2], INF_X[0, 1] = np.nan, np.inf


@pytest.fixture
def network():
    return pf.TwoLayerNetwork(np.eye(2, 3), [1.0, -1.0])


@pytest.fixture
def mixture():
    return pf.OrthonormalGMM(3, 1, 1, 0.1, rng=0)


def refused(error, message):
    return pytest.raises(error, match=message)


# ---- data and labels, for everything that takes them

BAD_X = [
    (NAN_X, ValueError, r"X must be finite, but X\[1, 2\] is nan"),
    (INF_X, ValueError, r"X must be finite, but X\[0, 1\] is inf"),
    (np.ones(3), ValueError, r"X must have 2 dimensions, got shape \(3,\)"),
    (np.ones((2, 3, 1)), ValueError, r"X must have 2 dimensions, got shape \(2, 3, 1\)"),
    (np.ones((2, 4)), ValueError, r"X must have shape \(n, 3\).*got \(2, 4\)"),
    (np.ones((0, 3)), ValueError, r"X must not be empty, got shape \(0, 3\)"),
    (np.ones((2, 3), dtype=np.float32), TypeError, "X has dtype float32 but the network has float64"),
    (np.ones((2, 3), dtype=np.float16), TypeError, "X has dtype float16 but the network has float64"),
    (np.ones((2, 3), dtype=complex), TypeError, "X must hold real numbers, got dtype complex128"),
    (np.full((2, 3), "1"), TypeError, "X must hold real numbers, got dtype <U1"),
    (np.full((2, 3), None), TypeError, "X must hold real numbers, got dtype object"),
    ("data", TypeError, "X must hold real numbers"),
    (None, TypeError, "X must hold real numbers"),
    ([[1.0, 2.0, 3.0], [1.0]], ValueError, "^X "),
]
WITH_X = {
    "decision_function": lambda network, X: network.decision_function(X),
    "predict": lambda network, X: network.predict(X),
    "input_gradient": lambda network, X: network.input_gradient(X),
    "value_and_input_gradient": lambda network, X: network.value_and_input_gradient(X),
    "loss_gradient": lambda network, X: network.loss_gradient(X, [1, -1]),
    "gradient_descent": lambda network, X: pf.gradient_descent(network, X, [1, -1], step=0.1, steps=1),
    "sgd": lambda network, X: pf.sgd(network, X, [1, -1], step=0.1, batch=1, epochs=1),
}
BAD_Y = [
    ([0, 1], ValueError, r"y must hold the labels -1 and \+1, but y\[0\] is 0"),
    ([1, 2], ValueError, r"y must hold the labels -1 and \+1, but y\[1\] is 2"),
    ([1.0, np.nan], ValueError, r"y\[1\] is nan"),
    ([1.0, np.inf], ValueError, r"y\[1\] is inf"),
    ([True, False], ValueError, r"y\[1\] is False"),
    ([1], ValueError, r"y must have shape \(2,\) to match the data, got \(1,\)"),
    ([1, -1, 1], ValueError, r"y must have shape \(2,\) to match the data, got \(3,\)"),
    ([[1, 2], [-1, 2]], ValueError, r"y must have shape \(2,\) to match the data, got \(2, 2\)"),
    ([[1]], ValueError, r"y must have shape \(2,\) to match the data, got \(1, 1\)"),
    ([], ValueError, r"y must have shape \(2,\) to match the data, got \(0,\)"),
    (1, ValueError, r"y must have shape \(2,\) to match the data, got \(\)"),
    (["+1", "-1"], TypeError, "y must hold the labels -1 and .1, got dtype <U2"),
    ([1, None], TypeError, "y must hold the labels -1 and .1, got dtype object"),
]
WITH_Y = {
    "loss_gradient": lambda network, y: network.loss_gradient(np.ones((2, 3)), y),
    "gradient_descent": lambda network, y: pf.gradient_descent(network, np.ones((2, 3)), y, step=0.1, steps=1),
    "sgd": lambda network, y: pf.sgd(network, np.ones((2, 3)), y, step=0.1, batch=1, epochs=1),
}


@pytest.mark.parametrize("function", WITH_X)
@pytest.mark.parametrize(("X", "error", "message"), BAD_X)
def test_bad_data(network, function, X, error, message):
    with refused(error, message):
        WITH_X[function](network, X)


@pytest.mark.parametrize("function", WITH_Y)
@pytest.mark.parametrize(("y", "error", "message"), BAD_Y)
def test_bad_labels(network, function, y, error, message):
    with refused(error, message):
        WITH_Y[function](network, y)


def test_a_float32_network_refuses_float64_data(network):
    with refused(TypeError, r"X has dtype float64 but the network has float32.*X\.astype\('float32'\)"):
        network.astype("float32").decision_function(np.ones((2, 3)))
    np.testing.assert_array_equal(network.decision_function(np.ones((2, 3), dtype=int)), [0.0, 0.0])


# ---- numbers and words

DESCENT = {"step": 0.1, "steps": 1}
SGD = {"step": 0.1, "batch": 1, "epochs": 1}
BAD_TRAINING = [
    ("step", 0.0, ValueError, "step must be greater than 0, got 0"),
    ("step", -1, ValueError, "step must be greater than 0, got -1"),
    ("step", np.nan, ValueError, "step must be finite, got nan"),
    ("step", np.inf, ValueError, "step must be finite, got inf"),
    ("step", "0.1", TypeError, "step must be a real number, got '0.1'"),
    ("step", True, TypeError, "step must be a real number, got True"),
    ("step", None, TypeError, "step must be a real number, got None"),
    (
        "loss",
        "hinge",
        ValueError,
        "loss must be one of 'squared', 'exponential', 'logistic', 'cross_entropy', got 'hinge'",
    ),
    ("loss", None, ValueError, "loss must be one of .*, got None"),
    ("num_threads", 0, ValueError, "num_threads must be at least 1, got 0"),
    ("num_threads", 1.5, TypeError, "num_threads must be an integer, got 1.5"),
    ("num_threads", "all", TypeError, "num_threads must be an integer, got 'all'"),
    ("observe", "loss", TypeError, "observe must be an Observe, got str"),
]
BAD_COUNTS = [
    (-1, ValueError, "{} must be at least {}, got -1"),
    (2.0, TypeError, "{} must be an integer, got 2.0"),
    (True, TypeError, "{} must be an integer, got True"),
    ("2", TypeError, "{} must be an integer, got '2'"),
    (None, TypeError, "{} must be an integer, got None"),
]


@pytest.mark.parametrize(("train", "options"), [(pf.gradient_descent, DESCENT), (pf.sgd, SGD)])
@pytest.mark.parametrize(("name", "value", "error", "message"), BAD_TRAINING)
def test_bad_training_options(network, train, options, name, value, error, message):
    with refused(error, message):
        train(network, np.ones((2, 3)), [1, -1], **{**options, name: value})


@pytest.mark.parametrize(("value", "error", "message"), BAD_COUNTS)
@pytest.mark.parametrize(
    ("train", "options", "name", "minimum"),
    [(pf.gradient_descent, DESCENT, "steps", 0), (pf.sgd, SGD, "epochs", 0), (pf.sgd, SGD, "batch", 1)],
)
def test_bad_counts(network, train, options, name, minimum, value, error, message):
    with refused(error, message.format(name, minimum)):
        train(network, np.ones((2, 3)), [1, -1], **{**options, name: value})


@pytest.mark.parametrize(("batch", "message"), [(0, "at least 1, got 0"), (3, "at most .* n = 2, got 3")])
def test_bad_batches(network, batch, message):
    with refused(ValueError, f"batch must be {message}"):
        pf.sgd(network, np.ones((2, 3)), [1, -1], step=0.1, epochs=1, batch=batch)


@pytest.mark.parametrize(("train", "options"), [(pf.gradient_descent, DESCENT), (pf.sgd, SGD)])
def test_what_is_no_network(train, options):
    with refused(TypeError, "network must be a TwoLayerNetwork, got ndarray"):
        train(np.eye(3), np.ones((2, 3)), [1, -1], **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, ValueError, "every must be greater than 0, got 0"),
        ({"every": np.nan}, ValueError, "every must be finite, got nan"),
        ({"every": "often"}, TypeError, "every must be a real number, got 'often'"),
        ({"every": 2.5}, TypeError, "every must be an integer, got 2.5"),
        ({"at": [1.5]}, TypeError, "at must be an integer, got 1.5"),
        ({"at": [-1]}, ValueError, "at must be at least 0, got -1"),
        ({"at": [2]}, ValueError, "at must not exceed steps = 1, got 2"),
        ({"at": ["x"]}, TypeError, "at must hold real numbers, got dtype <U1"),
        ({"what": ["speed"]}, ValueError, "what must be one of .*'loss'.*, got 'speed'"),
        ({"what": [3]}, ValueError, "what must be one of .*, got 3"),
        ({"what": "loss"}, TypeError, "what must be a list of names and functions, got 'loss'"),
        ({"what": 3}, TypeError, "what must be a list of names and functions, got 3"),
        ({"estimator": {"size": 3}}, ValueError, r"estimator has unknown options \['size'\]"),
        ({"gmm": "mixture"}, TypeError, "gmm must be an OrthonormalGMM, got str"),
    ],
)
def test_bad_observation(network, options, error, message):
    with refused(error, message):
        pf.gradient_descent(network, np.ones((2, 3)), [1, -1], **DESCENT, observe=pf.Observe(**options))


def test_a_mixture_of_another_dimension(network):
    observe = pf.Observe(what=["alignment"], gmm=pf.OrthonormalGMM(4, 1, 1, 0.1))
    with refused(ValueError, "gmm has dimension 4 but the network has 3"):
        pf.gradient_descent(network, np.ones((2, 3)), [1, -1], **DESCENT, observe=observe)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"W": np.full((2, 3), np.nan)}, ValueError, r"W must be finite, but W\[0, 0\] is nan"),
        ({"v": [1.0, np.inf]}, ValueError, r"v must be finite, but v\[1\] is inf"),
        ({"W": np.zeros((0, 3)), "v": []}, ValueError, r"W must not be empty, got shape \(0, 3\)"),
        ({"W": np.zeros((2, 0))}, ValueError, r"W must not be empty, got shape \(2, 0\)"),
        ({"W": np.zeros(3)}, ValueError, r"W must have 2 dimensions, got shape \(3,\)"),
        ({"v": [[1.0, 1.0]]}, ValueError, r"v must have 1 dimension, got shape \(1, 2\)"),
        ({"v": [1.0]}, ValueError, r"v must have shape \(2,\) to match W, got \(1,\)"),
        ({"v": ["a", "b"]}, TypeError, "v must hold real numbers, got dtype <U1"),
        ({"W": [[1.0, 0.0, 0.0], [1.0]]}, ValueError, "^W "),
        ({"p": 0.99}, ValueError, "p must be at least 1, got 0.99"),
        ({"p": np.nan}, ValueError, "p must be finite, got nan"),
        ({"p": np.inf}, ValueError, "p must be finite, got inf"),
        ({"p": "3"}, TypeError, "p must be a real number, got '3'"),
        ({"activation": "relu"}, ValueError, "activation must be one of .*'prelu'.*, got 'relu'"),
        ({"dtype": "int32"}, ValueError, "dtype must be float32 or float64, got int32"),
    ],
)
def test_bad_networks(change, error, message):
    with refused(error, message):
        pf.TwoLayerNetwork(**{"W": np.eye(2, 3), "v": [1.0, -1.0], **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"U": 2 * np.eye(2)}, r"U must have unit rows.*\|\|U\[0\]\|\| = 2"),
        ({"U": np.array([[1.0, 0.0], [0.0, 0.0]])}, r"U must have unit rows.*\|\|U\[1\]\|\| = 0"),
        ({"log_norm": [-np.inf, 0.0]}, r"U must have unit rows .zero where log_norm is -inf"),
        ({"log_norm": [0.0]}, r"log_norm must have shape \(2,\), got \(1,\)"),
        ({"log_norm": [np.nan, 0.0]}, "log_norm must be finite or -inf"),
        ({"log_abs_v": [np.inf, 0.0]}, "log_abs_v must be finite or -inf"),
        ({"sign": [1.0, 0.5]}, r"sign must hold -1, 0 or \+1"),
        ({"sign": [1.0, 0.0]}, "sign must be 0 exactly where log_abs_v is -inf"),
        ({"log_abs_v": [0.0, -np.inf]}, "sign must be 0 exactly where log_abs_v is -inf"),
        ({"U": np.full((2, 2), np.nan)}, r"U must be finite, but U\[0, 0\] is nan"),
    ],
)
def test_bad_polar_states(change, message):
    state = {"U": np.eye(2), "log_norm": [0.0, 0.0], "sign": [1.0, -1.0], "log_abs_v": [0.0, 0.0], **change}
    with refused(ValueError, message):
        pf.TwoLayerNetwork.from_polar(**state)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"width": 0}, ValueError, "width must be at least 1, got 0"),
        ({"width": True}, TypeError, "width must be an integer, got True"),
        ({"width": 2.0}, TypeError, "width must be an integer, got 2.0"),
        ({"dim": -1}, ValueError, "dim must be at least 1, got -1"),
        ({"scale": 0.0}, ValueError, "scale must be greater than 0, got 0"),
        ({"scale": np.inf}, ValueError, "scale must be finite, got inf"),
        ({"kind": "xavier"}, ValueError, "kind must be one of 'balanced', 'gaussian', got 'xavier'"),
        ({"activation": "relu"}, ValueError, "activation must be one of .*, got 'relu'"),
        ({"p": 0}, ValueError, "p must be at least 1, got 0"),
        ({"dtype": "float16"}, ValueError, "dtype must be float32 or float64, got float16"),
        ({"nudge": 0.1}, ValueError, "nudge and centers must be given together"),
        ({"centers": np.eye(3)}, ValueError, "nudge and centers must be given together"),
        ({"nudge": 1.1, "centers": np.eye(3)}, ValueError, "nudge must be at most 1, got 1.1"),
        ({"nudge": -0.1, "centers": np.eye(3)}, ValueError, "nudge must be at least 0, got -0.1"),
        ({"nudge": 0.1, "centers": np.eye(4)}, ValueError, r"centers must have shape \(K, 3\), got \(4, 4\)"),
        ({"nudge": 0.1, "centers": np.ones((2, 3))}, ValueError, "centers must have orthonormal rows"),
    ],
)
def test_bad_initialisations(change, error, message):
    with refused(error, message):
        pf.initialize(**{"width": 4, "dim": 3, "scale": 0.1, **change})


@pytest.mark.parametrize("name", ["batch", "steps", "step_size"])
def test_bad_distance_options(network, mixture, name):
    with refused((ValueError, TypeError), rf"{name} must be .*, got -1"):
        pf.distance_estimate(network, mixture, **{name: -1})


@pytest.mark.parametrize("name", ["steps", "keep"])
def test_bad_bracket_options(network, mixture, name):
    with refused(ValueError, rf"{name} must be at least ., got -1"):
        pf.distance_bracket(network, mixture, **{name: -1})


@pytest.mark.parametrize(
    "function", [pf.voronoi_regions, pf.center_cosines, pf.non_degeneracy_gap, pf.covers_all_regions]
)
def test_networks_and_mixtures_must_fit(network, function):
    with refused(ValueError, "network has input dimension 3 but gmm has 5"):
        function(network, pf.OrthonormalGMM(5, 1, 1, 0.1))


def test_classifiers_check_their_degree(mixture):
    with refused(ValueError, "p must be at least 1, got 0.5"):
        pf.classifiers.cluster_prelu(mixture, 0.5)


def test_arrays_are_copied_only_when_they_must():
    X = np.ones((4, 3))
    assert np.shares_memory(_arrays.real_array(X, "X", dtype=np.float64, ndim=2), X)
    assert np.shares_memory(_arrays.data_matrix(X[1:3], dim=3, dtype=X.dtype), X)
    fortran = _arrays.data_matrix(np.asfortranarray(np.arange(12.0).reshape(4, 3)), dim=3, dtype=X.dtype)
    assert fortran.flags.c_contiguous
    np.testing.assert_array_equal(fortran, np.arange(12.0).reshape(4, 3))


def test_the_place_of_a_bad_number_is_found_beyond_the_first_block(monkeypatch):
    monkeypatch.setattr(_arrays, "_FINITE_BLOCK", 7)
    X = np.zeros((10, 3))
    X[8, 1] = -np.inf
    with refused(ValueError, r"X must be finite, but X\[8, 1\] is -inf"):
        _arrays.real_array(X, "X", dtype=np.float64, ndim=2)
