"""Where input is checked and coerced, once: every message names the argument, what was expected and what came."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from preluflow import _threads

Float = NDArray[np.floating[Any]]
Float64 = NDArray[np.float64]

_FINITE_BLOCK = 1 << 22  # elements looked at together, so that checking a memmap costs no copy of it


def dtype_of(dtype: DTypeLike, name: str = "dtype") -> np.dtype[Any]:
    """float32 or float64."""
    try:
        result = np.dtype(dtype)
    except TypeError:
        raise ValueError(f"{name} must be float32 or float64, got {dtype!r}") from None
    if result not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"{name} must be float32 or float64, got {result}")
    return result


def _require_finite(array: Float, name: str) -> None:
    flat = array.reshape(-1)
    for start in range(0, flat.size, _FINITE_BLOCK):
        finite = np.isfinite(flat[start : start + _FINITE_BLOCK])
        if not finite.all():
            index = np.unravel_index(start + int(np.argmin(finite)), array.shape)
            place = ", ".join(str(int(i)) for i in index)
            raise ValueError(f"{name} must be finite, but {name}[{place}] is {array[index]}")


def as_array(array: ArrayLike, name: str) -> NDArray[Any]:
    """Make an array of whatever came; a ragged list is refused by name."""
    try:
        return np.asarray(array)
    except ValueError as error:
        raise ValueError(f"{name} must be an array: {error}") from None


def network_dtype(array: ArrayLike, name: str, dtype: DTypeLike | None) -> np.dtype[Any]:
    """Dtype of a network made from ``array``: as said, else the array's own if it is a float, else float64."""
    if dtype is not None:
        return dtype_of(dtype)
    given = as_array(array, name).dtype
    return dtype_of(given, f"the dtype of {name}") if given.kind == "f" else np.dtype(np.float64)


def real_array(array: ArrayLike, name: str, *, dtype: DTypeLike, ndim: int) -> Float:
    """A finite C-contiguous array of ``dtype`` and ``ndim`` dimensions; copies only when it must."""
    result = as_array(array, name)
    if result.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {result.dtype}")
    if result.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension{'s' * (ndim != 1)}, got shape {result.shape}")
    if result.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {result.shape}")
    result = np.ascontiguousarray(result, dtype=dtype)
    _require_finite(result, name)
    return result


def data_matrix(X: ArrayLike, *, dim: int, dtype: np.dtype[Any], name: str = "X") -> Float:
    """X (n, D) of the network's own dtype; a float array of the other precision is refused, never converted."""
    array = as_array(X, name)
    if array.dtype.kind == "f" and array.dtype != dtype:
        either = f" or network.astype('{array.dtype}')" if array.dtype in (np.float32, np.float64) else ""
        raise TypeError(
            f"{name} has dtype {array.dtype} but the network has {dtype}; use {name}.astype('{dtype}'){either}"
        )
    result = real_array(array, name, dtype=dtype, ndim=2)
    if result.shape[1] != dim:
        raise ValueError(f"{name} must have shape (n, {dim}) as the network's inputs, got {result.shape}")
    return result


def points(X: ArrayLike, *, dim: int | None = None) -> Float:
    """X (n, D), finite, its float dtype kept; anything else becomes float64."""
    given = as_array(X, "X")
    result: Float = real_array(given, "X", dtype=given.dtype if given.dtype.kind == "f" else np.float64, ndim=2)
    if dim is not None and result.shape[1] != dim:
        raise ValueError(f"X must have shape (n, {dim}) as the classifier's inputs, got {result.shape}")
    return result


def labels(y: ArrayLike, *, n: int, name: str = "y") -> Float64:
    """Labels (n,) of any real dtype with values -1 and +1, as float64."""
    array = as_array(y, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold the labels -1 and +1, got dtype {array.dtype}")
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},) to match the data, got {array.shape}")
    result = np.ascontiguousarray(array, dtype=np.float64)
    wrong = np.abs(result) != 1.0
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(f"{name} must hold the labels -1 and +1, but {name}[{index}] is {array[index]}")
    return result


def integer(value: Any, name: str, *, minimum: int) -> int:
    """An integer >= ``minimum``."""
    try:
        if isinstance(value, bool):
            raise TypeError
        result = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if result < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {result}")
    return result


def real(
    value: Any,
    name: str,
    *,
    above: float | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> float:
    """A finite real number, > ``above``, >= ``minimum``, <= ``maximum``."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (numbers.Real, np.floating, np.integer)):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    result = float(value)
    if not math.isfinite(result):
        raise ValueError(f"{name} must be finite, got {result}")
    if above is not None and not result > above:
        raise ValueError(f"{name} must be greater than {above:g}, got {result:g}")
    if minimum is not None and result < minimum:
        raise ValueError(f"{name} must be at least {minimum:g}, got {result:g}")
    if maximum is not None and result > maximum:
        raise ValueError(f"{name} must be at most {maximum:g}, got {result:g}")
    return result


def choice(value: Any, name: str, allowed: Iterable[str]) -> str:
    """One of the ``allowed`` words."""
    words = tuple(allowed)
    if value not in words:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}, got {value!r}")
    return str(value)


def threads(num_threads: int | None) -> int:
    """Threads a call uses: as many as asked, but no more than the processors this process may use.

    None means ``OMP_NUM_THREADS``, or all of them. Any integer from 1 on will do, however large.
    """
    if num_threads is None:
        return _threads.default()
    return min(integer(num_threads, "num_threads", minimum=1), _threads.processors())


def orthonormal_rows(centers: ArrayLike, *, name: str = "centers", tolerance: float = 1e-5) -> Float64:
    """Centres (K, D) in float64, refused unless they are orthonormal within ``tolerance``."""
    result = real_array(centers, name, dtype=np.float64, ndim=2).astype(np.float64)
    if result.shape[0] > result.shape[1]:
        raise ValueError(f"{name} has {result.shape[0]} rows in R^{result.shape[1]}; they cannot be orthonormal")
    gram = result @ result.T
    error = np.abs(gram - np.eye(len(gram)))
    i, j = np.unravel_index(int(np.argmax(error)), error.shape)
    if error[i, j] > tolerance:
        raise ValueError(f"{name} must have orthonormal rows, but <{name}[{i}], {name}[{j}]> = {gram[i, j]:.6g}")
    return result
