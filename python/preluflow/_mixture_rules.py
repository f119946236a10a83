"""The rules of any Gaussian mixture: Bayes and nearest centre, of two classes or several.

Proofs: docs/mathematics.md#nearest-center, docs/mathematics.md#mixture-bayes; rounding:
docs/mathematics.md#rounding-mixture-rules.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays
from preluflow._arrays import Float, Float64
from preluflow._classifier import _EPS, _ROWS, _SAFETY, _Classifier, _log_sum_exp
from preluflow._parts import output_weights
from preluflow.data import GaussianMixture
from preluflow.data._noise import Density, variances

_HAIRS = (1.0, 1e2, 1e4)  # what a witness goes beyond a face, in units of rounding, until it is an error in float64 too
_TIGHT = 1e-13  # slack of a constraint, relative to the largest: less is none
_RIDGE = 1e-14  # added to Gram matrices with diagonal 1, so that faces that depend on one another do no harm
_SMALLEST = 1e-300  # of a squared distance between centres that are one: radii are numbers then, too
_HALVINGS = 60  # of the interval that holds a radius: to 1e-18 of it


class _MixtureRule(_Classifier):
    """F_c(x) is made of the scores o_k(x) of the clusters of class c; of two classes, labels sorted, f = F_1 - F_0."""

    def __init__(self, mixture: GaussianMixture) -> None:
        self.mixture: GaussianMixture = _arrays.instance(mixture, "mixture", GaussianMixture)
        self.classes: NDArray[np.int64] = mixture.classes
        self.classes.flags.writeable = False
        self._class = np.searchsorted(self.classes, mixture.labels)  # of each cluster
        # Scores change by the same for all clusters when the origin moves; here products are smallest.
        self._origin = mixture.centers.mean(axis=0)
        self._centers = mixture.centers - self._origin

    @property
    def dim(self) -> int:
        """Input dimension D."""
        return int(self.mixture.dim)

    @property
    def num_outputs(self) -> int:
        """1 for two classes, else their number C."""
        return len(self.classes) if len(self.classes) > 2 else 1

    @abstractmethod
    def _scores(self, x: Float64) -> Float64:
        """Scores o_k (n, K) of x (n, D), from ``_origin``."""

    @abstractmethod
    def _slopes(self, x: Float64, shares: Float64) -> Float64:
        """The gradients sum_k shares_ik grad o_k, (n, D)."""

    @abstractmethod
    def _joined(self, scores: Float64) -> tuple[Float64, Float64]:
        """F_c (n,) of the scores (n, m) of its clusters, and its gradient in these (n, m)."""

    def _blocks(self, points: Float) -> Iterator[tuple[slice, Float64]]:
        for first in range(0, len(points), _ROWS):
            rows = slice(first, first + _ROWS)
            yield rows, points[rows].astype(np.float64) - self._origin

    def _outputs(self, scores: Float64) -> tuple[Float64, Float64]:
        """F (n, C), and in the place of each cluster's score the derivative of its class's F in it (n, K)."""
        value, shares = np.empty((len(scores), len(self.classes))), np.empty_like(scores)
        for c in range(len(self.classes)):
            mine = self._class == c
            value[:, c], shares[:, mine] = self._joined(scores[:, mine])
        return value, shares

    def _decided(self, F: Float64) -> Float64:
        return F if self.num_outputs > 1 else F[:, 1] - F[:, 0]

    def decision_function(self, X: ArrayLike) -> Float64:
        """Evaluate f (n,) on X (n, D), positive for ``classes[1]``; or of several classes the outputs F (n, C)."""
        points = _arrays.points(X, dim=self.dim)
        F = np.empty((len(points), len(self.classes)))
        for rows, x in self._blocks(points):
            F[rows] = self._outputs(self._scores(x))[0]
        return self._decided(F)

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Predict labels from ``classes``: ``classes[1]`` where f > 0; or that of the largest, the first of equals."""
        value = self.decision_function(X)
        which = np.argmax(value, axis=1) if value.ndim == 2 else (value > 0).astype(np.intp)
        return np.asarray(self.classes[which])

    def input_gradient(self, X: ArrayLike, weights: ArrayLike | None = None) -> Float64:
        """Gradient of f in x, or of sum_c weights_ic F_c, at each row of X (n, D); returns (n, D)."""
        return self.value_and_input_gradient(X, weights)[1]

    def value_and_input_gradient(self, X: ArrayLike, weights: ArrayLike | None = None) -> tuple[Float64, Float64]:
        """Return the outputs and the gradient of f, or of sum_c weights_ic F_c, in x (n, D), in one pass."""
        points = _arrays.points(X, dim=self.dim)
        factors = output_weights(weights, len(points), self.num_outputs)
        if self.num_outputs == 1:
            factors = np.concatenate([-factors, factors], axis=1)
        F, slope = np.empty(factors.shape), np.empty(points.shape)
        for rows, x in self._blocks(points):
            F[rows], shares = self._outputs(self._scores(x))
            slope[rows] = self._slopes(x, shares * factors[rows][:, self._class])
        return self._decided(F), slope

    def _sides(self, X: ArrayLike, y: ArrayLike) -> tuple[Float, list[tuple[int, NDArray[np.intp]]]]:
        """Points, and of each class c with a point: c and its rows, in blocks."""
        points = _arrays.points(X, dim=self.dim)
        own = _arrays.class_indices(y, n=len(points), classes=self.classes)
        parts = []
        for c in np.unique(own):
            rows = np.flatnonzero(own == c)
            parts += [(int(c), rows[first : first + _ROWS]) for first in range(0, len(rows), _ROWS)]
        return points, parts

    def _products(self, x: Float64) -> Float64:
        """<x,mu_k> - ||mu_k||^2/2, shape (n, K): ||x||^2/2 less half the squared distance to each centre."""
        return np.asarray(x @ self._centers.T - 0.5 * (self._centers**2).sum(axis=1))

    def _rounding(self, x: Float64) -> Float64:
        """What float64 may have done to a difference of two ``_products``, for each row of x, in units of ||mu_k||."""
        size = np.linalg.norm(x, axis=1) + 2.0 * np.linalg.norm(self._centers, axis=1).max()
        return np.asarray((x.shape[1] + 16.0) * _EPS * size)

    def __repr__(self) -> str:
        """Show the mixture."""
        return f"{type(self).__name__}({self.mixture!r})"


