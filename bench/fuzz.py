"""Hostile input for as long as you like: brackets of any network, arguments, files, kills, signals, process limits.

    python bench/fuzz.py --seconds 600 --seed 0
    python bench/fuzz.py --only certificates --points 1000000        # fast; a fifth of it at tight, a fiftieth at exact
    python bench/fuzz.py --only certificates --level exact --points 20000 --jobs 2
    python bench/fuzz.py --only general --nets 20000                 # at each level in turn: a third of it each

Every case follows from the seed and its number and is printed as Python to paste when a claim fails. Prints a table at
the end; exit code 1 after any violation; writes nothing but with ``--save``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

LEVELS = ("fast", "tight", "exact")
SHARE = {"fast": 1.0, "tight": 0.2, "exact": 0.02}  # of --points
BLOCK = {"fast": 300, "tight": 150, "exact": 20}  # nets of a task
TOLD = 2  # examples of each claim
# Parts of colleagues: module and functions, each (seconds, seed) -> dict of counts and failures.
OTHERS = {
    "arguments": ("fuzz_arguments", ("arguments",)),
    "files": ("fuzz_files", ("bit_flips",)),
    "kills": ("fuzz_files", ("kills",)),
    "signals": ("fuzz_signals", ("signals",)),
    "process": ("fuzz_process", ("limits", "forks")),
}
PARTS = ("certificates", "general", *OTHERS)
GENERAL_BLOCK = 40  # nets of a task of general networks
GENERAL_NODES = 300  # of level exact there


# ---- certificates


def brackets_of_block(level, seed, first, count):
    """Claims and quality of ``count`` nets from number ``first`` on: what a worker does."""
    import hostile_nets as hostile

    numbers = range(first, first + count)
    by_dim = {}
    for index in numbers:
        by_dim.setdefault(hostile.dimension(index), []).append(index)
    result = {"points": 0, "claims": Counter(), "told": [], "ask": 0.0, "worst": (0.0, ""), "close": np.zeros(3)}
    rng = np.random.default_rng([seed, first, LEVELS.index(level)])
    for dim, indices in by_dim.items():
        batch = hostile.make(seed, indices, dim)
        found = hostile.ask(batch, level)
        result["ask"] += float(found.seconds.sum())
        slowest = int(found.seconds.argmax())
        worst = (float(found.seconds[slowest]) / hostile.POINTS, batch.specs[slowest].name)
        result["worst"] = max(result["worst"], worst)
        wrong = hostile.violations(batch, found, level, rng=rng)
        wrong += hostile.differences(batch, found, level, rng, share=0.1)
        if level == "exact":
            wrong += hostile.against_exact(batch, found)
        if dim == 2:
            rows, lower, upper = hostile.quality(batch, found)
            result["close"] += (lower > 0.99).sum(), (upper > 1.01).sum(), len(rows)
        result["points"] += len(batch.X)
        for violation in wrong:
            if result["claims"][violation.claim] < TOLD:
                result["told"].append((violation.claim, violation.text))
            result["claims"][violation.claim] += 1
    return level, result


def tasks(levels, seed, points):
    """Blocks of nets of every level, in turn, so that their points keep the ratio of SHARE; endless without points."""
    from hostile_nets import POINTS

    done, first = dict.fromkeys(levels, 0), dict.fromkeys(levels, 0)
    while True:
        left = [level for level in levels if points is None or done[level] < points[level]]
        if not left:
            return
        level = min(left, key=lambda name: done[name] / SHARE[name])
        yield level, seed, first[level], BLOCK[level]
        first[level] += BLOCK[level]
        done[level] += BLOCK[level] * POINTS


def certificates(seconds, seed, levels=LEVELS, points=None, jobs=2, patient=False):
    """Brackets of hostile nets against the oracle; returns counts, failures and a table."""
    end = np.inf if patient else time.monotonic() + seconds
    totals = {
        level: {"points": 0, "claims": Counter(), "ask": 0.0, "worst": (0.0, ""), "close": np.zeros(3)}
        for level in levels
    }
    failures, told, work = [], Counter(), tasks(levels, seed, points)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        running = set()
        while True:
            while len(running) < jobs + 1 and time.monotonic() < end and (task := next(work, None)) is not None:
                running.add(pool.submit(brackets_of_block, *task))
            if not running:
                break
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ready:
                level, found = future.result()
                total = totals[level]
                for name in ("points", "claims", "ask"):
                    total[name] += found[name]
                total["worst"] = max(total["worst"], found["worst"])
                total["close"] += found["close"]
                for claim, text in found["told"]:
                    told[level, claim] += 1
                    if told[level, claim] <= TOLD:
                        failures.append(text)
    return {"totals": totals, "failures": failures, "rows": certificate_rows(totals)}


def certificate_rows(totals):
    """Lines of the table."""
    rows = []
    for level, total in totals.items():
        sharp, long, plane = total["close"]
        wrong = sum(total["claims"].values())
        rows.append((f"certificates, {level}", total["points"], wrong, ""))
        rows += [(f"    {claim}", "", count, "") for claim, count in total["claims"].most_common()]
        if plane:
            rows.append(("    in the plane: lower > 0.99 exact", int(plane), "", f"{sharp / plane:.2%}"))
            rows.append(("    in the plane: upper > 1.01 exact", int(plane), "", f"{long / plane:.2%}"))
        if total["points"]:
            rows.append(
                ("    ms a point, and at the slowest net", "", "", f"{1e3 * total['ask'] / total['points']:.3g}")
            )
            rows.append((f"        {total['worst'][1]}", "", "", f"{1e3 * total['worst'][0]:.3g}"))
    return rows


# ---- general networks: offsets, biases, centres, normalised input, several outputs, tanh


def general_block(level, seed, first, count):
    """Claims and quality of ``count`` general nets from number ``first`` on: what a worker does."""
    import general_nets

    result = {"nets": count, "points": 0, "claims": Counter(), "told": [], "ratios": []}
    for index in range(first, first + count):
        case = general_nets.make(seed, index)
        try:
            seen = general_nets.check(case, level, max_nodes=GENERAL_NODES)
        except Exception as error:  # whatever it is, it is a finding
            found = [("raises nothing", f"# {case.name}, {level}: {error!r}\n{case.code(level)}")]
        else:
            found = [(violation.claim, violation.text) for violation in seen.violations]
            result["points"] += len(case.X)
            known = np.isfinite(seen.nearest) & (seen.nearest > 0)
            result["ratios"] += zip(
                seen.lower[known] / seen.nearest[known], seen.upper[known] / seen.nearest[known], strict=True
            )
        for claim, text in found:
            if result["claims"][claim] < TOLD:
                result["told"].append((claim, text))
            result["claims"][claim] += 1
    return level, result


def general(seconds, seed, levels=LEVELS, nets=None, jobs=2):
    """Brackets of general nets against brute force: until the time is over, or of so many nets, levels in turn."""
    end = time.monotonic() + seconds if nets is None else np.inf
    totals = {level: {"nets": 0, "points": 0, "claims": Counter(), "ratios": []} for level in levels}
    failures, told, first = [], Counter(), 0
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = set()
        while True:
            while len(running) < jobs + 1 and time.monotonic() < end and (nets is None or first < nets):
                count = GENERAL_BLOCK if nets is None else min(GENERAL_BLOCK, nets - first)
                level = levels[first // GENERAL_BLOCK % len(levels)]
                running.add(pool.submit(general_block, level, seed, first, count))
                first += count
            if not running:
                break
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            for level, found in (future.result() for future in ready):
                for name in ("nets", "points", "claims", "ratios"):
                    totals[level][name] += found[name]
                for claim, text in found["told"]:
                    told[level, claim] += 1
                    if told[level, claim] <= TOLD:
                        failures.append(text)
    return {"totals": totals, "failures": failures, "rows": general_rows(totals)}


def general_rows(totals):
    """Lines of the table."""
    rows = []
    for level, total in totals.items():
        wrong = sum(total["claims"].values())
        rows.append((f"general, {level}, {total['nets']} nets", total["points"], wrong, ""))
        rows += [(f"    {claim}", "", count, "") for claim, count in total["claims"].most_common()]
        if total["ratios"]:
            lower, upper = np.array(total["ratios"]).T
            rows.append(("    lower / nearest error found, median", len(lower), "", f"{np.median(lower):.4f}"))
            rows.append(("    upper > 1.001 of it", int((upper > 1.001).sum()), "", f"{np.mean(upper > 1.001):.2%}"))
    return rows


# ---- the other parts


def other_part(name, seconds, seed):
    """What a part of its own module found; a note where it is not there."""
    module, functions = OTHERS[name]
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return {"rows": [(name, "", "", f"no bench/{module}.py here")], "failures": []}
    rows, failures = [], []
    for function in functions:
        found = getattr(loaded, function)(seconds / len(functions), seed)
        counts = {key: value for key, value in found.items() if isinstance(value, (int, float))}
        bad = [str(failure) for failure in found.get("failures", [])]
        rows.append(
            (f"{name}: {function}", "", len(bad), ", ".join(f"{key} {value:g}" for key, value in counts.items()))
        )
        failures += bad
    return {"rows": rows, "failures": failures}


def show(rows, seconds):
    """Print the table."""
    width = max(len(str(row[0])) for row in rows)
    print(f"\n{'':{width}} {'points':>10} {'violations':>11}")
    for name, points, wrong, note in rows:
        print(f"{name:{width}} {points!s:>10} {wrong!s:>11}  {note}".rstrip())
    print(f"{seconds:.0f} s in all")


def arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="in all; inf for ever (default 600)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be given several times")
    parser.add_argument("--level", choices=LEVELS, action="append", help="of certificates and general; all by default")
    parser.add_argument("--points", type=int, help="of certificates, however long it takes: at the first level given")
    parser.add_argument("--nets", type=int, help="of general networks, however long it takes, all levels together")
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    )
    parser.add_argument("--save", type=Path, help="a JSON file for the table and all failures told")
    return parser.parse_args()


def main():
    """Run what is asked for."""
    options, start = arguments(), time.monotonic()
    parts, levels = options.only or PARTS, tuple(options.level or LEVELS)
    points = options.points and {level: options.points * SHARE[level] / SHARE[levels[0]] for level in levels}
    # Certificates take half of the time, unless they are alone.
    share = {part: 1.0 / len(parts) for part in parts}
    if "certificates" in parts and len(parts) > 1:
        share = {part: 0.5 if part == "certificates" else 0.5 / (len(parts) - 1) for part in parts}
    rows, failures = [], []
    for part in parts:
        seconds = options.seconds * share[part]
        if part == "certificates":
            found = certificates(seconds, options.seed, levels, points or None, options.jobs, bool(points))
        elif part == "general":
            found = general(seconds, options.seed, levels, options.nets, options.jobs)
        else:
            found = other_part(part, seconds, options.seed)
        rows += found["rows"]
        failures += [f"# part {part}\n{text}" for text in found["failures"]]
    for text in failures:
        print(f"\n{text}")
    show(rows, time.monotonic() - start)
    if options.save:
        options.save.write_text(json.dumps({"rows": rows, "failures": failures, "seed": options.seed}, indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
