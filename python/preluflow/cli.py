"""The command line: ``preluflow reproduce fig5``, ``preluflow list``, ``preluflow info``."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preluflow._version import __version__

if TYPE_CHECKING:
    from preluflow.experiments import Outcome

INTERRUPTED = 130

_LARGEST_SEED = 2**63 - 1  # points and seeds of an experiment are counted on from it in 64 bits
_LARGEST_WIDTH = 100_000  # gigabytes, in the papers' dimensions
_LARGEST_THREADS = 2**31 - 1
_LARGEST_EPOCHS = 10**9


class _RealRange(click.FloatRange):
    """A range that NaN, which is neither below nor above anything, lies outside of."""

    min: float
    max: float

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        result = super().convert(value, param, ctx)
        if result != result:
            self.fail(f"{value} is not in the range {self.min:g}<=x<={self.max:g}.", param, ctx)
        return result


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="preluflow")
def cli() -> None:
    """Gradient flow on normalised polynomial-ReLU networks: the papers' figures, one command each."""


@cli.command("list")
def list_() -> None:
    """List what can be reproduced."""
    from preluflow.experiments import REGISTRY

    width = max(map(len, REGISTRY))
    for name, experiment in REGISTRY.items():
        click.echo(f"{name.ljust(width)}  {experiment.summary}")


@cli.command()
def info() -> None:
    """Say what this installation is: version, instruction set, threads, compiler."""
    from preluflow import _dispatch, _threads

    build = _dispatch.core.build_info()
    lines = {
        "preluflow": __version__,
        "python": sys.version.split()[0],
        "instruction set": f"{_dispatch.isa} (available: {', '.join(_dispatch.available())}; "
        f"built: {', '.join(_dispatch.built())})",
        "threads": str(_threads.default()),
        "processors": str(_threads.processors()),
        "Eigen": f"{build['eigen']} ({build['eigen_simd']})",
        "compiler": build["compiler"],
    }
    for name, value in lines.items():
        click.echo(f"{name.ljust(16)} {value}")


@cli.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--out", default=".", type=click.Path(path_type=Path), help="Folder to write to. Default: this one.")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, exists=True),
    help="Redraw from an npz, or from a folder of them, without running.",
)
@click.option("--quick", is_flag=True, help="The same picture at a size that runs in seconds.")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0, _LARGEST_SEED), help="Seeds everything random."
)
@click.option("--width", type=click.IntRange(1, _LARGEST_WIDTH), help="Number of neurons. Default: the figure's own.")
@click.option(
    "--dynamics",
    default="descent",
    show_default=True,
    type=click.Choice(["descent", "flow"]),
    help="fig5 and fig6: draw the gradient flow too, on one time axis.",
)
@click.option("--alpha", type=_RealRange(1e-6, 100.0), help="fig2, fig7, pgd-gap, mv24: noise. Printed.")
@click.option("--batch", type=click.IntRange(1), help="fig2, fig7, mv24: points of a step of SGD. Printed.")
@click.option("--loss", type=click.Choice(["squared", "exponential", "logistic"]), help="fig2, fig7, mv24. Printed.")
@click.option("--epochs", type=click.IntRange(1, _LARGEST_EPOCHS), help="fig2, fig7, mv24: at most so many. Printed.")
@click.option("--scale", "full", is_flag=True, help="mv24: the paper's size instead of one for a laptop.")
@click.option("--threads", type=click.IntRange(1, _LARGEST_THREADS), help="Default: all cores.")
@click.option("--format", "format_", default="png", show_default=True, type=click.Choice(["png", "pdf"]))
@click.option("--profile", is_flag=True, help="Print where the time went.")
def reproduce(
    names: tuple[str, ...],
    out: Path,
    source: Path | None,
    quick: bool,
    seed: int,
    width: int | None,
    dynamics: str,
    alpha: float | None,
    batch: int | None,
    loss: str | None,
    epochs: int | None,
    full: bool,
    threads: int | None,
    format_: str,
    profile: bool,
) -> None:
    """Run NAMES (see ``preluflow list``), draw their figures, print their tables, save their numbers."""
    from preluflow.experiments import REGISTRY, Options

    unknown = [name for name in names if name not in REGISTRY]
    if unknown:
        raise click.UsageError(f"there is no {unknown[0]!r}; `preluflow list` says what there is")
    if source is not None and source.is_file() and len(names) > 1:
        raise click.UsageError("--from must be a folder when several figures are named")
    _check_out(names, out, format_, source)

    began = time.perf_counter()
    options = Options(
        seed=seed,
        quick=quick,
        width=width,
        dynamics=dynamics,
        alpha=alpha,
        batch=batch,
        loss=loss,
        epochs=epochs,
        full=full,
        num_threads=threads,
        progress=sys.stderr.isatty(),
    )
    for name in names if source is None else ():
        try:
            REGISTRY[name].check(options)
        except ValueError as error:
            raise click.UsageError(f"{name}: --{error}") from None
    for name in names:
        started = time.perf_counter()
        path = None if source is None else _source_of(source, name)
        outcome = REGISTRY[name].run(options) if path is None else _load(path, name)
        seconds = time.perf_counter() - started
        _finish(outcome, out, format_, source=path, seconds=seconds, profile=profile)
        if source is None and outcome.interrupted:
            raise SystemExit(INTERRUPTED)
    if len(names) > 1:
        click.echo(f"all: {time.perf_counter() - began:.1f} s")


