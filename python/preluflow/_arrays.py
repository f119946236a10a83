"""Where input is checked and coerced, once: every message names the argument, what was expected and what came."""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from preluflow import _threads
from preluflow._dispatch import core

Word = TypeVar("Word", bound=str)

Float = NDArray[np.floating[Any]]
Float64 = NDArray[np.float64]

INT32, INT64, UINT64 = 2**31 - 1, 2**63 - 1, 2**64 - 1  # the largest of what the core takes integers as

_LONGEST_SHOWN = 120  # characters of a value in a message
_ORTHONORMAL = 4e-15  # products of rows within this of 0 and 1 are those of orthonormal rows, but for rounding
_SMALL = 1 << 12  # elements that NumPy has looked at before the core is called
_FINITE_BLOCK = 1 << 22  # elements looked at together, so that checking a memmap costs no copy of it


def _memory() -> int:
    """Bytes of the machine's memory; where the system does not tell, those an address can reach."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**47


MEMORY = _memory()

# ---- what came


def shown(value: Any) -> str:
    """A short line for what came, whatever it is: it may be huge, of many lines, or have no repr at all."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an integer of 5000 digits, an object whose repr fails
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def _scalar(value: Any, name: str) -> Any:
    """What an array of no dimension holds, as a number or a word may come in one; anything else as it is."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        _require_unmasked(value, name)
        return value[()]
    return value


def instance(value: Any, name: str, kind: type | tuple[type, ...]) -> Any:
    """An object of that class, or of one of those."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        words = " or ".join(f"{'an' if k.__name__[0] in 'AEIOU' else 'a'} {k.__name__}" for k in kinds)
        raise TypeError(f"{name} must be {words}, got {type(value).__name__}")
    return value


def dtype_of(dtype: DTypeLike, name: str = "dtype") -> np.dtype[Any]:
    """float32 or float64."""
    try:
        if dtype is None:  # to NumPy, that is float64
            raise TypeError
        result = np.dtype(dtype)
    except Exception:  # NumPy's errors are of many kinds here
        raise ValueError(f"{name} must be float32 or float64, got {shown(dtype)}") from None
    if result not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"{name} must be float32 or float64, got {result}")
    return result


# ---- arrays


def _require_finite(array: Float, name: str) -> None:
    flat = array.reshape(-1)
    for start in range(0, flat.size, _FINITE_BLOCK):
        block = flat[start : start + _FINITE_BLOCK]
        if block.size >= _SMALL and core.all_finite(block):
            continue
        finite = np.isfinite(block)
        if not finite.all():
            index = np.unravel_index(start + int(np.argmin(finite)), array.shape)
            place = ", ".join(str(int(i)) for i in index)
            where = f"{name}[{place}]" if place else name
            raise ValueError(f"{name} must be finite, but {where} is {array[index]}")


def _require_unmasked(array: Any, name: str, depth: int = 4) -> None:
    """Refuse masked arrays, also within lists, that hide an entry: NumPy would drop the mask and take what is below."""
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            raise ValueError(f"{name} must not be masked, but {int(np.sum(array.mask))} of its entries are")
    elif isinstance(array, (list, tuple)) and depth:
        for item in array:
            if isinstance(item, (list, tuple, np.ma.MaskedArray)):
                _require_unmasked(item, name, depth - 1)


def as_array(array: ArrayLike, name: str) -> NDArray[Any]:
    """Make an array of whatever came; what cannot be one, a ragged list, hidden entries and np.matrix are refused."""
    if isinstance(array, np.matrix):
        raise TypeError(f"{name} must be an array, not a np.matrix, whose products mean something else")
    _require_unmasked(array, name)
    try:
        return np.asarray(array)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name} must be an array: {error}") from None


def _real_kind(array: NDArray[Any], name: str, what: str = "real numbers") -> None:
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold {what}, got dtype {array.dtype}")


def network_dtype(array: ArrayLike, name: str, dtype: DTypeLike | None) -> np.dtype[Any]:
    """Dtype of a network made from ``array``: as said, else the array's own if it is a float, else float64."""
    if dtype is not None:
        return dtype_of(dtype)
    given = as_array(array, name).dtype
    return dtype_of(given, f"the dtype of {name}") if given.kind == "f" else np.dtype(np.float64)


def real_array(array: ArrayLike, name: str, *, dtype: DTypeLike, ndim: int) -> Float:
    """A finite C-contiguous array of ``dtype`` and ``ndim`` dimensions; copies only when it must."""
    result = as_array(array, name)
    _real_kind(result, name)
    if result.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension{'s' * (ndim != 1)}, got shape {result.shape}")
    if result.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {result.shape}")
    with np.errstate(over="ignore"):  # what is too large for the dtype becomes inf, and is refused by its place
        result = np.ascontiguousarray(result, dtype=dtype)
    _require_finite(result, name)
    return result


