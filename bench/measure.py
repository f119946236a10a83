"""Measuring on shared machines: contenders in alternation within one process, medians of ratios with their spread."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import preluflow
from preluflow.results import environment


def alternate(contenders: Mapping[str, Callable[[], object]], rounds: int, pause: float = 0.1) -> dict[str, np.ndarray]:
    """Seconds of each contender in each round, (rounds,), after one round that does not count.

    Each begins after a pause, in seconds, when the threads of the one before are asleep: those of OpenBLAS and OpenMP
    look for work at full speed (OpenBLAS's for 2^26 cycles).
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(rounds + 1):
        for name, run in contenders.items():
            time.sleep(pause)
            began = time.perf_counter()
            run()
            if round_:
                seconds[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> dict[str, float]:
    """Median and quartiles of the ratios, round by round."""
    low, median, high = np.quantile(numerator / denominator, (0.25, 0.5, 0.75))
    return {"median": float(median), "low": float(low), "high": float(high)}


def show_ratio(value: Mapping[str, float]) -> str:
    """Lay out a ratio with its spread."""
    return f"{value['median']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def write(path: Path, results: Any) -> None:
    """Write results with where they came from."""
    machine = {**environment(), "cpu": cpu_name(), "version": preluflow.__version__}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"environment": machine, "results": results}, indent=1))
    print(f"{path} written")


def cpu_name() -> str:
    """Name of the processor, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
