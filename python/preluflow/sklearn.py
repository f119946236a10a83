"""Estimators of scikit-learn that train two-layer networks, and a scorer that certifies their robustness.

Needs scikit-learn 1.6 or later (``pip install 'preluflow[sklearn]'``). They take part in pipelines, cross-validation
and grid searches, and ``robust_radius(estimator_or_pipeline, X, y)`` brackets their radii::

    model = make_pipeline(StandardScaler(), TwoLayerClassifier(random_state=0))
    search = GridSearchCV(model, {"twolayerclassifier__p": [1, 2, 3]}, scoring=certified_accuracy(0.5)).fit(X, y)
    radius = pf.robust_radius(search.best_estimator_, X_test, y_test)
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("preluflow.sklearn needs scikit-learn 1.6 or later: pip install 'preluflow[sklearn]'") from error

from preluflow import _arrays
from preluflow._arrays import Float, Float64
from preluflow.flow import gradient_flow
from preluflow.initialization import initialize
from preluflow.margins import LEVELS, robust_radius
from preluflow.network import TwoLayerNetwork
from preluflow.results import Run
from preluflow.sklearn_import import integers
from preluflow.train import adam, gradient_descent, sgd
from preluflow.typing import Activation, ClassifierLoss, Kind, Level, Training, TrainingLoss

__all__ = ["TwoLayerClassifier", "TwoLayerRegressor", "certified_accuracy"]

METHODS: tuple[Training, ...] = get_args(Training)
LOSSES: tuple[ClassifierLoss, ...] = get_args(ClassifierLoss)
_STEP: dict[Training, float] = {"adam": 0.003, "sgd": 0.05, "descent": 0.05}  # where none is asked for
_BATCH: dict[Training, int] = {"adam": 200, "sgd": 32}  # points, where nothing else is asked for
_PROBABLE = ("cross_entropy", "logistic")  # losses whose outputs are logarithms of odds

Self = TypeVar("Self", bound="_TwoLayerEstimator")


class _TwoLayerEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """What the classifier and the regressor share: parameters as they are given, checked by ``fit``."""

    width: int
    p: float
    activation: Activation
    scale: float
    kind: Kind
    normalize_input: bool
    method: Training
    loss: str
    step: float | None
    batch: int | None
    epochs: int
    steps: int
    t1: float
    weight_decay: float
    fit_intercept: bool
    dtype: DTypeLike | None
    random_state: Any
    num_threads: int | None

    network_: TwoLayerNetwork
    run_: Run

    def _check_parameters(self) -> None:
        """Refuse bad parameters before any work, also those the method does not use; the network's are its own."""
        _arrays.choice(self.method, "method", METHODS)
        if self.step is not None:
            _arrays.real(self.step, "step", above=0.0)
        if self.batch is not None:
            _arrays.integer(self.batch, "batch", minimum=1)
        _arrays.integer(self.epochs, "epochs", minimum=0)
        _arrays.integer(self.steps, "steps", minimum=0)
        _arrays.real(self.t1, "t1", minimum=0.0)
        _arrays.real(self.weight_decay, "weight_decay", minimum=0.0)
        _arrays.flag(self.fit_intercept, "fit_intercept")
        _arrays.flag(self.normalize_input, "normalize_input")
        if self.dtype is not None:
            _arrays.dtype_of(self.dtype)
        _arrays.threads(self.num_threads)

    def _floats(self) -> Any:
        """Dtypes of X that are taken as they are; the first for all others."""
        return [np.float64, np.float32] if self.dtype is None else _arrays.dtype_of(self.dtype)

    def _points(self, X: Any) -> Float:
        """X (n, D) for a fitted network, in its dtype."""
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, dtype=self.network_.dtype, order="C", reset=False))

    def _fit(self, X: Float, y: NDArray[Any], weight: Float64 | None, start: TwoLayerNetwork, rng: Any) -> None:
        """Train from a network; what it ends with is kept whatever ends it, with a warning unless it is finished."""
        options: dict[str, Any] = {"loss": self._training_loss(), "num_threads": self.num_threads}
        if weight is not None:
            options["sample_weight"] = weight
        if self.fit_intercept:
            options["biases"] = "both"
        if self.weight_decay:
            options["weight_decay"] = self.weight_decay
        run = self._train(self.method, rng)(start, X, y, **options)
        if run.status != "finished":
            warnings.warn(f"training ended early: {run.message}", ConvergenceWarning, stacklevel=3)
        self.run_, self.network_ = run, run.network

    def _train(self, method: Training, rng: Any) -> Any:
        """The function that trains, with the parameters of the method."""
        if method == "flow":
            return partial(gradient_flow, t1=self.t1, method="rkc")  # people's features are correlated
        step = _STEP[method] if self.step is None else self.step
        if method == "descent":
            return partial(gradient_descent, step=step, steps=self.steps)
        train = partial(adam if method == "adam" else sgd, step=step, epochs=self.epochs, rng=rng)
        batch = _BATCH[method] if self.batch is None else self.batch

        def in_batches(start: TwoLayerNetwork, X: Float, y: NDArray[Any], **options: Any) -> Run:
            return train(start, X, y, batch=min(batch, len(X)), **options)

        return in_batches

    def _training_loss(self) -> TrainingLoss:
        raise NotImplementedError

    def _start(self, X: Float, outputs: int, rng: np.random.Generator) -> TwoLayerNetwork:
        """Draw the network to start from."""
        start = initialize(
            self.width,
            scale=self.scale,
            kind=self.kind,
            p=self.p,
            activation=self.activation,
            like=X,
            outputs=outputs,
            rng=rng,
        )
        return start.replace(normalize_input=self.normalize_input)


