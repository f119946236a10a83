"""Blocks of Python in the markdown pages, in their order.

A block that takes long stands under `<!-- slow -->`; one whose first line is `# name.py` is a file of that name, which
later blocks of the page import.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted(page for page in (ROOT / "docs").rglob("*.md") if not {"_build", "_gallery"} & set(page.parts))

_BLOCK = re.compile(r"^(?P<mark><!-- slow -->\n+)?```(?P<word>\S*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\w+\.py)\n")


@dataclass(frozen=True)
class Block:
    """A block: its text, the line it begins at, and what is known of it."""

    text: str
    line: int
    slow: bool

    @property
    def file(self) -> str | None:
        """Name of the file it is, if it is one."""
        found = _FILE.match(self.text)
        return found[1] if found else None


def blocks(text: str) -> list[Block]:
    """The blocks marked ```python, with the lines where their code begins."""
    return [
        Block(found["text"], text.count("\n", 0, found.start("text")) + 1, bool(found["mark"]))
        for found in _BLOCK.finditer(text)
        if found["word"] == "python"
    ]


def with_code() -> dict[str, list[Block]]:
    """Pages that have blocks, by their path."""
    found = {str(page.relative_to(ROOT)): blocks(page.read_text(encoding="utf-8")) for page in PAGES}
    return {name: each for name, each in found.items() if each}
