"""Training by gradient descent and SGD: C++ steps between the stops, Python at the stops."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from preluflow import _arrays
from preluflow._arrays import Float, Float64
from preluflow._dispatch import core
from preluflow.data import Rng
from preluflow.network import LOSSES, TwoLayerNetwork
from preluflow.observe import Observe, ObserverError, Recorder, Snapshot
from preluflow.results import Run

if TYPE_CHECKING:
    from preluflow._core import _Descent, _Stepper, _StochasticDescent


def gradient_descent(
    network: TwoLayerNetwork,
    X: ArrayLike,
    y: ArrayLike,
    *,
    step: float,
    steps: int,
    loss: str = "squared",
    observe: Observe | None = None,
    progress: bool = False,
    num_threads: int | None = None,
) -> Run:
    """Run full-batch gradient descent theta <- theta - step * grad L, the Euler discretisation of MV25's eq. 7.

    The iteration is the ordinary one on (W, v), as a torch script runs it, carried out on the polar state: it is exact
    at any initialisation scale. Time is t = step * iteration.

    Parameters
    ----------
    network : TwoLayerNetwork
        Where to start; not changed.
    X : array, shape (n, D)
        Data in the network's dtype. C-contiguous arrays, also ``np.memmap``, are used without a copy.
    y : array, shape (n,)
        Labels -1 and +1, any real dtype.
    step : float
        Step size, positive.
    steps : int
        Number of iterations.
    loss : {"squared", "exponential", "logistic"}
        Mean over the data of (y - f)^2 (no factor 1/2), exp(-y f), log(1 + exp(-y f)).
    observe : Observe, optional
        What to record, and when (``every`` and ``at`` count iterations); by default loss and accuracy at the first and
        last state.
    progress : bool, default False
        Show a progress bar.
    num_threads : int, optional
        All cores by default. The result does not depend on it, bit for bit.

    Returns
    -------
    Run
        ``status`` is "finished", "not_finite", "observer_failed", or "interrupted" after Ctrl-C; what was done until
        then is kept in every case.

    Raises
    ------
    ValueError, TypeError
        For bad input, before any work.
    """
    task = _Task.check(network, X, y, step, loss, observe, num_threads)
    steps = _arrays.integer(steps, "steps", minimum=0)
    stops = task.observe.stops(steps, "steps")
    began = time.perf_counter()
    kind = core.Descent32 if network.dtype == np.float32 else core.Descent64
    stepper = kind(network._core, task.X, task.y, task.loss, task.step, task.threads)
    return _Driver(task, _Iterations(stepper), "gradient_descent", {"steps": steps}, began).run(stops, progress)


def sgd(
    network: TwoLayerNetwork,
    X: ArrayLike,
    y: ArrayLike,
    *,
    step: float,
    batch: int,
    epochs: int,
    loss: str = "squared",
    rng: Rng = None,
    observe: Observe | None = None,
    progress: bool = False,
    num_threads: int | None = None,
) -> Run:
    """Run mini-batch stochastic gradient descent, sampling without replacement.

    Each epoch visits the data once, in the order ``Generator.permutation(n)`` draws, ``batch`` points at a time; a last
    batch that is short is kept, and its gradient is the mean over its own points. Time is t = step * iteration.

    Parameters
    ----------
    network, X, y, step, loss, progress, num_threads
        As in ``gradient_descent``.
    batch : int
        Points of a mini-batch, 1 .. n; more than n is refused.
    epochs : int
        Passes over the data.
    rng : None, int or Generator
        Draws the order of the points.
    observe : Observe, optional
        What to record, and when: ``every`` and ``at`` count epochs here. Loss and outputs are those of the whole data,
        which costs a forward pass a stop.

    Returns
    -------
    Run
        As from ``gradient_descent``; ``run["epoch"]`` counts the epochs at the stops.

    Raises
    ------
    ValueError, TypeError
        For bad input, before any work.
    """
    task = _Task.check(network, X, y, step, loss, observe, num_threads)
    batch = _arrays.integer(batch, "batch", minimum=1)
    if batch > len(task.X):
        raise ValueError(f"batch must be at most the number of points n = {len(task.X)}, got {batch}")
    epochs = _arrays.integer(epochs, "epochs", minimum=0)
    generator = np.random.default_rng(rng)
    stops = task.observe.stops(epochs, "epochs")
    began = time.perf_counter()
    kind = core.StochasticDescent32 if network.dtype == np.float32 else core.StochasticDescent64
    stepper = kind(network._core, task.X, task.y, task.loss, task.step, batch, task.threads)
    clock = _Epochs(stepper, len(task.X), generator)
    return _Driver(task, clock, "sgd", {"batch": batch, "epochs": epochs}, began).run(stops, progress)


@dataclass(frozen=True)
class _Task:
    """What every method is given, checked."""

    start: TwoLayerNetwork
    X: Float
    y: Float64
    step: float
    loss: str
    observe: Observe
    threads: int

    @classmethod
    def check(
        cls,
        network: TwoLayerNetwork,
        X: ArrayLike,
        y: ArrayLike,
        step: float,
        loss: str,
        observe: Observe | None,
        num_threads: int | None,
    ) -> _Task:
        if not isinstance(network, TwoLayerNetwork):
            raise TypeError(f"network must be a TwoLayerNetwork, got {type(network).__name__}")
        request = Observe() if observe is None else observe
        if not isinstance(request, Observe):
            raise TypeError(f"observe must be an Observe, got {type(request).__name__}")
        request.check(network)
        step = _arrays.real(step, "step", above=0.0)
        loss = _arrays.choice(loss, "loss", LOSSES)
        threads = _arrays.threads(num_threads)
        data = _arrays.data_matrix(X, dim=network.dim, dtype=network.dtype)
        return cls(network, data, _arrays.labels(y, n=len(data)), step, loss, request, threads)

    def config(self) -> dict[str, Any]:
        n, dim = self.X.shape
        network = self.start
        return {
            "step": self.step,
            "loss": self.loss,
            "n": n,
            "dim": dim,
            "width": network.width,
            "activation": network.activation,
            "p": network.p,
            "dtype": str(network.dtype),
            "num_threads": self.threads,
        }


class _Clock(Protocol):
    """A stepper in the unit its stops are counted in."""

    unit: str

    @property
    def position(self) -> int: ...

    @property
    def stepper(self) -> _Stepper: ...

    def advance(self, count: int) -> bool:
        """Go on by ``count`` units; False when something is not finite."""

    def counts(self) -> dict[str, int]:
        """Work done, for the statistics."""


class _Iterations:
    """Full-batch descent: one unit is one step."""

    unit = "iteration"

    def __init__(self, stepper: _Descent) -> None:
        self.stepper = stepper

    @property
    def position(self) -> int:
        return self.stepper.iteration

    def advance(self, count: int) -> bool:
        return self.stepper.advance(count) == count

    def counts(self) -> dict[str, int]:
        return {"iterations": self.stepper.iteration, "gradients": self.stepper.gradients}


class _Epochs:
    """SGD: one unit is one pass over the data."""

    unit = "epoch"

    def __init__(self, stepper: _StochasticDescent, n: int, rng: np.random.Generator) -> None:
        self.stepper = stepper
        self.n = n
        self.rng = rng
        self.position = 0

    def advance(self, count: int) -> bool:
        for _ in range(count):
            if not self.stepper.epoch(self.rng.permutation(self.n)):
                return False
            self.position += 1
        return True

    def counts(self) -> dict[str, int]:
        return {"iterations": self.stepper.iteration, "epochs": self.position}


class _Driver:
    """Takes a stepper from stop to stop, looks, shows progress and answers Ctrl-C."""

    def __init__(self, task: _Task, clock: _Clock, method: str, config: dict[str, Any], began: float) -> None:
        self.task = task
        self.clock = clock
        self.method = method
        self.config = {**task.config(), **config}
        self.began = began
        self.recorder = Recorder(task.observe)
        self.seconds = {"kernel": 0.0, "observing": 0.0, "drawing": 0.0}

    def run(self, stops: list[int], progress: bool) -> Run:
        """Visit every stop and return what was found."""
        status, message = self._visit(stops, progress)
        recorder = self.recorder
        stats: dict[str, Any] = {"seconds": time.perf_counter() - self.began}
        stats.update({f"seconds_{name}": value for name, value in self.seconds.items()})
        return Run(
            method=self.method,
            status=status,
            message=message,
            iterations=np.array([iteration for iteration, _, _ in recorder.stops], dtype=np.int64),
            t=np.array([t for _, t, _ in recorder.stops], dtype=np.float64),
            records=recorder.arrays(),
            network=self._network(),
            config=self.config,
            stats={**stats, **self.clock.counts()},
        )

    def _visit(self, stops: list[int], progress: bool) -> tuple[str, str]:
        clock, total = self.clock, stops[-1]
        bar = None
        try:
            if progress:
                bar = self._timed("drawing", _progress_bar, total, clock.unit)
            for stop in stops:
                advanced = self._timed("kernel", clock.advance, stop - clock.position)
                if not advanced or not self._look():
                    where = f"iteration {clock.stepper.iteration}"
                    return "not_finite", f"the loss or its gradient is not finite at {where}"
                if bar is not None:
                    self._timed("drawing", bar.update, stop - bar.n)
        except KeyboardInterrupt:
            return "interrupted", f"interrupted at {clock.unit} {clock.position} of {total}"
        except ObserverError as error:
            return "observer_failed", str(error)
        finally:
            if bar is not None:
                bar.close()
        return "finished", f"{total} {clock.unit}s done"

    def _timed(self, name: str, function: Any, *args: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args)
        finally:
            self.seconds[name] += time.perf_counter() - began

    def _look(self) -> bool:
        """Record this stop; False if its loss was looked at and is not finite (it is recorded all the same)."""
        stepper = self.clock.stepper
        kernel = self.seconds["kernel"]
        snapshot = Snapshot(
            iteration=stepper.iteration,
            t=self.task.step * stepper.iteration,
            network=self._network(),
            start=self.task.start,
            evaluate=lambda: (self._timed("kernel", stepper.evaluate), stepper.outputs()),
            X=self.task.X,
            y=self.task.y,
            observe=self.task.observe,
            num_threads=self.task.threads,
        )
        more = {"epoch": self.clock.position} if self.clock.unit == "epoch" else {}
        self._timed("observing", self.recorder.record, snapshot, more)
        self.seconds["observing"] -= self.seconds["kernel"] - kernel
        return "evaluated" not in vars(snapshot) or bool(np.isfinite(snapshot.loss))

    def _network(self) -> TwoLayerNetwork:
        start = self.task.start
        return TwoLayerNetwork.from_polar(*self.clock.stepper.state(), start.activation, start.p)


def _progress_bar(total: int, unit: str) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, unit=unit, leave=False)
