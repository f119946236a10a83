"""The command line: ``preluflow reproduce fig5``, ``preluflow list``, ``preluflow info``."""

from __future__ import annotations

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
