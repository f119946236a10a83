"""Every public name of the package, such as `preluflow.theory.Guarantee`: what the site and doctests must have."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

from hostile_arguments import at_home

MODULES = ("attacks", "classifiers", "data", "events", "plots", "sklearn", "theory", "torch_module", "typing")
_NEEDS = {"sklearn": "sklearn", "torch_module": "torch"}


def modules() -> dict[str, ModuleType]:
    """The public modules, the package itself under ""; those whose packages are not there are left out."""
    found = {"": importlib.import_module("preluflow")}
    for name in MODULES:
        try:
            importlib.import_module(_NEEDS.get(name, "preluflow"))
        except ImportError:
            continue
        found[name] = importlib.import_module(f"preluflow.{name}")
    return found


def public() -> dict[str, Any]:
    """Functions, classes and types of arguments, each under its shortest name."""
    found: dict[str, Any] = {}
    known: set[int] = set()
    for short, module in modules().items():
        for name in getattr(module, "__all__", vars(module)):
            value = getattr(module, name)
            made_here = bool(short == "" or hasattr(module, "__all__") or at_home(value, module))
            if name.startswith("_") or isinstance(value, ModuleType) or id(value) in known:
                continue
            if short == "typing" and name[0].isupper() and name != "Literal":
                found[f"preluflow.typing.{name}"] = value
            elif made_here and (inspect.isclass(value) or inspect.isfunction(value) or not callable(value)):
                found[".".join(filter(None, ("preluflow", short, name)))] = value
                known.add(id(value))
    return found