class TwoLayerClassifier(ClassifierMixin, _TwoLayerEstimator):  # type: ignore[misc]
    """A two-layer network as a classifier of scikit-learn, of two or more classes of any kind.

    Two classes have one output, whose sign decides; C > 2 classes have C, of which the largest does. Data should be
    standardised, by ``StandardScaler`` in a pipeline: outputs of degree p grow like the p-th power of X.

    Parameters
    ----------
    width : int, default 100
        Neurons h.
    p, activation
        Of the network, as in ``TwoLayerNetwork``.
    scale, kind
        Of the start, as in ``initialize``.
    normalize_input : bool, default False
        As in ``TwoLayerNetwork``.
    method : {"adam", "sgd", "descent", "flow"}, default "adam"
        ``preluflow.adam``, ``sgd``, ``gradient_descent`` or ``gradient_flow`` (by its method "rkc"). The last two are
        deterministic, and what theory speaks of; for a small ``scale`` only they, and SGD, are free of scale.
    loss : {"cross_entropy", "logistic", "squared", "exponential"}, default "cross_entropy"
        The cross-entropy of two classes is the logistic loss of one output: the first two are the same. The squared
        one is that of labels -1 and +1, or of one-hot rows. "exponential" is of two classes only.
    step : float, optional
        Step of all methods but the flow; by default 0.003 for "adam", else 0.05.
    batch : int, optional
        Points of a mini-batch of "adam" and "sgd", no more than there are; by default 200 of "adam" and 32 of "sgd".
    epochs : int, default 200
        Passes over the data of "adam" and "sgd".
    steps : int, default 1000
        Iterations of "descent".
    t1 : float, default 50
        Time of "flow".
    weight_decay : float, default 0
        As in ``gradient_descent``.
    fit_intercept : bool, default True
        Whether neurons and outputs have biases, all trained.
    dtype : {"float32", "float64"}, optional
        Of the network; by default float32 for X of that dtype, else float64.
    random_state : None, int, RandomState or Generator
        Draws the start and the order of the points.
    num_threads : int, optional
        All cores by default. The result does not depend on it, bit for bit.

    Attributes
    ----------
    classes_ : ndarray, shape (C,)
        The labels, sorted. Points of weight 0 do not count.
    network_ : TwoLayerNetwork
        What was learned. Its ``classes`` are the labels if these are integers, else their numbers 0 .. C-1.
    run_ : Run
        How training went, with the loss and the accuracy at its ends.
    n_features_in_ : int
        Input dimension D.
    feature_names_in_ : ndarray of str, shape (D,)
        Names of the columns of X, where it has some.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> from preluflow.sklearn import TwoLayerClassifier
    >>> model = TwoLayerClassifier(width=20, p=1, epochs=100, random_state=0).fit(data.X, data.y)
    >>> float(model.score(data.X, data.y))
    1.0
    >>> bool(pf.robust_radius(model, data.X, data.y).lower.min() > 0)
    True
    """

    classes_: NDArray[Any]

    def __init__(
        self,
        width: int = 100,
        *,
        p: float = 3.0,
        activation: Activation = "prelu",
        scale: float = 0.1,
        kind: Kind = "balanced",
        normalize_input: bool = False,
        method: Training = "adam",
        loss: ClassifierLoss = "cross_entropy",
        step: float | None = None,
        batch: int | None = None,
        epochs: int = 200,
        steps: int = 1000,
        t1: float = 50.0,
        weight_decay: float = 0.0,
        fit_intercept: bool = True,
        dtype: DTypeLike | None = None,
        random_state: Any = None,
        num_threads: int | None = None,
    ) -> None:
        self.width = width
        self.p = p
        self.activation = activation
        self.scale = scale
        self.kind = kind
        self.normalize_input = normalize_input
        self.method = method
        self.loss = loss
        self.step = step
        self.batch = batch
        self.epochs = epochs
        self.steps = steps
        self.t1 = t1
        self.weight_decay = weight_decay
        self.fit_intercept = fit_intercept
        self.dtype = dtype
        self.random_state = random_state
        self.num_threads = num_threads

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> TwoLayerClassifier:
        """Train a network.

        Parameters
        ----------
        X : array, shape (n, D)
            Data.
        y : array, shape (n,)
            Labels, of two or more classes: numbers, words or others that can be sorted.
        sample_weight : array, shape (n,), optional
            Weights of the points, at least 0; only their ratios matter. A point of weight 0 is as good as none.

        Returns
        -------
        TwoLayerClassifier
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            For bad input or parameters, before any work.

        Warns
        -----
        ConvergenceWarning
            If training does not reach its end; what was learned until then is kept.
        """
        self._check_parameters()
        data, labels = validate_data(self, X, y, dtype=self._floats(), order="C")
        check_classification_targets(labels)
        data, labels, weight = _weighted(data, labels, sample_weight)
        classes, index = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"y must hold at least two classes, got one class, {classes[0]!r}, at points of weight > 0"
            )
        self.classes_, self._count = classes, len(classes)
        rng = _generator(self.random_state)
        start = self._start(data, 1 if len(classes) == 2 else len(classes), rng).replace(classes=integers(classes))
        self._fit(data, start.classes[index], weight, start, rng)
        return self

    def _training_loss(self) -> TrainingLoss:
        loss = _arrays.choice(self.loss, "loss", LOSSES)
        if loss in _PROBABLE:
            return "logistic" if self._count == 2 else "cross_entropy"
        if loss == "exponential" and self._count > 2:
            raise ValueError(f"loss must be 'cross_entropy' or 'squared' for {self._count} classes, got 'exponential'")
        return loss

    def decision_function(self, X: ArrayLike) -> Float64:
        """Evaluate the outputs on X (n, D): (n,) of two classes, else (n, C), float64."""
        points = self._points(X)
        return self.network_.decision_function(points, num_threads=self.num_threads)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict labels from ``classes_`` for X (n, D)."""
        points = self._points(X)
        found = self.network_.predict(points, num_threads=self.num_threads)
        return self.classes_[np.searchsorted(self.network_.classes, found)]  # both are sorted

    def _probable(self) -> bool:
        """Whether outputs are logarithms of odds; else there is no ``predict_proba``."""
        return self.loss in _PROBABLE

    @available_if(_probable)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: ArrayLike) -> Float64:
        """Probabilities of the classes at X (n, D), shape (n, C); with the cross-entropy alone, which makes them so."""
        outputs = self.decision_function(X)
        if outputs.ndim == 1:
            outputs = np.column_stack([np.zeros(len(outputs)), outputs])
        shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))


class TwoLayerRegressor(RegressorMixin, _TwoLayerEstimator):  # type: ignore[misc]
    """A two-layer network as a regressor of scikit-learn, with the squared loss, of one number a point or several.

    Data and targets should be standardised, for instance by ``StandardScaler`` and ``TransformedTargetRegressor``.

    Parameters
    ----------
    p : float, default 1
        Degree, as in ``TwoLayerNetwork``. That of the classifier is 3; between points, and away from them, a regressor
        of high degree swings far.
    width, activation, scale, kind, normalize_input, method, step, batch, epochs, steps, t1, weight_decay, \