class NearestCenter(_MixtureRule):
    """Label of the nearest centre: F_c(x) = max_{k in c} <x,mu_k> - ||mu_k||^2 / 2, whatever weights and noise are.

    Of two classes f = F_1 - F_0, half the difference of squared distances. Where several centres are equally near, the
    gradient is that of the first. For orthonormal centres it is ``NearestCluster``.

    Parameters
    ----------
    mixture : GaussianMixture
        Gives centres and labels.

    Examples
    --------
    >>> mixture = pf.GaussianMixture([[0.0, 0.0], [2.0, 0.0]], labels=[-1, 1], noise=0.1)
    >>> rule = pf.classifiers.NearestCenter(mixture)
    >>> pf.robust_radius(rule, [[0.25, 5.0]], [-1]).lower.round(6).tolist()  # the border is at x_1 = 1
    [0.75]
    """

    def _scores(self, x: Float64) -> Float64:
        return self._products(x)

    def _slopes(self, x: Float64, shares: Float64) -> Float64:
        return np.asarray(shares @ self._centers)

    def _joined(self, scores: Float64) -> tuple[Float64, Float64]:
        best = np.argmax(scores, axis=1)
        return scores.max(axis=1), (np.arange(scores.shape[1]) == best[:, None]).astype(np.float64)

    def certified_radius(self, X: ArrayLike, y: ArrayLike) -> Float64:
        """Exact distance to the boundary, but for rounding, shape (n,); 0 where the point is misclassified.

        It is the distance to the nearest of the cells {x : ||x - mu_k|| <= ||x - mu_l|| for all l of label y}, over the
        centres k of other labels. Proof, also that rounding errs downwards: docs/mathematics.md#nearest-center.
        """
        points, parts = self._sides(X, y)
        radius = np.empty(len(points))
        for c, rows in parts:
            x = points[rows].astype(np.float64) - self._origin
            least = np.full(len(rows), np.inf)
            for cell in self._cells(x, c):
                gap = (cell.multipliers * (cell.b - cell.doubt)).sum(axis=1)
                units = (x.shape[1] + len(cell.sizes) + 16.0) * _EPS
                length = np.linalg.norm(cell.step, axis=1) + units * (cell.multipliers @ cell.sizes)
                least = np.minimum(least, np.divide(gap, length, out=np.zeros_like(gap), where=gap > 0))
            radius[rows] = _SAFETY * least
        return radius

    def nearest_error(self, X: ArrayLike, y: ArrayLike) -> Float64:
        """Shortest perturbations to the boundary, shape (n, D): to the nearest cell of a centre with another label."""
        points, parts = self._sides(X, y)
        result = np.zeros(points.shape)
        for c, rows in parts:
            x = points[rows].astype(np.float64) - self._origin
            todo, hairs = np.arange(len(rows)), iter(_HAIRS)
            while todo.size:
                hair = next(hairs, None)
                d = self._to_a_centre(x[todo], c) if hair is None else self._to_a_cell(x[todo], c, hair)
                result[rows[todo]] = d
                if hair is None:
                    break
                todo = todo[self._right(points[rows[todo]] + d, c)]
            result[rows[self._right(points[rows], c, wrong=True)]] = 0.0
        return result

    def _to_a_cell(self, x: Float64, c: int, hair: float) -> Float64:
        best, least = np.zeros(x.shape), np.full(len(x), np.inf)
        for cell in self._cells(x, c, hair):
            length = np.linalg.norm(cell.step, axis=1)
            nearer = length < least
            best[nearer], least[nearer] = cell.step[nearer], length[nearer]
        return best

    def _to_a_centre(self, x: Float64, c: int) -> Float64:
        """Perturbations to a centre of another label: where faces are so oblique that float64 sees none, an error."""
        rivals = self._centers[self._class != c]
        return np.asarray(rivals[np.argmax(self._products(x)[:, self._class != c], axis=1)] - x)

    def _right(self, points: Float, c: int, wrong: bool = False) -> NDArray[np.bool_]:
        """Whether points are classified as c, ties excluded; or whether they are not."""
        F = self._outputs(self._scores(points.astype(np.float64) - self._origin))[0]
        right = F[:, c] > np.delete(F, c, axis=1).max(axis=1)
        return np.asarray(~right if wrong else right)

    def _cells(self, x: Float64, c: int, hair: float = 0.0) -> Iterator[_Cell]:
        """The cells of the centres with labels other than c, made smaller by ``hair`` units of rounding."""
        products, lengths = self._products(x), np.linalg.norm(self._centers, axis=1)
        own, rounding = self._class == c, self._rounding(x)[:, None]
        for k in np.flatnonzero(~own):
            normals, sizes = self._centers[k] - self._centers[own], lengths[k] + lengths[own]
            doubt = rounding * sizes
            b = products[:, own] - products[:, k, None] + hair * doubt
            multipliers = _multipliers(normals @ normals.T, b)
            yield _Cell(b, doubt, sizes, multipliers, multipliers @ normals)


