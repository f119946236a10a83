"""Estimators for scikit-learn: its own checks, and the network behind them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

import preluflow as pf

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_digits, load_iris, make_classification, make_regression
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from preluflow.sklearn import TwoLayerClassifier, TwoLayerRegressor, certified_accuracy


@parametrize_with_checks([TwoLayerClassifier(), TwoLayerRegressor()])
def test_scikit_learn_finds_nothing(estimator, check):
    check(estimator)


def test_no_check_is_skipped_with_the_array_interface_of_scipy():
    """SciPy must be told before it is imported, so the checks that need it run in a process of their own."""
    code = """
from sklearn.utils import estimator_checks as checks
from preluflow.sklearn import TwoLayerClassifier, TwoLayerRegressor
for estimator in (TwoLayerClassifier(), TwoLayerRegressor()):
    found = checks.check_estimator(estimator, on_skip=None, on_fail="raise")
    print(len(found), {report["status"] for report in found})
"""
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("{'passed'}") == 2, done.stdout


# ---- data


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.fixture(scope="module")
def two():
    X, y = make_classification(120, 6, n_informative=4, class_sep=2.0, random_state=0)
    return StandardScaler().fit_transform(X), y


FAST = {"width": 20, "epochs": 30, "step": 0.01, "steps": 100, "t1": 5.0, "random_state": 0}


# ---- what is trained


@pytest.mark.parametrize("method", ["adam", "sgd", "descent", "flow"])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_every_method_learns_iris_with_biases(iris, method, loss):
    X, y = iris
    model = TwoLayerClassifier(random_state=0, method=method, loss=loss, weight_decay=1e-4, p=2.0)
    assert model.fit(X, y).score(X, y) > 0.95
    assert model.network_.num_outputs == 3 and model.network_.offsets is not None
    assert model.run_.status == "finished" and model.run_["loss"][-1] < model.run_["loss"][0]


@pytest.mark.parametrize("method", ["adam", "sgd", "descent", "flow"])
@pytest.mark.parametrize("loss", ["cross_entropy", "logistic", "squared", "exponential"])
def test_every_method_learns_two_classes_without_biases(two, method, loss):
    X, y = two
    model = TwoLayerClassifier(random_state=0, method=method, loss=loss, p=1.0, fit_intercept=False).fit(X, y)
    assert model.score(X, y) > 0.9
    assert model.network_.num_outputs == 1 and model.network_.offsets is None and model.network_.output_bias is None


@pytest.mark.parametrize("method", ["adam", "sgd", "descent", "flow"])
@pytest.mark.parametrize("targets", [1, 2])
def test_every_method_fits_numbers(method, targets):
    X, y = make_regression(100, 5, n_targets=targets, random_state=0)
    X, y = (StandardScaler().fit_transform(array.reshape(len(X), -1)) for array in (X, y))
    y = y[:, 0] if targets == 1 else y
    model = TwoLayerRegressor(random_state=0, method=method, p=1.0).fit(X, y)
    assert model.score(X, y) > 0.9
    assert model.predict(X).shape == y.shape


def test_it_is_what_the_functions_do(two):
    """Fit draws the start and the order of the points from one generator, and calls ``adam`` with what it was given."""
    X, y = two
    model = TwoLayerClassifier(**{**FAST, "step": 0.02}, scale=0.3, p=2.0, weight_decay=0.01, batch=50)
    model.set_params(random_state=np.random.default_rng(7)).fit(X, y)
    rng = np.random.default_rng(7)
    start = pf.initialize(20, scale=0.3, p=2.0, like=X, rng=rng)
    options = {"step": 0.02, "batch": 50, "epochs": 30, "loss": "logistic", "biases": "both", "weight_decay": 0.01}
    run = pf.adam(start, X, 2 * y - 1, rng=rng, **options)
    np.testing.assert_array_equal(model.network_.directions, run.network.directions)
    np.testing.assert_array_equal(model.decision_function(X), run.network.decision_function(X))
    assert model.run_.config == run.config


def test_weights_of_points_go_into_training_and_zeros_are_left_out(two):
    X, y = two
    weight = np.random.default_rng(0).integers(0, 3, len(X))
    for method in ("adam", "descent"):
        options = {**FAST, "method": method, "batch": 1000}
        weighted = TwoLayerClassifier(**options).fit(X, y, sample_weight=weight)
        repeated = TwoLayerClassifier(**options).fit(X.repeat(weight, axis=0), y.repeat(weight))
        np.testing.assert_allclose(weighted.decision_function(X), repeated.decision_function(X), rtol=0, atol=1e-8)
    few = weight > 0
    a = TwoLayerClassifier(**FAST, batch=17).fit(X, y, sample_weight=few)
    b = TwoLayerClassifier(**FAST, batch=17).fit(X[few], y[few])
    np.testing.assert_array_equal(a.decision_function(X), b.decision_function(X))


@pytest.mark.parametrize("dtype", [None, "float32", "float64"])
@pytest.mark.parametrize("given", ["float32", "float64", "int64"])
def test_the_dtype_is_that_of_the_data_or_as_asked(two, dtype, given):
    X = (10 * two[0]).astype(given)
    model = TwoLayerClassifier(**FAST, dtype=dtype, scale=0.01).fit(X, two[1])
    assert model.network_.dtype == (dtype or ("float32" if given == "float32" else "float64"))
    assert model.decision_function(X.astype("float64")).shape == (len(X),)


@pytest.mark.parametrize("state", [3, lambda: np.random.RandomState(3)])
def test_random_states_are_those_of_scikit_learn(two, state):
    make = state if callable(state) else lambda: state
    a, b = (TwoLayerClassifier(**{**FAST, "random_state": make()}).fit(*two) for _ in range(2))
    np.testing.assert_array_equal(a.decision_function(two[0]), b.decision_function(two[0]))
    other = TwoLayerClassifier(**{**FAST, "random_state": 4}).fit(*two)
    assert np.abs(other.decision_function(two[0]) - a.decision_function(two[0])).max() > 1e-3
    np.random.seed(0)  # noqa: NPY002  # scikit-learn's source where there is none
    a = TwoLayerClassifier(**{**FAST, "random_state": None}).fit(*two)
    np.random.seed(0)  # noqa: NPY002  # scikit-learn's source where there is none
    b = TwoLayerClassifier(**{**FAST, "random_state": None}).fit(*two)
    np.testing.assert_array_equal(a.decision_function(two[0]), b.decision_function(two[0]))


# ---- labels and probabilities

LABELS = {
    "words": (["no", "yes"], [0, 1]),
    "objects": (np.array(["no", "yes"], dtype=object), [0, 1]),
    "numbers": ([-3, 7], [-3, 7]),
    "small": (np.array([3, 200], dtype=np.uint8), [3, 200]),
    "floats": ([1.0, 2.0], [1, 2]),
    "bools": ([False, True], [0, 1]),
    "large": (np.array([1, 2**63], dtype=np.uint64), [0, 1]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind_are_mapped_and_have_radii(two, kind):
    X, index = two
    labels, numbers = LABELS[kind]
    y = np.asarray(labels)[index]
    model = TwoLayerClassifier(**FAST).fit(X, y)
    np.testing.assert_array_equal(model.classes_, labels)
    assert model.classes_.dtype == y.dtype
    np.testing.assert_array_equal(model.network_.classes, numbers)
    plain = TwoLayerClassifier(**FAST).fit(X, index)
    np.testing.assert_array_equal(model.predict(X), np.asarray(labels)[plain.predict(X)])
    np.testing.assert_array_equal(model.decision_function(X), plain.decision_function(X))
    radius, expected = pf.robust_radius(model, X, y), pf.robust_radius(plain, X, index)
    np.testing.assert_array_equal(radius.lower, expected.lower)
    np.testing.assert_array_equal(radius.upper, expected.upper)
    np.testing.assert_array_equal(radius.reached, np.asarray(numbers)[expected.reached])
    attack = pf.attacks.pgd(model, X, y, eps=0.3, steps=5, step=0.1)
    np.testing.assert_array_equal(attack.delta, pf.attacks.pgd(plain, X, index, eps=0.3, steps=5, step=0.1).delta)


def test_three_words_have_radii(iris):
    X, y = iris
    names = np.array(["versicolor", "setosa", "virginica"])  # not in their order
    model = TwoLayerClassifier(**FAST).fit(X, names[y])
    assert list(model.classes_) == sorted(names)
    radius = pf.robust_radius(model, X, names[y])
    np.testing.assert_array_equal(radius.correct, model.predict(X) == names[y])
    assert 0.9 < radius.correct.mean()
    with pytest.raises(ValueError, match=r"y must hold the classes \['setosa', .* but y\[1\] is 'rose'"):
        pf.robust_radius(model, X[:2], ["setosa", "rose"])
    with pytest.raises(ValueError, match=r"y\[0\] is 1"):
        pf.robust_radius(model, X[:1], [1])


def test_probabilities_are_softmax_and_of_the_cross_entropy_alone(two, iris):
    for X, y in (two, iris):
        model = TwoLayerClassifier(**FAST).fit(X, y)
        F, probability = model.decision_function(X), model.predict_proba(X)
        F = np.column_stack([np.zeros(len(F)), F]) if F.ndim == 1 else F
        shares = np.exp(F) / np.exp(F).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(probability, shares, rtol=1e-12)
        true = -np.log(probability[np.arange(len(y)), y]).mean()
        assert true == pytest.approx(model.run_["loss"][-1], rel=1e-6)
    for loss in ("squared", "exponential"):
        assert not hasattr(TwoLayerClassifier(loss=loss), "predict_proba")


def test_outputs_far_apart_have_probabilities(two):
    model = TwoLayerClassifier(**FAST).fit(*two)
    far = model.predict_proba(1e6 * two[0])
    assert np.isfinite(far).all() and set(np.unique(far.round(12))) <= {0.0, 1.0}


# ---- in company


def test_pipelines_searches_clones_and_pickles(iris):
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), TwoLayerClassifier(**FAST))
    search = GridSearchCV(
        model, {"twolayerclassifier__p": [1.0, 2.0], "twolayerclassifier__activation": ["prelu"]}, cv=3
    )
    assert search.fit(X, y).best_score_ > 0.9
    copied = clone(search.best_estimator_)
    assert not hasattr(copied[-1], "network_")
    with pytest.raises(NotFittedError):
        copied[-1].predict(X)
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.decision_function(X), search.decision_function(X))
    assert again[-1].run_["loss"].tolist() == search.best_estimator_[-1].run_["loss"].tolist()
    of_search, of_found = (pf.robust_radius(found, X[::10], y[::10]) for found in (search, search.best_estimator_))
    np.testing.assert_array_equal(of_search.lower, of_found.lower)
    words = np.array(["a", "b", "c"])[y]
    score = cross_val_score(search, X, words, scoring=certified_accuracy(0.01), cv=3, error_score="raise")
    assert score.min() > 0.8
    with pytest.raises(TypeError, match="got GridSearchCV"):
        pf.robust_radius(clone(search), X, y)


def test_targets_may_be_transformed():
    X, y = make_regression(100, 5, random_state=0)
    inner = make_pipeline(StandardScaler(), TwoLayerRegressor(random_state=0))
    model = TransformedTargetRegressor(inner, transformer=StandardScaler())
    assert model.fit(X, y).score(X, y) > 0.9


@pytest.mark.parametrize("activation", ["prelu", "polynomial", "tanh"])
@pytest.mark.parametrize(
    "before",
    [
        [StandardScaler()],
        [MinMaxScaler((-1.0, 2.0)), StandardScaler(with_std=False)],
        [MaxAbsScaler(), make_pipeline(StandardScaler(with_mean=False), "passthrough")],
    ],
)
def test_scalers_are_folded_into_the_network(activation, before):
    X, y = load_digits(return_X_y=True)
    X, y = X[:150, 20:30] + 1.0, y[:150]
    model = make_pipeline(*before, TwoLayerClassifier(**FAST, activation=activation, p=2.5)).fit(X, y)
    network = pf.classifiers.as_classifier(model)
    F = model.decision_function(X)
    np.testing.assert_allclose(network.decision_function(X), F, rtol=0, atol=1e-11 * np.abs(F).max())
    radius = pf.robust_radius(model, X, y)
    np.testing.assert_array_equal(radius.correct, model.predict(X) == y)
    flipped = radius.correct & np.isfinite(radius.upper)
    assert flipped.sum() > 50
    # Witnesses are in the coordinates of X: a little further on the pipeline itself errs.
    there = X + (1.0 + 1e-6) * radius.witness
    assert np.mean(model.predict(there)[flipped] != y[flipped]) > 0.9
    rng = np.random.default_rng(0)
    for _ in range(5):
        step = rng.standard_normal(X.shape)
        step *= (0.999 * radius.lower / np.linalg.norm(step, axis=1))[:, None]
        np.testing.assert_array_equal(model.predict(X + step)[radius.correct], y[radius.correct])


def test_normalised_input_is_folded_where_all_coordinates_scale_alike(iris):
    X, y = load_iris(return_X_y=True)
    kind = TwoLayerClassifier(**FAST, normalize_input=True, scale=0.5)
    model = make_pipeline(MinMaxScaler(), kind).fit(X, y)
    with pytest.raises(ValueError, match="must scale all coordinates alike"):
        pf.robust_radius(model, X, y)
    X = (X - X.min(axis=0)) / (X.max(axis=0) - X.min(axis=0)) * 8.0
    model = make_pipeline(StandardScaler(with_std=False), MinMaxScaler((-1.0, 1.0)), kind)
    model.set_params(standardscaler__with_mean=False).fit(X, y)
    network = pf.classifiers.as_classifier(model)
    np.testing.assert_allclose(network.decision_function(X), model.decision_function(X), rtol=0, atol=1e-10)


def test_what_has_no_radius_says_so(iris):
    X, y = iris
    with pytest.raises(TypeError, match="PCA"):
        pf.robust_radius(make_pipeline(PCA(2), TwoLayerClassifier(**FAST)).fit(X, y), X, y)
    with pytest.raises(TypeError, match="got TwoLayerRegressor"):
        pf.robust_radius(TwoLayerRegressor(**FAST).fit(X, y), X, y)
    with pytest.raises(ValueError, match="must be fitted"):
        pf.robust_radius(TwoLayerClassifier(), X, y)


# ---- the scorer


def test_certified_accuracy_scores_estimators_and_linear_ones(two):
    X, y = two
    model = make_pipeline(StandardScaler(), TwoLayerClassifier(**FAST)).fit(X, y)
    radius = pf.robust_radius(model, X, y)
    for eps in (0.0, 0.1, 0.5):
        assert certified_accuracy(eps)(model, X, y) == pytest.approx(float(radius.accuracy(eps)[0]), abs=1e-15)
    assert certified_accuracy(0.0)(model, X, y) == model.score(X, y)
    weight = np.random.default_rng(0).random(len(X))
    expected = np.average(radius.correct & (radius.lower >= 0.2), weights=weight)
    assert certified_accuracy(0.2)(model, X, y, sample_weight=weight) == pytest.approx(expected)
    tight = certified_accuracy(0.5, "tight", num_threads=1)
    assert tight(model, X, y) >= certified_accuracy(0.5)(model, X, y)
    linear = LogisticRegression().fit(X, y)
    assert certified_accuracy(0.0)(linear, X, y) == linear.score(X, y)


def test_a_search_may_look_for_robustness(two):
    X, y = two
    y = np.array(["b", "a"])[y]
    scoring = {"accuracy": "accuracy", "robust": certified_accuracy(0.3)}
    search = GridSearchCV(TwoLayerClassifier(**FAST), {"p": [1.0, 3.0]}, scoring=scoring, refit="robust", cv=2)
    found = search.fit(X, y).cv_results_
    assert np.all(found["mean_test_robust"] <= found["mean_test_accuracy"])
    assert search.best_score_ == found["mean_test_robust"].max() > 0
    assert pickle.loads(pickle.dumps(scoring["robust"])) == certified_accuracy(0.3)
    assert len(cross_val_score(TwoLayerClassifier(**FAST), X, y, scoring=certified_accuracy(0.1), cv=2)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -1.0}, "eps must be at least 0"),
        ({"eps": 0.1, "level": "best"}, "level must be one of"),
        ({"eps": 0.1, "num_threads": 0}, "num_threads must be at least 1"),
    ],
)
def test_bad_scorers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        certified_accuracy(**options)


# ---- what goes wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lbfgs"}, "method must be one of"),
        ({"loss": "hinge"}, "loss must be one of"),
        ({"loss": "exponential"}, "loss must be 'cross_entropy' or 'squared' for 3 classes"),
        ({"width": 0}, "width must be at least 1"),
        ({"p": 0.5}, "p must be at least 1"),
        ({"step": 0.0}, "step must be greater than 0"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"dtype": "float16"}, "dtype must be float32 or float64"),
        ({"fit_intercept": "yes"}, "fit_intercept must be True or False"),
        ({"random_state": "x"}, "random_state must be None"),
        ({"t1": -1.0}, "t1 must be at least 0"),
        ({"steps": 0.5}, "steps must be an integer"),
    ],
)
def test_bad_parameters_are_refused_by_fit(iris, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        TwoLayerClassifier(**options).fit(*iris)


def test_training_that_diverges_warns_and_keeps_what_it_had(two):
    X, y = two
    with pytest.warns(ConvergenceWarning, match="not finite"):
        model = TwoLayerClassifier(method="sgd", step=1e9, loss="exponential", random_state=0).fit(X, y)
    assert model.run_.status == "not_finite"
    assert np.isfinite(model.decision_function(X)).all()


def test_a_finished_run_warns_of_nothing(two):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TwoLayerClassifier(**FAST).fit(*two)


def test_it_learns_what_it_has_not_seen():
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=500, random_state=0)
    model = make_pipeline(StandardScaler(), TwoLayerClassifier(p=1.0, epochs=30, random_state=0)).fit(X, y)
    assert model.score(X_test, y_test) > 0.95
