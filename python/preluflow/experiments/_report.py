"""One HTML page that needs nothing else: pictures, tables, configurations, environment and seconds of what was run."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

from preluflow.experiments._harness import HEADINGS, Outcome, Row

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #111; background: #fff; max-width: 76rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 3rem; border-top: 1px solid #ccc; padding-top: 1rem; }
img { max-width: 100%; height: auto; } .wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .15rem .8rem .15rem 0; text-align: left;
       vertical-align: top; border-bottom: 1px solid #e4e4e4; } td:first-child { white-space: pre-wrap; }
.note { color: #8a3b00; font-weight: 600; } summary { cursor: pointer; color: #1f5a96; } code { font-size: .9em; }
"""


@dataclass(frozen=True)
class Section:
    """A figure of the page: its outcome, pictures (media type and bytes), table and the seconds it took."""

    outcome: Outcome
    summary: str
    pictures: tuple[tuple[str, bytes], ...]
    rows: list[Row]
    seconds: float
    redrawn: bool = False


def page(sections: Iterable[Section], environment: Mapping[str, str], command: str) -> str:
    """Return the page; all text is escaped."""
    every = list(sections)
    links = "".join(
        f'<li><a href="#{_id(each)}">{escape(each.outcome.name)}</a>: {escape(each.summary)}</li>' for each in every
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>preluflow report</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>preluflow: measured, paper, theory</h1><p><code>{escape(command)}</code></p><ul>{links}</ul>"
        f"<h2>Environment this page was written in</h2>{_pairs(environment)}"
        f"{''.join(map(_section, every))}</body></html>\n"
    )


def _id(section: Section) -> str:
    return escape(section.outcome.name, quote=True)


def _section(section: Section) -> str:
    outcome = section.outcome
    images = "".join(
        f'<p><img alt="{_id(section)}" src="data:{kind};base64,{base64.b64encode(data).decode()}"></p>'
        for kind, data in section.pictures
    )
    head = "".join(f"<th>{name}</th>" for name in HEADINGS)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in (row.quantity, row.measured, row.paper, row.theory))
        + "</tr>"
        for row in section.rows
    )
    marks = outcome.marks.removeprefix(", ")
    note = f'<p class="note">{escape(marks)}</p>' if marks else ""
    took = f"{section.seconds:.1f} s" + (", redrawn from its file" if section.redrawn else "")
    config = _pairs({name: json.dumps(value) for name, value in outcome.config.items()})
    return (
        f'<h2 id="{_id(section)}">{escape(outcome.name)}: {escape(section.summary)}</h2>{note}{images}'
        f'<div class="wide"><table><tr>{head}</tr>{body}</table></div><p>{took}</p>'
        f"<details><summary>configuration</summary>{config}</details>"
    )


def _pairs(values: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>" for name, value in values.items()
    )
    return f'<div class="wide"><table>{rows}</table></div>'
