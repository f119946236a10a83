"""Chooses the compiled core this CPU runs fastest; ``PRELUFLOW_ISA`` forces one."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING

from preluflow import _cpu

_LEVELS = {"v2": 2, "v3": 3, "v4": 4}


def built() -> list[str]:
    """Names of the instruction sets this installation was built for, best first."""
    names = ("v4", "v3", "v2", "base")
    return [name for name in names if importlib.util.find_spec(f"preluflow._core_{name}") is not None]


def available() -> list[str]:
    """Those of ``built()`` that this CPU can run, best first."""
    level = _cpu.level()
    return [name for name in built() if _LEVELS.get(name, 0) <= level]


def _choose() -> str:
    runnable = available()
    forced = os.environ.get("PRELUFLOW_ISA", "").strip().lower()
    if forced:
        if forced in runnable:
            return forced
        if forced in built():
            raise ImportError(
                f"PRELUFLOW_ISA={forced}, but this CPU runs x86-64-v{_cpu.level()} at most; available: {runnable}"
            )
        raise ImportError(f"PRELUFLOW_ISA={forced} is not one of the instruction sets built here: {built()}")
    if not runnable:
        raise ImportError(
            f"preluflow was built for {built() or 'no instruction set'}, but this CPU is at x86-64 level "
            f"{_cpu.level()}; build from source on this machine"
        )
    return runnable[0]


isa = _choose()
if TYPE_CHECKING:
    from preluflow import _core

    core = _core
else:
    core = importlib.import_module(f"preluflow._core_{isa}")
