"""What ``reproduce`` does: runs or redraws, refuses what would be lost, and writes numbers, pictures and the page."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from preluflow._files import check_writable, describe, write_file
from preluflow._npz import one_line, short
from preluflow._sweep.cluster import ClusterError
from preluflow.cli import INTERRUPTED
from preluflow.cli._environment import environment
from preluflow.cli._subcommands import COMMON_OPTIONS, FRESH_ONLY, RUN_OPTIONS, expanded
from preluflow.experiments import REGISTRY, Options, Outcome, Row
from preluflow.experiments._cells import Store
from preluflow.experiments._harness import format_table
from preluflow.experiments._report import Section, page

REPORT = "report.html"


def reproduce(names: Sequence[str], out: Path, source: Path | None, **given: Any) -> None:
    """Run or redraw, one figure after the other."""
    asked, names, format_, profile = names, expanded(names), given["format_"], given["profile"]
    if source is not None:
        _check_source(names, source)
    options = _options(given)
    if source is None:
        names = _runnable(names, options, every="all" in asked)
    _check_out(names, out, format_, source, given["report"])
    if source is None and not given["force"]:
        for name in names:
            _check_same(out / f"{name}.npz", name, options)

    began = time.perf_counter()
    sections: list[Section] = []
    for name in names:
        started = time.perf_counter()
        path = None if source is None else _source_of(source, name)
        store = Store(out / f"{name}-cells", out) if REGISTRY[name].keeps_cells(options) else None
        outcome = _run(name, options, store) if path is None else _load(path, name)
        seconds = time.perf_counter() - started
        if path is None and outcome.interrupted and not given["force"] and _is_whole(out / f"{name}.npz"):
            click.echo(f"{name}: interrupted; {click.format_filename(out / name)}.npz, which is whole, is kept")
            raise SystemExit(INTERRUPTED)
        section = _finish(outcome, out, format_, source=path, seconds=seconds, profile=profile)
        if given["report"] and section is not None:  # written after each, so that no later failure costs it
            _write_report([*sections, section], out)
        sections += [] if section is None else [section]
        if source is None and outcome.interrupted:
            if store is not None:
                click.echo(
                    f"{name}: cells that were done are in {click.format_filename(store.folder)}; run it again to go on"
                )
            raise SystemExit(INTERRUPTED)
    if len(names) > 1:
        click.echo(f"all: {time.perf_counter() - began:.1f} s")


def _run(name: str, options: Options, store: Store | None) -> Outcome:
    try:
        return REGISTRY[name].run(options, store=store)
    except ClusterError as error:
        raise click.ClickException(f"--scheduler: {_printable(error)}") from None


def _write_report(sections: Sequence[Section], out: Path) -> None:
    context = click.get_current_context()
    given = [
        f"{param.opts[0]} {value}" if value is not True else param.opts[0]
        for param in context.command.params
        if isinstance(param, click.Option)
        and context.get_parameter_source(str(param.name)) == click.core.ParameterSource.COMMANDLINE
        for value in (context.params[str(param.name)],)
    ]
    command = " ".join(["preluflow reproduce", *context.params["names"], *given])
    told = {**environment(), "written": time.strftime("%Y-%m-%d %H:%M:%S %z")}
    text = _printable_text(page(sections, told, command))
    with _writing():
        write_file(out / REPORT, lambda stream: stream.write(text), within=out)
    if len(sections) == 1:
        click.echo(f"{click.format_filename(out / REPORT)} written after each figure")


def _printable_text(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _runnable(names: Sequence[str], options: Options, every: bool) -> list[str]:
    """Refuse options that do not fit, and figures that need what is not installed: of all, these are left out."""
    found = []
    for name in names:
        try:
            missing = REGISTRY[name].missing(REGISTRY[name].configure(options))
        except ValueError as error:
            raise click.UsageError(f"{name}: --{error}") from None
        if missing is not None and not every:
            raise click.UsageError(f"{name}: {missing}")
        if missing is not None:
            click.echo(f"{name}: left out, {missing}")
        else:
            found.append(name)
    return found


def _options(given: Mapping[str, Any]) -> Options:
    if given.get("full") and given["quick"]:
        raise click.UsageError("--quick and --scale are two sizes; give one of them")
    own = {str(option.name): given[str(option.name)] for option in RUN_OPTIONS if option.name in given}
    return Options(
        seed=given["seed"],
        quick=given["quick"],
        num_threads=given["threads"],
        progress=sys.stderr.isatty(),
        **own,
    )


def _check_source(names: Sequence[str], source: Path) -> None:
    """Refuse what --from cannot do: one file for several figures, or options of a run."""
    if source.is_file() and len(names) > 1:
        raise click.UsageError("--from must be a folder when several figures are named")
    context = click.get_current_context()
    for option in (*RUN_OPTIONS, *COMMON_OPTIONS):
        name = str(option.name)
        fresh = name in FRESH_ONLY or option in RUN_OPTIONS
        if fresh and context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--from redraws what was run; {option.opts[0]} is for runs")


def _check_same(path: Path, name: str, options: Options) -> None:
    """Refuse, before any work, to overwrite numbers that were not had by this very configuration."""
    if not path.exists():
        return
    advice = "--force overwrites it, --out writes elsewhere"
    shown = click.format_filename(path)
    try:
        held = Outcome.load(path)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{shown!r} is in the way and no result: {_printable(error)}; {advice}") from None
    wanted = {"name": name, **json.loads(json.dumps(REGISTRY[name].describe(options)))}
    found = {"name": held.name, **held.config}
    for key, value in wanted.items():
        if key in found and found[key] != value:
            was, now = (_printable(ValueError(repr(each))) for each in (found[key], value))
            raise click.ClickException(f"{shown!r} holds a result of {key} {was}, not {now}; {advice}")


def _is_whole(path: Path) -> bool:
    """Whether there are results that no Ctrl-C cut short: those of an interrupted run do not replace them."""
    try:
        return not Outcome.load(path).interrupted
    except (OSError, ValueError):
        return False


def _source_of(source: Path, name: str) -> Path:
    return source / f"{name}.npz" if source.is_dir() else source


def _check_out(names: Sequence[str], out: Path, format_: str, source: Path | None, report: bool) -> None:
    """Refuse, before any work, whatever would keep a file of any of the names from being written."""
    with _writing():
        _make_folder(out)
        if report:
            check_writable(out / REPORT, within=out)
        for name in names:
            pictures = [check_writable(out / file, within=out) for file in (f"{name}.{format_}", *REGISTRY[name].files)]
            if source is None:
                check_writable(out / f"{name}.npz", within=out)
            elif Path(os.path.realpath(_source_of(source, name))) in pictures:
                raise FileExistsError(f"{_source_of(source, name)} is what --from reads")


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it; OSError in words if something is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        for place in (folder, *folder.parents):
            if os.path.lexists(place) and not place.is_dir():
                what = describe(os.stat(place, follow_symlinks=False).st_mode) or "a file"
                raise NotADirectoryError(f"{str(place)!r} is {what}, not a folder") from None
        raise type(error)(f"the folder {str(folder)!r} cannot be made: {error.strerror}") from None


def _finish(
    outcome: Outcome, out: Path, format_: str, *, source: Path | None, seconds: float, profile: bool
) -> Section | None:
    """Save, draw and tabulate an outcome; what Ctrl-C left is treated like the rest."""
    experiment = REGISTRY[outcome.name]
    picture, numbers = out / f"{outcome.name}.{format_}", out / f"{outcome.name}.npz"
    if source is None:
        with _writing():
            outcome.save(check_writable(numbers, within=out))
    if not outcome.drawable and (source is None or outcome.interrupted):
        click.echo(f"{outcome.name}: interrupted before there was anything to draw")
        return None
    began = time.perf_counter()
    with _reading(source):
        drawn, shown, rows, lines = _draw(outcome, format_, profile)
        with _writing():
            further = [] if experiment.more is None else experiment.more(outcome, out)
    with _writing():
        write_file(picture, lambda stream: stream.write(drawn), within=out)
    drawing = time.perf_counter() - began
    written = [picture, *further, *([numbers] if source is None else [])]
    click.echo(f"{outcome.name}: {experiment.summary}")
    click.echo(lines[0])
    named = " and ".join(click.format_filename(path) for path in written)
    click.echo(f"{named} written; {seconds:.1f} s" + ", interrupted" * outcome.interrupted)
    if profile:
        click.echo("\n".join([*lines[1:], f"  drawing {drawing:.2f} s"]))
    pictures = [("image/png", shown), *(("image/gif", path.read_bytes()) for path in further)]
    return Section(outcome, experiment.summary, tuple(pictures), rows, seconds, redrawn=source is not None)


def _draw(outcome: Outcome, format_: str, profile: bool) -> tuple[bytes, bytes, list[Row], list[str]]:
    """The picture, also as PNG, the table, and as text the table and, if asked for, where the time of each run went."""
    experiment, stream, shown = REGISTRY[outcome.name], io.BytesIO(), io.BytesIO()
    figure = experiment.draw(outcome)
    figure.set_layout_engine("none")  # it is laid out, which takes longer than to draw it
    figure.savefig(stream, format=format_)
    if format_ != "png":
        figure.savefig(shown, format="png")
    rows = experiment.table(outcome)
    # A pipe or a file has no width to keep to.
    lines = [format_table(rows, shutil.get_terminal_size((10_000, 24)).columns)]
    for key, run in outcome.runs.items() if profile else ():
        parts = ", ".join(f"{name} {run.stats[f'seconds_{name}']:.2f} s" for name in ("kernel", "observing"))
        lines.append(f"  {key}: {parts}, {run.stats['iterations']} iterations")
    return stream.getvalue(), shown.getvalue() or stream.getvalue(), rows, lines


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Say in a sentence why something cannot be written."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"--out: {_printable(error)}") from None


@contextlib.contextmanager
def _reading(source: Path | None) -> Iterator[None]:
    """Say in a sentence that a file is not what an experiment draws; without a file a failure is a bug, and shown."""
    if source is None:
        yield
        return
    with warnings.catch_warnings(record=True) as noted:
        try:
            yield
        except click.ClickException:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {_printable(error)}"
            raise click.ClickException(
                f"--from: {click.format_filename(source)!r} is damaged or of another version: {what}"
            ) from None
    for note in noted:
        warnings.warn_explicit(note.message, note.category, note.filename, note.lineno)


def _printable(error: Exception) -> str:
    """What an error says, in one line and in characters that every terminal takes."""
    return one_line(error).encode("utf-8", "backslashreplace").decode()


def _load(path: Path, name: str) -> Outcome:
    try:
        outcome = Outcome.load(path)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"--from: {_printable(error)}") from None
    if outcome.name != name:
        held = outcome.name if outcome.name in REGISTRY else short(outcome.name)
        raise click.ClickException(f"--from: {click.format_filename(path)!r} holds {held}, not {name}")
    return outcome
