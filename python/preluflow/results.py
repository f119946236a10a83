"""Results of training runs, and the npz files they are kept in."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from preluflow import _arrays, _dense, _exports, _html, _npz
from preluflow._dense import Dense
from preluflow._dispatch import core, isa
from preluflow._files import as_path, write_file
from preluflow._version import __version__
from preluflow.network import ACTIVATIONS, TwoLayerNetwork

if TYPE_CHECKING:
    import xarray

SCHEMA = 1

Arrays = Mapping[str, NDArray[Any]]

NETWORK = ("U", "log_norm", "sign", "log_abs_v", "activation", "p")  # what a network's arrays are called
PARTS = ("offsets", "output_bias", "center", "normalize_input", "classes")  # and those it need not have


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


def write_npz(path: str | os.PathLike[str], kind: str, arrays: Arrays, meta: Mapping[str, Any]) -> None:
    """Write arrays and JSON metadata at once or not at all; a file that was there stays whole until then.

    What could not be read again is refused before anything is written.
    """
    found = {name: np.asarray(array) for name, array in arrays.items()}
    objects = [name for name, array in found.items() if array.dtype.hasobject]
    if objects:
        raise ValueError(f"{objects} hold Python objects, which would need pickle")
    others = [name for name, array in found.items() if array.dtype.kind not in _npz.KINDS]
    if others:
        raise ValueError(f"{others[0]!r} must hold real numbers or strings, got dtype {found[others[0]].dtype}")
    found["meta"] = np.array(json.dumps({"schema": SCHEMA, "kind": kind, **meta}))
    _npz.read_meta(found["meta"])
    if not _npz.fits_directory(list(found)):
        raise ValueError(f"there must be fewer arrays, or plainer or shorter names, got {len(found)}")
    unpacked = sum(array.nbytes + 1024 for array in found.values())  # with headers and more

    def write(stream: BinaryIO) -> None:
        np.savez_compressed(stream, **found)  # type: ignore[arg-type]
        if unpacked > _npz.allowed_bytes(stream.tell()):  # nearly nothing but zeros: see MOST_RATIO
            stream.seek(0)
            stream.truncate()
            np.savez(stream, **found)  # type: ignore[arg-type]

    write_file(path, write)


def read_npz(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what ``write_npz`` wrote; ValueError if the file is damaged, foreign, or of another kind or schema.

    Memory and time are in proportion to the file: what would unpack to more than 256 MiB and 100 times its size is
    refused unread. OSError if the file cannot be opened.
    """
    place = as_path(path)
    try:
        stream = _npz.open_regular(place)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {str(place)!r}") from None
    try:
        with stream:
            arrays = _npz.read_arrays(stream)
        _npz.expect_names(arrays, ("meta",), ("",))
        meta = _npz.read_meta(arrays.pop("meta"))
        found = (_npz.field(meta, "schema", int), _npz.field(meta, "kind", str))
    except MemoryError:
        raise
    except Exception as error:  # what zipfile and zlib raise for hostile bytes is no closed list
        raise ValueError(f"{str(place)!r} is damaged or not a preluflow file: {_npz.one_line(error)}") from None
    if found != (SCHEMA, kind):
        holds = f"{_npz.short(found[1])} (schema {_npz.short(found[0])})"
        raise ValueError(f"{str(place)!r} holds {holds}, expected {kind!r} (schema {SCHEMA})")
    del meta["schema"], meta["kind"]
    return arrays, meta


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say of which file it is that its contents are not what they must be."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{os.fspath(path)!r} is damaged: {_npz.one_line(error)}") from None


def network_arrays(network: TwoLayerNetwork, prefix: str = "network") -> dict[str, NDArray[Any]]:
    """Return the state of a network under names for ``write_npz``; of its parts those it has.

    A plain network has the names it had before there were parts.
    """
    arrays: dict[str, Any] = {
        "U": network.directions,
        "log_norm": network.log_norm,
        "sign": network.sign,
        "log_abs_v": network.log_abs_v,
        "activation": np.array(network.activation),
        "p": np.array(network.p),
        "offsets": network.offsets,
        "output_bias": network.output_bias,
        "center": network.center,
        "normalize_input": np.array(True) if network.normalize_input else None,
        "classes": None if network.plain else network.classes,
    }
    return {f"{prefix}.{name}": array for name, array in arrays.items() if array is not None}


