"""Gradient flow itself: adaptive Runge-Kutta steps in C++, accurate to a stated tolerance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from preluflow import _arrays
from preluflow._arrays import Float64
from preluflow._dispatch import core
from preluflow._driver import Driver, Halt, Task
from preluflow.events import Event
from preluflow.network import TwoLayerNetwork, mean_loss
from preluflow.observe import Observe, ObserverError
from preluflow.results import Run

if TYPE_CHECKING:
    from preluflow._core import _Flow

METHODS: dict[str, dict[str, Any]] = {method["name"]: method for method in core.tableaus()}

_LEAST_RTOL = {"float32": 1e-6, "float64": 1e-13}


def gradient_flow(
    network: TwoLayerNetwork | Run,
    X: ArrayLike,
    y: ArrayLike,
    *,
    t1: float,
    loss: str = "squared",
    method: str = "tsit5",
    rtol: float = 1e-3,
    step: float | None = None,
    events: Sequence[Event] = (),
    observe: Observe | None = None,
    max_steps: int = 100_000,
    progress: bool = False,
    num_threads: int | None = None,
) -> Run:
    """Integrate the gradient flow theta' = -grad L(theta) (MV25, eq. 7) from t = 0, or from a run's end, to ``t1``.

    The state is log-polar (docs/mathematics.md#polar-flow), so that any initialisation scale is an ordinary number:
    1e-300 costs the time the flow itself takes to grow, and no accuracy. State, time and error control are float64,
    gradients are of the data's dtype. In every step the error of each neuron is kept within ``rtol``: the angle of its
    direction in radians, the change of log ||w_j||, and of v_j / ||w_j||. On Figure 5's problem the default ends within
    1e-2 of the exact flow by the same measure (bench/bench_flow.py).

    Parameters
    ----------
    network : TwoLayerNetwork or Run
        Where to start; not changed. A ``Run`` of this function is continued from where it ended, with the step it had.
    X : array, shape (n, D)
        Data in the network's dtype. C-contiguous arrays, also ``np.memmap``, are used without a copy.
    y : array, shape (n,)
        Labels -1 and +1, any real dtype.
    t1 : float
        Time to integrate to, at least the time of the start.
    loss : {"squared", "exponential", "logistic"}
        Mean over the data of (y - f)^2 (no factor 1/2), exp(-y f), log(1 + exp(-y f)). For the last two steps grow with
        t by themselves (as if time were rescaled by the loss): t = 1e6 takes some hundred gradients.
    method : {"tsit5", "dopri5", "bosh3", "dop853", "rk4", "euler"}
        Runge-Kutta method: Tsitouras 5(4), Dormand-Prince 5(4), Bogacki-Shampine 3(2), Dormand-Prince 8(5,3); and, with
        steps of fixed length, the classical method of order 4 and Euler's. For p <= 2 the field has kinks where a
        cosine changes sign, or is steep there; methods of high order fall back to about order p, and the error at the
        end may exceed ``rtol`` many times. At p = 1 neurons slide along kinks: below an rtol of 1e-5 steps become tiny.
    rtol : float, default 1e-3
        Error of a step, as above; at least 1e-6 for float32 and 1e-13 for float64. Unused with fixed steps.
    step : float, optional
        Length of the steps of "rk4" and "euler"; otherwise of the first step, chosen automatically by default.
    events : sequence of Event
        See ``preluflow.events``. Their times are located on the dense output to about 1e-4 of a step.
    observe : Observe, optional
        What to record, and when: ``every`` and ``at`` are times here. Stops do not affect the steps: they are served by
        dense output (for "dop853" at three more gradients for each step looked into). By default loss and accuracy at
        the first and last state.
    max_steps : int, default 100000
        Give up after so many steps.
    progress : bool, default False
        Show a progress bar.
    num_threads : int, optional
        All cores by default. The result does not depend on it, bit for bit.

    Returns
    -------
    Run
        ``status`` is "finished", "event", "max_steps", "step_too_small", "not_finite", "observer_failed" or, after
        Ctrl-C, "interrupted"; what was done until then is kept in every case. ``run.stats`` has ``accepted`` and
        ``rejected`` steps, ``gradients`` (passes over the data forward and back), ``forwards`` (further passes forward,
        for losses between steps), ``next_step`` and ``t``, the time of ``run.network``.

    Raises
    ------
    ValueError, TypeError
        For bad input, before any work.
    """
    before: dict[str, Any] = {}
    if isinstance(network, Run):
        if network.method != "gradient_flow":
            raise ValueError(f"network must be a network or a run of gradient_flow, got a run of {network.method}")
        before, network = network.stats, network.network
    method = _arrays.choice(method, "method", METHODS)
    adaptive = METHODS[method]["control_order"] > 0
    if step is None and not adaptive:
        raise ValueError(f"step must be given for method {method!r}, whose steps have a fixed length")
    if step is not None:
        step = _arrays.real(step, "step", above=0.0)
    max_steps = _arrays.integer(max_steps, "max_steps", minimum=1)
    progress = _arrays.flag(progress, "progress")
    task = Task.check(network, X, y, loss, observe, num_threads)
    rtol = _arrays.real(rtol, "rtol", minimum=_LEAST_RTOL[str(network.dtype)])
    t0 = float(before.get("t", 0.0))
    t1 = _arrays.real(t1, "t1", minimum=t0)
    happenings = _check_events(events, task)
    stops = task.observe.times(t0, t1)
    first = step if step is not None else (before.get("next_step", 0.0) if adaptive else 0.0)
    config = {"method": method, "rtol": rtol, "step": step, "t0": t0, "t1": t1, "max_steps": max_steps}
    driver = Driver(task, "gradient_flow", config)
    stepper = task.stepper("Flow", method, t0, t1, rtol, first)
    return driver.run(_Flowing(driver, stepper, happenings, max_steps), stops, progress)


def _check_events(events: Any, task: Task) -> tuple[Event, ...]:
    words = isinstance(events, (str, bytes, Mapping))
    if words or not isinstance(events, Iterable) or (isinstance(events, np.ndarray) and events.ndim == 0):
        raise TypeError(f"events must be a list of Event objects, got {_arrays.shown(events)}")
    happenings = tuple(events)
    for event in happenings:
        if not isinstance(event, Event):
            raise TypeError(f"events must hold Event objects (see preluflow.events), got {_arrays.shown(event)}")
        if event.needs_gmm and task.observe.gmm is None:
            raise ValueError(f"event {event.name!r} needs observe=Observe(gmm=...)")
        if event.needs_homogeneous and task.start.activation == "tanh":
            raise ValueError(f"event {event.name!r} is defined for 'prelu' and 'polynomial' networks, not for 'tanh'")
    names = [event.name for event in happenings]
    if len(set(names)) < len(names):
        raise ValueError(f"events must have different names, got {names}")
    return happenings


class _Flowing:
    """The flow: one unit is one unit of time, and the steps are the stepper's own."""

    unit = "t"

    def __init__(self, driver: Driver, stepper: _Flow, events: tuple[Event, ...], max_steps: int) -> None:
        self.driver = driver
        self.stepper = stepper
        self.events = events
        self.max_steps = max_steps
        self.position = stepper.end
        self.forwards = 0
        self.values: list[float] | None = None  # of the events at the end of the last step
        self.found: list[tuple[float, int]] = []  # (time, event) within the last step, still ahead of position
        for event in events:
            driver.events[event.name] = []

    @property
    def t(self) -> float:
        return self.position

    @property
    def iteration(self) -> int:
        return self.stepper.accepted

    def advance(self, stop: float) -> Halt | None:
        if self.events and self.values is None:
            self.values = [self._value(event, self.position) for event in self.events]
            self.found = [(self.position, i) for i, value in enumerate(self.values) if value >= 0.0]
        while True:
            halt = self._happen(stop)
            if halt is not None or self.stepper.end >= stop:
                self.position = self.position if halt is not None else stop
                return halt
            self.position = self.stepper.end
            if self.stepper.accepted >= self.max_steps:
                return Halt("max_steps", f"{self.max_steps} steps taken at t = {self.position:g}", look=True)
            status = self.driver.timed("kernel", self.stepper.advance)
            if status == "not_finite":
                return Halt(status, f"the loss or its gradient is not finite after t = {self.position:g}")
            if status != "ok":
                return Halt(status, f"rtol cannot be met: the step has become too small at t = {self.position:g}")
            self.driver.show(min(self.stepper.end, stop))
            if self.events:
                self._search()

    def network(self) -> TwoLayerNetwork:
        if self.stepper.accepted == 0:
            return self.driver.task.start
        polar = self.driver.timed("kernel", self.stepper.state, self.position)
        return self.driver.task.network(polar)

    def evaluate(self) -> tuple[float, Float64]:
        if self.position == self.stepper.end:
            return self.driver.timed("kernel", self.stepper.loss), self.stepper.outputs()
        task = self.driver.task
        self.forwards += 1
        network = self.network()
        outputs = self.driver.timed("kernel", network._core.forward, task.X, task.threads)
        return mean_loss(task.loss, task.y, outputs), outputs

    def counts(self) -> dict[str, Any]:
        stepper = self.stepper
        return {
            "iterations": stepper.accepted,
            "accepted": stepper.accepted,
            "rejected": stepper.rejected,
            "gradients": stepper.gradients,
            "forwards": self.forwards,
            "next_step": stepper.next_step,
        }

    # ---- events

    def _value(self, event: Event, t: float) -> float:
        position, self.position = self.position, t
        try:
            return float(self.driver.observing(event.value, self.driver.snapshot(self)))
        except Exception as error:
            if self.stepper.accepted == 0:
                raise  # at the very start nothing is lost by raising
            raise ObserverError(f"event {event.name} raised {type(error).__name__}: {error}") from error
        finally:
            self.position = position

    def _search(self) -> None:
        """Find what happens in the step just taken."""
        begin, end = self.stepper.begin, self.stepper.end
        assert self.values is not None
        for i, event in enumerate(self.events):
            before, after = self.values[i], self._value(event, end)
            if before < 0.0 <= after:
                self.found.append((_locate(lambda t, e=event: self._value(e, t), begin, end, before, after), i))
            self.values[i] = after
        self.found.sort()

    def _happen(self, stop: float) -> Halt | None:
        """Note the events found up to ``stop``; the first terminal one ends the run."""
        while self.found and self.found[0][0] <= stop:
            t, i = self.found.pop(0)
            event = self.events[i]
            self.driver.events[event.name].append(t)
            if event.terminal:
                self.position = t
                return Halt("event", f"{event.name} at t = {t:g}", look=True)
        return None


def _locate(value: Any, a: float, b: float, at_a: float, at_b: float, share: float = 1e-4) -> float:
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
