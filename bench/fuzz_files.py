"""Files at random: damaged, rewritten, and interrupted while they are written. For ``bench/fuzz.py``, or by itself.

    python bench/fuzz_files.py --seconds 600 --seed 1

``bit_flips`` damages saved files and rewrites their parts; whatever loads must be equal or valid, and everything else a
ValueError (on the command line one sentence). ``kills`` sends SIGINT and SIGKILL to processes that save in a loop.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from click.testing import CliRunner

import preluflow as pf
from preluflow.cli import cli
from preluflow.experiments import REGISTRY, Options, Outcome

SLOW = 5.0  # seconds that no load of these small files may take
DRAWN = ("fig1", "fig3")  # experiments that run in a second


# ---- what is saved


def make_run(rng):
    """A short flow or descent with records, events and a random network."""
    gmm = pf.OrthonormalGMM(dim=6, positive=2, negative=1, alpha=0.1, rng=rng)
    data = gmm.sample(30, balanced=True, dtype=rng.choice(["float32", "float64"]), rng=rng)
    network = pf.initialize(5, 6, 0.3, p=rng.uniform(1, 5), dtype=data.X.dtype, rng=rng)
    observe = pf.Observe(every=1, what=["loss", "alignment", "cluster_norms", "target"], gmm=gmm)
    if rng.random() < 0.5:
        return pf.gradient_descent(network, data.X, data.y, step=0.1, steps=5, observe=observe)
    events = [pf.events.loss_below(0.9)]
    return pf.gradient_flow(network, data.X, data.y, t1=4.0, events=events, observe=observe)


def make_radius(rng):
    """A bracket of some points."""
    network = pf.TwoLayerNetwork(rng.standard_normal((4, 3)), rng.standard_normal(4), p=rng.uniform(1, 5))
    return pf.robust_radius(network, rng.standard_normal((9, 3)), rng.choice([-1, 1], 9))


def make_outcomes():
    """Quick outcomes of the experiments drawn below."""
    return {name: REGISTRY[name].run(Options(quick=True)) for name in DRAWN}


def contents(value):
    """All that a result holds, as JSON, to be compared."""
    if isinstance(value, Outcome):
        runs = {key: contents(run) for key, run in value.runs.items()}
        found = [value.name, value.config, runs, value.main, _lists(value.arrays), value.stopped]
    elif isinstance(value, pf.Run):
        found = [_lists(value.arrays()), value.meta()]
    else:
        arrays = {name: getattr(value, name) for name in ("lower", "upper", "witness", "correct")}
        found = [_lists(arrays), value.config, value.environment]
    return json.dumps(found)


def _lists(arrays):
    return {name: [str(array.dtype), array.shape, array.tolist()] for name, array in arrays.items()}


# ---- damage


def damage(whole, rng):
    """Flip bits, cut the file off, repeat, blank or exchange a piece of it."""
    data = bytearray(whole)
    kind = rng.choice(["flip", "flip", "flips", "cut", "blank", "repeat", "swap"])
    a, b = sorted(rng.integers(len(data), size=2).tolist())
    if kind == "cut":
        del data[a:]
    elif kind == "blank":
        data[a : min(b, a + 64)] = bytes(len(data[a : min(b, a + 64)]))
    elif kind == "repeat":
        data[a:a] = data[a : min(b, a + 256)]
    elif kind == "swap":
        piece = data[a : a + 16]
        data[b : b + len(piece)] = piece
    else:
        for bit in rng.integers(8 * len(data), size=1 if kind == "flip" else 5).tolist():
            data[bit // 8] ^= 1 << bit % 8
    return kind, bytes(data)


VALUES = [
    None,
    True,
    0,
    -1,
    3,
    10**9,
    10**400,
    0.5,
    -0.5,
    float("nan"),
    float("inf"),
    "",
    "word",
    "\ud800",
    [],
    [1, 2],
    {},
]


def wrong_array(array, rng):
    """Another array in its place: of another shape, dtype or content."""
    kind = rng.choice(["nan", "inf", "negative", "huge", "words", "integers", "bool", "complex", "f2"] + ["shape"] * 6)
    numeric = array.dtype.kind in "biuf"
    if kind in ("nan", "inf", "negative", "huge") and numeric and array.size:
        changed = array.astype(np.float64)
        value = {"nan": np.nan, "inf": np.inf, "negative": -1.0, "huge": 1e300}[kind]
        changed.reshape(-1)[rng.integers(array.size, size=rng.integers(1, 4))] = value
        return kind, changed
    if kind == "shape":
        shapes = [(0,), (), (1,), (array.size,), (*array.shape, 1), (1, *array.shape), array.shape[::-1], (10**6,)]
        shapes += [array.shape[1:], tuple(n + 1 for n in array.shape), tuple(max(n - 1, 0) for n in array.shape)]
        return kind, np.resize(array, shapes[rng.integers(len(shapes))])
    dtypes = {"words": str, "integers": np.int64, "bool": bool, "complex": complex, "f2": np.float16}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind, array.astype(dtypes.get(kind, str)) if numeric else np.zeros(3)


def rewrite(arrays, meta, rng):
    """Exchange, drop or add one or two parts of a file, its checksums true."""
    kinds = []
    for _ in range(rng.integers(1, 3)):
        kind = rng.choice(["array", "array", "drop", "rename", "meta", "meta", "drop meta"])
        if "meta" in kind:
            place, key = _somewhere(meta, rng)
            if kind == "drop meta":
                del place[key]
            else:
                place[key] = VALUES[rng.integers(len(VALUES))]
        elif arrays:
            name = rng.choice(list(arrays))
            if kind == "array":
                more, arrays[name] = wrong_array(arrays[name], rng)
                kind = f"array {more}"
            else:
                array = arrays.pop(name)
                if kind == "rename":
                    arrays[rng.choice(["x", "/x", "", "record.x", "noisy/t"])] = array
        kinds.append(str(kind))
    return kinds[-1]


def _somewhere(meta, rng):
    """A dict within the metadata, and one of its keys."""
    place = meta
    while True:
        key = rng.choice([name for name in place if name not in ("schema", "kind")])  # without which nothing is read
        if not isinstance(place[key], dict) or not place[key] or rng.random() < 0.3:
            return place, key
        place = place[key]


# ---- damaged and rewritten files


def bit_flips(seconds, seed):
    """Damage and rewrite saved files for so long; return counts and failures (messages).

    Parameters
    ----------
    seconds : float
        How long.
    seed : int
        Of everything random.

    Returns
    -------
    dict
        ``files`` looked at, of them ``refused``, ``equal`` and ``valid``; ``drawn`` and ``not_drawn`` by ``--from``;
        ``kinds`` of damage; ``seconds``, ``slowest`` load, and ``failures``.
    """
    rng, began = np.random.default_rng(seed), time.monotonic()
    counts, kinds, failures, slowest = Counter(), Counter(), [], 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        drawable = make_outcomes()
        while time.monotonic() - began < seconds:
            values = [make_run(rng), make_radius(rng), *drawable.values()]
            for value in values:
                value.save(folder / "good.npz")
                whole = (folder / "good.npz").read_bytes()
                expected = contents(value)
                for _ in range(60):
                    kind, took = _one_file(value, whole, expected, folder, rng, counts, failures)
                    kinds[str(kind)] += 1
                    slowest = max(slowest, took)
                if isinstance(value, Outcome):
                    _draw_some(value, whole, folder, rng, counts, failures)
    return {
        **counts,
        "kinds": dict(kinds),
        "seconds": time.monotonic() - began,
        "slowest": slowest,
        "failures": failures,
    }


def _one_file(value, whole, expected, folder, rng, counts, failures):
    path = folder / "x.npz"
    if rng.random() < 0.5:
        kind, data = damage(whole, rng)
        path.write_bytes(data)
    else:
        kind = _write_rewritten(path, folder / "good.npz", rng)
    counts["files"] += 1
    start = time.monotonic()
    try:
        loaded = type(value).load(path)
    except ValueError as error:
        counts["refused"] += 1
        if "x.npz" not in str(error) or "\n" in str(error):
            failures.append(f"{type(value).__name__}, {kind}: {error!r} does not name the file in one line")
    except Exception as error:
        failures.append(f"{type(value).__name__}, {kind}: {error!r} instead of ValueError")
    else:
        _judge(loaded, expected, kind, folder, counts, failures)
    took = time.monotonic() - start
    if took > SLOW:
        failures.append(f"{type(value).__name__}, {kind}: {took:.1f} s")
    return kind, took


def _judge(loaded, expected, kind, folder, counts, failures):
    """What was damaged must be equal; what was rewritten must at least be saved and loaded again unchanged."""
    found = contents(loaded)
    if found == expected:
        counts["equal"] += 1
        return
    counts["valid"] += 1
    if kind in ("flip", "flips", "cut", "blank", "repeat", "swap"):
        failures.append(f"{type(loaded).__name__}, {kind}: other contents were loaded")
    try:
        loaded.save(folder / "again.npz")
        again = contents(type(loaded).load(folder / "again.npz"))
    except Exception as error:
        failures.append(f"{type(loaded).__name__}, {kind}: loaded, but not saved and loaded again: {error!r}")
    else:
        if again != found:
            failures.append(f"{type(loaded).__name__}, {kind}: saved and loaded again it is another")


def _write_rewritten(path, source, rng):
    with np.load(source) as stored:
        arrays = {name: stored[name] for name in stored.files}
    meta = json.loads(str(arrays.pop("meta")))
    kind = rewrite(arrays, meta, rng)
    np.savez_compressed(path, **arrays, meta=np.array(json.dumps(meta)))
    return kind


def _draw_some(outcome, whole, folder, rng, counts, failures, tries=4):
    """Redraw rewritten files on the command line: a picture, or one sentence and exit code 1."""
    path = folder / "drawn.npz"
    for _ in range(tries):
        kind = _write_rewritten(path, folder / "good.npz", rng)
        start = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arguments = ["reproduce", outcome.name, "--from", str(path), "--out", str(folder / "out"), "--profile"]
            result = CliRunner().invoke(cli, arguments)
        took = time.monotonic() - start
        counts["drawn" if result.exit_code == 0 else "not_drawn"] += 1
        one_sentence = result.output.startswith("Error: --from:") and len(result.output.splitlines()) == 1
        if result.exit_code != 0 and not (result.exit_code == 1 and one_sentence):
            failures.append(f"{outcome.name}, {kind}: {result.exception!r}, {result.output[:200]!r}")
        if took > 4 * SLOW:
            failures.append(f"{outcome.name}, {kind}: drawn in {took:.1f} s")


# ---- killed processes

SAVING = """
import pathlib, signal, sys
import numpy as np
import preluflow as pf
from preluflow import _files
signal.signal(signal.SIGINT, signal.default_int_handler)
folder, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(seed)
lower = rng.random(300)
radius = pf.RobustRadius(lower, 2 * lower, rng.standard_normal((300, 40)), lower > 0.1)
print("ready", flush=True)
while True:
    radius.save(folder / "x.npz")
    _files.write_file(folder / "x.png", lambda stream: stream.write(b"whole " * 1000))
