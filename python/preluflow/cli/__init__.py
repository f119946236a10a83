"""The command line: ``preluflow reproduce fig5``, ``preluflow list``, ``preluflow sweep``, ``preluflow info``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from preluflow._version import __version__
from preluflow.cli._environment import environment
from preluflow.cli._subcommands import FiguresGroup, registry

INTERRUPTED = 130  # 128 + SIGINT, as shells expect


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="preluflow")
def cli() -> None:
    """Gradient flow on normalised polynomial-ReLU networks: the papers' figures, one command each."""


@cli.command("list")
def list_() -> None:
    """List what can be reproduced."""
    width = max(map(len, registry()))
    for name, experiment in registry().items():
        click.echo(f"{name.ljust(width)}  {experiment.summary}")


@cli.command()
def info() -> None:
    """Say what this installation is: version, instruction set, threads, compiler."""
    for name, value in environment().items():
        click.echo(f"{name.ljust(16)} {value}")


@cli.group(
    "reproduce",
    cls=FiguresGroup,
    no_args_is_help=False,
    subcommand_metavar="NAMES... [OPTIONS]",
    options_metavar="",
    # Options before the first name are the subcommand's, too.
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def reproduce() -> None:
    """Run NAMES, draw their figures, print their tables, save their numbers.

    ``preluflow reproduce fig5 --help`` says what options a figure has, how large it is and how long it takes.
    """


@cli.command("sweep", no_args_is_help=True)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)
@click.option("--over", multiple=True, metavar="NAME=VALUES", help="A dimension: alpha=0.1,0.3. As often as there are.")
@click.option("--seeds", type=click.IntRange(1, 1_000_000), help="A dimension seed of so many: 0, 1, ...")
@click.option("--folder", default="runs", show_default=True, type=click.Path(path_type=Path), help="Keeps the cells.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the dataset to this netCDF file.")
@click.option("--function", help="Of FILE. Default: measure, or the only one there is.")
@click.option("--scheduler", metavar="ADDRESS", help="Compute on the Dask cluster of tcp://host:port.")
@click.option("--workers", type=click.IntRange(1), help="Processes on this machine. Default: its processors.")
@click.option("--threads", type=click.IntRange(1), help="Of a cell. Default: processors shared out among workers.")
@click.option("--retry", is_flag=True, help="Run again what has failed.")
@click.option(
    "--status", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Say how far a folder's sweeps are."
)
def sweep(**given: Any) -> None:
    """Measure a Python FILE's function at every point of a grid; what FOLDER keeps is not computed again.

    \b
    preluflow sweep my_measure.py --over alpha=0.1,0.3 --over p=1,2,3 --seeds 5
    preluflow sweep --status runs/
    """
    from preluflow.cli._sweep import run

    run(**given)


def main() -> None:
    """Entry point."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        raise SystemExit(INTERRUPTED) from None
