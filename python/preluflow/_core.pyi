"""What every ``_core_<isa>`` module provides. Only arrays of the exact dtype and C order are accepted."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]

def build_info() -> dict[str, str]: ...
def tableaus() -> list[dict[str, Any]]: ...
def chebyshev_tableaus() -> dict[int, tuple[dict[str, Any], float]]: ...

class _Network:
    def __init__(
        self,
        U: Float,
        log_norm: NDArray[np.float64],
        sign: NDArray[np.float64],
        log_abs_v: NDArray[np.float64],
        activation: str,
        p: float,
    ) -> None: ...
    def forward(self, X: Float, threads: int) -> NDArray[np.float64]: ...
    def input_gradient(self, X: Float, threads: int) -> tuple[NDArray[np.float64], Float]: ...

class Network32(_Network): ...
class Network64(_Network): ...

class _Start:
    def __init__(
        self,
        U: Float,
        log_norm: NDArray[np.float64],
        sign: NDArray[np.float64],
        log_abs_v: NDArray[np.float64],
        activation: str,
        p: float,
        output_bias: NDArray[np.float64] | None,
        center: NDArray[np.float64] | None,
        constant: bool,
        power: float,
    ) -> None: ...
    def loss_gradient(
        self, X: Float, y: NDArray[np.float64], weight: NDArray[np.float64] | None, loss: str, threads: int
    ) -> tuple[float, NDArray[np.float64], Float, NDArray[np.float64], NDArray[np.float64]]: ...

class Start32(_Start): ...
class Start64(_Start): ...

class Evaluator:
    def __init__(
        self,
        U: NDArray[np.float64],
        log_norm: NDArray[np.float64],
        sign: NDArray[np.float64],
        log_abs_v: NDArray[np.float64],
        activation: str,
        p: float,
        offsets: NDArray[np.float64] | None,
        output_bias: NDArray[np.float64] | None,
        center: NDArray[np.float64] | None,
        normalize_input: bool,
    ) -> None: ...
    def outputs(self, X: NDArray[np.float64], threads: int) -> NDArray[np.float64]: ...
    def relative_outputs(self, X: NDArray[np.float64], threads: int) -> NDArray[np.float64]: ...
    def gradient(
        self, X: NDArray[np.float64], weights: NDArray[np.float64], threads: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...

class _Stepper:
    def evaluate(self) -> float: ...
    def state(
        self,
    ) -> tuple[Float, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]: ...
    def outputs(self) -> NDArray[np.float64]: ...
    @property
    def iteration(self) -> int: ...

class _Descent(_Stepper):
    def __init__(
        self,
        start: _Start,
        X: Float,
        y: NDArray[np.float64],
        weight: NDArray[np.float64] | None,
        loss: str,
        step: float,
        weight_decay: float,
        trained: str,
        threads: int,
    ) -> None: ...
    def advance(self, steps: int) -> int: ...
    @property
    def gradients(self) -> int: ...

class _StochasticDescent(_Stepper):
    def __init__(
        self,
        start: _Start,
        X: Float,
        y: NDArray[np.float64],
        weight: NDArray[np.float64] | None,
        loss: str,
        step: float,
        weight_decay: float,
        trained: str,
        batch: int,
        threads: int,
    ) -> None: ...
    def epoch(self, order: NDArray[np.int64]) -> bool: ...

class _Adam(_Stepper):
    def __init__(
        self,
        start: _Start,
        X: Float,
        y: NDArray[np.float64],
        weight: NDArray[np.float64] | None,
        loss: str,
        step: float,
        weight_decay: float,
        trained: str,
        beta1: float,
        beta2: float,
        eps: float,
        batch: int,
        threads: int,
    ) -> None: ...
    def epoch(self, order: NDArray[np.int64]) -> bool: ...

class Descent32(_Descent): ...
class Descent64(_Descent): ...
class StochasticDescent32(_StochasticDescent): ...
class StochasticDescent64(_StochasticDescent): ...
class Adam32(_Adam): ...
class Adam64(_Adam): ...

class _Flow:
    def __init__(
        self,
        start: _Start,
        X: Float,
        y: NDArray[np.float64],
        weight: NDArray[np.float64] | None,
        loss: str,
        method: str,
        t0: float,
        t1: float,
        rtol: float,
        step: float,
        weight_decay: float,
        trained: str,
        threads: int,
    ) -> None: ...
    def advance(self) -> str: ...
    def state(
        self, t: float
    ) -> tuple[Float, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]: ...
    def polynomials(self) -> tuple[Float, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]: ...
    def loss(self) -> float: ...
    def outputs(self) -> NDArray[np.float64]: ...
    @property
    def begin(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def next_step(self) -> float: ...
    @property
    def accepted(self) -> int: ...
    @property
    def rejected(self) -> int: ...
    @property
    def gradients(self) -> int: ...

class Flow32(_Flow): ...
class Flow64(_Flow): ...

class Brackets:
    @property
    def width(self) -> int: ...
    def __init__(
        self,
        U: NDArray[np.float64],
        log_norm: NDArray[np.float64],
        sign: NDArray[np.float64],
        log_abs_v: NDArray[np.float64],
        activation: str,
        p: float,
        offsets: NDArray[np.float64] | None,
        output_bias: NDArray[np.float64] | None,
        center: NDArray[np.float64] | None,
        normalize_input: bool,
        fixed: NDArray[np.uint8] | None,
        threads: int,
    ) -> None: ...
    def bracket(
        self,
        X: NDArray[np.float32] | NDArray[np.float64],
        label: NDArray[np.int64],
        *,
        level: str,
        starts: int,
        restarts: int,
        steps: int,
        seed: int,
        first: int,
        gap: float,
        max_nodes: int,
        max_seconds: float,
        low: NDArray[np.float64] | None,
        high: NDArray[np.float64] | None,
        out: dict[str, NDArray[Any]],
        threads: int,
    ) -> None: ...

def all_finite(values: NDArray[np.float32] | NDArray[np.float64]) -> bool: ...
def products(A: NDArray[np.float64], B: NDArray[np.float64], threads: int) -> NDArray[np.float64]: ...
def largest_eigenvalue(M: NDArray[np.float64]) -> float: ...
def orthonormal_basis(U: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]: ...
def fma_flops(dtype: str, repeats: int, threads: int) -> float: ...
def read_bytes(values: NDArray[np.float64], repeats: int, threads: int) -> float: ...
