"""What is looked at along a run, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays
from preluflow._arrays import Float, Float64
from preluflow._lazy import lazy
from preluflow._targets import Targets
from preluflow.data import OrthonormalGMM
from preluflow.distance import distance_bracket, distance_estimate, estimator_options
from preluflow.initialization import VOID, center_cosines, voronoi_regions
from preluflow.network import TwoLayerNetwork, require_plain

_ESTIMATOR = ("batch", "steps", "step_size", "rng", "recipe", "batches", "scale")
DEFAULT = ("loss", "accuracy")  # told from what a user asked for by its identity
_MOST_STOPS = 10_000_000  # of a run: what is recorded there is kept in memory


@dataclass
class Snapshot:
    """A run at one of its stops: what an observer is given.

    Attributes
    ----------
    iteration, t : int, float
        Where the run stands.
    network, start : TwoLayerNetwork
        Now and at the beginning.
    evaluate : callable
        Returns ``loss`` and ``outputs`` below; called once, if at all.
    X, y : ndarray
        The training data, (n, D) and (n,): -1 and +1 of one output, indices of classes of several; or the numbers to
        be met, (n,) or (n, C).
    gmm : OrthonormalGMM or None
        The mixture given to ``Observe``.
    observe : Observe
        The request, with its options.
    num_threads : int
    targets : Targets, optional
        (X, y)'s y as the core has it; by default labels -1 and +1.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> def look(at):
    ...     return {"time": at.t, "grown": float(at.network.norms.max() / at.start.norms.max())}
    >>> run = pf.gradient_flow(net, data.X, data.y, t1=30, observe=pf.Observe(at=[10.0], what=[look]))
    >>> run["time"].tolist(), bool(run["grown"][-1] > 100)
    ([0.0, 10.0, 30.0], True)
    """

    iteration: int
    t: float
    network: TwoLayerNetwork
    start: TwoLayerNetwork
    evaluate: Callable[[], tuple[float, Float64]]
    X: Float
    y: NDArray[Any]
    observe: Observe
    num_threads: int
    targets: Targets | None = None

    @lazy
    def evaluated(self) -> tuple[float, Float64]:
        """Loss and outputs. For descent they come with the gradient the next step uses; for SGD they cost a pass."""
        return self.evaluate()

    @property
    def loss(self) -> float:
        """Mean loss over (X, y), as training sees it."""
        return self.evaluated[0]

    @property
    def outputs(self) -> Float64:
        """f(x_i), shape (n,), or F(x_i), shape (n, C), float64."""
        return self.evaluated[1]

    def margins(self, outputs: Float64) -> Float64:
        """Y f of outputs (n,), or the output of the point's class less the largest of the others, (n,)."""
        return np.asarray(self.y * outputs) if self.targets is None else self.targets.margins(outputs)

    @property
    def gmm(self) -> OrthonormalGMM:
        """The mixture given to ``Observe``; ValueError if there was none."""
        if self.observe.gmm is None:
            raise ValueError("this observer needs Observe(gmm=...)")
        return self.observe.gmm

    @lazy
    def scaled_margins(self) -> tuple[Float64, float]:
        """(g, m): margins e^m g, g of ordinary size, so that signs survive where outputs underflow float64.

        A margin is y f, or the output of the point's class less the largest of the others.
        """
        m = self.network._log_largest()
        if np.isneginf(m):  # f is 0
            m = 0.0
        if m > -600.0:  # f itself will do, and no network need be made
            return self.margins(self.outputs) * np.exp(-m), m
        scaled, m = self.network.rescaled()
        return self.margins(scaled.decision_function(self.X, num_threads=self.num_threads)), m


def _alignment(at: Snapshot) -> dict[str, Any]:
    cosine = center_cosines(at.network, at.gmm).max(axis=1)
    return {"alignment": cosine, "alignment_quartiles": np.quantile(cosine, (0.25, 0.5, 0.75))}


