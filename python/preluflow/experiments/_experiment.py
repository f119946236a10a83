"""What every experiment is made of: options in, an outcome that can be saved, drawn and tabulated."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from dataclasses import field as attribute
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preluflow._npz import expect_names, field, short
from preluflow.margins import RobustRadius
from preluflow.results import Run, naming, read_npz, write_npz

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
    dynamics : {"descent", "flow"}
        For experiments that can do either.
    alpha, batch, loss, epochs : float, int, str, int, or None
        Of the robustness figures, whose papers leave some of them unstated; None means the experiment's own.
    full : bool
        At the paper's scale where the default is a smaller one.
    num_threads : int or None
    progress : bool
    """

    seed: int = 0
    quick: bool = False
    width: int | None = None
    dynamics: str = "descent"
    alpha: float | None = None
    batch: int | None = None
    loss: str | None = None
    epochs: int | None = None
    full: bool = False
    num_threads: int | None = None
    progress: bool = False


# Those that not every experiment uses.
OWN_OPTIONS = ("width", "dynamics", "alpha", "batch", "loss", "epochs", "full")


@dataclass
class Outcome:
    """What an experiment found, with its configuration; this is what its npz holds and its figure draws.

    Attributes
    ----------
    name : str
    config : dict
        What decides the numbers, in plain numbers and words.
    runs : dict of Run
        Training runs worth keeping.
    arrays : dict of ndarray
        Everything else.
    main : str or None
        The run without which there is nothing to draw; None if the arrays suffice.
    stopped : bool
        Whether Ctrl-C ended it early; an interrupted run says so itself.
    """

    name: str
    config: dict[str, Any]
    runs: dict[str, Run] = attribute(default_factory=dict)
    main: str | None = None
    arrays: dict[str, NDArray[Any]] = attribute(default_factory=dict)
    stopped: bool = False

    @property
    def drawable(self) -> bool:
        """Whether there is enough for a picture: at least one stop of every run it shows."""
        if self.main is not None and self.main not in self.runs:
            return False
        return bool(self.runs or self.arrays) and all(len(run.t) for run in self.runs.values())

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it early."""
        return self.stopped or any(run.status == "interrupted" for run in self.runs.values())

    @property
    def marks(self) -> str:
        """What a title must say of it: quick, interrupted."""
        return ", quick" * bool(self.config["quick"]) + ", interrupted" * self.interrupted

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to an npz file, atomically."""
        for run in self.runs.values():
            run.check()
        arrays = {f"{key}/{name}": array for key, run in self.runs.items() for name, array in run.arrays().items()}
        arrays.update({f"/{name}": np.asarray(array) for name, array in self.arrays.items()})
        meta = {"name": self.name, "config": self.config, "main": self.main, "stopped": self.stopped}
        meta["runs"] = {key: run.meta() for key, run in self.runs.items()}
        write_npz(path, "experiment", arrays, meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Outcome:
        """Load what ``save`` wrote; ValueError if the file is damaged, hostile or something else."""
        arrays, meta = read_npz(path, "experiment")
        with naming(path):
            return cls._from_arrays(arrays, meta)

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Outcome:
        def below(key: str) -> dict[str, NDArray[Any]]:
            return {name[len(key) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{key}/")}

        name, config, main = field(meta, "name", str), field(meta, "config", dict), field(meta, "main", str, type(None))
        stopped, kept = field(meta, "stopped", bool), field(meta, "runs", dict)
        expect_names(arrays, (), ("/", *(f"{key}/" for key in kept)))
        runs = {}
        for key in kept:
            try:
                runs[key] = Run.from_arrays(below(key), field(kept, key, dict))
            except (ValueError, TypeError) as error:
                raise ValueError(f"run {short(key)}: {error}") from None
        return cls(name, config, runs, main, below(""), stopped)


@dataclass(frozen=True)
class Row:
    """A line of an experiment's table."""

    quantity: str
    measured: str
    paper: str = "-"
    theory: str = "-"


@dataclass(frozen=True)
class Experiment:
    """A figure or theorem: how to run it, draw it and hold it against the paper.

    ``run`` answers Ctrl-C with an outcome of what was done until then; ``check`` refuses, by a ValueError, options that
    do not fit its problem. ``presets``: its configurations by name, the default's first; ``seconds``: about how long
    each takes on two cores. ``options``: those of ``Options`` that it uses beside the seed, ``quick`` and threads.
    """

    name: str
    summary: str
    run: Callable[[Options], Outcome]
    draw: Callable[[Outcome], Figure]
    table: Callable[[Outcome], list[Row]]
    more: Callable[[Outcome, Path], list[Path]] | None = None  # writes further files (animations) into a folder
    check: Callable[[Options], object] = lambda options: None
    files: tuple[str, ...] = ()  # what those are called
    presets: Mapping[str, Any] = attribute(default_factory=dict)
    seconds: Mapping[str, float] = attribute(default_factory=dict)
    options: tuple[str, ...] = ("width",)

    def decides(self, options: Options) -> dict[str, Any]:
        """What decides the numbers, before they are had: numbers and words of options and configuration."""
        preset = next(iter(self.presets.values()))
        preset = self.presets["quick"] if options.quick else self.presets["paper"] if options.full else preset
        config = {**options_config(options), **vars(preset), **chosen(options, *self.options)}
        return {name: value for name, value in config.items() if isinstance(value, (int, float, str))}

    def unused(self, options: Options) -> list[str]:
        """Names of the options that were given and that it does not use."""
        names = [name for name in OWN_OPTIONS if getattr(options, name) != getattr(Options, name)]
        return [name for name in names if name not in self.options]


def completed(run: Run) -> Run:
    """Pass a run on; Ctrl-C within it goes up."""
    if run.status == "interrupted":
        raise KeyboardInterrupt
    return run


def every_point(radius: RobustRadius, n: int) -> RobustRadius:
    """Pass a bracket of n points on; Ctrl-C within it goes up."""
    if len(radius.lower) < n:
        raise KeyboardInterrupt
    return radius


def without_witnesses(lower: NDArray[Any], upper: NDArray[Any], correct: NDArray[Any]) -> RobustRadius:
    """Return a bracket of which only the radii were kept."""
    return RobustRadius(lower, upper, np.zeros((len(lower), 0)), correct.astype(bool))


def plain(config: Any) -> dict[str, Any]:
    """Return a configuration's fields as JSON keeps them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def over_seeds(values: NDArray[np.float64], reduce: Callable[..., Any]) -> NDArray[np.float64]:
    """Reduce values, (seeds, m), over the seeds that are there; NaN where there is none."""
    columns = [column[np.isfinite(column)] for column in values.T]
    return np.array([reduce(column) if column.size else np.nan for column in columns])


def chosen(options: Options, *names: str) -> dict[str, Any]:
    """The options among ``names`` that were given, to replace a configuration's own."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def require_batch(batch: int, n: int) -> None:
    """Refuse batches of more points than there are."""
    if batch > n:
        raise ValueError(f"batch must be at most the number of points n = {n}, got {batch}")


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
