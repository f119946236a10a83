"""Processes short of memory and threads, and forks at a bad time: an answer or a MemoryError, never a dead process.

python bench/fuzz_process.py [SECONDS] [SEED]
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from numpy_faults import died_in_numpy

PATIENCE = 120.0  # seconds until a process that does not end is killed
TRIALS = 12  # limits or forks in one process
VARIABLE = ("", "1", "2", "3,2", "100000", "9" * 25, "0", "-3", "abc", "1e9", " 2 ")  # of OMP_NUM_THREADS
THREADS = (None, 1, 2, 3, 8, 100_000, 2**31 - 1, 2**31, 10**30)

# Calls of everything that computes; each returns arrays, the same bits whenever it returns.
CALLS = """
import json, os, signal, sys, threading, warnings
import numpy as np
import preluflow as pf

warnings.simplefilter("ignore")
seed = int(sys.argv[1])
rng = np.random.default_rng(seed)
D, h, n = int(rng.integers(5, 80)), int(rng.integers(3, 400)), int(rng.integers(50, 3000))
gmm = pf.OrthonormalGMM(D, 2, 2, 0.1, rng=seed)
dtype = str(rng.choice(["float32", "float64"]))
data, few = gmm.sample(n, dtype=dtype, rng=1), gmm.sample(8, dtype=dtype, rng=2)
kind = str(rng.choice(["prelu", "polynomial"]))
net = pf.initialize(h, D, 0.3, p=float(rng.choice([1, 2, 2.5, 3])), activation=kind, dtype=dtype, rng=3)
look = pf.Observe(every=1, what=["loss", "accuracy", "alignment", "distance_bracket"], gmm=gmm)
once = {"step": 0.01, "steps": 1, "observe": look}


def run_of(run):
    if run.status == "observer_failed":  # what was done until then is kept
        raise MemoryError(run.message)
    return [run["loss"], run.network.directions, run.network.log_norm]


def radius_of(radius):
    return [radius.lower, radius.upper, radius.witness]


CALLS = {
    "descent": lambda k: run_of(pf.gradient_descent(net, data.X, data.y, step=0.01, steps=2, num_threads=k)),
    "looking": lambda k: run_of(pf.gradient_descent(net, few.X, few.y, **once, num_threads=k)),
    "sgd": lambda k: run_of(pf.sgd(net, data.X, data.y, step=0.01, batch=20, epochs=1, rng=0, num_threads=k)),
    "flow": lambda k: run_of(pf.gradient_flow(net, data.X, data.y, t1=0.01, num_threads=k)),
    "forward": lambda k: [net.decision_function(data.X, num_threads=k)],
    "gradient": lambda k: [net.input_gradient(data.X, num_threads=k)],
    "loss": lambda k: [net.loss_gradient(data.X, data.y, num_threads=k).W],
    "fast": lambda k: radius_of(pf.robust_radius(net, data.X[:60], data.y[:60], "fast", num_threads=k)),
    "tight": lambda k: radius_of(pf.robust_radius(net, few.X, few.y, "tight", num_threads=k)),
    "exact": lambda k: radius_of(pf.robust_radius(net, few.X, few.y, "exact", max_nodes=10, num_threads=k)),
    "distance": lambda k: [np.array([pf.distance_bracket(net, gmm, steps=3, num_threads=k).lower])],
    "ddn": lambda k: [pf.attacks.ddn(net, few.X, few.y, steps=3).delta],
}


def same(found, wanted):
    return len(found) == len(wanted) and all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found, wanted))
"""

LIMITED = (
    CALLS
    + """
import resource

name, trials, slots, threads = sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), json.loads(sys.argv[5])
free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
warm = rng.random() < 0.5  # else the first call of all is the one that is short of memory
call, wanted = CALLS[name], None
if warm:
    wanted = call(1)
if slots:
    if os.getuid() == 0:
        os.setuid(54321)  # root is above this limit
    resource.setrlimit(resource.RLIMIT_NPROC, (slots, slots))
counts = {"answers": 0, "errors": 0}
for _ in range(trials):
    room = int(2.0 ** rng.uniform(10, 28)) if rng.random() < 0.9 else int(rng.uniform(0, 4e7))
    print(name, room, "bytes", file=sys.stderr, flush=True)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room, free[1]))
    try:
        found = call(threads[int(rng.integers(len(threads)))])
    except MemoryError:
        found = None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, free)
    counts["errors" if found is None else "answers"] += 1
    if wanted is None:
        wanted = call(1)
    assert found is None or same(found, wanted), "other bits"
    assert np.isfinite(net.decision_function(few.X)).all()