class _Cell(NamedTuple):
    """The cell {d : <d, mu_k - mu_l> >= b_l for all own l} of a rival centre k, and the way there, for each point."""

    b: Float64  # (n, m)
    doubt: Float64  # (n, m): what rounding may have done to b
    sizes: Float64  # (m,): ||mu_k|| + ||mu_l||
    multipliers: Float64  # (n, m), >= 0
    step: Float64  # (n, D): sum_l multipliers_l (mu_k - mu_l), the projection of 0 onto the cell


class MixtureBayes(_MixtureRule):
    """The most accurate rule, F_c(x) = log sum_{k in c} w_k N(x; mu_k, S_k), up to what all classes have in common.

    Of two classes f = F_1 - F_0 = log P(classes[1] | x) - log P(classes[0] | x), by the clusters' own labels: label
    noise changes no decision (docs/mathematics.md#mixture-bayes). Noise must have full rank. For the orthonormal
    mixture it is ``Bayes``.

    ``certified_radius`` exists if all clusters have the same isotropic noise; otherwise there is none, and
    ``robust_radius`` says "attacked only".

    Parameters
    ----------
    mixture : GaussianMixture
        With noise in every direction.

    Examples
    --------
    >>> mixture = pf.GaussianMixture(np.eye(3), labels=[0, 1, 2], noise=0.1)
    >>> rule = pf.classifiers.MixtureBayes(mixture)
    >>> rule.predict(np.eye(3)).tolist()
    [0, 1, 2]
    """

    def __init__(self, mixture: GaussianMixture) -> None:
        super().__init__(mixture)
        noise, floor, dim = mixture.noise, mixture.floor, mixture.dim
        self._log_weights = np.log(mixture.weights)
        self._gram = self._centers @ self._centers.T
        self._tau = 0.0  # the variance that all have in common
        if noise.ndim < 3 and np.all(noise == noise.flat[0]):
            self._tau = float(variances(noise, 0, dim)[0])
        if not self._tau:
            self._densities = [Density(noise, floor, k, dim) for k in range(mixture.clusters)]
        elif not self._tau > 1e-300:
            raise ValueError(f"mixture must have a variance of at least 1e-300, got {self._tau:g}; use NearestCenter")

    def _scores(self, x: Float64) -> Float64:
        if self._tau:
            return np.asarray(self._products(x) / self._tau + self._log_weights)
        result = np.empty((len(x), len(self._centers)))
        for k, density in enumerate(self._densities):
            d = x - self._centers[k]
            result[:, k] = self._log_weights[k] - 0.5 * density.log_det - 0.5 * (d * density.solve(d)).sum(axis=1)
        return result

    def _slopes(self, x: Float64, shares: Float64) -> Float64:
        if self._tau:
            return np.asarray(shares @ self._centers / self._tau)
        result = np.zeros(x.shape)
        for k, density in enumerate(self._densities):
            result -= shares[:, k, None] * density.solve(x - self._centers[k])
        return result

    def _joined(self, scores: Float64) -> tuple[Float64, Float64]:
        return _log_sum_exp(scores)

    @property
    def certified_radius(self) -> Callable[[ArrayLike, ArrayLike], Float64]:
        """Of noise that is the same and isotropic for all clusters: (X, y) -> lower bounds on the radius (n,)."""
        if not self._tau:
            raise AttributeError("certified_radius is known only if all clusters have the same isotropic noise")
        return self._certified_radius

    def _certified_radius(self, X: ArrayLike, y: ArrayLike) -> Float64:
        """Lower bound on the distance to the boundary, shape (n,); 0 where the point is misclassified.

        Let o_k = <x,mu_k> - ||mu_k||^2/2 + tau log w_k, tau = alpha^2/D, and q weights (>= 0, sum 1) on the own
        clusters with entropy H(q) and mean m = sum q_k mu_k. No error of class c is nearer than the r with
        tau log sum_{l in c} exp((o_l + r ||mu_l - m||) / tau) = <q,o> + tau H(q) (docs/mathematics.md#mixture-bayes).
        The best of three bounds is taken: this one with q the softmax of the own o/tau, and with the weights of the
        faces of the cell of c's likeliest cluster; and the least over l in c of what l alone would give, with the
        weights of its own cell and those of c counted as equally likely, which is exact as tau -> 0.
        """
        points, parts = self._sides(X, y)
        radius = np.empty(len(points))
        for c, rows in parts:
            x = points[rows].astype(np.float64) - self._origin
            o = self._products(x) + self._tau * self._log_weights
            doubt = self._doubt(x, o)
            radius[rows] = np.inf
            for rival in np.setdiff1d(np.arange(len(self.classes)), c):
                radius[rows] = np.minimum(radius[rows], self._without_error(o, doubt, self._class == c, rival))
        return _SAFETY * radius

    def _without_error(self, o: Float64, doubt: Float64, own: NDArray[np.bool_], rival: int) -> Float64:
        """The best of the three bounds, from below, on the distance to errors of one rival class."""
        others = np.flatnonzero(self._class == rival)
        softmax = _log_sum_exp(o[:, own] / self._tau)[1]
        alone, likeliest = np.full(len(o), np.inf), np.argmax(o[:, others], axis=1)
        faces = np.empty_like(softmax)
        for i, k in enumerate(others):
            normals = self._centers[k] - self._centers[own]
            multipliers = _multipliers(normals @ normals.T, o[:, own] - o[:, k, None])
            total = multipliers.sum(axis=1, keepdims=True)
            q = np.divide(multipliers, total, out=softmax.copy(), where=total > 0)
            level, apart = self._level(o, doubt, own, q, [k])
            alone = np.minimum(alone, (level - o[:, k] - self._tau * np.log(len(others))) / apart[:, 0])
            faces[likeliest == i] = q[likeliest == i]
        bounds = [self._together(o, doubt, own, others, q) for q in (softmax, faces)]
        return np.asarray(np.maximum(alone, np.maximum(*bounds)))

    def _doubt(self, x: Float64, o: Float64) -> Float64:
        """What float64 may have done to a difference of weighted o, for each row of x."""
        K = len(self._centers)
        doubt = 4.0 * self._rounding(x) * np.linalg.norm(self._centers, axis=1).max()
        sums = 8.0 * (K + 4.0) * _EPS * (np.abs(o).max(axis=1) + self._tau * np.log(K + 1.0))
        return np.asarray(doubt + sums)

    def _level(
        self, o: Float64, doubt: Float64, own: NDArray[np.bool_], q: Float64, others: Any
    ) -> tuple[Float64, Float64]:
        """<q,o> + tau H(q) (n,) from below, and the distances ||mu_l - sum q_k mu_k|| (n, others) from above."""
        entropy = -(q * np.log(np.where(q > 0, q, 1.0))).sum(axis=1)
        gram, sizes = self._gram, np.diag(self._gram)
        squares = ((q @ gram[np.ix_(own, own)]) * q).sum(axis=1)[:, None] + sizes[others]
        squares -= 2.0 * q @ gram[own][:, others]
        squares = np.maximum(squares, _SMALLEST) + 8.0 * (self.dim + 16.0) * _EPS * sizes.max()
        return (q * o[:, own]).sum(axis=1) + self._tau * entropy - doubt, np.sqrt(squares)

    def _together(self, o: Float64, doubt: Float64, own: NDArray[np.bool_], others: Any, q: Float64) -> Float64:
        """The r at which the rivals' log-sum-exp, each raised by r ||mu_l - m||, meets the own level; from below."""
        level, apart = self._level(o, doubt, own, q, others)
        room = level[:, None] - o[:, others]

        def free(r: Float64) -> NDArray[np.bool_]:
            return np.asarray(_log_sum_exp((r[:, None] * apart - room) / self._tau)[0] < 0.0)

        low, high = np.zeros(len(o)), np.maximum((room / apart).min(axis=1), 0.0)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            inside = free(middle)
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        return np.where(free(np.zeros(len(o))), low, 0.0)


