"""The one progress bar; tqdm is imported when one is shown."""

from __future__ import annotations

from typing import Any


class _Silent:
    """A bar that is not shown."""

    def update(self, amount: float) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def progress_bar(total: float, unit: str, show: bool) -> Any:
    """Return a bar with ``update(amount)`` and ``close()``."""
    if not show:
        return _Silent()
    from tqdm.auto import tqdm

    return tqdm(total=total, unit=unit, leave=False)