def numbers_in(array: Any, name: str, *, minimum: float | None = None, ndim: int = 1) -> Float64:
    """Finite numbers, float64: a number alone or an array of up to ``ndim`` dimensions, which may be empty."""
    if isinstance(array, int) and not isinstance(array, bool):
        array = real(array, name)  # beyond 64 bits NumPy would make an object of it
    given = as_array(array, name)
    _real_kind(given, name)
    if given.ndim > ndim or (given.ndim == 0 and given.dtype.kind == "b"):
        came = f"shape {given.shape}" if given.ndim else shown(array)
        raise (ValueError if given.ndim else TypeError)(f"{name} must be a number or an array of them, got {came}")
    with np.errstate(over="ignore"):
        result = given.astype(np.float64)
    _require_finite(result, name)
    if minimum is not None and result.size and result.min() < minimum:
        raise ValueError(f"{name} must be at least {minimum:g}, got {result.min():g}")
    return result


def curve(array: ArrayLike, name: str, *shape: int | None, match: str = "") -> Float64:
    """Numbers along a curve, float64, NaN where there is none; ``shape`` leaves a length open as None."""
    result = as_array(array, name)
    _real_kind(result, name)
    if result.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, result.shape, strict=True)):
        expected = ", ".join("n" if n is None else str(n) for n in shape) + "," * (len(shape) == 1)
        raise ValueError(f"{name} must have shape ({expected}){match and f' to match {match}'}, got {result.shape}")
    return result.astype(np.float64)


def logarithms(values: ArrayLike, name: str, *, shape: tuple[int, ...]) -> Float64:
    """Logarithms of numbers that may be 0: float64, finite or -inf."""
    given = as_array(values, name)
    _real_kind(given, name)
    if given.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {given.shape}")
    result = given.astype(np.float64)
    wrong = ~(result < np.inf)
    if wrong.any():
        index = np.unravel_index(int(np.argmax(wrong)), shape)
        place = ", ".join(str(int(i)) for i in index)
        raise ValueError(f"{name} must be finite or -inf, but {name}[{place}] is {result[index]}")
    return result


def data_matrix(X: ArrayLike, *, dim: int, dtype: np.dtype[Any], name: str = "X") -> Float:
    """X (n, D) of the network's own dtype; a float array of the other precision is refused, never converted."""
    array = as_array(X, name)
    if array.dtype.kind == "f" and array.dtype != dtype:
        either = f" or network.astype('{array.dtype}')" if array.dtype in (np.float32, np.float64) else ""
        raise TypeError(
            f"{name} has dtype {array.dtype} but the network has {dtype}; "
            f"make it with initialize(..., like={name}), or use {name}.astype('{dtype}'){either}"
        )
    result = real_array(array, name, dtype=dtype, ndim=2)
    if result.shape[1] != dim:
        raise ValueError(f"{name} must have shape (n, {dim}) as the network's inputs, got {result.shape}")
    return result


def points(X: ArrayLike, *, dim: int | None = None, of: str = "classifier") -> Float:
    """X (n, D), finite, float32 and float64 kept; anything else becomes float64."""
    given = as_array(X, "X")
    kept = given.dtype in (np.dtype(np.float32), np.dtype(np.float64))
    result: Float = real_array(given, "X", dtype=given.dtype if kept else np.float64, ndim=2)
    if dim is not None and result.shape[1] != dim:
        raise ValueError(f"X must have shape (n, {dim}) as the {of}'s inputs, got {result.shape}")
    return result


def labels(y: ArrayLike, *, n: int, name: str = "y") -> Float64:
    """Labels (n,) of any real dtype with values -1 and +1, as float64."""
    array = as_array(y, name)
    _real_kind(array, name, "the labels -1 and +1")
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},) to match the data, got {array.shape}")
    result = np.ascontiguousarray(array, dtype=np.float64)
    wrong = np.abs(result) != 1.0
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(f"{name} must hold the labels -1 and +1, but {name}[{index}] is {array[index]}")
    return result


def class_indices(y: ArrayLike, *, n: int, classes: NDArray[np.int64], name: str = "y") -> NDArray[np.intp]:
    """For labels (n,) of any real dtype, where among ``classes`` they are."""
    array = as_array(y, name)
    words = ", ".join(str(label) for label in classes[:10]) + (", ..." if len(classes) > 10 else "")
    _real_kind(array, name, f"the labels {words}")
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},) to match the data, got {array.shape}")
    order = np.argsort(classes)
    place = np.minimum(np.searchsorted(classes[order], array), len(classes) - 1)
    found: NDArray[np.intp] = order[place]
    wrong = classes[found] != array
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(f"{name} must hold the labels {words}, but {name}[{index}] is {array[index]}")
    return found


