"""Training speed: this library, torch autograd and NumPy, in alternation within one process.

    python bench/bench_train.py [--quick] [--out bench/results]

Every case first checks that the three give the same answer. A gradient counts 4 n D h flops (2 n D h each for X W^T and
its transpose; ten outputs add two in a hundred). The limit is the rate of multiply-adds out of registers, on as many
threads, in the same rounds (machine.py); GEMM is the rate of those two products alone, by NumPy or torch, whichever is
better. PRELUFLOW_ISA=v3 measures that core, and the limit of its vectors.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import ROUND, describe, fma
from measure import alternate, ratio, show_ratio, write
from numpy_reference import NumPyTraining
from threadpoolctl import threadpool_limits
from torch_reference import PReLUNetwork, train

import preluflow as pf
from preluflow import _dispatch, plots


@dataclass(frozen=True)
class Case:
    """A problem; batch None is full-batch descent. Aims are over torch, float32, two threads."""

    name: str
    n: int
    dim: int
    width: int
    batch: int | None
    step: float
    loss: str
    aim: float
    outputs: int = 1
    method: str = "sgd"

    @property
    def steps(self) -> int:
        """Steps of one round: some full-batch steps, or two epochs."""
        return 20 if self.batch is None else 2 * (self.n // self.batch)

    @property
    def flops(self) -> float:
        """Of one step."""
        return 4.0 * (self.batch or self.n) * self.dim * self.width


CASES = (
    Case("full batch, h=200", 5000, 1000, 200, None, 0.2, "squared", 1.15),
    Case("full batch, h=500", 5000, 1000, 500, None, 0.2, "squared", 1.15),
    Case("SGD B=100, D=2000, h=200", 20000, 2000, 200, 100, 0.02, "exponential", 2.5),
    Case("SGD B=100, D=1000, h=2000", 20000, 1000, 2000, 100, 0.02, "exponential", 1.3),
    Case("full batch, ten outputs", 5000, 784, 500, None, 0.2, "cross_entropy", 1.0, outputs=10),
    Case("SGD B=100, ten outputs", 20000, 784, 500, 100, 0.1, "cross_entropy", 1.5, outputs=10),
    Case("Adam B=1000, ten outputs", 20000, 784, 500, 1000, 1e-3, "cross_entropy", 1.0, outputs=10, method="adam"),
    Case("Adam B=100, ten outputs", 20000, 784, 500, 100, 1e-3, "cross_entropy", 1.5, outputs=10, method="adam"),
)
P = 3


def contenders(case: Case, data: pf.Dataset, start: pf.TwoLayerNetwork, threads: int) -> dict[str, Any]:
    """One round of each as a function without arguments, each returning its (W, v)."""
    orders = np.random.default_rng(5).permutation(case.n)
    y = data.y.astype(start.dtype) if case.outputs == 1 else data.z
    batches = [None] * case.steps if case.batch is None else 2 * np.split(orders, case.steps // 2)

    class SameOrder(np.random.Generator):
        def permutation(self, n: int) -> np.ndarray:  # type: ignore[override]
            return orders

    def ours() -> tuple[np.ndarray, np.ndarray]:
        common = {"step": case.step, "loss": case.loss, "num_threads": threads}
        quiet = pf.Observe(what=[])
        if case.batch is None:
            run = pf.gradient_descent(start, data.X, y, steps=case.steps, observe=quiet, **common)
        else:
            rng, by_batches = SameOrder(np.random.PCG64()), {"sgd": pf.sgd, "adam": pf.adam}[case.method]
            run = by_batches(start, data.X, y, batch=case.batch, epochs=2, rng=rng, observe=quiet, **common)
        return run.network.W, run.network.v

    def by_torch() -> tuple[np.ndarray, np.ndarray]:
        model = PReLUNetwork(torch.from_numpy(start.W), torch.from_numpy(start.v.astype(start.dtype)), P)
        rows = [None if batch is None else torch.from_numpy(batch) for batch in batches]
        recipe = {"step": case.step, "loss": case.loss, "method": case.method}
        train(model, torch.from_numpy(data.X), torch.from_numpy(y), batches=rows, **recipe)
        return model.W.detach().numpy(), model.v.detach().numpy()

    def by_numpy() -> tuple[np.ndarray, np.ndarray]:
        training = NumPyTraining(start.W, start.v, step=case.step, loss=case.loss, optimizer=case.method, p=P)
        for batch in batches:
            training(*(data.X, y) if batch is None else (data.X[batch], y[batch]))
        return training.W, training.V

    return {"preluflow": ours, "torch": by_torch, "numpy": by_numpy}


def agreement(found: dict[str, tuple[np.ndarray, np.ndarray]]) -> float:
    """Largest relative difference of W or v from ours."""
    W, v = found["preluflow"]
    return max(
        max(np.abs(other - mine).max() / np.abs(mine).max() for other, mine in zip(pair, (W, v), strict=True))
        for pair in found.values()
    )


def gemm_contenders(case: Case, dtype: str) -> dict[str, Any]:
    """The two products of a step, in NumPy and in torch."""
    rng = np.random.default_rng(0)
    rows = case.batch or case.n
    X, W, G = (
        rng.standard_normal(shape, dtype) for shape in ((rows, case.dim), (case.width, case.dim), (rows, case.width))
    )
    tX, tW, tG = (torch.from_numpy(a) for a in (X, W, G))
    repeats = 1 if case.batch is None else 40

    def by_numpy() -> None:
        for _ in range(repeats):
            X @ W.T
            G.T @ X

    def by_torch() -> None:
        for _ in range(repeats):
            tX @ tW.T
            tG.T @ tX

    return {"gemm numpy": by_numpy, "gemm torch": by_torch, "repeats": repeats}


def measure(case: Case, dtype: str, threads: int, rounds: int) -> dict[str, Any]:
    """One line of the table."""
    gmm = pf.OrthonormalGMM(case.dim, 5, 5, 0.1, rng=0)
    data = gmm.sample(case.n, dtype=dtype, rng=1)
    start = pf.initialize(case.width, case.dim, 0.05, kind="gaussian", dtype=dtype, p=P, outputs=case.outputs, rng=2)
    runs = contenders(case, data, start, threads)
    torch.set_num_threads(threads)
    with threadpool_limits(threads, user_api="blas"):
        difference = agreement({name: run() for name, run in runs.items()})
        if difference > (2e-3 if dtype == "float32" else 1e-9):
            raise SystemExit(f"{case.name}, {dtype}: answers differ by {difference:.1e}")
        gemm = gemm_contenders(case, dtype)
        repeats = gemm.pop("repeats")
        limit = fma(_dispatch.core, dtype, threads, 3 * ROUND)
        seconds = alternate({**runs, **gemm, "limit": limit}, rounds)
    products = np.minimum(seconds["gemm numpy"], seconds["gemm torch"]) / repeats  # seconds of a step's two products
    ours = seconds["preluflow"] / case.steps
    least = seconds["limit"] * (case.flops / limit())  # seconds of a step at the limit
    return {
        **asdict(case),
        "dtype": dtype,
        "threads": threads,
        "difference": float(difference),
        "over_torch": ratio(seconds["torch"], seconds["preluflow"]),
        "over_numpy": ratio(seconds["numpy"], seconds["preluflow"]),
        "gflops": float(np.median(case.flops / ours) / 1e9),
        "gemm_gflops": float(np.median(case.flops / products) / 1e9),
        "share_of_gemm": ratio(products, ours),
        "limit_gflops": float(np.median(case.flops / least) / 1e9),
        "share_of_limit": ratio(least, ours),
        "gemm_share_of_limit": ratio(least, products),
        "isa": _dispatch.isa,
    }


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw the ratios over torch, with the aim of each case."""
    with plots.style():
        figure, axes = plots.new_figure(2, width=5.0, height=3.6)
        for ax, dtype in zip(axes, ("float32", "float64"), strict=True):
            for shift, threads, color in ((-0.19, 1, plots.GREY), (0.19, 2, plots.BLUE)):
                mine = [line for line in lines if line["dtype"] == dtype and line["threads"] == threads]
                position = np.arange(len(mine)) + shift
                median = np.array([line["over_torch"]["median"] for line in mine])
                spread = [[line["over_torch"][end] for line in mine] for end in ("low", "high")]
                error = np.abs(np.array(spread) - median)
                label = f"{threads} thread{'s' * (threads > 1)}"
                ax.barh(position, median, 0.36, xerr=error, color=color, ecolor=plots.INK, label=label)
            names = [line["name"] for line in mine]
            if dtype == "float32":
                aims = [line["aim"] for line in mine]
                ax.scatter(
                    aims, position, marker="|", s=260, color=plots.ORANGE, lw=2.5, label="aim, 2 threads", zorder=3
                )
            ax.axvline(1, color=plots.INK, lw=1)
            ax.set(
                yticks=np.arange(len(mine)),
                yticklabels=names if ax is axes[0] else [],
                xlabel="times faster than torch",
            )
            ax.set_title(dtype, loc="left", fontsize=10)
            ax.invert_yaxis()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
        figure.savefig(path)
    print(f"{path} written")


