"""What every experiment is run by: cells, seeds, progress, Ctrl-C, saving, redrawing, the title and the table.

An experiment is a declared configuration (``presets``), how it is measured, drawn and tabulated. ``Experiment.run``
makes the outcome, which holds what was found until Ctrl-C or the end; ``Session`` is what measuring sees of it.
"""

from __future__ import annotations

import base64
import os
import pickle
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from dataclasses import field as attribute
from functools import partial, wraps
from itertools import product, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from preluflow import _threads, plots
from preluflow._npz import expect_names, field, short
from preluflow._progress import progress_bar
from preluflow._sweep.cluster import cluster
from preluflow.experiments._processes import in_processes, shares
from preluflow.margins import RobustRadius
from preluflow.results import Run, naming, read_npz, write_npz
from preluflow.sweep import sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from preluflow.experiments._cells import Store


Batched = TypeVar("Batched", bound=Any)


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
    recipe : {"mv24"} or None
        Of the papers' attack and estimator; None means the experiment's own.
    full : bool
        At the paper's scale where the default is a smaller one.
    data : str or None
        Folder with MNIST's own files, for the experiment on them.
    scheduler : str or None
        Address of a Dask cluster that computes, for experiments whose cells are sent to it; it decides no number.
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
    recipe: str | None = None
    full: bool = False
    data: str | None = None
    scheduler: str | None = None
    num_threads: int | None = None
    progress: bool = False


# Those that not every experiment uses.
_OWN = ("width", "dynamics", "alpha", "batch", "loss", "epochs", "recipe", "full", "data", "scheduler")


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
    """A line of an experiment's table; NaN becomes "not reached"."""

    quantity: str
    measured: str
    paper: str = "-"
    theory: str = "-"

    def __post_init__(self) -> None:
        """Say in words what was not reached, because of Ctrl-C or at all."""
        for name in ("measured", "theory"):
            told = re.sub(r"\bnan\b", "not reached", getattr(self, name))
            if re.fullmatch(r"[\s\[\](),;]*(not reached([\s\[\](),;]|to)*)+", told):
                told = "not reached"
            object.__setattr__(self, name, told)


