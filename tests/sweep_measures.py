"""Functions that the tests of sweeps measure, and scripts that sweep them in processes of their own."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

import preluflow as pf

FACTOR = 2.0
LOCK = threading.Lock()


def note(log, *words):
    """Append a line, whole whoever else writes."""
    with open(log, "ab", buffering=0) as stream:
        stream.write((" ".join(map(str, words)) + "\n").encode())


def lines(log):
    """What was noted."""
    return Path(log).read_text().splitlines() if Path(log).exists() else []


def counted(alpha, seed, rng, *, log, seconds=0.0, gate=None, held=()):
    """Random numbers of the cell; every computation is noted at its beginning and end.

    Where there is a gate, cells of ``held`` alphas wait until that file exists.
    """
    note(log, "begin", alpha, seed, os.getpid())
    time.sleep(seconds)
    while gate is not None and alpha in held and not Path(gate).exists():
        time.sleep(0.01)
    found = {"sum": alpha + seed + rng.random(), "draws": rng.standard_normal(3), "count": seed}
    note(log, "end", alpha, seed, os.getpid())
    return found


def trained(alpha, p, rng):
    """A small problem, trained by the flow and bracketed."""
    gmm = pf.OrthonormalGMM(12, 1, 1, alpha, rng=rng)
    data = gmm.sample(20, balanced=True, dtype="float64", rng=rng)
    start = pf.initialize(4, 12, 1e-3, p=p, dtype="float64", rng=rng)
    run = pf.gradient_flow(start, data.X, data.y, t1=20.0, observe=pf.Observe(every=5.0, what=["loss"]))
    radius = pf.robust_radius(run.network, data.X, data.y)
    return {"run": run, "radius": radius, "accuracy": radius.accuracy([0.1, 0.5])[0]}


def fails_at(alpha, *, log, where=(0.2,)):
    """Raise at some alphas."""
    note(log, "begin", alpha)
    if alpha in where:
        raise ZeroDivisionError(f"no measure at {alpha}")
    return helper(alpha)


def helper(x):
    """Something that a measure uses, and that uses a global."""
    return FACTOR * x


def dies_at(alpha, *, times, folder):
    """End the process at alpha = 0.2, so many times."""
    if alpha == 0.2 and len(os.listdir(folder)) < times:
        (Path(folder) / f"{len(os.listdir(folder))}").touch()
        os._exit(3)
    return alpha


def interrupts_at(alpha, *, where):
    """Be met by Ctrl-C in the middle of a flow, which answers it by half a run."""
    gmm = pf.OrthonormalGMM(12, 1, 1, 0.1, rng=0)
    data = gmm.sample(20, balanced=True, dtype="float64", rng=1)

    def press(at):
        if alpha == where and at.t > 1.0:
            os.kill(os.getpid(), signal.SIGINT)
        return {"t_seen": at.t}

    start = pf.initialize(4, 12, 1e-3, dtype="float64", rng=2)
    run = pf.gradient_flow(start, data.X, data.y, t1=4.0, observe=pf.Observe(every=1.0, what=[press]))
    return float(run.stats["t"])


def uses_a_lock(alpha):
    """Use what cannot be compared or sent."""
    with LOCK:
        return alpha


def threads(cell):
    """How many threads there are for a cell."""
    return {"threads": pf._threads.default(), "variable": os.environ.get("OMP_NUM_THREADS", "")}


def squared(x, seconds):
    """A number, who computed it, and with how many threads."""
    time.sleep(seconds)
    return {"square": x * x, "process": os.getpid(), "threads": pf._threads.default()}


def inverse(x):
    """Raise at 0."""
    return 1 / x


GRID = {"alpha": [0.1, 0.2, 0.3, 0.4], "seed": range(50)}  # 200 cells


def sweep_counted(folder, log, seconds=0.005, workers=2, grid=None, **options):
    """Sweep ``counted`` over 200 cells."""
    measure = functools.partial(counted, log=str(log), seconds=float(seconds))
    grid = GRID if grid is None else grid
    return pf.sweep(measure, grid, folder, workers=workers, progress=False, **options)


if __name__ == "__main__":
    found = sweep_counted(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:4]), workers=int(sys.argv[4]))
    np.save(sys.argv[5], found["draws"].values)
