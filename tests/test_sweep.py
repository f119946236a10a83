"""Sweeps: what the dataset holds, that nothing is computed twice, and that nothing ends them."""

import functools
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest
import sweep_measures as measures

import preluflow as pf
from preluflow import _threads
from preluflow._sweep.dataset import together
from preluflow._sweep.grid import stream
from preluflow._sweep.identity import function_digest

pytest.importorskip("xarray")

OVER = {"alpha": [0.1, 0.3], "p": [1, 3], "seed": range(3)}
serially = functools.partial(pf.sweep, workers=1, progress=False)


def same(a, b):
    """The same bits in every variable and coordinate."""
    assert list(a.variables) == list(b.variables)
    for name in a.variables:
        assert a[name].dims == b[name].dims and a[name].dtype == b[name].dtype, name
        assert a[name].dtype.hasobject or a[name].values.tobytes() == b[name].values.tobytes(), name
    assert a.equals(b)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


# ---- the dataset


def test_every_cell_is_measured_at_its_own_parameters():
    found = serially(lambda alpha, p: {"product": alpha * p, "row": [p, p**2]}, {"alpha": [0.5, 2], "p": [1, 2, 3]})
    assert dict(found.sizes) == {"alpha": 2, "p": 3, "row_item": 2}
    np.testing.assert_array_equal(found["product"], np.outer([0.5, 2.0], [1, 2, 3]))
    np.testing.assert_array_equal(found["row"].sel(alpha=2.0, p=3), [3, 9])
    assert found["alpha"].dtype == float and found["p"].dtype == np.int64
    assert (found["status"] == "done").all() and found.attrs["ended"] == "finished"


def test_processes_give_the_bits_of_a_serial_sweep(tmp_path):
    serial = serially(measures.trained, OVER)
    same(serial, pf.sweep(measures.trained, OVER, tmp_path / "runs", workers=2, progress=False))
    same(serial, serially(measures.trained, OVER, tmp_path / "runs"))  # read from the files
    assert not os.listdir(tmp_path / "runs" / "claims") or os.listdir(tmp_path / "runs" / "claims") == ["lock"]


def test_results_of_the_package_become_variables():
    found = serially(measures.trained, OVER)
    cell = {"alpha": 0.3, "p": 3, "seed": 1}
    alone = measures.trained(0.3, 3, stream(cell))
    at = found.sel(cell)
    np.testing.assert_array_equal(at["run_t"], alone["run"].t)
    np.testing.assert_array_equal(at["run_loss"], alone["run"]["loss"])
    np.testing.assert_array_equal(at["run_iterations"], alone["run"].iterations)
    np.testing.assert_array_equal(at["radius_lower"], alone["radius"].lower)
    np.testing.assert_array_equal(at["radius_upper"], alone["radius"].upper)
    np.testing.assert_array_equal(at["radius_correct"], alone["radius"].correct)
    np.testing.assert_array_equal(at["accuracy"], alone["accuracy"])
    assert at["run_status"] == "finished" and found["run_loss"].dims == ("alpha", "p", "seed", "run_stop")


def test_provenance_is_told_and_says_nothing_of_the_machine():
    found = serially(measures.helper, {"x": [1.0, 2.0]})
    assert found.attrs["measure"] == "helper" and "return FACTOR * x" in found.attrs["source"]
    assert found.attrs["preluflow"] == pf.__version__ and found.attrs["isa"] in ("v2", "v3", "v4", "base")
    assert found.attrs["seconds"] > 0
    assert os.uname().nodename not in " ".join(map(str, found.attrs.values()))


def test_streams_do_not_depend_on_the_rest_of_the_grid():
    draw = lambda alpha, rng: rng.random()  # noqa: E731
    wide = serially(draw, {"alpha": [0.1, 0.2, 0.3], "seed": range(4)})
    few = serially(draw, {"seed": [3, 1], "alpha": [0.3]})
    np.testing.assert_array_equal(few["value"].transpose("alpha", "seed"), wide["value"].sel(few.coords))
    assert len(np.unique(wide["value"])) == 12
    named = serially(draw, {"alpha": [0.1], "repetition": [0, 1]}, rng="repetition")
    assert len(np.unique(named["value"])) == 2