def _multipliers(gram: Float64, b: Float64) -> Float64:
    """The l >= 0 with least ||sum_j l_j a_j|| under <sum_j l_j a_j, a_i> >= b_i, for each row of b (n, m): (n, m).

    The a_j have Gram matrix ``gram``; where a_j = 0, l_j = 0. The active set method of Lawson and Hanson (Solving Least
    Squares Problems, ch. 23), for all rows at once.
    """
    size = np.sqrt(np.diag(gram))
    unit = np.where(size > 0, size, 1.0)
    G = gram / np.outer(unit, unit) + _RIDGE * np.eye(len(size))
    b = np.where(size > 0, b, 0.0) / unit
    result, active = np.zeros(b.shape), np.zeros(b.shape, dtype=bool)
    least = _TIGHT * np.abs(b).max(axis=1)
    todo = np.arange(len(b))
    for _ in range(3 * len(size)):
        short = np.where(active[todo] | (size == 0), -np.inf, b[todo] - result[todo] @ G)
        entering = np.argmax(short, axis=1)
        more = short[np.arange(len(todo)), entering] > least[todo]
        todo = todo[more]
        if not todo.size:
            break
        active[todo, entering[more]] = True
        result[todo], active[todo] = _solved(G, b[todo], result[todo], active[todo])
    return result / unit


def _solved(G: Float64, b: Float64, start: Float64, active: NDArray[np.bool_]) -> tuple[Float64, NDArray[np.bool_]]:
    """Multipliers with equality on the active set, which loses those that would become negative on the way there."""
    result, active = start.copy(), active.copy()
    todo = np.arange(len(b))
    for _ in range(len(G)):
        on = active[todo]
        system = np.where(on[:, :, None] & on[:, None, :], G, np.eye(len(G)))
        goal = np.linalg.solve(system, np.where(on, b[todo], 0.0)[:, :, None])[:, :, 0]
        bad = on & (goal <= 0.0)
        done = ~bad.any(axis=1)
        result[todo[done]] = goal[done]
        todo, goal, bad = todo[~done], goal[~done], bad[~done]
        if not todo.size:
            break
        here = result[todo]
        part = np.divide(here, here - goal, out=np.ones_like(here), where=bad & (here > goal))
        share = np.where(bad, part, 1.0).min(axis=1, keepdims=True)
        result[todo] = np.maximum(here + share * (goal - here), 0.0)
        active[todo] &= ~(bad & (part <= share))
        result[todo] = np.where(active[todo], result[todo], 0.0)
    return result, active
