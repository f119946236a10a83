import copy
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import assert_same_networks, assert_same_runs

import preluflow as pf
from preluflow import _threads

# digest() runs a descent on several threads and returns its bits.
DIGEST = """
import hashlib, multiprocessing, os, signal, sys
import preluflow as pf

def digest(_=None):
    signal.alarm(60)  # a hang ends here
    data = pf.OrthonormalGMM(40, 2, 2, 0.1, rng=0).sample(2000, rng=1)
    run = pf.gradient_descent(pf.initialize(150, 40, 0.1, rng=2), data.X, data.y, step=0.1, steps=5, num_threads=3)
    signal.alarm(0)
    return hashlib.sha256(run.network.directions.tobytes() + run.network.log_norm.tobytes()).hexdigest()
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@needs_fork
def test_a_forked_child_of_a_parallel_parent_does_not_hang(run_python):
    done = run_python(
        DIGEST
        + """
from preluflow import _threads
before, threads = digest(), _threads.default()
child = os.fork()
if child == 0:
    status = 1
    try:
        status = 0 if digest() == before and _threads.default() == threads else 2
    finally:
        os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert digest() == before  # and the parent goes on
"""
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("method", [pytest.param("fork", marks=needs_fork), "spawn"])
def test_a_pool_of_processes_finds_the_same_bits(run_python, tmp_path, method):
    # spawn imports the main module again, so it must be a file.
    script = tmp_path / "pool.py"
    script.write_text(
        DIGEST
        + f"""
if __name__ == "__main__":
    before = digest()
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        assert pool.map(digest, range(3)) == [before] * 3
"""
    )
    done = run_python(script)
    assert done.returncode == 0, done.stderr


def test_python_threads_may_train_at_once(small):
    network, data, gmm = small
    observe = pf.Observe(every=3, what=["loss", "alignment", "distance_bracket"], gmm=gmm)

    def train(threads):
        return pf.gradient_descent(
            network, data.X, data.y, step=0.1, steps=30, observe=observe, num_threads=threads % 3 + 1
        )

    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(train, range(8)))
    for run in runs:
        assert_same_runs(run, runs[0])


def test_bits_depend_on_neither_threads_nor_load():
    """Alone and beside processes that take helpers off their processors, within tasks too."""
    data = pf.OrthonormalGMM(60, 2, 2, 0.1, rng=0).sample(1500, rng=1)
    network = pf.initialize(150, 60, 0.1, rng=2)

    def train(threads):
        X, y = data.X, data.y
        yield pf.gradient_descent(network, X, y, step=0.1, steps=5, num_threads=threads)
        yield pf.sgd(network, X, y, step=0.02, batch=100, epochs=4, rng=3, num_threads=threads)
        yield pf.gradient_flow(network, X, y, t1=0.5, num_threads=threads)

    def bits(runs):
        return [(run.network.directions.tobytes(), run.network.log_norm.tobytes()) for run in runs]

    alone = bits(train(1))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * _threads.processors())]
    try:
        assert [bits(train(threads)) for threads in (1, 2, 3)] == [alone] * 3
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_a_network_that_was_used_can_be_pickled_and_copied(small):
    network, data, _ = small
    f = network.decision_function(data.X)
    for twin in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network), copy.copy(network)):
        assert_same_networks(twin, network)
        np.testing.assert_array_equal(twin.decision_function(data.X), f)


@pytest.mark.parametrize("count", [1, 3])
def test_omp_num_threads_is_the_default_up_to_the_processors(run_python, count):
    done = run_python("from preluflow import _threads; print(_threads.default())", env={"OMP_NUM_THREADS": str(count)})
    assert done.stdout.split() == [str(min(count, _threads.processors()))]


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="no list of a process's threads on this system")
def test_radii_on_one_thread_leave_the_processors_to_others(run_python):
    """No thread but the caller's works meanwhile, those of NumPy's BLAS neither: they are not used, or held back."""
    done = run_python(
        """
import os
import time
import numpy as np
import preluflow as pf

def ticks():  # of processor time that threads other than this one have had
    used = 0
    for task in set(os.listdir("/proc/self/task")) - {str(os.getpid())}:
        fields = open(f"/proc/self/task/{task}/stat").read().rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used

gmm = pf.OrthonormalGMM(400, 3, 2, 0.1, rng=0)
data = gmm.sample(1500, balanced=True, dtype="float64", rng=1)
network = pf.initialize(60, 400, 0.3, nudge=0.8, centers=gmm, dtype="float64", rng=2)
for level, rows in (("fast", 1500), ("tight", 80), ("exact", 8)):
    before = ticks()
    pf.robust_radius(network, data.X[:rows], data.y[:rows], level, max_nodes=50, num_threads=1)
    assert ticks() - before <= 1, (level, ticks() - before)
gmm = pf.OrthonormalGMM(400, 20, 20, 0.1, rng=0)  # products large enough for a BLAS to share out
data = gmm.sample(200, balanced=True, dtype="float64", rng=1)
before, own = ticks(), time.thread_time()
pf.robust_radius(pf.classifiers.NearestCluster(gmm), data.X, data.y, restarts=1, steps=10, num_threads=1)
others, own = (ticks() - before) / os.sysconf("SC_CLK_TCK"), time.thread_time() - own
assert others < 0.25 * own, (others, own)  # helpers that were at work until then go on waiting for a while
"""
    )
    assert done.returncode == 0, done.stderr