# ---- numbers and words


def integer(value: Any, name: str, *, minimum: int, maximum: int | None = INT64) -> int:
    """An integer from ``minimum`` to ``maximum``, which is what the core counts with unless said otherwise."""
    value = _scalar(value, name)
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        result = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {shown(value)}") from None
    if result < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {shown(result)}")
    if maximum is not None and result > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {shown(result)}")
    return result


def require_room(name: str, *shape: int, itemsize: int = 8) -> None:
    """Refuse, by the argument's name, an array larger than the machine's memory: to try would end the process."""
    size = math.prod(shape) * itemsize
    if size > MEMORY:
        raise ValueError(
            f"{name} is too large: an array of shape {shape} takes {shown(size // 10**9)} GB, "
            f"this machine has {MEMORY / 1e9:.0f}"
        )


def real(
    value: Any,
    name: str,
    *,
    above: float | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> float:
    """A finite real number, > ``above``, >= ``minimum``, <= ``maximum``."""
    value = _scalar(value, name)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (numbers.Real, np.floating, np.integer)):
        raise TypeError(f"{name} must be a real number, got {shown(value)}")
    try:
        result = float(value)
    except OverflowError:
        raise ValueError(f"{name} must fit a float64, got {shown(value)}") from None
    if not math.isfinite(result):
        raise ValueError(f"{name} must be finite, got {result}")
    if above is not None and not result > above:
        raise ValueError(f"{name} must be greater than {above:g}, got {result:g}")
    if minimum is not None and result < minimum:
        raise ValueError(f"{name} must be at least {minimum:g}, got {result:g}")
    if maximum is not None and result > maximum:
        raise ValueError(f"{name} must be at most {maximum:g}, got {result:g}")
    return result


def choice(value: Any, name: str, allowed: Iterable[Word]) -> Word:
    """One of the ``allowed`` words."""
    words = tuple(allowed)
    value = _scalar(value, name)
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}, got {shown(value)}")
    return words[words.index(value)]  # a plain str, not NumPy's


def flag(value: Any, name: str) -> bool:
    """True or False, NumPy's included; not what else might count as true."""
    value = _scalar(value, name)
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def generator(rng: Any, name: str = "rng") -> np.random.Generator:
    """A generator as it is, or one made from None, an integer >= 0 of any size, several, or NumPy's seeds."""
    if rng is None or isinstance(rng, (np.random.Generator, np.random.BitGenerator, np.random.SeedSequence)):
        return np.random.default_rng(rng)
    if isinstance(rng, (list, tuple)) and rng:
        parts = [integer(part, f"{name}[{i}]", minimum=0, maximum=None) for i, part in enumerate(rng)]
        return np.random.default_rng(parts)
    try:
        return np.random.default_rng(integer(rng, name, minimum=0, maximum=None))
    except TypeError:
        raise TypeError(f"{name} must be None, an integer or a numpy Generator, got {shown(rng)}") from None


def threads(num_threads: int | None) -> int:
    """Threads a call uses: as many as asked, but no more than the processors this process may use.

    None means ``OMP_NUM_THREADS``, or all of them. Any integer from 1 on will do, however large.
    """
    if num_threads is None:
        return _threads.default()
    return min(integer(num_threads, "num_threads", minimum=1, maximum=None), _threads.processors())


def orthonormal_rows(centers: ArrayLike, *, name: str = "centers", tolerance: float = 1e-5) -> Float64:
    """Centres (K, D) in float64, refused unless they are orthonormal within ``tolerance``, and then made so.

    Rows that are not yet orthonormal to rounding are replaced by the nearest ones that are (their polar factor), by the
    iteration C <- C (3 - C^T C) / 2 of Newton and Schulz, which squares the error.
    """
    result = real_array(centers, name, dtype=np.float64, ndim=2).astype(np.float64)
    if result.shape[0] > result.shape[1]:
        raise ValueError(f"{name} has {result.shape[0]} rows in R^{result.shape[1]}; they cannot be orthonormal")
    with np.errstate(over="ignore", invalid="ignore"):
        gram = result @ result.T
    error = np.abs(gram - np.eye(len(gram)))
    i, j = np.unravel_index(int(np.argmax(error)), error.shape)
    if not error[i, j] <= tolerance:  # also where products overflow
        raise ValueError(f"{name} must have orthonormal rows, but <{name}[{i}], {name}[{j}]> = {gram[i, j]:.6g}")
    if error[i, j] > _ORTHONORMAL:
        for _ in range(3):
            result = 1.5 * result - 0.5 * (gram @ result)
            gram = result @ result.T
    return result