def _cluster_norms(at: Snapshot) -> dict[str, Any]:
    region, squares = voronoi_regions(at.network, at.gmm), at.network.norms**2
    sums = [squares[region == k].sum() for k in range(at.gmm.clusters)]
    return {"cluster_norms": np.array(sums), "void_norm": squares[region == VOID].sum()}


def _cluster_alignment(at: Snapshot) -> dict[str, Any]:
    region, cosines = voronoi_regions(at.network, at.gmm), center_cosines(at.network, at.gmm)
    means = np.zeros(at.gmm.clusters)
    for k in range(at.gmm.clusters):
        mine = np.flatnonzero(region == k)
        if mine.size:
            weights = np.exp(2.0 * (at.network.log_norm[mine] - at.network.log_norm[mine].max()))
            means[k] = weights @ cosines[mine, k] / weights.sum()
    return {"cluster_alignment": means}


def _conserved(network: TwoLayerNetwork) -> Float64:
    """What the flow conserves of each neuron: ||w||^2 - kappa |V|^2, with biases as weights of a constant input."""
    kappa = network.p if network.activation == "polynomial" else 1.0
    length = 1.0 if network.offsets is None else np.hypot(1.0, network.offsets)
    outer = (network.v.reshape(network.width, -1) ** 2).sum(axis=1)
    if network.activation == "prelu":
        outer = outer * length ** (2.0 * (network.p - 1.0))
    return np.asarray((network.norms * length) ** 2 - kappa * outer)


def _normalized_margin(at: Snapshot) -> dict[str, Any]:
    margins, m = at.scaled_margins
    return {"normalized_margin": margins.min() * np.exp(m - at.network.log_parameter_power)}


def _distance_bracket(at: Snapshot) -> dict[str, Any]:
    bracket = distance_bracket(at.network, at.gmm, num_threads=at.num_threads)
    return {"distance_lower": bracket.lower, "distance_upper": bracket.upper}


def _distance_estimate(at: Snapshot) -> dict[str, Any]:
    options = dict(at.observe.estimator)
    return {"distance_estimate": distance_estimate(at.network, at.gmm, num_threads=at.num_threads, **options)}


@dataclass(frozen=True)
class _Observer:
    records: Callable[[Snapshot], Mapping[str, Any]]
    needs_gmm: bool = False
    needs_homogeneous: bool = False  # refused for tanh
    needs_plain: bool = False
    needs_labels: bool = False


OBSERVERS: dict[str, _Observer] = {
    "loss": _Observer(lambda at: {"loss": at.loss}),
    "accuracy": _Observer(lambda at: {"accuracy": np.mean(at.scaled_margins[0] > 0)}, needs_labels=True),
    "alignment": _Observer(_alignment, needs_gmm=True, needs_plain=True),
    "cluster_norms": _Observer(_cluster_norms, needs_gmm=True, needs_plain=True),
    "cluster_alignment": _Observer(_cluster_alignment, needs_gmm=True, needs_plain=True),
    "target": _Observer(lambda at: {"target": voronoi_regions(at.network, at.gmm)}, needs_gmm=True, needs_plain=True),
    "norms": _Observer(lambda at: {"norms": at.network.norms, "v": at.network.v}),
    "balancedness_drift": _Observer(
        lambda at: {"balancedness_drift": np.abs(_conserved(at.network) - _conserved(at.start)).max()},
        needs_homogeneous=True,
    ),
    "margin": _Observer(lambda at: {"margin": np.min(at.margins(at.outputs))}, needs_labels=True),
    "normalized_margin": _Observer(_normalized_margin, needs_homogeneous=True, needs_plain=True, needs_labels=True),
    "distance_estimate": _Observer(_distance_estimate, needs_gmm=True, needs_homogeneous=True, needs_plain=True),
    "distance_bracket": _Observer(_distance_bracket, needs_gmm=True, needs_homogeneous=True, needs_plain=True),
}


