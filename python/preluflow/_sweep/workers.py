"""What computes cells: the call that is sent anywhere, processes of our own, and this very process."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from preluflow import _threads
from preluflow._sweep import values
from preluflow._sweep.grid import Call, Parameters
from preluflow._sweep.identity import user_modules
from preluflow._sweep.values import Finding

# What BLAS libraries read, when they are loaded, for how many threads to use.
_VARIABLES = (_threads.VARIABLE, "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
LONGEST_WAIT = 1.0  # seconds without a look around; on Windows waiting does not answer Ctrl-C


class Carried:
    """A function that travels by value where cloudpickle is installed, and by name where it is not.

    By value it also reaches machines that do not have its module, and so do functions and classes of other modules that
    are not installed; it is also the only way for what was typed at a prompt.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __reduce__(self) -> Any:
        """Pickle what the better pickle made of it."""
        return _carried, (self.packed,)

    def __getattr__(self, name: str) -> Any:
        """Unpack the function when it is called for: a scheduler only passes it on."""
        if name != "function" or "packed" not in vars(self):
            raise AttributeError(name)
        self.function = _function(self.packed)
        return self.function

    @functools.cached_property
    def packed(self) -> bytes:
        """The function as bytes."""
        try:
            import cloudpickle
        except ImportError:
            return pickle.dumps(self.function)
        own = user_modules()
        try:
            for module in own:
                cloudpickle.register_pickle_by_value(module)
            return bytes(cloudpickle.dumps(self.function))
        except Exception:  # something in a module, such as a lock, cannot be sent: then it is imported there
            return pickle.dumps(self.function)
        finally:
            for module in own:
                with contextlib.suppress(ValueError):
                    cloudpickle.unregister_pickle_by_value(module)


def _carried(data: bytes) -> Carried:
    carried = Carried.__new__(Carried)
    carried.packed = data
    return carried


@functools.lru_cache(maxsize=8)
def _function(data: bytes) -> Callable[..., Any]:
    """Unpickle a function, once in a process, so that what it keeps from call to call is kept."""
    function: Callable[..., Any] = pickle.loads(data)
    return function


def compute(
    carried: Carried, call: Call, parameters: Parameters, taken: tuple[str, ...], num_threads: int | None
) -> Finding:
    """Compute a cell, wherever this runs; an error is kept in what is returned."""
    finding = Finding()
    began = time.perf_counter()
    with _noticing_interrupts() as interrupts, _threads.at_most(num_threads):
        try:
            finding.arrays, finding.axes = values.found(carried.function(**call.arguments(parameters)), taken)
        except KeyboardInterrupt:
            interrupts.append(signal.SIGINT)
        except BaseException as error:  # SystemExit is an error here, too
            finding.blame(error)
    finding.seconds = time.perf_counter() - began
    if interrupts:  # also if something within has answered it, as our own runs do, with half of a result
        finding.interrupted = True
    return finding


@contextlib.contextmanager
def _noticing_interrupts() -> Iterator[list[int]]:
    """Pass Ctrl-C on to whoever answers it, and take note; only the main thread is ever told of it."""
    noted: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield noted
        return

    def note(number: int, frame: Any) -> None:
        noted.append(number)
        handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, handler)


# ---- executors


class Here(Executor):
    """Computes in the calling process and thread, before ``submit`` returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call it."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def processes(workers: int, num_threads: int, *, script: bool = True) -> ProcessPoolExecutor:
    """Return a pool of spawned processes of ``num_threads`` threads, which end with this one however it ends.

    They import the script that runs here, as whatever it defines needs; unless ``script`` is False.
    """
    return ProcessPoolExecutor(workers, mp_context=_Context(num_threads, script), initializer=_begin)


def end_processes(pool: ProcessPoolExecutor) -> None:
    """End a pool at once, with what it is computing."""
    running = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in running:
        with contextlib.suppress(Exception):  # it may have ended by itself
            process.terminate()


def _begin() -> None:
    """Leave Ctrl-C, which a terminal sends to all, to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: Any) -> None:
    # The queue's pipe does not tell: every worker holds both of its ends.
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


class _Worker(SpawnProcess):
    """A process that begins with an environment which holds it to so many threads."""

    num_threads = 1
    script = True

    def start(self) -> None:
        """Start it; the environment is this process's own, for the moment, and so is the script it sees."""
        before, main = {name: os.environ.get(name) for name in _VARIABLES}, sys.modules["__main__"]
        try:
            os.environ.update(dict.fromkeys(_VARIABLES, str(self.num_threads)))
            if not self.script:
                sys.modules["__main__"] = types.ModuleType("__main__")
            super().start()
        finally:
            sys.modules["__main__"] = main
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


class _Context(SpawnContext):
    """Makes such processes."""

    def __init__(self, num_threads: int, script: bool) -> None:
        super().__init__()
        self.num_threads, self.script = num_threads, script

    def Process(self, *args: Any, **kwargs: Any) -> _Worker:  # type: ignore[override]
        """Make one."""
        worker = _Worker(*args, **kwargs)
        worker.num_threads, worker.script = self.num_threads, self.script
        return worker