fit_intercept, dtype, random_state, num_threads
        As in ``TwoLayerClassifier``.

    Attributes
    ----------
    network_, run_, n_features_in_, feature_names_in_
        As in ``TwoLayerClassifier``; ``network_.classes`` mean nothing.

    Examples
    --------
    >>> from preluflow.sklearn import TwoLayerRegressor
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> model = TwoLayerRegressor(width=20, step=0.02, epochs=300, random_state=0).fit(X, abs(X[:, 0]))
    >>> round(float(model.score(X, abs(X[:, 0]))), 1)
    1.0
    """

    def __init__(
        self,
        width: int = 100,
        *,
        p: float = 1.0,
        activation: Activation = "prelu",
        scale: float = 0.1,
        kind: Kind = "balanced",
        normalize_input: bool = False,
        method: Training = "adam",
        step: float | None = None,
        batch: int | None = None,
        epochs: int = 200,
        steps: int = 1000,
        t1: float = 50.0,
        weight_decay: float = 0.0,
        fit_intercept: bool = True,
        dtype: DTypeLike | None = None,
        random_state: Any = None,
        num_threads: int | None = None,
    ) -> None:
        self.width = width
        self.p = p
        self.activation = activation
        self.scale = scale
        self.kind = kind
        self.normalize_input = normalize_input
        self.method = method
        self.step = step
        self.batch = batch
        self.epochs = epochs
        self.steps = steps
        self.t1 = t1
        self.weight_decay = weight_decay
        self.fit_intercept = fit_intercept
        self.dtype = dtype
        self.random_state = random_state
        self.num_threads = num_threads

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> TwoLayerRegressor:
        """Train a network.

        Parameters
        ----------
        X : array, shape (n, D)
            Data.
        y : array, shape (n,) or (n, C)
            Numbers to be met.
        sample_weight : array, shape (n,), optional
            Weights of the points, at least 0; only their ratios matter. A point of weight 0 is as good as none.

        Returns
        -------
        TwoLayerRegressor
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            For bad input or parameters, before any work.

        Warns
        -----
        ConvergenceWarning
            If training does not reach its end; what was learned until then is kept.
        """
        self._check_parameters()
        options = {"dtype": self._floats(), "order": "C", "multi_output": True, "y_numeric": True}
        data, targets = validate_data(self, X, y, **options)
        data, targets, weight = _weighted(data, targets, sample_weight)
        if targets.ndim == 2 and targets.shape[1] == 1:
            targets = targets[:, 0]
        rng = _generator(self.random_state)
        start = self._start(data, 1 if targets.ndim == 1 else targets.shape[1], rng)
        # A column: two integers, as they may come, are no labels here.
        self._fit(data, targets[:, None] if targets.ndim == 1 else targets, weight, start, rng)
        return self

    def _training_loss(self) -> TrainingLoss:
        return "squared"

    def predict(self, X: ArrayLike) -> Float64:
        """Evaluate the network on X (n, D); returns (n,) or (n, C), float64."""
        points = self._points(X)
        return self.network_.decision_function(points, num_threads=self.num_threads)

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that there may be several targets."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


@dataclass(frozen=True)
class _CertifiedAccuracy:
    """A scorer, as ``certified_accuracy`` makes it."""

    eps: float
    level: Level
    num_threads: int | None

    def __call__(self, estimator: Any, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Share of the points, by weight, that provably survive every perturbation of length <= eps."""
        radius = robust_radius(estimator, X, y, self.level, num_threads=self.num_threads)
        survives = radius.correct & (radius.lower >= self.eps)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        return float(np.average(survives, weights=weight))


