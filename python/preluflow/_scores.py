"""What attacks lower: a classifier in float64, its labels, and scores of its outputs - margin, cross-entropy, DLR."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays
from preluflow._arrays import Float64
from preluflow.network import TwoLayerNetwork

_LARGEST_LOG = 700.0  # of a scale: its exponential and that of its negative are finite
FAR = 1e300  # margin of a point whose outputs leave float64, so that nobody can say which is larger: no error

Ints = NDArray[np.int64]

# Outputs F (m, C) as scaled, own classes (m,) and the factor that was taken out of F: a score (m,), which falls as the
# attack succeeds, and its gradient in F (m, C).
Score = Callable[[Float64, Ints, float], tuple[Float64, Float64]]


class Model:
    """The classifier in float64, every gradient counted.

    A TwoLayerNetwork is rescaled, so that its sign survives where f underflows: f = exp(log_scale) times what is here.
    """

    def __init__(self, classifier: Any) -> None:
        self.log_scale = 0.0
        self.gradients = 0
        self.known: Callable[[ArrayLike], ArrayLike] = lambda y: y  # labels as the classifier knows them
        if isinstance(classifier, type):
            raise TypeError(f"classifier must be an object, not the class {classifier.__name__}")
        if isinstance(classifier, TwoLayerNetwork):
            rescaled, self.log_scale = classifier.rescaled()
            classifier = rescaled.astype("float64")
        for name in ("decision_function", "input_gradient"):
            if not callable(getattr(classifier, name, None)):
                raise TypeError(f"classifier must have a method {name}, but {type(classifier).__name__} has none")
        self.classifier = classifier
        # With normalised input and offsets, outputs and gradients grow without bound towards the centre.
        self.singular = bool(isinstance(classifier, TwoLayerNetwork) and getattr(classifier, "normalize_input", False))
        self.outputs = 1
        self.classes: Ints = np.array([-1, 1])

    def look(self, points: NDArray[Any]) -> None:
        """Find how many outputs there are, from one of the points (n, D), and which classes they stand for."""
        if _takes_weights(self.classifier.input_gradient):
            shape = np.shape(self.classifier.decision_function(points[:1].astype(np.float64)))
            if len(shape) == 2 and shape[0] == 1 and shape[1] >= 2:
                self.outputs = shape[1]
                self.classes = np.arange(self.outputs)
        given = getattr(self.classifier, "classes", None)
        given = getattr(self.classifier, "classes_", None) if given is None else given
        if given is not None:
            self.classes = _classes(given, max(self.outputs, 2))

    @property
    def scale(self) -> float:
        """The factor taken out of the outputs, as far as float64 goes."""
        return math.exp(min(max(self.log_scale, -_LARGEST_LOG), _LARGEST_LOG))

    def targets(self, y: ArrayLike, *, n: int, name: str = "y") -> NDArray[Any]:
        """Labels (n,): -1 and +1 as float64 for one output, else numbers of classes."""
        y = self.known(y)
        if self.outputs == 1 and np.array_equal(self.classes, (-1, 1)):
            return _arrays.labels(y, n=n, name=name)
        array = _arrays.as_array(y, name)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name} must hold members of the classifier's classes, got dtype {array.dtype}")
        if array.shape != (n,):
            raise ValueError(f"{name} must have shape ({n},) to match the data, got {array.shape}")
        match = array[:, None] == self.classes
        known = match.any(axis=1)
        if not known.all():
            index = int(np.argmin(known))
            shown = _arrays.shown(self.classes.tolist())
            raise ValueError(f"{name} must hold the classes {shown}, but {name}[{index}] is {array[index]}")
        number = match.argmax(axis=1).astype(np.int64)
        return np.where(number == 1, 1.0, -1.0) if self.outputs == 1 else number

    def value(self, x: Float64) -> Float64:
        """Evaluate the outputs at x (m, D): (m,) for one, else (m, C); NaN where they leave float64."""
        shape = x.shape[:1] if self.outputs == 1 else (len(x), self.outputs)
        return self._checked(self.classifier.decision_function(x), "decision_function", shape)

    def both(self, x: Float64) -> tuple[Float64, Float64]:
        """Evaluate the one output f at x (m, D), shape (m,), and its gradient (m, D)."""
        self.gradients += len(x)
        if callable(getattr(self.classifier, "value_and_input_gradient", None)):
            f, gradient = self.classifier.value_and_input_gradient(x)
        else:
            f, gradient = self.classifier.decision_function(x), self.classifier.input_gradient(x)
        value = self._checked(f, "decision_function", x.shape[:1])
        return value, np.nan_to_num(self._checked(gradient, "input_gradient", x.shape))

    def gradient(self, x: Float64, weights: Float64) -> Float64:
        """Gradient of sum_c weights_c F_c at x (m, D), of several outputs, weights (m, C); shape (m, D)."""
        self.gradients += len(x)
        found = self._checked(self.classifier.input_gradient(x, weights), "input_gradient", x.shape)
        return np.nan_to_num(found)

    def _checked(self, array: ArrayLike, name: str, shape: tuple[int, ...]) -> Float64:
        result = np.asarray(array, dtype=np.float64)
        if result.shape != shape:
            raise ValueError(f"classifier.{name} must return shape {shape}, got {result.shape}")
        finite = np.isfinite(result)
        if not finite.all():
            if not self.singular:
                raise ValueError(f"classifier.{name} returned values that are not finite")
            result = np.where(finite, result, np.nan)
        return result


def _takes_weights(method: Any) -> bool:
    """Whether it can be called with points and weights, as those of several outputs can."""
    try:
        inspect.signature(method).bind(None, None)
    except (TypeError, ValueError):  # the latter: no signature to be had
        return False
    return True


def _classes(given: Any, count: int) -> Ints:
    """The classes of a classifier, (C,): distinct integers."""
    array = _arrays.as_array(given, "classifier.classes")
    if array.dtype.kind not in "iuf" or not np.array_equal(array, np.trunc(array)):
        raise TypeError(f"classifier.classes must be integers, got {_arrays.shown(given)}")
    if array.shape != (count,) or len(np.unique(array)) != count:
        raise ValueError(f"classifier.classes must be {count} distinct integers, got {_arrays.shown(given)}")
    return array.astype(np.int64)


# ---- scores of several outputs


def nearest_rival(F: Float64, own: Ints) -> Ints:
    """The rival class of the largest output, (m,), the first of equals."""
    others = F.copy()
    others[np.arange(len(F)), own] = -np.inf
    return np.asarray(np.argmax(others, axis=1))


def pair_weights(F: Float64, own: Ints, rival: Ints) -> Float64:
    """Gradient of F_own - F_rival in F, (m, C)."""
    weights, rows = np.zeros_like(F), np.arange(len(F))
    weights[rows, own], weights[rows, rival] = 1.0, -1.0
    return weights


def margin(F: Float64, own: Ints, scale: float) -> tuple[Float64, Float64]:
    """F_own - max_{c != own} F_c; of no scale."""
    del scale
    rows, rival = np.arange(len(F)), nearest_rival(F, own)
    return F[rows, own] - F[rows, rival], pair_weights(F, own, rival)


def soft_margin(F: Float64, own: Ints, scale: float) -> tuple[Float64, Float64]:
    """F_own - log mean_{c != own} exp(scale F_c) / scale: falls as the cross-entropy of ``scale`` F rises.

    The cross-entropy is log(1 + exp(-m)), m = scale times this, less log(C - 1). Its gradient in F vanishes where the
    network is sure; that of m, which is parallel, does not.
    """
    rows = np.arange(len(F))
    others = F.copy()
    others[rows, own] = -np.inf
    top = others.max(axis=1)
    with np.errstate(over="ignore"):
        below = scale * (others - top[:, None])
    excess = np.expm1(below)
    excess[rows, own] = 0.0
    mean = excess.sum(axis=1) / (F.shape[1] - 1)
    shares = np.exp(below)
    score = F[rows, own] - top - np.log1p(mean) / scale
    weights = -shares / shares.sum(axis=1, keepdims=True)
    weights[rows, own] = 1.0
    return score, weights


def dlr(F: Float64, own: Ints, scale: float) -> tuple[Float64, Float64]:
    """The margin over the gap of the largest output to the third: difference of logits ratio, of no scale."""
    rows = np.arange(len(F))
    found, weights = margin(F, own, scale)
    order = np.argsort(-F, axis=1, kind="stable")
    first, third = order[:, 0], order[:, 2]
    gap = F[rows, first] - F[rows, third]
    gap = np.where(gap > 0, gap, 1.0)  # three largest are equal: the point is wrong already
    score = found / gap
    weights[rows, first] -= score
    weights[rows, third] += score
    return score, weights / gap[:, None]


SCORES: dict[str, Score] = {"exponential": margin, "margin": margin, "cross_entropy": soft_margin, "dlr": dlr}
