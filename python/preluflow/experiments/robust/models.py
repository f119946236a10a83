"""Classifiers of Figures 2 and 7 of MV25, trained here: what each is, its recipe, and its restriction to a subspace.

Every classifier here sees x through its inner products with few vectors: input weights, or centres. Shortest
perturbations and gradients lie in their span, so all that is asked of robustness is asked of the restriction to that
span (and the centres', for attacks that start there): the same radii, in at most h + K dimensions instead of D.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import attacks, typing
from preluflow._recipes import MV24_BATCH
from preluflow.classifiers import Bayes, Linear, fit_linear
from preluflow.data import Dataset, OrthonormalGMM
from preluflow.events import Event
from preluflow.experiments._harness import completed, every_point
from preluflow.flow import gradient_flow
from preluflow.initialization import initialize
from preluflow.margins import robust_radius
from preluflow.network import TwoLayerNetwork, mean_loss
from preluflow.observe import Observe
from preluflow.train import sgd
from preluflow.typing import Activation, Kind, Level, Loss, Method

Array = NDArray[np.float64]

# Steps are stated for the exponential loss. At f = 0 the logistic one has half its gradient; the squared one, twice it,
# has a curvature that does not fall as points are fitted.
LOSS_STEP = {"exponential": 1.0, "logistic": 2.0, "squared": 0.2}


@dataclass(frozen=True)
class Recipe:
    """A classifier and how it is trained.

    Attributes
    ----------
    key, label : str
        Its name in an outcome's arrays, and in figure and table.
    kind : {"bayes", "flow", "sgd", "linear", "mlp"}
    activation, p, init, scale
        Of a two-layer network and its start, as in ``initialize``.
    step : float
        Of SGD on the exponential loss; for the others times ``LOSS_STEP``.
    loss : str or None
        Its own, whatever the user says; None means what all are trained with.
    epochs : int
        At most so many, unless the user says otherwise.
    level : str
        Effort of the certificate, as in ``robust_radius``.
    """

    key: str
    label: str
    kind: str = "sgd"
    activation: Activation = "prelu"
    p: float = 3.0
    init: Kind = "balanced"
    scale: float = 1e-7
    step: float = 1.0
    loss: Loss | None = None
    epochs: int = 60
    level: Level = "fast"

    @property
    def certified(self) -> bool:
        """Whether there is a certificate; else attacked only."""
        return self.kind != "mlp"

    @property
    def attacked_by_pgd(self) -> bool:
        """Whether the papers' PGD is run: not where the radius is known in closed form."""
        return self.kind not in ("bayes", "linear")

    def step_of(self, loss: Loss) -> float:
        """Step of SGD on that loss."""
        return self.step * LOSS_STEP[self.loss or loss]

    def start(self) -> str:
        """Say how it was initialised."""
        if self.kind == "linear":
            return "from w = 0"
        if self.kind == "mlp":
            return "entries U(-1, 1)/sqrt(fan-in)"
        return f"epsilon {self.scale:g}, balanced" if self.init == "balanced" else f"N(0, {self.scale:g}^2)"


@dataclass(frozen=True)
class Training:
    """How to train, for all models alike.

    ``flow_time``: length of the flow, in units of K; the flow is that of the squared loss, by ``flow_method`` at
    ``flow_rtol``. ``epochs``: at most so many, the recipes' own if None.
    """

    width: int = 200
    batch: int = 100
    loss: Loss = "exponential"
    epochs: int | None = None
    flow_time: float = 12.0
    flow_method: Method = "bosh3"
    flow_rtol: float = 1e-2


@dataclass(frozen=True)
class Model:
    """A trained classifier, restricted to a subspace.

    ``basis``: (D, m), orthonormal columns; the classifier takes X @ basis. ``facts``: accuracy and mean loss on the
    training points, and epochs (of the flow: gradients); NaN what does not apply.
    """

    classifier: Any
    basis: Array
    facts: Mapping[str, float] = field(default_factory=dict)


