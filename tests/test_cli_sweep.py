"""``preluflow sweep``: a file's function over a grid from the line, and how far a folder is."""

import os
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from preluflow.cli import cli

xarray = pytest.importorskip("xarray")

FILE = """
import os
def helper(x):
    return 2 * x
def measure(alpha, p, seed):
    if alpha == 0.3 and p == 2 and not os.path.exists(__file__ + ".fine"):
        raise ArithmeticError("too much noise")
    return {"x": helper(alpha) * p + seed, "row": [alpha, p]}
def other(kind, flag):
    return f"{kind} {flag}"
"""


def invoke(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of functions; what importing it leaves is undone."""
    place = tmp_path / f"measures_{tmp_path.name}.py"
    place.write_text(FILE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield place
    sys.modules.pop(place.stem, None)


def test_a_line_sweeps_a_file_and_goes_on_where_it_failed(file, tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "found.nc"
    pytest.importorskip("netCDF4")
    line = ("sweep", file, "--over", "alpha=0.1,0.3", "--over", "p=1,2", "--seeds", 3, "--folder", runs, "--workers", 1)
    result = invoke(*line, "--out", out)
    assert result.exit_code == 1
    assert "12 cells: 9 done, 3 failed" in result.output
    assert "3 failed: ArithmeticError: too much noise" in result.output
    with xarray.open_dataset(out) as found:
        assert dict(found.sizes) == {"alpha": 2, "p": 2, "seed": 3, "row_item": 2}
        np.testing.assert_allclose(found["x"].sel(alpha=0.1), [[0.2, 1.2, 2.2], [0.4, 1.4, 2.4]])
        assert np.isnan(found["x"].sel(alpha=0.3, p=2)).all()
    status = invoke("sweep", "--status", runs)
    assert "measure over alpha 2 x p 2 x seed 3" in status.output
    assert "12 cells, 9 done, 3 failed, 0 running, 0 missing" in status.output
    (tmp_path / f"{file.name}.fine").touch()
    assert "9 done, 3 failed" in invoke(*line).output
    again = invoke(*line, "--retry")
    assert again.exit_code == 0 and "12 cells: 12 done" in again.output, again.output
    assert "12 done, 0 failed" in invoke("sweep", "--status", runs).output


def test_words_and_flags_and_the_function_to_be_chosen(file, tmp_path):
    line = ("--over", "kind=flow,sgd", "--over", "flag=True,False", "--folder", tmp_path / "runs", "--workers", 1)
    result = invoke("sweep", file, "--function", "other", *line)
    assert result.exit_code == 0 and "'flow True'" in result.output, result.output


def test_the_file_is_found_by_processes_of_its_own(file, tmp_path, run_python):
    script = "import sys; from preluflow.cli import main; sys.argv = ['preluflow', *sys.argv[1:]]; main()"
    line = ("sweep", file, "--over", "alpha=0.1", "--over", "p=1,2", "--seeds", 2, "--workers", 2)
    answer = run_python(script, *line, "--folder", tmp_path / "runs")
    assert answer.returncode == 0 and "4 cells: 4 done" in answer.stdout, answer.stderr


def test_cells_that_are_being_computed_or_missing_are_told(file, tmp_path):
    from preluflow._sweep import grid
    from preluflow._sweep.claims import Claims
    from preluflow._sweep.folder import Folder

    runs = tmp_path / "runs"
    line = ("sweep", file, "--over", "alpha=0.1", "--over", "p=1", "--folder", runs, "--workers", 1)
    assert invoke(*line, "--seeds", 2).exit_code == 0
    folder = Folder(runs)
    told = next(folder.sweeps())
    folder.note({**told, "over": {**told["over"], "seed": [0, 1, 2, 3, 4]}})
    cells = grid.cells(grid.dimensions({**told["over"], "seed": [2]}), told["identity"])
    claims = Claims(folder, {})
    assert claims.take([cell.key for cell in cells], 9) == [(cells[0].key, "mine")]
    assert "5 cells, 2 done, 0 failed, 1 running, 2 missing" in invoke("sweep", "--status", runs).output
    claims.close()
    assert "5 cells, 2 done, 0 failed, 0 running, 3 missing" in invoke("sweep", "--status", runs).output


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["FILE"], "--over or --seeds"),
        (["--seeds", "2"], "FILE"),
        (["FILE", "--over", "alpha"], "--over"),
        (["FILE", "--over", "alpha="], "--over"),
        (["FILE", "--over", "p=1", "--over", "p=2"], "twice"),
        (["FILE", "--over", "seed=1", "--seeds", "2"], "--seeds"),
        (["FILE", "--over", "alpha=1,1", "--over", "p=1", "--seeds", "1"], "alpha"),
        (["FILE", "--over", "alpha=1,x", "--over", "p=1", "--seeds", "1"], "alpha"),
        (["FILE", "--over", "alpha=1"], "measure must take"),
        (["FILE", "--function", "no", "--seeds", "1"], "no function 'no'"),
        (["FILE", "--scheduler", "tcp://127.0.0.1:1", "--workers", "2", "--seeds", "1"], "--workers"),
        (["FILE", "--status", "FOLDER"], "--status"),
        (["--status", "FOLDER"], "no folder of a sweep"),
        (["FILE", "--out", "FOLDER", "--seeds", "1"], "--out"),
        (["FILE", "--out", "FOLDER/none/x.nc", "--seeds", "1"], "does not exist"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused_before_any_work(file, tmp_path, line, told):
    full = [part.replace("FOLDER", str(tmp_path)).replace("FILE", str(file)) for part in line]
    full += [] if "--status" in line else ["--folder", str(tmp_path / "runs")]
    result = invoke("sweep", *full)
    assert result.exit_code in (1, 2) and told in result.output, result.output
    assert "Traceback" not in result.output and not os.path.exists(tmp_path / "runs")


def test_files_that_cannot_be_imported_are_told(file, tmp_path):
    file.write_text("import no_such_module_anywhere\n")
    result = invoke("sweep", file, "--seeds", 1, "--folder", tmp_path / "runs")
    assert result.exit_code == 1 and "no_such_module_anywhere" in result.output
    named = tmp_path / "json.py"
    named.write_text(FILE)
    assert "must have another name" in invoke("sweep", named, "--seeds", 1, "--folder", tmp_path / "runs").output


@pytest.mark.parametrize("line", [["sweep", "FILE", "--seeds", "1"], ["reproduce", "proposition4", "--quick"]])
def test_a_scheduler_that_is_not_there_is_told(file, tmp_path, line):
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    file.write_text("def measure(seed):\n    return seed\n")
    full = [part.replace("FILE", str(file)) for part in line]
    full += ["--out", str(tmp_path)] if line[0] == "reproduce" else ["--folder", str(tmp_path / "runs")]
    with dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}):
        result = invoke(*full, "--scheduler", "tcp://127.0.0.1:1")
    assert result.exit_code == 1 and "--scheduler: there is no scheduler at 'tcp://127.0.0.1:1'" in result.output


def test_figures_whose_cells_are_not_sent_refuse_a_scheduler():
    result = invoke("reproduce", "fig5", "--scheduler", "tcp://127.0.0.1:1")
    assert result.exit_code == 2 and "fig5 does not use --scheduler" in result.output
