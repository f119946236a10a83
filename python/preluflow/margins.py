"""Robustness as a bracket: for every point, how far an l2 adversary must go at least, and how far one got."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays, _npz, _threads, attacks
from preluflow._arrays import Float, Float64
from preluflow._polar import Block, Effort, Polar
from preluflow._progress import progress_bar
from preluflow.classifiers import Classifier
from preluflow.data import OrthonormalGMM
from preluflow.network import TwoLayerNetwork
from preluflow.results import environment, naming, read_npz, write_npz
from preluflow.typing import Level

LEVELS: tuple[Level, ...] = get_args(Level)
# Points handled at a time, at most: memory does not grow with n. Fewer for wide networks and many inputs, where a point
# costs more: Ctrl-C keeps the points for which all stages are done.
_ROWS = {"fast": 1024, "tight": 256, "exact": 64}
_WIDE = 200  # neurons
_NUMBERS = 2_000_000  # of a block of points
_ARRAYS = ("lower", "upper", "witness", "correct")  # of a result, and of its file


@dataclass
class RobustRadius:
    """A bracket on the l2 distance of each point to the decision boundary.

    An error is y f(x) <= 0: the radius of a misclassified point is 0.

    Attributes
    ----------
    lower : ndarray, shape (n,)
        Certified: no perturbation of this length or less changes the decision.
    upper : ndarray, shape (n,)
        Attacked: the length of ``witness``, which does; inf where no error was found.
    witness : ndarray, shape (n, D)
        Perturbations: y f(x + witness) <= 0, evaluated on the whole network in float64.
    correct : ndarray of bool, shape (n,)
        Whether y f(x) > 0, f being exact: also where its powers leave float64.
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
        radii = _arrays.numbers_in(eps, "eps", minimum=0.0)
        count = len(self.lower)
        # Certified: no error within the closed ball; attacked: none was found in it.
        lower, upper = (np.sort(np.where(self.correct, radius, -1.0)) for radius in (self.lower, self.upper))
        certified = 1.0 - np.searchsorted(lower, radii, side="left") / count
        attacked = 1.0 - np.searchsorted(upper, radii, side="right") / count
        return np.asarray(certified), np.asarray(attacked)

    def summary(self) -> str:
        """Tell the bracket in a few lines: accuracy, quantiles of the radii and of their ratio."""
        right = self.correct & (self.upper > 0)
        note = "" if self.config.get("certified", True) else ", attacked only"
        lines = [f"{len(self.lower)} points, accuracy {self.correct.mean():.4f}{note}"]
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
        note = "" if self.config.get("certified", True) else ", attacked only"
        return f"RobustRadius({len(self.lower)} points, median in [{low:.4f}, {high:.4f}]{note})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to an npz file (no pickle), atomically.

        A path that is a symbolic link is written through; anything but a regular file is refused.

        Raises
        ------
        ValueError
            If the arrays do not belong together, so that the file could not be loaded again.
        OSError
            If the file cannot be written; one that was there stays.
        """
        self._check()
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        write_npz(path, "robust_radius", arrays, {"config": self.config, "environment": self.environment})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RobustRadius:
        """Load what ``save`` wrote; ValueError if the file is damaged, hostile or something else."""
        arrays, meta = read_npz(path, "robust_radius")
        with naming(path):
            _npz.expect_names(arrays, _ARRAYS)
            config, versions = (_npz.field(meta, name, dict) for name in ("config", "environment"))
            lower, upper, witness, correct = (arrays[name] for name in _ARRAYS)
            radius = cls(lower, upper, witness, correct, config, versions)
            radius._check()
        return radius

    def _check(self) -> None:
        """Raise ValueError if the arrays do not belong together, or a radius is none."""
        count = len(_npz.expect(self.lower, "lower", "f", ("n",)))
        _npz.expect(self.correct, "correct", "b", (count,))
        for name, radii in (("lower", self.lower), ("upper", self.upper)):
            if not np.all(_npz.expect(radii, name, "f", (count,)) >= 0):
                raise ValueError(f"{name} must hold radii, not negative and not NaN")
        if not count:
            raise ValueError("lower must hold at least one radius")
        if not np.isfinite(_npz.expect(self.witness, "witness", "f", (count, "D"))).all():
            raise ValueError("witness must be finite")


def robust_radius(
    classifier: TwoLayerNetwork | Classifier,
    X: ArrayLike,
    y: ArrayLike,
    level: Level = "fast",
    *,
    gmm: OrthonormalGMM | None = None,
    starts: int = 3,
    restarts: int = 2,
    steps: int = 30,
    seed: int = 0,
    max_nodes: int = 20_000,
    max_seconds: float | None = None,
    progress: bool = False,
    num_threads: int | None = None,
) -> RobustRadius:
    """Bracket the l2 distance of each point to the decision boundary.

    For a pReLU or polynomial ReLU network everything is float64, whatever the dtype of X, and free of scale: neither
    the length of a point nor the size of weights or of their powers matters. Above is the shortest
    perturbation found, starting from swaps of an own group of neurons for a rival one (docs/mathematics.md#attack:
    gradient attacks alone overstate the robustness of such networks), and evaluated again on the whole network. Below,
    certificates are rounded outward, by the bounds on float64's error that the core takes off and 1e-9 relatively.
    Levels:

    - ``"fast"``: the tangent certificate (docs/mathematics.md#tangent), the best over subsets of the own neurons; never
      worse than the Lipschitz form for the same subset. Tens of thousands of points a second.
    - ``"tight"``: where that is more than 0.1% below the attack, also trust-region certificates: quadratic bounds of
      every neuron's term, maximised exactly over the ball, or over its slice through x. Milliseconds a point.
    - ``"exact"``: where a gap of 1e-4 is left, branch and bound over what the rival neurons see, which also shortens
      witnesses. For networks with up to about 40 neurons that matter to a point; after ``max_nodes`` it gives what is
      proved until then.

    Any other classifier is asked for its own certificate, ``certified_radius(X, y)``, and for ``nearest_error(X, y)``
    (see ``preluflow.classifiers.Classifier``), and attacked by ``attacks.minimal_norm``; without a certificate lower is
    0 and the result says "attacked only".

    Parameters
    ----------
    classifier : TwoLayerNetwork or Classifier
        A network of any p >= 1, or an object with ``decision_function`` and ``input_gradient``.
    X : array, shape (n, D)
        Points, float32 or float64.
    y : array, shape (n,)
        Labels -1 and +1.
    level : {"fast", "tight", "exact"}, default "fast"
        Effort of the certificate; "fast" only for classifiers other than pReLU and polynomial networks.
    gmm : OrthonormalGMM, optional
        Its centres are starts of the attack on other classifiers; by default ``classifier.gmm`` if there is one.
    starts : int, default 3
        Rival groups tried from the strongest own group, the nearest first; the gradient is tried besides. A point whose
        attack is within 0.1% of its certificate is not tried further.
    restarts : int, default 2
        Random starts. Unless it is 0, far more is tried at points where the certificate is below 0.97 of the attack.
    steps : int, default 30
        Refinements of each start.
    seed : int, default 0
        Of the random starts, with the number of the point.
    max_nodes : int, default 20000
        Nodes of level "exact" for each point, at most.
    max_seconds : float, optional
        Seconds that branch and bound may take for each point, at most; what is proved until then counts. Where a limit
        is met the result depends on the machine's speed. None by default.
    progress : bool, default False
        Show a progress bar.
    num_threads : int, optional
        All cores by default. The result does not depend on it, bit for bit. Classifiers that use NumPy's BLAS or torch
        are held to it where ``threadpoolctl`` is installed; their last bits are what these libraries make of it.

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
    if gmm is not None:
        _arrays.instance(gmm, "gmm", OrthonormalGMM)
    progress = _arrays.flag(progress, "progress")
    points, target = _points(classifier, X, y)
    if gmm is not None and gmm.dim != points.shape[1]:
        raise ValueError(f"gmm has dimension {gmm.dim} but X has {points.shape[1]}")
    level = _arrays.choice(level, "level", LEVELS)
    effort = Effort(
        level,
        _arrays.integer(starts, "starts", minimum=1, maximum=_arrays.INT32),
        _arrays.integer(restarts, "restarts", minimum=0, maximum=_arrays.INT32),
        _arrays.integer(steps, "steps", minimum=0, maximum=_arrays.INT32),
        _arrays.integer(seed, "seed", minimum=0, maximum=_arrays.UINT64),
        _arrays.integer(max_nodes, "max_nodes", minimum=1),
        None if max_seconds is None else _arrays.real(max_seconds, "max_seconds", above=0.0),
        _arrays.threads(num_threads),
    )
    bracket: Callable[[Float64, Float64, int, Effort], Block]
    rows = _ROWS[level]
    if isinstance(classifier, TwoLayerNetwork) and classifier.activation != "tanh":
        bracket, certified = Polar(classifier, effort.num_threads).bracket, True
        rows = min(int(rows * min(1.0, (_WIDE / classifier.width) ** 2)), _NUMBERS // classifier.dim)
        rows = max(rows, min(_ROWS[level], 8))
    elif level != "fast":
        raise ValueError(f"level must be 'fast' for {type(classifier).__name__}: {level!r} is for relu networks")
    else:
        bracket, certified = partial(_bracket, classifier, gmm), hasattr(classifier, "certified_radius")
    with _threads.held_to(effort.num_threads if num_threads is not None and isinstance(bracket, partial) else None):
        blocks = _blocks(bracket, points, target, rows, effort, progress)
    lower, upper, witness, correct = (
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("lower", "upper", "witness", "correct")
    )
    config = {**asdict(effort), "n": len(points), "certified": certified, "classifier": repr(classifier)}
    del config["num_threads"]
    result = RobustRadius(lower, upper, witness, correct, config)
    if not result.consistent.all():
        bad = np.flatnonzero(~result.consistent)
        warnings.warn(
            f"certified radius above the attacked one at {bad.size} points, the first {bad[0]}: please report this",
            RuntimeWarning,
            stacklevel=2,
        )
    return result


def _blocks(
    bracket: Callable[[Float64, Float64, int, Effort], Block],
    X: Float,
    y: Float64,
    rows: int,
    effort: Effort,
    progress: bool,
) -> list[Block]:
    """Bracket points block by block; after Ctrl-C, those before the first point that is not done."""
    blocks: list[Block] = []
    bar = progress_bar(len(X), "point", progress)
    try:
        for first in range(0, len(X), rows):
            block = bracket(X[first : first + rows].astype(np.float64), y[first : first + rows], first, effort)
            count = len(block.done) if block.done.all() else int(np.argmin(block.done))
            if count:
                blocks.append(block.head(count))
            bar.update(count)
            if block.error is not None:
                raise block.error
    except KeyboardInterrupt:
        if not blocks:
            raise
    finally:
        bar.close()
    return blocks


def functional_margins(network: TwoLayerNetwork, X: ArrayLike, y: ArrayLike) -> Float64:
    """Return y f(x) of each point, shape (n,): positive where it is classified correctly.

    Parameters
    ----------
    network : TwoLayerNetwork
        Any activation.
    X : array, shape (n, D)
        Points; evaluated in float64.
    y : array, shape (n,)
        Labels -1 and +1.

    Raises
    ------
    ValueError, TypeError
        For bad input.
    """
    margins, log_scale = _scaled_margins(network, X, y)
    return np.asarray(margins * np.exp(log_scale))


def normalized_margins(network: TwoLayerNetwork, X: ArrayLike, y: ArrayLike) -> Float64:
    """Return y f(x) / ||theta||^L of each point, shape (n,), L the degree in theta = (W, v) of which f is homogeneous.

    L = 2 for pReLU and p + 1 for polynomial ReLU networks; the least over the training points is what late gradient
    flow of the exponential and the logistic loss increases. Nothing underflows at tiny scales.

    Parameters
    ----------
    network : TwoLayerNetwork
        "prelu" or "polynomial".
    X : array, shape (n, D)
        Points; evaluated in float64.
    y : array, shape (n,)
        Labels -1 and +1.

    Raises
    ------
    ValueError, TypeError
        For bad input, a tanh network, or one whose weights are all 0.
    """
    margins, log_scale = _scaled_margins(network, X, y)
    log_power = network.log_parameter_power
    if np.isneginf(log_power):
        raise ValueError("network must have a weight that is not 0")
    return np.asarray(margins * np.exp(log_scale - log_power))


def _scaled_margins(network: TwoLayerNetwork, X: ArrayLike, y: ArrayLike) -> tuple[Float64, float]:
    _arrays.instance(network, "network", TwoLayerNetwork)
    points, target = _points(network, X, y)
    scaled, log_scale = network.rescaled()
    return target * scaled.astype("float64").decision_function(points.astype(np.float64)), log_scale


def _points(classifier: Any, X: ArrayLike, y: ArrayLike) -> tuple[Float, Float64]:
    """Points, of their own float dtype, and labels."""
    if isinstance(classifier, type) or not isinstance(classifier, Classifier):
        raise TypeError(
            "classifier must be a TwoLayerNetwork or have decision_function and input_gradient, "
            f"got {type(classifier).__name__}"
        )
    points = _arrays.points(X, dim=getattr(classifier, "dim", None))
    return points, _arrays.labels(y, n=len(points))


def _bracket(classifier: Any, gmm: OrthonormalGMM | None, X: Float64, y: Float64, first: int, effort: Effort) -> Block:
    """Bracket a block of points, for a classifier with methods of its own."""
    gmm = getattr(classifier, "gmm", None) if gmm is None else gmm
    centers: dict[str, Any] = {} if gmm is None else {"centers": gmm.centers, "center_labels": gmm.labels}
    found = attacks.minimal_norm(
        classifier,
        X,
        y,
        starts=effort.starts,
        steps=effort.steps,
        restarts=effort.restarts,
        seed=(effort.seed + first) % (_arrays.UINT64 + 1),
        **centers,
    )
    witness, upper = found.delta, found.norms
    correct = ~(found.success & (upper == 0))
    if hasattr(classifier, "nearest_error"):
        nearest = np.where(correct[:, None], classifier.nearest_error(X, y), 0.0)
        lengths = np.linalg.norm(nearest, axis=1)
        shorter = correct & (lengths < upper) & (y * classifier.decision_function(X + nearest) <= 0)
        witness[shorter], upper[shorter] = nearest[shorter], lengths[shorter]
    lower = np.zeros(len(X))
    if hasattr(classifier, "certified_radius"):
        lower = np.where(correct, classifier.certified_radius(X, y) * (1.0 - 1e-9), 0.0)
    return Block(lower, upper, witness, correct, np.ones(len(X), dtype=bool))
