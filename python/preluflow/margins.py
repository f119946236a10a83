"""Robustness as a bracket: for every point, how far an l2 adversary must go at least, and how far one got."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays, _searches, _threads, attacks
from preluflow._arrays import Float, Float64
from preluflow._brackets import Adversary, Block, Brackets, Effort
from preluflow._progress import progress_bar
from preluflow._radius import RobustRadius
from preluflow._scores import Model
from preluflow.classifiers import Classifier, as_classifier
from preluflow.data import OrthonormalGMM
from preluflow.network import TwoLayerNetwork
from preluflow.sklearn_import import known_labels
from preluflow.typing import Level

__all__ = ["RobustRadius", "functional_margins", "normalized_margins", "robust_radius"]

LEVELS: tuple[Level, ...] = get_args(Level)
# Points handled at a time, at most: memory does not grow with n. Fewer for wide networks and many inputs, where a point
# costs more: Ctrl-C keeps the points for which all stages are done.
_ROWS = {"fast": 1024, "tight": 256, "exact": 64}
_WIDE = 200  # neurons
_NUMBERS = 2_000_000  # of a block of points
_Bracket = Callable[[Float, Any, int, Effort, Float64], Block]  # points, labels, the first's number; witnesses


def robust_radius(
    classifier: TwoLayerNetwork | Classifier,
    X: ArrayLike,
    y: ArrayLike,
    level: Level = "fast",
    *,
    gmm: OrthonormalGMM | None = None,
    fixed: ArrayLike | None = None,
    bounds: tuple[ArrayLike, ArrayLike] | None = None,
    starts: int = 3,
    restarts: int = 2,
    steps: int = 30,
    seed: int = 0,
    max_nodes: int = 2000,
    max_seconds: float | None = None,
    progress: bool = False,
    num_threads: int | None = None,
) -> RobustRadius:
    """Bracket the l2 distance of each point to the decision boundary.

    An error is y f(x) <= 0 for one output, F_y(x) <= F_c(x) for some other class c for several: the radius is the least
    over the rival classes. Any ``TwoLayerNetwork`` is taken, with hidden and output biases, a centre, normalised input,
    any activation; docs/mathematics.md#canonical says how. Everything is float64, whatever the dtype of X, and free of
    scale: neither the length of a point nor the size of weights or of their powers matters. Above is the
    shortest perturbation found, starting from swaps of an own group of neurons for a rival one
    (docs/mathematics.md#attack: gradient attacks alone overstate the robustness of such networks), and evaluated again
    on the whole network. Below, certificates are rounded outward, by the bounds on float64's error that the core takes
    off and 1e-9 relatively. Levels:

    - ``"fast"``: the tangent certificate (docs/mathematics.md#tangent), the best over subsets of the own neurons; never
      worse than the Lipschitz form for the same subset. Tens of thousands of points a second.
    - ``"tight"``: where that is more than 0.1% below the attack, also trust-region certificates: quadratic bounds of
      every neuron's term, maximised exactly over the ball, or over its slice through x; and where they leave more than
      2% open and the neurons span at most 256 dimensions, up to twelve nodes of branch and bound. Milliseconds a point.
    - ``"exact"``: where a gap of 1e-4 is left, branch and bound over what the rival neurons see, which also shortens
      witnesses; a node takes some milliseconds. After ``max_nodes`` it gives what is proved until then. There is no
      branch and bound for tanh, nor for normalised input with an output bias: there "exact" is level "tight" with the
      smaller gap, which it may not reach, and ``trace["nodes"]`` is 0.

    Any other classifier is asked for its own certificate, ``certified_radius(X, y)``, and for ``nearest_error(X, y)``
    (see ``preluflow.classifiers.Classifier``), and attacked by ``attacks.minimal_norm``; without a certificate lower is
    0 and the result says "attacked only".

    Parameters
    ----------
    classifier : TwoLayerNetwork or Classifier
        A network, or an object with ``decision_function`` and ``input_gradient``; a ``torch.nn.Sequential`` or a fitted
        scikit-learn classifier that is one of these (``preluflow.classifiers.as_classifier``).
    X : array, shape (n, D)
        Points, float32 or float64.
    y : array, shape (n,)
        Labels: members of the classifier's ``classes``, by default -1 and +1 for one output, 0 .. C-1 for C. Those of
        a ``TwoLayerClassifier`` may be words; ``reached`` has their numbers among its ``classes_`` then.
    level : {"fast", "tight", "exact"}, default "fast"
        Effort of the certificate; "fast" only for classifiers other than two-layer networks.
    gmm : OrthonormalGMM, optional
        Its centres are starts of the attack on other classifiers; by default ``classifier.gmm`` if there is one.
    fixed : array of bool, shape (D,), optional
        Coordinates that the adversary cannot touch; of networks only.
    bounds : (low, high), optional
        A box that x + witness must stay in, numbers or arrays of shape (D,), and X must be in. Certificates are those
        without it, which hold in it all the same; of networks only.
    starts : int, default 3
        Rival groups tried from the strongest own group, the nearest first; the gradient is tried besides. A point whose
        attack is within 0.1% of its certificate is not tried further. 0: certificates alone, of level "fast"
        only: upper is inf where the point is right, unless the classifier knows its ``nearest_error``.
    restarts : int, default 2
        Random starts. Unless it is 0, far more is tried at points where the certificate is below 0.97 of the attack.
    steps : int, default 30
        Refinements of each start.
    seed : int, default 0
        Of the random starts, with the number of the point.
    max_nodes : int, default 2000
        Nodes of level "exact" for each point, at most, all rival classes together.
    max_seconds : float, optional
        Seconds that branch and bound may take for each point, at most, all rival classes together; what is proved until
        then counts. Where a limit is met the result depends on the machine's speed. None by default.
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

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> net = pf.classifiers.cluster_prelu(gmm, p=3)  # F^(3)
    >>> radius = pf.robust_radius(net, gmm.centers, gmm.labels)
    >>> radius.lower.round(3).tolist(), radius.upper.round(3).tolist()  # sqrt(2)/2
    ([0.707, 0.707, 0.707, 0.707], [0.707, 0.707, 0.707, 0.707])
    >>> moved = gmm.centers + radius.witness
    >>> bool(np.all(gmm.labels * net.decision_function(moved) <= 0))
    True
    """
    if gmm is not None:
        _arrays.instance(gmm, "gmm", OrthonormalGMM)
    progress = _arrays.flag(progress, "progress")
    known, classifier = partial(known_labels, classifier), as_classifier(classifier)
    model, points = Model(classifier), _arrays.points(X, dim=getattr(classifier, "dim", None))
    model.known = known
    model.look(points)
    labels = model.targets(y, n=len(points))
    if gmm is not None and gmm.dim != points.shape[1]:
        raise ValueError(f"gmm has dimension {gmm.dim} but X has {points.shape[1]}")
    level = _arrays.choice(level, "level", LEVELS)
    effort = Effort(
        level,
        _arrays.integer(starts, "starts", minimum=0 if level == "fast" else 1, maximum=_arrays.INT32),
        _arrays.integer(restarts, "restarts", minimum=0, maximum=_arrays.INT32),
        _arrays.integer(steps, "steps", minimum=0, maximum=_arrays.INT32),
        _arrays.integer(seed, "seed", minimum=0, maximum=_arrays.UINT64),
        _arrays.integer(max_nodes, "max_nodes", minimum=1),
        None if max_seconds is None else _arrays.real(max_seconds, "max_seconds", above=0.0),
        _arrays.threads(num_threads),
    )
    adversary = _adversary(points, fixed, bounds)
    bracket: _Bracket
    rows = _ROWS[level]
    if isinstance(classifier, TwoLayerNetwork):
        bracket, certified = Brackets(classifier, adversary, effort.num_threads).bracket, True
        labels = (labels > 0).astype(np.int64) if model.outputs == 1 else labels
        rows = min(int(rows * min(1.0, (_WIDE / classifier.width) ** 2)), _NUMBERS // classifier.dim)
        rows = max(rows, min(_ROWS[level], 8))
    else:
        _only_networks(classifier, level, fixed, bounds)
        bracket, certified = partial(_bracket, classifier, gmm, model), hasattr(classifier, "certified_radius")
    with _threads.held_to(effort.num_threads if num_threads is not None and isinstance(bracket, partial) else None):
        blocks, witness = _blocks(bracket, points, labels, rows, effort, progress)
    result = _result(blocks, witness, model.classes)
    result.config = {**asdict(effort), "n": len(points), "certified": certified, "classifier": repr(classifier)}
    del result.config["num_threads"]
    if not result.consistent.all():
        bad = np.flatnonzero(~result.consistent)
        warnings.warn(
            f"certified radius above the attacked one at {bad.size} points, the first {bad[0]}: please report this",
            RuntimeWarning,
            stacklevel=2,
        )
    return result


def _adversary(X: Float, fixed: ArrayLike | None, bounds: tuple[ArrayLike, ArrayLike] | None) -> Adversary:
    """What the adversary may not do, checked against the points."""
    dim = X.shape[1]
    mask = None
    if fixed is not None:
        mask = _arrays.as_array(fixed, "fixed")
        if mask.dtype != np.bool_ or mask.shape != (dim,):
            raise ValueError(f"fixed must hold bools and have shape ({dim},), got {mask.dtype} and {mask.shape}")
        if mask.all():
            raise ValueError("fixed must leave a coordinate to the adversary")
        mask = mask if mask.any() else None
    if bounds is None:
        return Adversary(mask)
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise ValueError(f"bounds must be a pair (low, high), got {_arrays.shown(bounds)}")
    low, high = (_bound(end, f"bounds[{k}]", dim) for k, end in enumerate(bounds))
    if not (low < high).all():
        raise ValueError("bounds must have low < high in every coordinate")
    if not ((low <= X) & (X <= high)).all():
        raise ValueError(f"X must lie within bounds, got values from {X.min()} to {X.max()}")
    return Adversary(mask, low, high)


def _bound(end: ArrayLike, name: str, dim: int) -> Float64:
    """An end of the box, (D,), from a number or an array."""
    if np.ndim(_arrays.as_array(end, name)) == 0:
        return np.full(dim, _arrays.real(end, name))
    values = _arrays.real_array(end, name, dtype=np.float64, ndim=1).astype(np.float64)
    if values.shape != (dim,):
        raise ValueError(f"{name} must be a number or have shape ({dim},), got {values.shape}")
    return np.ascontiguousarray(values)


def _only_networks(classifier: Any, level: Level, fixed: Any, bounds: Any) -> None:
    """Refuse what only two-layer networks take."""
    kind = type(classifier).__name__
    if level != "fast":
        raise ValueError(f"level must be 'fast' for {kind}: {level!r} is for two-layer networks")
    for name, value in (("fixed", fixed), ("bounds", bounds)):
        if value is not None:
            raise ValueError(f"{name} must be None for {kind}: it is for two-layer networks")


def _result(blocks: list[Block], witness: Float64, classes: NDArray[np.int64]) -> RobustRadius:
    """Put blocks together; numbers of classes become labels."""
    lower, upper, correct, reached = (
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("lower", "upper", "correct", "reached")
    )
    trace = {name: np.concatenate([block.trace[name] for block in blocks]) for name in blocks[0].trace}
    return RobustRadius(lower, upper, witness, correct, reached=classes[reached], trace=trace)


def _blocks(
    bracket: _Bracket, X: Float, y: NDArray[Any], rows: int, effort: Effort, progress: bool
) -> tuple[list[Block], Float64]:
    """Bracket points block by block, with the witnesses of all; after Ctrl-C, those before the first not done."""
    blocks: list[Block] = []
    witness = np.zeros(X.shape)
    bar = progress_bar(len(X), "point", progress)
    try:
        for first in range(0, len(X), rows):
            here = slice(first, first + rows)
            block = bracket(X[here], y[here], first, effort, witness[here])
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
    return blocks, witness[: sum(len(block.done) for block in blocks)]


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

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> net = pf.classifiers.cluster_prelu(gmm, p=3)  # F^(3)
    >>> pf.functional_margins(net, gmm.centers, gmm.labels).round(6).tolist()
    [1.0, 1.0, 1.0, 1.0]
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

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> net = pf.classifiers.cluster_prelu(gmm, p=3)  # F^(3)
    >>> pf.normalized_margins(net, gmm.centers, gmm.labels).round(6).tolist()  # ||theta||^2 = 2 K
    [0.125, 0.125, 0.125, 0.125]
    """
    margins, log_scale = _scaled_margins(network, X, y)
    log_power = network.log_parameter_power
    if np.isneginf(log_power):
        raise ValueError("network must have a weight that is not 0")
    return np.asarray(margins * np.exp(log_scale - log_power))


def _scaled_margins(network: TwoLayerNetwork, X: ArrayLike, y: ArrayLike) -> tuple[Float64, float]:
    _arrays.instance(network, "network", TwoLayerNetwork)
    points = _arrays.points(X, dim=network.dim)
    target = _arrays.labels(y, n=len(points))
    scaled, log_scale = network.rescaled()
    return target * scaled.astype("float64").decision_function(points.astype(np.float64)), log_scale


def _bracket(
    classifier: Any,
    gmm: OrthonormalGMM | None,
    model: Model,
    given: Float,
    y: NDArray[Any],
    first: int,
    effort: Effort,
    witness: Float64,
) -> Block:
    """Bracket a block of points, for a classifier with methods of its own; y as ``Model.targets`` gives it."""
    X: Float64 = given.astype(np.float64)
    gmm = getattr(classifier, "gmm", None) if gmm is None else gmm
    centers: dict[str, Any] = {} if gmm is None else {"centers": gmm.centers, "center_labels": gmm.labels}
    number = (y > 0).astype(np.int64) if model.outputs == 1 else y
    labels = model.classes[number]
    if effort.starts > 0:
        found = attacks.minimal_norm(
            classifier,
            X,
            labels,
            starts=effort.starts,
            steps=effort.steps,
            restarts=effort.restarts,
            seed=(effort.seed + first) % (_arrays.UINT64 + 1),
            **centers,
        )
        witness[...] = found.delta
        upper, reached = found.norms, found.reached
    else:
        margin, reached = _searches.Points(model, X, y, np.arange(len(X))).judge(witness)
        upper = np.where(margin <= 0, 0.0, np.inf)
    correct = upper > 0
    if hasattr(classifier, "nearest_error"):
        nearest = np.where(correct[:, None], classifier.nearest_error(X, labels), 0.0)
        lengths = np.linalg.norm(nearest, axis=1)
        margin, taken = _searches.Points(model, X, y, np.arange(len(X))).judge(nearest)
        shorter = correct & (lengths < upper) & (margin <= 0)
        witness[shorter], upper[shorter], reached[shorter] = nearest[shorter], lengths[shorter], taken[shorter]
    lower = np.zeros(len(X))
    if hasattr(classifier, "certified_radius"):
        lower = np.where(correct, classifier.certified_radius(X, labels) * (1.0 - 1e-9), 0.0)
    number = (reached[:, None] == model.classes).argmax(axis=1)
    return Block(lower, upper, correct, number, np.ones(len(X), dtype=bool), {})
