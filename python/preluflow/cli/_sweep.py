"""What ``preluflow sweep`` does: finds a function, sweeps it and says what came of it; or how far sweeps are."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from preluflow._files import check_writable, write_file
from preluflow._npz import one_line
from preluflow._sweep.cluster import ClusterError, cluster
from preluflow._sweep.folder import Folder
from preluflow._sweep.status import statuses
from preluflow.cli import INTERRUPTED
from preluflow.sweep import sweep

if TYPE_CHECKING:
    from xarray import Dataset

_MOST_ERRORS = 5  # different ones, of which the commonest are shown


def run(
    file: Path | None,
    over: Sequence[str],
    seeds: int | None,
    folder: Path,
    out: Path | None,
    function: str | None,
    scheduler: str | None,
    workers: int | None,
    threads: int | None,
    retry: bool,
    status: Path | None,
) -> None:
    """Sweep, or say how far sweeps are."""
    if status is not None:
        if file is not None:
            raise click.UsageError("--status takes a folder and no FILE")
        _say_status(status)
        return
    if file is None:
        raise click.UsageError("Missing argument 'FILE'")
    if scheduler is not None and workers is not None:
        raise click.UsageError("--workers are processes on this machine; with --scheduler they are the cluster's")
    grid = _grid(over, seeds)
    with _refusing():
        if out is not None:
            _check_out(out)
        measure = _function(file, function)
        with cluster(scheduler) as executor:
            found = sweep(
                measure,
                grid,
                folder,
                executor,
                progress=sys.stderr.isatty(),
                retry=retry,
                workers=workers,
                num_threads=threads,
            )
        if out is not None:
            _write(found, out)
    _say(found, folder, out)


def _grid(over: Sequence[str], seeds: int | None) -> dict[str, Any]:
    """Dimensions as they stand on the line."""
    found: dict[str, Any] = {}
    for text in over:
        name, equals, values = text.partition("=")
        if not equals or not name or not values:
            raise click.UsageError(f"--over must be NAME=VALUE,VALUE,..., got {text!r}")
        if name in found:
            raise click.UsageError(f"--over names {name!r} twice")
        found[name] = [_value(word) for word in values.split(",")]
    if seeds is not None:
        if "seed" in found:
            raise click.UsageError("--seeds and --over seed=... are two ways to say the same; give one of them")
        found["seed"] = range(seeds)
    if not found:
        raise click.UsageError("--over or --seeds must say what to sweep")
    return found


def _value(word: str) -> Any:
    """An integer, a number, True or False, or the word itself."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(word)
    return {"True": True, "False": False}.get(word, word)


def _function(file: Path, name: str | None) -> Callable[..., Any]:
    """Import a file, as a script would from its folder, and find its function."""
    stem = file.stem
    spec = None if "." in stem else importlib.util.find_spec(stem)
    if "." in stem or (spec is not None and (spec.origin is None or Path(spec.origin).resolve() != file.resolve())):
        raise click.UsageError(f"{click.format_filename(file)!r} must have another name: there is a module {stem!r}")
    sys.path.insert(0, str(file.resolve().parent))
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(stem)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the file does
        what = f"{type(error).__name__}: {one_line(error)}"
        raise click.ClickException(f"{click.format_filename(file)!r} cannot be imported: {what}") from error
    there = [each for each, value in vars(module).items() if _is_own(value, stem) and not each.startswith("_")]
    chosen = name or ("measure" if hasattr(module, "measure") else there[0] if len(there) == 1 else "measure")
    if not callable(getattr(module, chosen, None)):
        told = f"it has {', '.join(there)}; --function says which" if there else "it has none"
        raise click.UsageError(f"{click.format_filename(file)!r} has no function {chosen!r}: {told}")
    found: Callable[..., Any] = getattr(module, chosen)
    return found


def _is_own(value: Any, module: str) -> bool:
    return inspect.isfunction(value) and value.__module__ == module


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Say in a sentence what is refused."""
    try:
        yield
    except ClusterError as error:
        raise click.ClickException(f"--scheduler: {error}") from None
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise click.ClickException(one_line(error)) from None


def _write(found: Dataset, out: Path) -> None:
    """Write a netCDF file, at once or not at all."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "sweep.nc"
        found.to_netcdf(whole)
        write_file(out, lambda stream: stream.write(whole.read_bytes()))


def _check_out(out: Path) -> None:
    """Refuse, before any work, what could not be written at the end."""
    check_writable(out)
    import xarray

    with tempfile.TemporaryDirectory() as folder:
        xarray.Dataset({"word": "a", "number": 2**40}).to_netcdf(Path(folder) / "probe.nc")


# ---- what is said


def _say(found: Dataset, folder: Path, out: Path | None) -> None:
    states, counts = np.unique(found["status"].values, return_counts=True)
    number = dict(zip(states.tolist(), counts.tolist(), strict=True))
    click.echo(str(found.drop_attrs()))
    told = ", ".join(f"{number[state]} {state}" for state in ("done", "failed", "missing") if state in number)
    written = "" if out is None else f"; {click.format_filename(out)} written"
    click.echo(f"{found['status'].size} cells: {told}; kept in {click.format_filename(folder)}{written}")
    if "error" in found:
        errors, times = np.unique(found["error"].values.astype(str), return_counts=True)
        _say_errors({error: int(n) for error, n in zip(errors, times, strict=True) if error})
    ended = found.attrs["ended"]
    if ended == "interrupted":
        raise SystemExit(INTERRUPTED)
    if ended != "finished" or set(number) != {"done"}:
        raise SystemExit(1)


def _say_errors(errors: dict[str, int]) -> None:
    for error in sorted(errors, key=lambda each: (-errors[each], each))[:_MOST_ERRORS]:
        click.echo(f"  {errors[error]} failed: {' '.join(error.split())}")
    if len(errors) > _MOST_ERRORS:
        click.echo(f"  and {len(errors) - _MOST_ERRORS} other errors")


def _say_status(place: Path) -> None:
    try:
        every = list(statuses(Folder(place, make=False)))
    except (ValueError, OSError) as error:
        raise click.ClickException(one_line(error)) from None
    if not every:
        click.echo("no sweep was begun here")
    for each in every:
        over = " x ".join(f"{name} {count}" for name, count in each.over.items())
        click.echo(
            f"{each.of} over {over} (preluflow {each.version}): {each.cells} cells, {each.done} done, "
            f"{each.failed} failed, {each.running} running, {each.missing} missing"
        )
        _say_errors(dict(each.errors))
