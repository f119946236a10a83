"""What a network is trained towards: labels of its classes, or numbers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays
from preluflow._arrays import Float, Float64
from preluflow.loss import point_losses
from preluflow.typing import TrainingLoss

if TYPE_CHECKING:
    from preluflow.network import TwoLayerNetwork

_CLASSES = 1000  # more different numbers are hardly labels
_DIGEST = 16  # hexadecimal digits, 64 bits: beyond accidents
_SUM = 1e-6  # by which the shares of the classes at a point may miss 1


@dataclass(frozen=True)
class Targets:
    """Checked targets of n points.

    Attributes
    ----------
    y : ndarray, shape (n,) or (n, C)
        For observers: -1 and +1 of one output, the indices of the classes of several; numbers where they are none.
    values : ndarray, shape (n, C)
        For the core, float64: -1 and +1, one-hot rows, or the numbers.
    index : ndarray of int, shape (n,), or None
        The class of each point, of several outputs; None of one output.
    labelled : bool
        Whether points have classes, so that there are margins and an accuracy.
    """

    y: Float64 | NDArray[np.intp]
    values: Float64
    index: NDArray[np.intp] | None
    labelled: bool

    def margins(self, outputs: Float64) -> Float64:
        """How far outputs, (n,) or (n, C), are beyond an error, (n,): y f, or F_y less the largest other."""
        if not self.labelled:
            raise ValueError("margins and accuracy need labels, but y holds numbers to be met")
        if self.index is None:
            return np.asarray(self.values[:, 0] * outputs)
        rows = np.arange(len(self.index))
        others = outputs.copy()
        others[rows, self.index] = -np.inf
        return np.asarray(outputs[rows, self.index] - others.max(axis=1))


def check(network: TwoLayerNetwork, y: ArrayLike, n: int, loss: TrainingLoss) -> Targets:
    """Targets of a network and a loss, refused before any work.

    One output: labels, of which the first of ``network.classes`` becomes -1 and the second +1; with the squared loss
    and the classes -1 and +1 any numbers, but no two integers others than those, which are taken for labels of other
    classes unless y has shape (n, 1). Several: labels from ``network.classes``, or rows (n, C), of numbers with the
    squared loss, of shares of the classes with the cross-entropy.
    """
    outputs, given = network.num_outputs, _arrays.as_array(y, "y")
    _require_loss(loss, outputs)
    if given.ndim == 2 and outputs > 1:
        return _rows(given, n, outputs, loss)
    if given.ndim == 2 and given.shape[1] == 1 and loss == "squared":
        return _numbers(given, n)
    if outputs > 1:
        index = _class_indices(given, n, network)
        values = np.zeros((n, outputs))
        values[np.arange(n), index] = 1.0
        return Targets(index, values, index, labelled=True)
    if network.classes.tolist() != [-1, 1]:
        signs = np.where(_class_indices(given, n, network) == 1, 1.0, -1.0)
        return Targets(signs, signs[:, None], None, labelled=True)
    if loss == "squared" and not _look_like_labels(given):
        return _numbers(given, n)
    try:
        signs = _arrays.labels(given, n=n)
    except (ValueError, TypeError) as error:
        numbers = loss == "squared" and given.shape == (n,) and given.dtype.kind in "fiub"
        told = "; of numbers to be met make a column, y.reshape(-1, 1)" if numbers else ""
        raise type(error)(f"{error}{_cure(given, n, network)}{told}") from None
    return Targets(signs, signs[:, None], None, labelled=True)


def sample_weights(weights: ArrayLike | None, n: int) -> Float64 | None:
    """Weights of points (n,), scaled to a mean of 1; None where all are equal."""
    if weights is None:
        return None
    given = _arrays.real_array(weights, "sample_weight", dtype=np.float64, ndim=1)
    if given.shape != (n,):
        raise ValueError(f"sample_weight must have shape ({n},) to match the data, got {given.shape}")
    if given.min() < 0.0:
        i = int(np.argmin(given))
        raise ValueError(f"sample_weight must be at least 0, but sample_weight[{i}] is {given[i]:g}")
    if not given.any():
        raise ValueError("sample_weight must not be 0 everywhere")
    if np.all(given == given[0]):
        return None
    scaled = given / given.max()
    return np.asarray(scaled / scaled.mean(), dtype=np.float64)


def weights_digest(weights: Float64) -> str:
    """A short name of weights of points (n,) whose mean is 1, for a run's configuration; the same on every machine.

    It is that of the weights in float32, so that weights which differ by a factor, and by the rounding of it, share it.
    """
    return hashlib.sha256(weights.astype("<f4").tobytes()).hexdigest()[:_DIGEST]


def mean_loss(loss: TrainingLoss, targets: Targets, outputs: Float64, weight: Float64 | None = None) -> float:
    """Mean loss of outputs, (n,) or (n, C), over weighted points."""
    F = outputs.reshape(len(targets.values), -1)
    y = targets.values
    if loss == "cross_entropy":
        shifted = F - F.max(axis=1, keepdims=True)
        each = np.log(np.exp(shifted).sum(axis=1)) - (y * shifted).sum(axis=1)
    else:
        each = point_losses(loss, y, F).sum(axis=1)
    return float(np.mean(each if weight is None else weight * each))


def _class_indices(given: NDArray[np.generic], n: int, network: TwoLayerNetwork) -> NDArray[np.intp]:
    """Where among the network's classes labels are; what may be done about those that are not, it says."""
    try:
        return _arrays.class_indices(given, n=n, classes=network.classes)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{error}{_cure(given, n, network)}") from None


