"""Integrators of the gradient flow: preluflow, SciPy, torchdiffeq, diffrax and gradient descent, at equal error.

    python bench/bench_flow.py [--seeds 5] [--scale small|fig5|both] [--out bench/results/flow.json]

The error E is that of the network at T = 120 against the flow itself: over all neurons the larger of the angle of w_j
and the difference of log ||w_j||. Every contender gets the same float32 data and evaluates its gradients in float32,
with the same formula; the state is float64 in preluflow and SciPy (neither knows another), float32 in torch and JAX.
The peers integrate the raw (W, v). Tolerances are searched for on the small problem with one seed, for every method of
every library; the cheapest setting that reaches a level on all seeds is the library's contender there, and the same
procedure, started from those settings, is repeated at Figure 5's scale. Times are taken in alternation, compilation and
copying to the library's arrays excluded. torchdiffeq and diffrax are optional: what cannot be imported is named.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import ratio, show_ratio, write
from scipy.integrate import solve_ivp

import preluflow as pf
from preluflow import plots

T = 120.0
LEVELS = (0.02, 1e-4)
AIMS = {0.02: 150, 1e-4: 350}  # gradients of preluflow
AIM_PEER, AIM_DESCENT = 3.0, 20.0  # times faster
MOST = 500  # gradients of a setting before the search gives it up


@dataclass(frozen=True)
class Problem:
    """MV25's mixture and initialisation: K = 5 + 5 clusters, alpha = 0.1, epsilon = 1e-7, p = 3, squared loss."""

    name: str
    dim: int
    n: int
    width: int
    reference_rtol: float


PROBLEMS = {
    "small": Problem("small", 300, 1000, 150, 1e-9),
    "fig5": Problem("fig5", 1000, 5000, 500, 1e-5),
}


@dataclass(frozen=True)
class Setting:
    """A way to integrate; ``rtol`` is the step for gradient descent. Its text is what the table says."""

    library: str
    method: str
    rtol: float
    atol: float | None = None

    def __str__(self) -> str:
        if self.library == "descent":
            return f"step {self.rtol:g}"
        return f"{self.method} {self.rtol:g}" + ("" if self.atol is None else f"/{self.atol:g}")


@dataclass(frozen=True)
class Outcome:
    """What a run of a setting gave."""

    error: float
    gradients: int
    seconds: float


class TooMany(Exception):
    """More gradients than allowed."""


class Instance:
    """One seed of a problem, with its reference."""

    def __init__(self, problem: Problem, seed: int, kept: Path | None = None) -> None:
        for_gmm, for_data, for_network = np.random.default_rng(seed).spawn(3)
        gmm = pf.OrthonormalGMM(problem.dim, 5, 5, 0.1, rng=for_gmm)
        data = gmm.sample(problem.n, balanced=True, rng=for_data)
        self.problem, self.seed, self.kept = problem, seed, kept
        self.X, self.y = data.X, data.y.astype("float32")
        self.network = pf.initialize(problem.width, problem.dim, 1e-7, rng=for_network)
        self.W, self.v = self.network.W, self.network.v.astype("float32")

    def flow(self, method: str, rtol: float) -> pf.TwoLayerNetwork:
        """The flow of the same float32 numbers, in float64."""
        wide = pf.TwoLayerNetwork.from_polar(
            self.network.directions,
            self.network.log_norm,
            self.network.sign,
            self.network.log_abs_v,
            dtype="float64",
        )
        run = pf.gradient_flow(wide, self.X.astype("float64"), self.y, t1=T, method=method, rtol=rtol)
        if run.status != "finished":
            raise SystemExit(f"reference: {run.status}")
        return run.network

    @cached_property
    def reference(self) -> tuple[np.ndarray, np.ndarray]:
        """Directions and log-norms at T; kept in a file if asked to."""
        path = self.kept and self.kept / f"{self.problem.name}_{self.seed}.npz"
        if path and path.exists():
            with np.load(path) as file:
                return file["directions"], file["log_norm"]
        network = self.flow("dop853", self.problem.reference_rtol)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, directions=network.directions, log_norm=network.log_norm)
        return network.directions, network.log_norm

    def error(self, directions: np.ndarray, log_norm: np.ndarray) -> float:
        """Error E against the reference."""
        return distance(self.reference, (directions, log_norm))


