"""What every experiment is made of: options in, an outcome that can be saved, drawn and tabulated."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from preluflow.results import Run, read_npz, write_npz

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Options:
    """What a user may say of any experiment.

    Attributes
    ----------
    seed : int
        Centres, data, initialisation and estimators are seeded from it.
    quick : bool
        The same picture at a size that runs in seconds.
    width : int or None
        Neurons; None means the experiment's own.
    num_threads : int or None
    progress : bool
    """

    seed: int = 0
    quick: bool = False
    width: int | None = None
    num_threads: int | None = None
    progress: bool = False


@dataclass
class Outcome:
    """An experiment's runs with the configuration they came from; this is what its npz holds and its figure draws."""

    name: str
    config: dict[str, Any]
    runs: dict[str, Run]
    main: str  # the run the picture is of

    @property
    def drawable(self) -> bool:
        """Whether there is enough for a picture: at least one stop of every run it shows."""
        return self.main in self.runs and all(len(run.t) for run in self.runs.values())

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it early."""
        return any(run.status == "interrupted" for run in self.runs.values())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to an npz file, atomically."""
        arrays = {f"{key}/{name}": array for key, run in self.runs.items() for name, array in run.arrays().items()}
        runs = {key: run.meta() for key, run in self.runs.items()}
        write_npz(
            path, "experiment", arrays, {"name": self.name, "config": self.config, "main": self.main, "runs": runs}
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Outcome:
        """Load what ``save`` wrote; ValueError if the file is damaged or something else."""
        arrays, meta = read_npz(path, "experiment")
        runs = {}
        try:
            for key, run_meta in meta["runs"].items():
                mine = {name[len(key) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{key}/")}
                runs[key] = Run.from_arrays(mine, run_meta)
            return cls(meta["name"], meta["config"], runs, meta["main"])
        except KeyError as error:
            raise ValueError(f"{str(path)!r} is damaged: {error} is missing") from None


@dataclass(frozen=True)
class Row:
    """A line of an experiment's table."""

    quantity: str
    measured: str
    paper: str = "-"
    theory: str = "-"


@dataclass(frozen=True)
class Experiment:
    """A figure or theorem: how to run it, draw it and hold it against the paper."""

    name: str
    summary: str
    run: Callable[[Options], Outcome]
    draw: Callable[[Outcome], Figure]
    table: Callable[[Outcome], list[Row]]


def options_config(options: Options) -> dict[str, Any]:
    """The part of the options that decides the numbers."""
    return {name: value for name, value in asdict(options).items() if name not in ("num_threads", "progress")}


def format_table(rows: list[Row]) -> str:
    """Lay rows out as text: quantity | measured | paper | theory."""
    cells = [("quantity", "measured", "paper", "theory")]
    cells += [(row.quantity, row.measured, row.paper, row.theory) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines.insert(1, "-+-".join("-" * width for width in widths))
    return "\n".join(lines)
