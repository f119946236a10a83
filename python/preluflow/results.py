"""Results of training runs, and the npz files they are kept in."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preluflow._dispatch import core, isa
from preluflow._version import __version__
from preluflow.network import TwoLayerNetwork

SCHEMA = 1

Arrays = Mapping[str, NDArray[Any]]


def environment() -> dict[str, Any]:
    """Versions and machine a number came from."""
    return {
        "preluflow": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "isa": isa,
        "compiler": core.build_info()["compiler"],
        "machine": platform.machine(),
    }


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Refuse, before any work, a file that could not be written at the end."""
    path = Path(path)
    folder = path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {str(folder)!r} does not exist")
    try:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
    except OSError as error:
        raise PermissionError(f"the folder {str(folder)!r} is not writable: {error.strerror}") from None
    os.close(descriptor)
    os.unlink(name)
    return path


def write_npz(path: str | os.PathLike[str], kind: str, arrays: Arrays, meta: Mapping[str, Any]) -> None:
    """Write arrays and JSON metadata at once or not at all; a file that was there stays whole until then."""
    path = check_writable(path)
    objects = [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]
    if objects:
        raise ValueError(f"{objects} hold Python objects, which would need pickle")
    header = {"schema": SCHEMA, "kind": kind, **meta}
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            np.savez_compressed(stream, **{**arrays, "meta": np.array(json.dumps(header))})  # type: ignore[arg-type]
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def read_npz(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what ``write_npz`` wrote; ValueError if the file is damaged, foreign, or of another kind or schema."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        meta = json.loads(str(arrays.pop("meta")[()]))
        found = (meta.pop("schema"), meta.pop("kind"))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {str(path)!r}") from None
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"{str(path)!r} is damaged or not a preluflow file: {error}") from None
    if found != (SCHEMA, kind):
        raise ValueError(f"{str(path)!r} holds {found[1]!r} (schema {found[0]}), expected {kind!r} (schema {SCHEMA})")
    return arrays, meta


def network_arrays(network: TwoLayerNetwork, prefix: str = "network") -> dict[str, NDArray[Any]]:
    """Return the state of a network under names for ``write_npz``."""
    return {
        f"{prefix}.U": network.directions,
        f"{prefix}.log_norm": network.log_norm,
        f"{prefix}.sign": network.sign,
        f"{prefix}.log_abs_v": network.log_abs_v,
        f"{prefix}.activation": np.array(network.activation),
        f"{prefix}.p": np.array(network.p),
    }


def network_from_arrays(arrays: Arrays, prefix: str = "network") -> TwoLayerNetwork:
    """Undo ``network_arrays``."""
    U, log_norm, sign, log_abs_v = (arrays[f"{prefix}.{name}"] for name in ("U", "log_norm", "sign", "log_abs_v"))
    activation, p = str(arrays[f"{prefix}.activation"]), float(arrays[f"{prefix}.p"])
    return TwoLayerNetwork.from_polar(U, log_norm, sign, log_abs_v, activation, p)


@dataclass
class Run:
    """A training run: what was observed along it and the network at its end.

    Attributes
    ----------
    method : str
        "gradient_flow", "gradient_descent" or "sgd".
    status : str
        "finished", "interrupted" (Ctrl-C), "not_finite" (loss or gradient) or "observer_failed"; of the flow also
        "event" (one that ends the run), "step_too_small" or "max_steps".
    message : str
        The status in a sentence.
    iterations : ndarray of int, shape (S,)
        Iteration of each stop; 0 is the start. Of the flow: accepted steps until then.
    t : ndarray, shape (S,)
        Time of each stop; for descent, step * iteration.
    records : dict of ndarray, each (S, ...)
        What the observers found at the stops; ``run["loss"]`` is short for ``run.records["loss"]``.
    network : TwoLayerNetwork
        At the end of the run.
    config : dict
        Method, step, loss and the like, in plain numbers and words.
    stats : dict
        Where time went: ``seconds`` in all, ``seconds_kernel``, ``seconds_observing``, ``seconds_drawing`` (progress);
        the time ``t`` of ``network``; and work done: ``iterations``, ``gradients`` (descent), ``epochs`` (SGD), for
        the flow see ``gradient_flow``.
    environment : dict
        Versions and instruction set that produced the numbers.
    events : dict of ndarray
        Times at which each event of a flow happened, empty if it did not.
    """

    method: str
    status: str
    message: str
    iterations: NDArray[np.int64]
    t: NDArray[np.float64]
    records: dict[str, NDArray[Any]]
    network: TwoLayerNetwork
    config: dict[str, Any]
    stats: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=environment)
    events: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return the record of that name, shape (S, ...)."""
        try:
            return self.records[name]
        except KeyError:
            known = ", ".join(sorted(self.records)) or "nothing"
            raise KeyError(f"{name!r} was not observed; this run has {known}") from None

    def __contains__(self, name: object) -> bool:
        """Whether ``name`` was observed."""
        return name in self.records

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the records."""
        return iter(self.records)

    def __repr__(self) -> str:
        """Show status and what was observed."""
        return f"Run({self.method}: {self.status}, {len(self.t)} stops, records: {', '.join(self.records)})"

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything numerical under flat names, for npz files."""
        return {
            "iterations": self.iterations,
            "t": self.t,
            **{f"record.{name}": values for name, values in self.records.items()},
            **{f"event.{name}": times for name, times in self.events.items()},
            **network_arrays(self.network),
        }

    def meta(self) -> dict[str, Any]:
        """Return everything else, for the npz file's JSON."""
        names = ("method", "status", "message", "config", "stats", "environment")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_arrays(cls, arrays: Arrays, meta: Mapping[str, Any]) -> Run:
        """Undo ``arrays`` and ``meta``."""
        records, events = (
            {name[len(kind) :]: array for name, array in arrays.items() if name.startswith(kind)}
            for kind in ("record.", "event.")
        )
        return cls(
            iterations=arrays["iterations"],
            t=arrays["t"],
            records=records,
            events=events,
            network=network_from_arrays(arrays),
            **{name: meta[name] for name in ("method", "status", "message", "config", "stats", "environment")},
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to an npz file (no pickle), atomically."""
        write_npz(path, "run", self.arrays(), self.meta())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Load what ``save`` wrote; ValueError if the file is damaged or something else."""
        arrays, meta = read_npz(path, "run")
        try:
            return cls.from_arrays(arrays, meta)
        except KeyError as error:
            raise ValueError(f"{str(path)!r} is damaged: {error} is missing") from None
