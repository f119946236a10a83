"""Stiff flows at equal error: preluflow's methods and SciPy's, explicit and implicit, on images as they come.

    python bench/bench_flow_stiff.py [--seeds 5] [--p 2 3] [--scipy RK23 ...] [--out FILE]

300 of scikit-learn's digits at norm 1 and not centred, so that all share a large part; even or odd, squared loss, 16
neurons from N(0, 0.1^2), to t = 400, all in float64. The error E at the end is that of bench_flow.py: over neurons the
larger of the angle of w_j and the difference of log ||w_j||, against preluflow's dop853 at 1e-8. Every method gets the
tolerances 1e-1 .. 1e-6; told is the cheapest with which it is within a level of E on all seeds. Gradients are counted
where they are computed, those for differences of implicit methods among them. Radau takes longer than BDF and is left
out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_flow import TooMany, distance, polar
from measure import write
from scipy.integrate import solve_ivp

import preluflow as pf

T = 400.0
LEVELS = (0.02, 0.002)
TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6)
OURS = ("tsit5", "dopri5", "bosh3", "dop853", "rkc")
SCIPY = ("RK23", "RK45", "DOP853", "LSODA", "BDF")
MOST = 60_000  # gradients of a run before it is given up


@dataclass(frozen=True)
class Problem:
    """Data and start of a seed, and where the flow ends: directions and log-norms."""

    X: np.ndarray
    y: np.ndarray
    start: pf.TwoLayerNetwork
    end: tuple[np.ndarray, np.ndarray]


def problem(p: float, seed: int) -> Problem:
    """Images, labels, network and reference."""
    rng = np.random.default_rng(seed)
    whole = pf.data.load_digits("even-odd")
    some = rng.permutation(len(whole.X))[:300]
    data = pf.data.from_features(whole.X[some], whole.y[some], center=False)
    X, y = data.X.astype("float64"), np.asarray(data.y, dtype="float64")
    start = pf.initialize(16, scale=0.1, kind="gaussian", like=X, p=p, rng=rng)
    run = pf.gradient_flow(start, X, y, t1=T, method="dop853", rtol=1e-8)
    return Problem(X, y, start, (run.network.directions, run.network.log_norm))


def by_preluflow(method: str, tolerance: float, at: Problem) -> tuple[float, int]:
    """Error and gradients."""
    run = pf.gradient_flow(at.start, at.X, at.y, t1=T, method=method, rtol=tolerance, max_steps=MOST // 3)
    if run.status != "finished":
        return np.inf, MOST
    return distance(at.end, (run.network.directions, run.network.log_norm)), run.stats["gradients"]


def by_scipy(method: str, tolerance: float, at: Problem) -> tuple[float, int]:
    """Error and gradients, of raw W and v."""
    (h, dim), count = at.start.directions.shape, 0

    def field(t: float, state: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        if count > MOST:
            raise TooMany
        network = pf.TwoLayerNetwork(state[:-h].reshape(h, dim), state[-h:], p=at.start.p)
        gradient = network.loss_gradient(at.X, at.y, loss="squared", num_threads=1)
        return -np.concatenate([gradient.W.ravel(), gradient.v])

    state = np.concatenate([at.start.W.ravel(), at.start.v])
    try:
        found = solve_ivp(field, (0.0, T), state, method=method, rtol=tolerance, atol=0.01 * tolerance, t_eval=[T])
    except TooMany:
        return np.inf, MOST
    if not found.success:
        return np.inf, count
    return distance(at.end, polar(found.y[:-h, -1].reshape(h, dim))), count


def cheapest(
    solve: Callable[[str, float, Problem], tuple[float, int]], method: str, problems: Sequence[Problem]
) -> dict[float, tuple[float, float, int] | None]:
    """For every level: tolerance, worst error and median gradients of the cheapest that meets it on all seeds."""
    told: dict[float, tuple[float, float, int] | None] = dict.fromkeys(LEVELS)
    for tolerance in TOLERANCES:
        found = []
        for at in problems:
            found.append(solve(method, tolerance, at))
            if found[-1][0] > LEVELS[0]:
                break
        worst, gradients = max(error for error, _ in found), int(np.median([count for _, count in found]))
        for level in LEVELS:
            before = told[level]
            if len(found) == len(problems) and worst <= level and (before is None or gradients < before[2]):
                told[level] = (tolerance, worst, gradients)
        if all(told.values()):
            break
    return told


def main() -> None:
    """Run everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--p", type=float, nargs="+", default=[2.0, 3.0])
    parser.add_argument("--scipy", nargs="*", choices=SCIPY, default=SCIPY, help="implicit ones take minutes a seed")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results = {}
    for p in given.p:
        problems = [problem(p, seed) for seed in range(given.seeds)]
        print(f"p = {p:g}: median gradients (tolerance, worst E) of {given.seeds} seeds at E <= {LEVELS}", flush=True)
        for solve, methods in ((by_preluflow, OURS), (by_scipy, given.scipy)):
            for method in methods:
                told = cheapest(solve, method, problems)
                cells = [f"{x[2]} ({x[0]:g}, {x[1]:.1e})" if x else f"not within {MOST}" for x in told.values()]
                print(f"  {solve.__name__[3:]:10s} {method:8s} {' | '.join(cells)}", flush=True)
                results[f"p{p:g} {solve.__name__[3:]} {method}"] = {str(level): x for level, x in told.items()}
    if given.out:
        write(given.out, results)


if __name__ == "__main__":
    main()
