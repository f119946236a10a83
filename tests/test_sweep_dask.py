"""Sweeps on a Dask cluster of this machine: a scheduler and two workers, each a process, over TCP."""

import contextlib
import dataclasses
import functools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import sweep_measures as measures

import preluflow as pf
from preluflow.experiments import REGISTRY, Options

pytest.importorskip("xarray")
distributed = pytest.importorskip("distributed")

SECONDS = 120  # until something that must happen is taken not to


class Cluster:
    """A scheduler and two workers in processes of their own, and a client."""

    def __init__(self, folder):
        import dask

        folder.mkdir()
        self.folder, self.file = folder, folder / "scheduler.json"
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", "0")
        self.workers = [self.worker() for _ in range(2)]
        dask.config.set({"distributed.comm.timeouts.connect": "2s"})  # how long it looks for a scheduler that is gone
        self.client = distributed.Client(scheduler_file=str(self.file), timeout=SECONDS)
        self.client.wait_for_workers(2, timeout=SECONDS)

    def worker(self):
        return self.start("worker", "--nthreads", "1", "--no-nanny", "--local-directory", str(self.folder))

    def start(self, what, *arguments):
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments, "--no-dashboard"]
        with open(self.folder / "dask.log", "ab") as log:
            return subprocess.Popen([*command, "--scheduler-file", str(self.file)], stderr=log, stdout=log)

    def sweep(self, folder, measure, over):
        return pf.sweep(measure, over, folder, self.client.get_executor(), progress=False)

    def end(self):
        with contextlib.suppress(Exception):  # what it says of a scheduler that is gone
            self.client.close(timeout=5)
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    made = []

    def make():
        made.append(Cluster(tmp_path / f"cluster{len(made)}"))
        return made[-1]

    yield make
    for each in made:
        each.end()