def _source_of(source: Path, name: str) -> Path:
    return source / f"{name}.npz" if source.is_dir() else source


def _check_out(names: tuple[str, ...], out: Path, format_: str, source: Path | None) -> None:
    """Refuse, before any work, whatever would keep a file of any of the names from being written."""
    from preluflow._files import check_writable
    from preluflow.experiments import REGISTRY

    with _writing():
        out.mkdir(parents=True, exist_ok=True)
        for name in names:
            pictures = [check_writable(out / file, within=out) for file in (f"{name}.{format_}", *REGISTRY[name].files)]
            if source is None:
                check_writable(out / f"{name}.npz", within=out)
            elif Path(os.path.realpath(_source_of(source, name))) in pictures:
                raise FileExistsError(f"{_source_of(source, name)} is what --from reads")


def _finish(outcome: Outcome, out: Path, format_: str, *, source: Path | None, seconds: float, profile: bool) -> None:
    """Save, draw and tabulate an outcome; what Ctrl-C left is treated like the rest."""
    from preluflow._files import check_writable, write_file
    from preluflow.experiments import REGISTRY

    experiment = REGISTRY[outcome.name]
    picture, numbers = out / f"{outcome.name}.{format_}", out / f"{outcome.name}.npz"
    if source is None:
        with _writing():
            outcome.save(check_writable(numbers, within=out))
    if not outcome.drawable and (source is None or outcome.interrupted):
        click.echo(f"{outcome.name}: interrupted before there was anything to draw")
        return
    began = time.perf_counter()
    with _reading(source):
        drawn, lines = _draw(outcome, format_, profile)
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


def _draw(outcome: Outcome, format_: str, profile: bool) -> tuple[bytes, list[str]]:
    """The picture, and as text the table and, if asked for, where the time of each run went."""
    from preluflow.experiments import REGISTRY
    from preluflow.experiments._experiment import format_table

    experiment, stream = REGISTRY[outcome.name], io.BytesIO()
    experiment.draw(outcome).savefig(stream, format=format_)
    lines = [format_table(experiment.table(outcome))]
    for key, run in outcome.runs.items() if profile else ():
        parts = ", ".join(f"{name} {run.stats[f'seconds_{name}']:.2f} s" for name in ("kernel", "observing"))
        lines.append(f"  {key}: {parts}, {run.stats['iterations']} iterations")
    return stream.getvalue(), lines


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
    from preluflow._npz import one_line

    return one_line(error).encode("utf-8", "backslashreplace").decode()


def _load(path: Path, name: str) -> Outcome:
    from preluflow._npz import short
    from preluflow.experiments import REGISTRY, Outcome

    try:
        outcome = Outcome.load(path)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"--from: {_printable(error)}") from None
    if outcome.name != name:
        held = outcome.name if outcome.name in REGISTRY else short(outcome.name)
        raise click.ClickException(f"--from: {click.format_filename(path)!r} holds {held}, not {name}")
    return outcome


def main() -> None:
    """Entry point. Ctrl-C ends with exit code 130 (128 + SIGINT), as shells expect."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        raise SystemExit(INTERRUPTED) from None
