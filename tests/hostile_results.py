"""Results to be saved and read again, and what may be in the way of their files."""

import json
import os
import socket
import stat
from pathlib import Path

import numpy as np

import preluflow as pf
from preluflow import _files
from preluflow.experiments import Outcome

OLD, NEW = b"what was there before", b"what is there afterwards"


def make_run():
    gmm = pf.OrthonormalGMM(dim=6, positive=2, negative=1, alpha=0.1, rng=0)
    data = gmm.sample(21, balanced=True, dtype="float64", rng=1)
    network = pf.initialize(4, 6, 0.3, p=3, dtype="float64", rng=2)
    events = [pf.events.loss_below(0.9)]
    observe = pf.Observe(every=1.0, what=["loss", "alignment"], gmm=gmm)
    return pf.gradient_flow(network, data.X, data.y, t1=4.0, events=events, observe=observe)


def make_radius(run):
    X = np.random.default_rng(3).standard_normal((7, 6))
    return pf.robust_radius(run.network, X, np.where(run.network.decision_function(X) > 0, 1, -1))


def make_outcome(run):
    return Outcome("fig5", {"quick": True, "nudge": None}, {"noisy": run}, "noisy", {"words": np.array(["a", "bc"])})


def contents(value):
    """All that a result holds, to be compared."""
    if isinstance(value, Outcome):
        runs = {key: contents(run) for key, run in value.runs.items()}
        arrays = {name: array.tolist() for name, array in value.arrays.items()}
        return value.name, value.config, runs, value.main, arrays, value.stopped
    if isinstance(value, pf.Run):
        return {name: array.tolist() for name, array in value.arrays().items()}, value.meta()
    arrays = (value.lower, value.upper, value.witness, value.correct)
    return [array.tolist() for array in arrays], value.config, value.environment


def save_new(path):
    _files.write_file(path, lambda stream: stream.write(NEW))


def leftovers(folder):
    return [name for name in os.listdir(folder) if name.endswith(".tmp")]


def write_wrong(path, arrays, meta):
    np.savez(path, **{**arrays, "meta": np.array(meta if isinstance(meta, str) else json.dumps(meta))})


# ---- what is in the way


def make_device(path):
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except OSError:  # not root: a terminal, whose folder takes no files whatever is tried
        return Path(os.ttyname(os.openpty()[1]))
    return path


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # names of sockets are short
        server.bind(path.name)
        os.chdir(here)
    return path


def make_fifo(path):
    os.mkfifo(path)
    return path


def make_folder(path):
    path.mkdir()
    return path


def make_circle(path):
    path.symlink_to(path.name)
    return path


IN_THE_WAY = {
    "a device": make_device,
    "a socket": make_socket,
    "a FIFO": make_fifo,
    "a folder": make_folder,
    "a symbolic link in a circle": make_circle,
}
