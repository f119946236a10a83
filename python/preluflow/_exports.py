"""Results for xarray and pandas, which are imported when asked for: names of axes, long names and units."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame
    from xarray import Dataset

    from preluflow._radius import RobustRadius
    from preluflow.results import Run

# Axes of the package's own records behind that of the stops; those of others' are numbered.
_AXES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("alignment", "target", "norms", "v"), ("neuron",)),
    **dict.fromkeys(("cluster_norms", "cluster_alignment"), ("cluster",)),
    "alignment_quartiles": ("quartile",),
}
_NO_UNIT = "1"
_LONG_NAMES = {
    "loss": ("mean loss over the data", _NO_UNIT),
    "accuracy": ("share of points with y f > 0", _NO_UNIT),
    "margin": ("least y f", _NO_UNIT),
    "normalized_margin": ("least y f over the power of ||theta|| it grows with", _NO_UNIT),
    "alignment": ("max_k cos(mu_k, w_j)", _NO_UNIT),
    "alignment_quartiles": ("quartiles over neurons of max_k cos(mu_k, w_j)", _NO_UNIT),
    "cluster_norms": ("sum of ||w_j||^2 over a cluster's neurons", _NO_UNIT),
    "void_norm": ("sum of ||w_j||^2 over the neurons in the void region", _NO_UNIT),
    "cluster_alignment": ("mean cos(mu_k, w_j) over a cluster's neurons, weighted by ||w_j||^2", _NO_UNIT),
    "target": ("cluster of the nearest own-class centre, -1 in the void region", _NO_UNIT),
    "norms": ("||w_j||", _NO_UNIT),
    "v": ("v_j", _NO_UNIT),
    "balancedness_drift": ("largest change of ||w_j||^2 - v_j^2 since the start", _NO_UNIT),
    "distance_estimate": ("sup |f - F^(p)| over the sphere, the paper's estimator", _NO_UNIT),
    "distance_lower": ("sup |f - F^(p)| over the sphere, at least", _NO_UNIT),
    "distance_upper": ("sup |f - F^(p)| over the sphere, at most", _NO_UNIT),
    "seconds": ("wall time since the start", "s"),
    "t": ("time of the flow; of descent step times iteration", _NO_UNIT),
    "iteration": ("iterations until here; of the flow accepted steps", _NO_UNIT),
    "epoch": ("passes through the data until here", _NO_UNIT),
}


def needed(module: str, what: str) -> Any:
    """Import an optional module; ImportError says what needs it and how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(f"{what} needs {module}: pip install 'preluflow[sweep]'") from None


def run_dataset(run: Run) -> Dataset:
    """Return a run's records as a dataset over its stops; see ``Run.to_xarray``."""
    xarray = needed("xarray", "to_xarray")
    coordinates = {"t": run.t, "iteration": run.iterations}
    records = dict(run.records)
    if run.method == "sgd" and "epoch" in records:
        coordinates["epoch"] = records.pop("epoch")
    coords: dict[str, Any] = {name: _described(name, ("stop",), values) for name, values in coordinates.items()}
    variables: dict[str, Any] = {}
    for name, values in records.items():
        axes = _AXES.get(name, ())
        if len(axes) != values.ndim - 1:  # a record of the user's, of a name of ours
            axes = tuple(f"{name}_{axis}" for axis in range(1, values.ndim))
        variables[f"{name}_record" if name in coords or name in axes or name == "stop" else name] = _described(
            name, ("stop", *axes), values
        )
        if name == "alignment_quartiles" and values.shape[1:] == (3,):
            coords["quartile"] = ("quartile", np.array([0.25, 0.5, 0.75]))
    for name, times in run.events.items():
        told = {"long_name": f"times at which {name} happened", "units": _NO_UNIT}
        variables[f"event_{name}"] = ((f"event_{name}_item",), times, told)
    words = {"method": run.method, "status": run.status, "message": run.message}
    facts = {"config": run.config, "stats": run.stats, "environment": run.environment}
    attributes = {**words, **{name: json.dumps(fact, sort_keys=True) for name, fact in facts.items()}}
    found: Dataset = xarray.Dataset(variables, coords, attributes)
    return found


def _described(name: str, dims: tuple[str, ...], values: Any) -> tuple[Any, ...]:
    """A variable with its long name and unit, if they are known."""
    long_name, unit = _LONG_NAMES.get(name, (name.replace("_", " "), ""))
    return (dims, values, {"long_name": long_name, **({"units": unit} if unit else {})})


def radius_frame(radius: RobustRadius) -> DataFrame:
    """Return a radius as a table of points; see ``RobustRadius.to_dataframe``."""
    pandas = needed("pandas", "to_dataframe")
    columns: dict[str, Any] = {"lower": radius.lower, "upper": radius.upper, "correct": radius.correct}
    if radius.reached is not None:
        columns["reached"] = radius.reached
    if radius.trace:
        columns |= {**radius.trace, "certificate": radius.certificates}
    index = pandas.RangeIndex(len(radius.lower), name="point")
    frame: DataFrame = pandas.DataFrame(columns, index=index)
    return frame
