"""Robustness as a bracket: for every point, how far an l2 adversary must go at least, and how far one got."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays
from preluflow._arrays import Float64
from preluflow._dispatch import core
from preluflow._progress import progress_bar
from preluflow.network import TwoLayerNetwork
from preluflow.results import environment, read_npz, write_npz

_ROWS = 1024  # points handled at a time: memory does not grow with n
_NEAR = 0.9  # cosine above which neurons of one sign form a group for the attack's starts
_SAME = 1.0 - 1e-14  # cosine above which they are one neuron


@dataclass
class RobustRadius:
    """A bracket on the l2 distance of each point to the decision boundary.

    An error is y f(x) <= 0: the radius of a misclassified point is 0.

    Attributes
    ----------
    lower : ndarray, shape (n,)
        Certified: no perturbation of this length or less changes the decision.
    upper : ndarray, shape (n,)
        Attacked: the length of ``witness``, which does.
    witness : ndarray, shape (n, D)
        Perturbations: y f(x + witness) <= 0, evaluated on the whole network in float64.
    correct : ndarray of bool, shape (n,)
        Whether y f(x) > 0.
    config, environment : dict
        What was asked, and the versions and instruction set that answered.
    """

    lower: Float64
    upper: Float64
    witness: Float64
    correct: NDArray[np.bool_]
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=environment)

    @property
    def consistent(self) -> NDArray[np.bool_]:
        """Where lower <= upper, as it must be everywhere; elsewhere is a bug worth reporting."""
        return np.asarray(self.lower <= self.upper)

    def accuracy(self, eps: ArrayLike) -> tuple[Float64, Float64]:
        """Share of points that survive every perturbation of length <= ``eps``: at least, and at most.

        Parameters
        ----------
        eps : float or array, shape (R,)
            Radii, not negative.

        Returns
        -------
        certified, attacked : ndarray, shape () or (R,)
            The truth lies between.
        """
        radii = np.asarray(eps, dtype=np.float64)
        if radii.size and not (np.all(np.isfinite(radii)) and radii.min() >= 0):
            raise ValueError("eps must be finite and not negative")
        count = len(self.lower)
        # Certified: no error within the closed ball; attacked: none was found in it.
        lower, upper = (np.sort(np.where(self.correct, radius, -1.0)) for radius in (self.lower, self.upper))
        certified = 1.0 - np.searchsorted(lower, radii, side="left") / count
        attacked = 1.0 - np.searchsorted(upper, radii, side="right") / count
        return np.asarray(certified), np.asarray(attacked)

    def summary(self) -> str:
        """Tell the bracket in a few lines: accuracy, quantiles of the radii and of their ratio."""
        right = self.correct & (self.upper > 0)
        lines = [f"{len(self.lower)} points, accuracy {self.correct.mean():.4f}"]
        if right.any():
            quantiles = (0.05, 0.5, 0.95)
            for name, values in (
                ("certified", self.lower[right]),
                ("attacked", self.upper[right]),
                ("certified / attacked", self.lower[right] / self.upper[right]),
            ):
                low, median, high = np.quantile(values, quantiles)
                lines.append(f"{name}: median {median:.4f} (5% {low:.4f}, 95% {high:.4f}, min {values.min():.4f})")
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Show the medians."""
        low, high = np.median(self.lower), np.median(self.upper)
        return f"RobustRadius({len(self.lower)} points, median in [{low:.4f}, {high:.4f}])"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to an npz file (no pickle), atomically."""
        arrays = {name: getattr(self, name) for name in ("lower", "upper", "witness", "correct")}
        write_npz(path, "robust_radius", arrays, {"config": self.config, "environment": self.environment})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RobustRadius:
        """Load what ``save`` wrote; ValueError if the file is damaged or something else."""
        arrays, meta = read_npz(path, "robust_radius")
        try:
            lower, upper, witness, correct = (arrays[name] for name in ("lower", "upper", "witness", "correct"))
            return cls(lower, upper, witness, correct, meta["config"], meta["environment"])
        except KeyError as error:
            raise ValueError(f"{str(path)!r} is damaged: {error} is missing") from None


def robust_radius(
    network: TwoLayerNetwork,
    X: ArrayLike,
    y: ArrayLike,
    *,
    starts: int = 3,
    restarts: int = 2,
    steps: int = 30,
    seed: int = 0,
    progress: bool = False,
    num_threads: int | None = None,
) -> RobustRadius:
    """Bracket the l2 distance of each point to the decision boundary of a pReLU or polynomial ReLU network.

    Below: the tangent certificate of mathematics.md, section 7, the best over subsets of the own neurons; it is never
    worse than the Lipschitz form for the same subset. Above: the shortest perturbation found, starting from swaps of an
    own group of neurons for a rival one (section 8: gradient attacks alone overstate the robustness of such networks).
    Everything is float64, whatever the dtype of X; witnesses are evaluated again on the whole network.

    Parameters
    ----------
    network : TwoLayerNetwork
        "prelu" or "polynomial", any p >= 1.
    X : array, shape (n, D)
        Points, float32 or float64.
    y : array, shape (n,)
        Labels -1 and +1.
    starts : int, default 3
        Rival groups tried from the strongest own group, the nearest first; the gradient is tried besides.
    restarts : int, default 2
        Random starts.
    steps : int, default 30
        Refinements of each start.
    seed : int, default 0
        Of the random starts, with the number of the point.
    progress : bool, default False
        Show a progress bar.
    num_threads : int, optional
        All cores by default. The result does not depend on it, bit for bit.

    Returns
    -------
    RobustRadius
        After Ctrl-C, of the points done until then.

    Raises
    ------
    ValueError, TypeError
        For bad input, before any work.

    Warns
    -----
    RuntimeWarning
        If lower > upper somewhere, which would be a bug.
    """
    if not isinstance(network, TwoLayerNetwork):
        raise TypeError(f"network must be a TwoLayerNetwork, got {type(network).__name__}")
    if network.activation == "tanh":
        raise ValueError("network must be 'prelu' or 'polynomial', got 'tanh'")
    points = _arrays.as_array(X, "X")
    points = _arrays.real_array(points, "X", dtype=points.dtype if points.dtype.kind == "f" else np.float64, ndim=2)
    if points.shape[1] != network.dim:
        raise ValueError(f"X must have shape (n, {network.dim}) as the network's inputs, got {points.shape}")
    target = _arrays.labels(y, n=len(points))
    starts = _arrays.integer(starts, "starts", minimum=1)
    steps = _arrays.integer(steps, "steps", minimum=0)
    restarts = _arrays.integer(restarts, "restarts", minimum=0)
    seed = _arrays.integer(seed, "seed", minimum=0)
    threads = _arrays.threads(num_threads)
    options = {"starts": starts, "restarts": restarts, "steps": steps, "seed": seed}
    polar = _Polar(network)
    done: list[tuple[Any, ...]] = []
    bar = progress_bar(len(points), "point", progress)
    try:
        for first in range(0, len(points), _ROWS):
            rows = slice(first, first + _ROWS)
            block = points[rows].astype(np.float64)
            done.append(polar.bracket(block, target[rows], {**options, "first": first, "threads": threads}))
            bar.update(len(block))
    except KeyboardInterrupt:
        if not done:
            raise
    finally:
        bar.close()
    lower, upper, witness, correct = (np.concatenate(parts) for parts in zip(*done, strict=True))
    result = RobustRadius(lower, upper, witness, correct, {**options, "n": len(points)})
    if not result.consistent.all():
        bad = np.flatnonzero(~result.consistent)
        warnings.warn(
            f"certified radius above the attacked one at {bad.size} points, the first {bad[0]}: please report this",
            RuntimeWarning,
            stacklevel=2,
        )
    return result


class _Polar:
    """A network as f = sum_j s_j a_j sigma(<x,u_j>)^p: contributing neurons only, collinear ones merged, max a = 1."""

    def __init__(self, network: TwoLayerNetwork) -> None:
        log_a = network.log_contributions
        alive = np.isfinite(log_a)
        a = np.exp(log_a[alive] - log_a[alive].max()) if alive.any() else np.empty(0)
        U = network.directions[alive].astype(np.float64)
        norms = np.linalg.norm(U, axis=1)  # float32 rows are units within 1e-7 only; the rest belongs to a
        a, U = a * norms**network.p, U / norms[:, None]
        kept = a > 0
        self.a, self.U, self.sign = a[kept], U[kept], network.sign[alive][kept].astype(np.float64)
        self.p = float(network.p)
        self._merge()
        self.margin: Any = None
        if len(self.a):
            gram = np.ascontiguousarray(self.U @ self.U.T)
            group, count = _groups(gram, self.sign, self.a, _NEAR)
            L_plus, L_minus = (_lipschitz(gram, self.a, self.sign == label, self.p) for label in (1.0, -1.0))
            self.margin = core.Margin(gram, self.a, self.sign, self.p, L_plus, L_minus, group, count)

    def _merge(self) -> None:
        if not len(self.a):
            return
        group, count = _groups(self.U @ self.U.T, self.sign, self.a, _SAME)
        if count == len(self.a):
            return
        first = np.array([np.flatnonzero(group == g)[0] for g in range(count)])
        self.a = np.bincount(group, weights=self.a, minlength=count)
        self.U, self.sign = np.ascontiguousarray(self.U[first]), self.sign[first]

    def margins(self, X: Float64, y: Float64) -> Float64:
        """Return y f(x), up to a positive factor, shape (n,)."""
        z = np.maximum(X @ self.U.T, 0.0)
        return np.asarray(y * ((z**self.p) @ (self.sign * self.a)))

    def bracket(self, X: Float64, y: Float64, options: dict[str, int]) -> tuple[Any, ...]:
        """Lower, upper, witness, correct of a block of points."""
        if self.margin is None:
            return np.zeros(len(X)), np.zeros(len(X)), np.zeros_like(X), np.zeros(len(X), dtype=bool)
        norms = np.linalg.norm(X, axis=1)
        z = np.ascontiguousarray(X @ self.U.T)
        lower = self.margin.certify(z, y, norms, options["threads"])
        upper, beta = self.margin.attack(z, y, **options)
        correct = self.margins(X, y) > 0
        lower[~correct] = 0.0
        witness = np.where(np.isfinite(upper) & correct, 1.0, 0.0)[:, None] * (
            np.where(np.isfinite(beta), beta, 0.0) @ self.U
        )
        # What was found on inner products must hold in input coordinates; a hair further if rounding says otherwise.
        broken = np.flatnonzero(correct)
        for stretch in (0.0, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9):
            trial = witness[broken] * (1.0 + stretch)
            wins = (self.margins(X[broken] + trial, y[broken]) <= 0) & np.isfinite(upper[broken])
            witness[broken[wins]] = trial[wins]
            broken = broken[~wins]
            if not broken.size:
                break
        witness[broken] = -X[broken]  # at the origin f = 0, an error
        upper = np.where(correct, np.linalg.norm(witness, axis=1), 0.0)
        shorter = correct & (norms < upper)
        witness[shorter], upper[shorter] = -X[shorter], norms[shorter]
        return lower, upper, witness, correct


def _groups(gram: Float64, sign: Float64, a: Float64, near: float) -> tuple[NDArray[np.int64], int]:
    """Put neurons of one sign whose cosine with the heaviest of a group exceeds ``near`` into that group."""
    group = np.full(len(a), -1, dtype=np.int64)
    count = 0
    for j in np.argsort(-a, kind="stable"):
        if group[j] < 0:
            group[(group < 0) & (sign == sign[j]) & (gram[j] >= near)] = count
            group[j] = count
            count += 1
    return group, count


def _lipschitz(gram: Float64, a: Float64, own: NDArray[np.bool_], p: float) -> float:
    """L of g_S on the unit sphere: lambda_max(sum a u u^T)^(1/p), or by Hoelder for p < 2; rounded up."""
    if not own.any():
        return 0.0
    root = np.sqrt(a[own])
    largest = float(np.linalg.eigvalsh(gram[np.ix_(own, own)] * root[:, None] * root[None, :])[-1]) * (1.0 + 1e-12)
    if p >= 2.0:
        return float(largest ** (1.0 / p))
    return float(a[own].sum() ** (1.0 / p - 0.5) * largest**0.5)