def _cure(given: NDArray[np.generic], n: int, network: TwoLayerNetwork) -> str:
    """What makes these labels the network's, if anything does."""
    if given.dtype.kind == "O" and all(isinstance(label, str) for label in given.flat):
        given = given.astype(str)
    if given.shape != (n,) or given.dtype.kind not in "fiubUS":
        return ""
    found, count = np.unique(given), len(network.classes)
    if given.dtype.kind in "US":
        by, classes = "np.unique(y, return_inverse=True)[1]", [int(label) for label in network.classes]
        if len(found) == count and classes != list(range(count)):
            by = f"np.array({classes})[{by}]"
        if len(found) != count:
            by += f" for a network of initialize(..., outputs={len(found)})"
        return f"; encode them by {by}, or use preluflow.sklearn.TwoLayerClassifier"
    whole = given.dtype.kind != "f" or bool(np.all(np.isfinite(found)) and np.all(found == np.floor(found)))
    if not whole or len(found) > _CLASSES:
        return ""
    labels = _arrays.shown([int(label) for label in found.tolist()])
    if len(found) == count:
        return f"; use network.replace(classes={labels})"
    if len(found) > count:
        return f"; of {len(found)} labels take initialize(..., outputs={len(found)}).replace(classes={labels})"
    return ""


def _require_loss(loss: TrainingLoss, outputs: int) -> None:
    if outputs > 1 and loss in ("exponential", "logistic"):
        raise ValueError(f"loss must be 'cross_entropy' or 'squared' for {outputs} outputs, got {loss!r}")
    if outputs == 1 and loss == "cross_entropy":
        raise ValueError("loss must be 'logistic' for the cross-entropy of one output, got 'cross_entropy'")


def _look_like_labels(given: NDArray[np.generic]) -> bool:
    """Whether a vector is one of labels: of the two, of at most two integers, or of no numbers at all."""
    if given.ndim != 1 or given.dtype.kind not in "fiub":
        return True
    values = np.unique(given)
    return len(values) <= 2 and bool(np.all(values == np.round(values)))


def _numbers(given: NDArray[np.generic], n: int) -> Targets:
    shape = (n, 1) if given.ndim == 2 else (n,)
    if given.shape != shape:
        raise ValueError(f"y must have shape ({n},) to match the data, got {given.shape}")
    array = _arrays.real_array(given, "y", dtype=np.float64, ndim=given.ndim)
    numbers = np.asarray(array, dtype=np.float64).reshape(n)
    return Targets(numbers, numbers[:, None], None, labelled=given.ndim == 1 and bool(np.all(np.abs(numbers) == 1.0)))


def _rows(given: NDArray[np.generic], n: int, outputs: int, loss: TrainingLoss) -> Targets:
    if given.shape != (n, outputs):
        raise ValueError(f"y must have shape ({n},) or ({n}, {outputs}) to match data and outputs, got {given.shape}")
    values: Float = _arrays.real_array(given, "y", dtype=np.float64, ndim=2)
    rows = np.asarray(values, dtype=np.float64)
    if loss == "squared":
        return Targets(rows, rows, None, labelled=False)
    wrong = (np.abs(rows.sum(axis=1) - 1.0) > _SUM) | (rows.min(axis=1) < 0.0)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(
            f"y must hold labels, or rows of shares of the classes that are at least 0 and add up to 1, but y[{i}] is "
            f"{_arrays.shown(rows[i].tolist())}"
        )
    index = rows.argmax(axis=1)
    return Targets(rows, rows, index, labelled=True)