def distance(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    """Over neurons, the larger of the angle and of the difference of log-norms."""
    unit = []
    for directions, log_norm in (one, other):
        if not np.isfinite(directions).all() or not np.isfinite(log_norm).all():
            return np.inf
        wide = directions.astype("float64")
        unit.append(wide / np.linalg.norm(wide, axis=1)[:, None])
    half = np.linalg.norm(unit[0] - unit[1], axis=1) / 2
    angle = 2 * np.arcsin(np.minimum(half, 1.0))
    return float(max(angle.max(), np.abs(one[1] - other[1]).max()))


# ---- the libraries: each takes an instance and gives (setting, t1, most) -> (directions, log_norm, gradients)

Solver = Callable[[Setting, float, int], tuple[np.ndarray, np.ndarray, int]]


def by_preluflow(instance: Instance) -> Solver:
    """Our own integrators."""

    def solve(setting: Setting, t1: float, most: int) -> tuple[np.ndarray, np.ndarray, int]:
        run = pf.gradient_flow(
            instance.network, instance.X, instance.y, t1=t1, method=setting.method, rtol=setting.rtol
        )
        return run.network.directions, run.network.log_norm, run.stats["gradients"]

    return solve


def polar(W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions (not normalised: ``distance`` does) and log-norms."""
    wide = W.astype("float64")
    return wide, np.log(np.linalg.norm(wide, axis=1))


def by_scipy(instance: Instance) -> Solver:
    """SciPy's solve_ivp; the gradient in NumPy, in place, by float32 products.

    LSODA is left out: it asks for a dense Jacobian's memory, (h D)^2 float64, 16 GB on the small problem. So is VODE
    with Adams methods (scipy.integrate.ode): ten times the others' seconds, and an error above 1e-2 at rtol 1e-4.
    """
    X, y = instance.X, instance.y
    n, (h, dim) = len(X), instance.W.shape
    Z, S = np.empty((n, h), "float32"), np.empty((n, h), "float32")
    rate = np.float32(2 / n)
    start = np.r_[instance.W.ravel(), instance.v].astype("float64")

    def solve(setting: Setting, t1: float, most: int) -> tuple[np.ndarray, np.ndarray, int]:
        count = 0

        def field(t: float, state: np.ndarray) -> np.ndarray:
            nonlocal count
            count += 1
            if count > most:
                raise TooMany
            W, v = state[:-h].astype("float32").reshape(h, dim), state[-h:].astype("float32")
            norms = np.sqrt(np.einsum("jd,jd->j", W, W))
            W /= norms[:, None]
            np.matmul(X, W.T, out=Z)
            np.maximum(Z, 0, out=Z)
            np.multiply(Z, Z, out=S)
            np.multiply(Z, S, out=Z)
            residual = rate * (y - Z @ (v * norms))
            s = residual @ Z
            np.multiply(S, residual[:, None], out=S)
            G = S.T @ X
            G *= (3 * v)[:, None]
            W *= (2 * v * s)[:, None]
            out = np.empty_like(state)
            np.subtract(G, W, out=out[:-h].reshape(h, dim))
            np.multiply(norms, s, out=out[-h:])
            return out

        found = solve_ivp(
            field, (0.0, t1), start, method=setting.method, rtol=setting.rtol, atol=setting.atol, t_eval=[t1]
        )
        end = found.y[:, -1] if found.success else np.full_like(start, np.nan)
        return *polar(end[:-h].reshape(h, dim)), count

    return solve


def torch_field(X: torch.Tensor, y: torch.Tensor) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """The field by hand, a quarter faster than by autograd."""

    def field(W: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        norms = W.norm(dim=1)
        U = W / norms[:, None]
        Z = torch.relu(X @ U.T)
        S = Z * Z
        Z *= S
        residual = (y - Z @ (v * norms)) * (2 / len(y))
        s = residual @ Z
        S *= residual[:, None]
        G = S.T @ X
        G *= (3 * v)[:, None]
        U *= (2 * v * s)[:, None]
        return G.sub_(U), norms * s

    return field


def by_torchdiffeq(instance: Instance) -> Solver:
    """torchdiffeq.odeint without gradients."""
    from torchdiffeq import odeint

    h, dim = instance.W.shape
    X, y = torch.from_numpy(instance.X), torch.from_numpy(instance.y)
    start = torch.cat([torch.from_numpy(instance.W).ravel(), torch.from_numpy(instance.v)])
    gradient = torch_field(X, y)

    def solve(setting: Setting, t1: float, most: int) -> tuple[np.ndarray, np.ndarray, int]:
        count = 0

        def field(t: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += 1
            if count > most:
                raise TooMany
            W, v = gradient(state[:-h].view(h, dim), state[-h:])
            return torch.cat([W.ravel(), v])

        with torch.no_grad():
            times = torch.tensor([0.0, t1])
            end = odeint(field, start, times, rtol=setting.rtol, atol=setting.atol, method=setting.method)[-1]
        return *polar(end[:-h].view(h, dim).numpy()), count

    return solve


# Gradients of a step, accepted or not, and of the start, as counted by a callback in the field.
DIFFRAX_GRADIENTS = {"Bosh3": (3, 1), "Tsit5": (6, 1), "Dopri5": (6, 1), "Dopri8": (13, 1)}


def diffrax_solver() -> Callable[..., Any]:
    """diffeqsolve, compiled once for every method and shape."""
    import diffrax
    import jax
    import jax.numpy as jnp

    def field(t: Any, state: Any, data: Any) -> Any:
        (W, v), (X, y) = state, data
        norms = jnp.linalg.norm(W, axis=1)
        U = W / norms[:, None]
        Z = jax.nn.relu(X @ U.T)
        S = Z * Z
        Z = Z * S
        residual = (y - Z @ (v * norms)) * (2 / len(y))
        s = residual @ Z
        return v[:, None] * (3 * ((S * residual[:, None]).T @ X) - 2 * s[:, None] * U), norms * s

    @partial(jax.jit, static_argnames="method")
    def run(method: str, start: Any, data: Any, t1: float, rtol: float, atol: float) -> Any:
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            getattr(diffrax, method)(),
            0.0,
            t1,
            None,
            start,
            data,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            max_steps=4096,
            throw=False,
        )
        good = found.result == diffrax.RESULTS.successful
        return found.ys[0][-1], found.stats["num_steps"], good

    return run


_compiled: dict[str, Any] = {}


def by_diffrax(instance: Instance) -> Solver:
    """JAX through diffrax, compiled; compilation is not timed."""
    import jax

    run = _compiled.setdefault("diffrax", diffrax_solver())
    start, data = jax.device_put(((instance.W, instance.v), (instance.X, instance.y)))

    def solve(setting: Setting, t1: float, most: int) -> tuple[np.ndarray, np.ndarray, int]:
        W, steps, good = jax.block_until_ready(run(setting.method, start, data, t1, setting.rtol, setting.atol))
        each, first = DIFFRAX_GRADIENTS[setting.method]
        return *polar(np.asarray(W) if good else np.full(W.shape, np.nan)), first + each * int(steps)

    return solve


def by_descent(instance: Instance) -> Solver:
    """Gradient descent in torch, by hand: a quarter faster than torch_reference.py with its autograd and SGD."""
    gradient = torch_field(torch.from_numpy(instance.X), torch.from_numpy(instance.y))

    def solve(setting: Setting, t1: float, most: int) -> tuple[np.ndarray, np.ndarray, int]:
        W, v = torch.from_numpy(instance.W.copy()), torch.from_numpy(instance.v.copy())
        steps = max(1, round(t1 / setting.rtol))
        with torch.no_grad():
            for _ in range(steps):
                W_move, v_move = gradient(W, v)
                W.add_(W_move, alpha=setting.rtol)
                v.add_(v_move, alpha=setting.rtol)
        return *polar(W.numpy()), steps

    return solve


LIBRARIES: dict[str, tuple[Callable[[Instance], Solver], str | None]] = {
    "preluflow": (by_preluflow, None),
    "scipy": (by_scipy, None),
    "torchdiffeq": (by_torchdiffeq, "torchdiffeq"),
    "diffrax": (by_diffrax, "diffrax"),
    "descent": (by_descent, None),
}
METHODS = {
    "preluflow": ("bosh3", "flow43", "tsit5", "dopri5", "dop853"),
    "scipy": ("RK23", "RK45", "DOP853"),
    "torchdiffeq": ("bosh3", "dopri5", "dopri8"),
    "diffrax": ("Bosh3", "Tsit5", "Dopri5", "Dopri8"),
}
RTOLS = (2e-2, 1.5e-2, 1e-2, 7e-3, 5e-3, 2e-3, 1e-3, 5e-4, 3e-4, 2e-4, 1e-4)
PEER_RTOLS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
PEER_ATOLS = (1e-9, 1e-10, 1e-11, 1e-12)
STEPS = (0.2, 0.1, 0.05, 0.02)


def grid(library: str, steps: Sequence[float] = STEPS) -> list[Setting]:
    """All settings tried of a library."""
    if library == "descent":
        return [Setting(library, "descent", step) for step in steps]
    if library == "preluflow":
        return [Setting(library, *pair) for pair in itertools.product(METHODS[library], RTOLS)]
    return [Setting(library, *choice) for choice in itertools.product(METHODS[library], PEER_RTOLS, PEER_ATOLS)]


def present() -> list[str]:
    """Libraries that can be imported; the others are named."""
    names = []
    for name, (_, module) in LIBRARIES.items():
        try:
            if module:
                __import__(module)
            names.append(name)
        except ImportError:
            print(f"{name} is absent: pip install {module}")
    return names


class Bench:
    """Runs settings on the seeds of a problem and remembers what they gave."""

    def __init__(self, problem: Problem, seeds: int, kept: Path | None) -> None:
        self.problem = problem
        self.instances = [Instance(problem, seed, kept) for seed in range(seeds)]
        self.outcomes: dict[tuple[Setting, int], list[Outcome]] = {}
        self._solvers: dict[tuple[str, int], Solver] = {}
        self._warm: set[tuple[str, str]] = set()

    def run(self, setting: Setting, seed: int, most: int = 10**9) -> Outcome:
        """One run; the first of a method is preceded by a short one, for compilation and caches."""
        key = (setting.library, seed)
        if key not in self._solvers:
            self._solvers[key] = LIBRARIES[setting.library][0](self.instances[seed])
        solve = self._solvers[key]
        if (setting.library, setting.method) not in self._warm:
            solve(setting, 1e-3, 10**9)
            self._warm.add((setting.library, setting.method))
        began = time.perf_counter()
        try:
            directions, log_norm, gradients = solve(setting, T, most)
            seconds = time.perf_counter() - began
            outcome = Outcome(self.instances[seed].error(directions, log_norm), gradients, seconds)
        except TooMany:
            outcome = Outcome(np.inf, most, np.inf)
        self.outcomes.setdefault((setting, seed), []).append(outcome)
        return outcome

    def known(self, setting: Setting, seed: int) -> Outcome:
        """An outcome there is, or that of a run."""
        found = self.outcomes.get((setting, seed))
        return found[0] if found else self.run(setting, seed)

    def search(self, settings: Iterable[Setting]) -> None:
        """Run settings on seed 0. Along falling rtol costs rise: it ends when they are too high, or E needs no more."""
        given_up: set[tuple[str, float | None]] = set()
        for setting in settings:
            family = (setting.method, setting.atol)
            if family in given_up:
                continue
            outcome = self.run(setting, 0, MOST if setting.library != "descent" else 10**9)
            if setting.library != "descent" and (outcome.gradients >= MOST or outcome.error < 0.1 * min(LEVELS)):
                given_up.add(family)

    def searched(self) -> list[dict[str, Any]]:
        """What the search has found."""
        return [
            {"setting": asdict(setting), "outcome": asdict(found[0])}
            for (setting, seed), found in self.outcomes.items()
            if seed == 0
        ]

    def by_cost(self, library: str, level: float) -> list[Setting]:
        """Settings good enough on seed 0, the cheapest first."""
        good = [
            (found[0].gradients, setting)
            for (setting, seed), found in self.outcomes.items()
            if seed == 0 and setting.library == library and found[0].error <= level
        ]
        return [setting for _, setting in sorted(good, key=lambda pair: pair[0])]

    def cheapest(self, candidates: Iterable[Setting], level: float, seeds: Sequence[int]) -> Setting | None:
        """The first candidate that reaches the level on all seeds."""
        for setting in candidates:
            if all(self.known(setting, seed).error <= level for seed in seeds):
                return setting
        return None


def check_reference(instance: Instance) -> dict[str, float]:
    """How far the reference is from a stricter one and from SciPy's in raw coordinates."""
    here = instance.reference
    stricter = instance.flow("dop853", instance.problem.reference_rtol / 100)
    h, dim = instance.W.shape
    network, X, y = instance.network, instance.X.astype("float64"), instance.y.astype("float64")

    def field(t: float, state: np.ndarray) -> np.ndarray:
        W, v = state[:-h].reshape(h, dim), state[-h:]
        norms = np.linalg.norm(W, axis=1)
        U = W / norms[:, None]
        Z = np.maximum(X @ U.T, 0)
        residual = 2 / len(y) * (y - Z**3 @ (v * norms))
        s = residual @ Z**3
        G = (3 * Z**2 * residual[:, None]).T @ X
        return np.r_[(v[:, None] * (G - 2 * s[:, None] * U)).ravel(), norms * s]

    W = network.directions * network.norms[:, None]  # float64
    end = solve_ivp(field, (0.0, T), np.r_[W.ravel(), network.v], method="DOP853", rtol=1e-10, atol=1e-17).y[:, -1]
    found = {
        "stricter": distance(here, (stricter.directions, stricter.log_norm)),
        "scipy": distance(here, polar(end[:-h].reshape(h, dim))),
    }
    print(
        f"reference of {instance.problem.name}: E = {found['stricter']:.1e} against a 100 times smaller rtol, "
        f"{found['scipy']:.1e} against SciPy's DOP853 on raw (W, v)",
        flush=True,
    )
    return found


def times(bench: Bench, chosen: dict[str, Setting], seeds: Sequence[int], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of the chosen settings, in alternation, for every round and seed."""
    seconds: dict[str, list[float]] = {library: [] for library in chosen}
    for _, seed in itertools.product(range(rounds), seeds):
        for library, setting in chosen.items():
            seconds[library].append(bench.run(setting, seed).seconds)
    return {library: np.array(values) for library, values in seconds.items()}


def descent_at(bench: Bench, level: float, steps: Sequence[float], seeds: Sequence[int]) -> dict[str, Any]:
    """Gradient descent at a level: measured if a step reaches it, otherwise extrapolated with E in proportion to it.

    Its seconds are the number of steps times the seconds of one.
    """
    settings = [setting for (setting, seed) in bench.outcomes if setting.library == "descent" and seed == 0]
    settings.sort(key=lambda setting: -setting.rtol)
    for setting in settings:
        if all(bench.known(setting, seed).error <= level for seed in seeds):
            runs = [bench.known(setting, seed) for seed in seeds]
            return {
                "setting": str(setting),
                "E": [run.error for run in runs],
                "gradients": [run.gradients for run in runs],
                "extrapolated": False,
            }
    finest = settings[-1]
    errors = [bench.outcomes[finest, seed][0].error for seed in seeds if (finest, seed) in bench.outcomes]
    gradients = [round(T / finest.rtol * error / level) for error in errors]
    return {
        "setting": f"from {finest}",
        "E": [level] * len(errors),
        "gradients": gradients,
        "extrapolated": True,
    }


def step_seconds(bench: Bench, seed: int, repeats: int) -> np.ndarray:
    """Seconds of one step of gradient descent."""
    setting = Setting("descent", "descent", 0.2)
    solve = by_descent(bench.instances[seed])
    solve(setting, 1.0, 0)
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        solve(setting, 5.0, 0)
        found.append((time.perf_counter() - began) / 25)
    return np.array(found)


def summary(runs: Sequence[Outcome]) -> dict[str, Any]:
    """Worst and median over seeds."""
    errors, gradients = [run.error for run in runs], [run.gradients for run in runs]
    return {
        "E": errors,
        "gradients": gradients,
        "E_worst": float(np.max(errors)),
        "E_median": float(np.median(errors)),
        "gradients_worst": int(np.max(gradients)),
        "gradients_median": float(np.median(gradients)),
    }


HEADER = "contender | setting | gradients worst / median | E worst / median | seconds, median | times ours"


def at_level(
    bench: Bench,
    libraries: Sequence[str],
    level: float,
    start: dict[str, list[Setting]],
    rounds: int,
    descent_seeds: Sequence[int],
) -> dict[str, Any]:
    """One table: the cheapest setting of each library that reaches the level on all seeds, timed in alternation."""
    seeds = range(len(bench.instances))
    chosen = {}
    for library in libraries:
        if library != "descent":
            setting = bench.cheapest(start[library], level, seeds)
            if setting is None:
                print(f"{library}: no setting reaches {level:g} on all seeds of {bench.problem.name}")
            else:
                chosen[library] = setting
    seconds = times(bench, chosen, seeds, rounds)
    print(f"\n{bench.problem.name}, E <= {level:g}, {len(bench.instances)} seeds\n{HEADER}")
    lines = []
    for library, setting in chosen.items():
        line = {"library": library, "setting": str(setting), "seconds": float(np.median(seconds[library]))}
        line |= summary([bench.known(setting, seed) for seed in seeds])
        line["times_ours"] = ratio(seconds[library], seconds["preluflow"])
        lines.append(line)
    descent = descent_at(bench, level, STEPS, descent_seeds)
    one = step_seconds(bench, 0, 5)
    mine = np.median(seconds["preluflow"])
    of_descent = np.median(descent["gradients"]) * one
    lines.append(
        {
            "library": "descent",
            **descent,
            "E_worst": max(descent["E"]),
            "E_median": float(np.median(descent["E"])),
            "gradients_worst": max(descent["gradients"]),
            "gradients_median": float(np.median(descent["gradients"])),
            "seconds": float(np.median(of_descent)),
            "times_ours": ratio(of_descent, np.full_like(of_descent, mine)),
        }
    )
    for line in lines:
        print(
            f"{line['library']} | {line['setting']} | {line['gradients_worst']} / {line['gradients_median']:.0f} | "
            f"{line['E_worst']:.1e} / {line['E_median']:.1e} | {line['seconds']:.2f} | {show_ratio(line['times_ours'])}"
            + (" extrapolated" if line.get("extrapolated") else ""),
            flush=True,
        )
    ours = lines[0]
    peers = [line for line in lines[1:-1]]
    print(f"asked: at most {AIMS[level]} gradients; measured: {ours['gradients_worst']} worst")
    if peers:
        best = min(peers, key=lambda line: line["times_ours"]["median"])
        print(
            f"asked: {AIM_PEER:g} times faster than the best peer; "
            f"measured: {best['times_ours']['median']:.2f} ({best['library']}, {best['setting']})"
        )
    print(
        f"asked: {AIM_DESCENT:g} times faster than gradient descent; measured: "
        f"{lines[-1]['times_ours']['median']:.0f}" + (" (extrapolated)" if lines[-1]["extrapolated"] else "")
    )
    return {"problem": bench.problem.name, "level": level, "lines": lines, "best_ours": str(chosen["preluflow"])}


def default_setting(bench: Bench) -> dict[str, Any]:
    """The default of gradient_flow, whose docstring says E <= 1e-2."""
    setting = Setting("preluflow", "tsit5", 1e-3)
    found = summary([bench.known(setting, seed) for seed in range(len(bench.instances))])
    print(
        f"\ndefault on {bench.problem.name} ({setting}): "
        f"E {found['E_worst']:.1e} worst, {found['E_median']:.1e} median; "
        f"{found['gradients_worst']} gradients worst, {found['gradients_median']:.0f} median",
        flush=True,
    )
    return found


# ---- the picture


def front(points: Iterable[tuple[float, float]]) -> np.ndarray:
    """Of (cost, error), those that nothing cheaper beats."""
    kept: list[tuple[float, float]] = []
    for cost, error in sorted(points):
        if np.isfinite(error) and (not kept or error < kept[-1][1]):
            kept.append((cost, error))
    return np.array(kept).reshape(-1, 2)


LINES: dict[str, dict[str, Any]] = {
    "preluflow": {"color": plots.INK, "marker": "o", "ls": "-", "label": "preluflow"},
    "scipy": {"color": plots.BLUE, "marker": "s", "ls": "--", "label": "SciPy"},
    "torchdiffeq": {"color": plots.ORANGE, "marker": "^", "ls": "-.", "label": "torchdiffeq"},
    "diffrax": {"color": plots.GREY, "marker": "D", "ls": ":", "label": "diffrax"},
    "descent": {"color": plots.INK, "marker": "x", "ls": (0, (1, 3)), "label": "gradient descent, torch"},
}


def draw(bench: Bench, libraries: Sequence[str], levels: list[dict[str, Any]], path: Path) -> None:
    """Error against cost: each library's best settings of the search (seed 0 of the small problem).

    The search is not in alternation, so its seconds would compare moments of the machine: the right panel has gradients
    times the seconds of one, which the tables measured.
    """
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    rates: dict[str, list[float]] = {}
    for table in levels:
        for line in table["lines"]:
            rates.setdefault(line["library"], []).append(line["seconds"] / line["gradients_median"])
    with plots.style():
        figure, axes = plots.new_figure(2, width=4.8, height=4.0)
        for ax, cost in zip(axes, ("gradients", "seconds"), strict=True):
            for library in libraries:
                rate = 1.0 if cost == "gradients" else float(np.median(rates.get(library, [np.nan])))
                points = [
                    (rate * found[0].gradients, found[0].error)
                    for (setting, seed), found in bench.outcomes.items()
                    if seed == 0 and setting.library == library
                ]
                x, y = front(points).T
                ax.loglog(x, y, ms=5, **LINES[library])
            for level in LEVELS:
                ax.axhline(level, color=plots.INK, lw=0.9, ls=(0, (6, 3)), zorder=1.5)
            label = "gradients" if cost == "gradients" else "seconds, at the rate measured in alternation"
            ax.set(xlabel=label, ylim=(5e-6, 0.5))
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.xaxis.set_minor_formatter(NullFormatter())
        axes[0].set_ylabel("error $E$ at $T=120$")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    print(f"{path} written")


def main() -> None:
    """Search, measure, print, save, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scale", choices=("small", "fig5", "both"), default="both")
    parser.add_argument("--fig5-seeds", type=int, default=1, help="seeds of the tables at Figure 5's scale")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over the seeds of the small problem's times")
    parser.add_argument("--references", type=Path, help="directory to keep references and search in, between runs")
    parser.add_argument("--unchecked", action="store_true", help="do not check the reference of the small problem")
    parser.add_argument("--out", type=Path, default=Path("bench/results/flow.json"))
    options = parser.parse_args()
    libraries = present()
    small = Bench(PROBLEMS["small"], options.seeds, options.references)
    results: dict[str, Any] = {} if options.unchecked else {"reference": check_reference(small.instances[0])}
    kept = options.references and options.references / "search.json"
    if kept and kept.exists():
        for entry in json.loads(kept.read_text()):
            small.outcomes[Setting(**entry["setting"]), 0] = [Outcome(**entry["outcome"])]
    for library in libraries:
        if not any(setting.library == library for setting, _ in small.outcomes):
            began = time.perf_counter()
            small.search(grid(library))
            print(f"{library}: settings searched, {time.perf_counter() - began:.0f} s", flush=True)
            if kept:
                kept.write_text(json.dumps(small.searched()))
    candidates = {level: {name: small.by_cost(name, level) for name in libraries} for level in LEVELS}
    results["levels"] = []
    if options.scale != "fig5":
        every = range(options.seeds)
        for level in LEVELS:
            results["levels"].append(at_level(small, libraries, level, candidates[level], options.rounds, every))
        results["default"] = default_setting(small)
        results["search"] = small.searched()
        write(options.out, results)
        draw(small, libraries, results["levels"], options.out.with_suffix(".png"))
    if options.scale != "small":
        large = Bench(PROBLEMS["fig5"], options.fig5_seeds, options.references)
        for step in STEPS[:2]:
            large.run(Setting("descent", "descent", step), 0)
        for level in LEVELS:
            # Those settings first that the small problem's seeds have confirmed.
            order = {}
            for name in (name for name in libraries if name != "descent"):
                confirmed = small.cheapest(candidates[level][name], level, range(options.seeds))
                there = candidates[level][name]
                order[name] = there[there.index(confirmed) :] if confirmed else []
            results["levels"].append(at_level(large, libraries, level, order, 1, [0]))
        results["default_fig5"] = default_setting(large)
        write(options.out, results)


if __name__ == "__main__":
    main()
