"""Every block of Python in README and the pages of docs/ runs, a page's blocks one after the other."""

from __future__ import annotations

import re
import sys

import documents
import pytest

PAGES = documents.with_code()
_OPTIONAL = {"torch": "torch", "sklearn": "sklearn", "pf.sweep": "xarray"}


def run(page: str, slow: bool) -> int:
    """Run a page's blocks in one namespace, up to the first slow one unless those are wanted; return how many ran."""
    space: dict[str, object] = {"__name__": "__main__"}
    ran = 0
    for block in PAGES[page]:
        if block.slow and not slow:
            continue
        if block.file:
            with open(block.file, "w", encoding="utf-8") as stream:
                stream.write(block.text)
        # Lines of a traceback are then those of the page.
        code = compile("\n" * (block.line - 1) + block.text, str(documents.ROOT / page), "exec")
        if not block.file:
            exec(code, space)
        ran += 1
    return ran


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder, on the path so that what a page writes can be imported, and forgotten after."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def require_packages(page: str) -> None:
    text = "".join(block.text for block in PAGES[page])
    for word, package in _OPTIONAL.items():
        if re.search(rf"^\s*(import|from) {re.escape(word)}\b|{re.escape(word)}\(", text, re.MULTILINE):
            pytest.importorskip(package)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_blocks_run(page, folder):
    require_packages(page)
    quick = [block for block in PAGES[page] if not block.slow]
    assert run(page, slow=False) == len(quick)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(name for name, blocks in PAGES.items() if any(block.slow for block in blocks)))
def test_slow_blocks_run(page, folder):
    require_packages(page)
    assert run(page, slow=True) == len(PAGES[page])


def test_the_pages_that_show_code_are_found():
    assert {"README.md", "docs/quickstart.md", "docs/trust.md", "docs/published-curves.md"} <= set(PAGES)
    how_to = {name for name in PAGES if name.startswith("docs/how-to/")}
    assert len(how_to) == 8
    assert sum(len(blocks) for blocks in PAGES.values()) > 20


def test_blocks_are_told_apart():
    text = "a\n<!-- slow -->\n```python\nx = 1\n```\n\n```sh\nls\n```\n```python\n# file.py\ny = 2\n```\n"
    slow, file = documents.blocks(text)
    assert (slow.slow, slow.line, slow.file, slow.text) == (True, 4, None, "x = 1\n")
    assert (file.slow, file.line, file.file) == (False, 11, "file.py")