def test_arrays_of_different_lengths_are_filled_up():
    found = serially(lambda n: {"range": np.arange(n), "words": ["a"] * n, "flag": n > 1}, {"n": [1, 3]})
    np.testing.assert_array_equal(found["range"], [[0, np.nan, np.nan], [0, 1, 2]])
    assert found["words"].values.tolist() == [["a", "", ""], ["a", "a", "a"]]
    assert found["flag"].dtype == bool


def test_what_has_no_array_in_common_is_not_lost():
    mixed = together((2,), {(0,): np.array(1.0), (1,): np.array("word")})
    assert mixed.tolist() == [1.0, "word"]
    large = together((2,), {(0,): np.array(2**60 + 1)})
    assert large.tolist() == [2**60 + 1, None]
    assert together((2,), {(0,): np.array(7)}).dtype == float


def test_datasets_go_to_netcdf_and_back(tmp_path):
    pytest.importorskip("netCDF4")
    import xarray

    found = serially(functools.partial(measures.fails_at, log=str(tmp_path / "log")), {"alpha": [0.1, 0.2]})
    found.to_netcdf(tmp_path / "sweep.nc")
    again = xarray.load_dataset(tmp_path / "sweep.nc")
    np.testing.assert_array_equal(again["value"], found["value"])
    assert again["traceback"].values.tolist() == found["traceback"].values.tolist()
    assert again.attrs["source"] == found.attrs["source"]


# ---- nothing twice


def test_a_second_sweep_computes_only_what_is_missing(tmp_path, log):
    few = measures.sweep_counted(tmp_path / "runs", log, 0.0, 1, {"alpha": [0.1], "seed": [0, 1]})
    more = measures.sweep_counted(tmp_path / "runs", log, 0.0, 1, {"alpha": [0.1, 0.2], "seed": [0, 1, 2]})
    begun = [line.split()[1:3] for line in measures.lines(log) if line.startswith("begin")]
    assert len(begun) == 6 and len({tuple(cell) for cell in begun}) == 6
    np.testing.assert_array_equal(more["draws"].sel(few["draws"].indexes), few["draws"])


def test_a_damaged_file_is_computed_again(tmp_path, log):
    first = measures.sweep_counted(tmp_path / "runs", log, 0.0, 1, {"alpha": [0.1], "seed": [0, 1]})
    victim = next((tmp_path / "runs" / "cells").rglob("*.npz"))
    victim.write_bytes(victim.read_bytes()[:-7])
    with pytest.warns(RuntimeWarning, match="computed again"):
        again = measures.sweep_counted(tmp_path / "runs", log, 0.0, 1, {"alpha": [0.1], "seed": [0, 1]})
    same(first, again)
    assert sum(line.startswith("begin") for line in measures.lines(log)) == 3


def test_failures_are_kept_others_go_on_and_retry_runs_them_again(tmp_path, log):
    measure = functools.partial(measures.fails_at, log=str(log))
    over = {"alpha": [0.1, 0.2, 0.3]}
    found = serially(measure, over, tmp_path / "runs")
    np.testing.assert_array_equal(found["value"], [0.2, np.nan, 0.6])
    assert found["status"].values.tolist() == ["done", "failed", "done"]
    assert found["error"].values.tolist() == ["", "ZeroDivisionError: no measure at 0.2", ""]
    assert "in fails_at" in found["traceback"].values[1]
    same(found, serially(measure, over, tmp_path / "runs"))
    assert len(measures.lines(log)) == 3
    same(found, serially(measure, over, tmp_path / "runs", retry=True))
    assert measures.lines(log)[3:] == ["begin 0.2"]
    same(found, serially(measure, over, tmp_path / "runs"))


