"""Fixtures and small makers shared by the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import preluflow as pf

TESTS = Path(__file__).parent

# The same examples every time, and none kept on disk.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.load_profile("fixed")

# A shell that runs the tests in the background has Ctrl-C ignored; the tests that send it need it.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Wells:
    """A classifier with wells at x_0 = -1 and 1; every row by itself, so that its place among others decides no bit."""

    def decision_function(self, X):
        square = X[:, 0] * X[:, 0]
        return 0.4 + square * (0.5 * square - 1.0) + 0.1 * np.abs(X[:, 1])

    def input_gradient(self, X):
        return np.stack([2.0 * X[:, 0] * (X[:, 0] * X[:, 0] - 1.0), 0.1 * np.sign(X[:, 1])], axis=1)


@dataclass
class Problem:
    """Random data and raw weights of moderate scale, float64."""

    W: np.ndarray
    v: np.ndarray
    X: np.ndarray
    y: np.ndarray

    def network(self, activation="prelu", p=3.0, dtype="float64"):
        return pf.TwoLayerNetwork(self.W, self.v, activation, p, dtype=dtype)


def make_problem(n=20, h=6, D=5, seed=0, gap=0.0):
    """Outputs of order 1; the cosines of points and weights are at least ``gap`` away from the kink at 0."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((h, D)) / np.sqrt(D)
    v = rng.choice([-1.0, 1.0], h) * rng.uniform(0.3, 1.0, h) * min(1.0, 10.0 / h)
    U = W / np.linalg.norm(W, axis=1, keepdims=True)
    rows = []
    while len(rows) < n:
        x = rng.standard_normal(D)
        x *= rng.uniform(0.7, 1.5) / np.linalg.norm(x)
        if np.abs(U @ x).min() >= gap:
            rows.append(x)
    return Problem(W, v, np.array(rows), rng.choice([-1.0, 1.0], n))


def assert_same_networks(a, b):
    for name in ("directions", "log_norm", "sign", "log_abs_v"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def assert_same_runs(a, b):
    """The same bits in everything but times and threads."""
    assert (a.method, a.status, a.message, list(a)) == (b.method, b.status, b.message, list(b))
    np.testing.assert_array_equal(a.iterations, b.iterations)
    np.testing.assert_array_equal(a.t, b.t)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert_same_networks(a.network, b.network)


def assert_whole(run):
    """Every record has one entry per stop."""
    assert len(run.t) == len(run.iterations)
    assert all(len(run[name]) == len(run.iterations) for name in run)


@pytest.fixture
def problem():
    return make_problem


@pytest.fixture
def gmm():
    """A small mixture with K1 = 3, K2 = 2 in R^12."""
    return pf.OrthonormalGMM(dim=12, positive=3, negative=2, alpha=0.1, rng=0)


@pytest.fixture
def small(gmm):
    """(network, data, gmm): float64 descent problem of a second's fraction."""
    data = gmm.sample(60, balanced=True, dtype="float64", rng=1)
    return pf.initialize(8, gmm.dim, 0.3, p=3, dtype="float64", rng=2), data, gmm


@pytest.fixture
def run_python():
    """Run a script, text or file, in its own interpreter with this folder importable; returns the CompletedProcess."""

    def run(script, *arguments, env=None, timeout=120):
        paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.run(
            [sys.executable, *([script] if isinstance(script, Path) else ["-c", script]), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MPLBACKEND": "Agg", **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