assert same(call(None), wanted), "other bits once there is memory"
print(json.dumps(counts))
"""
)

FORKED = (
    CALLS
    + """
names, trials = json.loads(sys.argv[2]), int(sys.argv[3])
wanted = {name: CALLS[name](1) for name in names}
stop = False


def compute(name):
    while not stop:
        CALLS[name](2)


others = [threading.Thread(target=compute, args=(name,)) for name in names]
for other in others:
    other.start()
bad = []
for _ in range(trials):
    threading.Event().wait(float(rng.uniform(0.0, 0.05)))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(60)
            status = 0 if all(same(CALLS[name](None), wanted[name]) for name in names) else 2
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        bad.append(status)
stop = True
for other in others:
    other.join()
assert all(same(CALLS[name](2), wanted[name]) for name in names), "other bits in the parent"
print(json.dumps({"bad": bad}))
"""
)
NAMES = (
    "descent",
    "looking",
    "sgd",
    "flow",
    "forward",
    "gradient",
    "loss",
    "fast",
    "tight",
    "exact",
    "distance",
    "ddn",
)
FORK_NAMES = ("descent", "sgd", "flow", "forward", "gradient", "loss", "fast", "tight", "exact")


def one(script: str, arguments: list[str], variable: str) -> tuple[dict[str, Any], str | None]:
    """What a process printed last, and what is wrong with it, if anything."""
    try:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", script, *arguments],
            env={**os.environ, "OMP_NUM_THREADS": variable},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return {}, f"no end within {PATIENCE:g} s"
    if done.returncode == -signal.SIGSEGV and died_in_numpy(done.stderr):
        return {"numpy": 1}, None
    if done.returncode:
        return {}, f"exit code {done.returncode}: {done.stderr.strip()[-400:]}"
    return json.loads(done.stdout.splitlines()[-1]), None


def limits(seconds: float, seed: int) -> dict[str, Any]:
    """Everything that computes under random limits of memory, threads and processes; counts and failures."""
    rng, end = np.random.default_rng(seed), time.monotonic() + seconds
    counts = {"processes": 0, "answers": 0, "memory errors": 0, "died inside NumPy": 0}
    failures: list[str] = []
    while counts["processes"] == 0 or time.monotonic() < end:
        name, number = NAMES[int(rng.integers(len(NAMES)))], int(rng.integers(2**31))
        variable = VARIABLE[int(rng.integers(len(VARIABLE)))]
        slots = int(rng.choice([0, 0, 1, 2]))
        threads = [THREADS[int(k)] for k in rng.integers(len(THREADS), size=4)]
        found, wrong = one(LIMITED, [str(number), name, str(TRIALS), str(slots), json.dumps(threads)], variable)
        counts["processes"] += 1
        counts["answers"] += found.get("answers", 0)
        counts["memory errors"] += found.get("errors", 0)
        counts["died inside NumPy"] += found.get("numpy", 0)
        if wrong:
            failures.append(
                f"limits: {name}, seed {number}, OMP_NUM_THREADS={variable!r}, slots {slots}, {threads}: {wrong}"
            )
    return {**counts, "failures": failures}


def forks(seconds: float, seed: int) -> dict[str, Any]:
    """Forks while two threads compute; children do the same and must find the same bits."""
    rng, end = np.random.default_rng(seed), time.monotonic() + seconds
    counts = {"processes": 0, "forks": 0}
    failures: list[str] = []
    while hasattr(os, "fork") and (counts["processes"] == 0 or time.monotonic() < end):
        names, number = [str(name) for name in rng.choice(FORK_NAMES, size=2)], int(rng.integers(2**31))
        found, wrong = one(FORKED, [str(number), json.dumps(names), str(TRIALS)], "")
        counts["processes"] += 1
        counts["forks"] += TRIALS
        if wrong or found["bad"]:
            failures.append(f"forks: {names}, seed {number}: {wrong or found['bad']}")
    return {**counts, "failures": failures}


if __name__ == "__main__":
    SECONDS, SEED = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for part in (limits, forks):
        print(part.__name__, json.dumps(part(SECONDS / 2, SEED), indent=1))
