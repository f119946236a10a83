"""Ctrl-C within robust_radius: answered within a point, what is done is kept, and nothing that is not."""

import os
import signal
import threading
import time

import numpy as np
import pytest

import preluflow as pf
from preluflow import _brackets

LEVELS = ("fast", "tight", "exact")


def problem(width, dim, n, seed=0):
    rng = np.random.default_rng(seed)
    network = pf.TwoLayerNetwork(rng.standard_normal((width, dim)), rng.standard_normal(width), p=3)
    X = rng.standard_normal((n, dim))
    return network, X, network.predict(X)


def check(network, X, y, found):
    """That a bracket of the first points is one."""
    n = len(found.lower)
    assert 0 < n <= len(X)
    assert found.consistent.all()
    flipped = y[:n] * network.decision_function(X[:n] + found.witness) <= 0
    assert flipped[found.correct].all()
    assert (found.upper[found.correct] > 0).all()


@pytest.mark.parametrize("level", LEVELS)
def test_ctrl_c_in_the_core_is_answered_within_half_a_second_and_keeps_what_is_done(level):
    network, X, y = problem(1000, 60, 4000)
    sent = []

    def interrupt():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    patience = 1.5  # the first block is under way
    while True:
        timer = threading.Timer(patience, interrupt)
        timer.start()
        try:
            found = pf.robust_radius(network, X, y, level)
        except KeyboardInterrupt:
            patience *= 2  # no point is done yet, on a machine as slow as this
            assert patience < 30
            continue
        finally:
            timer.join()
        break
    assert time.perf_counter() - sent[-1] < 2.0  # 0.5 s, and what else the machine does
    assert len(found.lower) < len(X)
    check(network, X, y, found)


def interrupted_after(seconds, call):
    """What a call returns that is interrupted so long after its beginning; None where nothing was done yet."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        found = call()
        timer.join()
        return found
    except KeyboardInterrupt:
        return None
    finally:
        timer.join()


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_returned_is_what_the_whole_call_finds(level):
    network, X, y = problem(40, 8, 3000 if level == "fast" else 300)
    began = time.perf_counter()
    whole = pf.robust_radius(network, X, y, level, max_nodes=100)
    took, partial = time.perf_counter() - began, 0
    for share in np.linspace(0.05, 0.9, 8):
        try:
            found = interrupted_after(share * took, lambda: pf.robust_radius(network, X, y, level, max_nodes=100))
        except KeyboardInterrupt:  # the call was over, and the timer was not
            continue
        if found is None or len(found.lower) == len(X):
            continue
        partial += 1
        n = len(found.lower)
        check(network, X, y, found)
        for name in ("lower", "upper", "witness", "correct", "reached"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name)[:n])
    assert partial > 0


def test_an_exception_of_the_callers_handler_comes_through():
    network, X, y = problem(300, 40, 4000)

    def handler(*_):
        raise TimeoutError("enough")

    old = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(TimeoutError, match="enough"):
            pf.robust_radius(network, X, y, "tight")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


BITS = """
import sys
import numpy as np
import preluflow as pf

rng = np.random.default_rng(0)
gmm = pf.OrthonormalGMM(200, 3, 2, 0.5, rng=0)
data = gmm.sample(300, dtype="float64", rng=1)
network = pf.TwoLayerNetwork(rng.standard_normal((60, 200)), rng.standard_normal(60), p=3)
y = network.predict(data.X)
parts = [pf.robust_radius(network, data.X, y, num_threads=2)]
parts += [pf.robust_radius(network, data.X[:20], y[:20], level, max_nodes=50) for level in ("tight", "exact")]
bracket = pf.distance_bracket(pf.initialize(30, 200, 0.1, rng=1), gmm)
for found in parts:
    sys.stdout.write(found.lower.tobytes().hex() + found.upper.tobytes().hex() + found.witness.tobytes().hex())
sys.stdout.write(np.array([bracket.lower, bracket.upper]).tobytes().hex())
"""


def test_bits_depend_on_no_number_of_threads_not_even_of_numpys_blas(run_python):
    told = set()
    for threads in ("1", "2"):
        done = run_python(BITS, env={"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads})
        assert done.returncode == 0, done.stderr
        told.add(done.stdout)
    assert len(told) == 1


def test_a_dominant_neuron_leaves_level_exact_able_to_close_its_brackets():
    W = [[0.0, 1.79], [-1.12, 0.74], [-1.094, 0.045], [-1.326, 1.996]]
    W += [[0.654, -1.411], [0.986, -0.339], [0.175, 0.748], [1.865, 1.425]]
    v = [0.835, -0.226, 4.4e11, -0.873, -0.356, 1.873, -0.223, 2.4]
    found = pf.robust_radius(pf.TwoLayerNetwork(W, v, p=1.0), [[0.49811, -0.6053], [0.28562, -1.2412]], [1, 1], "exact")
    assert (found.lower > (1 - 2e-4) * found.upper).all()


def test_equal_first_coordinates_cost_nothing():
    rng = np.random.default_rng(0)
    W, v = rng.standard_normal((1500, 20)), rng.standard_normal(1500)
    W[:, 0] = 0.0
    W[7], W[1400] = W[3], 2.0 * W[3]
    brackets = _brackets.Brackets(pf.TwoLayerNetwork(W, np.abs(v), p=3.0))
    assert brackets.width == 1498  # found all the same, in well under a second


@pytest.mark.parametrize("p", [1e3, 1e6, 1e10])
def test_certificates_do_not_fade_with_p(p):
    found = pf.robust_radius(pf.TwoLayerNetwork(np.eye(2), [1.0, -1.0], p=p), [[1.0, 0.5]], [1])
    assert 0.9999 * np.sqrt(0.125) < found.lower[0] <= np.sqrt(0.125)
