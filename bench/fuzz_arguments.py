"""Fuzzing the arguments of every public callable: random combinations of right and wrong values.

    python bench/fuzz_arguments.py [--seconds 60] [--seed 0]

Callables, parameters and values are those of ``tests/hostile_arguments.py``, with random numbers besides. Whatever the
combination, a call succeeds or raises a ValueError or a TypeError that is not pybind11's, within a second, as the
problems are tiny, and without a warning, but for those of numbers too large. ``arguments`` is for ``bench/fuzz.py``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import hostile_arguments as hostile

_CHANGED = 0.3  # share of the parameters that are given another value
_RANDOM = 0.3  # share of numbers, among those, that are random
_KEPT = 100  # failures that are told
_CLEARED = 1000  # calls after which pictures are thrown away


def _number(rng: np.random.Generator) -> Any:
    """Draw an integer or a float of any size, often beside a power of 2."""
    if rng.random() < 0.5:
        return int(rng.choice([-1, 1])) * (2 ** int(rng.integers(0, 80)) + int(rng.integers(-1, 2)))
    return float(rng.choice([-1.0, 1.0]) * 10.0 ** rng.uniform(-323.0, 308.0))


def _draw(case: hostile.Case, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, str]]:
    """Arguments of one call, and what was changed, in words."""
    arguments, said = case.fresh(), {}
    for name, kind in case.kinds.items():
        if rng.random() > _CHANGED:
            continue
        if kind.numeric and rng.random() < _RANDOM:
            value = _number(rng)
            if kind.verdict("a random number", value) != hostile.LEFT:
                arguments[name], said[name] = value, repr(value)
            continue
        choices = list(kind.values(arguments[name]))
        if choices:
            label, arguments[name], _ = choices[rng.integers(len(choices))]
            said[name] = label
    return arguments, said


def _fault(case: hostile.Case, arguments: Mapping[str, Any]) -> tuple[str, str | None]:
    """How a call ended: "succeeded", "refused" or "failed", and then with what."""
    began = time.perf_counter()
    error: BaseException | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            case.function(**arguments)
        except Exception as raised:  # whatever comes is judged
            error = raised
    seconds = time.perf_counter() - began
    if seconds > hostile.LIMIT:
        return "failed", f"took {seconds:.1f} s"
    if error is None:
        return "succeeded", None
    message = f"{type(error).__name__}: {error}"
    dump = re.search("argument types|incompatible .* arg|truth value", message)
    if isinstance(error, (ValueError, TypeError)) and not dump:
        return "refused", None
    return "failed", message


def arguments(seconds: float, seed: int) -> dict[str, Any]:
    """Call for so long; returns how often what came of it, and the first failures in words."""
    rng = np.random.default_rng(seed)
    cases = list(hostile.TABLE.items())
    counts = {"calls": 0, "succeeded": 0, "refused": 0, "failed": 0}
    failures: list[str] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        name, case = cases[rng.integers(len(cases))]
        drawn, said = _draw(case, rng)
        outcome, message = _fault(case, drawn)
        if message is not None and message.startswith("took"):  # once more: the machine may have been busy
            outcome, message = _fault(case, drawn)
        counts["calls"] += 1
        counts[outcome] += 1
        if message is not None and len(failures) < _KEPT:
            failures.append(f"{name}({', '.join(f'{k} = {v}' for k, v in said.items())}): {message[:300]}")
        if counts["calls"] % _CLEARED == 0:
            hostile.O.clear()
    return {**counts, "seed": seed, "seconds": seconds, "failures": failures}


def main() -> None:
    """Fuzz and tell; exit code 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = arguments(options.seconds, options.seed)
    print(json.dumps(found, indent=1))
    raise SystemExit(bool(found["failed"]))


if __name__ == "__main__":
    main()
