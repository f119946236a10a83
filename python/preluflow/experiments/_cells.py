"""Cells of a long experiment that are done, a file each, so that a run that was ended goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preluflow._files import check_writable
from preluflow._version import __version__
from preluflow.experiments._harness import Outcome


@dataclass(frozen=True)
class Store:
    """A folder with a file for every cell that is done.

    A file is found by what decides its numbers, so that no cell of another configuration, seed or version can be
    taken for it, and cells are shared by runs that differ in other cells alone.

    Attributes
    ----------
    folder : Path
        Made when the first cell is saved.
    within : Path
        Folder that no link may lead out of.
    """

    folder: Path
    within: Path

    def path(self, name: str, config: Mapping[str, Any]) -> Path:
        """Return where a cell's file is, or would be."""
        whole = json.dumps({**config, "version": __version__}, sort_keys=True)
        return self.folder / f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:16]}.npz"

    def cell(self, name: str, config: Mapping[str, Any], compute: Callable[[], Outcome]) -> Outcome:
        """Load a cell, or compute and save it, at once or not at all; a file that is damaged is computed again."""
        path = self.path(name, config)
        try:
            held = Outcome.load(path)
            if held.config == json.loads(json.dumps(config)):
                return held
        except (OSError, ValueError):
            pass
        self.folder.mkdir(parents=True, exist_ok=True)
        place = check_writable(path, within=self.within)  # before the work
        found = compute()
        found.save(place)
        return found
