"""The sources and docs/mathematics.md cite each other, by anchors that are there and by names that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = "docs/mathematics.md"
SOURCES = sorted(
    path
    for folder in ("python", "cpp", "tests", "bench")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".pyi", ".hpp", ".cpp") and path != Path(__file__).resolve()
)
PAGES = sorted((ROOT / "docs").rglob("*.md"))

# An anchor, or what a statement promises: Code: `file`, `name`; `file`, `name`
_ANCHOR = re.compile(r'<a id="([\w-]+)"></a>')
_PROMISE = re.compile(r"`([\w./]+)`, `(\w+)`")
_CITATION = re.compile(r"mathematics\.md(#[\w-]+)?")


def anchors(text):
    return _ANCHOR.findall(text)


def promises(text):
    """(anchor, file, name) of every line that begins with Code:, and such lines that are not understood."""
    found, odd, anchor = [], [], None
    for line in text.splitlines():
        names = anchors(line)
        if names:
            anchor = names[-1]
        if line.startswith("Code:"):
            pairs = _PROMISE.findall(line)
            if anchor is None or "Code: " + "; ".join(f"`{file}`, `{name}`" for file, name in pairs) != line:
                odd.append(line)
            found += [(anchor, file, name) for file, name in pairs]
    return found, odd


def broken_promises(text, read):
    """What a page promises and ``read`` (file -> its text, or None) does not keep, as sentences."""
    found, odd = promises(text)
    broken = [f"not understood: {line}" for line in odd]
    for anchor, file, name in found:
        code = read(file)
        if code is None:
            broken.append(f"#{anchor}: there is no {file}")
        elif not re.search(rf"\b{name}\b", code):
            broken.append(f"#{anchor}: {file} has no {name}")
        elif not re.search(rf"mathematics\.md#{anchor}(?![\w-])", code):
            broken.append(f"#{anchor}: {file} does not cite it back")
    return broken


def broken_citations(code, known):
    """Citations of the page in a source that name no anchor, or one that is not known."""
    return [cited or "no anchor" for cited in _CITATION.findall(code) if cited[1:] not in known]


def read_source(file):
    path = ROOT / file
    return path.read_text(encoding="utf-8") if path.is_file() else None


@pytest.fixture(scope="module")
def page():
    return (ROOT / PAGE).read_text(encoding="utf-8")


def test_anchors_are_unique(page):
    names = anchors(page)
    assert len(names) > 30
    assert len(set(names)) == len(names)


def test_every_citation_in_the_sources_resolves(page):
    known = set(anchors(page))
    broken = {
        str(path.relative_to(ROOT)): wrong
        for path in SOURCES
        if (wrong := broken_citations(path.read_text(encoding="utf-8"), known))
    }
    assert not broken


def test_every_promise_of_code_is_kept_and_cited_back(page):
    found, _ = promises(page)
    assert len(found) > 30
    assert not broken_promises(page, read_source)


def test_links_within_the_documents_resolve(page):
    broken = []
    for path in [ROOT / "README.md", *PAGES]:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            file, _, anchor = target.partition("#")
            if file.startswith(("http:", "https:")):
                continue
            place = path.parent / file if file else path
            if not place.exists():
                broken.append(f"{path.name}: {target}")
            elif anchor and anchor not in anchors(place.read_text(encoding="utf-8")):
                broken.append(f"{path.name}: {target}")
    assert not broken


def test_a_lost_anchor_name_or_citation_is_seen():
    text = '<a id="tangent"></a>\n\nCode: `a.cpp`, `fastest`\n'
    good = "// docs/mathematics.md#tangent\nvoid fastest();\n"
    assert not broken_promises(text, {"a.cpp": good}.get)
    assert broken_promises(text, {}.get)
    assert broken_promises(text, {"a.cpp": good.replace("fastest", "slowest")}.get)
    assert broken_promises(text, {"a.cpp": good.replace("#tangent", "#tangent-form")}.get)
    assert broken_promises(text.replace("`fastest`", "fastest"), {"a.cpp": good}.get)
    assert not broken_citations(good, {"tangent"})
    assert broken_citations(good, {"secant"}) == ["#tangent"]
    assert broken_citations("(mathematics.md, section 7)", {"tangent"}) == ["no anchor"]
