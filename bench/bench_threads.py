"""Do our threads slow down NumPy or torch calls that follow, and does a busy process slow down our threads?

    python bench/bench_threads.py
    python bench/bench_threads.py --beside [--rounds 8] [--other FOLDER]

A 400 x 400 product in NumPy and in torch is timed right after a call of each kind. Libraries whose idle workers spin
take the cores from whoever comes next; ours are let go at the end of every call.

With --beside, training on one thread and on two is timed in alternation, alone and beside one process that never rests
and is pinned nowhere: what two threads are worth, and with --other, the folder that holds another build's `preluflow`,
what this build is worth over that one. Each build runs in processes of its own, in alternation.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from measure import ratio, show_ratio

import preluflow as pf

BESIDE = {"full batch, n=5000 D=1000 h=500, 5 steps": "full", "SGD, B=100 D=2000 h=200, 15 epochs": "sgd"}
REPEATS = 3  # of each case in a process


def busy(seconds: float) -> None:
    """Let other libraries' workers fall asleep without letting this core do so."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def seconds_after(before: Callable[[], object], call: Callable[[], object], rounds: int = 200) -> float:
    """Median seconds of ``call`` right after ``before``."""
    times = []
    for _ in range(rounds):
        busy(0.01)
        before()
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def trainings() -> dict[str, Callable[[int], object]]:
    """The calls of --beside, each of a number of threads."""
    gmm = pf.OrthonormalGMM(1000, 6, 4, 0.1, rng=0)
    data = gmm.sample(5000, rng=1)
    net = pf.initialize(500, 1000, 0.1, rng=2)
    wide = pf.OrthonormalGMM(2000, 6, 4, 0.1, rng=0).sample(2000, rng=1)
    small = pf.initialize(200, 2000, 0.1, rng=2)
    return {
        "full": lambda threads: pf.gradient_descent(net, data.X, data.y, step=0.2, steps=5, num_threads=threads),
        "sgd": lambda threads: pf.sgd(
            small, wide.X, wide.y, step=0.02, batch=100, epochs=15, rng=0, num_threads=threads
        ),
    }


def measure_trainings() -> None:
    """What a process of --beside does: print the seconds of each training on one thread and on two as JSON."""
    seconds: dict[str, list[float]] = {f"{name}{threads}": [] for name in BESIDE.values() for threads in (1, 2)}
    calls = trainings()
    for repeat in range(REPEATS + 1):
        for name in BESIDE.values():
            for threads in (1, 2):
                began = time.perf_counter()
                calls[name](threads)
                if repeat:  # the first does not count
                    seconds[f"{name}{threads}"].append(time.perf_counter() - began)
    print(json.dumps(seconds))


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keep ``count`` processes busy meanwhile."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def seconds_of(build: Path) -> dict[str, list[float]]:
    """Seconds of each training by the ``preluflow`` in a folder, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure"],
        env={**os.environ, "PYTHONPATH": str(build)},
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def beside(rounds: int, other: Path | None) -> None:
    """Measure and print what two threads are worth, alone and beside a busy process."""
    builds = {"this": Path(pf.__file__).parents[1]} | ({"other": other} if other else {})
    seconds: dict[tuple[int, str], dict[str, list[float]]] = {}
    for _ in range(rounds):
        for count in (0, 1):
            with neighbours(count):
                for name, build in builds.items():
                    for case, values in seconds_of(build).items():
                        seconds.setdefault((count, name), {}).setdefault(case, []).extend(values)
    for count in (0, 1):
        for title, case in BESIDE.items():
            took = {
                (name, threads): np.array(seconds[count, name][f"{case}{threads}"])
                for name in builds
                for threads in (1, 2)
            }
            print(f"\n{title}, {'beside a busy process' if count else 'alone'}")
            for name in builds:
                one, two = took[name, 1], took[name, 2]
                times = f"{np.median(one) * 1e3:.0f} and {np.median(two) * 1e3:.0f} ms"
                print(f"  {name:6} two threads over one: {show_ratio(ratio(one, two))}   ({times})")
            for threads in (1, 2) if other else ():
                gain = show_ratio(ratio(took["other", threads], took["this", threads]))
                print(f"  this over other, threads {threads}: {gain}")


def after() -> None:
    """Measure and print products right after calls of each kind."""
    data = pf.OrthonormalGMM(300, 6, 4, 0.1, rng=0).sample(4000, rng=1)
    net = pf.initialize(200, 300, 0.1, rng=2)
    a = np.random.default_rng(0).standard_normal((400, 400), dtype=np.float32)
    b = torch.from_numpy(a)
    calls: dict[str, Callable[[], object]] = {"numpy": lambda: a @ a, "torch": lambda: b @ b}
    before: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "preluflow, 1 thread": lambda: net.decision_function(data.X, num_threads=1),
        "preluflow, all threads": lambda: net.decision_function(data.X),
        **calls,
    }
    print("microseconds of   " + "   ".join(calls))
    for name, first in before.items():
        print(f"after {name:24}" + "   ".join(f"{seconds_after(first, call) * 1e6:6.0f}" for call in calls.values()))


def main() -> None:
    """Measure and print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", action="store_true", help="two threads over one, alone and beside a busy process")
    parser.add_argument("--rounds", type=int, default=8, help="of processes, with --beside")
    parser.add_argument("--other", type=Path, help="folder of another build's preluflow, with --beside")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure_trainings()
    elif options.beside:
        beside(options.rounds, options.other and options.other.resolve())
    else:
        after()


if __name__ == "__main__":
    main()
