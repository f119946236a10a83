"""Fitted estimators of scikit-learn as classifiers of ours. Calling what is here needs scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from preluflow._arrays import Float64
from preluflow.classifiers import Linear
from preluflow.network import TwoLayerNetwork
from preluflow.typing import Activation

_ACTIVATIONS: dict[str, Activation] = {"relu": "prelu", "tanh": "tanh"}  # ReLU is pReLU with p = 1
_LINEAR = ("LogisticRegression", "LogisticRegressionCV", "LinearSVC", "SGDClassifier", "Perceptron")


def from_sklearn(estimator: Any) -> TwoLayerNetwork | Linear:
    """Copy a fitted network or linear classifier, or a ``Pipeline`` that ends in one; see ``as_classifier``."""
    return network(estimator) if _kind(_steps(estimator)[-1]) == "network" else linear(estimator)


def network(estimator: Any) -> TwoLayerNetwork:
    """Copy a fitted ``MLPClassifier``; see ``TwoLayerNetwork.from_sklearn``."""
    steps = _steps(estimator)
    mlp = steps[-1]
    if _kind(mlp) != "network":
        raise TypeError(
            f"estimator must be an MLPClassifier, alone or at the end of a Pipeline, got {type(mlp).__name__}: "
            "classifiers.as_classifier takes it"
        )
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
    """The estimator, after those of a pipeline that stand before it."""
    from sklearn.pipeline import Pipeline

    if not isinstance(estimator, Pipeline):
        return [estimator]
    steps = [step for _, step in estimator.steps if step is not None and not isinstance(step, str)]
    if not steps:
        raise ValueError("estimator must end in a classifier, got a Pipeline without steps")
    return [part for step in steps for part in _steps(step)]


def _kind(estimator: Any) -> str:
    """Return "network" or "linear"; TypeError for what is neither."""
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Perceptron, SGDClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import LinearSVC

    if isinstance(estimator, MLPClassifier):
        return "network"
    if isinstance(estimator, (LogisticRegression, LogisticRegressionCV, LinearSVC, SGDClassifier, Perceptron)):
        return "linear"
    raise TypeError(
        f"estimator must be an MLPClassifier, or one of {', '.join(_LINEAR)}, alone or at the end of a Pipeline, "
        f"got {type(estimator).__name__}"
    )


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
