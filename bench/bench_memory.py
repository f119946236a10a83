"""Memory, streaming and import time; each number comes from a fresh process.

    python bench/bench_memory.py [--folder FOLDER]

- peak memory beyond the inputs of descent and of SGD at n = 20000, D = 2000, h = 200 (aim: 64 MiB);
- one gradient over a float32 memmap of n = 5e3, 5e4, 5e5 rows at D = 1000, h = 200: time per row and private memory;
- what ``import preluflow`` takes beyond ``import numpy`` (aim: 0.25 s).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PRELUDE = """
import ctypes, sys, time
import numpy as np
import preluflow as pf

def private_kib(field):  # VmHWM is the peak of all resident memory, RssAnon what is not backed by a file
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1])
"""

PEAK = """
gmm = pf.OrthonormalGMM(2000, 12, 8, 0.1, rng=0)
X = np.empty((20000, 2000), np.float32)
data = gmm.sample(20000, rng=1, out=X)
net = pf.initialize(200, 2000, 1e-2, rng=2)
ctypes.CDLL(None).malloc_trim(0)  # give back what drawing the data took, and forget its peak
open("/proc/self/clear_refs", "w").write("5")
before = private_kib("VmHWM")
if sys.argv[1] == "descent":
    pf.gradient_descent(net, X, data.y, step=0.1, steps=3)
else:
    pf.sgd(net, X, data.y, step=0.1, batch=100, epochs=1, rng=0)
print((private_kib("VmHWM") - before) / 1024)
"""

STREAM = """
n, path = int(sys.argv[1]), sys.argv[2]
gmm = pf.OrthonormalGMM(1000, 5, 5, 0.1, rng=0)
X = np.memmap(path, np.float32, "w+", shape=(n, 1000))
data = gmm.sample(n, rng=1, out=X)
X.flush()
X = np.memmap(path, np.float32, "r", shape=(n, 1000))
net = pf.initialize(200, 1000, 1e-2, rng=2)
net.loss_gradient(X[:1000], data.y[:1000])
before = private_kib("RssAnon")
run = pf.gradient_descent(net, X, data.y, step=0.1, steps=2, observe=pf.Observe(what=["loss"]))
print(run.stats["seconds_kernel"] / run.stats["gradients"], (private_kib("RssAnon") - before) / 1024)
"""


def fresh(code: str, *arguments: object) -> list[float]:
    """Run code in a process of its own and return the numbers it prints."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, *map(str, arguments)], check=True, capture_output=True, text=True
    )
    return [float(word) for word in done.stdout.split()]


def import_seconds(module: str) -> float:
    """Median time of ``import module`` over fresh processes."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    run = [sys.executable, "-c", code]
    times = [float(subprocess.run(run, check=True, capture_output=True, text=True).stdout) for _ in range(15)]
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the memmap goes (2 GB)")
    folder = parser.parse_args().folder
    for method in ("descent", "sgd"):
        print(f"peak beyond the inputs, {method}: {fresh(PEAK, method)[0]:.1f} MiB")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        for n in (5_000, 50_000, 500_000):
            seconds, mib = fresh(STREAM, n, os.path.join(temporary, "X"))
            per_row = seconds / n * 1e6
            print(f"memmap n={n}: {seconds:.3f} s a gradient, {per_row:.2f} us a row, private +{mib:.1f} MiB")
    numpy_alone, ours = import_seconds("numpy"), import_seconds("preluflow")
    print(f"import: numpy {numpy_alone:.3f} s, preluflow {ours:.3f} s, {ours - numpy_alone:.3f} s more")


if __name__ == "__main__":
    main()