def network_from_arrays(arrays: Arrays, prefix: str = "network") -> TwoLayerNetwork:
    """Undo ``network_arrays``; ValueError if they are not those of a network."""
    parts = {name: arrays[f"{prefix}.{name}"] for name in NETWORK}
    width = len(_npz.expect(parts["U"], f"{prefix}.U", "f", ("h", "D")))
    outer = (width, "C") if np.ndim(parts["sign"]) == 2 else (width,)
    U, log_norm, sign, log_abs_v = (
        _npz.expect(parts[name], f"{prefix}.{name}", "f", shape)
        for name, shape in (("U", (width, "D")), ("log_norm", (width,)), ("sign", outer), ("log_abs_v", outer))
    )
    name = f"{prefix}.activation"
    activation = _arrays.choice(str(_npz.expect(parts["activation"], name, "U", ())), name, ACTIVATIONS)
    p = float(_npz.expect(parts["p"], f"{prefix}.p", "f", ()))
    with np.errstate(all="ignore"):  # lengths of rows that are none; they are refused
        return TwoLayerNetwork.from_polar(
            U, log_norm, sign, log_abs_v, activation, p, **_parts_from(arrays, prefix, outputs=sign.shape[1:])
        )


def _parts_from(arrays: Arrays, prefix: str, outputs: tuple[int, ...]) -> dict[str, Any]:
    """Return the optional parts of a network that are there, by name."""
    count = outputs[0] if outputs else 1
    kinds: dict[str, tuple[str, tuple[int | str, ...]]] = {
        "offsets": ("f", ("h",)),
        "output_bias": ("f", (count,)),
        "center": ("f", ("D",)),
        "normalize_input": ("b", ()),
        "classes": ("i", (max(count, 2),)),
    }
    found = {
        name: _npz.expect(arrays[f"{prefix}.{name}"], f"{prefix}.{name}", *kinds[name])
        for name in PARTS
        if f"{prefix}.{name}" in arrays
    }
    if "normalize_input" in found:
        found["normalize_input"] = found["normalize_input"][()]
    return found


def save_network(path: str | os.PathLike[str], network: TwoLayerNetwork) -> None:
    """Save a network to an npz file; see ``TwoLayerNetwork.save``."""
    write_npz(path, "network", network_arrays(network), {"environment": environment()})


def load_network(path: str | os.PathLike[str]) -> TwoLayerNetwork:
    """Load what ``save_network`` wrote."""
    arrays, _ = read_npz(path, "network")
    with naming(path):
        optional = [f"network.{name}" for name in PARTS if f"network.{name}" in arrays]
        _npz.expect_names(arrays, tuple([*(f"network.{name}" for name in NETWORK), *optional]))
        return network_from_arrays(arrays)


_STACKED = ("U", "log_norm", "sign", "log_abs_v")
_NETWORKS = tuple(f"networks.{name}" for name in _STACKED)
_MOVING = ("offsets", "output_bias")  # parts that training changes; the others are those of the run's network


def _stacked(networks: Sequence[TwoLayerNetwork]) -> dict[str, NDArray[Any]]:
    """Return the states of networks of one kind under names for ``write_npz``; nothing for none."""
    if not networks:
        return {}
    parts = ("directions", "log_norm", "sign", "log_abs_v")
    found = {
        name: np.stack([getattr(network, part) for network in networks])
        for name, part in zip(_NETWORKS, parts, strict=True)
    }
    for part, size in zip(_MOVING, (networks[0].width, networks[0].num_outputs), strict=True):
        values = [getattr(network, part) for network in networks]
        if any(value is not None for value in values):
            found[f"networks.{part}"] = np.stack([np.zeros(size) if value is None else value for value in values])
    return found


def _unstacked(arrays: Arrays, like: TwoLayerNetwork) -> tuple[TwoLayerNetwork, ...]:
    """Undo ``_stacked``; ValueError if they are not those of networks like this one."""
    if _NETWORKS[0] not in arrays:
        return ()
    U = _npz.expect(arrays[_NETWORKS[0]], _NETWORKS[0], "f", ("S", *like.directions.shape))
    if U.dtype != like.dtype:
        raise ValueError(f"{_NETWORKS[0]} must be {like.dtype} as the network, got {U.dtype}")
    shapes = (like.log_norm.shape, like.sign.shape, like.sign.shape)
    logs = [
        _npz.expect(arrays[name], name, "f", (len(U), *shape))
        for name, shape in zip(_NETWORKS[1:], shapes, strict=True)
    ]
    moving = []
    for part, size in zip(_MOVING, (like.width, like.num_outputs), strict=True):
        name = f"networks.{part}"
        given = arrays.get(name, np.zeros((len(U), size)))  # zeros take a part away
        moving.append(_npz.expect(given, name, "f", (len(U), size)))
    with np.errstate(all="ignore"):  # lengths of rows that are none; they are refused
        return tuple(
            like.replace(*parts, offsets=offsets, output_bias=bias)
            for *parts, offsets, bias in zip(U, *logs, *moving, strict=True)
        )


