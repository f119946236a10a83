"""The site: every public name is on a page of the API, once, and every page of the API names what is there."""

from __future__ import annotations

import re
from pathlib import Path

import public_names

import preluflow as pf
from preluflow.experiments import REGISTRY

DOCS = Path(__file__).parents[1] / "docs"
_DIRECTIVE = re.compile(r"^\.\. auto(?:class|function|data):: (\S+)$", re.MULTILINE)


def on_pages() -> list[str]:
    return [name for page in sorted((DOCS / "api").glob("*.rst")) for name in _DIRECTIVE.findall(page.read_text())]


def test_every_public_name_is_on_a_page_of_the_api():
    names = public_names.public()
    assert len(names) > 70
    assert not set(names) - set(on_pages())


def test_the_pages_of_the_api_name_public_things_once():
    named = on_pages()
    assert len(named) == len(set(named))
    there = {name.split(".")[1] for name in named if name.count(".") == 2} & set(public_names.modules())
    absent = {"sklearn", "torch_module"} - there
    assert {name for name in named if name.split(".")[1] not in absent} == set(public_names.public())


def test_every_page_of_the_api_is_in_its_contents():
    contents = (DOCS / "api" / "index.md").read_text().splitlines()
    assert {page.stem for page in (DOCS / "api").glob("*.rst")} <= set(contents)


def test_the_map_names_functions_and_commands_that_are_there():
    text = (DOCS / "map.md").read_text()
    names = re.findall(r"`pf\.([\w.]+)`", text)
    assert len(names) > 25
    for name in names:
        value = pf
        for part in name.split("."):
            value = getattr(value, part)
    commands = set(re.findall(r"preluflow reproduce ([\w-]+)", text))
    assert commands == set(REGISTRY)  # every experiment has its place


def test_files_that_pages_name_are_there():
    named = [
        (page.name, path)
        for page in (DOCS / "how-to").glob("*.md")
        for path in re.findall(r"`((?:cpp|python|tests|docs|bench)/[\w./]+)`", page.read_text())
    ]
    assert len(named) > 10
    assert not [(page, path) for page, path in named if not (DOCS.parent / path).exists()]
