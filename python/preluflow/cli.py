"""The command line: ``preluflow reproduce fig5``, ``preluflow list``, ``preluflow info``."""

from __future__ import annotations

import contextlib
import copy
import difflib
import io
import json
import os
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preluflow._version import __version__

if TYPE_CHECKING:
    from preluflow.experiments import Experiment, Options, Outcome, Row
    from preluflow.experiments._report import Section

INTERRUPTED = 130
REPORT = "report.html"

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
    for name, value in _environment().items():
        click.echo(f"{name.ljust(16)} {value}")


def _environment() -> dict[str, str]:
    from preluflow import _dispatch, _threads

    build = _dispatch.core.build_info()
    return {
        "preluflow": __version__,
        "python": sys.version.split()[0],
        "instruction set": f"{_dispatch.isa} (available: {', '.join(_dispatch.available())}; "
        f"built: {', '.join(_dispatch.built())})",
        "threads": str(_threads.default()),
        "processors": str(_threads.processors()),
        "Eigen": f"{build['eigen']} ({build['eigen_simd']})",
        "compiler": build["compiler"],
    }


# ---- reproduce: a subcommand a figure

_RUN_OPTIONS: tuple[click.Option, ...] = (
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
    click.Option(["--scale", "full"], is_flag=True, help="The paper's size instead of one for a laptop."),
)
_COMMON_OPTIONS: tuple[click.Option, ...] = (
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
_FRESH_ONLY = ("seed", "quick", "threads", "force")  # these, and what a figure has of its own, are for runs


class _Reproduce(click.Group):
    """A subcommand a figure. A line may name several, and put options before, between and after the names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            _refuse_unknown((), {})
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        from preluflow.experiments import REGISTRY

        return [*REGISTRY, "all"]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return _command((name,)) if name in self.list_commands(ctx) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the figures on a line, refuse options that one of them does not use, and pass all of it on."""
        try:
            every = click.Command("reproduce", params=[_names_argument(), *_COMMON_OPTIONS, *_RUN_OPTIONS])
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
    from preluflow.experiments import REGISTRY

    return [name for name in REGISTRY if name.startswith(incomplete)]


def _expanded(names: Sequence[str]) -> list[str]:
    """Every figure once, and "all" as what it stands for."""
    from preluflow.experiments import REGISTRY

    return list(dict.fromkeys(each for name in names for each in (REGISTRY if name == "all" else (name,))))


def _refuse_unknown(names: Sequence[str], given: Mapping[str, Any]) -> None:
    """Refuse names that there are not, and options that one of the figures does not use."""
    from preluflow.experiments import REGISTRY

    if not names:
        raise click.UsageError("Missing argument 'NAMES...'; `preluflow list` says what there is")
    for name in names:
        if name not in REGISTRY and name != "all":
            close = difflib.get_close_matches(name.lower().replace("_", "-"), [*REGISTRY, "all"])
            told = f". Did you mean {' or '.join(close)}?" if close else ""
            raise click.UsageError(f"there is no {name!r}; `preluflow list` says what there is{told}")
    for name in _expanded(names):
        used = REGISTRY[name].options
        for option in _RUN_OPTIONS:
            if given.get(str(option.name)) and option.name not in used:
                has = " and ".join(each.opts[0] for each in _RUN_OPTIONS if each.name in used)
                told = f"its own are {has}" if has else "it has none of its own"
                raise click.UsageError(f"{name} does not use {option.opts[0]}; {told}")


def _command(names: Sequence[str]) -> click.Command:
    """Return the subcommand for some figures: the options that all of them use, explained for the first."""
    from preluflow.experiments import REGISTRY

    experiments = [REGISTRY[name] for name in _expanded(names)]
    own = [_explained(option, experiments) for option in _RUN_OPTIONS]
    params = [_names_argument(), *(option for option in own if option is not None), *_COMMON_OPTIONS]
    text = "\n\n".join(_about(experiment) for experiment in experiments) if len(names) == 1 else ""
    if names[0] == "all":
        text = "Everything that can be reproduced, one after the other."
    summary = text if names[0] == "all" else experiments[0].summary
    return click.Command(names[0], params=params, callback=_reproduce, help=text, short_help=summary)


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
        if not option.is_flag and option.name != "dynamics"
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


@cli.group(
    "reproduce",
    cls=_Reproduce,
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


def _reproduce(names: Sequence[str], out: Path, source: Path | None, **given: Any) -> None:
    """Run or redraw, one figure after the other."""
    from preluflow.experiments import REGISTRY

    names, format_, profile = _expanded(names), given["format_"], given["profile"]
    if source is not None:
        _check_source(names, source)
    options = _options(given)
    for name in names if source is None else ():
        try:
            REGISTRY[name].configure(options)
        except ValueError as error:
            raise click.UsageError(f"{name}: --{error}") from None
    _check_out(names, out, format_, source, given["report"])
    if source is None and not given["force"]:
        for name in names:
            _check_same(out / f"{name}.npz", name, options)

    began = time.perf_counter()
    sections: list[Section] = []
    for name in names:
        started = time.perf_counter()
        path = None if source is None else _source_of(source, name)
        outcome = REGISTRY[name].run(options) if path is None else _load(path, name)
        seconds = time.perf_counter() - started
        if path is None and outcome.interrupted and not given["force"] and _is_whole(out / f"{name}.npz"):
            click.echo(f"{name}: interrupted; {click.format_filename(out / name)}.npz, which is whole, is kept")
            raise SystemExit(INTERRUPTED)
        section = _finish(outcome, out, format_, source=path, seconds=seconds, profile=profile)
        if given["report"] and section is not None:  # written after each, so that no later failure costs it
            _write_report([*sections, section], out)
        sections += [] if section is None else [section]
        if source is None and outcome.interrupted:
            raise SystemExit(INTERRUPTED)
    if len(names) > 1:
        click.echo(f"all: {time.perf_counter() - began:.1f} s")


def _write_report(sections: Sequence[Section], out: Path) -> None:
    from preluflow._files import write_file
    from preluflow.experiments._report import page

    context = click.get_current_context()
    given = [
        f"{param.opts[0]} {value}" if value is not True else param.opts[0]
        for param in context.command.params
        if isinstance(param, click.Option)
        and context.get_parameter_source(str(param.name)) == click.core.ParameterSource.COMMANDLINE
        for value in (context.params[str(param.name)],)
    ]
    command = " ".join(["preluflow reproduce", *context.params["names"], *given])
    environment = {**_environment(), "written": time.strftime("%Y-%m-%d %H:%M:%S %z")}
    text = _printable_text(page(sections, environment, command))
    with _writing():
        write_file(out / REPORT, lambda stream: stream.write(text), within=out)
    if len(sections) == 1:
        click.echo(f"{click.format_filename(out / REPORT)} written after each figure")


def _printable_text(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _options(given: Mapping[str, Any]) -> Options:
    from preluflow.experiments import Options

    if given.get("full") and given["quick"]:
        raise click.UsageError("--quick and --scale are two sizes; give one of them")
    own = {str(option.name): given[str(option.name)] for option in _RUN_OPTIONS if option.name in given}
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
    for option in (*_RUN_OPTIONS, *_COMMON_OPTIONS):
        name = str(option.name)
        fresh = name in _FRESH_ONLY or option in _RUN_OPTIONS
        if fresh and context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--from redraws what was run; {option.opts[0]} is for runs")


def _check_same(path: Path, name: str, options: Options) -> None:
    """Refuse, before any work, to overwrite numbers that were not had by this very configuration."""
    from preluflow.experiments import REGISTRY, Outcome

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
    from preluflow.experiments import Outcome

    try:
        return not Outcome.load(path).interrupted
    except (OSError, ValueError):
        return False


def _source_of(source: Path, name: str) -> Path:
    return source / f"{name}.npz" if source.is_dir() else source


def _check_out(names: Sequence[str], out: Path, format_: str, source: Path | None, report: bool) -> None:
    """Refuse, before any work, whatever would keep a file of any of the names from being written."""
    from preluflow._files import check_writable
    from preluflow.experiments import REGISTRY

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
    from preluflow._files import describe

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
    from preluflow._files import check_writable, write_file
    from preluflow.experiments import REGISTRY
    from preluflow.experiments._report import Section

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
    from preluflow.experiments import REGISTRY
    from preluflow.experiments._harness import format_table

    experiment, stream, shown = REGISTRY[outcome.name], io.BytesIO(), io.BytesIO()
    figure = experiment.draw(outcome)
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
