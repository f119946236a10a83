"""What a measure may return, as arrays with named axes; and how a cell's findings travel and are kept."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preluflow import _arrays, _npz
from preluflow._radius import RobustRadius
from preluflow._sweep.grid import RESERVED
from preluflow.distance import DistanceBracket
from preluflow.results import Run, environment

Arrays = dict[str, NDArray[Any]]
Axes = dict[str, list[str]]


@dataclass
class Finding:
    """What came of a cell: arrays with names for their axes, or an error.

    Attributes
    ----------
    arrays : dict of ndarray
    axes : dict
        Names of each array's dimensions.
    error, traceback : str
        Empty if there was none; the last line of the traceback, and all of it.
    interrupted : bool
        Whether Ctrl-C came meanwhile, so that what was found may be half of it and is none.
    seconds : float
        Wall time.
    environment : dict
        Versions and instruction set.
    """

    arrays: Arrays = field(default_factory=dict)
    axes: Axes = field(default_factory=dict)
    error: str = ""
    traceback: str = ""
    interrupted: bool = False
    seconds: float = 0.0
    environment: dict[str, Any] = field(default_factory=environment)

    @property
    def failed(self) -> bool:
        """Whether there was an error."""
        return bool(self.error)

    def blame(self, error: BaseException, began: float | None = None) -> Finding:
        """Keep an error, and the seconds since ``began``; return itself."""
        self.error = "".join(traceback.format_exception_only(type(error), error)).strip() or type(error).__name__
        self.traceback = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        if began is not None:
            self.seconds = time.perf_counter() - began
        return self

    def meta(self) -> dict[str, Any]:
        """What is kept beside the arrays, as JSON keeps it."""
        return {"axes": self.axes, "seconds": self.seconds, "environment": self.environment}

    @classmethod
    def from_file(cls, arrays: Arrays, meta: Mapping[str, Any]) -> Finding:
        """Undo ``meta``; ValueError if the arrays and axes do not belong together."""
        axes = _npz.field(meta, "axes", dict)
        if sorted(axes) != sorted(arrays):
            raise ValueError(f"axes must be of the arrays {sorted(arrays)}, got {sorted(axes)}")
        for name, names in axes.items():
            words = isinstance(names, list) and all(isinstance(each, str) for each in names)
            if not words or len(names) != arrays[name].ndim:
                raise ValueError(f"axes of {_npz.short(name)} must be {arrays[name].ndim} names")
        seconds = _npz.real_field(meta, "seconds", finite=True)
        return cls(arrays, axes, seconds=seconds, environment=_npz.field(meta, "environment", dict))


def found(returned: Any, taken: tuple[str, ...]) -> tuple[Arrays, Axes]:
    """What a measure returned, as arrays and names of their axes.

    Raises
    ------
    TypeError, ValueError
        If it is nothing that can be kept, or is called like one of ``taken``.
    """
    if not isinstance(returned, Mapping):
        kinds = {RobustRadius: "radius", Run: "run", DistanceBracket: "distance"}
        name = next((word for kind, word in kinds.items() if isinstance(returned, kind)), "value")
        returned = {name: returned}
    if not returned:
        raise ValueError("measure returned an empty dict")
    arrays: Arrays = {}
    axes: Axes = {}
    for name, value in returned.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"measure must return a dict with names as keys, got {_arrays.shown(name)}")
        for part, (array, names) in _parts(name, value).items():
            if part in taken or part in RESERVED:
                raise ValueError(f"measure returned {part!r}, which is the name of something else in the dataset")
            if part in arrays:
                raise ValueError(f"measure returned {part!r} twice")
            arrays[part], axes[part] = array, names
    return arrays, axes


def _parts(name: str, value: Any) -> dict[str, tuple[NDArray[Any], list[str]]]:
    """Arrays that a value becomes, with names for their axes."""
    if isinstance(value, RobustRadius):
        point = [f"{name}_point"]
        kept = {"lower": value.lower, "upper": value.upper, "correct": value.correct, "reached": value.reached}
        return {f"{name}_{part}": (array, point) for part, array in kept.items() if array is not None}
    if isinstance(value, DistanceBracket):
        return {f"{name}_{part}": (np.asarray(getattr(value, part)), []) for part in ("lower", "upper")}
    if isinstance(value, Run):
        return _run_parts(name, value)
    if value is None:
        raise TypeError(f"measure must return numbers, words, arrays, a RobustRadius or a Run, got None for {name!r}")
    array = _arrays.as_array(value, name)
    if array.dtype.kind not in _npz.KINDS:
        raise TypeError(
            f"measure must return numbers, words, arrays, a RobustRadius or a Run, got {_arrays.shown(value)} "
            f"for {name!r}"
        )
    axes = [f"{name}_{axis}" for axis in range(array.ndim)] if array.ndim != 1 else [f"{name}_item"]
    return {name: (np.array(array, copy=True), axes)}


def _run_parts(name: str, run: Run) -> dict[str, tuple[NDArray[Any], list[str]]]:
    stop = f"{name}_stop"
    if run.status == "interrupted":
        raise KeyboardInterrupt
    parts: dict[str, tuple[NDArray[Any], list[str]]] = {
        f"{name}_t": (run.t, [stop]),
        f"{name}_iterations": (run.iterations, [stop]),
        f"{name}_status": (np.array(run.status), []),
    }
    for record, values in run.records.items():
        further = [f"{name}_{record}_{axis}" for axis in range(1, values.ndim)]
        parts[f"{name}_{record}"] = (values, [stop, *further])
    for event, times in run.events.items():
        parts[f"{name}_event_{event}"] = (times, [f"{name}_event_{event}_item"])
    return parts
