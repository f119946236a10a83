"""SIGINT at random moments to a process in ``robust_radius``: answered soon, with what is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np

SOON = 0.5  # seconds to answer within on a machine that does nothing else
BUSY = 1.0  # what is allowed here
PATIENCE = 60.0  # seconds until a process that does not answer is killed

# Tells the points it did alone, so that what is kept can be compared; then waits for the signal in a long call.
CHILD = """
import signal, sys, time
import numpy as np
import preluflow as pf

signal.signal(signal.SIGINT, signal.default_int_handler)
level, seed, width, dim = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
rng = np.random.default_rng(seed)
W, v = rng.standard_normal((width, dim)), rng.standard_normal(width)
net = pf.TwoLayerNetwork(W, v, p=float(rng.choice([1, 3])))
X = rng.standard_normal((20000, dim))
y = np.where(net.decision_function(X) > 0, 1.0, -1.0)
short = pf.robust_radius(net, X[:2], y[:2], "fast")
print("go", flush=True)
try:
    found = pf.robust_radius(net, X, y, level)
except KeyboardInterrupt:
    print("interrupted 0", flush=True)
else:
    whole = bool(np.isfinite(found.lower).all() and np.isfinite(found.upper).all() and found.consistent.all())
    same = level != "fast" or len(found.lower) < 2 or bool((found.lower[:2] == short.lower).all())
    print("returned", len(found.lower), whole, same, flush=True)
"""


def one(level, seed, delay, width=1000, dim=100):
    """Seconds until a process answered a SIGINT sent ``delay`` seconds after it began, and what it said."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, level, str(seed), str(width), str(dim)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    try:
        if child.stdout.readline().strip() != "go":
            return np.nan, "did not start: " + child.communicate()[1][-300:]
        time.sleep(delay)
        start = time.perf_counter()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE)
        return time.perf_counter() - start, out.strip() or f"exit code {child.returncode}: {err[-300:]}"
    except subprocess.TimeoutExpired:
        return np.inf, f"no answer within {PATIENCE:g} s"
    finally:
        child.kill()
        child.wait()


def verdict(level, seed, delay, seconds, said):
    """What is wrong with an answer, or None."""
    told = f"level {level}, seed {seed}, SIGINT after {delay:.3f} s: answered after {seconds:.2f} s with {said!r}"
    words = said.split()
    if words[:1] == ["interrupted"]:
        # Nothing kept: right only if not one point can have been done.
        return told + " (nothing kept)" if level != "exact" and delay > 1.0 else told if seconds > BUSY else None
    if words[:1] != ["returned"] or words[2:] != ["True", "True"]:
        return told
    return told if seconds > BUSY else None


def signals(seconds, seed):
    """SIGINT at every level at random moments; counts, the slowest answer, and failures."""
    rng, end = np.random.default_rng(seed), time.monotonic() + seconds
    sent, slowest, failures = 0, 0.0, []
    while sent == 0 or time.monotonic() < end:
        for level in ("fast", "tight", "exact"):
            delay = float(rng.choice([rng.uniform(0.0, 0.05), rng.uniform(0.0, 3.0)]))
            number = int(rng.integers(2**31))
            took, said = one(level, number, delay)
            sent += 1
            slowest = max(slowest, 0.0 if np.isnan(took) else took)
            failure = verdict(level, number, delay, took, said)
            if failure:
                failures.append(failure)
            if time.monotonic() > end:
                break
    return {"sent": sent, "slowest answer, s": slowest, "failures": failures}


if __name__ == "__main__":
    print(signals(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, 0))
