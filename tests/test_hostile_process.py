"""No threads to be had, memory that ends, forks at a bad time: an answer or an exception, never a dead process."""

import json
import os
import sys

import numpy as np
import pytest
from conftest import assert_same_runs

import preluflow as pf
from preluflow import _arrays, _threads

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits as Linux has them")

SETUP = """
import json, os, signal, sys, threading
import numpy as np
import preluflow as pf
signal.alarm(50)  # a hang ends here
gmm = pf.OrthonormalGMM(40, 2, 2, 0.1, rng=0)
data = gmm.sample(2000, rng=1)
net = pf.initialize(200, 40, 0.1, rng=2)
"""


def outcome(done):
    """What a script printed last, once it has ended well."""
    assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


# ---- how many threads


@pytest.mark.parametrize("count", [1, 2, 100_000, 2**31 - 1, 2**31, 2**64, 10**400, np.int64(7)])
def test_any_positive_number_of_threads_is_capped_at_the_processors(count):
    threads = _arrays.threads(count)
    assert type(threads) is int
    assert threads == min(int(count), _threads.processors())


@pytest.mark.parametrize("count", [0, -1, -(2**63), -(10**400)])
def test_no_threads_is_a_value_error(count):
    with pytest.raises(ValueError, match="num_threads must be at least 1"):
        _arrays.threads(count)


@pytest.mark.parametrize("count", [True, np.True_, 1.0, float("nan"), "2", [2], (), np.array([2, 3])])
def test_what_is_no_integer_is_a_type_error(count):
    with pytest.raises(TypeError, match="num_threads must be an integer"):
        _arrays.threads(count)


def test_100000_threads_give_the_bits_of_one(small):
    network, data, _ = small
    for call in (network.decision_function, network.input_gradient):
        np.testing.assert_array_equal(call(data.X, num_threads=100_000), call(data.X, num_threads=1))
    many = pf.robust_radius(network, data.X, data.y, num_threads=10**400)
    one = pf.robust_radius(network, data.X, data.y, num_threads=1)
    for name in ("lower", "upper", "witness", "correct"):
        np.testing.assert_array_equal(getattr(many, name), getattr(one, name))


@pytest.mark.parametrize("count", [-(2**31), -1, 0, 1, 2, 3, 17, 300])
def test_the_core_itself_takes_any_number_and_finds_the_same_bits(count):
    data = pf.OrthonormalGMM(40, 2, 2, 0.1, rng=0).sample(2000, rng=1)
    network = pf.initialize(200, 40, 0.1, rng=2)
    np.testing.assert_array_equal(network._core.forward(data.X, count), network._core.forward(data.X, 1))
    for one, other in zip(
        network._core.input_gradient(data.X, count), network._core.input_gradient(data.X, 1), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("count", [3, 16])
def test_more_threads_than_processors_find_the_same_bits(monkeypatch, count):
    monkeypatch.setattr(_threads, "processors", lambda: 16)
    gmm = pf.OrthonormalGMM(40, 2, 2, 0.1, rng=0)
    data = gmm.sample(1000, rng=1)
    network = pf.initialize(150, 40, 0.1, rng=2)
    one, many = (
        [
            pf.gradient_descent(network, data.X, data.y, step=0.1, steps=2, num_threads=threads),
            pf.sgd(network, data.X, data.y, step=0.1, batch=50, epochs=1, rng=0, num_threads=threads),
            pf.gradient_flow(network, data.X, data.y, t1=0.1, num_threads=threads),
        ]
        for threads in (1, count)
    )
    for a, b in zip(one, many, strict=True):
        assert_same_runs(a, b)
    one, many = (pf.robust_radius(network, data.X[:60], data.y[:60], num_threads=threads) for threads in (1, count))
    np.testing.assert_array_equal(one.lower, many.lower)
    np.testing.assert_array_equal(one.witness, many.witness)


ASK = """
import json, warnings
warnings.simplefilter("always")
from preluflow import _threads
print(json.dumps([_threads.default(), _threads.default(), _threads.processors()]))
"""


@pytest.mark.parametrize(
    ("text", "asked"),
    [("1", 1), (" 1 ", 1), ("1,4", 1), ("100000", 100_000), ("9" * 30, 10**30), ("0002", 2), ("", None)],
)
def test_omp_num_threads_is_taken_up_to_the_processors(run_python, text, asked):
    done = run_python(ASK, env={"OMP_NUM_THREADS": text})
    first, again, processors = outcome(done)
    assert first == again == (processors if asked is None else min(asked, processors))
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("text", ["abc", "-3", "0", "2.5", "1e3", "\u0664", ",2"])
def test_nonsense_in_omp_num_threads_is_warned_of_once(run_python, text):
    done = run_python(ASK, env={"OMP_NUM_THREADS": text, "PYTHONIOENCODING": "utf-8"})
    first, again, processors = outcome(done)
    assert first == again == processors
    assert done.stderr.count("Warning: OMP_NUM_THREADS=") == 1


@on_linux
def test_affinity_counts(run_python):
    script = """
import json, os
from preluflow import _threads
before = _threads.processors()
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(json.dumps([before, _threads.processors(), _threads.default()]))
"""
    before, after, default = outcome(run_python(script, env={"OMP_NUM_THREADS": "64"}))
    assert before >= 1
    assert after == default == 1


def control_groups(root, membership, **files):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for path, text in files.items():
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return _threads.quota(root)


V1 = {"quota": "cpu.cfs_quota_us", "period": "cpu.cfs_period_us"}


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/../other\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/not/mounted/here\n", {"cpu.max": "700000 100000"}, 7),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {"cpu.max": "0 0"}, None),
        ("", {}, None),
        ("garbage\n::\n", {}, None),
        (
            "3:cpu,cpuacct:/d\n",
            {f"cpu,cpuacct/d/{V1['quota']}": "250000\n", f"cpu,cpuacct/d/{V1['period']}": "100000\n"},
            3,
        ),
        ("3:cpu,cpuacct:/d\n", {f"cpu/{V1['quota']}": "50000\n", f"cpu/{V1['period']}": "100000\n"}, 1),
        ("1:cpu:/\n", {f"cpu/{V1['quota']}": "-1\n", f"cpu/{V1['period']}": "100000\n"}, None),
        ("2:cpuset:/\n", {f"cpuset/{V1['quota']}": "100000\n", f"cpuset/{V1['period']}": "100000\n"}, None),
        (
            "1:cpu:/x\n0::/x\n",
            {f"cpu/x/{V1['quota']}": "400000", f"cpu/x/{V1['period']}": "100000", "unified/x/cpu.max": "max 1"},
            4,
        ),
    ],
)
def test_a_control_group_s_share_of_time_counts(tmp_path, membership, files, expected):
    assert control_groups(tmp_path, membership, **files) == expected


