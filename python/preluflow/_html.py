"""What notebooks show of an object: a small table and a sparkline, as HTML and SVG that need nothing else.

Every text is escaped; colours are the reader's own (``currentColor``), so that both light and dark pages will do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_WIDTH, _HEIGHT, _MARGIN = 240, 48, 3  # of a sparkline, in pixels
_MOST_POINTS = 400  # of a line: more than pixels
_LONGEST = 200  # characters of a value


def table(title: str, rows: Mapping[str, Any], picture: str = "", caption: str = "") -> str:
    """Return a table of names and values under a title, with a picture and what it shows."""
    lines = [
        f'<tr><th style="text-align:left">{escape(_shortened(name))}</th>'
        f'<td style="text-align:left">{escape(_shortened(str(value)))}</td></tr>'
        for name, value in rows.items()
    ]
    drawn = f'<div>{picture}<br><span style="font-size:85%">{escape(caption)}</span></div>' if picture else ""
    return f"<div><strong>{escape(title)}</strong><table>{''.join(lines)}</table>{drawn}</div>"


def line(curves: Sequence[tuple[ArrayLike, ArrayLike]]) -> str:
    """Return a picture of curves (x, y), the later ones dashed, on common axes; "" if nothing in them is finite."""
    every = [(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)) for x, y in curves]
    finite = [np.isfinite(x) & np.isfinite(y) for x, y in every]
    if not any(use.any() for use in finite):
        return ""
    xs = np.concatenate([x[use] for (x, _), use in zip(every, finite, strict=True)])
    ys = np.concatenate([y[use] for (_, y), use in zip(every, finite, strict=True)])
    parts = []
    for number, ((x, y), use) in enumerate(zip(every, finite, strict=True)):
        places = np.flatnonzero(use)
        places = places[np.unique(np.linspace(0, len(places) - 1, min(len(places), _MOST_POINTS)).astype(int))]
        across, down = _scaled(x[places], xs, _WIDTH), _HEIGHT - _scaled(y[places], ys, _HEIGHT)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
        dashes = ' stroke-dasharray="4 3"' if number else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"{dashes}/>')
    return _picture(parts)


def bars(heights: ArrayLike) -> str:
    """Return a picture of bars from 0; "" if there are none."""
    values = np.asarray(heights, dtype=np.float64)[:_MOST_POINTS]
    if not values.size or not values.max() > 0:
        return ""
    step = (_WIDTH - 2 * _MARGIN) / len(values)
    tall = (_HEIGHT - 2 * _MARGIN) * np.maximum(values, 0.0) / values.max()
    parts = [
        f'<rect x="{_MARGIN + i * step:.1f}" y="{_HEIGHT - _MARGIN - h:.1f}" width="{0.8 * step:.1f}" '
        f'height="{h:.1f}" fill="currentColor" fill-opacity="0.6"/>'
        for i, h in enumerate(tall)
    ]
    return _picture(parts)


def _scaled(values: Any, every: Any, length: int) -> Any:
    """Places between the margins."""
    low, high = float(every.min()), float(every.max())
    if high == low:
        return np.full(len(values), length / 2)
    # Each is halved before the difference is taken, which may leave float64.
    return _MARGIN + (length - 2 * _MARGIN) * ((values / 2 - low / 2) / (high / 2 - low / 2))


def _picture(parts: Sequence[str]) -> str:
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{"".join(parts)}</svg>'


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
