"""Telling a death inside NumPy from one of ours, where memory ends."""

from __future__ import annotations

import linecache
import re


def died_in_numpy(said: str) -> bool:
    """Whether the line that a segmentation fault is in calls nothing of the core.

    NumPy's ufuncs do not survive it when there is no memory for the buffers of a broadcast or a cast: they raise
    MemoryError without holding the GIL (``float32_matrix * float64_column``, ``matrix /= column`` in NumPy 2.x).
    """
    place = re.search(r'most recent call first\):\n  File "(.+)", line (\d+) in', said)
    if place is None:
        return False
    line = linecache.getline(place[1], int(place[2]))
    return bool(line) and re.search(r"\bcore\.|_core\.|stepper|\.margin|\.span|span\.", line) is None
