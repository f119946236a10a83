"""Fitted estimators of scikit-learn, its own and ours, as classifiers. Calling what is here needs scikit-learn."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays
from preluflow._arrays import Float64
from preluflow.classifiers import Linear
from preluflow.network import TwoLayerNetwork
from preluflow.typing import Activation

_ACTIVATIONS: dict[str, Activation] = {"relu": "prelu", "tanh": "tanh"}  # ReLU is pReLU with p = 1
_LINEAR = ("LogisticRegression", "LogisticRegressionCV", "LinearSVC", "SGDClassifier", "Perceptron")


def from_sklearn(estimator: Any) -> TwoLayerNetwork | Linear:
    """Copy a fitted network or linear classifier, a ``Pipeline`` that ends in one, or a search that found one."""
    return linear(estimator) if _kind(_steps(estimator)[-1]) == "linear" else network(estimator)


def network(estimator: Any) -> TwoLayerNetwork:
    """Copy a fitted ``TwoLayerClassifier`` or ``MLPClassifier``; see ``TwoLayerNetwork.from_sklearn``."""
    steps = _steps(estimator)
    kind = _kind(steps[-1])
    if kind == "linear":
        raise TypeError(
            "estimator must be an MLPClassifier, or a TwoLayerClassifier, alone or at the end of a Pipeline, got "
            f"{type(steps[-1]).__name__}: classifiers.as_classifier takes it"
        )
    if kind == "ours":
        _require_fitted(steps[-1], "network_")
        return _of_scaled(steps[-1].network_, steps[:-1])
    return _perceptron(steps)


def _perceptron(steps: list[Any]) -> TwoLayerNetwork:
    """Network of scalers and an ``MLPClassifier``."""
    mlp = steps[-1]
    _require_fitted(mlp, "coefs_")
    if len(mlp.coefs_) != 2:
        raise ValueError(f"estimator must have one hidden layer, got {len(mlp.coefs_) - 1}")
    if mlp.activation not in _ACTIVATIONS:
        raise ValueError(f"estimator must have the activation 'relu' or 'tanh', got {mlp.activation!r}")
    W, v = (np.asarray(weights, dtype=np.float64) for weights in mlp.coefs_)
    if mlp.out_activation_ == "logistic" and v.shape[1] > 1:
        raise ValueError("estimator must give one label a point: a multi-label network has no decision among classes")
    scale, center = _scaling(steps[:-1], W.shape[0])
    return TwoLayerNetwork(
        W.T * scale,
        v[:, 0] if v.shape[1] == 1 else v,
        _ACTIVATIONS[mlp.activation],
        1.0,
        hidden_bias=mlp.intercepts_[0],
        output_bias=mlp.intercepts_[1],
        center=center,
        classes=_classes(mlp),
    )


def _of_scaled(network: TwoLayerNetwork, scalers: list[Any]) -> TwoLayerNetwork:
    """Network of x whose value is that of a network at s (x - c), in float64 if there are scalers.

    Its weights are s w_j and its centre is c + center / s; (||s w_j|| / ||w_j||)^(p-1) goes into the output weights of
    pReLU, and s^-(p-1) where the input is normalised, so that s must be the same for all coordinates then.
    """
    if not scalers:
        return network
    scale, center = _scaling(scalers, network.dim)
    rows = network.directions.astype(np.float64) * scale
    lengths = np.linalg.norm(rows, axis=1)
    alive = lengths > 0.0
    safe = np.where(alive, lengths, 1.0)
    more = (network.p - 1.0) * np.log(safe) if network.activation == "prelu" else np.zeros(len(rows))
    if network.normalize_input:
        if not np.all(scale == scale[0]):
            raise ValueError(
                "estimator must scale all coordinates alike before a network that normalises its input: use "
                "StandardScaler(with_std=False)"
            )
        more = more - (network.p - 1.0) * np.log(scale[0])
    return TwoLayerNetwork.from_polar(
        rows / safe[:, None],
        network.log_norm + np.log(safe),
        network.sign,
        network.log_abs_v + (more if network.sign.ndim == 1 else more[:, None]),
        network.activation,
        network.p,
        offsets=None if network.offsets is None else network.offsets / safe,
        output_bias=network.output_bias,
        center=center if network.center is None else center + network.center / scale,
        normalize_input=network.normalize_input,
        classes=network.classes,
    )


def linear(estimator: Any) -> Linear:
    """Copy a fitted linear classifier; see ``as_classifier``."""
    steps = _steps(estimator)
    model = steps[-1]
    if _kind(model) != "linear":
        raise TypeError(
            f"estimator must be one of {', '.join(_LINEAR)}, alone or at the end of a Pipeline, "
            f"got {type(model).__name__}"
        )
    _require_fitted(model, "coef_")
    w = np.asarray(model.coef_.toarray() if hasattr(model.coef_, "toarray") else model.coef_, dtype=np.float64)
    b = np.broadcast_to(np.asarray(model.intercept_, dtype=np.float64), len(w))
    scale, center = _scaling(steps[:-1], w.shape[1])
    w = w * scale
    b = b - w @ center
    classes = _classes(model)
    return Linear(w, b, classes=classes) if len(w) > 1 else Linear(w[0], float(b[0]), classes=classes)


def _steps(estimator: Any) -> list[Any]:
    """The estimator, after those of a pipeline that stand before it; of a fitted search the best one."""
    from sklearn.pipeline import Pipeline

    estimator = _found(estimator)
    if not isinstance(estimator, Pipeline):
        return [estimator]
    steps = [step for _, step in estimator.steps if step is not None and not isinstance(step, str)]
    if not steps:
        raise ValueError("estimator must end in a classifier, got a Pipeline without steps")
    return [part for step in steps for part in _steps(step)]


def _found(estimator: Any) -> Any:
    """What a search (``GridSearchCV``) has found, once it is fitted; anything else is what it is."""
    while hasattr(estimator, "best_estimator_"):
        estimator = estimator.best_estimator_
    return estimator


def _kind(estimator: Any) -> str:
    """Return "ours", "network" or "linear"; TypeError for what is none of them."""
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Perceptron, SGDClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import LinearSVC

    if _is_ours(estimator):
        return "ours"
    if isinstance(estimator, MLPClassifier):
        return "network"
    if isinstance(estimator, (LogisticRegression, LogisticRegressionCV, LinearSVC, SGDClassifier, Perceptron)):
        return "linear"
    raise TypeError(
        f"estimator must be a TwoLayerClassifier, an MLPClassifier, or one of {', '.join(_LINEAR)}, alone or at the "
        f"end of a Pipeline, got {type(estimator).__name__}"
    )


def _is_ours(estimator: Any) -> bool:
    """Whether it is a ``TwoLayerClassifier``; who has one has loaded its module."""
    module = sys.modules.get("preluflow.sklearn")
    return module is not None and isinstance(estimator, module.TwoLayerClassifier)


def known_labels(classifier: Any, y: ArrayLike) -> ArrayLike:
    """Labels (n,) as the network of a ``TwoLayerClassifier``, alone, in a pipeline or a search, knows them.

    They are its numbers of the classes, where these are no integers. Labels of any other classifier stay as they are.
    """
    if "preluflow.sklearn" not in sys.modules:
        return y
    from sklearn.pipeline import Pipeline

    model = _found(classifier)
    while isinstance(model, Pipeline) and model.steps:
        model = _found(model.steps[-1][1])
    if not _is_ours(model) or not hasattr(model, "classes_"):
        return y
    classes, numbers = model.classes_, integers(model.classes_)
    given = _arrays.as_array(y, "y")
    if numbers is classes or given.ndim != 1:
        return y
    place = dict(zip(classes.tolist(), numbers.tolist(), strict=True))
    try:
        return np.array([place[label] for label in given.tolist()], dtype=np.int64)
    except (KeyError, TypeError):  # what cannot be hashed is no label
        i = next(i for i, label in enumerate(given.tolist()) if label not in classes.tolist())
        came = _arrays.shown(given.tolist()[i])
        raise ValueError(f"y must hold the classes {_arrays.shown(classes.tolist())}, but y[{i}] is {came}") from None


def integers(classes: NDArray[Any]) -> NDArray[np.int64]:
    """Sorted labels as integers if that is what they are, else their numbers 0 .. C-1."""
    integral = classes.dtype.kind in "iub" or (classes.dtype.kind == "f" and np.all(classes == np.floor(classes)))
    if integral and -(2.0**63) <= float(classes[0]) and float(classes[-1]) < 2.0**63:
        return np.asarray(classes, dtype=np.int64)
    return np.arange(len(classes), dtype=np.int64)


def _require_fitted(estimator: Any, name: str) -> None:
    if not hasattr(estimator, name):
        raise ValueError(f"estimator must be fitted, but this {type(estimator).__name__} is not")


def _classes(estimator: Any) -> NDArray[np.int64]:
    """Labels as integers, in the order of the outputs."""
    classes = np.asarray(estimator.classes_)
    integral = classes.dtype.kind in "iub" or (classes.dtype.kind == "f" and np.all(classes == np.floor(classes)))
    if not integral:
        raise ValueError(
            f"estimator must have integers for classes, got {classes.tolist()[:5]} of dtype {classes.dtype}: encode "
            "labels before fitting, for instance by sklearn.preprocessing.LabelEncoder"
        )
    return classes.astype(np.int64)


def _scaling(scalers: list[Any], dim: int) -> tuple[Float64, Float64]:
    """Scale s and centre c, (D,) each, of scalers one after another: together x -> s (x - c)."""
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler

    scale, center = np.ones(dim), np.zeros(dim)
    for scaler in scalers:
        if isinstance(scaler, StandardScaler):
            _require_fitted(scaler, "n_samples_seen_")
            own = np.ones(dim) if scaler.scale_ is None else 1.0 / np.asarray(scaler.scale_, dtype=np.float64)
            shift = np.zeros(dim) if not scaler.with_mean else np.asarray(scaler.mean_, dtype=np.float64)
        elif isinstance(scaler, MinMaxScaler):
            _require_fitted(scaler, "scale_")
            if scaler.clip:
                raise ValueError("estimator must be a function of x without clips, but its MinMaxScaler has clip=True")
            own = np.asarray(scaler.scale_, dtype=np.float64)
            shift = -np.asarray(scaler.min_, dtype=np.float64) / own
        elif isinstance(scaler, MaxAbsScaler):
            _require_fitted(scaler, "scale_")
            if getattr(scaler, "clip", False):
                raise ValueError("estimator must be a function of x without clips, but its MaxAbsScaler has clip=True")
            own, shift = 1.0 / np.asarray(scaler.scale_, dtype=np.float64), np.zeros(dim)
        else:
            raise TypeError(
                "estimator must have StandardScaler, MinMaxScaler or MaxAbsScaler alone before its last step, got "
                f"{type(scaler).__name__}"
            )
        # own (s (x - c) - shift) = own s (x - (c + shift / s))
        center = center + shift / scale
        scale = scale * own
    return scale, center
