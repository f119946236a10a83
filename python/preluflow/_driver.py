"""What every training method shares: its checked input, and the way from stop to stop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from preluflow import _arrays
from preluflow._arrays import Float, Float64
from preluflow._dispatch import core
from preluflow._progress import progress_bar
from preluflow.network import LOSSES, TwoLayerNetwork
from preluflow.observe import Observe, ObserverError, Recorder, Snapshot
from preluflow.results import Run


@dataclass(frozen=True)
class Task:
    """What every method is given, checked."""

    start: TwoLayerNetwork
    X: Float
    y: Float64
    loss: str
    observe: Observe
    threads: int

    @classmethod
    def check(
        cls,
        network: TwoLayerNetwork,
        X: ArrayLike,
        y: ArrayLike,
        loss: str,
        observe: Observe | None,
        num_threads: int | None,
    ) -> Task:
        """Refuse bad input before any work."""
        _arrays.instance(network, "network", TwoLayerNetwork)
        request = Observe() if observe is None else _arrays.instance(observe, "observe", Observe)
        request.check(network)
        loss = _arrays.choice(loss, "loss", LOSSES)
        threads = _arrays.threads(num_threads)
        data = _arrays.data_matrix(X, dim=network.dim, dtype=network.dtype)
        return cls(network, data, _arrays.labels(y, n=len(data)), loss, request, threads)

    def stepper(self, name: str, *args: Any) -> Any:
        """Make the core's stepper of that name for the network's dtype."""
        kind = getattr(core, name + ("32" if self.start.dtype == np.float32 else "64"))
        return kind(self.start._core, self.X, self.y, self.loss, *args, self.threads)

    def config(self) -> dict[str, Any]:
        """What decides the numbers, for the result."""
        n, dim = self.X.shape
        network = self.start
        return {
            "loss": self.loss,
            "n": n,
            "dim": dim,
            "width": network.width,
            "activation": network.activation,
            "p": network.p,
            "dtype": str(network.dtype),
            "num_threads": self.threads,
        }

    def network(self, polar: tuple[Any, ...]) -> TwoLayerNetwork:
        """Make a network of the start's kind from directions, log-norms, signs and log |v|."""
        U, log_norm, sign, log_abs_v = polar
        return TwoLayerNetwork.from_polar(U, log_norm, sign, log_abs_v, self.start.activation, self.start.p)


class Halt(NamedTuple):
    """Why a run ends before its last stop; ``look``: whether the place it ends at is observed."""

    status: str
    message: str
    look: bool = False


class Clock(Protocol):
    """A stepper in the unit its stops are counted in."""

    unit: str

    @property
    def position(self) -> float:
        """Where it stands, in that unit."""

    @property
    def iteration(self) -> int:
        """Steps taken so far."""

    @property
    def t(self) -> float:
        """Time it stands at."""

    def advance(self, stop: Any) -> Halt | None:
        """Go on to ``stop``; a reason if it cannot."""

    def network(self) -> TwoLayerNetwork:
        """The network where it stands."""

    def evaluate(self) -> tuple[float, Float64]:
        """Mean loss and outputs where it stands."""

    def counts(self) -> dict[str, Any]:
        """Work done, for the statistics."""


class Driver:
    """Takes a stepper from stop to stop, looks, shows progress and answers Ctrl-C."""

    def __init__(self, task: Task, method: str, config: dict[str, Any]) -> None:
        self.task = task
        self.method = method
        self.config = {**task.config(), **config}
        self.began = time.perf_counter()
        self.recorder = Recorder(task.observe)
        self.seconds = {"kernel": 0.0, "observing": 0.0, "drawing": 0.0}
        self.events: dict[str, list[float]] = {}
        self.bar: Any = None

    def run(self, clock: Clock, stops: Sequence[float], progress: bool) -> Run:
        """Visit every stop and return what was found."""
        status, message = self._visit(clock, stops, progress)
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
            network=clock.network(),
            config=self.config,
            stats={**stats, "t": clock.t, **clock.counts()},
            events={name: np.array(times, dtype=np.float64) for name, times in self.events.items()},
        )

    def timed(self, name: str, function: Any, *args: Any) -> Any:
        """Call a function on one of the run's time accounts."""
        began = time.perf_counter()
        try:
            return function(*args)
        finally:
            self.seconds[name] += time.perf_counter() - began

    def observing(self, function: Any, *args: Any) -> Any:
        """Call a function on the account of observing, less what it spends in the kernel."""
        kernel = self.seconds["kernel"]
        try:
            return self.timed("observing", function, *args)
        finally:
            self.seconds["observing"] -= self.seconds["kernel"] - kernel

    def snapshot(self, clock: Clock) -> Snapshot:
        """Return the run where the clock stands."""
        return Snapshot(
            iteration=clock.iteration,
            t=clock.t,
            network=clock.network(),
            start=self.task.start,
            evaluate=clock.evaluate,
            X=self.task.X,
            y=self.task.y,
            observe=self.task.observe,
            num_threads=self.task.threads,
        )

    def show(self, position: float) -> None:
        """Move the progress bar, if there is one."""
        if self.bar is not None:
            self.timed("drawing", self.bar.update, position - self.bar.n)

    def _visit(self, clock: Clock, stops: Sequence[float], progress: bool) -> tuple[str, str]:
        total = stops[-1]
        try:
            if progress:
                self.bar = self.timed("drawing", progress_bar, total, clock.unit, True)
            for stop in stops:
                halt = clock.advance(stop)
                if halt is not None and not halt.look:
                    return halt.status, halt.message
                if not self._look(clock):
                    return "not_finite", f"the loss or its gradient is not finite at iteration {clock.iteration}"
                if halt is not None:
                    return halt.status, halt.message
                self.show(stop)
        except KeyboardInterrupt:
            return "interrupted", f"interrupted at {clock.unit} {clock.position:g} of {total:g}"
        except ObserverError as error:
            return "observer_failed", str(error)
        finally:
            if self.bar is not None:
                self.bar.close()
        return "finished", f"{clock.unit} {total:g} reached"

    def _look(self, clock: Clock) -> bool:
        """Record this stop; False if its loss was looked at and is not finite (it is recorded all the same)."""
        snapshot = self.snapshot(clock)
        more = {"epoch": clock.position} if clock.unit == "epoch" else {}
        self.observing(self.recorder.record, snapshot, more)
        return "evaluated" not in vars(snapshot) or bool(np.isfinite(snapshot.loss))