def over(cells):
    return {"alpha": [0.1, 0.2, 0.3, 0.4], "seed": range(cells // 4)}


def after(folder, count, act):
    """Do something once so many cells are saved, in a thread of its own."""

    def wait():
        until = time.monotonic() + SECONDS
        while len(saved(folder)) < count and time.monotonic() < until:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def saved(folder):
    return {path.stem for path in (folder / "cells").rglob("*.npz")}


def ends(log):
    return [tuple(line.split()[1:]) for line in measures.lines(log) if line.startswith("end")]


def assert_serial(found, measure, cells):
    serial = pf.sweep(measure, over(cells), workers=1, progress=False)
    assert list(serial.variables) == list(found.variables)
    for name in serial.variables:
        assert serial[name].values.tobytes() == found[name].values.tobytes(), name


CELLS = [200, pytest.param(1000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("cells", CELLS)
def test_a_worker_is_killed_and_the_scheduler_stopped_and_nothing_is_lost_and_nothing_twice(tmp_path, cluster, cells):
    folder, log = tmp_path / "runs", tmp_path / "log"
    gate = tmp_path / "gate"  # of the last quarter of the cells: it opens once the first cluster is gone
    measure = functools.partial(measures.counted, log=str(log), seconds=0.005, gate=str(gate), held=(0.4,))

    first = cluster()
    victim = first.workers[0]
    after(folder, cells // 5, victim.kill)
    stop = after(folder, cells // 2, first.scheduler.kill)
    with pytest.warns(RuntimeWarning, match="the executor stopped"):
        partial = first.sweep(folder, measure, over(cells))
    stop.join()
    assert partial.attrs["ended"] == "stopped" and victim.poll() is not None
    kept = saved(folder)
    assert cells // 2 <= len(kept) == int((partial["status"] == "done").sum()) < cells
    before = ends(log)

    first.end()
    gate.touch()
    second = cluster()
    found = second.sweep(folder, measure, over(cells))
    assert found.attrs["ended"] == "finished" and (found["status"] == "done").all()
    assert kept < saved(folder) and len(saved(folder)) == cells

    # Of what was saved nothing was computed again; and within a cluster only what the victim had with it.
    done = {(str(a), str(s)) for a, s in np.argwhere((partial["status"] == "done").values)}
    places = {alpha: str(i) for i, alpha in enumerate(("0.1", "0.2", "0.3", "0.4"))}
    assert not done & {(places[alpha], seed) for alpha, seed, _ in ends(log)[len(before) :]}
    again = [cell for cell, *_ in _repeated(before)]
    assert all(str(victim.pid) in {pid for *cell, pid in before if tuple(cell) == each} for each in again)
    assert not list(_repeated(ends(log)[len(before) :]))
    assert_serial(found, functools.partial(measure, log=os.devnull), cells)


def _repeated(lines):
    cells = [line[:2] for line in lines]
    return ((cell,) for cell in {cell for cell in cells if cells.count(cell) > 1})


def test_a_function_of_a_file_that_workers_do_not_have_is_sent_to_them(tmp_path, cluster, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "sweep_other_file.py").write_text("def thrice(x):\n    return 3 * x\n")
    (tmp_path / "sweep_only_here.py").write_text(
        "from sweep_other_file import thrice\ndef measure(x):\n    return thrice(x) + 1\n"
    )
    module = __import__("sweep_only_here")
    Path(module.__file__).touch()
    found = cluster().sweep(None, module.measure, {"x": [1.0, 2.0]})
    np.testing.assert_array_equal(found["value"], [4.0, 7.0])


FIG2, FIG7, DIGITS = (REGISTRY[name] for name in ("fig2", "fig7", "digits"))
ALPHAS = {"alphas": (0.4, 0.3), "seeds": 2}
ROBUST = {"seeds": 2, "n": 300, "test": 40, "dim": 60, "width": 24, "pgd_points": 5, "pgd_steps": 10}


@pytest.mark.parametrize(
    ("name", "few"),
    [
        ("proposition4", ALPHAS),
        ("theorem1", ALPHAS),
        ("fig2", {**ROBUST, "recipes": FIG2.presets["quick"].recipes[:3]}),
        ("fig7", {**ROBUST, "recipes": FIG7.presets["quick"].recipes[:2]}),
        ("beyond", {"cosines": (0.0,), "imbalances": (1.0, 4.0), "ranks": (100,), "seeds": 1, "n": 60, "t1": 20.0}),
        ("descent-vs-flow", {"levels": {"descent": (0.4,), "tsit5": (1e-2, 1e-3)}, "t1": 10.0, "seeds": 1}),
        ("mv24", {"dim": 30, "n": 100, "width": 12, "epochs": 30, "points": 10, "pgd_steps": 3, "dist_steps": 3}),
        ("digits", {"seeds": 2, "kinds": DIGITS.presets["quick"].kinds[:1], "points": 4, "epochs": 3, "t1": 5.0}),
    ],
)
def test_experiments_have_the_same_numbers_on_a_cluster(cluster, name, few):
    experiment = REGISTRY[name]
    config = dataclasses.replace(experiment.configure(Options(quick=True)), **few)
    here = experiment.run(Options(quick=True), config)
    address = cluster().client.scheduler.address
    there = experiment.run(Options(quick=True, scheduler=address), config)
    assert not there.interrupted and list(here.arrays) == list(there.arrays) and here.config == there.config
    for key in here.arrays.keys() - {"seconds"}:
        assert here.arrays[key].tobytes() == there.arrays[key].tobytes(), key


def test_the_command_line_sweeps_on_a_cluster(tmp_path, cluster, run_python, monkeypatch):
    file, runs = tmp_path / "sweep_from_the_line.py", tmp_path / "runs"
    file.write_text("import os\ndef measure(x, seed):\n    return {'y': x + seed, 'process': os.getpid()}\n")
    made = cluster()
    script = "import sys; from preluflow.cli import main; sys.argv = ['preluflow', *sys.argv[1:]]; main()"
    address = made.client.scheduler.address
    line = ("sweep", file, "--over", "x=1.5,2.5", "--seeds", 3, "--folder", runs, "--scheduler", address)
    answer = run_python(script, *line)
    assert answer.returncode == 0 and "6 cells: 6 done" in answer.stdout, answer.stderr
    monkeypatch.syspath_prepend(tmp_path)
    measure = __import__(file.stem).measure
    found = pf.sweep(measure, {"x": [1.5, 2.5], "seed": range(3)}, runs, workers=1, progress=False)
    np.testing.assert_array_equal(found["y"], [[1.5, 2.5, 3.5], [2.5, 3.5, 4.5]])
    assert {int(pid) for pid in found["process"].values.ravel()} <= {worker.pid for worker in made.workers}
