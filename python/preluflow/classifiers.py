"""Classifiers to hold a trained network against: the papers' references, baselines, and any torch module.

All fit the protocol ``Classifier``, which attacks and ``robust_radius`` are written for.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from preluflow import _arrays, theory
from preluflow._arrays import Float, Float64
from preluflow._classifier import _beyond, _Classifier, _log_sum_exp, _products, _rounded_down
from preluflow._mixture_rules import MixtureBayes as MixtureBayes
from preluflow._mixture_rules import NearestCenter as NearestCenter
from preluflow._parts import class_labels, output_weights
from preluflow.data import OrthonormalGMM, Rng
from preluflow.network import LOSSES, TwoLayerNetwork, _residual, mean_loss
from preluflow.typing import Loss

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Classifier(Protocol):
    """A classifier: the label is the sign of a real function f, and y f(x) <= 0 is an error.

    Or it has C outputs F_c: ``decision_function`` returns (n, C), ``input_gradient(X, weights)`` takes weights (n, C)
    and returns the gradient of sum_c weights_ic F_c, and labels are those of ``classes`` (or ``classes_``), by default
    0 .. C-1. The label is that of the largest output, and F_y <= F_c for another class c is an error.

    ``TwoLayerNetwork`` and every class of this module are classifiers; so is any object with these two methods. Two
    more are optional, and used where they exist:

    - ``certified_radius(X, y)`` returns (n,) float64, a certified lower bound on the l2 distance of each point to
      {y f <= 0}; 0 where the point is misclassified.
    - ``nearest_error(X, y)`` returns (n, D) float64, perturbations d with y f(x + d) <= 0, the shortest there are (up
      to rounding), where these are known in closed form; 0 where the point is misclassified.

    Examples
    --------
    >>> class Ball:
    ...     def decision_function(self, X):
    ...         return 1.0 - np.linalg.norm(X, axis=1)
    ...
    ...     def input_gradient(self, X):
    ...         return -X / np.linalg.norm(X, axis=1, keepdims=True)
    >>> isinstance(Ball(), pf.classifiers.Classifier)
    True
    >>> radius = pf.robust_radius(Ball(), [[0.6, 0.0]], [1.0])  # attacked only
    >>> radius.lower.tolist(), radius.upper.round(2).tolist()
    ([0.0], [0.4])
    """

    # Arrays of any dtype, so that methods annotated with np.ndarray, or with ArrayLike, will do.
    def decision_function(self, X: NDArray[Any], /) -> NDArray[Any]:
        """Evaluate f on X (n, D), float64 wherever we ask; returns (n,), real numbers."""

    def input_gradient(self, X: NDArray[Any], /) -> NDArray[Any]:
        """Gradient of f in x at each row of X (n, D); returns (n, D)."""


# ---- linear


class Linear(_Classifier):
    """f(x) = <w,x> + b with w (D,), decided by its sign; or F_c(x) = <w_c,x> + b_c with w (C, D), by the largest.

    Parameters
    ----------
    w : array, shape (D,) or (C, D)
        Not zero, and of C >= 2 rows not all the same: a constant has no boundary.
    b : float, or array of shape (C,), default 0
        Biases.
    classes : array of int, shape (max(C, 2),), optional
        Distinct labels: of f <= 0 and f > 0, or of the outputs. By default -1 and +1, and 0 .. C-1.

    Examples
    --------
    >>> line = pf.classifiers.Linear([3.0, 4.0], -2.0)
    >>> line.decision_function([[1.0, 1.0]]).tolist()
    [5.0]
    >>> pf.robust_radius(line, [[1.0, 1.0]], [1.0]).lower.round(6).tolist()  # 5/5
    [1.0]
    """

    def __init__(self, w: ArrayLike, b: ArrayLike = 0.0, *, classes: ArrayLike | None = None) -> None:
        ndim = 2 if _arrays.as_array(w, "w").ndim == 2 else 1
        self.w: Float64 = _arrays.real_array(w, "w", dtype=np.float64, ndim=ndim).astype(np.float64)
        self.w.flags.writeable = False
        if ndim == 2 and len(self.w) < 2:
            raise ValueError(f"w must have 1 dimension, or 2 with C >= 2 rows, got shape {self.w.shape}")
        self.b: Any = _arrays.real(b, "b") if ndim == 1 else self._biases(b)
        self.classes: NDArray[np.int64] = class_labels(classes, self.num_outputs)
        slopes = self.w if ndim == 1 else self.w - self.w[0]
        if not slopes.any():
            rows = "zero" if ndim == 1 else "the same in all rows"
            raise ValueError(f"w must not be {rows}: a constant has no decision boundary")

    def _biases(self, b: ArrayLike) -> Float64:
        given = _arrays.numbers_in(b, "b")
        if given.shape not in ((), (len(self.w),)):
            raise ValueError(f"b must be a number or have shape ({len(self.w)},) to match w, got {given.shape}")
        result = np.array(np.broadcast_to(given, len(self.w)), dtype=np.float64)
        result.flags.writeable = False
        return result

    @classmethod
    def from_sklearn(cls, estimator: Any) -> Linear:
        """Copy a fitted linear classifier of scikit-learn, with scalers before it (see ``as_classifier``)."""
        from preluflow.sklearn_import import linear

        return linear(estimator)

    @property
    def dim(self) -> int:
        """Input dimension D."""
        return int(self.w.shape[-1])

    @property
    def num_outputs(self) -> int:
        """Number of outputs C."""
        return 1 if self.w.ndim == 1 else len(self.w)

    def decision_function(self, X: ArrayLike) -> Float64:
        """Evaluate the outputs on X (n, D); returns (n,) for one, else (n, C)."""
        return self._value(_arrays.points(X, dim=self.dim))

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Predict labels from ``classes``: ``classes[1]`` where f > 0; or that of the largest, the first of equals."""
        value = self.decision_function(X)
        which = np.argmax(value, axis=1) if value.ndim == 2 else (value > 0).astype(np.intp)
        return np.asarray(self.classes[which])

    def input_gradient(self, X: ArrayLike, weights: ArrayLike | None = None) -> Float64:
        """Gradient of f in x, or of sum_c weights_ic F_c, at each row of X (n, D); returns (n, D)."""
        return self.value_and_input_gradient(X, weights)[1]

    def value_and_input_gradient(self, X: ArrayLike, weights: ArrayLike | None = None) -> tuple[Float64, Float64]:
        """Return the outputs and the gradient w, or sum_c weights_ic w_c, in every row (n, D)."""
        value = self.decision_function(X)
        factors = output_weights(weights, len(value), self.num_outputs)
        return value, np.tile(self.w, (len(value), 1)) if weights is None else factors @ self.w.reshape(-1, self.dim)

    def certified_radius(self, X: ArrayLike, y: ArrayLike) -> Float64:
        """Distance to the boundary (n,): [y f]_+ / ||w||, or min_{c != y} [F_y - F_c]_+ / ||w_y - w_c||.

        Proof: docs/mathematics.md#linear-several.
        """
        points = _arrays.points(X, dim=self.dim)
        radius = np.full(len(points), np.inf)
        for rows, margin, d, b, _ in self._rivals(points, y):
            norm = _length(d)
            if norm == 0.0:
                radius[rows] = np.where(margin > 0, radius[rows], 0.0)
                continue
            radius[rows] = np.minimum(radius[rows], _rounded_down(margin / norm, points[rows], offset=abs(b) / norm))
        return radius

    def nearest_error(self, X: ArrayLike, y: ArrayLike) -> Float64:
        """Shortest perturbations to the boundary, shape (n, D).

        They are -y [y f]_+ w / ||w||^2, or -[F_y - F_c]_+ (w_y - w_c) / ||w_y - w_c||^2 for the nearest class c.
        """
        points = _arrays.points(X, dim=self.dim)
        distance, result = np.full(len(points), np.inf), np.zeros(points.shape)
        for rows, signed, d, _, size in self._rivals(points, y):
            margin, norm = np.maximum(signed, 0.0), _length(d)
            if norm == 0.0:  # no step changes this margin
                here = np.flatnonzero(margin == 0.0)
                distance[rows[here]], result[rows[here]] = 0.0, 0.0
                continue
            nearer = margin / norm < distance[rows]
            which = rows[nearer]
            distance[which] = margin[nearer] / norm
            # What rounding does to the two outputs is more than to their difference.
            result[which] = _beyond(points[which], -distance[which, None] * (d / norm), max(1.0, size / norm))
        return result

    def _rivals(self, points: Float, y: ArrayLike) -> Iterator[tuple[NDArray[np.intp], Float64, Float64, float, float]]:
        """Rows of a label and a rival, their margins <d,x> + b, d and b; and ||w_y|| + ||w_c|| of two outputs."""
        label = _arrays.class_indices(y, n=len(points), classes=self.classes)
        value = self._value(points) if self.num_outputs == 1 else None
        for k in range(len(self.classes)):
            rows = np.flatnonzero(label == k)
            if not rows.size:
                continue
            if value is not None:
                sign = 2.0 * k - 1.0
                yield rows, sign * value[rows], sign * self.w, sign * self.b, 0.0
                continue
            for c in range(len(self.classes)):
                if c != k:
                    d, b = self.w[k] - self.w[c], float(self.b[k] - self.b[c])
                    margin = _products(points[rows], d[None, :])[:, 0] + b
                    yield rows, margin, d, b, _length(self.w[k]) + _length(self.w[c])

    def _value(self, points: Float) -> Float64:
        products = _products(points, self.w.reshape(-1, self.dim))
        return np.asarray(products[:, 0] + self.b if self.w.ndim == 1 else products + self.b)

    def __repr__(self) -> str:
        """Show the dimension and b, or the number of outputs."""
        return f"Linear(dim={self.dim}, " + (f"b={self.b:g})" if self.w.ndim == 1 else f"{self.num_outputs} outputs)")


