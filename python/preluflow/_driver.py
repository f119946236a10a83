"""What every training method shares: its checked input, and the way from stop to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays, _targets
from preluflow._arrays import Float, Float64
from preluflow._dispatch import core
from preluflow._progress import progress_bar
from preluflow._targets import Targets
from preluflow._trained_form import TrainedForm
from preluflow.events import Event
from preluflow.loss import TRAINING_LOSSES
from preluflow.network import TwoLayerNetwork
from preluflow.observe import Observe, ObserverError, Recorder, Snapshot, require_homogeneous
from preluflow.results import Run
from preluflow.typing import Biases, Trained, TrainingLoss

T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """What every method is given, checked."""

    start: TwoLayerNetwork
    form: TrainedForm
    X: Float
    targets: Targets
    weight: Float64 | None
    loss: TrainingLoss
    observe: Observe
    threads: int

    @classmethod
    def check(
        cls,
        network: TwoLayerNetwork,
        X: ArrayLike,
        y: ArrayLike,
        loss: TrainingLoss,
        observe: Observe | None,
        num_threads: int | None,
        *,
        sample_weight: ArrayLike | None = None,
        biases: Biases | None = None,
        train: Trained = "both",
    ) -> Task:
        """Refuse bad input before any work."""
        _arrays.instance(network, "network", TwoLayerNetwork)
        request = Observe() if observe is None else _arrays.instance(observe, "observe", Observe)
        loss = _arrays.choice(loss, "loss", TRAINING_LOSSES)
        form = TrainedForm.check(network, biases, train)
        threads = _arrays.threads(num_threads)
        data = _arrays.data_matrix(X, dim=network.dim, dtype=network.dtype)
        targets = _targets.check(network, y, len(data), loss)
        weight = _targets.sample_weights(sample_weight, len(data))
        request = request.check(network, targets.labelled)
        return cls(network, form, data, targets, weight, loss, request, threads)

    def stepper(self, name: str, *args: Any) -> Any:
        """Make the core's stepper of that name for the network's dtype."""
        kind = getattr(core, name + ("32" if self.start.dtype == np.float32 else "64"))
        return kind(self.form.start(), self.X, self.targets.values, self.weight, self.loss, *args, self.threads)

    def config(self) -> dict[str, Any]:
        """What decides the numbers, for the result."""
        n, dim = self.X.shape
        network, form = self.start, self.form
        more: dict[str, Any] = {} if form.trained == "both" else {"train": form.trained}
        if not form.plain:
            more["outputs"] = network.num_outputs
            more["biases"] = [name for name in ("hidden", "output") if getattr(form, name)]
        if self.weight is not None:
            more["sample_weight"] = _targets.weights_digest(self.weight)
        return {
            "loss": self.loss,
            "n": n,
            "dim": dim,
            "width": network.width,
            "activation": network.activation,
            "p": network.p,
            "dtype": str(network.dtype),
            "num_threads": self.threads,
            **more,
        }

    def network(self, state: tuple[Any, ...]) -> TwoLayerNetwork:
        """Make a network of the start's kind from a stepper's state."""
        return self.form.network(state)

    def outputs(self, found: Float64) -> Float64:
        """Outputs (n, C) of the core as they are shown, (n,) for one."""
        return found[:, 0] if self.start.num_outputs == 1 else found

    def mean_loss(self, outputs: Float64) -> float:
        """Mean loss of outputs, as training sees it."""
        return _targets.mean_loss(self.loss, self.targets, outputs, self.weight)


def check_events(events: Any, task: Task) -> tuple[Event, ...]:
    """Refuse what are no events, or not defined for the run."""
    words = isinstance(events, (str, bytes, Mapping))
    if words or not isinstance(events, Iterable) or (isinstance(events, np.ndarray) and events.ndim == 0):
        raise TypeError(f"events must be a list of Event objects, got {_arrays.shown(events)}")
    happenings = tuple(events)
    for event in happenings:
        if not isinstance(event, Event):
            raise TypeError(f"events must hold Event objects (see preluflow.events), got {_arrays.shown(event)}")
        if event.needs_gmm and task.observe.gmm is None:
            raise ValueError(f"event {event.name!r} needs observe=Observe(gmm=...)")
        if event.needs_homogeneous:
            require_homogeneous(task.start, f"event {event.name!r}")
        if event.needs_labels and not task.targets.labelled:
            raise ValueError(f"event {event.name!r} needs labels, but y holds numbers to be met")
    names = [event.name for event in happenings]
    if len(set(names)) < len(names):
        raise ValueError(f"events must have different names, got {names}")
    return happenings


class Halt(NamedTuple):
    """Why a run ends before its last stop; ``look``: whether the place it ends at is observed."""

    status: str
    message: str
    look: bool = False


class Stepper(Protocol):
    """The steps of a method, and the state wherever the last of them made it known.

    Positions are in the unit stops are counted in. The state is known from ``begin`` to ``end``, the ends of the last
    step; they are one for a method that knows nothing between its steps.
    """

    unit: str

    @property
    def begin(self) -> Any:
        """First position at which the state is known."""

    @property
    def end(self) -> Any:
        """Last position at which the state is known."""

    @property
    def iteration(self) -> int:
        """Steps taken so far."""

    def time(self, position: Any) -> float:
        """Time at a position."""

    def advance(self, stop: Any) -> Halt | None:
        """Take a step, or several that end at ``stop``; a reason if it cannot."""

    def network(self, position: Any) -> TwoLayerNetwork:
        """The network at a position where it is known."""

    def evaluate(self, position: Any) -> tuple[float, Float64]:
        """Mean loss and outputs there."""

    def counts(self) -> dict[str, Any]:
        """Work done, for the statistics."""


class Accounts:
    """Where a run's seconds go."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.seconds = {"kernel": 0.0, "observing": 0.0, "drawing": 0.0}

    def timed(self, name: str, function: Callable[..., T], *args: Any) -> T:
        """Call a function on one of the accounts."""
        began = time.perf_counter()
        try:
            return function(*args)
        finally:
            self.seconds[name] += time.perf_counter() - began

    def observing(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the account of observing, less what it spends in the kernel."""
        kernel = self.seconds["kernel"]
        try:
            return self.timed("observing", function, *args)
        finally:
            self.seconds["observing"] -= self.seconds["kernel"] - kernel

    def stats(self) -> dict[str, float]:
        """Seconds since the beginning, and on each account."""
        total = {"seconds": time.perf_counter() - self.began}
        return {**total, **{f"seconds_{name}": value for name, value in self.seconds.items()}}


class _Stopped(Exception):
    """An event asked for the run's end."""


class Driver:
    """Takes a stepper from stop to stop: times, looks, finds events, stops, shows progress and answers Ctrl-C."""

    def __init__(
        self,
        task: Task,
        stepper: Stepper,
        events: tuple[Event, ...] = (),
        *,
        max_steps: int | None = None,
        like: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self.task = task
        self.stepper = stepper
        self.events = events
        self.max_steps = max_steps
        self.accounts = Accounts()
        self.recorder = Recorder(task.observe, like)
        self.position: Any = stepper.end  # where the run stands
        self.values: list[float] | None = None  # of the events at the end of the last step
        self.found: list[tuple[Any, int]] = []  # (position, event) within the last step, still ahead
        self.happened: list[list[float]] = [[] for _ in events]  # times
        self.bar: Any = None

    def run(self, method: str, stops: Sequence[float], progress: bool, config: dict[str, Any]) -> Run:
        """Visit every stop and return what was found."""
        if self.task.observe.networks:
            _arrays.require_room("networks", len(stops), self.task.start.width, self.task.start.dim + 3)
        halt = self._visit(stops, progress)
        stepper, recorder = self.stepper, self.recorder
        # What was interrupted within steps that know nothing in between stands at the end of the last.
        here = min(max(self.position, stepper.begin), stepper.end)
        network, t = stepper.network(here), stepper.time(here)
        return Run(
            method=method,
            status=halt.status,
            message=halt.message,
            iterations=np.array([stop.iteration for stop in recorder.stops], dtype=np.int64),
            t=np.array([stop.t for stop in recorder.stops], dtype=np.float64),
            records=recorder.arrays(),
            network=network,
            config={**self.task.config(), **config},
            stats={**self.accounts.stats(), "t": t, **stepper.counts()},
            events={
                event.name: np.array(times, dtype=np.float64)
                for event, times in zip(self.events, self.happened, strict=True)
            },
            networks=recorder.networks(),
        )

    # ---- from stop to stop

    def _visit(self, stops: Sequence[float], progress: bool) -> Halt:
        total, unit = stops[-1], self.stepper.unit
        try:
            if progress:
                self.bar = self.accounts.timed("drawing", progress_bar, total, unit, True)
            for stop in stops:
                halt = self._go(stop)
                if halt is not None and not halt.look:
                    return halt
                halt = self._look() or halt
                if halt is not None:
                    return halt
                self._show(stop)
        except KeyboardInterrupt:
            here = min(max(self.position, self.stepper.begin), self.stepper.end)
            return Halt("interrupted", f"interrupted at {unit} {here:g} of {total:g}")
        except ObserverError as error:
            return Halt("observer_failed", str(error))
        except _Stopped as error:
            return Halt("stopped", str(error))
        finally:
            if self.bar is not None:
                self.bar.close()
        return Halt("finished", f"{unit} {total:g} reached")

    def _go(self, stop: Any) -> Halt | None:
        """Go on to ``stop``, step by step, past what happens on the way; a reason if it is not reached."""
        stepper = self.stepper
        if self.events and self.values is None:
            self.values = [self._value(event, self.position) for event in self.events]
            self.found = [(self.position, i) for i, value in enumerate(self.values) if value >= 0.0]
        while True:
            halt = self._happen(stop)
            if halt is not None:
                return halt
            if stepper.end >= stop:
                self.position = stop
                return None
            self.position = stepper.end
            if self.max_steps is not None and stepper.iteration >= self.max_steps:
                return Halt("max_steps", f"{self.max_steps} steps taken at t = {self.position:g}", look=True)
            # Events are looked for after every unit, where there is nothing in between.
            halt = self.accounts.timed("kernel", stepper.advance, min(stop, stepper.end + 1) if self.events else stop)
            if halt is not None:
                return halt
            self._show(min(stepper.end, stop))
            if self.events:
                self._search()

    def _look(self) -> Halt | None:
        """Record this stop; a reason if its loss was looked at and is not finite, or an observer asks for the end."""
        snapshot = self._snapshot(self.position)
        more = {"epoch": self.position} if self.stepper.unit == "epoch" else {}
        stopped = self.accounts.observing(self.recorder.record, snapshot, more)
        iteration = snapshot.iteration
        if "evaluated" in vars(snapshot) and not np.isfinite(snapshot.loss):
            return Halt("not_finite", f"the loss or its gradient is not finite at iteration {iteration}")
        return None if stopped is None else Halt("stopped", f"{stopped} raised StopIteration at iteration {iteration}")

    def _snapshot(self, position: Any) -> Snapshot:
        stepper, timed = self.stepper, self.accounts.timed
        return Snapshot(
            iteration=stepper.iteration,
            t=stepper.time(position),
            network=timed("kernel", stepper.network, position),
            start=self.task.start,
            evaluate=partial(timed, "kernel", stepper.evaluate, position),
            X=self.task.X,
            y=self.task.targets.y,
            targets=self.task.targets,
            observe=self.task.observe,
            num_threads=self.task.threads,
        )

    def _show(self, position: float) -> None:
        """Move the progress bar, if there is one."""
        if self.bar is not None:
            self.accounts.timed("drawing", self.bar.update, position - self.bar.n)

    # ---- events

    def _value(self, event: Event, position: Any) -> float:
        try:
            return float(self.accounts.observing(event.value, self._snapshot(position)))
        except StopIteration:
            raise _Stopped(f"event {event.name} raised StopIteration") from None
        except Exception as error:
            if self.values is None:
                raise  # at the very start nothing is lost by raising
            raise ObserverError(f"event {event.name} raised {type(error).__name__}: {error}") from error

    def _search(self) -> None:
        """Find what happens in the step just taken: within it where the state is known there, else at its end."""
        begin, end = self.stepper.begin, self.stepper.end
        assert self.values is not None
        for i, event in enumerate(self.events):
            before, after = self.values[i], self._value(event, end)
            if before < 0.0 <= after:
                value = partial(self._value, event)
                self.found.append((locate(value, begin, end, before, after) if begin < end else end, i))
            self.values[i] = after
        self.found.sort()

    def _happen(self, stop: Any) -> Halt | None:
        """Note the events found up to ``stop``; the first terminal one ends the run."""
        while self.found and self.found[0][0] <= stop:
            position, i = self.found.pop(0)
            t = self.stepper.time(position)
            self.happened[i].append(t)
            if self.events[i].terminal:
                self.position = position
                return Halt("event", f"{self.events[i].name} at t = {t:g}", look=True)
        return None


def locate(value: Callable[[float], float], a: float, b: float, at_a: float, at_b: float, share: float = 1e-4) -> float:
    """Time in (a, b] by which ``value`` has become >= 0, to ``share`` of the interval: false position and bisection."""
    width, side = share * (b - a), 0
    bisect = False
    while b - a > width:
        t = 0.5 * (a + b) if bisect or not np.isfinite(at_a) else a + (b - a) * at_a / (at_a - at_b)
        t = min(max(t, a + 0.4 * width), b - 0.4 * width)
        at_t = value(t)
        old = b - a
        if at_t >= 0.0:
            b, at_b = t, max(at_t, 0.0)
            at_a *= 0.5 if side == 1 else 1.0
            side = 1
        else:
            a, at_a = t, at_t
            at_b *= 0.5 if side == -1 else 1.0
            side = -1
        bisect = b - a > 0.5 * old
    return b