"""


def kills(seconds, seed):
    """Kill and interrupt processes that save for so long; return counts and failures (messages).

    Parameters
    ----------
    seconds : float
        How long.
    seed : int
        Of everything random, but for when a signal arrives.

    Returns
    -------
    dict
        ``interrupted`` and ``killed`` processes, ``leftovers`` of the latter, ``seconds`` and ``failures``.
    """
    rng, began = np.random.default_rng(seed), time.monotonic()
    counts, failures = Counter(interrupted=0, killed=0, leftovers=0), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        while time.monotonic() - began < seconds:
            number = signal.SIGINT if rng.random() < 0.5 else signal.SIGKILL
            errors = _stopped(folder, number, rng)
            if number == signal.SIGINT:
                counts["interrupted"] += 1
                if "KeyboardInterrupt" not in errors.splitlines()[-1:] or "Exception ignored" in errors:
                    failures.append(f"SIGINT became {errors[-300:]!r}")
            else:
                counts["killed"] += 1
            _check_folder(folder, number, counts, failures)
    return {**counts, "seconds": time.monotonic() - began, "failures": failures}


def _stopped(folder, number, rng):
    """Start a process that saves, send it a signal at a random moment, return its stderr."""
    command = [sys.executable, "-c", SAVING, str(folder), str(rng.integers(1 << 30))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.1))
        process.send_signal(number)
        return process.communicate(timeout=60)[1]


def _check_folder(folder, number, counts, failures):
    """The files are whole or not there; only SIGKILL leaves temporaries, and when old they go with the next save."""
    temporaries = [name for name in os.listdir(folder) if name.startswith(".preluflow-")]
    if number == signal.SIGINT and temporaries:
        failures.append(f"SIGINT left {temporaries}")
    counts["leftovers"] += len(temporaries)
    for name in temporaries:
        os.utime(folder / name, (time.time() - 7200.0,) * 2)
    try:
        if (folder / "x.npz").exists():
            pf.RobustRadius.load(folder / "x.npz")
        if (folder / "x.png").exists() and (folder / "x.png").read_bytes() != b"whole " * 1000:
            failures.append("a picture is not whole")
    except ValueError as error:
        failures.append(f"after {signal.Signals(number).name}: {error}")
    make_radius(np.random.default_rng(0)).save(folder / "next.npz")
    rest = [name for name in os.listdir(folder) if name not in ("x.npz", "x.png", "next.npz")]
    if rest:
        failures.append(f"after the next save there are still {rest}")


def main():
    """Run both for so long together and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = {function.__name__: function(options.seconds / 2, options.seed) for function in (bit_flips, kills)}
    print(json.dumps(found, indent=2))
    sys.exit(any(part["failures"] for part in found.values()))


if __name__ == "__main__":
    main()
