"""Sweeps: a function measured at every point of a grid, anywhere, each point once, and kept."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from preluflow import _arrays, _threads
from preluflow._progress import progress_bar
from preluflow._sweep import grid
from preluflow._sweep.dataset import dataset, provenance
from preluflow._sweep.drive import Drive, Pool
from preluflow._sweep.folder import Folder
from preluflow._sweep.identity import function_digest, name_of, source_of
from preluflow._sweep.workers import Carried, Here
from preluflow._version import __version__

if TYPE_CHECKING:
    from xarray import Dataset

__all__ = ["sweep"]


def sweep(
    measure: Callable[..., Any],
    over: Mapping[str, Sequence[Any] | ArrayLike],
    folder: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    retry: bool = False,
    *,
    rng: str = "seed",
    key: str | None = None,
    workers: int | None = None,
    num_threads: int | None = None,
) -> Dataset:
    """Measure a function at every point of a grid; what a folder keeps of it is not computed again.

    A point is a cell. Each is saved, at once or not at all, when it is done, under a key of its parameters, of the
    function and of this package's version; so after a crash, Ctrl-C or ``kill -9`` only cells in flight are lost, and
    the same call goes on from there. A cell that raises is kept as failed, with its traceback, and the others go on.
    Any number of sweeps may use a folder, also at the same time: no cell is computed by two of them, but where the file
    system has no locks or a process was killed.

    *The function* is told by its source and compiled code, its defaults, the values it closes over, the globals it
    looks up, and so on through all functions, classes and modules that are not installed packages. A change in any of
    them is another function, whose cells are computed; also a change of Python's minor version. What it calls in
    packages, and files it reads, are not looked at.

    *Random numbers.* A function that has an argument ``rng`` without a default is given a ``numpy.random.Generator`` of
    its own in every cell: the child of ``SeedSequence(0)`` that a digest of the cell's parameters names. It depends
    neither on the other cells nor on who computes it, so that every executor gives the same bits (on the same
    instruction set; in functions that use NumPy's BLAS, with the same number of threads). ``seed`` is then a name for
    repetitions and need not be an argument. Where all parameters should see the same random numbers, take ``seed`` as
    an argument instead, and make them of it.

    Parameters
    ----------
    measure : callable
        Called with a value of every dimension by name. It returns a number, a word, an array, a ``RobustRadius``, a
        ``Run`` or a ``DistanceBracket``, or a dict of these by name.
    over : dict of sequences
        Names and values of the dimensions: numbers, words, or True and False, all different. Where one of a dimension
        is a float, all are.
    folder : path, optional
        Where cells are kept; it is made. None keeps nothing.
    executor : concurrent.futures.Executor, optional
        Who computes: of Dask ``client.get_executor()``, of mpi4py ``MPIPoolExecutor``, loky's, any other. It is left
        running. By default processes of our own, which are spawned: a script that sweeps needs its
        ``if __name__ == "__main__":``.
    progress : bool, default True
        Show a progress bar.
    retry : bool, default False
        Run again what has failed.
    rng : str, default "seed"
        The dimension that may be no argument of a function which asks for ``rng``.
    key : str, optional
        A word that stands, with its name, for the function instead of its source and all it uses. It is for functions
        without source or with values that cannot be compared; change it with the function.
    workers : int, optional
        Processes of our own; all processors by default. 1 computes in this process, cell by cell.
    num_threads : int, optional
        Threads of a call of this package within a cell that does not say how many. By default workers times threads are
        all processors; of another executor, what its processes have.

    Returns
    -------
    xarray.Dataset
        Its dimensions and coordinates are those of ``over``. A number is a variable of its name ("value", if it was
        returned alone), an array has further dimensions; of a radius r there are ``r_lower``, ``r_upper``,
        ``r_correct`` and ``r_reached`` (not the witnesses), of a run r ``r_t``, ``r_iterations``, ``r_status``,
        its records and events (not the networks), of a distance d ``d_lower`` and ``d_upper``. Arrays of different
        lengths are filled up by NaN. ``status`` says of every cell "done", "failed" or "missing", ``error`` and
        ``traceback`` why. Attributes: ``ended`` ("finished", "interrupted" by Ctrl-C, or "stopped" with the executor),
        the function's name and source, versions, instruction sets and the seconds of all cells together.

    Raises
    ------
    ValueError, TypeError
        For bad input, and functions that cannot be told from others, before any work.
    ImportError
        If xarray is not installed.
    OSError
        If the folder cannot be made or written to.

    Warns
    -----
    RuntimeWarning
        If the executor stops working, or the file of a cell is damaged (which is then computed again).

    Examples
    --------
    >>> def measured(alpha, seed):  # of a file of yours, which processes can import
    ...     gmm = pf.OrthonormalGMM(50, 2, 2, alpha, rng=seed)
    ...     return {"accuracy": np.mean(pf.classifiers.Bayes(gmm).predict(gmm.centers) == gmm.labels)}
    >>> found = pf.sweep(measured, over={"alpha": [0.1, 0.3], "seed": range(2)}, workers=1, progress=False)
    >>> dict(found.sizes), found["accuracy"].values.tolist()
    ({'alpha': 2, 'seed': 2}, [[1.0, 1.0], [1.0, 1.0]])
    """
    _require_xarray()
    dims = grid.dimensions(over)
    rng = _dimension(rng, dims)
    call = grid.call_of(measure, dims, rng)
    if executor is not None:
        _arrays.instance(executor, "executor", Executor)
        if workers is not None:
            raise ValueError("workers must be None with an executor, which has its own")
    progress, retry = _arrays.flag(progress, "progress"), _arrays.flag(retry, "retry")
    identity = function_digest(measure) if key is None else f"key {name_of(measure)} {_word(key)}"
    carried = Carried(measure)
    cells = grid.cells(dims, identity)
    runs_on, threads = _runs_on(executor, workers, num_threads, len(cells))
    if isinstance(runs_on, Pool):
        _require_picklable(carried)
    kept = None if folder is None else Folder(folder)
    told = {"measure": name_of(measure), "source": source_of(measure), "sweep_version": __version__}
    if kept is not None:
        values = {name: array.tolist() for name, array in dims.items()}
        kept.note({**told, "identity": identity, "over": values})
    bar = progress_bar(len(cells), "cell", progress)
    drive = Drive(carried, call, tuple(dims), threads, runs_on, kept, retry, bar)
    known = drive.run(cells)
    attributes = {"ended": known.ended, **told, **provenance(known.found)}
    return dataset(dims, cells, known.found, attributes)


def _require_xarray() -> None:
    try:
        import xarray  # noqa: F401
    except ImportError:
        raise ImportError("sweep needs xarray: pip install 'preluflow[sweep]'") from None


def _dimension(rng: Any, dims: Mapping[str, Any]) -> str:
    """The name of the dimension of repetitions."""
    if not isinstance(rng, str) or (rng != "seed" and rng not in dims):
        raise ValueError(
            f"rng must be one of the names in over, {', '.join(map(repr, dims))}, got {_arrays.shown(rng)}"
        )
    return rng


def _word(key: Any) -> str:
    if not isinstance(key, str) or not key.strip():
        raise TypeError(f"key must be a word of your own, got {_arrays.shown(key)}")
    return key


def _runs_on(
    executor: Executor | None, workers: int | None, num_threads: int | None, cells: int
) -> tuple[Executor | Pool, int | None]:
    """Who computes, and with how many threads a cell."""
    threads = None if num_threads is None else _arrays.threads(num_threads)
    if executor is not None:
        return executor, threads
    processors = _threads.processors()
    asked = processors if workers is None else _arrays.integer(workers, "workers", minimum=1, maximum=None)
    count = min(asked, cells)
    if count == 1:
        return Here(), threads
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            'sweep must be called below `if __name__ == "__main__":`, for its processes import the script'
        )
    threads = max(1, min(processors // count, _threads.default())) if threads is None else threads
    return Pool(count, threads), threads


def _require_picklable(carried: Carried) -> None:
    try:
        pickle.dumps(carried)
    except Exception as error:  # pickle's errors are of many kinds
        raise TypeError(
            f"measure cannot be sent to other processes: {error}; define it at the top of a file, install cloudpickle, "
            "or run with workers=1"
        ) from None
