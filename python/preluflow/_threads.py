"""How many threads a call may use: no more than the processors this process has, whatever is asked."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

VARIABLE = "OMP_NUM_THREADS"  # OpenMP's and the BLAS libraries' name for it; the core itself uses no OpenMP

_most: ContextVar[int | None] = ContextVar("num_threads", default=None)


def processors() -> int:
    """Processors this process may use: its affinity now, and its control group's share of time, rounded up."""
    return max(1, min(_affinity(), quota() or sys.maxsize))


def default() -> int:
    """Threads of a call that is not told: ``OMP_NUM_THREADS``, or all processors; never more than those.

    The variable is read once, as OpenMP does; what is no positive number is warned of and passed over. Within
    ``at_most`` they are no more than that says.
    """
    return min(_most.get() or sys.maxsize, _variable() or processors(), processors())


@contextmanager
def at_most(num_threads: int | None) -> Iterator[None]:
    """Let calls of this thread that are not told how many threads to use have no more than these; None: no limit."""
    token = _most.set(num_threads)
    try:
        yield
    finally:
        _most.reset(token)


def held_to(num_threads: int | None) -> AbstractContextManager[Any]:
    """Hold the threads of others (NumPy's BLAS, OpenMP) to a number meanwhile, where threadpoolctl is installed.

    It is for code that is not ours; None leaves them alone. The limit is the process's, not the calling thread's.
    """
    if num_threads is None:
        return nullcontext()
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    limits: AbstractContextManager[Any] = threadpool_limits(num_threads)
    return limits


def _affinity() -> int:
    """Processors the system may run this thread on."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13: PYTHON_CPU_COUNT too
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _variable() -> int | None:
    """``OMP_NUM_THREADS`` if it says how many."""
    text = os.environ.get(VARIABLE, "").strip()
    first = text.split(",")[0].strip()  # OpenMP allows a number for each level of nesting
    if not text:
        return None
    if first.isascii() and first.isdigit() and first.strip("0"):
        return int(first) if len(first) < 20 else sys.maxsize
    warnings.warn(f"{VARIABLE}={text!r} is not a positive number of threads; all processors are used", stacklevel=2)
    return None


@cache
def quota(root: Path = Path("/")) -> int | None:
    """Processors' worth of time that Linux's control groups (version 1 or 2) leave us, rounded up; None if no limit.

    Every group on the way to ours may have a limit. In a container the path to it may be the host's, and what is
    mounted begins at our own group, so folders that are not there are passed over.
    """
    limits = []
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return None
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        names = controllers.split(",")
        if controllers and "cpu" not in names:
            continue
        folders = [mounts / controllers, mounts / "cpu"] if controllers else [mounts, mounts / "unified"]
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for folder in folders:
            for depth in range(len(parts) + 1):
                limits.append(_limit(folder.joinpath(*parts[:depth])))
    found = [limit for limit in limits if limit is not None]
    return max(1, ceil(min(found))) if found else None


def _limit(group: Path) -> float | None:
    """Processors' worth of time a control group may use."""
    try:
        if (group / "cpu.max").exists():
            share, period = (group / "cpu.max").read_text().split()
        else:
            share, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(share) / int(period) if int(share) > 0 and int(period) > 0 else None
    except (OSError, ValueError):  # not there, or "max"
        return None
