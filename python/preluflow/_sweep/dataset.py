"""The dataset of a sweep: what was found in its cells, with a dimension for everything swept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preluflow._sweep.grid import Cell
from preluflow._sweep.values import Finding

if TYPE_CHECKING:
    from xarray import Dataset

Array = NDArray[Any]

_EXACT = 2**53  # integers up to here are float64s


def dataset(
    dims: Mapping[str, Array], cells: Sequence[Cell], found: Mapping[str, Finding], attributes: Mapping[str, Any]
) -> Dataset:
    """Put the findings of cells, by key, into a dataset; NaN, or "", where there is none."""
    import xarray

    grid = tuple(len(values) for values in dims.values())
    done = {cell.index: found[cell.key] for cell in cells if cell.key in found and not found[cell.key].failed}
    failed = {cell.index: found[cell.key] for cell in cells if cell.key in found and found[cell.key].failed}
    variables: dict[str, Any] = {}
    for name in dict.fromkeys(name for finding in done.values() for name in finding.arrays):
        parts = {index: finding.arrays[name] for index, finding in done.items() if name in finding.arrays}
        names = next(finding.axes[name] for finding in done.values() if name in finding.axes)
        array = together(grid, parts)
        variables[name] = ((*dims, *(names if array.ndim > len(grid) else ())), array)
    words = {"status": _words(grid, dict.fromkeys(done, "done") | dict.fromkeys(failed, "failed"), "missing")}
    if failed:
        # Of objects: an array of words takes the room of the longest for each.
        words["error"], words["traceback"] = np.full(grid, "", dtype=object), np.full(grid, "", dtype=object)
        for index, finding in failed.items():
            words["error"][index], words["traceback"][index] = finding.error, finding.traceback
    variables |= {name: (tuple(dims), array) for name, array in words.items()}
    return xarray.Dataset(variables, coords=dict(dims), attrs=dict(attributes))


def together(grid: tuple[int, ...], parts: Mapping[tuple[int, ...], Array]) -> Array:
    """Arrays of cells as one, (*grid, *shape), shape being the largest in each axis; gaps are NaN, or "".

    Integers and bools become float64 where there are gaps. Arrays of different numbers of axes, words among numbers,
    and integers beyond 2**53 with gaps have no array in common but one of objects, None where there is none.
    """
    arrays = list(parts.values())
    words = {array.dtype.kind == "U" for array in arrays}
    if len({array.ndim for array in arrays}) > 1 or len(words) > 1:
        return _objects(grid, parts)
    shape = tuple(max(lengths) for lengths in zip(*(array.shape for array in arrays), strict=True))
    gaps = len(parts) < int(np.prod(grid)) or any(array.shape != shape for array in arrays)
    kind = np.result_type(*arrays)
    fill: Any = "" if kind.kind == "U" else np.nan if kind.kind == "f" else 0
    if gaps and kind.kind in "biu":
        if any(np.abs(array.astype(np.float64)).max(initial=0.0) > _EXACT for array in arrays):
            return _objects(grid, parts)
        kind, fill = np.dtype(np.float64), np.nan
    whole = np.full((*grid, *shape), fill, dtype=kind)
    for index, array in parts.items():
        place: tuple[Any, ...] = (*index, *(slice(n) for n in array.shape))
        whole[place] = array
    return whole


def _objects(grid: tuple[int, ...], parts: Mapping[tuple[int, ...], Array]) -> Array:
    whole = np.full(grid, None, dtype=object)
    for index, array in parts.items():
        whole[index] = array[()] if array.ndim == 0 else array
    return whole


def _words(grid: tuple[int, ...], known: Mapping[tuple[int, ...], str], fill: str) -> Array:
    longest = max(map(len, [fill, "missing", *known.values()]))
    whole = np.full(grid, fill, dtype=f"U{max(longest, 1)}")
    for index, word in known.items():
        whole[index] = word
    return whole


def provenance(found: Mapping[str, Finding]) -> dict[str, Any]:
    """Versions, instruction set and seconds of all cells, in words and numbers that netCDF keeps; several by commas."""
    told: dict[str, Any] = {}
    environments = [finding.environment for finding in found.values()]
    for name in dict.fromkeys(name for environment in environments for name in environment):
        values = dict.fromkeys(str(environment[name]) for environment in environments if name in environment)
        told[name] = ", ".join(sorted(values))
    told["seconds"] = float(sum(finding.seconds for finding in found.values()))
    return told