@dataclass
class Session:
    """One run of an experiment: its configuration, and what has been found until now.

    Attributes
    ----------
    config : dataclass
    options : Options
    outcome : Outcome
        What Ctrl-C leaves.
    arrays : dict of ndarray
        They become the outcome's with the first cell that is done: until then there is nothing to draw.
    store : Store or None
        Where cells are kept that are done.
    """

    config: Any
    options: Options
    outcome: Outcome
    store: Store | None = None
    arrays: dict[str, NDArray[Any]] = attribute(default_factory=dict)

    def streams(self, count: int, *key: int) -> list[np.random.Generator]:
        """Independent random numbers for a cell, from the seed and the cell's key."""
        seed = self.options.seed
        return np.random.default_rng((seed, *key) if key else seed).spawn(count)

    def empty(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make arrays of NaN, to be filled cell by cell."""
        self.arrays.update({name: np.full(shape, np.nan) for name, shape in shapes.items()})

    def cells(self, cells: Iterable[Any], unit: str = "run") -> Iterator[Any]:
        """Go through the cells with a progress bar; what a cell's body entered into the arrays is then kept."""
        every = list(cells)
        bar = progress_bar(len(every), unit, self.options.progress)
        try:
            for cell in every:
                yield cell
                self.outcome.arrays = self.arrays
                bar.update(1)
        finally:
            bar.close()

    def computed(
        self, measure: Callable[..., Any], over: Mapping[str, Sequence[Any]], unit: str = "run"
    ) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """Go through the product of some values with what ``measure`` finds at each, here or on the cluster.

        ``measure`` takes them by name; it can be sent to other processes and machines, and leaves open how many threads
        it uses. What our core finds has the same bits on each, if they have the same instruction set; what NumPy's BLAS
        and torch find may depend on their number of threads. Here every processor computes a cell of its own: most runs
        are too small to keep two busy.
        """
        if self.options.scheduler is None:
            yield from self._here(measure, over, unit)
            return
        lists = {name: list(values) for name, values in over.items()}
        with cluster(self.options.scheduler) as executor:
            found = sweep(
                partial(_packed, measure, lists),
                {name: range(len(values)) for name, values in lists.items()},
                executor=executor,
                num_threads=self.options.num_threads,
                progress=self.options.progress,
            )
        for index in np.ndindex(*found["status"].shape):
            at = found[dict(zip(over, index, strict=True))]
            if at["status"] == "failed":
                raise RuntimeError(f"a cell failed on the cluster:\n{at['traceback'].item()}")
            if at["status"] == "done":
                yield tuple(lists[name][i] for name, i in zip(over, index, strict=True)), _unpacked(at["found"].item())
                self.outcome.arrays = self.arrays
        if found.attrs["ended"] != "finished":  # Ctrl-C, or the scheduler is gone: what is done is kept
            raise KeyboardInterrupt

    @property
    def cell_store(self) -> Store | None:
        """Where cells are kept; nowhere if they are computed on machines that may not see the folder."""
        return self.store if self.options.scheduler is None else None

    @property
    def cell_options(self) -> Options:
        """The options as a cell that is computed anywhere sees them."""
        return replace(self.options, scheduler=None, progress=False, num_threads=None)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Hold what is computed in this process to the threads that were asked for, NumPy's BLAS too."""
        with _threads.at_most(self.options.num_threads), _threads.held_to(self.options.num_threads):
            yield

    def _here(
        self, measure: Callable[..., Any], over: Mapping[str, Sequence[Any]], unit: str
    ) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """Compute cells in this process, or in as many as there are processors; they come in their order."""
        calls = [dict(zip(over, cell, strict=True)) for cell in product(*over.values())]
        workers, threads = shares(self.options, len(calls))
        if workers == 1:
            for call in self.cells(calls, unit):
                with self.threads():
                    found = measure(**call)
                yield tuple(call.values()), found
            return
        bar = progress_bar(len(calls), unit, self.options.progress)
        try:
            for number, found in in_processes(measure, calls, workers, threads, bar):
                yield tuple(calls[number].values()), found
                self.outcome.arrays = self.arrays
        finally:
            bar.close()

    def keep(self, key: str, run: Run) -> Run:
        """Keep a run, as far as it came; Ctrl-C within it ends the experiment."""
        self.outcome.runs[key] = run
        return completed(run)


def _packed(measure: Callable[..., Any], lists: Mapping[str, Sequence[Any]], **index: int) -> dict[str, str]:
    """Measure, and make a word of what is found: cells of a sweep hold numbers and words, of one shape."""
    found = measure(**{name: lists[name][i] for name, i in index.items()})
    return {"found": base64.b64encode(pickle.dumps(found)).decode()}


def _unpacked(word: str) -> Any:
    return pickle.loads(base64.b64decode(word))


@dataclass(frozen=True)
class Experiment:
    """A figure or theorem: how to run it, draw it and hold it against the paper.

    Attributes
    ----------
    measure : callable
        Fills a session's outcome; Ctrl-C within may go up.
    presets : dict
        Configurations by name, frozen dataclasses; the first is the default, ``--scale`` chooses "paper".
    options : tuple of str
        Those of ``Options`` that it uses beside the seed, ``quick`` and threads.
    missing : callable
        Says of a configuration what must be installed for it that is not; None if nothing.
    settle : callable
        Completes a configuration, or refuses it by a ValueError.
    facts : callable
        What of a configuration's surroundings decides the numbers besides.
    main : str or None
        Of the outcome; ``{seed}`` is the seed.
    more, files
        Writes further files (animations) into a folder; what they are called.
    seconds : dict
        About how long each preset takes on two cores.
    stores : bool
        Whether at the scale "paper" every cell is kept in a file of its own, so that a further run goes on.
    """

    name: str
    summary: str
    measure: Callable[[Session], object]
    draw: Callable[[Outcome], Figure]
    table: Callable[[Outcome], list[Row]]
    presets: Mapping[str, Any]
    options: tuple[str, ...] = ("width",)
    settle: Callable[[Any], Any] = lambda config: config
    missing: Callable[[Any], str | None] = lambda config: None
    facts: Callable[[Any, Options], dict[str, Any]] = lambda config, options: {}
    main: str | None = None
    more: Callable[[Outcome, Path], list[Path]] | None = None
    files: tuple[str, ...] = ()
    seconds: Mapping[str, float] = attribute(default_factory=dict)
    stores: bool = False

    def size(self, options: Options) -> str:
        """Return the name of the preset that a user's options choose."""
        return "quick" if options.quick else "paper" if options.full else next(iter(self.presets))

    def keeps_cells(self, options: Options) -> bool:
        """Whether a run with these options keeps its cells in files of their own."""
        return self.stores and self.size(options) == "paper"

    def configure(self, options: Options) -> Any:
        """Turn a user's options into a configuration; ValueError for one that is not used or does not fit."""
        given = [name for name in _OWN if getattr(options, name) != getattr(Options, name)]
        for name in given:
            if name not in self.options:
                raise ValueError(f"{name} is not used by {self.name}, got {getattr(options, name)!r}")
        preset = self.presets[self.size(options)]
        return self.settle(replace(preset, **{name: getattr(options, name) for name in given if hasattr(preset, name)}))

    def describe(self, options: Options, config: Any = None) -> dict[str, Any]:
        """What decides the numbers, before they are had: options and configuration as JSON keeps them."""
        config = self.configure(options) if config is None else config
        return {**options_config(options), **plain(config), **self.facts(config, options)}

    def run(self, options: Options, config: Any = None, store: Store | None = None) -> Outcome:
        """Run it; Ctrl-C leaves what was found until then.

        ``config``: another than the options choose. ``store``: where cells are kept, if it does so.
        """
        config = self.configure(options) if config is None else config
        main = None if self.main is None else self.main.format(seed=options.seed)
        session = Session(config, options, Outcome(self.name, self.describe(options, config), main=main), store)
        try:
            self.measure(session)
        except KeyboardInterrupt:
            session.outcome.stopped = True
        return session.outcome


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


def bracket_of(outcome: Outcome, suffix: str = "") -> RobustRadius:
    """Return the bracket an outcome keeps as ``lower``, ``upper`` and ``correct``, without its witnesses."""
    lower, upper, correct = (outcome.arrays[name + suffix] for name in ("lower", "upper", "correct"))
    return RobustRadius(lower, upper, np.zeros((len(lower), 0)), correct.astype(bool))


def plain(config: Any) -> dict[str, Any]:
    """Return a configuration's fields as JSON keeps them, but for those said not to be kept."""
    kept = [each.name for each in fields(config) if each.metadata.get("kept", True)]
    values = asdict(config)
    return {name: _listed(values[name]) for name in kept}


def _listed(value: Any) -> Any:
    """Turn tuples into lists, all the way down."""
    if isinstance(value, dict):
        return {name: _listed(each) for name, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, (list, tuple)) else value


def batch_fits(config: Batched) -> Batched:
    """Pass a configuration on; ValueError if its batches have more points than there are."""
    if config.batch > config.n:
        raise ValueError(f"batch must be at most the number of points n = {config.n}, got {config.batch}")
    return config


def options_config(options: Options) -> dict[str, Any]:
    """The part of the options that decides the numbers."""
    return {
        name: value for name, value in asdict(options).items() if name not in ("scheduler", "num_threads", "progress")
    }


# ---- figures


def drawn(draw: Callable[[Outcome], Figure]) -> Callable[[Outcome], Figure]:
    """Draw in the package's style, and lay the figure out."""

    @wraps(draw)
    def styled(outcome: Outcome) -> Figure:
        with plots.style():
            figure = draw(outcome)
            figure.draw_without_rendering()
        return figure

    return styled


_SYMBOLS = {"dim": "D", "n": "n", "width": "h", "p": "p", "alpha": r"$\alpha$", "scale": r"$\epsilon$"}


def set_title(figure: Figure, outcome: Outcome, head: str, *parts: str) -> None:
    """Give a figure its title: what it is, and in brackets the parameters and marks.

    ``parts``: "dim", "n", "width", "p", "alpha", "scale" (as in the configuration), "K", "K1+K2", "seed", "seeds", or
    text.
    """
    config, told = outcome.config, []
    for part in parts:
        value = config.get(part)
        if part in _SYMBOLS:
            told.append(f"{_SYMBOLS[part]}={value if isinstance(value, int) else format(value, 'g')}")
        elif part in ("K", "K1+K2"):
            both = config["positive"], config["negative"]
            told.append(f"K={sum(both)}" if part == "K" else f"K={both[0]}+{both[1]}")
        elif part in ("seed", "seeds"):
            told.append(f"seed {value}" if part == "seed" else f"{value} seeds from {config['seed']}")
        else:
            told.append(part)
    figure.suptitle(f"{head} ({', '.join(told)}{outcome.marks})", fontsize=10)


# ---- tables


HEADINGS = ("quantity", "measured", "paper", "theory")


def format_table(rows: list[Row], width: int | None = None) -> str:
    """Lay rows out as text: quantity | measured | paper | theory, wrapped to a width if there is one to keep to."""
    cells = [HEADINGS, *((row.quantity, row.measured, row.paper, row.theory) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    room = None if width is None else max(width - 3 * 3, 4 * 8)  # less the bars between
    if room is not None and sum(widths) > room:
        cap = max(cap for cap in range(8, room) if cap == 8 or sum(min(cap, each) for each in widths) <= room)
        widths = [min(cap, each) for each in widths]
    lines = []
    for line in cells:
        parts = [_wrapped(cell, each) for cell, each in zip(line, widths, strict=True)]
        for row in zip_longest(*parts, fillvalue=""):
            told = " | ".join(cell.ljust(each) for cell, each in zip(row, widths, strict=True))
            lines.append(told.rstrip())
    lines.insert(1, "-+-".join("-" * each for each in widths))
    return "\n".join(lines)


def _wrapped(cell: str, width: int) -> list[str]:
    """Lines of a cell; those that go on stand in by two."""
    further = " " * (len(cell) - len(cell.lstrip()) + 2)
    return textwrap.wrap(cell, width, subsequent_indent=further) or [""]