def _length(w: Float64) -> float:
    """||w||, of entries whose squares may underflow."""
    largest = float(np.abs(w).max())
    return float(largest * np.linalg.norm(w / largest)) if largest > 0 else 0.0


def fit_linear(
    X: ArrayLike,
    y: ArrayLike,
    *,
    loss: Loss = "logistic",
    step: float,
    batch: int,
    epochs: int,
    rng: Rng = None,
    until_settled: bool = False,
) -> Linear:
    """Train f(x) = <w,x> by mini-batch SGD from w = 0; with the logistic loss, the linear baseline of MV25, Figure 2.

    Parameters
    ----------
    X, y, loss, step, batch, rng
        As in ``sgd``, but X may have any real dtype.
    epochs : int
        Passes over the data, at least 1.
    until_settled : bool, default False
        Stop before ``epochs``, after 10 at the earliest, when every training point is right and over the last tenth of
        the epochs done the mean loss changed by less than 1% of what it was at w = 0. (Not 1% of itself: on separable
        data the logistic and exponential losses fall like 1/t for ever, a tenth of themselves in that time.)

    Raises
    ------
    ValueError, TypeError
        For bad input, before any work; if the step is so large that w is no longer finite.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> line = pf.classifiers.fit_linear(data.X, data.y, step=1.0, batch=10, epochs=100, rng=0)
    >>> bool(np.all(line.predict(data.X) == data.y))
    True
    """
    points = _arrays.points(X)
    target = _arrays.labels(y, n=len(points))
    loss = _arrays.choice(loss, "loss", LOSSES)
    step = _arrays.real(step, "step", above=0.0)
    batch = _arrays.integer(batch, "batch", minimum=1)
    until_settled = _arrays.flag(until_settled, "until_settled")
    epochs = _arrays.integer(epochs, "epochs", minimum=1)
    if batch > len(points):
        raise ValueError(f"batch must be at most the number of points n = {len(points)}, got {batch}")
    generator = _arrays.generator(rng)
    w = np.zeros(points.shape[1])
    losses = [mean_loss(loss, target, np.zeros(len(points)))]
    for epoch in range(1, epochs + 1):
        order = generator.permutation(len(points))
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(0, len(points), batch):
                rows = order[first : first + batch]
                x = points[rows].astype(np.float64)
                w += step / len(rows) * (_residual(loss, target[rows], x @ w) @ x)
        if not np.all(np.isfinite(w)):
            raise ValueError(f"step must be small enough for SGD to stay finite, got {step:g} (epoch {epoch})")
        if until_settled:
            f = _products(points, w[None, :])[:, 0]
            losses.append(mean_loss(loss, target, f))
            change = abs(losses[-1] - losses[epoch - epoch // 10])
            if epoch >= 10 and np.all(target * f > 0) and change < 0.01 * losses[0]:
                break
    return Linear(w)


# ---- known from the mixture


def cluster_prelu(gmm: OrthonormalGMM, p: float = 3.0) -> TwoLayerNetwork:
    """F^(p)(x) = sum_{k<=K1} sigma(<x,mu_k>)^p - sum_{k>K1} sigma(<x,mu_k>)^p (MV25, eq. 9), in float64.

    One neuron per cluster: nearly robust up to sqrt(2)/2, and what gradient flow from a tiny initialisation learns.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> pf.classifiers.cluster_prelu(gmm, p=3).decision_function(0.5 * gmm.centers).round(6).tolist()  # y 0.5^3
    [0.125, 0.125, -0.125, -0.125]
    """
    _arrays.instance(gmm, "gmm", OrthonormalGMM)
    p = _arrays.real(p, "p", minimum=1.0)
    zeros = np.zeros(gmm.clusters)
    return TwoLayerNetwork.from_polar(gmm.centers, zeros, gmm.labels, zeros, "prelu", p)


def class_average_relu(gmm: OrthonormalGMM) -> TwoLayerNetwork:
    """F(x) = sqrt(K1) sigma(<x,mu_+>) - sqrt(K2) sigma(<x,mu_->), in float64: what ReLU networks learn (MV24).

    mu_+ and mu_- are the normalised averages of the centres of each class. Robust only up to about 1/sqrt(K).

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> F = pf.classifiers.class_average_relu(gmm)
    >>> F.decision_function(gmm.centers).round(6).tolist(), F.width
    ([1.0, 1.0, -1.0, -1.0], 2)
    """
    _arrays.instance(gmm, "gmm", OrthonormalGMM)
    counts = np.array([gmm.positive, gmm.negative], dtype=float)
    sums = np.stack([gmm.centers[gmm.labels == label].sum(axis=0) for label in (1.0, -1.0)])
    directions = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return TwoLayerNetwork.from_polar(directions, np.zeros(2), [1.0, -1.0], 0.5 * np.log(counts), "prelu", 1.0)


class _ClusterRule(_Classifier):
    """A function of the inner products <x,mu_k> with the centres of a mixture."""

    def __init__(self, gmm: OrthonormalGMM) -> None:
        self.gmm: OrthonormalGMM = _arrays.instance(gmm, "gmm", OrthonormalGMM)
        # Given centres are orthonormal within 1e-5 only; certificates divide by the largest singular value.
        self._spread = max(1.0, float(np.linalg.norm(gmm.centers, 2)))

    @abstractmethod
    def _of_products(self, products: Float64) -> tuple[Float64, Float64]:
        """Value f (n,) and its gradient in the inner products (n, K)."""

    def decision_function(self, X: ArrayLike) -> Float64:
        """Evaluate f on X (n, D); returns (n,)."""
        return self._of_products(_products(_arrays.points(X, dim=self.gmm.dim), self.gmm.centers))[0]

    def value_and_input_gradient(self, X: ArrayLike) -> tuple[Float64, Float64]:
        """Return f (n,) and its gradient in x (n, D), in one pass."""
        value, weights = self._of_products(_products(_arrays.points(X, dim=self.gmm.dim), self.gmm.centers))
        return value, weights @ self.gmm.centers

    def _sides(self, y: Float64) -> Iterator[tuple[Any, Any]]:
        """Index (points, own clusters) and (points, other clusters) of an (n, K) array, for each label."""
        for label in (1.0, -1.0):
            yield np.ix_(y == label, self.gmm.labels == label), np.ix_(y == label, self.gmm.labels != label)

    def __repr__(self) -> str:
        """Show the mixture."""
        return f"{type(self).__name__}({self.gmm!r})"


class Bayes(_ClusterRule):
    """The most accurate classifier, f(x) = log P(y=+1 | x) - log P(y=-1 | x) with clusters equally likely.

    f(x) = log sum_{k<=K1} exp(D <x,mu_k> / alpha^2) - log sum_{k>K1} exp(D <x,mu_k> / alpha^2): the sign of the paper's
    f* (MV25, Prop. 2), which is the difference of the two sums, without its overflow.

    Parameters
    ----------
    gmm : OrthonormalGMM
        With alpha > 0.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> bayes = pf.classifiers.Bayes(gmm)
    >>> pf.robust_radius(bayes, gmm.centers, gmm.labels).lower.round(2).tolist()
    [0.71, 0.71, 0.71, 0.71]
    """

    def __init__(self, gmm: OrthonormalGMM) -> None:
        super().__init__(gmm)
        self._rate = gmm.dim / gmm.alpha / gmm.alpha if gmm.alpha > 0 else np.inf
        if self._rate > 1e300:
            raise ValueError(f"gmm must have alpha > 0 for Bayes, got {gmm.alpha:g}; without noise, use NearestCluster")

    def _of_products(self, products: Float64) -> tuple[Float64, Float64]:
        own = self.gmm.labels > 0
        (plus, share_plus), (minus, share_minus) = (_log_sum_exp(self._rate * products[:, k]) for k in (own, ~own))
        return plus - minus, self._rate * np.concatenate([share_plus, -share_minus], axis=1)

    def certified_radius(self, X: ArrayLike, y: ArrayLike) -> Float64:
        """Lower bound on the distance to the boundary, shape (n,); at least [y f]_+ alpha^2 / (D sqrt(2)).

        Let tau = alpha^2/D, o the own products, L = tau log sum exp(other products / tau), q any weights (>= 0, sum 1)
        with entropy H(q). At x + d the own log-sum-exp, times tau, is at least <q,o> + tau H(q) + <d, sum q_k mu_k>
        (Gibbs), the other at most L + max_l <d,mu_l>. As ||mu_l - sum q_k mu_k||^2 = 1 + ||q||^2 <= 2, the distance is
        at least (<q,o> + tau H(q) - L) / sqrt(1 + ||q||^2) (docs/mathematics.md#bayes). We take the better of two q:

        - the softmax of o/tau: y f tau / sqrt(1 + ||q||^2);
        - the best q at tau = 0, proportional to (o - t)_+ with t as in docs/mathematics.md#nearest-cluster: at least
          the exact distance to {max own <= max other + tau log K}, and the exact nearest-cluster radius as tau -> 0.
        """
        points = _arrays.points(X, dim=self.gmm.dim)
        target = _arrays.labels(y, n=len(points))
        products = _products(points, self.gmm.centers)
        radius = np.zeros(len(points))
        for own_side, other_side in self._sides(target):
            own = products[own_side]
            L = _log_sum_exp(self._rate * products[other_side])[0] / self._rate
            softmax = _log_sum_exp(self._rate * own)[1]
            pull = np.maximum(own - _meeting_level(own, L)[:, None], 0.0)
            total = pull.sum(axis=1, keepdims=True)
            bounds = []
            for q in (softmax, np.divide(pull, total, out=softmax.copy(), where=total > 0)):
                entropy = -(q * np.log(np.where(q > 0, q, 1.0))).sum(axis=1)
                gap = (q * own).sum(axis=1) + entropy / self._rate - L
                bounds.append(gap / np.sqrt(1.0 + (q**2).sum(axis=1)))
            radius[own_side[0][:, 0]] = np.maximum(*bounds)
        right = target * self._of_products(products)[0] > 0
        return np.where(right, _rounded_down(radius / self._spread, points, self.gmm.clusters), 0.0)


class NearestCluster(_ClusterRule):
    """Label of the nearest centre, f(x) = max_{k<=K1} <x,mu_k> - max_{k>K1} <x,mu_k>: Bayes without noise.

    Where several centres are equally near, the gradient is that of the first.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> nearest = pf.classifiers.NearestCluster(gmm)
    >>> pf.robust_radius(nearest, gmm.centers, gmm.labels).lower.round(3).tolist()
    [0.707, 0.707, 0.707, 0.707]
    """

    def _of_products(self, products: Float64) -> tuple[Float64, Float64]:
        value, gradient = np.zeros(len(products)), np.zeros_like(products)
        rows = np.arange(len(products))
        for label in (1.0, -1.0):
            best = np.argmax(np.where(self.gmm.labels == label, products, -np.inf), axis=1)
            value += label * products[rows, best]
            gradient[rows, best] = label
        return value, gradient

    def certified_radius(self, X: ArrayLike, y: ArrayLike) -> Float64:
        """Exact distance to the boundary, shape (n,): ``theory.nearest_cluster_radius``, less 1e-9 of it."""
        points = _arrays.points(X, dim=self.gmm.dim)
        radius = theory.nearest_cluster_radius(self.gmm, points, y) / self._spread
        return _rounded_down(radius, points, self.gmm.clusters)

    def nearest_error(self, X: ArrayLike, y: ArrayLike) -> Float64:
        """Shortest perturbations to the boundary, shape (n, D).

        Own products above t are lowered to t and the largest other one is raised to t
        (docs/mathematics.md#nearest-cluster).
        """
        points = _arrays.points(X, dim=self.gmm.dim)
        target = _arrays.labels(y, n=len(points))
        products = _products(points, self.gmm.centers)
        shift = np.zeros_like(products)
        for own_side, other_side in self._sides(target):
            own, other = products[own_side], products[other_side]
            largest = other.max(axis=1)
            t = _meeting_level(own, largest)
            shift[own_side] = np.minimum(t[:, None] - own, 0.0)
            raised = np.arange(other.shape[1]) == np.argmax(other, axis=1)[:, None]
            shift[other_side] = np.where(raised, (t - largest)[:, None], 0.0)
        return _beyond(points, shift @ np.linalg.pinv(self.gmm.centers).T)


def _meeting_level(own: Float64, other: Float64) -> Float64:
    """The t >= other with t - other = sum_i (own_i - t)_+ (other itself if no own is larger): own (n, k), other (n,).

    other - t + sum (own_i - t)_+ falls in t and is the largest of its linear pieces, so its root is theirs' largest.
    """
    sums = np.cumsum(-np.sort(-own, axis=1), axis=1)
    levels = (other[:, None] + sums) / np.arange(2, own.shape[1] + 2)
    return np.asarray(np.maximum(other, levels.max(axis=1)))


# ---- what others have made


def as_classifier(classifier: Any) -> Classifier:
    """Return a classifier of ours for what torch or scikit-learn made; a classifier is returned as it is.

    - A torch module of two layers, as ``TwoLayerNetwork.from_torch`` takes it, becomes a ``TwoLayerNetwork``.
    - A fitted ``preluflow.sklearn.TwoLayerClassifier`` becomes its network. Its classes are the labels, or their
      numbers where they are no integers; ``robust_radius`` and attacks that are given the estimator take the labels.
    - A fitted search (``GridSearchCV``) is what it has found.
    - Of scikit-learn, a fitted ``MLPClassifier`` of one hidden layer (relu or tanh) becomes a ``TwoLayerNetwork``, and
      a ``LogisticRegression``, ``LinearSVC``, ``SGDClassifier`` or ``Perceptron`` becomes a ``Linear``; alone, or the
      end of a ``Pipeline`` after ``StandardScaler``, ``MinMaxScaler`` or ``MaxAbsScaler``. Scalers are folded into the
      weights: X, perturbations and radii are in the coordinates of X as the pipeline is given it.

    Raises
    ------
    TypeError, ValueError
        For anything else, and for what neither can express.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> model = LogisticRegression().fit([[-1.0], [1.0]], [0, 1])
    >>> line = pf.classifiers.as_classifier(model)
    >>> type(line).__name__, line.classes.tolist()
    ('Linear', [0, 1])
    """
    if not isinstance(classifier, type):
        if isinstance(classifier, Classifier):
            return classifier
        torch, sklearn = (sys.modules.get(name) for name in ("torch", "sklearn.base"))  # who has none has not these
        if torch is not None and isinstance(classifier, torch.nn.Module):
            return TwoLayerNetwork.from_torch(classifier)
        if sklearn is not None and isinstance(classifier, sklearn.BaseEstimator):
            from preluflow.sklearn_import import from_sklearn

            return from_sklearn(classifier)
    raise TypeError(
        "classifier must be a TwoLayerNetwork or have decision_function and input_gradient, "
        f"got {type(classifier).__name__}"
    )


# ---- any torch module


class TorchClassifier(_Classifier):
    """Any torch module with one output a point, as a classifier. Needs torch (``pip install 'preluflow[torch]'``).

    The module runs in evaluation mode, in its own dtype and on its own device, and is left as it was: every
    submodule's mode is restored and its parameters' ``grad`` are not touched. Outputs and gradients become float64.

    Parameters
    ----------
    module : torch.nn.Module
        Takes (n, D), returns (n,) or (n, 1); each output depends on its own row only.
    dtype : {"float32", "float64"}, optional
        Of the inputs the module is given; by default that of its first parameter, or torch's default dtype.
    batch : int, default 1024
        Points evaluated together.

    Examples
    --------
    >>> import torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> pf.classifiers.TorchClassifier(module).input_gradient(np.ones((3, 2), dtype=np.float32)).shape
    (3, 2)
    """

    def __init__(self, module: torch.nn.Module, dtype: DTypeLike | None = None, batch: int = 1024) -> None:
        try:
            import torch
        except ImportError:
            raise ImportError("TorchClassifier needs torch: pip install 'preluflow[torch]'") from None
        if not isinstance(module, torch.nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
        self.module = module
        self._dtype = None if dtype is None else getattr(torch, _arrays.dtype_of(dtype).name)
        self._batch = _arrays.integer(batch, "batch", minimum=1)

    def decision_function(self, X: ArrayLike) -> Float64:
        """Evaluate f on X (n, D); returns (n,)."""
        return self._run(X, gradient=False)[0]

    def value_and_input_gradient(self, X: ArrayLike) -> tuple[Float64, Float64]:
        """Return f (n,) and its gradient in x (n, D), in one pass."""
        return self._run(X, gradient=True)

    def _run(self, X: ArrayLike, gradient: bool) -> tuple[Float64, Float64]:
        import torch

        points = _arrays.points(X)
        parameter = next((w for w in self.module.parameters() if w.is_floating_point()), torch.empty(0))
        place: dict[str, Any] = {"dtype": self._dtype or parameter.dtype, "device": parameter.device}
        value, slope = np.empty(len(points)), np.empty(points.shape if gradient else (0, 0))
        modes = [(part, part.training) for part in self.module.modules()]
        self.module.eval()
        try:
            with torch.inference_mode(False), torch.set_grad_enabled(gradient):
                for first in range(0, len(points), self._batch):
                    rows = slice(first, first + self._batch)
                    x = torch.tensor(points[rows].astype(np.float64), **place).requires_grad_(gradient)
                    f = self._output(x)
                    value[rows] = f.detach().double().cpu().numpy()
                    if gradient:
                        found = torch.autograd.grad(f.sum(), x, allow_unused=True)[0] if f.requires_grad else None
                        if found is None:
                            raise ValueError("module must be differentiable in its input: no gradient arrives there")
                        slope[rows] = found.double().cpu().numpy()
        finally:
            for part, training in modes:
                part.training = training
        return value, slope

    def _output(self, x: torch.Tensor) -> Any:
        f, n = self.module(x), len(x)
        shape = tuple(getattr(f, "shape", ()))
        if shape not in ((n,), (n, 1)):
            came = f"shape {shape}" if hasattr(f, "shape") else type(f).__name__
            raise ValueError(f"module must return shape ({n},) or ({n}, 1) for {n} points, got {came}")
        if f.isnan().any():
            raise ValueError("module returned NaN")
        return f.reshape(n)

    def __repr__(self) -> str:
        """Name the module's class."""
        return f"TorchClassifier({type(self.module).__name__})"
