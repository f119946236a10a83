"""The papers' searches as MV24's authors ran them: in float32, a batch at once, judged at the last iterates alone.

Both go up the mean of a loss over a batch of n points, each point by

    step * g / (||g|| + 1e-7),    g = gradient of the mean in the point = (1/n) gradient of its own loss,

so that a point whose g is far below 1e-7 does not move.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays, _scores, _searches
from preluflow._arrays import Float64
from preluflow._searches import Attack, Ball
from preluflow.classifiers import as_classifier
from preluflow.network import TwoLayerNetwork

LARGEST_STEP = 1e15  # beyond, points go where the gradient points; squares are to fit float32
MV24_BATCH = 20_000  # points of the authors' test batch
_FLOOR = np.float32(1e-7)  # the authors', added to ||g||
_ROWS = 512  # points handled at a time: they share n alone, and memory does not grow with it

Float32 = NDArray[np.float32]


def moved(points: Float32, g: Float32, step: float) -> Float32:
    """Return points (m, D) + step g / (||g|| + 1e-7); rows of which that is not finite stay.

    The authors' code makes NaN of those and counts them as broken. They are: y f < -88 there.
    """
    with np.errstate(all="ignore"):
        length = np.sqrt(np.einsum("md,md->m", g, g))[:, None]
        ahead = points + np.float32(step) * (g / (length + _FLOOR))
    return np.where(np.isfinite(ahead).all(axis=1, keepdims=True), ahead, points)


# ---- PGD


class _Single:
    """A classifier of one output in float32: a TwoLayerNetwork evaluated so, of anything else what it returns."""

    def __init__(self, model: _scores.Model, classifier: Any) -> None:
        own = isinstance(classifier, TwoLayerNetwork)
        self.model = model
        self.kind: np.dtype[Any] = np.dtype("float32" if own else "float64")
        if own:
            # Not rescaled, and what leaves float32 is no error here.
            model.classifier, model.log_scale, model.singular = classifier.astype(self.kind), 0.0, True

    def value(self, x: Float32) -> Float32:
        """Evaluate f at x (m, D), shape (m,)."""
        with np.errstate(over="ignore"):
            return self.model.value(x.astype(self.kind, copy=False)).astype(np.float32)

    def both(self, x: Float32) -> tuple[Float32, Float32]:
        """Evaluate f at x (m, D), shape (m,), and its gradient (m, D)."""
        value, gradient = self.model.both(x.astype(self.kind, copy=False))
        with np.errstate(over="ignore"):
            return value.astype(np.float32), gradient.astype(np.float32)


def mv24_pgd(
    classifier: Any, X: ArrayLike, y: ArrayLike, *, eps: float, steps: int, step: float, batch: int | None
) -> Attack:
    """``attacks.pgd(recipe="mv24")``."""
    model, data = _searches.prepared(classifier, X)
    classifier = as_classifier(classifier)
    if model.outputs > 1:
        raise ValueError(f"classifier must have one output for recipe 'mv24', got {model.outputs}")
    target = model.targets(y, n=len(data))
    x: Float32 = np.asarray(_arrays.real_array(data, "X", dtype=np.float32, ndim=2), dtype=np.float32)
    single, ball = _Single(model, classifier), Ball(eps, "l2", None)
    share = np.float32(1.0 / (len(data) if batch is None else batch))
    delta, margin = np.zeros(data.shape), np.zeros(len(data))
    for first in range(0, len(data), _ROWS):
        rows = slice(first, first + _ROWS)
        last = _last_iterate(single, x[rows], target[rows].astype(np.float32), ball, steps, step, share)
        # What is handed out lies in the ball of float64, too, which is closer to it than float32 can tell.
        delta[rows] = ball.project(data[rows], last.astype(np.float64))
        margin[rows] = target[rows] * single.value((data[rows] + delta[rows]).astype(np.float32))
    margin = np.nan_to_num(margin, nan=_scores.FAR)
    success = margin <= 0
    reached = model.classes[((target > 0) != success).astype(np.int64)]
    return Attack(delta, success, np.linalg.norm(delta, axis=1), model.gradients, reached)


def _last_iterate(
    single: _Single, x: Float32, y: Float32, ball: Ball, steps: int, step: float, share: np.float32
) -> Float32:
    """Ascend the mean of exp(-y f), of which each point's part is the ``share`` 1/n, from delta = 0; return delta."""
    last, live = np.zeros_like(x), np.arange(len(x))
    delta, until = last, np.full(len(x), steps)  # the step whose iterate is that of the last
    orbit = _searches.Orbit(delta)
    for k in range(1, steps + 1):
        f, gradient = single.both(x + delta)
        with np.errstate(all="ignore"):
            g = (share * np.exp(-y * f) * -y)[:, None] * gradient
        delta = moved(delta, g, step)
        length = np.linalg.norm(delta.astype(np.float64), axis=1)
        outside = length > ball.eps
        delta[outside] *= (ball.eps / length[outside]).astype(np.float32)[:, None]
        period = orbit.period(k, delta)
        until = np.where(period > 0, np.minimum(until, k + (steps - k) % np.maximum(period, 1)), until)
        done = until == k
        if done.any():
            last[live[done]] = delta[done]
            x, y, delta, until, live = (each[~done] for each in (x, y, delta, until, live))
            orbit.only(~done)
        if not live.size:
            break
    return last


# ---- the distance's estimator


def mv24_largest(difference: TwoLayerNetwork, points: Float32, steps: int, step: float, num_threads: int) -> float:
    """Ascend the mean of d^2 over points (n, D) of the sphere, d a network of float32; the largest |d| at the end."""
    share = np.float32(2.0 / len(points))
    for _ in range(steps):
        value, gradient = difference.value_and_input_gradient(points, num_threads=num_threads)
        with np.errstate(all="ignore"):
            g = (share * value.astype(np.float32))[:, None] * gradient.astype(np.float32, copy=False)
        points = moved(points, g, step)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    return float(np.abs(difference.decision_function(points, num_threads=num_threads)).max())


def best_fit(f: Float64, F: Float64) -> tuple[float, float]:
    """Sign and logarithm of c = E[f F] / E[f^2], over samples (n,); of c = 0, where f is 0 at all of them, 0 and -inf.

    f may be so small that its square, or 1/f, leaves float64.
    """
    largest = float(np.abs(f).max())
    if largest == 0.0:
        return 0.0, -np.inf
    unit = f / largest
    c = float((unit * F).sum() / (unit * unit).sum())
    with np.errstate(divide="ignore"):
        return float(np.sign(c)), float(np.log(abs(c)) - np.log(largest))