def certified_accuracy(eps: float, level: Level = "fast", *, num_threads: int | None = None) -> _CertifiedAccuracy:
    """Make a scorer ``score(estimator, X, y)``: the certified l2 robust accuracy at radius eps.

    To be given as ``scoring`` to ``GridSearchCV`` or ``cross_val_score``, for every estimator or pipeline that
    ``robust_radius`` takes; eps is in the coordinates of X as the pipeline is given it.

    Parameters
    ----------
    eps : float
        Radius, at least 0; at 0 it is the accuracy.
    level : {"fast", "tight", "exact"}, default "fast"
        Effort of the certificate, as in ``robust_radius``.
    num_threads : int, optional
        All cores by default; 1 where a search runs several jobs.

    Returns
    -------
    callable
        Takes a fitted estimator, X (n, D), y (n,) and perhaps ``sample_weight``, returns a number from 0 to 1.

    Raises
    ------
    ValueError, TypeError
        For bad input.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> from preluflow.sklearn import TwoLayerClassifier, certified_accuracy
    >>> model = TwoLayerClassifier(width=20, p=1, epochs=100, random_state=0).fit(data.X, data.y)
    >>> certified_accuracy(eps=0.1)(model, data.X, data.y)
    1.0
    """
    radius = _arrays.real(eps, "eps", minimum=0.0)
    word = _arrays.choice(level, "level", LEVELS)
    if num_threads is not None:
        num_threads = _arrays.integer(num_threads, "num_threads", minimum=1, maximum=None)
    return _CertifiedAccuracy(radius, word, num_threads)


def _generator(random_state: Any) -> np.random.Generator:
    """Generator from what scikit-learn takes, or from NumPy's own, which is used as it is."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    try:
        source = check_random_state(random_state)
    except ValueError:
        came = _arrays.shown(random_state)
        raise ValueError(f"random_state must be None, an integer, a RandomState or a Generator, got {came}") from None
    seeds = source.randint(np.iinfo(np.int32).max, size=4)
    return np.random.default_rng(seeds.tolist())


def _weighted(X: Float, y: NDArray[Any], sample_weight: ArrayLike | None) -> tuple[Float, NDArray[Any], Float64 | None]:
    """Points of positive weight, and their weights; None where none are given."""
    if sample_weight is None:
        return X, y, None
    weight = np.asarray(_check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True))
    if not weight.any():
        raise ValueError("sample_weight must not be zero everywhere")
    counts = weight > 0.0
    return (X, y, weight) if counts.all() else (X[counts], y[counts], weight[counts])
