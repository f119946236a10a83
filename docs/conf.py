"""How the site is built: `python -m sphinx -W -b html docs docs/_build/html`, without network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

import preluflow

project = "preluflow"
author = "The preluflow developers"
project_copyright = author
version = release = preluflow.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "exercises", "gallery", "_gallery/**/*.ipynb", "_gallery/sg_execution_times.rst"]
templates_path: list[str] = []
nitpicky = False

html_theme = "furo"
html_title = "preluflow"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5394", "color-brand-content": "#0b5394"},
    "dark_css_variables": {"color-brand-primary": "#8ab8ff", "color-brand-content": "#8ab8ff"},
}
pygments_style = "friendly"
pygments_dark_style = "monokai"

# Formulas are plain text in this project, on GitHub, in a terminal and here: no MathJax, nothing to fetch.
smartquotes = False
highlight_language = "none"
myst_heading_anchors = 4

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring = False
napoleon_custom_sections = [("Attributes", "returns_style")]  # a list, not links to whatever has such a name
napoleon_use_rtype = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": ["gallery"],
    "gallery_dirs": ["_gallery"],
    "within_subsection_order": "FileNameSortKey",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "min_reported_time": 10_000,
    "write_computation_times": False,
    "plot_gallery": True,
    "reset_modules": ("matplotlib",),
    "capture_repr": (),
}


class HtmlAnchors(SphinxTransform):
    """Make `<a id="name"></a>` of the markdown pages a target that links of other pages find, as on GitHub."""

    default_priority = 650  # before MyST makes ids of headings (700) and looks up links (879)

    def apply(self, **_: Any) -> None:
        """Replace every such element of the page."""
        slugs = self.env.metadata[self.env.docname].setdefault("myst_slugs", {})
        for raw in list(self.document.findall(nodes.raw)):
            found = re.fullmatch(r'<a id="([\w-]+)">', raw.astext().strip())
            if not found:
                continue
            name = found[1]
            closing = raw.next_node(siblings=True, descend=False)
            if isinstance(closing, nodes.raw) and closing.astext() == "</a>":
                closing.parent.remove(closing)
            slugs[name] = (raw.line, name, name)
            if name in self.document.ids:  # of the heading below it, which has the same name
                raw.parent.remove(raw)
                continue
            target = nodes.target("", "", ids=[name], names=[name])
            raw.replace_self(target)
            self.document.note_explicit_target(target)


_LITERAL = re.compile(r"(``.+?``)", re.DOTALL)
_PROOF = re.compile(r"docs/mathematics\.md(#[\w-]+)?")


def _marked_up(plain: str) -> str:
    """Escape what is markup to reStructuredText and mathematics to us; link to the page of proofs."""
    escaped = re.sub(r"(?<=\w)_(?!\w)", r"\_", re.sub(r"([\\*|`])", r"\\\1", plain))
    return _PROOF.sub(lambda found: f"`{found[0]} <../mathematics.html{found[1] or ''}>`__", escaped)


def escape_docstring(_app: Sphinx, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Take docstrings as what they are, plain text with ``literals`` and doctests, before napoleon reads them."""
    blocks, doctest = [], False
    for line in lines:
        starts = line.lstrip().startswith(">>>")
        doctest = starts or (doctest and bool(line.strip()))
        if not blocks or blocks[-1][0] != doctest:
            blocks.append((doctest, []))
        blocks[-1][1].append(line)
    found: list[str] = []
    for is_doctest, block in blocks:
        text = "\n".join(block)
        if not is_doctest:
            text = "".join(part if index % 2 else _marked_up(part) for index, part in enumerate(_LITERAL.split(text)))
        found += text.split("\n")
    lines[:] = found


def list_decisions(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Give the page of decisions, which is to be read on GitHub too, the tree that the site needs."""
    if docname == "decisions/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n0*\n```\n"


def skip_member(_app: Sphinx, _what: str, _name: str, obj: Any, skip: bool, _options: Any) -> bool | None:
    """Leave out what Python itself says of fields of a named tuple; the class's docstring says more."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> None:
    """Connect the above."""
    app.add_transform(HtmlAnchors)
    app.connect("autodoc-process-docstring", escape_docstring, priority=100)
    app.connect("source-read", list_decisions)
    app.connect("autodoc-skip-member", skip_member)
