"""How far the sweeps of a folder are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from preluflow._npz import field, one_line
from preluflow._sweep import grid
from preluflow._sweep.claims import in_progress
from preluflow._sweep.folder import Folder


@dataclass(frozen=True)
class Status:
    """How far a sweep is: numbers of cells, and how often it failed for which reason.

    ``of`` is what it measures, ``over`` its dimensions with their lengths.
    """

    of: str
    version: str
    over: dict[str, int]
    cells: int
    done: int
    failed: int
    running: int
    errors: Counter[str]

    @property
    def missing(self) -> int:
        """Cells that nobody computes."""
        return self.cells - self.done - self.failed - self.running


def statuses(folder: Folder) -> Iterator[Status]:
    """How far every sweep is that was begun in a folder, the oldest first."""
    done, failures, running = folder.done(), folder.failures(), in_progress(folder)
    for told in folder.sweeps():
        try:
            words = [field(told, name, str) for name in ("measure", "sweep_version", "identity")]
            dims = grid.dimensions(field(told, "over", dict))
        except (ValueError, TypeError) as error:
            raise ValueError(f"a file in {str(folder.path / 'sweeps')!r} is damaged: {one_line(error)}") from None
        keys = {cell.key for cell in grid.cells(dims, words[2], words[1])}
        failed = (keys & failures) - done
        errors: Counter[str] = Counter()
        for key in failed:
            finding = folder.failure(key)
            errors[finding.error if finding is not None else "a damaged file"] += 1
        yield Status(
            words[0],
            words[1],
            {name: len(values) for name, values in dims.items()},
            len(keys),
            len(keys & done),
            len(failed),
            len((keys & running) - done - failed),
            errors,
        )
