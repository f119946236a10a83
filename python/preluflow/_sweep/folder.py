"""The folder of a sweep: what is done, what failed, which sweeps there were.

``cells/ab/<key>.npz`` is a cell that is done and ``failed/ab/<key>.json`` one that failed, ab being the first two
digits of the key; ``sweeps/<digest>.json`` says what a sweep was over, for people and for ``preluflow sweep --status``.
Each file is written at once or not at all, and a key says all about a cell, so that any number of sweeps, of any
functions and grids, may share a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from preluflow import _npz
from preluflow._files import as_path, write_file
from preluflow._npz import field
from preluflow._sweep.grid import Cell
from preluflow._sweep.values import Finding
from preluflow.results import naming, read_npz, write_npz

KIND = "sweep_cell"
_MOST_JSON = 16 * 2**20  # bytes of a file of ours that people may have meddled with


class Folder:
    """A folder that keeps cells.

    Parameters
    ----------
    path : path
        It and the folders above it are made if ``make``.
    """

    def __init__(self, path: str | os.PathLike[str], *, make: bool = True) -> None:
        named = os.fspath(path) if isinstance(path, os.PathLike) else path
        try:
            self.path = as_path((named.rstrip(os.sep) or os.curdir) if isinstance(named, str) else named)
        except (ValueError, TypeError) as error:
            raise type(error)(str(error).replace("path", "folder", 1)) from None
        if make:
            for part in ("cells", "failed", "sweeps", "claims"):
                _make(self.path / part)
        elif not (self.path / "sweeps").is_dir():
            raise FileNotFoundError(f"{str(self.path)!r} is no folder of a sweep")

    def _place(self, part: str, key: str, ending: str) -> Path:
        return self.path / part / key[:2] / f"{key}.{ending}"

    def _keys(self, part: str, ending: str) -> set[str]:
        found = set()
        for shard in _entries(self.path / part):
            if shard.is_dir():
                found |= {entry.name[: -len(ending) - 1] for entry in _entries(shard) if entry.name.endswith(ending)}
        return {key for key in found if not key.startswith(".")}

    # ---- cells that are done

    def done(self) -> set[str]:
        """Keys of all cells that are done."""
        return self._keys("cells", "npz")

    def is_done(self, key: str) -> bool:
        """Whether a cell is done."""
        return self._place("cells", key, "npz").exists()

    def save(self, cell: Cell, finding: Finding) -> None:
        """Keep what was found, or that it failed."""
        place = self._place("failed", cell.key, "json") if finding.failed else self._place("cells", cell.key, "npz")
        _make(place.parent)
        if not finding.failed:
            write_npz(place, KIND, finding.arrays, {"parameters": cell.parameters, **finding.meta()})
            return
        told = {"error": finding.error, "traceback": finding.traceback, "seconds": finding.seconds}
        _write_json(place, {"parameters": cell.parameters, **told, "environment": finding.environment})

    def load(self, key: str) -> Finding | None:
        """What was found in a cell; None, with a warning, if its file is damaged."""
        place = self._place("cells", key, "npz")
        try:
            arrays, meta = read_npz(place, KIND)
            with naming(place):
                return Finding.from_file(arrays, meta)
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            warnings.warn(f"{_npz.one_line(error)}; it is computed again", RuntimeWarning, stacklevel=2)
            return None

    def discard(self, key: str) -> None:
        """Remove a cell that cannot be read."""
        self._place("cells", key, "npz").unlink(missing_ok=True)

    # ---- cells that failed

    def failures(self) -> set[str]:
        """Keys of all cells that failed."""
        return self._keys("failed", "json")

    def failure(self, key: str) -> Finding | None:
        """What became of a cell that failed; None if it did not, or if its file is damaged."""
        try:
            held = _read_json(self._place("failed", key, "json"))
            error, trace = (field(held, name, str) for name in ("error", "traceback"))
            seconds, versions = _npz.real_field(held, "seconds", finite=True), field(held, "environment", dict)
        except (OSError, ValueError):
            return None
        return Finding(error=error or "unknown", traceback=trace, seconds=seconds, environment=versions)

    def failure_time(self, key: str) -> int | None:
        """When the record of a failure was written, to tell it from a later one; None if there is none."""
        try:
            return self._place("failed", key, "json").stat().st_mtime_ns
        except OSError:
            return None

    def forget_failure(self, key: str) -> None:
        """Remove the record of a failure."""
        self._place("failed", key, "json").unlink(missing_ok=True)

    # ---- sweeps

    def note(self, told: Mapping[str, Any]) -> None:
        """Keep what a sweep is over, unless that is known."""
        text = json.dumps(told, sort_keys=True)
        place = self.path / "sweeps" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        if not place.exists():
            _write_json(place, told)

    def sweeps(self) -> Iterator[dict[str, Any]]:
        """What every sweep that was begun here is over, the oldest first; files that say nothing are left out."""
        places = [Path(entry.path) for entry in _entries(self.path / "sweeps") if entry.name.endswith(".json")]
        for place in sorted(places, key=lambda each: (each.stat().st_mtime_ns, each.name)):
            try:
                yield _read_json(place)
            except (OSError, ValueError):
                continue


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"folder: {str(folder)!r} cannot be made: {error.strerror}") from None


def _write_json(place: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=1).encode()
    write_file(place, lambda stream: stream.write(text))


def _read_json(place: Path) -> dict[str, Any]:
    with _npz.open_regular(place) as stream:
        data = stream.read(_MOST_JSON + 1)
    if len(data) > _MOST_JSON:
        raise ValueError(f"{str(place)!r} is larger than {_MOST_JSON} bytes")
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError(f"{str(place)!r} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"{str(place)!r} must be a JSON object")
    return value
