"""Do our threads slow down NumPy or torch calls that follow?

    python bench/bench_threads.py

A 400 x 400 product in NumPy and in torch is timed right after a call of each kind. Libraries whose idle workers spin
take the cores from whoever comes next; ours are let go at the end of every call.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

import preluflow as pf


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


def main() -> None:
    """Measure and print."""
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


if __name__ == "__main__":
    main()