@dataclass(frozen=True)
class Observe:
    """A request to look at a run at its stops.

    Parameters
    ----------
    every : int or float, optional
        Distance between stops: iterations for descent, epochs for SGD, time for the flow. The first and the last state
        are always stops.
    what : sequence of str or callable, default ("loss", "accuracy"), without labels ("loss",)
        Names below, or functions of a ``Snapshot`` that return a number, an array of fixed shape, or a dict of them
        (recorded under their keys, otherwise under the function's ``__name__``), or None at every stop, which records
        nothing. A function that raises ``StopIteration`` ends the run there, with status "stopped"; what it passes as
        ``StopIteration(value)`` is recorded as if returned, and the stop is left out where a value is missing.

        - ``"loss"``, ``"accuracy"`` (share of margins > 0), ``"margin"`` (the least; y f, of several outputs that of
          the point's class less the largest other);
        - ``"normalized_margin"``: min y f / ||theta||^2 (prelu) or / ||theta||^(p+1) (polynomial);
        - ``"alignment"``: max_k cos(mu_k, w_j), shape (h,), and ``"alignment_quartiles"``, shape (3,);
        - ``"cluster_norms"``: sum of ||w_j||^2 over the neurons whose nearest own-class centre is mu_k, shape (K,),
          and ``"void_norm"``, that of the neurons in the void region;
        - ``"cluster_alignment"``: mean of cos(mu_k, w_j) over the same neurons, weighted by ||w_j||^2, shape (K,);
        - ``"target"``: the cluster whose centre that is, -1 in the void region, shape (h,);
        - ``"norms"``: ||w_j||, shape (h,), and ``"v"``, shape (h,) or (h, C);
        - ``"balancedness_drift"``: max_j |change of ||w_j||^2 - ||V_j||^2| since the start (polynomial: - p ||V_j||^2),
          a bias counting as a weight of a constant input;
        - ``"distance_estimate"``: the paper's estimator of sup |f - F^(p)|;
        - ``"distance_bracket"``: recorded as ``"distance_lower"`` and ``"distance_upper"``.
    gmm : OrthonormalGMM, optional
        Needed by alignment, cluster norms and distances.
    at : sequence of int or float, optional
        Stops by name instead of, or besides, ``every``.
    estimator : dict, optional
        Keyword arguments of ``distance_estimate``: batch, steps, step_size, rng, recipe, batches, scale.
    networks : bool, default False
        Keep the network of every stop in ``run.networks``: h (D + 3) numbers each, refused where they do not fit.

    Raises
    ------
    ValueError, TypeError
        For an unknown name, or one whose needs are not met.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> def largest(at):  # an observer of one's own: of a Snapshot
    ...     return at.network.norms.max()
    >>> look = pf.Observe(every=10.0, what=["loss", "alignment", largest], gmm=gmm)
    >>> run = pf.gradient_flow(net, data.X, data.y, t1=30, observe=look)
    >>> {name: run[name].shape for name in run}
    {'loss': (4,), 'alignment': (4, 20), 'alignment_quartiles': (4, 3), 'largest': (4,)}
    """

    every: float | None = None
    what: Sequence[str | Callable[[Snapshot], Any]] = DEFAULT
    gmm: OrthonormalGMM | None = None
    at: ArrayLike | None = None
    estimator: Mapping[str, Any] = field(default_factory=dict)
    networks: bool = False

    def __post_init__(self) -> None:
        """Check the request."""
        if self.every is not None:
            _arrays.real(self.every, "every", above=0.0)
        if self.at is not None:
            _arrays.numbers_in(self.at, "at", minimum=0.0)
        if isinstance(self.what, (str, bytes)) or not isinstance(self.what, Sequence):
            raise TypeError(f"what must be a list of names and functions, got {_arrays.shown(self.what)}")
        if self.gmm is not None:
            _arrays.instance(self.gmm, "gmm", OrthonormalGMM)
        _arrays.instance(self.estimator, "estimator", Mapping)
        _arrays.flag(self.networks, "networks")
        unknown = [key for key in self.estimator if key not in _ESTIMATOR]
        if unknown:
            raise ValueError(f"estimator has unknown options {_arrays.shown(unknown)}; known: {', '.join(_ESTIMATOR)}")
        estimator_options(**self.estimator, of="estimator: ")
        for item in self.what:
            if callable(item):
                continue
            _arrays.choice(item, "what", OBSERVERS)
            if OBSERVERS[item].needs_gmm and self.gmm is None:
                raise ValueError(f"observing {item!r} needs gmm=...")

    def check(self, network: TwoLayerNetwork, labelled: bool = True) -> Observe:
        """Refuse what cannot be observed on this network; without labels the accuracy is left out of the default."""
        _arrays.instance(network, "network", TwoLayerNetwork)
        if self.gmm is not None and self.gmm.dim != network.dim:
            raise ValueError(f"gmm has dimension {self.gmm.dim} but the network has {network.dim}")
        for item in self.what:
            if callable(item):
                continue
            if OBSERVERS[item].needs_homogeneous:
                require_homogeneous(network, repr(item))
            if OBSERVERS[item].needs_plain:
                require_plain(network, f"observing {item!r}")
            if OBSERVERS[item].needs_labels and not labelled and self.what is not DEFAULT:
                raise ValueError(f"observing {item!r} needs labels, but y holds numbers to be met")
        return self if labelled or self.what is not DEFAULT else replace(self, what=("loss",))

    def stops(self, total: int, name: str) -> list[int]:
        """Return the counts, 0 .. total, at which a run stops; 0 and ``total`` are among them.

        ``name`` is what the caller's argument ``total`` is called ("steps", "epochs").
        """
        total = _arrays.integer(total, name, minimum=0)
        stops = {0, total}
        if self.every is not None:
            every = _arrays.integer(self.every, "every", minimum=1)
            self._require_few(total // every)
            stops.update(range(0, total + 1, every))
        if self.at is not None:
            for stop in np.atleast_1d(np.asarray(self.at)).tolist():
                value = _arrays.integer(stop, "at", minimum=0)
                if value > total:
                    raise ValueError(f"at must not exceed {name} = {total}, got {value}")
                stops.add(value)
        return sorted(stops)

    def times(self, t0: float, t1: float) -> list[float]:
        """Return the times, t0 .. t1, at which a flow is looked at; both ends are among them."""
        t0 = _arrays.real(t0, "t0")
        t1 = _arrays.real(t1, "t1")
        if t1 < t0:
            raise ValueError(f"t1 must be at least t0 = {t0:g}, got {t1:g}")
        stops = {t0, t1}
        if self.every is not None and t1 > t0:
            every = float(self.every)
            self._require_few((t1 - t0) / every)
            first, last = int(np.floor(t0 / every)), int(np.ceil(t1 / every))
            inner = (k * every for k in range(first, last + 1))
            # No stop a rounding away from either end.
            stops.update(t for t in inner if t0 + 1e-9 * every < t < t1 - 1e-9 * every)
        if self.at is not None:
            for stop in np.atleast_1d(np.asarray(self.at)).tolist():
                value = _arrays.real(stop, "at", minimum=t0)
                if value > t1:
                    raise ValueError(f"at must not exceed t1 = {t1:g}, got {value:g}")
                stops.add(value)
        return sorted(stops)

    def _require_few(self, count: float) -> None:
        """Refuse a distance of stops of which the run would have more than memory could keep."""
        if count > _MOST_STOPS:
            raise ValueError(f"every must be so large that a run has at most {_MOST_STOPS} stops, got {self.every!r}")


def require_homogeneous(network: TwoLayerNetwork, what: str) -> None:
    """Refuse a tanh network for what is not defined for it."""
    if network.activation == "tanh":
        raise ValueError(f"{what} is defined for 'prelu' and 'polynomial' networks, not for 'tanh'")


class ObserverError(Exception):
    """A user's observer failed after the first stop; the run up to there is kept."""


class Stop(NamedTuple):
    """A stop, and what was found there; the network if it is kept."""

    iteration: int
    t: float
    found: dict[str, NDArray[Any]]
    network: TwoLayerNetwork | None


class Recorder:
    """Collects what the observers find, stop by stop; ``like``: records (S, ...) that these are to continue."""

    def __init__(self, observe: Observe, like: Mapping[str, NDArray[Any]] | None = None) -> None:
        self.observe = observe
        self.like = like
        self.stops: list[Stop] = []

    def record(self, snapshot: Snapshot, more: Mapping[str, Any]) -> str | None:
        """Run every observer; a stop is recorded whole, with ``more`` beside it, or not at all.

        Returns the name of the observer that asked for the end of the run, if one did.
        """
        found = {name: np.asarray(value) for name, value in more.items()}
        stopped = None
        for item in self.observe.what:
            values, ends = self._call(item, snapshot)
            stopped = _name(item) if ends else stopped
            for name, value in values.items():
                if name in found:
                    problem = f"two observers record {name!r}; give functions different names"
                    raise ObserverError(problem) if self.stops else ValueError(problem)
                found[name] = np.asarray(value)
        if stopped is not None and self.stops and set(found) < set(self.stops[0].found):
            return stopped
        self._check(found)
        network = snapshot.network if self.observe.networks else None
        # one append: Ctrl-C cannot split a stop
        self.stops.append(Stop(snapshot.iteration, snapshot.t, found, network))
        return stopped

    def _call(self, item: str | Callable[[Snapshot], Any], snapshot: Snapshot) -> tuple[Mapping[str, Any], bool]:
        """What an observer finds, and whether it asked for the end of the run."""
        function = item if callable(item) else OBSERVERS[item].records
        name, ends = _name(item), False
        try:
            value = function(snapshot)
        except StopIteration as stop:
            value, ends = stop.value, True
        except Exception as error:
            if not self.stops:
                raise  # at the very start nothing is lost by raising
            raise ObserverError(f"observer {name} raised {type(error).__name__}: {error}") from error
        if value is None and callable(item):
            return {}, ends
        return value if isinstance(value, Mapping) else {name: value}, ends

    def _check(self, found: Mapping[str, NDArray[Any]]) -> None:
        first = self.stops[0].found if self.stops else None
        problem = None
        for name, value in found.items():
            if value.dtype.kind not in "fiub":
                problem = f"observer {name} must return real numbers, got dtype {value.dtype}"
            elif first is not None and (name not in first or first[name].shape != value.shape):
                problem = f"observer {name} returned shape {value.shape}, unlike at the first stop"
        if first is not None and set(found) != set(first):
            problem = f"observers returned {sorted(found)}, at the first stop {sorted(first)}"
        if first is None and self.like is not None and problem is None:
            problem = self._unlike(found)
        if problem is not None:
            raise TypeError(problem) if first is None else ObserverError(problem)

    def _unlike(self, found: Mapping[str, NDArray[Any]]) -> str | None:
        """What keeps the records of an earlier run from being continued by these."""
        before = {name: values.shape[1:] for name, values in (self.like or {}).items()}
        after = {name: value.shape for name, value in found.items()}
        if before == after:
            return None
        return f"join needs the records of the run that is continued, {before}, but observe gives {after}"

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return each record stacked over the stops, (S, ...)."""
        names = self.stops[0].found if self.stops else {}
        return {name: np.stack([stop.found[name] for stop in self.stops]) for name in names}

    def networks(self) -> tuple[TwoLayerNetwork, ...]:
        """Return the networks that were kept."""
        return tuple(stop.network for stop in self.stops if stop.network is not None)


def _name(item: str | Callable[..., Any]) -> str:
    return item if isinstance(item, str) else str(getattr(item, "__name__", type(item).__name__))
