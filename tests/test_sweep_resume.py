"""A sweep killed at random moments and resumed: nothing is lost, nothing twice, bit for bit."""

import os
import random
import subprocess
import sys
import time

import pytest
import sweep_measures as measures

pytest.importorskip("xarray")

IN_FLIGHT = 4  # twice the workers


def saved(folder):
    return {path.stem for path in (folder / "cells").rglob("*.npz")}


def kill_when(process, folder, count):
    """Kill -9 a sweep once so many cells are saved; whether it was still running."""
    while process.poll() is None and len(saved(folder)) < count:
        time.sleep(0.002)
    was_running = process.poll() is None
    process.kill()
    process.wait()
    return was_running


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks to tell who lives")
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_sweep_resumed_after_kill_9_is_the_serial_one(tmp_path, kills):
    chance = random.Random(kills)
    folder, log = tmp_path / "runs", tmp_path / "log"
    command = [sys.executable, measures.__file__, folder, log, "0.005", "2", tmp_path / "draws.npy"]
    killed = 0
    for round_ in range(kills):
        before = saved(folder) if folder.exists() else set()
        process = subprocess.Popen(list(map(str, command)))
        # Up to the last round there is something left to do; the moment within a cell is as it comes.
        room = 200 - len(before) - (kills - round_) * (IN_FLIGHT + 1)
        most = max(0, min(room, room * 2 // (kills - round_)))
        killed += kill_when(process, folder, len(before) + chance.randint(0, most))
        assert before <= saved(folder)
    assert killed == kills
    found = measures.sweep_counted(folder, log)
    assert found.attrs["ended"] == "finished" and (found["status"] == "done").all()
    serial = measures.sweep_counted(None, tmp_path / "serial", 0.0, 1)
    assert list(serial.variables) == list(found.variables)
    for name in serial.variables:
        assert serial[name].values.tobytes() == found[name].values.tobytes()
    ended = [tuple(line.split()[1:3]) for line in measures.lines(log) if line.startswith("end")]
    assert len(set(ended)) == 200
    assert len(ended) <= 200 + kills * IN_FLIGHT
    assert not [name for name in os.listdir(folder / "claims") if name != "lock"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_processes_of_a_killed_sweep_end_with_it(tmp_path):
    folder, log = tmp_path / "runs", tmp_path / "log"
    command = [sys.executable, measures.__file__, folder, log, "0.05", "2", tmp_path / "draws.npy"]
    process = subprocess.Popen(list(map(str, command)))
    kill_when(process, folder, 3)
    workers = {int(line.split()[3]) for line in measures.lines(log)}
    assert len(workers) >= 1 and process.pid not in workers
    until = time.monotonic() + 60
    while any(running(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(running(pid) for pid in workers)


def running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # a zombie has ended, and waits for whoever adopted it
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return sys.platform != "linux"