@dataclass
class Run:
    """A training run: what was observed along it and the network at its end.

    Attributes
    ----------
    method : str
        "gradient_flow", "gradient_descent", "sgd" or "adam".
    status : str
        "finished", "event" (one that ends the run), "stopped" (an observer raised ``StopIteration``), "interrupted"
        (Ctrl-C), "not_finite" (loss or gradient) or "observer_failed"; of the flow also "step_too_small" or
        "max_steps".
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
        Method, step, loss and the like, in plain numbers and words. What was not asked for is not there: ``train``,
        ``weight_decay``, and ``sample_weight``, which is a digest of the weights of points as they were used.
    stats : dict
        Where time went: ``seconds`` in all, ``seconds_kernel``, ``seconds_observing``, ``seconds_drawing`` (progress);
        the time ``t`` of ``network``; and work done: ``iterations``, ``gradients`` (descent), ``epochs`` (SGD, Adam),
        for the flow see ``gradient_flow``.
    environment : dict
        Versions and instruction set that produced the numbers.
    events : dict of ndarray
        Times at which each event happened, empty if it did not.
    networks : tuple of TwoLayerNetwork
        Those of the stops, if ``Observe(networks=True)`` asked for them.
    dense : Dense, optional
        What ``at`` looks up, of a flow run with ``dense=True``.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> run = pf.gradient_flow(net, data.X, data.y, t1=30, observe=pf.Observe(every=15.0))
    >>> run.method, list(run), len(run.t), run.network.width
    ('gradient_flow', ['loss', 'accuracy'], 3, 20)
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
    networks: tuple[TwoLayerNetwork, ...] = ()
    dense: Dense | None = None

    def at(self, t: float) -> TwoLayerNetwork:
        """Return the network at time ``t`` of a flow kept with ``gradient_flow(..., dense=True)``.

        It is the steps' dense output, rounded in the network's dtype, which is of the order of ``run.config["rtol"]``
        between steps as at their ends.

        Parameters
        ----------
        t : float
            From the run's beginning to ``run.stats["t"]``, where it is ``run.network`` itself.

        Raises
        ------
        ValueError
            If the run keeps nothing between its stops, or does not reach t.
        """
        if self.dense is None:
            raise ValueError(f"this {self.method} run keeps nothing between its stops: gradient_flow(dense=True) does")
        end = float(self.stats["t"])
        t = _arrays.real(t, "t", minimum=self.dense.steps[0].begin if self.dense.steps else end, maximum=end)
        return self.network if t == end else self.dense.network(t, self.network, end)

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

    def to_xarray(self) -> xarray.Dataset:
        """Return what was recorded as an ``xarray.Dataset`` over the stops; ``to_netcdf`` of it writes a file.

        Dimension ``stop`` has the coordinates ``t``, ``iteration`` and, of SGD, ``epoch``; records are variables, over
        ``neuron``, ``cluster`` or ``quartile`` where they are of the package's own observers, and times of events are
        variables ``event_...``. Long names and units go with them; method, status, message and, as JSON, config, stats
        and environment are attributes. The network is not in it.

        Raises
        ------
        ImportError
            If xarray is not installed.
        """
        return _exports.run_dataset(self)

    def _repr_html_(self) -> str:
        """Show status, stops and the loss, or the first number there is, along the run."""
        single = [name for name, values in self.records.items() if values.ndim == 1 and name != "epoch"]
        name = "loss" if "loss" in single else single[0] if single else ""
        rows = {
            "status": f"{self.status}: {self.message}",
            "stops": f"{len(self.t)}, t from {self.t[0]:.6g} to {self.t[-1]:.6g}" if len(self.t) else "0",
            "iterations": self.iterations[-1] if len(self.iterations) else 0,
            "records": ", ".join(self.records),
            "network": repr(self.network),
            **({name: f"{self.records[name][0]:.6g} to {self.records[name][-1]:.6g}"} if name and len(self.t) else {}),
        }
        picture = _html.line([(self.t, self.records[name])]) if name else ""
        return _html.table(f"Run of {self.method}", rows, picture, f"{name} against t")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything numerical under flat names, for npz files."""
        return {
            "iterations": self.iterations,
            "t": self.t,
            **{f"record.{name}": values for name, values in self.records.items()},
            **{f"event.{name}": times for name, times in self.events.items()},
            **network_arrays(self.network),
            **_stacked(self.networks),
            **({} if self.dense is None else self.dense.arrays(self.network)),
        }

    def meta(self) -> dict[str, Any]:
        """Return everything else, for the npz file's JSON."""
        names = ("method", "status", "message", "config", "stats", "environment")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_arrays(cls, arrays: Arrays, meta: Mapping[str, Any]) -> Run:
        """Undo ``arrays`` and ``meta``; ValueError if they are not those of a run."""
        names = ["iterations", "t", *(f"network.{name}" for name in NETWORK)]
        names += [name for kind in (_NETWORKS, _dense.NAMES) if any(name in arrays for name in kind) for name in kind]
        optional = [f"network.{part}" for part in PARTS]
        if _NETWORKS[0] in arrays:
            optional += [f"networks.{part}" for part in _MOVING]
        if "dense.t" in arrays:
            optional.append(_dense.BIAS)
        names += [name for name in optional if name in arrays]
        _npz.expect_names(arrays, tuple(names), ("record.", "event."))
        words = {name: _npz.field(meta, name, str) for name in ("method", "status", "message")}
        facts = {name: _npz.field(meta, name, dict) for name in ("config", "stats", "environment")}
        if "t" in facts["stats"]:
            _npz.real_field(facts["stats"], "t", finite=True)
        if "next_step" in facts["stats"]:
            _npz.real_field(facts["stats"], "next_step")
        records, events = (
            {name[len(kind) :]: array for name, array in arrays.items() if name.startswith(kind)}
            for kind in ("record.", "event.")
        )
        network = network_from_arrays(arrays)
        dense = Dense.from_arrays(arrays, network) if "dense.t" in arrays else None
        run = cls(
            iterations=arrays["iterations"],
            t=arrays["t"],
            records=records,
            events=events,
            network=network,
            networks=_unstacked(arrays, network),
            dense=dense,
            **words,
            **facts,
        )
        run.check()
        return run

    def check(self) -> None:
        """Raise ValueError if stops, records, events and networks do not belong together, or are no numbers."""
        iterations = _npz.expect(self.iterations, "iterations", "iu", ("S",))
        count = len(iterations)
        t = _npz.expect(self.t, "t", "f", (count,))
        if not np.isfinite(t).all():
            raise ValueError("t must be finite")
        for name, values in (("iterations", iterations), ("t", t)):
            if np.any(values[1:] < values[:-1]):
                raise ValueError(f"{name} must not decrease")
        if count and iterations[0] < 0:
            raise ValueError(f"iterations must not be negative, got {iterations[0]}")
        for name, values in self.records.items():
            _npz.expect(values, f"record {name!r}", _npz.REAL, (count, "..."))
        for name, times in self.events.items():
            if not np.isfinite(_npz.expect(times, f"event {name!r}", "f", ("k",))).all():
                raise ValueError(f"the times of event {name!r} must be finite")
        if self.networks and len(self.networks) != count:
            raise ValueError(f"networks must be one for each of the {count} stops, got {len(self.networks)}")
        if self.dense is not None and self.dense.steps:
            end = _npz.real_field(self.stats, "t", finite=True)
            if not self.dense.steps[0].begin <= end <= self.dense.steps[-1].end:
                raise ValueError(f"dense.t must reach the run's end t = {end:g}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to an npz file (no pickle), atomically.

        A path that is a symbolic link is written through; anything but a regular file is refused.

        Raises
        ------
        ValueError
            If the arrays do not belong together, so that the file could not be loaded again.
        OSError
            If the file cannot be written; one that was there stays.
        """
        self.check()
        write_npz(path, "run", self.arrays(), self.meta())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Load what ``save`` wrote; ValueError if the file is damaged, hostile or something else."""
        arrays, meta = read_npz(path, "run")
        with naming(path):
            return cls.from_arrays(arrays, meta)
