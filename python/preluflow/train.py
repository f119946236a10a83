"""Training by gradient descent and SGD: C++ steps between the stops, Python at the stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from preluflow import _arrays
from preluflow._arrays import Float64
from preluflow._driver import Driver, Halt, Task, check_events
from preluflow.data import Rng
from preluflow.events import Event
from preluflow.network import TwoLayerNetwork
from preluflow.observe import Observe
from preluflow.results import Run
from preluflow.typing import Biases, Trained, TrainingLoss

if TYPE_CHECKING:
    from preluflow._core import _Descent, _StochasticDescent


def gradient_descent(
    network: TwoLayerNetwork,
    X: ArrayLike,
    y: ArrayLike,
    *,
    step: float,
    steps: int,
    loss: TrainingLoss = "squared",
    weight_decay: float = 0.0,
    sample_weight: ArrayLike | None = None,
    biases: Biases | None = None,
    train: Trained = "both",
    events: Sequence[Event] = (),
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
    y : array, shape (n,) or (n, C)
        Labels -1 and +1, any real dtype; those in ``network.classes`` where these are others. With the squared loss
        numbers to be met, of several outputs rows of them; with the cross-entropy also rows of shares of the classes.
    step : float
        Step size, positive.
    steps : int
        Number of iterations.
    loss : {"squared", "exponential", "logistic", "cross_entropy"}
        Mean over the data of (y - f)^2 (no factor 1/2), exp(-y f), log(1 + exp(-y f)). Of several outputs
        ||Y - F||^2, Y the one-hot rows of labels, or log sum_c exp(F_c) - F_y.
    weight_decay : float, default 0
        Adds weight_decay * theta to the gradient, as torch's SGD does.
    sample_weight : array, shape (n,), optional
        Weights of the points in the mean, at least 0; only their ratios matter.
    biases : {"hidden", "output", "both"}, optional
        Biases that are trained besides those the network has; they begin at 0. Biases of neurons are trained as
        weights of a constant input 1, so that the norm of a pReLU neuron is that of (w_j, b_j).
    train : {"both", "inner", "outer"}, default "both"
        Which layer is trained; the other one stays as it is. Output biases belong to the outer one.
    events : sequence of Event
        See ``preluflow.events``. They are looked for after every iteration, where the loss costs no more than the step
        that follows, and a copy of the network is made; a terminal one ends the run there.
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
        ``status`` is "finished", "event", "stopped" (an observer raised ``StopIteration``), "not_finite",
        "observer_failed", or "interrupted" after Ctrl-C; what was done until then is kept in every case.

    Raises
    ------
    ValueError, TypeError
        For bad input, before any work.
    """
    step = _arrays.real(step, "step", above=0.0)
    steps = _arrays.integer(steps, "steps", minimum=0)
    decay = _arrays.real(weight_decay, "weight_decay", minimum=0.0)
    progress = _arrays.flag(progress, "progress")
    task = Task.check(
        network, X, y, loss, observe, num_threads, sample_weight=sample_weight, biases=biases, train=train
    )
    happenings = check_events(events, task)
    stops = task.observe.stops(steps, "steps")
    stepper = task.stepper("Descent", step, decay, task.form.trained)
    config = {"step": step, "steps": steps, **({"weight_decay": decay} if decay else {})}
    return Driver(task, _Iterations(task, stepper, step), happenings).run("gradient_descent", stops, progress, config)


