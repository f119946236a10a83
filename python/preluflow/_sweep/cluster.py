"""The executor of a Dask cluster."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

from preluflow._npz import one_line


class ClusterError(Exception):
    """There is no such cluster, or no Dask to reach it with."""


@contextlib.contextmanager
def cluster(scheduler: str | None) -> Iterator[Executor | None]:
    """Connect to the scheduler at an address, such as tcp://host:8786; None: to none."""
    if scheduler is None:
        yield None
        return
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise ClusterError("a scheduler needs Dask: pip install 'preluflow[sweep]' distributed") from None
    try:
        client = distributed.Client(scheduler)
    except (OSError, ValueError) as error:
        raise ClusterError(f"there is no scheduler at {scheduler!r}: {one_line(error)}") from None
    try:
        yield client.get_executor()
    finally:
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            client.close(timeout=5)