def test_two_processes_share_a_folder_and_compute_nothing_twice(tmp_path, log):
    script = measures.__file__
    command = [sys.executable, script, tmp_path / "runs", log, "0.01", "1"]
    both = [subprocess.Popen([*map(str, command), str(tmp_path / f"{i}.npy")]) for i in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    ended = [tuple(line.split()[1:3]) for line in measures.lines(log) if line.startswith("end")]
    assert len(ended) == len(set(ended)) == 200
    assert len({line.split()[3] for line in measures.lines(log)}) == 2
    assert (tmp_path / "0.npy").read_bytes() == (tmp_path / "1.npy").read_bytes()


# ---- who a function is


def make(value, default=1):
    def inner(alpha, power=default):
        return alpha * value**power

    return inner


def test_a_function_is_its_source_and_all_it_uses(monkeypatch):
    digest = function_digest
    assert digest(make(2.0)) == digest(make(2.0)) != digest(make(3.0))
    assert digest(make(2)) != digest(make(2.0)) and digest(make(2.0)) != digest(make(2.0, default=2))
    one, two = (lambda a: a + 1), (lambda a: a + 2)
    assert digest(one) != digest(two)
    assert digest(functools.partial(one, a=1)) != digest(functools.partial(one, a=2))
    rows = np.arange(6.0)
    assert digest(make(rows)) == digest(make(rows.copy())) != digest(make(rows.reshape(2, 3)))
    before = digest(measures.fails_at)
    monkeypatch.setattr(measures, "FACTOR", 3.0)  # which a function that it calls looks up
    assert digest(measures.fails_at) != before
    monkeypatch.setattr(measures, "FACTOR", 2.0)
    assert digest(measures.fails_at) == before
    monkeypatch.setattr(measures, "helper", lambda x: 2.0 * x)
    assert digest(measures.fails_at) != before


def test_a_function_is_the_same_in_another_process(run_python):
    script = (
        "import sweep_measures as m; from preluflow._sweep.identity import function_digest as d\n"
        "print(d(m.trained), d(m.fails_at))"
    )
    told = [run_python(script, env={"PYTHONHASHSEED": str(seed)}).stdout for seed in (1, 2)]
    ours = f"{function_digest(measures.trained)} {function_digest(measures.fails_at)}\n"
    assert told == [ours, ours]


def test_an_edited_helper_in_another_file_is_another_function(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "sweep_helper.py").write_text("def twice(x):\n    return 2 * x\n")
    (tmp_path / "sweep_user.py").write_text(
        "import sweep_helper\nfrom sweep_helper import twice\n"
        "def by_name(x):\n    return twice(x)\ndef by_module(x):\n    return sweep_helper.twice(x)\n"
    )
    sys.modules.pop("sweep_user", None)
    module = __import__("sweep_user")
    before = function_digest(module.by_name), function_digest(module.by_module)
    (tmp_path / "sweep_helper.py").write_text("def twice(x):\n    return 2.0 * x\n\n\n")
    for name in ("sweep_helper", "sweep_user"):
        del sys.modules[name]
    importlib.invalidate_caches()
    spec = importlib.util.find_spec("sweep_helper")
    os.utime(spec.origin, (1, 1))  # its cached code is not believed
    module = __import__("sweep_user")
    after = function_digest(module.by_name), function_digest(module.by_module)
    assert before[0] != after[0] and before[1] != after[1]


def test_what_cannot_be_told_apart_is_refused_or_given_a_key(tmp_path):
    over = {"alpha": [0.1, 0.2]}
    with pytest.raises(TypeError, match=r"measure\.LOCK is used by measure"):
        serially(measures.uses_a_lock, over)
    space = {}
    exec("def typed(alpha): return 3 * alpha", space)
    with pytest.raises(TypeError, match="measure has no source"):
        serially(space["typed"], over)
    found = serially(space["typed"], over, tmp_path / "runs", key="typed, first")
    np.testing.assert_array_equal(found["value"], 3 * np.array([0.1, 0.2]))
    exec("def typed(alpha): return 4 * alpha", space)
    other = serially(space["typed"], over, tmp_path / "runs", key="typed, second")
    np.testing.assert_array_equal(other["value"], 4 * np.array([0.1, 0.2]))


# ---- Ctrl-C, and processes that die


def test_ctrl_c_within_a_run_leaves_no_half_of_it(tmp_path):
    measure = functools.partial(measures.interrupts_at, where=0.3)
    found = serially(measure, {"alpha": [0.1, 0.2, 0.3, 0.4]}, tmp_path / "runs")
    assert found.attrs["ended"] == "interrupted"
    assert found["status"].values.tolist() == ["done", "done", "missing", "missing"]
    np.testing.assert_array_equal(found["value"], [4.0, 4.0, np.nan, np.nan])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = serially(functools.partial(measures.interrupts_at, where=0.3), {"alpha": [0.1, 0.2]}, tmp_path / "runs")
    assert again.attrs["ended"] == "finished"


def test_ctrl_c_ends_the_processes_and_leaves_what_is_done(tmp_path, log):
    def press():
        while len(list((tmp_path / "runs").rglob("*.npz"))) < 3:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    found = measures.sweep_counted(tmp_path / "runs", log, 0.05)
    done = int((found["status"] == "done").sum())
    assert found.attrs["ended"] == "interrupted" and 3 <= done < 200
    assert np.isfinite(found["sum"]).sum() == done
    finished = measures.sweep_counted(tmp_path / "runs", log, 0.05, grid={"alpha": [0.1], "seed": range(3)})
    assert finished.attrs["ended"] == "finished"


@pytest.mark.parametrize(("times", "becomes"), [(1, "done"), (100, "failed")])
def test_a_process_that_dies_costs_at_most_its_cell(tmp_path, times, becomes):
    (tmp_path / "deaths").mkdir()
    measure = functools.partial(measures.dies_at, times=times, folder=str(tmp_path / "deaths"))
    found = pf.sweep(measure, {"alpha": [0.1, 0.2, 0.3, 0.4]}, tmp_path / "runs", workers=2, progress=False)
    assert found["status"].values.tolist() == ["done", becomes, "done", "done"]
    assert becomes == "done" or "died twice" in found["error"].values[1]


# ---- executors


class Broken(Executor):
    """Computes some cells, and then cancels all."""

    def __init__(self, good):
        self.good = good

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.good -= 1
        if self.good >= 0:
            future.set_result(fn(*args, **kwargs))
        else:
            future.set_exception(CancelledError("the scheduler is gone"))
        return future


def test_an_executor_that_breaks_leaves_what_is_done(tmp_path):
    over = {"x": [float(x) for x in range(10)]}
    with pytest.warns(RuntimeWarning, match="the scheduler is gone"):
        found = pf.sweep(measures.helper, over, tmp_path / "runs", Broken(4), progress=False)
    assert found.attrs["ended"] == "stopped" and 0 < (found["status"] == "done").sum() <= 4
    assert set(found["status"].values.tolist()) == {"done", "missing"}
    same(serially(measures.helper, over), serially(measures.helper, over, tmp_path / "runs"))


def test_any_executor_will_do_and_is_left_running():
    with ThreadPoolExecutor(3) as threads:
        found = pf.sweep(lambda x, rng: x + rng.random(), {"x": [1.0, 2.0], "seed": range(9)}, None, threads, False)
        assert threads.submit(int).result() == 0
    same(found, serially(lambda x, rng: x + rng.random(), {"x": [1.0, 2.0], "seed": range(9)}))


def test_loky_will_do():
    loky = pytest.importorskip("loky")
    executor = loky.ProcessPoolExecutor(2)
    try:
        found = pf.sweep(measures.trained, OVER, None, executor, progress=False)
    finally:
        executor.shutdown(kill_workers=True)
    same(found, serially(measures.trained, OVER))


def test_workers_times_threads_are_the_processors():
    found = pf.sweep(measures.threads, {"cell": [0, 1]}, workers=2, progress=False)
    each = max(1, min(_threads.processors() // 2, _threads.default()))
    assert found["threads"].values.tolist() == [each] * 2 and found["variable"].values.tolist() == [str(each)] * 2
    found = serially(measures.threads, {"cell": [0, 1]}, num_threads=1)
    assert found["threads"].values.tolist() == [1, 1]


def test_scripts_without_a_guard_are_told_of_it(tmp_path, run_python):
    script = tmp_path / "script.py"
    script.write_text(
        "import preluflow as pf\nfrom sweep_measures import helper\n"
        "pf.sweep(helper, {'x': [1.0, 2.0, 3.0]}, workers=2, progress=False)\n"
    )
    answer = run_python(script)
    assert answer.returncode != 0 and '`if __name__ == "__main__":`' in answer.stderr


# ---- bad input


def fine(alpha, p):
    return alpha * p


FINE = {"alpha": [0.1, 0.2], "p": [1, 2]}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"measure": 3}, "measure"),
        ({"measure": int}, "measure"),
        ({"measure": lambda alpha: alpha}, "measure"),
        ({"measure": lambda alpha, p, more: alpha}, "measure"),
        ({"over": {}}, "over"),
        ({"over": [("alpha", [1])]}, "over"),
        ({"over": {**FINE, "p": 3}}, r"over\['p'\]"),
        ({"over": {**FINE, "p": []}}, r"over\['p'\]"),
        ({"over": {**FINE, "p": "123"}}, r"over\['p'\]"),
        ({"over": {**FINE, "p": [1, "2"]}}, r"over\['p'\]"),
        ({"over": {**FINE, "p": [True, 2]}}, r"over\['p'\]"),
        ({"over": {**FINE, "p": [1, 2, 1.0]}}, r"over\['p'\]"),
        ({"over": {**FINE, "p": [1.0, float("nan")]}}, r"over\['p'\]"),
        ({"over": {**FINE, "p": [[1, 2], [3, 4]]}}, r"over\['p'\]"),
        ({"over": {**FINE, "p": [10**30]}}, r"over\['p'\]"),
        ({"over": {**FINE, "p": [None, 1]}}, r"over\['p'\]"),
        ({"over": {**FINE, "p": range(10**9)}}, r"over\['p'\]"),
        ({"over": {"alpha": range(2000), "p": range(2000)}}, "over"),
        ({"over": {**FINE, "status": [1]}}, "over"),
        ({"over": {**FINE, "two words": [1]}}, "over"),
        ({"over": {**FINE, "seed": [1]}}, "measure"),
        ({"executor": "threads"}, "executor"),
        ({"executor": ThreadPoolExecutor, "workers": None}, "executor"),
        ({"executor": ThreadPoolExecutor(1)}, "workers"),
        ({"workers": 0}, "workers"),
        ({"workers": 1.5}, "workers"),
        ({"num_threads": 0}, "num_threads"),
        ({"rng": "repetition"}, "rng"),
        ({"key": ""}, "key"),
        ({"key": 3}, "key"),
        ({"progress": 1}, "progress"),
        ({"retry": "yes"}, "retry"),
        ({"folder": 3}, "folder"),
        ({"folder": "a\0b"}, "folder"),
    ],
)
def test_bad_input_is_refused_by_name_before_any_work(changes, name, tmp_path):
    arguments = {"measure": fine, "over": FINE, "folder": tmp_path / "runs", "workers": 1, "progress": False, **changes}
    with pytest.raises((ValueError, TypeError), match=name):
        pf.sweep(**arguments)
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(tmp_path, log):
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(OSError, match="folder"):
        measures.sweep_counted(tmp_path / "runs", log, 0.0, 1)
    assert measures.lines(log) == []


@pytest.mark.parametrize(
    "returned",
    [None, {}, 1j, {"x": None}, {3: 1.0}, {"two words": 1.0}, {"alpha": 1.0}, {"status": 1.0}, {"x": object()}],
)
def test_what_cannot_be_kept_is_a_failure_that_says_so(returned):
    found = serially(lambda alpha: returned, {"alpha": [0.1]}, key="returned")
    assert found["status"].values.tolist() == ["failed"] and "measure" in found["error"].values[0]


def test_functions_that_cannot_be_sent_are_refused():
    lock = threading.Lock()
    with pytest.raises(TypeError, match="measure cannot be sent"):
        pf.sweep(lambda alpha: lock.locked(), {"alpha": [0.1, 0.2]}, workers=2, key="locked", progress=False)


def test_without_xarray_one_is_told_what_to_install(run_python):
    script = (
        "import sys; import preluflow as pf\n"
        "assert not {'xarray', 'pandas', 'dask', 'cloudpickle'} & set(sys.modules)\n"
        "sys.modules['xarray'] = None\npf.sweep(print, {'x': [1]})"
    )
    assert "ImportError: sweep needs xarray: pip install 'preluflow[sweep]'" in run_python(script).stderr