def sgd(
    network: TwoLayerNetwork,
    X: ArrayLike,
    y: ArrayLike,
    *,
    step: float,
    batch: int,
    epochs: int,
    loss: TrainingLoss = "squared",
    weight_decay: float = 0.0,
    sample_weight: ArrayLike | None = None,
    biases: Biases | None = None,
    train: Trained = "both",
    rng: Rng = None,
    events: Sequence[Event] = (),
    observe: Observe | None = None,
    progress: bool = False,
    num_threads: int | None = None,
) -> Run:
    """Run mini-batch stochastic gradient descent, sampling without replacement.

    Each epoch visits the data once, in the order ``Generator.permutation(n)`` draws, ``batch`` points at a time; a last
    batch that is short is kept, and its gradient is the mean over its own points. Time is t = step * iteration.

    Parameters
    ----------
    network, X, y, step, loss, weight_decay, sample_weight, biases, train, progress, num_threads
        As in ``gradient_descent``.
    batch : int
        Points of a mini-batch, 1 .. n; more than n is refused.
    epochs : int
        Passes over the data.
    rng : None, int or Generator
        Draws the order of the points.
    events : sequence of Event
        See ``preluflow.events``. They are looked for after every epoch, at a forward pass over the data where they ask
        for loss or outputs; a terminal one ends the run there, so that training until something is so needs no loop.
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
    step = _arrays.real(step, "step", above=0.0)
    batch = _arrays.integer(batch, "batch", minimum=1)
    epochs = _arrays.integer(epochs, "epochs", minimum=0)
    decay = _arrays.real(weight_decay, "weight_decay", minimum=0.0)
    progress = _arrays.flag(progress, "progress")
    generator = _arrays.generator(rng)
    task = Task.check(
        network, X, y, loss, observe, num_threads, sample_weight=sample_weight, biases=biases, train=train
    )
    if batch > len(task.X):
        raise ValueError(f"batch must be at most the number of points n = {len(task.X)}, got {batch}")
    happenings = check_events(events, task)
    stops = task.observe.stops(epochs, "epochs")
    stepper = task.stepper("StochasticDescent", step, decay, task.form.trained, batch)
    config = {"step": step, "batch": batch, "epochs": epochs, **({"weight_decay": decay} if decay else {})}
    return Driver(task, _Epochs(task, stepper, step, generator), happenings).run("sgd", stops, progress, config)


class _Descending:
    """What both steppers show a driver: their step, state and loss, at the end of the last step alone."""

    def __init__(self, task: Task, stepper: _Descent | _StochasticDescent, step: float) -> None:
        self.task = task
        self.stepper: Any = stepper
        self.step = step
        self.known: TwoLayerNetwork | None = task.start  # the network as it is, once asked for, until the next step

    @property
    def iteration(self) -> int:
        return int(self.stepper.iteration)

    def time(self, _: int) -> float:
        return self.step * self.iteration

    def network(self, _: int) -> TwoLayerNetwork:
        if self.known is None:
            self.known = self.task.network(self.stepper.state())
        return self.known

    def evaluate(self, _: int) -> tuple[float, Float64]:
        return self.stepper.evaluate(), self.task.outputs(self.stepper.outputs())


class _Iterations(_Descending):
    """Full-batch descent: one unit is one step."""

    unit = "iteration"

    @property
    def end(self) -> int:
        return self.iteration

    begin = end

    def advance(self, stop: int) -> Halt | None:
        count = stop - self.end
        self.known = None
        return None if self.stepper.advance(count) == count else _not_finite(self.iteration)

    def counts(self) -> dict[str, Any]:
        return {"iterations": self.iteration, "gradients": self.stepper.gradients}


class _Epochs(_Descending):
    """SGD: one unit is one pass over the data."""

    unit = "epoch"

    def __init__(self, task: Task, stepper: _StochasticDescent, step: float, rng: np.random.Generator) -> None:
        super().__init__(task, stepper, step)
        self.rng = rng
        self.end = 0

    @property
    def begin(self) -> int:
        return self.end

    def advance(self, _: int) -> Halt | None:
        self.known = None
        if not self.stepper.epoch(self.rng.permutation(len(self.task.X))):
            return _not_finite(self.iteration)
        self.end += 1
        return None

    def counts(self) -> dict[str, Any]:
        return {"iterations": self.iteration, "epochs": self.end}


def _not_finite(iteration: int) -> Halt:
    return Halt("not_finite", f"the loss or its gradient is not finite at iteration {iteration}")