class Diverged(Exception):
    """SGD ended in numbers that are not finite."""


class Settled:
    """The papers' rule for the end of training: training accuracy 1, loss changed by less than 1% in the last tenth.

    1% of the loss at the start, as in ``fit_linear``: on separable data the exponential and the logistic loss fall like
    1/t for ever, by a tenth of themselves in that time. Nor before 10 epochs, or before the loss is below 1/(2K) of
    that at the start: a cluster whose neurons have not grown yet keeps it above 1/K, and no accuracy tells, as f may be
    tiny of the right sign.
    """

    def __init__(self, loss: Loss, clusters: int) -> None:
        self.loss = loss
        self.clusters = clusters
        self.losses: list[float] = []
        self.accuracy = np.nan

    def after_epoch(self, y: Array, f: Array) -> bool:
        """Take the outputs at the start, then after every epoch; whether training is at its end."""
        self.losses.append(mean_loss(self.loss, y, f))
        self.accuracy = float(np.mean(y * f > 0))
        epoch, first, last = len(self.losses) - 1, self.losses[0], self.losses[-1]
        still = abs(last - self.losses[epoch - epoch // 10]) < 0.01 * first
        return epoch >= 10 and self.accuracy == 1.0 and still and last < first / (2 * self.clusters)

    @property
    def event(self) -> Event:
        """The rule as the end of a run."""
        return Event("settled", lambda at: 1.0 if self.after_epoch(at.y, at.outputs) else -1.0, terminal=True)

    def facts(self) -> dict[str, float]:
        """Where training ended."""
        return {"accuracy": self.accuracy, "loss": self.losses[-1], "length": float(len(self.losses) - 1)}


def has_torch() -> bool:
    """Whether torch can be imported."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def train(recipe: Recipe, how: Training, gmm: OrthonormalGMM, data: Dataset, rng: np.random.Generator) -> Model:
    """Train a classifier on the data; Ctrl-C goes up, and ``Diverged``."""
    if recipe.kind == "bayes":
        # In the coordinates <x,mu_k> the rate D/alpha^2 is K/(alpha^2 K/D).
        alpha = gmm.alpha * (gmm.clusters / gmm.dim) ** 0.5
        inner = OrthonormalGMM(gmm.clusters, gmm.positive, gmm.negative, alpha, centers="canonical")
        return Model(Bayes(inner), gmm.centers.T)
    if recipe.kind == "linear":
        return _linear(recipe, how, gmm, data, rng)
    if recipe.kind == "mlp":
        return _mlp(recipe, how, gmm, data, rng)
    rng_start, rng_order = rng.spawn(2)
    network = initialize(
        how.width, gmm.dim, recipe.scale, kind=recipe.init, p=recipe.p, activation=recipe.activation, rng=rng_start
    )
    grow = _flow if recipe.kind == "flow" else partial(_sgd, rng=rng_order)
    network, facts = grow(recipe, how, gmm, data, network)
    basis = span(gmm, network.directions)
    inside = network.directions.astype(np.float64) @ basis
    return Model(network.astype("float64").replace(U=inside), basis, facts)


def span(gmm: OrthonormalGMM, vectors: ArrayLike) -> Array:
    """Orthonormal basis (D, m) of the span of the centres and the vectors (k, D)."""
    return np.asarray(np.linalg.qr(np.concatenate([gmm.centers, np.asarray(vectors, dtype=np.float64)]).T)[0])


def _flow(
    recipe: Recipe, how: Training, gmm: OrthonormalGMM, data: Dataset, network: TwoLayerNetwork
) -> tuple[TwoLayerNetwork, dict[str, float]]:
    run = completed(
        gradient_flow(
            network,
            data.X,
            data.y,
            t1=how.flow_time * gmm.clusters,
            method=how.flow_method,
            rtol=how.flow_rtol,
        )
    )
    facts = {"accuracy": run["accuracy"][-1], "loss": run["loss"][-1], "length": run.stats["gradients"]}
    return run.network, {name: float(value) for name, value in facts.items()}


def _sgd(
    recipe: Recipe,
    how: Training,
    gmm: OrthonormalGMM,
    data: Dataset,
    network: TwoLayerNetwork,
    rng: np.random.Generator,
) -> tuple[TwoLayerNetwork, dict[str, float]]:
    settled = Settled(how.loss, gmm.clusters)
    run = completed(
        sgd(
            network,
            data.X,
            data.y,
            step=recipe.step_of(how.loss),
            batch=how.batch,
            epochs=how.epochs or recipe.epochs,
            loss=how.loss,
            rng=rng,
            events=[settled.event],
            observe=Observe(what=()),
        )
    )
    if run.status not in ("finished", "event"):
        raise Diverged(f"{run.message}; its step is {recipe.step_of(how.loss):g}")
    return run.network, settled.facts()


def _linear(recipe: Recipe, how: Training, gmm: OrthonormalGMM, data: Dataset, rng: np.random.Generator) -> Model:
    epochs, loss = how.epochs or recipe.epochs, recipe.loss or how.loss
    step = recipe.step_of(loss)
    try:
        fitted = fit_linear(
            data.X, data.y, loss=loss, step=step, batch=how.batch, epochs=epochs, rng=rng, until_settled=True
        )
    except ValueError as error:
        if "stay finite" not in str(error):
            raise
        raise Diverged(str(error)) from None
    f, y = fitted.decision_function(data.X), data.y.astype(np.float64)
    facts = {"accuracy": float(np.mean(y * f > 0)), "loss": mean_loss(loss, y, f), "length": np.nan}
    basis = span(gmm, fitted.w[None, :])
    return Model(Linear(fitted.w @ basis), basis, facts)


def _mlp(recipe: Recipe, how: Training, gmm: OrthonormalGMM, data: Dataset, rng: np.random.Generator) -> Model:
    """Train four layers of ReLUs without biases by torch; the first layer is then restricted to its span."""
    import torch

    losses: dict[str, Callable[[Any], Any]] = {
        "exponential": lambda margin: torch.exp(-margin),
        "logistic": lambda margin: torch.nn.functional.softplus(-margin),
        "squared": lambda margin: (1.0 - margin) ** 2,
    }
    sizes = [gmm.dim, how.width, how.width, how.width, 1]
    weights = []
    for fan_in, fan_out in pairwise(sizes):
        start = rng.uniform(-1.0, 1.0, (fan_out, fan_in)) / np.sqrt(fan_in)
        weights.append(torch.tensor(start, dtype=torch.float32, requires_grad=True))

    def forward(x: Any) -> Any:
        for weight in weights[:-1]:
            x = torch.relu(x @ weight.T)
        return (x @ weights[-1].T)[:, 0]

    X, y = torch.from_numpy(data.X), torch.from_numpy(data.y)
    target, step = data.y.astype(np.float64), recipe.step_of(how.loss)

    def outputs() -> Array:
        with torch.no_grad():
            return np.asarray(forward(X).double().numpy())

    settled = Settled(how.loss, gmm.clusters)
    settled.after_epoch(target, outputs())
    for _ in range(how.epochs or recipe.epochs):
        order = torch.from_numpy(rng.permutation(len(y)))
        for first in range(0, len(y), how.batch):
            rows = order[first : first + how.batch]
            gradients = torch.autograd.grad(losses[how.loss](y[rows] * forward(X[rows])).mean(), weights)
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight -= step * gradient
        f = outputs()
        if not np.isfinite(f).all():
            raise Diverged(f"outputs are not finite; its step is {step:g}")
        if settled.after_epoch(target, f):
            break
    final = [weight.detach().double().numpy() for weight in weights]
    basis = span(gmm, final[0])
    return Model(Layers([final[0] @ basis, *final[1:]]), basis, settled.facts())


class Layers:
    """f(x) = W_L relu(... relu(W_1 x)) in NumPy, float64: what torch trained, without its threads in the attacks' way.

    Parameters
    ----------
    weights : list of ndarray
        W_1 (h, m), ..., W_L (1, h).
    """

    def __init__(self, weights: list[Array]) -> None:
        self.weights = weights

    def decision_function(self, X: ArrayLike) -> Array:
        """Evaluate f on X (n, m); returns (n,)."""
        return self._forward(X)[-1][:, 0]

    def input_gradient(self, X: ArrayLike) -> Array:
        """Gradient of f in x at each row of X (n, m); returns (n, m)."""
        return self.value_and_input_gradient(X)[1]

    def value_and_input_gradient(self, X: ArrayLike) -> tuple[Array, Array]:
        """Return f (n,) and its gradient in x (n, m), in one pass."""
        *hidden, value = self._forward(X)
        gradient = np.ones_like(value)
        for weight, z in zip(self.weights[:0:-1], hidden[::-1], strict=True):
            gradient = (gradient @ weight) * (z > 0)
        return value[:, 0], gradient @ self.weights[0]

    def _forward(self, X: ArrayLike) -> list[Array]:
        """Values of every layer before its ReLU, (n, h) and at last (n, 1)."""
        values = [np.asarray(X, dtype=np.float64) @ self.weights[0].T]
        for weight in self.weights[1:]:
            values.append(np.maximum(values[-1], 0.0) @ weight.T)
        return values


# ---- what is measured of a model

WRONG = -1.0  # radius of a point that is misclassified to begin with


def radii(model: Model, recipe: Recipe, gmm: OrthonormalGMM, test: Dataset) -> Array:
    """Certified and attacked radius of every test point, (2, n); ``WRONG`` where it is misclassified."""
    inside = test.X.astype(np.float64) @ model.basis
    centers = OrthonormalGMM(
        model.basis.shape[1], gmm.positive, gmm.negative, gmm.alpha, centers=gmm.centers @ model.basis
    )
    found = robust_radius(model.classifier, inside, test.y, recipe.level, gmm=centers)
    every_point(found, len(inside))
    return np.where(found.correct, np.stack([found.lower, found.upper]), WRONG)


def pgd_accuracy(model: Model, test: Dataset, eps: ArrayLike, steps: int, search: typing.Recipe | None = None) -> Array:
    """Accuracy left by the papers' PGD at ascending radii, (R,), on the given points.

    What is broken within a ball counts as broken within larger ones and is not attacked again. Not so by a recipe,
    ``search``, whose authors attack every point at every radius anew.
    """
    inside, y = test.X.astype(np.float64) @ model.basis, test.y
    alive = np.flatnonzero(y * model.classifier.decision_function(inside) > 0)
    left = []
    for radius in np.asarray(eps, dtype=np.float64):
        if radius > 0 and search is not None:
            found = attacks.pgd(
                model.classifier, inside, y, eps=float(radius), steps=steps, recipe=search, batch=MV24_BATCH
            )
            alive = np.flatnonzero(~found.success)
        elif radius > 0 and alive.size:
            found = attacks.pgd(model.classifier, inside[alive], y[alive], eps=float(radius), steps=steps)
            alive = alive[~found.success]
        left.append(len(alive) / len(y))
    return np.array(left)


def accuracy(values: Array, eps: ArrayLike, *, attacked: bool) -> Array:
    """Share of points whose radius, (..., n), is at least ``eps`` (attacked: above it), shape (..., R).

    As ``RobustRadius.accuracy``: certified within the closed ball, and not broken in it.
    """
    at = np.asarray(eps, dtype=np.float64)
    flat = np.sort(values.reshape(-1, values.shape[-1]), axis=1)
    counts = [np.searchsorted(row, at, side="right" if attacked else "left") for row in flat]
    return np.reshape(1.0 - np.array(counts) / values.shape[-1], values.shape[:-1] + at.shape)
