"""Cells of experiments in processes of their own: the same numbers, in their order, and nothing lost."""

import dataclasses
import multiprocessing
import os

import numpy as np
import pytest
import sweep_measures

from preluflow import _threads
from preluflow.experiments import REGISTRY, Options, _harness
from preluflow.experiments._processes import in_processes, shares


class Bar:
    """Counts cells, and is interrupted at one."""

    def __init__(self, stop=None):
        self.stop, self.done = stop, 0

    def update(self, amount):
        self.done += amount
        if self.done == self.stop:
            raise KeyboardInterrupt


def test_processors_are_shared_out(monkeypatch):
    monkeypatch.setattr(_threads, "processors", lambda: 8)
    assert shares(Options(num_threads=8), 100) == (8, 1)
    assert shares(Options(num_threads=8), 3) == (3, 2)
    assert shares(Options(num_threads=2), 100) == (2, 1)
    assert shares(Options(num_threads=100), 100) == (8, 1)
    assert shares(Options(num_threads=1), 100) == (1, 1)
    assert shares(Options(num_threads=8), 1) == (1, 8)
    assert shares(Options(num_threads=8, quick=True), 100)[0] == 1
    monkeypatch.setattr(_threads, "processors", lambda: 200)
    assert shares(Options(num_threads=200), 100) == (61, 3)  # Windows has no more for a pool
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})
    assert shares(Options(num_threads=200), 100)[0] == 1  # which may have no children


def test_results_come_in_the_order_of_the_calls_and_from_others():
    calls = [{"x": x, "seconds": 0.3 * (x == 0)} for x in range(7)]
    bar = Bar()
    found = list(in_processes(sweep_measures.squared, calls, 2, 1, bar))
    assert [number for number, _ in found] == list(range(7)) and bar.done == 7
    assert [value["square"] for _, value in found] == [x * x for x in range(7)]
    processes = {value["process"] for _, value in found}
    assert len(processes) <= 2 and os.getpid() not in processes
    assert {value["threads"] for _, value in found} == {1}


def test_ctrl_c_gives_what_is_finished_and_ends_the_rest():
    calls = [{"x": x, "seconds": 0.0 if x < 4 else 600.0} for x in range(8)]
    given = []
    with pytest.raises(KeyboardInterrupt):
        for number, value in in_processes(sweep_measures.squared, calls, 2, 1, Bar(stop=4)):
            given.append((number, value["square"]))
    assert given == [(x, x * x) for x in range(4)]


def test_what_a_cell_raises_goes_up():
    with pytest.raises(ZeroDivisionError):
        list(in_processes(sweep_measures.inverse, [{"x": 1}, {"x": 0}], 2, 1, Bar()))


def test_a_process_that_dies_is_told():
    with pytest.raises(RuntimeError, match="a process that computed cells died"):
        list(in_processes(os._exit, [{"status": 1}], 2, 1, Bar()))


FEW = {
    "descent-vs-flow": {"levels": {"descent": (0.4,), "tsit5": (1e-2, 1e-3)}, "t1": 10.0},
    "digits": {"kinds": REGISTRY["digits"].presets["quick"].kinds[:1], "points": 4, "epochs": 3, "t1": 5.0},
    "mv24": {"dim": 30, "n": 100, "width": 12, "epochs": 30, "points": 10, "pgd_steps": 3, "dist_steps": 3},
    "orthogonal": {"scales": (1e-2, 1e-3), "width": 20},
    "theorem1": {"alphas": (0.4, 0.3)},
}


@pytest.mark.parametrize("name", FEW)
def test_experiments_have_the_same_numbers_in_processes(name, monkeypatch):
    experiment = REGISTRY[name]
    if experiment.missing(experiment.configure(Options(quick=True))):
        pytest.skip("not installed")
    config = dataclasses.replace(experiment.configure(Options(quick=True)), **FEW[name])
    here = experiment.run(Options(quick=True), config)
    asked = []
    monkeypatch.setattr(_harness, "shares", lambda options, cells: asked.append(cells) or (2, 1))
    there = experiment.run(Options(quick=True), config)
    assert asked and not there.interrupted and list(here.arrays) == list(there.arrays) and here.config == there.config
    for key in here.arrays.keys() - {"seconds"}:
        np.testing.assert_array_equal(here.arrays[key], there.arrays[key], err_msg=key)
    assert list(here.runs) == list(there.runs)
    for key, run in here.runs.items():
        np.testing.assert_array_equal(run.network.W, there.runs[key].network.W)


SCRIPT = """
print("once")
from preluflow.experiments import REGISTRY, Options
from dataclasses import replace
experiment = REGISTRY["orthogonal"]
config = replace(experiment.configure(Options(quick=True)), scales=(1e-2,), width=10, seeds=2)
outcome = experiment.run(Options(num_threads=2), config)
print("done", outcome.interrupted)
"""


def test_a_script_needs_no_guard(tmp_path, run_python):
    script = tmp_path / "no_guard.py"
    script.write_text(SCRIPT)
    assert run_python(script).stdout.split() == ["once", "done", "False"]
