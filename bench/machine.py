"""What this processor can do at most, so that every rate is a share of a limit and not of another library's.

    python bench/machine.py [--seconds 2]

For every instruction set that is built and runs here, and for one thread and all: flops a second of multiply-adds out
of registers, float32 and float64. Bytes a second read from half of each cache (of L1 and L2 a thread), and from sixteen
times the largest.
The rates are medians over rounds in which all take turns, with quartiles: on a shared machine they move, and two
"processors" may be one core's two threads, which the flops of all threads over those of one then show.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import alternate, cpu_name
from threadpoolctl import threadpool_info

from preluflow import _dispatch, _threads

PRIVATE = ("L1", "L2")  # of each core
ROUND = 0.03  # seconds of each measurement, about


def lasting(seconds: float, run: Callable[[int], float]) -> Callable[[], float]:
    """Call ``run`` with as many repeats as take about so many seconds here, whenever that is called."""
    repeats = 1
    while True:
        began = time.perf_counter()
        run(repeats)
        if (took := time.perf_counter() - began) > seconds / 4:
            return partial(run, max(1, round(repeats * seconds / took)))
        repeats *= 2


def fma(core: Any, dtype: str, threads: int, seconds: float = ROUND) -> Callable[[], float]:
    """Multiply-adds for about so many seconds, which return how many flops those were."""
    return lasting(seconds, lambda repeats: core.fma_flops(dtype, repeats, threads))


def reading(core: Any, size: int, threads: int, seconds: float = ROUND) -> Callable[[], float]:
    """The same of bytes read from an array of so many bytes, of which each thread reads its share."""
    values = np.ones(size // 8)
    return lasting(seconds, lambda repeats: core.read_bytes(values, repeats, threads))


def rates(calls: Mapping[Any, Callable[[], float]], seconds: float) -> dict[Any, np.ndarray]:
    """Work a second of each call in each round, calls in turn, for about so many seconds of each."""
    took = alternate(calls, max(3, round(seconds / ROUND)), pause=0.0)  # our threads end with each call
    return {name: call() / took[name] for name, call in calls.items()}


def caches() -> dict[str, int]:
    """Bytes of each level of data cache as the system tells them, none where it does not."""
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = (index / name for name in ("type", "level", "size"))
        if size.exists() and kind.read_text().strip() != "Instruction":
            told = size.read_text().strip()
            sizes[f"L{level.read_text().strip()}"] = int(told.rstrip("KM")) * {"K": 2**10, "M": 2**20}.get(told[-1], 1)
    return sizes


def blas() -> str:
    """Which library multiplies in NumPy, and the kernel it chose: OPENBLAS_CORETYPE may have it another's."""
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return ", ".join(f"{pool['internal_api']} {pool.get('architecture', '')}".strip() for pool in pools) or "unknown"


def describe() -> str:
    """One line: the processor, its caches and what multiplies in NumPy."""
    sizes = ", ".join(f"{level} {size / 2**20:.3g} MiB" for level, size in caches().items()) or "caches unknown"
    forced = os.environ.get("OPENBLAS_CORETYPE")
    return f"{cpu_name()}; {_threads.processors()} processors; {sizes}; NumPy multiplies with {blas()}" + (
        f" (OPENBLAS_CORETYPE={forced})" if forced else ""
    )


def spread(values: np.ndarray, unit: float) -> str:
    """Lay out a median with its quartiles."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)) / unit
    return f"{median:.0f} [{low:.0f}, {high:.0f}]"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    options = parser.parse_args()
    print(describe())
    everyone = sorted({1, _threads.processors()})
    cores = {isa: importlib.import_module(f"preluflow._core_{isa}") for isa in _dispatch.available()}
    keys = [(isa, dtype, threads) for isa in cores for dtype in ("float32", "float64") for threads in everyone]
    found = rates({key: fma(cores[key[0]], *key[1:]) for key in keys}, options.seconds)
    print("\ninstruction set | dtype | threads | GFLOP/s of multiply-adds, median and quartiles")
    for (isa, dtype, threads), values in found.items():
        print(f"{isa} | {dtype} | {threads} | {spread(values, 1e9)}")
    largest = max(caches().values(), default=2**25)
    sizes = {(name, n): size // 2 * (n if name in PRIVATE else 1) for name, size in caches().items() for n in everyone}
    sizes.update({("memory", n): 16 * largest for n in everyone})
    found = rates({key: reading(_dispatch.core, size, key[1]) for key, size in sizes.items()}, options.seconds)
    print("\nread from | threads | GB/s, median and quartiles")
    for (name, threads), values in found.items():
        print(f"half of {name} | {threads} | {spread(values, 1e9)}".replace("half of memory", "memory"))


if __name__ == "__main__":
    main()
