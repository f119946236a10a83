"""Two-layer networks as the core's brackets take them, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preluflow._arrays import Float, Float64
from preluflow._dispatch import core
from preluflow.network import TwoLayerNetwork
from preluflow.typing import Level

CERTIFICATES = ("none", "tangent", "slice", "flat", "branch and bound")
GAPS = {"fast": 0.0, "tight": 1e-3, "exact": 1e-4}  # a point whose bracket is that narrow is left alone


@dataclass(frozen=True)
class Effort:
    """How much to do for each point; see ``robust_radius``."""

    level: Level
    starts: int
    restarts: int
    steps: int
    seed: int
    max_nodes: int
    max_seconds: float | None
    num_threads: int


@dataclass(frozen=True, eq=False)
class Adversary:
    """What an adversary may do besides: coordinates ``fixed`` (D,) it cannot touch, a box ``low`` .. ``high`` (D,)."""

    fixed: NDArray[np.bool_] | None = None
    low: Float64 | None = None
    high: Float64 | None = None


class Block(NamedTuple):
    """What is known of some points; ``done`` where it is what was asked for, ``error`` what ended it early."""

    lower: Float64
    upper: Float64
    correct: NDArray[np.bool_]
    reached: NDArray[np.int64]  # a number of a class, or -1
    done: NDArray[np.bool_]
    trace: dict[str, NDArray[np.int64]]
    error: KeyboardInterrupt | None = None

    def head(self, count: int) -> Block:
        """Return the first ``count`` points."""
        trace = {name: values[:count] for name, values in self.trace.items()}
        return Block(
            self.lower[:count],
            self.upper[:count],
            self.correct[:count],
            self.reached[:count],
            self.done[:count],
            trace,
        )


class Brackets:
    """A network in canonical form, which brackets blocks of points."""

    def __init__(self, network: TwoLayerNetwork, adversary: Adversary | None = None, num_threads: int = 1) -> None:
        self.adversary = Adversary() if adversary is None else adversary
        outer = (network.width, network.num_outputs)
        fixed = self.adversary.fixed
        self._core: Any = core.Brackets(
            network.directions.astype(np.float64),
            network.log_norm,
            network.sign.reshape(outer),
            network.log_abs_v.reshape(outer),
            network.activation,
            network.p,
            network.offsets,
            network.output_bias,
            network.center,
            network.normalize_input,
            None if fixed is None else fixed.astype(np.uint8),
            num_threads,
        )

    @property
    def width(self) -> int:
        """Neurons of the canonical form: those that contribute, equal ones merged."""
        return int(self._core.width)

    def bracket(self, X: Float, label: NDArray[np.int64], first: int, effort: Effort, witness: Float64) -> Block:
        """Bracket a block of points (n, D) of classes with these numbers (n,); ``first`` is the first point's own.

        ``witness`` (n, D) holds zeros, which are written over where one is found.
        """
        n = len(X)
        out: dict[str, NDArray[Any]] = {
            "lower": np.zeros(n),
            "upper": np.zeros(n),
            "witness": witness,
            **{name: np.zeros(n, dtype=np.uint8) for name in ("correct", "done", "certificate")},
            **{name: np.full(n, -1, dtype=np.int64) for name in ("reached", "rival", "rounds", "nodes")},
        }
        error = None
        try:
            self._core.bracket(
                np.require(X, requirements=["C", "ALIGNED"]),
                label,
                level=effort.level,
                starts=effort.starts,
                restarts=effort.restarts,
                steps=effort.steps,
                seed=effort.seed,
                first=first,
                gap=GAPS[effort.level],
                max_nodes=effort.max_nodes,
                max_seconds=np.inf if effort.max_seconds is None else effort.max_seconds,
                low=self.adversary.low,
                high=self.adversary.high,
                out=out,
                threads=effort.num_threads,
            )
        except KeyboardInterrupt as stop:
            error = stop
        trace = {name: out[name].astype(np.int64) for name in ("certificate", "rival", "rounds", "nodes")}
        return Block(
            out["lower"],
            out["upper"],
            out["correct"].astype(bool),
            out["reached"],
            out["done"].astype(bool),
            trace,
            error,
        )