def test_no_control_groups_no_limit(tmp_path):
    assert _threads.quota(tmp_path) is None


def test_the_command_line_takes_100000_threads(run_python, tmp_path):
    script = "from preluflow.cli import main; import sys; sys.argv[1:] = sys.argv[1:]; main()"
    done = run_python(script, "reproduce", "fig3", "--quick", "--threads", "100000", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fig3.npz").exists()


# ---- threads that are not to be had


@on_linux
def test_threads_that_cannot_be_started_are_done_without(run_python):
    """Neither process slots nor address space for a stack: the calling thread does it all, to the same bits."""
    script = (
        SETUP
        + """
import resource
wanted = net._core.forward(data.X, 1)
unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
kept = [np.array_equal(net._core.forward(data.X, 8), wanted)]
# Refused by address space: less is left than one stack.
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), unlimited[1]))
kept.append(np.array_equal(net._core.forward(data.X[:1500], 8), wanted[:1500]))
resource.setrlimit(resource.RLIMIT_AS, unlimited)
# Refused by number: root is above that limit, so become nobody in particular.
if os.getuid() == 0:
    os.setuid(54321)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    threading.Thread(target=int).start()
    refused = False
except RuntimeError:
    refused = True
kept.append(np.array_equal(net._core.forward(data.X, 8), wanted))
run = pf.gradient_descent(net, data.X, data.y, step=0.1, steps=3)
print(json.dumps([kept, refused, run.status]))
"""
    )
    kept, refused, status = outcome(run_python(script))
    assert kept == [True] * 3
    assert refused
    assert status == pf.gradient_descent(*_tiny(), step=0.1, steps=3).status


def _tiny():
    data = pf.OrthonormalGMM(5, 1, 1, 0.1, rng=0).sample(10, rng=1)
    return pf.initialize(3, 5, 0.1, rng=2), data.X, data.y


@on_linux
def test_no_threads_are_left_between_calls_and_none_takes_signals(run_python):
    script = (
        SETUP
        + """
import time
tasks = lambda: len(os.listdir("/proc/self/task"))
before, blocked, stop = tasks(), set(), False
def mask_of(task):
    status = open(f"/proc/self/task/{task}/status").read()
    if status.split("State:")[1].split()[0] in "XZ":
        return None
    return int(status.split("SigBlk:")[1].split()[0], 16)
def watch():
    ours.add(threading.get_native_id())
    while not stop:
        for task in os.listdir("/proc/self/task"):
            try:
                mask = mask_of(task)
                if mask is not None and not mask >> (signal.SIGINT - 1) & 1:
                    mask = mask_of(task)  # one that was ending has no mask, and is dead by now
            except OSError:
                continue
            if mask is not None and int(task) not in ours:
                blocked.add(mask)
ours = {int(task) for task in os.listdir("/proc/self/task")}
watcher = threading.Thread(target=watch)
watcher.start()
end = time.monotonic() + 20.0
fault = 1 << (signal.SIGSEGV - 1)  # the C library blocks it too while a thread starts and ends
while not any(mask and not mask & fault for mask in blocked) and time.monotonic() < end:
    net._core.forward(data.X, 3)
stop = True
watcher.join()
while tasks() > before and time.monotonic() < end:  # a thread that was joined is seen for a moment longer
    time.sleep(0.01)
interrupt = all(mask >> (signal.SIGINT - 1) & 1 for mask in blocked)
print(json.dumps([before, tasks(), interrupt, all(mask & fault for mask in blocked)]))
"""
    )
    before, after, interrupt, fault = outcome(run_python(script))
    assert after == before
    assert interrupt
    assert not fault


# ---- memory that ends

LIMITED = (
    SETUP
    + """
import faulthandler, resource, tempfile
from numpy_faults import died_in_numpy
used = lambda: int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
few = gmm.sample(30, rng=3)
look = pf.Observe(every=1, what=["loss", "alignment", "cluster_alignment", "accuracy", "distance_bracket"], gmm=gmm)
kernels = {
    "descent": lambda: pf.gradient_descent(net, data.X, data.y, step=0.1, steps=1, num_threads=2),
    "sgd": lambda: pf.sgd(net, data.X, data.y, step=0.1, batch=100, epochs=1, rng=0, num_threads=2),
    "flow": lambda: pf.gradient_flow(net, data.X, data.y, t1=0.01, method="dop853", num_threads=2),
    "forward": lambda: net.decision_function(data.X, num_threads=2),
    "gradient": lambda: net.input_gradient(data.X, num_threads=2),
    "loss": lambda: net.loss_gradient(data.X, data.y, num_threads=2),
    "fast": lambda: pf.robust_radius(net, few.X, few.y, "fast", num_threads=2),
    "tight": lambda: pf.robust_radius(net, few.X[:4], few.y[:4], "tight", num_threads=2),
    "exact": lambda: pf.robust_radius(net, few.X[:2], few.y[:2], "exact", max_nodes=10, num_threads=2),
    "distance": lambda: pf.distance_bracket(net, gmm, num_threads=2),
    "looking": lambda: pf.gradient_descent(net, few.X, few.y, step=0.1, steps=2, observe=look, num_threads=2),
    "ddn": lambda: pf.attacks.ddn(net, few.X, few.y, steps=3),
}
run = kernels[sys.argv[1]]
small = pf.initialize(3, 40, 0.1, rng=0)
counts = {"answers": 0, "memory errors": 0, "died inside NumPy": 0}
for room in [0, *(1 << k for k in (12, 16, 18, 19, 20, 21, 22, 23, 24, 27)), 3 << 19, 3 << 20]:
    told = tempfile.TemporaryFile("w+")
    child = os.fork()
    if child == 0:
        faulthandler.enable(told, all_threads=False)
        status = 3
        try:
            resource.setrlimit(resource.RLIMIT_AS, (used() + room, resource.RLIM_INFINITY))
            try:
                run()
                status = 0
            except MemoryError:
                status = 1
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            if not np.isfinite(small.decision_function(few.X)).all():  # usable afterwards
                status = 4
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    told.seek(0)
    said = told.read()
    if status in (0, 256):
        counts["memory errors" if status else "answers"] += 1
    elif os.WIFSIGNALED(status) and died_in_numpy(said):
        counts["died inside NumPy"] += 1
    else:
        raise SystemExit(f"with {room} bytes of room: status {status}: {said}")
print(json.dumps(counts))
"""
)


@on_linux
@pytest.mark.parametrize(
    "kernel",
    ["descent", "sgd", "flow", "forward", "gradient", "loss", "fast", "tight", "exact", "distance", "looking", "ddn"],
)
def test_without_memory_there_is_an_answer_or_a_memory_error(run_python, kernel):
    counts = outcome(run_python(LIMITED, kernel))
    assert sum(counts.values()) == 13
    assert counts["answers"] >= 1  # 128 MB are enough
    if kernel in ("descent", "sgd", "flow", "forward", "gradient", "loss"):  # the core alone
        assert counts["died inside NumPy"] == 0


# ---- forks and threads

FORKS = (
    SETUP
    + """
big = gmm.sample(20000, rng=4)
few = gmm.sample(20, rng=3)
wanted = net.decision_function(few.X), pf.robust_radius(net, few.X, few.y).lower
stop = False
def busy():
    while not stop:
        work()
work = {
    "training": lambda: pf.gradient_descent(net, big.X, big.y, step=0.01, steps=2, observe=look),
    "asking": lambda: net.decision_function(big.X),
}[sys.argv[1]]
look = pf.Observe(every=1, what=["loss", "accuracy"])
thread = threading.Thread(target=busy)
thread.start()
good = 0
for k in range(12):
    threading.Event().wait(0.02 * (k % 4))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(10)
            same = np.array_equal(net.decision_function(few.X), wanted[0])
            same = same and np.array_equal(pf.robust_radius(net, few.X, few.y).lower, wanted[1])
            tiny = pf.initialize(50, 40, 0.1, rng=5)
            run = pf.gradient_descent(tiny, data.X, data.y, step=0.1, steps=2, observe=look)
            status = 0 if same and np.isfinite(run["loss"]).all() else 2
        finally:
            os._exit(status)
    good += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop = True
thread.join()
print(json.dumps(good))
"""
)


@needs_fork
@pytest.mark.parametrize("meanwhile", ["training", "asking"])
def test_a_child_forked_while_another_thread_computes_works(run_python, meanwhile):
    assert outcome(run_python("import warnings; warnings.simplefilter('ignore')\n" + FORKS, meanwhile)) == 12


@needs_fork
def test_a_child_forked_by_a_signal_handler_inside_a_run_does_not_hang(run_python):
    script = (
        SETUP
        + """
parent, forked = os.getpid(), []
def handler(*_):
    if not forked:
        forked.append(os.fork())
signal.signal(signal.SIGUSR1, handler)
threading.Timer(0.2, os.kill, (parent, signal.SIGUSR1)).start()
signal.alarm(30)
error = None
try:
    while not forked:
        pf.gradient_descent(net, data.X, data.y, step=0.01, steps=50)
except RuntimeError as raised:
    error = str(raised)
if os.getpid() != parent:
    os._exit(0)  # a child that ends, by going on or by saying that it cannot
assert error is None
print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(forked[0], 0)[1])))
"""
    )
    assert outcome(run_python(script)) == 0


def test_no_lock_is_held_while_a_network_or_an_observer_computes():
    """Two threads are inside the same lazy attribute at once: each waits for the other there."""
    import threading

    barrier, values = threading.Barrier(2), []

    def evaluate():
        barrier.wait(timeout=20)
        return 0.5, np.zeros(3)

    network, X, y = _tiny()
    snapshots = [
        pf.observe.Snapshot(
            iteration=0,
            t=0.0,
            network=network,
            start=network,
            evaluate=evaluate,
            X=X,
            y=y,
            observe=pf.Observe(),
            num_threads=1,
        )
        for _ in range(2)
    ]
    threads = [threading.Thread(target=lambda at=at: values.append(at.loss)) for at in snapshots]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == [0.5, 0.5]


def test_two_threads_make_the_core_s_view_of_one_network_at_once():
    from concurrent.futures import ThreadPoolExecutor

    data = pf.OrthonormalGMM(40, 2, 2, 0.1, rng=0).sample(2000, rng=1)
    wanted = pf.initialize(200, 40, 0.1, rng=2).decision_function(data.X)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            network = pf.initialize(200, 40, 0.1, rng=2)  # its view is made by whoever comes first
            for f in pool.map(lambda _, network=network: network.decision_function(data.X), range(8)):
                np.testing.assert_array_equal(f, wanted)


def test_threads_of_python_get_the_bits_of_one(small):
    from concurrent.futures import ThreadPoolExecutor

    network, data, _ = small
    one = pf.robust_radius(network, data.X, data.y, "tight")
    with ThreadPoolExecutor(2) as pool:
        for radius in pool.map(lambda _: pf.robust_radius(network, data.X, data.y, "tight"), range(4)):
            np.testing.assert_array_equal(radius.lower, one.lower)
            np.testing.assert_array_equal(radius.witness, one.witness)
