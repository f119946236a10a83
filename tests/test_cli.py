import base64
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from html import escape

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import assert_same_runs, assert_whole

from preluflow import __version__, _dispatch, _threads
from preluflow.cli import cli
from preluflow.experiments import REGISTRY, Outcome, Row, fig1, fig5

PNG, PDF = b"\x89PNG\r\n", b"%PDF"


def invoke(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Folder, output and exit code of one quick run."""
    folder = tmp_path_factory.mktemp("quick")
    result = invoke("reproduce", "fig5", "--quick", "--out", folder, "--profile")
    assert result.exit_code == 0, result.output
    return folder, result.output


@pytest.fixture
def nothing_may_run(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("this must not run anything")

    monkeypatch.setattr(fig5, "gradient_descent", refuse)


def test_list_names_what_there_is():
    result = invoke("list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == list(REGISTRY)
    assert {"fig5", "fig6"} <= set(REGISTRY)


def test_info_says_what_this_installation_is():
    result = invoke("info")
    assert result.exit_code == 0
    lines = {line[:16].strip(): line[17:] for line in result.output.splitlines()}
    assert lines["preluflow"] == __version__
    assert lines["instruction set"].split()[0] == _dispatch.isa
    assert all(name in lines["instruction set"] for name in _dispatch.available())
    assert int(lines["threads"]) == _threads.default()
    assert int(lines["processors"]) == _threads.processors()
    build = _dispatch.core.build_info()
    assert lines["Eigen"].startswith(build["eigen"])
    assert lines["compiler"] == build["compiler"]


def test_reproduce_writes_picture_numbers_and_table(quick):
    folder, output = quick
    assert sorted(os.listdir(folder)) == ["fig5.npz", "fig5.png"]
    assert (folder / "fig5.png").read_bytes().startswith(PNG)
    outcome = Outcome.load(folder / "fig5.npz")
    assert (outcome.name, outcome.config["quick"], outcome.config["seed"]) == ("fig5", True, 0)
    header, rule, *rows = output.splitlines()[1:]
    assert [cell.strip() for cell in header.split("|")] == ["quantity", "measured", "paper", "theory"]
    assert set(rule) == {"-", "+"}
    crossing = fig5.crossings(outcome.runs["noisy"])[1]
    assert any(row.startswith("loss crosses 0.5") and f"{crossing:.0f}" in row for row in rows)
    assert f"{folder / 'fig5.png'} and {folder / 'fig5.npz'} written" in output
    assert "gradients" in output or "iterations" in output  # --profile


@pytest.mark.parametrize("as_folder", [False, True])
@pytest.mark.parametrize(("format_", "magic"), [("png", PNG), ("pdf", PDF)])
def test_from_redraws_without_running(quick, tmp_path, nothing_may_run, as_folder, format_, magic):
    folder, output = quick
    source = folder if as_folder else folder / "fig5.npz"
    result = invoke("reproduce", "fig5", "--from", source, "--out", tmp_path / "new" / "place", "--format", format_)
    assert result.exit_code == 0, result.output
    picture = tmp_path / "new" / "place" / f"fig5.{format_}"
    assert os.listdir(picture.parent) == [picture.name]
    assert picture.read_bytes().startswith(magic)
    table = [line for line in output.splitlines() if "|" in line]
    assert [line for line in result.output.splitlines() if "|" in line] == table


def test_seed_and_width_decide_the_numbers_and_threads_do_not(tmp_path, monkeypatch):
    for name in ("fig5", "fig6"):
        small = {"quick": replace(REGISTRY[name].presets["quick"], dim=20, n=100, width=10, steps=30)}
        monkeypatch.setitem(REGISTRY, name, replace(REGISTRY[name], presets=small))
    outcomes = []
    for name, options in (
        ("a", ["--seed", 3, "--threads", 1]),
        ("b", ["--seed", 3, "--threads", 2]),
        ("c", ["--seed", 4]),
        ("d", ["--seed", 3, "--width", 7]),
    ):
        result = invoke("reproduce", "fig5", "fig6", "--quick", "--out", tmp_path / name, *options)
        assert result.exit_code == 0, result.output
        assert "all: " in result.output
        outcomes.append(Outcome.load(tmp_path / name / "fig6.npz"))
    a, b, c, d = outcomes
    for key in ("noisy", "nominal"):
        assert_same_runs(a.runs[key], b.runs[key])
        assert np.abs(a.runs[key].network.W - c.runs[key].network.W).max() > 0
        assert d.runs[key].network.width == 7


# ---- refusals


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fig99"], 2, "there is no 'fig99'; `preluflow list` says what there is"),
        (["fig5", "fig99"], 2, "there is no 'fig99'"),
        ([], 2, "NAMES"),
        (["fig5", "--from", "absent.npz"], 2, "absent.npz"),
        (["fig5", "--width", "0"], 2, "--width"),
        (["fig5", "--seed", "-1"], 2, "--seed"),
        (["fig5", "--threads", "0"], 2, "--threads"),
        (["fig5", "--format", "gif"], 2, "--format"),
        (["fig5", "--seed", str(2**63)], 2, "--seed"),
        (["fig5", "--seed", "1" * 400], 2, "--seed"),
        (["fig5", "--seed", "1e3"], 2, "--seed"),
        (["fig5", "--width", str(10**9)], 2, "--width"),
        (["fig5", "--threads", str(2**31)], 2, "--threads"),
        (["fig5", "--threads", "nan"], 2, "--threads"),
        (["fig2", "--alpha", "nan"], 2, "--alpha"),
        (["fig2", "--alpha", "inf"], 2, "--alpha"),
        (["fig2", "--alpha", "0"], 2, "--alpha"),
        (["fig2", "--alpha", "1e308"], 2, "--alpha"),
        (["fig2", "--batch", str(10**9)], 2, "fig2: --batch must be at most the number of points n = 20000"),
        (["fig7", "--quick", "--batch", "2001"], 2, "fig7: --batch must be at most the number of points n = 2000"),
        (
            ["fig7", "mv24", "--quick", "--batch", "501"],
            2,
            "mv24: --batch must be at most the number of points n = 500",
        ),
        (["fig2", "--batch", "0"], 2, "--batch"),
        (["fig2", "--epochs", str(2**64)], 2, "--epochs"),
        (["fig5", "--out", "file/below"], 1, "--out"),
        (["fig5", "--out", "file"], 1, "--out"),
        (["fig5", "--from", "file"], 1, "--from"),
        (["fig5", "--from", "empty"], 1, "--from"),
        (["fig5", "fig6", "--from", "file"], 2, "--from must be a folder"),
        (
            ["fig5", "--loss", "logistic"],
            2,
            "fig5 does not use --loss; its own are --width and --dynamics and --recipe",
        ),
        (["fig5", "--alpha", "0.3"], 2, "fig5 does not use --alpha"),
        (["fig1", "--width", "7"], 2, "fig1 does not use --width; it has none of its own"),
        (["mv24", "fig5", "--quick", "--alpha", "0.3"], 2, "fig5 does not use --alpha"),
        (["all", "--quick", "--dynamics", "flow"], 2, "fig1 does not use --dynamics"),
        (["mv24", "--quick", "--scale"], 2, "--quick and --scale are two sizes"),
        (["fgi5"], 2, "there is no 'fgi5'; `preluflow list` says what there is. Did you mean fig5?"),
        (["pgd_gap"], 2, "Did you mean pgd-gap?"),
        (["fig5", "--quik"], 2, "Did you mean '--quick'?"),
        (["fig5", "--from", ".", "--seed", "1"], 2, "--from redraws what was run; --seed is for runs"),
        (["fig5", "--from", ".", "--width", "9"], 2, "--from redraws what was run; --width is for runs"),
        (["fig5", "--from", ".", "--quick"], 2, "--quick is for runs"),
    ],
)
def test_bad_requests_are_refused_before_work(tmp_path, monkeypatch, nothing_may_run, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "empty").mkdir()
    for place in (arguments, [*arguments[1:], *arguments[:1]]):  # options may stand anywhere
        result = invoke("reproduce", *place)
        assert result.exit_code == code, result.output
        assert message in " ".join(result.output.split())
        assert "Traceback" not in result.output
        assert sorted(os.listdir(tmp_path)) == ["empty", "file"]


def test_numbers_of_another_figure_are_refused(quick, tmp_path):
    result = invoke("reproduce", "fig6", "--from", quick[0] / "fig5.npz", "--out", tmp_path)
    assert result.exit_code == 1
    assert "holds fig5, not fig6" in result.output


def test_help_of_a_figure_lists_its_options_and_no_other():
    own = {"width", "dynamics", "alpha", "batch", "loss", "epochs", "recipe", "scale", "data", "scheduler"}
    for name, experiment in REGISTRY.items():
        text = " ".join(invoke("reproduce", name, "--help").output.split())
        listed = {option for option in own if f"--{option} " in text or f"--{option}, " in text}
        assert listed == {"scale" if option == "full" else option for option in experiment.options}
        assert experiment.summary.replace(" ", "") in text.replace(" ", "")
        for preset, config in experiment.presets.items():
            assert f"{preset}: " in text or f"{preset} (--" in text
            assert experiment.seconds[preset] > 0
            for key in ("n", "width"):
                assert f"{key} {getattr(config, key)}" in text if hasattr(config, key) else True
        assert text.count("; about ") == len(experiment.presets)
    text = " ".join(invoke("reproduce", "fig5", "--help").output.split())
    assert "Number of neurons. Default: 500, quick 100." in text
    assert "[default: descent]" in text
    text = invoke("reproduce", "--help").output
    assert all(f"  {name} " in text for name in (*REGISTRY, "all"))


def test_options_may_stand_anywhere_and_names_may_repeat(tmp_path):
    result = invoke("reproduce", "--quick", "fig1", "--out", tmp_path, "fig3", "fig1", "--seed", 2)
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir(tmp_path)) == ["fig1.npz", "fig1.png", "fig3.npz", "fig3.png"]
    assert Outcome.load(tmp_path / "fig3.npz").config["seed"] == 2


def test_names_and_options_are_completed():
    from click.shell_completion import ShellComplete

    def complete(*words):
        return [
            item.value for item in ShellComplete(cli, {}, "preluflow", "X").get_completions(list(words[:-1]), words[-1])
        ]

    assert complete("reproduce", "fig") == [*(f"fig{i}" for i in range(1, 8)), "fig7-recipes"]
    assert complete("reproduce", "fig5", "pgd") == ["pgd-gap"]
    assert complete("reproduce", "fig5", "--w") == ["--width"]
    assert complete("reproduce", "fig1", "--w") == []


def test_the_package_runs_as_a_module(run_python):
    done = run_python("import runpy, sys; sys.argv = ['x', 'list']; runpy.run_module('preluflow', run_name='__main__')")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(REGISTRY)


def test_results_of_another_configuration_are_kept_without_force(tmp_path):
    path = tmp_path / "fig1.npz"
    run = ("reproduce", "fig1", "--quick", "--out", tmp_path)
    assert invoke(*run).exit_code == 0
    before = path.read_bytes()
    for other in (["--seed", 1], ["fig3", "--seed", 1]):
        result = invoke(*run, *other)
        assert result.exit_code == 1
        assert "holds a result of seed 0, not 1; --force overwrites it" in result.output
    result = invoke("reproduce", "fig1", "--out", tmp_path)
    assert "holds a result of quick True, not False" in result.output
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["fig1.npz", "fig1.png"]
    assert invoke(*run).exit_code == 0  # the same again
    assert invoke(*run, "--seed", 1, "--force").exit_code == 0
    assert Outcome.load(path).config["seed"] == 1
    path.write_text("my notes")
    result = invoke(*run)
    assert result.exit_code == 1
    assert "is in the way and no result" in result.output
    assert path.read_text() == "my notes"


def test_an_interrupted_run_does_not_replace_a_whole_result(tmp_path, monkeypatch):
    run = ("reproduce", "fig1", "--quick", "--out", tmp_path)
    assert invoke(*run).exit_code == 0
    before = [(tmp_path / name).read_bytes() for name in ("fig1.npz", "fig1.png")]

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fig1, "sample_clusters", stop)
    result = invoke(*run)
    assert result.exit_code == 130
    assert "is kept" in result.output
    assert [(tmp_path / name).read_bytes() for name in ("fig1.npz", "fig1.png")] == before
    assert invoke(*run, "--force").exit_code == 130
    assert Outcome.load(tmp_path / "fig1.npz").interrupted


def test_a_width_of_its_own_is_another_configuration(tmp_path):
    run = ("reproduce", "fig3", "--quick", "--out", tmp_path)
    assert invoke(*run, "--width", 10).exit_code == 0
    assert "holds a result of width 10, not 400" in invoke(*run).output
    assert invoke(*run, "--width", 10).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "file"], "Error: --out: 'file' is a file, not a folder"),
        (["--out", "file/below/it"], "Error: --out: 'file' is a file, not a folder"),
        (["--from", "file"], "Error: --from: 'file' is damaged or not a preluflow file"),
        (["--from", "pickled.npz"], "Error: --from: 'pickled.npz' is damaged or not a preluflow file"),
    ],
)
def test_files_that_will_not_do_get_a_sentence(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    np.savez(tmp_path / "pickled.npz", x=np.array([{}, 1], dtype=object))
    result = invoke("reproduce", "fig5", *arguments)
    assert result.exit_code == 1
    assert result.output.startswith(message)
    assert len(result.output.splitlines()) == 1
    assert not any(word in result.output for word in ("Errno", "pickle=", "allow_pickle"))


def test_the_report_is_one_page_that_needs_nothing_else(tmp_path):
    result = invoke("reproduce", "fig1", "fig3", "--quick", "--report", "--out", tmp_path, "--format", "pdf")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "report.html").read_text()
    assert text.count('src="data:image/png;base64,') == 2
    assert text.count("src=") == 2
    assert "http" not in text
    pictures = [base64.b64decode(part.split('"')[0]) for part in text.split("base64,")[1:]]
    assert all(picture.startswith(PNG) for picture in pictures)
    for name in ("fig1", "fig3"):
        outcome = Outcome.load(tmp_path / f"{name}.npz")
        assert f'<h2 id="{name}">' in text
        for row in REGISTRY[name].table(outcome):
            assert escape(row.quantity) in text
            assert escape(row.measured) in text
        for key, value in outcome.config.items():
            assert f"<td>{key}</td><td>{escape(json.dumps(value))}</td>" in text
    assert "instruction set" in text
    again = invoke("reproduce", "fig1", "--from", tmp_path, "--out", tmp_path / "new", "--report")
    assert again.exit_code == 0, again.output
    assert "redrawn from its file" in (tmp_path / "new" / "report.html").read_text()


def test_the_report_escapes_what_a_file_says(tmp_path):
    from preluflow.experiments._report import Section, page

    outcome = Outcome("<b>x", {"quick": True, "<i>": "</table><script>"})
    text = page([Section(outcome, "a < b", (), [Row("<script>", "&", "<", ">")], 1.0)], {"a": "<u>"}, "<s>")
    assert not any(tag in text for tag in ("<b>", "<i>", "<script>", "<u>", "<s>"))
    assert "&lt;script&gt;" in text


def test_a_report_in_the_way_is_found_before_the_run(tmp_path, nothing_may_run):
    (tmp_path / "report.html").mkdir()
    result = invoke("reproduce", "fig5", "--report", "--out", tmp_path)
    assert result.exit_code == 1
    assert "report.html" in result.output
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_tables_fit_the_terminal(quick, monkeypatch, tmp_path, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    result = invoke("reproduce", "fig5", "--from", quick[0], "--out", tmp_path)
    table = [line for line in result.output.splitlines() if "|" in line or "-+-" in line]
    assert max(map(len, table)) <= columns
    words = {word for line in quick[1].splitlines() if "|" in line for word in line.split()}
    assert words <= {word for line in table for word in line.split()}


# ---- Ctrl-C

# The command line, with a word on stdout at every stop: "noisy 20". Given a stop, it interrupts itself there.
WATCHED = """
import os, signal, sys
from dataclasses import replace
from preluflow import observe
from preluflow.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell may have it ignored
stop, sys.argv = sys.argv[1], ["preluflow", *sys.argv[2:]]
loss = observe.OBSERVERS["loss"]

def announced(at):
    where = f"{'noisy' if len(at.X) > 10 else 'nominal'} {at.iteration}"
    print(where, flush=True)
    if where == stop:
        os.kill(os.getpid(), signal.SIGINT)
    return loss.records(at)

observe.OBSERVERS["loss"] = replace(loss, records=announced)
main()
"""


def test_ctrl_c_at_full_size_saves_and_draws_what_is_done(tmp_path):
    command = [sys.executable, "-c", WATCHED, "-", "reproduce", "fig5", "--width", "500", "--out", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "MPLBACKEND": "Agg"}
    ) as process:
        for line in process.stdout:
            if line == "noisy 20\n":
                process.send_signal(signal.SIGINT)
                break
        output, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "interrupted" in output
    assert (tmp_path / "fig5.png").read_bytes().startswith(PNG)
    outcome = Outcome.load(tmp_path / "fig5.npz")
    assert outcome.interrupted
    noisy = outcome.runs["noisy"]
    assert_whole(noisy)
    assert 1 <= len(noisy.t) < 31
    assert noisy.stats["iterations"] < 600


@pytest.mark.parametrize("stop", ["nominal 0", "nominal 50", "noisy 0", "noisy 60"])
def test_ctrl_c_at_any_time_ends_with_130(run_python, tmp_path, stop):
    done = run_python(WATCHED, stop, "reproduce", "fig5", "fig6", "--quick", "--width", 20, "--out", tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode == 130
    stops = [line for line in done.stdout.splitlines() if line.startswith(("noisy", "nominal"))]
    assert stops[-1] == stop  # nothing more is trained
    assert not (tmp_path / "fig6.npz").exists()
    if stop == "noisy 60":
        outcome = Outcome.load(tmp_path / "fig5.npz")
        np.testing.assert_array_equal(outcome.runs["noisy"].iterations, [0, 20, 40])
        assert (tmp_path / "fig5.png").read_bytes().startswith(PNG)
