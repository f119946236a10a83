"""Training by gradient descent: C++ steps between the stops, Python at the stops."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from preluflow import _arrays
from preluflow._arrays import Float, Float64
from preluflow._dispatch import core
from preluflow.network import LOSSES, TwoLayerNetwork
from preluflow.observe import Observe, ObserverError, Recorder, Snapshot
from preluflow.results import Run

if TYPE_CHECKING:
    from preluflow._core import _Descent


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
        What to record, and when; by default loss and accuracy at the first and last state.
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
    if not isinstance(network, TwoLayerNetwork):
        raise TypeError(f"network must be a TwoLayerNetwork, got {type(network).__name__}")
    data = _arrays.data_matrix(X, dim=network.dim, dtype=network.dtype)
    target = _arrays.labels(y, n=len(data))
    step = _arrays.real(step, "step", above=0.0)
    steps = _arrays.integer(steps, "steps", minimum=0)
    loss = _arrays.choice(loss, "loss", LOSSES)
    threads = _arrays.threads(num_threads)
    request = Observe() if observe is None else observe
    if not isinstance(request, Observe):
        raise TypeError(f"observe must be an Observe, got {type(request).__name__}")
    request.check(network)
    stops = request.iteration_stops(steps)

    began = time.perf_counter()
    kind = core.Descent32 if network.dtype == np.float32 else core.Descent64
    stepper = kind(network._core, data, target, loss, step, threads)
    driver = _Driver(stepper, network, data, target, step, request, threads)
    status, message = driver.run(stops, progress)
    config = {
        "step": step,
        "steps": steps,
        "loss": loss,
        "n": len(data),
        "dim": network.dim,
        "width": network.width,
        "activation": network.activation,
        "p": network.p,
        "dtype": str(network.dtype),
        "num_threads": threads,
    }
    recorder = driver.recorder
    return Run(
        method="gradient_descent",
        status=status,
        message=message,
        iterations=np.array(recorder.iterations, dtype=np.int64),
        t=np.array(recorder.times, dtype=np.float64),
        records=recorder.arrays(),
        network=driver.network(),
        config=config,
        stats={
            "seconds": time.perf_counter() - began,
            "seconds_kernel": driver.seconds_kernel,
            "seconds_observing": driver.seconds_observing,
            "iterations": stepper.iteration,
            "gradients": stepper.gradients,
        },
    )


class _Driver:
    """Takes a stepper from stop to stop, looks, shows progress and answers Ctrl-C."""

    def __init__(
        self,
        stepper: _Descent,
        start: TwoLayerNetwork,
        X: Float,
        y: Float64,
        step: float,
        observe: Observe,
        threads: int,
    ) -> None:
        self.stepper = stepper
        self.start = start
        self.X = X
        self.y = y
        self.step = step
        self.threads = threads
        self.recorder = Recorder(observe)
        self.seconds_kernel = 0.0
        self.seconds_observing = 0.0

    def network(self) -> TwoLayerNetwork:
        """Return the present network."""
        return TwoLayerNetwork.from_polar(*self.stepper.state(), self.start.activation, self.start.p)

    def run(self, stops: np.ndarray[Any, np.dtype[np.int64]], progress: bool) -> tuple[str, str]:
        """Visit every stop; returns status and message."""
        total = int(stops[-1])
        bar = _progress_bar(total) if progress else None
        try:
            for stop in stops.tolist():
                if not self._advance(stop - self.stepper.iteration):
                    return "not_finite", f"the loss or its gradient is not finite at iteration {self.stepper.iteration}"
                self._look()
                if bar is not None:
                    bar.update(stop - bar.n)
        except KeyboardInterrupt:
            return "interrupted", f"interrupted at iteration {self.stepper.iteration} of {total}"
        except ObserverError as error:
            return "observer_failed", str(error)
        finally:
            if bar is not None:
                bar.close()
        return "finished", f"{total} iterations done"

    def _advance(self, steps: int) -> bool:
        began = time.perf_counter()
        try:
            return self.stepper.advance(steps) == steps
        finally:
            self.seconds_kernel += time.perf_counter() - began

    def _look(self) -> None:
        began = time.perf_counter()
        loss = self.stepper.evaluate()
        evaluated = time.perf_counter()
        self.seconds_kernel += evaluated - began
        try:
            iteration = self.stepper.iteration
            self.recorder.record(
                Snapshot(
                    iteration=iteration,
                    t=self.step * iteration,
                    network=self.network(),
                    start=self.start,
                    loss=loss,
                    outputs=self.stepper.outputs(),
                    X=self.X,
                    y=self.y,
                    observe=self.recorder.observe,
                    num_threads=self.threads,
                )
            )
        finally:
            self.seconds_observing += time.perf_counter() - evaluated


def _progress_bar(total: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, unit="step", leave=False)
