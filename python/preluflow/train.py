"""Training by gradient descent, SGD and Adam: C++ steps between the stops, Python at the stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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
    from preluflow._core import _Adam, _Descent, _StochasticDescent


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

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> run = pf.gradient_descent(net, data.X, data.y, step=0.2, steps=150, observe=pf.Observe(every=50))
    >>> run.iterations.tolist(), run["accuracy"][-1].round(2).tolist()
    ([0, 50, 100, 150], 1.0)
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

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> run = pf.sgd(net, data.X, data.y, step=0.2, batch=10, epochs=40, rng=3)
    >>> run["epoch"].tolist(), run["loss"].round(1).tolist()
    ([0, 40], [1.0, 0.0])
    """
    options = _batches(step, batch, epochs, weight_decay)
    progress = _arrays.flag(progress, "progress")
    generator = _arrays.generator(rng)
    task = Task.check(
        network, X, y, loss, observe, num_threads, sample_weight=sample_weight, biases=biases, train=train
    )
    return _by_epochs("sgd", "StochasticDescent", task, events, options, {}, generator, progress)


def adam(
    network: TwoLayerNetwork,
    X: ArrayLike,
    y: ArrayLike,
    *,
    step: float = 1e-3,
    batch: int,
    epochs: int,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
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
    """Run Adam (Kingma and Ba, ICLR 2015) on mini-batches, the recipe of MV24's experiments on real data.

    With g the gradient of a mini-batch, entry by entry in the t-th step,

        m <- beta1 m + (1 - beta1) g,    q <- beta2 q + (1 - beta2) g^2,
        theta <- theta - step / (1 - beta1^t) m / (sqrt(q / (1 - beta2^t)) + eps):

    ``torch.optim.Adam``, step for step, on the weights W (of which biases of neurons are one more column), the output
    weights V and the output biases B. Mini-batches are those of ``sgd`` with the same rng.

    Adam is not free of scale, unlike descent: ``step`` is a length in weights and ``eps`` one in gradients. From an
    initialisation far below ``step`` all weights whose gradients exceed ``eps`` leave at once by ``step`` along the
    *signs* of their gradients, so that nothing of the alignment of gradient flow is seen; where gradients are far below
    ``eps`` Adam is slow descent with momentum; and below the least number of the network's dtype (1e-38 for float32)
    they count as 0 and neurons stay as they are. A neuron whose weights become exactly 0 has no gradient (but for tanh)
    and moves on by what momentum it has left. Where a weight, or a second moment, leaves the dtype - gradients beyond
    1e19 in float32 do - the run ends with status "not_finite" at the last state that was finite.

    Parameters
    ----------
    network, X, y, batch, epochs, loss, sample_weight, biases, train, rng, events, observe, progress, num_threads
        As in ``sgd``.
    step : float, default 1e-3
        Step size, positive.
    betas : (float, float), default (0.9, 0.999)
        Rates beta1 and beta2 at which the two moments forget, at least 0 and less than 1.
    eps : float, default 1e-8
        Added to the root of the second moment; positive in the network's dtype.
    weight_decay : float, default 0
        Adds weight_decay * theta to the gradient before the moments are taken, as torch's Adam (not AdamW) does.

    Returns
    -------
    Run
        As from ``sgd``; ``run.method`` is "adam", and time is t = step * iteration.

    Raises
    ------
    ValueError, TypeError
        For bad input, before any work.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> run = pf.adam(net, data.X, data.y, step=0.02, batch=10, epochs=40, rng=3)
    >>> run["loss"].round(1).tolist()
    [1.0, 0.0]
    """
    options = _batches(step, batch, epochs, weight_decay)
    beta1, beta2 = _betas(betas)
    eps = _arrays.real(eps, "eps", above=0.0)
    progress = _arrays.flag(progress, "progress")
    generator = _arrays.generator(rng)
    task = Task.check(
        network, X, y, loss, observe, num_threads, sample_weight=sample_weight, biases=biases, train=train
    )
    if not network.dtype.type(eps) >= np.finfo(network.dtype).tiny:
        raise ValueError(f"eps must be at least {np.finfo(network.dtype).tiny:.3g} for {network.dtype}, got {eps:g}")
    moments = {"beta1": beta1, "beta2": beta2, "eps": eps}
    return _by_epochs("adam", "Adam", task, events, options, moments, generator, progress)


class _Batches(NamedTuple):
    """What methods on mini-batches are told, checked."""

    step: float
    batch: int
    epochs: int
    weight_decay: float


def _batches(step: float, batch: int, epochs: int, weight_decay: float) -> _Batches:
    return _Batches(
        _arrays.real(step, "step", above=0.0),
        _arrays.integer(batch, "batch", minimum=1),
        _arrays.integer(epochs, "epochs", minimum=0),
        _arrays.real(weight_decay, "weight_decay", minimum=0.0),
    )


def _betas(betas: tuple[float, float]) -> tuple[float, float]:
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"betas must be a pair of numbers, got {_arrays.shown(betas)}")
    first, second = (_arrays.real(beta, f"betas[{k}]", minimum=0.0) for k, beta in enumerate(betas))
    for k, beta in enumerate((first, second)):
        if beta >= 1.0:
            raise ValueError(f"betas[{k}] must be less than 1, got {beta:g}")
    return first, second


def _by_epochs(
    method: str,
    stepper: str,
    task: Task,
    events: Sequence[Event],
    options: _Batches,
    moments: dict[str, float],
    rng: np.random.Generator,
    progress: bool,
) -> Run:
    """Run a stepper on mini-batches."""
    step, batch, epochs, decay = options
    if batch > len(task.X):
        raise ValueError(f"batch must be at most the number of points n = {len(task.X)}, got {batch}")
    happenings = check_events(events, task)
    stops = task.observe.stops(epochs, "epochs")
    made = task.stepper(stepper, step, decay, task.form.trained, *moments.values(), batch)
    config = {"step": step, "batch": batch, "epochs": epochs, **({"weight_decay": decay} if decay else {}), **moments}
    return Driver(task, _Epochs(task, made, step, rng), happenings).run(method, stops, progress, config)


class _Descending:
    """What both steppers show a driver: their step, state and loss, at the end of the last step alone."""

    def __init__(self, task: Task, stepper: _Descent | _StochasticDescent | _Adam, step: float) -> None:
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
    """SGD and Adam: one unit is one pass over the data."""

    unit = "epoch"

    def __init__(self, task: Task, stepper: _StochasticDescent | _Adam, step: float, rng: np.random.Generator) -> None:
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
