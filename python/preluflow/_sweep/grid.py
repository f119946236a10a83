"""The grid of a sweep: what is swept, the cells, their keys, and the random numbers that are theirs."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preluflow import _arrays
from preluflow._sweep.identity import value_digest
from preluflow._version import __version__

Parameters = dict[str, Any]

MOST_CELLS = 1_000_000  # a file each
RESERVED = ("status", "error", "traceback")  # variables of every dataset that no dimension or value may be called
STREAM = "rng"  # the argument that asks for a cell's own random numbers


@dataclass(frozen=True)
class Cell:
    """One point of the grid.

    Attributes
    ----------
    index : tuple of int
        Where in the grid.
    parameters : dict
        A value of every dimension, plain Python.
    key : str
        32 hex digits of its parameters, the function and our version: what its file is called.
    """

    index: tuple[int, ...]
    parameters: Parameters
    key: str


@dataclass(frozen=True)
class Call:
    """How a measure is called: with which dimensions, and whether with a stream of random numbers."""

    names: tuple[str, ...]
    stream: bool

    def arguments(self, parameters: Mapping[str, Any]) -> Parameters:
        """Keyword arguments for a cell."""
        found = {name: parameters[name] for name in self.names}
        return {**found, STREAM: stream(parameters)} if self.stream else found


def dimensions(over: Any) -> dict[str, NDArray[Any]]:
    """Values along each dimension; an array of bools, int64, float64 or words, all different."""
    if not isinstance(over, Mapping) or not over:
        raise TypeError(f"over must be a dict from names to values, at least one, got {_arrays.shown(over)}")
    found = {}
    for name, values in over.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"over must have names of arguments as keys, got {_arrays.shown(name)}")
        if name in RESERVED:
            raise ValueError(f"over must not have {name!r} as a key: every sweep has a variable of this name")
        found[name] = _values(values, f"over[{name!r}]")
    count = math.prod(len(values) for values in found.values())
    if count > MOST_CELLS:
        raise ValueError(f"over must have at most {MOST_CELLS} cells in all, got {count}")
    return found


def _values(values: Any, name: str) -> NDArray[Any]:
    expected = f"{name} must be a list of numbers, of words or of True and False"
    if isinstance(values, (str, bytes, Mapping)) or not (isinstance(values, Sequence) or hasattr(values, "__array__")):
        raise TypeError(f"{expected}, got {_arrays.shown(values)}")
    if isinstance(values, range) and len(values) > MOST_CELLS:
        raise ValueError(f"{name} must have at most {MOST_CELLS} values, got {len(values)}")
    array = _arrays.as_array(values, name)
    kinds = {np.asarray(value).dtype.kind for value in values} if array.ndim == 1 else set()
    if array.ndim != 1 or not (kinds <= set("iuf") or kinds in ({"b"}, {"U"})):
        raise TypeError(f"{expected}, got {_arrays.shown(values)}")
    if not array.size:
        raise ValueError(f"{name} must not be empty")
    if array.dtype.kind == "u" and array.max() > _arrays.INT64:
        raise ValueError(f"{name} must hold integers below 2**63, got {array.max()}")
    array = array.astype({"f": np.float64, "i": np.int64, "u": np.int64}.get(array.dtype.kind, array.dtype))
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(f"{name} must not hold NaN")
    unique, counts = np.unique(array, return_counts=True)
    if len(unique) < len(array):
        raise ValueError(f"{name} must hold different values, but {unique[counts.argmax()]} is there twice")
    return array


def cells(dims: Mapping[str, NDArray[Any]], identity: str, version: str = __version__) -> list[Cell]:
    """Every cell of the grid of a function, the last dimension varying first."""
    values = [array.tolist() for array in dims.values()]
    found = []
    for index in itertools.product(*(range(len(each)) for each in values)):
        parameters = {name: values[k][i] for k, (name, i) in enumerate(zip(dims, index, strict=True))}
        found.append(Cell(index, parameters, key_of(parameters, identity, version)))
    return found


def key_of(parameters: Parameters, identity: str, version: str) -> str:
    """32 hex digits of parameters, a function's identity and a version of ours."""
    text = f"{identity} {version}".encode()
    return hashlib.sha256(value_digest(parameters) + text).hexdigest()[:32]


def stream(parameters: Mapping[str, Any]) -> np.random.Generator:
    """Random numbers of a cell: a child of ``SeedSequence(0)`` whose key is a digest of the parameters alone."""
    words = np.frombuffer(value_digest(dict(parameters)), dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence(0, spawn_key=tuple(int(word) for word in words)))


def call_of(measure: Any, dims: Iterable[str], repeats: str) -> Call:
    """How ``measure`` is to be called; refused if it cannot be with these dimensions."""
    names = tuple(dims)
    if not callable(measure) or inspect.isclass(measure):
        raise TypeError(f"measure must be a function, got {_arrays.shown(measure)}")
    try:
        signature = inspect.signature(measure)
    except (ValueError, TypeError):
        raise TypeError(f"measure must be a function with a signature, got {_arrays.shown(measure)}") from None
    takes = {name for name, each in signature.parameters.items() if each.kind in _BY_NAME}
    wild = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    asks = STREAM in takes and STREAM not in names and _unset(signature.parameters[STREAM].default)
    passed = tuple(name for name in names if wild or name in takes or not (asks and name == repeats))
    call = Call(passed, asks)
    try:
        signature.bind(**dict.fromkeys((*passed, *((STREAM,) if asks else ()))))
    except TypeError as error:
        given = ", ".join(names)
        raise TypeError(f"measure must take the names in over ({given}) as its arguments: {error}") from None
    return call


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _unset(default: Any) -> bool:
    return default is inspect.Parameter.empty or default is None
