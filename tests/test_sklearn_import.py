"""Estimators of scikit-learn as classifiers of ours."""

import warnings

import numpy as np
import pytest

import preluflow as pf
from preluflow.classifiers import Linear, as_classifier

pytest.importorskip("sklearn")

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Perceptron, Ridge, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PolynomialFeatures, StandardScaler
from sklearn.svm import LinearSVC

LABELS = {"ten": lambda y: y, "two": lambda y: y % 2, "three": lambda y: 7 * (y % 3) - 5}
BEFORE = {
    "nothing": lambda: [],
    "standard": lambda: [StandardScaler()],
    "standard, no mean": lambda: [StandardScaler(with_mean=False)],
    "standard, no scale": lambda: [StandardScaler(with_std=False)],
    "range": lambda: [MinMaxScaler((-1.0, 2.0))],
    "two": lambda: [MaxAbsScaler(), StandardScaler()],
    "a pipeline": lambda: [make_pipeline(MinMaxScaler(), "passthrough")],
}
NETWORKS = {
    "relu": lambda: MLPClassifier((12,), max_iter=10, random_state=0),
    "tanh": lambda: MLPClassifier((12,), activation="tanh", max_iter=10, random_state=0),
}
LINEAR = {
    "logistic": lambda: LogisticRegression(max_iter=10),
    "svc": lambda: LinearSVC(max_iter=10, fit_intercept=False),
    "sgd": lambda: SGDClassifier(max_iter=5, random_state=0),
    "perceptron": lambda: Perceptron(max_iter=5),
}


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:200, 20:44], y[:200]


def fitted(steps, X, y):
    pipeline = make_pipeline(*steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        return pipeline.fit(X, y)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_predicts_what_the_estimator_does(digits, name, before, labels):
    X, y = digits[0], LABELS[labels](digits[1])
    estimator = fitted([*BEFORE[before](), NETWORKS[name]()], X, y)
    network = pf.TwoLayerNetwork.from_sklearn(estimator)
    assert network.num_outputs == (1 if labels == "two" else len(np.unique(y)))
    np.testing.assert_array_equal(network.classes, np.unique(y))
    np.testing.assert_array_equal(network.predict(X), estimator.predict(X))
    F, probability = network.decision_function(X), estimator.predict_proba(X)
    if labels == "two":
        np.testing.assert_allclose(1.0 / (1.0 + np.exp(-F)), probability[:, 1], rtol=0, atol=1e-12)
    else:
        shares = np.exp(F - F.max(axis=1, keepdims=True))
        np.testing.assert_allclose(shares / shares.sum(axis=1, keepdims=True), probability, rtol=0, atol=1e-12)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_classifier_predicts_what_the_estimator_does(digits, name, before, labels):
    X, y = digits[0], LABELS[labels](digits[1])
    estimator = fitted([*BEFORE[before](), LINEAR[name]()], X, y)
    classifier = Linear.from_sklearn(estimator)
    expected = estimator.decision_function(X)
    found = classifier.decision_function(X)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())
    np.testing.assert_array_equal(classifier.predict(X), estimator.predict(X))
    np.testing.assert_array_equal(classifier.classes, estimator.classes_)
    # Radii are in the coordinates of X: a step of the nearest error changes what the pipeline says, a shorter does not.
    y, d = estimator.predict(X), classifier.nearest_error(X, estimator.predict(X))
    radius = classifier.certified_radius(X, y)
    np.testing.assert_allclose(np.linalg.norm(d, axis=1), radius, rtol=1e-7, atol=1e-9)
    sure = radius > 1e-6
    assert sure.sum() > 100
    assert np.all(estimator.predict(X[sure] + d[sure] * (1 + 1e-6)) != y[sure])
    np.testing.assert_array_equal(estimator.predict(X[sure] + d[sure] * (1 - 1e-6)), y[sure])


def test_as_classifier_chooses_the_kind(digits):
    X, y = digits
    network = fitted([NETWORKS["relu"]()], X, y)
    assert isinstance(as_classifier(network), pf.TwoLayerNetwork)
    assert isinstance(as_classifier(network[-1]), pf.TwoLayerNetwork)
    assert isinstance(as_classifier(fitted([LINEAR["logistic"]()], X, y)), Linear)
    with pytest.raises(TypeError, match=r"must be an MLPClassifier, .*got LogisticRegression: classifiers"):
        pf.TwoLayerNetwork.from_sklearn(fitted([LINEAR["logistic"]()], X, y))
    with pytest.raises(TypeError, match=r"got MLPClassifier"):
        Linear.from_sklearn(network)


def test_labels_that_count_as_integers(digits):
    X, y = digits
    for kind in (bool, float, np.uint8):
        network = pf.TwoLayerNetwork.from_sklearn(fitted([NETWORKS["relu"]()], X, (y % 2).astype(kind)))
        assert network.classes.tolist() == [0, 1]


def fit(estimator, labels=lambda y: y, columns=64):
    X, y = load_digits(return_X_y=True)
    return fitted([estimator] if not isinstance(estimator, list) else estimator, X[:100, :columns], labels(y[:100]))


WRONG = {
    "one hidden layer, got 2": lambda: fit(MLPClassifier((3, 3), max_iter=2)),
    "'relu' or 'tanh', got 'logistic'": lambda: fit(MLPClassifier(3, activation="logistic", max_iter=2)),
    "'relu' or 'tanh', got 'identity'": lambda: fit(MLPClassifier(3, activation="identity", max_iter=2)),
    "must be fitted, but this MLPClassifier": lambda: MLPClassifier(3),
    "must be fitted, but this LogisticRegression": LogisticRegression,
    "integers for classes.*LabelEncoder": lambda: fit(MLPClassifier(3, max_iter=2), lambda y: y.astype(str)),
    "integers for classes, got .0.5": lambda: halves(),
    "got PolynomialFeatures": lambda: fit([PolynomialFeatures(1), LogisticRegression(max_iter=2)], columns=3),
    "MinMaxScaler has clip=True": lambda: fit([MinMaxScaler(clip=True), LogisticRegression(max_iter=2)]),
    "got Ridge": Ridge,
    "multi-label": lambda: fit(MLPClassifier(3, max_iter=2), lambda y: np.eye(3, dtype=int)[y % 3]),
    "without steps": lambda: Pipeline([("nothing", "passthrough")]),
}


def halves():
    estimator = fit(LogisticRegression(max_iter=2), lambda y: y % 2)
    estimator[-1].classes_ = np.array([0.5, 1.5])
    return estimator


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_expressed_is_refused_with_its_reason(message):
    with pytest.raises((ValueError, TypeError), match=rf"^estimator .*{message}"):
        as_classifier(WRONG[message]())