def main() -> None:
    """Measure, print, save, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="float32 and few rounds only, no picture")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cases", nargs="+", default=[], help="words; only cases whose names hold one of them")
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    options = parser.parse_args()
    dtypes, rounds = (("float32",), 3) if options.quick else (("float32", "float64"), options.rounds)
    cases = [case for case in CASES if not options.cases or any(word in case.name for word in options.cases)]
    lines = []
    print(f"{describe()}; ours of {_dispatch.isa}")
    print(
        "case | dtype | threads | over torch | over numpy | GFLOP/s | limit | share of limit | GEMM's share of it | "
        "share of GEMM | answers differ by"
    )
    for dtype in dtypes:
        for threads in options.threads:
            for line in map(partial(measure, dtype=dtype, threads=threads, rounds=rounds), cases):
                lines.append(line)
                print(
                    f"{line['name']} | {dtype} | {threads} | {show_ratio(line['over_torch'])} | "
                    f"{show_ratio(line['over_numpy'])} | {line['gflops']:.0f} | {line['limit_gflops']:.0f} | "
                    f"{show_ratio(line['share_of_limit'])} | {show_ratio(line['gemm_share_of_limit'])} | "
                    f"{show_ratio(line['share_of_gemm'])} | {line['difference']:.0e}",
                    flush=True,
                )
    write(options.out / "train.json", lines)
    if not (options.quick or options.cases) and options.threads == [1, 2]:
        draw(lines, options.out / "train.png")


if __name__ == "__main__":
    main()
