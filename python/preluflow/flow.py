"""Gradient flow itself: adaptive Runge-Kutta steps in C++, accurate to a stated tolerance."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from preluflow import _arrays
from preluflow._arrays import Float, Float64
from preluflow._dense import Dense, Step
from preluflow._dispatch import core
from preluflow._driver import Driver, Halt, Task, check_events
from preluflow.events import Event
from preluflow.network import TwoLayerNetwork
from preluflow.observe import Observe
from preluflow.results import Run
from preluflow.typing import Biases, Method, Trained, TrainingLoss

if TYPE_CHECKING:
    from preluflow._core import _Flow

METHODS: dict[Method, dict[str, Any]] = {method["name"]: method for method in core.tableaus()}

_LEAST_RTOL = {"float32": 1e-6, "float64": 1e-13}

_LONG = 4.0  # a typical length of the rows of X beyond which, or below whose inverse, X is called unscaled
_LOOKED_AT = 1000  # rows, at most about twice as many, to find that length


def gradient_flow(
    network: TwoLayerNetwork | Run,
    X: ArrayLike,
    y: ArrayLike,
    *,
    t1: float,
    loss: TrainingLoss = "squared",
    method: Method = "tsit5",
    rtol: float = 1e-3,
    step: float | None = None,
    weight_decay: float = 0.0,
    sample_weight: ArrayLike | None = None,
    biases: Biases | None = None,
    train: Trained = "both",
    events: Sequence[Event] = (),
    observe: Observe | None = None,
    max_steps: int = 100_000,
    dense: bool = False,
    join: bool = False,
    progress: bool = False,
    num_threads: int | None = None,
) -> Run:
    """Integrate the gradient flow theta' = -grad L(theta) (MV25, eq. 7) from t = 0, or from a run's end, to ``t1``.

    The state is log-polar (docs/mathematics.md#polar-flow), so that any initialisation scale is an ordinary number:
    1e-300 costs the time the flow itself takes to grow, and no accuracy until neurons are felt. (What comes after may
    hang on where rounding has left neurons that were aligned exactly by then, as would any later escape from a saddle
    of several outputs.) State, time and error control are float64,
    gradients are of the data's dtype. In every step the error of each neuron is kept within ``rtol``: the angle of its
    direction in radians, the change of log ||w_j||, and of v_j / ||w_j|| (of several outputs the row V_j. / ||w_j||);
    and that of each output bias, relative where it is beyond 1. On Figure 5's problem the default ends within 1e-2 of
    the exact flow by the same measure (bench/bench_flow.py).

    Parameters
    ----------
    network : TwoLayerNetwork or Run
        Where to start; not changed. A ``Run`` of this function is continued from where it ended, with the step it had.
    X : array, shape (n, D)
        Data in the network's dtype. C-contiguous arrays, also ``np.memmap``, are used without a copy.
    y : array, shape (n,) or (n, C)
        Labels -1 and +1, any real dtype; those in ``network.classes`` where these are others. With the squared loss
        numbers to be met, of several outputs rows of them; with the cross-entropy also rows of shares of the classes.
    t1 : float
        Time to integrate to, at least the time of the start.
    loss : {"squared", "exponential", "logistic", "cross_entropy"}
        Mean over the data of (y - f)^2 (no factor 1/2), exp(-y f), log(1 + exp(-y f)). Of several outputs
        ||Y - F||^2, Y the one-hot rows of labels, or log sum_c exp(F_c) - F_y. But for the squared loss steps grow with
        t by themselves (as if time were rescaled by the loss): t = 1e6 takes some hundred gradients.
    method : {"tsit5", "dopri5", "bosh3", "flow43", "dop853", "rkc", "rk4", "euler"}
        Runge-Kutta method: Tsitouras 5(4), Dormand-Prince 5(4), Bogacki-Shampine 3(2), a pair of orders 4(3) found for
        these flows, which takes a tenth to a third fewer gradients than "tsit5" for an error of 1e-3 at the end
        (docs/decisions/017), Dormand-Prince 8(5,3);
        Bogacki-Shampine giving way to Runge-Kutta-Chebyshev of order 2 where stability, and not accuracy, would hold
        steps short (Sommeijer, Shampine, Verwer 1998); and, with steps of fixed length, the classical method of order 4
        and Euler's. For p <= 2 the field has kinks where a cosine changes sign, or is steep there; methods of high
        order fall back to about order p, and the error at the end may exceed ``rtol`` many times. At p = 1 neurons
        slide along kinks: below an rtol of 1e-5 steps become tiny. On correlated data the flow is stiff once it has
        learnt: there "rkc" takes a third to a thirtieth of the gradients of "tsit5" at an rtol of about 1e-3, and
        mostly ends nearer to the flow; at p = 1, where kinks hold steps short, it is much like "bosh3"
        (docs/decisions/013). It keeps up to 42 arrays of the size of the weights, "bosh3" four.
    rtol : float, default 1e-3
        Error of a step, as above; at least 1e-6 for float32 and 1e-13 for float64. Unused with fixed steps.
    step : float, optional
        Length of the steps of "rk4" and "euler"; otherwise of the first step, chosen automatically by default.
    weight_decay : float, default 0
        Adds weight_decay * theta to the gradient, biases included: theta' = -grad L - weight_decay * theta. It is no
        part of the loss that is recorded.
    sample_weight : array, shape (n,), optional
        Weights of the points in the mean, at least 0; only their ratios matter.
    biases : {"hidden", "output", "both"}, optional
        Biases that are trained besides those the network has; they begin at 0. Biases of neurons are trained as
        weights of a constant input 1, so that the norm of a pReLU neuron is that of (w_j, b_j).
    train : {"both", "inner", "outer"}, default "both"
        Which layer is trained; the other one stays as it is. Output biases belong to the outer one.
    events : sequence of Event
        See ``preluflow.events``. Their times are located on the dense output to about 1e-4 of a step.
    observe : Observe, optional
        What to record, and when: ``every`` and ``at`` are times here. Stops do not affect the steps: they are served by
        dense output (for "dop853" at three more gradients for each step looked into). By default loss and accuracy at
        the first and last state.
    max_steps : int, default 100000
        Give up after so many steps. Where that happens and a typical row of X is longer than 4 or shorter than 1/4 -
        speeds go with the power p + 1 of it - a RuntimeWarning says so.
    dense : bool, default False
        Keep the steps' dense output, so that ``run.at(t)`` gives the network at any t. That takes q + 1 copies of what
        is trained of the network for each step, with q = 1 for "euler", 3 for "rk4", "bosh3", "flow43" and "rkc", 4 for
        "tsit5" and "dopri5", 7 for "dop853" (at three more gradients a step): 4 MB a step for the default with float32,
        D = 1000 and h = 200; ``run.stats["dense_bytes"]`` says how much it was.
    join : bool, default False
        When ``network`` is a run, return one run from its beginning, with its records, events, networks, dense output
        and work before those found here, rather than that which begins where it ended. Then loss, weight decay, sample
        weights, the layer trained, the biases and ``dense`` must be the same, and ``observe`` record the same. The
        stop they have in common is kept once, and an event that was so at the end of the first is not noted again;
        ``max_steps`` counts the new steps.
    progress : bool, default False
        Show a progress bar.
    num_threads : int, optional
        All cores by default. The result does not depend on it, bit for bit.

    Returns
    -------
    Run
        ``status`` is "finished", "event", "stopped" (an observer raised ``StopIteration``), "max_steps",
        "step_too_small", "not_finite", "observer_failed" or, after Ctrl-C, "interrupted"; what was done until then is
        kept in every case. ``run.stats`` has ``accepted`` and ``rejected`` steps, ``gradients`` (passes over the data
        forward and back), ``forwards`` (further passes forward, for losses between steps), ``next_step`` and ``t``, the
        time of ``run.network``.

    Raises
    ------
    ValueError, TypeError
        For bad input, before any work.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> look = pf.Observe(every=10.0, what=["loss", "alignment"], gmm=gmm)
    >>> run = pf.gradient_flow(net, data.X, data.y, t1=30, observe=look)
    >>> run.status, run.t.tolist(), run["loss"].round(1).tolist()
    ('finished', [0.0, 10.0, 20.0, 30.0], [1.0, 0.7, 0.0, 0.0])
    """
    earlier: Run | None = None
    if isinstance(network, Run):
        if network.method != "gradient_flow":
            raise ValueError(f"network must be a network or a run of gradient_flow, got a run of {network.method}")
        earlier, network = network, network.network
    before = {} if earlier is None else earlier.stats
    method = _arrays.choice(method, "method", METHODS)
    adaptive = METHODS[method]["control_order"] > 0
    if step is None and not adaptive:
        raise ValueError(f"step must be given for method {method!r}, whose steps have a fixed length")
    if step is not None:
        step = _arrays.real(step, "step", above=0.0)
    max_steps = _arrays.integer(max_steps, "max_steps", minimum=1)
    dense, join = _arrays.flag(dense, "dense"), _arrays.flag(join, "join")
    progress = _arrays.flag(progress, "progress")
    decay = _arrays.real(weight_decay, "weight_decay", minimum=0.0)
    task = Task.check(
        network, X, y, loss, observe, num_threads, sample_weight=sample_weight, biases=biases, train=train
    )
    rtol = _arrays.real(rtol, "rtol", minimum=_LEAST_RTOL[str(network.dtype)])
    t0 = float(before.get("t", 0.0))
    t1 = _arrays.real(t1, "t1", minimum=t0)
    happenings = check_events(events, task)
    if join:
        if earlier is None:
            raise ValueError("join=True needs a run to continue in the place of network")
        _continued(earlier, task, decay, dense, method)
    stops = task.observe.times(t0, t1)
    first = step if step is not None else (before.get("next_step", 0.0) if adaptive else 0.0)
    config = {"method": method, "rtol": rtol, "step": step, "t0": t0, "t1": t1, "max_steps": max_steps}
    config.update({"weight_decay": decay} if decay else {})
    stepper = _Flowing(task, task.stepper("Flow", method, t0, t1, rtol, first, decay, task.form.trained), dense)
    like = earlier if join else None
    records = like.records if like is not None and len(like.t) else None
    driver = Driver(task, stepper, happenings, max_steps=max_steps, like=records)
    run = driver.run("gradient_flow", stops, progress, config)
    if stepper.kept is not None:
        run = _with_dense(run, Dense(tuple(stepper.kept)))
    if like is not None:
        run = _joined(like, run)
    if run.status == "max_steps":
        _warn_of_scale(task.X)
    return run


def _continued(before: Run, task: Task, decay: float, dense: bool, method: Method) -> None:
    """Refuse what the records of an earlier run cannot be joined with."""
    for name, value in before.stats.items():
        if _adds_up(name):
            _arrays.real(value, f"network.stats[{name!r}]", minimum=0.0)
    if before.config.get("loss") != task.loss:
        raise ValueError(f"join needs the loss of the run that is continued, {before.config.get('loss')!r}")
    now = {**task.config(), "weight_decay": decay}
    for name, default in (("weight_decay", 0.0), ("train", "both"), ("biases", []), ("sample_weight", None)):
        needed, found = before.config.get(name, default), now.get(name, default)
        if needed != found and name == "sample_weight":
            raise ValueError(
                f"join needs the sample_weight of the run that is continued, {_weights(needed)}, got {_weights(found)}"
            )
        if needed != found:
            raise ValueError(f"join needs the {name} of the run that is continued, {needed!r}, got {found!r}")
    if bool(before.networks) != task.observe.networks:
        raise ValueError("join needs observe=Observe(networks=...) as in the run that is continued")
    if (before.dense is not None) != dense:
        raise ValueError(f"join needs dense={before.dense is not None} as in the run that is continued")
    if before.dense is not None and before.dense.steps:
        found, needed = len(before.dense.steps[0].l) - 1, max(len(powers) for powers in METHODS[method]["dense"])
        if found != needed:
            raise ValueError(f"join with dense=True needs the method of the run that is continued, not {method!r}")


def _weights(digest: Any) -> str:
    return "equal weights" if digest is None else f"weights with the digest {digest}"


def _adds_up(name: str) -> bool:
    """Whether a number of ``run.stats`` is work, that of two runs together being the sum."""
    return name in ("iterations", "accepted", "rejected", "gradients", "forwards") or name.startswith("seconds")


def _joined(before: Run, after: Run) -> Run:
    """One run of the two: the stop at which the second begins is that at which the first ended, if it did end there."""
    first = 1 if len(before.t) and len(after.t) and before.t[-1] == after.t[0] else 0
    steps = int(before.stats.get("iterations", before.iterations[-1] if len(before.iterations) else 0))
    begin = float(after.config["t0"])
    events = {name: times for name, times in before.events.items() if name not in after.events}
    for name, times in after.events.items():
        # What was so at the end of the first is so at the start of the second: that is no news.
        new = times[times > begin] if name in before.events else times
        events[name] = np.concatenate([before.events.get(name, new[:0]), new])
    records = dict(after.records)
    for name, values in before.records.items() if len(before.t) else ():
        # Interrupted before its first stop, the second has no records.
        records[name] = np.concatenate([values, after.records.get(name, values[:0])[first:]])
    sums = {name: value + before.stats.get(name, 0) for name, value in after.stats.items() if _adds_up(name)}
    joined = replace(
        after,
        iterations=np.concatenate([before.iterations, after.iterations[first:] + steps]),
        t=np.concatenate([before.t, after.t[first:]]),
        records=records,
        networks=before.networks + after.networks[first:],
        config={**after.config, "t0": before.config.get("t0", begin)},
        stats={**after.stats, **sums},
        events=events,
    )
    if before.dense is not None and after.dense is not None:
        joined = _with_dense(joined, before.dense + after.dense)
    return joined


def _with_dense(run: Run, dense: Dense) -> Run:
    return replace(run, dense=dense, stats={**run.stats, "dense_bytes": dense.nbytes})


def _warn_of_scale(X: Float) -> None:
    """Say so if it is data of another length than 1 that take so many steps."""
    some = X[:: max(1, len(X) // _LOOKED_AT)].astype(np.float64)
    length = float(np.median(np.linalg.norm(some, axis=1)))
    if length > _LONG or length < 1.0 / _LONG:
        warnings.warn(
            f"the flow ran into max_steps, and X is unscaled: its rows have a length of about {length:.3g}, where the "
            f"flow is at ease with lengths about 1; train on X / {length:.3g}",
            RuntimeWarning,
            stacklevel=3,
        )


class _Flowing:
    """The flow: one unit is one unit of time, and the steps are the stepper's own."""

    unit = "t"

    def __init__(self, task: Task, stepper: _Flow, dense: bool) -> None:
        self.task = task
        self.stepper = stepper
        self.forwards = 0
        self.kept: list[Step] | None = [] if dense else None

    @property
    def begin(self) -> float:
        return self.stepper.begin

    @property
    def end(self) -> float:
        return self.stepper.end

    @property
    def iteration(self) -> int:
        return self.stepper.accepted

    def time(self, position: float) -> float:
        return position

    def advance(self, _: float) -> Halt | None:
        stepper, before = self.stepper, self.stepper.end
        status = stepper.advance()
        if status == "not_finite":
            return Halt(status, f"the loss or its gradient is not finite after t = {before:g}")
        if status != "ok":
            return Halt(status, f"rtol cannot be met: the step has become too small at t = {before:g}")
        if self.kept is not None:
            phi, l, rho, bias = stepper.polynomials()  # noqa: E741 - as in the equations
            if self.task.start.num_outputs == 1 and self.task.form.trained != "inner":
                rho = rho[..., 0]
            self.kept.append(Step(stepper.begin, stepper.end, phi, l, rho, bias))
        return None

    def network(self, position: float) -> TwoLayerNetwork:
        if self.stepper.accepted == 0:
            return self.task.start
        return self.task.network(self.stepper.state(position))

    def evaluate(self, position: float) -> tuple[float, Float64]:
        if position == self.stepper.end:
            return self.stepper.loss(), self.task.outputs(self.stepper.outputs())
        task = self.task
        self.forwards += 1
        outputs = self.network(position).decision_function(task.X, num_threads=task.threads)
        return task.mean_loss(outputs), outputs

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
