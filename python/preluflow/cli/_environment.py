"""What this installation is."""

from __future__ import annotations

import sys

from preluflow import _dispatch, _threads
from preluflow._version import __version__


def environment() -> dict[str, str]:
    """Version, instruction set, threads and compiler, in words."""
    build = _dispatch.core.build_info()
    return {
        "preluflow": __version__,
        "python": sys.version.split()[0],
        "instruction set": f"{_dispatch.isa} (available: {', '.join(_dispatch.available())}; "
        f"built: {', '.join(_dispatch.built())})",
        "threads": str(_threads.default()),
        "processors": str(_threads.processors()),
        "Eigen": f"{build['eigen']} ({build['eigen_simd']})",
        "compiler": build["compiler"],
    }
