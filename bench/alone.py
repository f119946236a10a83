"""What steps of their own would save while every neuron moves alone, in NumPy.

    python bench/alone.py [--seeds 2]

While f is small the residual is that of f = 0, 2 y_i / n, and no neuron feels another. Each could then take steps of
its own length, or, where it has settled, none. On the small problem of bench_flow.py until t = 45 this measures,
against the neurons' own flow to a tolerance of 1e-11:

1. gradients (an evaluation of one neuron's field is a share 1/h of one) of common and of lone steps at equal error, by
   interpolation of log gradients in log error between tolerances. ``weighted`` lets errors of direction count more
   while a neuron grows slowly, since later growth multiplies them;
2. the share of neurons whose direction turns slower than a threshold, averaged over 0 < t < 50: what skipping settled
   neurons could save at most.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

import preluflow as pf
from preluflow.flow import METHODS

T1, P = 45.0, 3
TOLERANCES = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
ERRORS = (2e-2, 1e-2, 1e-3, 1e-4)
SLOW = (1e-3, 1e-4, 1e-5, 1e-6)


class Lone:
    """The field of neurons that do not feel each other, in directions u (of any length) and logs of norms."""

    def __init__(self, seed: int, dim: int = 300, n: int = 1000, width: int = 150) -> None:
        for_gmm, for_data, for_network = np.random.default_rng(seed).spawn(3)
        data = pf.OrthonormalGMM(dim, 5, 5, 0.1, rng=for_gmm).sample(n, balanced=True, dtype="float64", rng=for_data)
        network = pf.initialize(width, dim, 1e-7, dtype="float64", rng=for_network)
        self.X, self.residual = data.X, 2 * data.y / n
        self.sign, self.U, self.log_norm = network.sign, network.directions, network.log_norm

    def __call__(self, U: np.ndarray, which: np.ndarray) -> np.ndarray:
        """(u', l') of the neurons ``which`` as rows. What u' has along u is that of the raw w' and turns nothing."""
        norms = np.linalg.norm(U, axis=1)[:, None]
        unit, sign = U / norms, self.sign[which, None]
        Z = np.maximum(self.X @ unit.T, 0)
        G = sign * ((P * Z**2 * self.residual[:, None]).T @ self.X)
        s = sign * (self.residual @ Z**3)[:, None]
        return np.hstack([norms * (G - (P - 1) * s * unit), s])


@dataclass
class End:
    """Where an integration ended and what it cost, in gradients."""

    U: np.ndarray
    log_norm: np.ndarray
    gradients: float


def integrate(problem: Lone, method: str, tolerance: float, *, lone: bool, weighted: bool = False) -> End:
    """Integrate to T1 with the library's tableaus and step control, one step length for all or for each its own."""
    tableau = METHODS[method]
    A, b, e, order = tableau["a"], tableau["b"], [np.array(row) for row in tableau["e"]], tableau["control_order"]
    U, log_norm, h = problem.U.copy(), problem.log_norm.copy(), len(problem.U)
    t, step, before = np.zeros(h), np.full(h, 1.0), np.full(h, 1e-4)
    active = np.arange(h)
    first = problem(U, active)
    evaluations = h
    growth = 2 / 10  # of an aligned neuron: C / K
    while len(active):
        size = np.minimum(step[active], T1 - t[active])[:, None]
        state = np.hstack([U[active], log_norm[active, None]])
        K = [first[active]]
        for row in (*A, b):
            moved = state + size * sum(c * k for c, k in zip(row, K, strict=False) if c)
            K.append(problem(moved[:, :-1], active))
            evaluations += len(active)
        norms = np.linalg.norm(moved[:, :-1], axis=1)
        unit = moved[:, :-1] / norms[:, None]
        parts = []
        for row in e:
            E = size * sum(c * k for c, k in zip(row, K, strict=False) if c)
            turn = E[:, :-1] / norms[:, None]
            turn -= (turn * unit).sum(axis=1)[:, None] * unit
            parts.append((np.linalg.norm(turn, axis=1), np.abs(E[:, -1])))
        if len(parts) == 2:  # as in flow.cpp
            parts = [tuple(x * x / np.hypot(x, 0.1 * y) if x.any() else x for x, y in zip(*parts, strict=True))]
        turn_error, log_error = parts[0]
        if weighted:
            fastest = np.maximum(np.maximum(np.abs(K[0][:, -1]), np.abs(K[-1][:, -1])), 1e-30)
            turn_error = turn_error * np.clip((growth / fastest) ** (1 - 1 / P), 1, 10)
        error = np.maximum(np.maximum(turn_error, log_error) / tolerance, 1e-12)
        if not lone:
            error = np.full_like(error, error.max())
        good = error <= 1
        factor = np.where(
            good,
            np.clip(0.9 * error ** (-0.85 / order) * before[active] ** (0.2 / order), 0.2, 5.0),
            np.maximum(0.2, 0.9 * error ** (-1 / order)),
        )
        done, taken = active[good], size[good, 0]
        U[done], log_norm[done] = unit[good], moved[good, -1]
        first[done, :-1] = K[-1][good, :-1] / norms[good, None]
        first[done, -1] = K[-1][good, -1]
        t[done] = np.where(t[done] + taken > T1 - 1e-9, T1, t[done] + taken)
        before[done] = np.maximum(error[good], 1e-4)
        step[active] = size[:, 0] * factor
        active = active[t[active] < T1]
    return End(U, log_norm, evaluations / h)


