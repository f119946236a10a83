"""The command line: ``preluflow reproduce fig5``, ``preluflow list``, ``preluflow info``."""

from __future__ import annotations

import sys
import time
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
    from preluflow.results import check_writable

    unknown = [name for name in names if name not in REGISTRY]
    if unknown:
        raise click.UsageError(f"there is no {unknown[0]!r}; `preluflow list` says what there is")
    if source is not None and source.is_file() and len(names) > 1:
        raise click.UsageError("--from must be a folder when several figures are named")
    try:
        out.mkdir(parents=True, exist_ok=True)
        check_writable(out / f"{names[0]}.npz")
    except OSError as error:
        raise click.ClickException(f"--out: {error}") from None

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
        if source is None:
            outcome = REGISTRY[name].run(options)
        else:
            outcome = _load(source if source.is_file() else source / f"{name}.npz", name)
        seconds = time.perf_counter() - started
        _finish(outcome, out, format_, save=source is None, seconds=seconds, profile=profile)
        if source is None and outcome.interrupted:
            raise SystemExit(INTERRUPTED)
    if len(names) > 1:
        click.echo(f"all: {time.perf_counter() - began:.1f} s")


def _finish(outcome: Outcome, out: Path, format_: str, *, save: bool, seconds: float, profile: bool) -> None:
    """Save, draw and tabulate an outcome; what Ctrl-C left is treated like the rest."""
    from preluflow.experiments import REGISTRY
    from preluflow.experiments._experiment import format_table

    experiment = REGISTRY[outcome.name]
    if save:
        outcome.save(out / f"{outcome.name}.npz")
    if not outcome.drawable:
        click.echo(f"{outcome.name}: interrupted before there was anything to draw")
        return
    began = time.perf_counter()
    picture = out / f"{outcome.name}.{format_}"
    experiment.draw(outcome).savefig(picture)
    further = [] if experiment.more is None else experiment.more(outcome, out)
    drawing = time.perf_counter() - began
    click.echo(f"{outcome.name}: {experiment.summary}")
    click.echo(format_table(experiment.table(outcome)))
    written = [str(picture), *map(str, further)] + [str(out / f"{outcome.name}.npz")] * save
    click.echo(f"{' and '.join(written)} written; {seconds:.1f} s" + ", interrupted" * outcome.interrupted)
    if profile:
        for key, run in outcome.runs.items():
            parts = ", ".join(f"{name} {run.stats[f'seconds_{name}']:.2f} s" for name in ("kernel", "observing"))
            click.echo(f"  {key}: {parts}, {run.stats['iterations']} iterations")
        click.echo(f"  drawing {drawing:.2f} s")


def _load(path: Path, name: str) -> Outcome:
    from preluflow.experiments import Outcome

    try:
        outcome = Outcome.load(path)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"--from: {error}") from None
    if outcome.name != name:
        raise click.ClickException(f"--from: {str(path)!r} holds {outcome.name}, not {name}")
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
