"""Cells of an experiment in processes of their own, one for each processor."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from preluflow import _threads
from preluflow._sweep.workers import LONGEST_WAIT, end_processes, processes

if TYPE_CHECKING:
    from preluflow.experiments._harness import Options

_MOST = 61  # processes that a pool may have on Windows


def shares(options: Options, cells: int) -> tuple[int, int]:
    """How many processes compute so many cells, and the threads of each.

    What runs in seconds is not worth starting processes for, and a process that is itself a daemon may start none.
    """
    threads = min(options.num_threads or _threads.default(), _threads.processors())
    alone = options.quick or multiprocessing.current_process().daemon
    workers = 1 if alone else max(1, min(threads, cells, _MOST))
    return workers, max(1, threads // workers)


def in_processes(
    measure: Callable[..., Any], calls: Sequence[Mapping[str, Any]], workers: int, num_threads: int, bar: Any
) -> Iterator[tuple[int, Any]]:
    """Call ``measure`` with each of the arguments; the call's number and what came of it, in the order of the calls.

    Ctrl-C goes up once all that is finished has been given, and ends the rest.

    Raises
    ------
    RuntimeError
        If a process dies; and whatever ``measure`` raises.
    """
    pool = processes(workers, num_threads, script=False)
    waiting, flying = deque(enumerate(calls)), dict[Future[Any], int]()
    finished: dict[int, Any] = {}
    given = 0
    try:
        while waiting or flying:
            while waiting and len(flying) <= workers:  # one more, so that none waits for us
                number, arguments = waiting.popleft()
                flying[pool.submit(measure, **arguments)] = number
            ready, _ = wait_for(flying, LONGEST_WAIT, FIRST_COMPLETED)
            for future in ready:
                finished[flying.pop(future)] = future.result()
                bar.update(1)
            while given in finished:
                yield given, finished.pop(given)
                given += 1
    except KeyboardInterrupt:
        for future, number in flying.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                finished[number] = future.result()
        yield from sorted(finished.items())
        raise
    except BrokenProcessPool:
        raise RuntimeError(
            "a process that computed cells died, as for want of memory; with one thread they are computed in this one"
        ) from None
    finally:
        end_processes(pool)