def distance(one: End, other: End) -> float:
    """Over neurons, the larger of the angle and of the difference of log-norms."""
    angle = 2 * np.arcsin(np.minimum(np.linalg.norm(one.U - other.U, axis=1) / 2, 1))
    return float(max(angle.max(), np.abs(one.log_norm - other.log_norm).max()))


def gradients_at(level: float, errors: np.ndarray, gradients: np.ndarray) -> float:
    """Interpolate the cost of an error; nan outside of what was measured."""
    falling = np.minimum.accumulate(errors)
    if not falling[-1] <= level <= falling[0]:
        return np.nan
    return float(np.exp(np.interp(-np.log(level), -np.log(falling), np.log(gradients))))


def share_of_settled(problem: Lone, until: float = 50.0, looks: int = 100) -> np.ndarray:
    """Share of neurons that turn slower than each of ``SLOW`` rad per unit time, averaged over time, by Euler's steps.

    Steps of 0.05 are short enough here: nothing turns faster than 1 rad in 1 / 0.3.
    """
    U, every = problem.U.copy(), np.arange(len(problem.U))
    shares, steps = [], round(until / 0.05)
    for i in range(steps):
        moving = problem(U, every)[:, :-1]
        if i % (steps // looks) == 0:
            turn = moving - (moving * U).sum(axis=1)[:, None] * U
            shares.append([(np.linalg.norm(turn, axis=1) < slow).mean() for slow in SLOW])
        U += 0.05 * moving
        U /= np.linalg.norm(U, axis=1)[:, None]
    return np.mean(shares, axis=0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    problems = [Lone(seed) for seed in range(options.seeds)]
    settled = np.array([share_of_settled(problem) for problem in problems])
    print("share of neurons that turn slower than, in rad per unit time, over 0 < t < 50 (median; over seeds)")
    for slow, shares in zip(SLOW, settled.T, strict=True):
        print(f"{slow:.0e} | {np.median(shares):.2f} | {' '.join(f'{share:.2f}' for share in shares)}")
    references = [integrate(problem, "dop853", 1e-11, lone=True) for problem in problems]
    print(f"\ngradients until t = {T1:g} at an error, median over seeds; in brackets lone over common, each seed")
    print("method | error | common | lone | lone, weighted | common, weighted")
    ways = {
        "common": {"lone": False},
        "lone": {"lone": True},
        "lone, weighted": {"lone": True, "weighted": True},
        "common, weighted": {"lone": False, "weighted": True},
    }
    for method in ("bosh3", "tsit5", "dopri5"):
        found: dict[str, np.ndarray] = {}
        for way, how in ways.items():
            cost = []
            for problem, reference in zip(problems, references, strict=True):
                ends = [integrate(problem, method, tolerance, **how) for tolerance in TOLERANCES]
                errors = np.array([distance(end, reference) for end in ends])
                gradients = np.array([end.gradients for end in ends])
                cost.append([gradients_at(level, errors, gradients) for level in ERRORS])
            found[way] = np.array(cost)
        for i, level in enumerate(ERRORS):
            cells = []
            for cost in found.values():
                ratios = cost[:, i] / found["common"][:, i]
                cells.append(f"{np.median(cost[:, i]):.0f} [{' '.join(f'{ratio:.2f}' for ratio in ratios)}]")
            print(f"{method} | {level:g} | {' | '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
