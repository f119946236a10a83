"""Events of a run: moments worth marking, or stopping at.

Each of the functions below makes an ``Event`` for the ``events`` of ``gradient_flow``, ``gradient_descent`` or ``sgd``.
The times at which it happened are in ``run.events[name]``; with ``terminal=True`` the run ends at the first. A flow is
searched between the ends of its steps; descent is looked at after every iteration, SGD after every epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from preluflow import _arrays
from preluflow.initialization import own_class_cosines
from preluflow.observe import OBSERVERS, Snapshot


@dataclass(frozen=True)
class Event:
    """Something that happens when a function of the run crosses zero from below.

    Parameters
    ----------
    name : str
        What its times are kept under in ``run.events``.
    value : callable
        Takes a ``Snapshot``, returns a number: negative before, zero or more once it has happened.
    terminal : bool, default False
        Whether the run ends there.
    needs_gmm : bool, default False
        Whether ``value`` uses ``snapshot.gmm``, so that ``Observe(gmm=...)`` must be given.
    needs_homogeneous : bool, default False
        Whether ``value`` is not defined for tanh networks.
    needs_labels : bool, default False
        Whether ``value`` is not defined where y holds numbers to be met.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> grown = pf.Event("grown", lambda at: at.network.norms.max() - 0.1, terminal=True)
    >>> run = pf.gradient_flow(net, data.X, data.y, t1=100, events=[grown])
    >>> round(float(run.network.norms.max()), 2), len(run.events["grown"])
    (0.1, 1)
    """

    name: str
    value: Callable[[Snapshot], float]
    terminal: bool = False
    needs_gmm: bool = False
    needs_homogeneous: bool = False
    needs_labels: bool = False

    def __post_init__(self) -> None:
        """Check the request."""
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"name must be a word, got {_arrays.shown(self.name)}")
        if not callable(self.value):
            raise TypeError(f"value must be a function of a Snapshot, got {_arrays.shown(self.value)}")
        for name in ("terminal", "needs_gmm", "needs_homogeneous", "needs_labels"):
            _arrays.flag(getattr(self, name), name)


def loss_below(level: float, *, terminal: bool = False) -> Event:
    """The training loss falls to ``level``.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> run = pf.gradient_flow(net, data.X, data.y, t1=100, events=[pf.events.loss_below(0.5, terminal=True)])
    >>> run["loss"][-1].round(2).tolist()
    0.5
    """
    level = _arrays.real(level, "level", above=0.0)
    return Event(f"loss_below_{level:g}", lambda at: level - at.loss, terminal)


def accuracy_reached(level: float = 1.0, *, terminal: bool = False) -> Event:
    """The training accuracy rises to ``level``, in (0, 1].

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> done = pf.events.accuracy_reached(1.0, terminal=True)
    >>> pf.gradient_descent(net, data.X, data.y, step=0.2, steps=500, events=[done])["accuracy"][-1].tolist()
    1.0
    """
    level = _arrays.real(level, "level", above=0.0, maximum=1.0)

    def value(at: Snapshot) -> float:
        return float(np.mean(at.scaled_margins[0] > 0)) - level

    return Event(f"accuracy_reached_{level:g}", value, terminal, needs_labels=True)


def aligned(tau: float, *, terminal: bool = False) -> Event:
    """Every neuron outside the void region has a cosine of at least 1 - ``tau`` with a centre of its own class.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> net = pf.initialize(20, 20, 1e-7, nudge=0.3, centers=gmm, dtype="float64", rng=2)
    >>> look = pf.Observe(every=5.0, what=["loss"], gmm=gmm)
    >>> event = pf.events.aligned(0.05)
    >>> run = pf.gradient_flow(net, gmm.centers, gmm.labels, t1=20, observe=look, events=[event])
    >>> event.name, len(run.events[event.name])
    ('aligned_0.05', 1)
    """
    tau = _arrays.real(tau, "tau", above=0.0)

    def value(at: Snapshot) -> float:
        cosines = own_class_cosines(at.network, at.gmm).max(axis=1)
        return float(cosines[cosines > 0].min(initial=1.0)) - (1.0 - tau)

    return Event(f"aligned_{tau:g}", value, terminal, needs_gmm=True)


def clusters_fitted(tau: float, *, terminal: bool = False) -> Event:
    """The squared norms of the neurons of every cluster add up to 1 within ``tau`` (balanced pReLU: Z_k = 1).

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> fitted = pf.events.clusters_fitted(0.1, terminal=True)
    >>> look = pf.Observe(every=10.0, what=["loss", "cluster_norms"], gmm=gmm)
    >>> run = pf.gradient_flow(net, data.X, data.y, t1=100, observe=look, events=[fitted])
    >>> round(float(abs(run["cluster_norms"][-1] - 1).max()), 2)
    0.1
    """
    tau = _arrays.real(tau, "tau", above=0.0)

    def value(at: Snapshot) -> float:
        sums = OBSERVERS["cluster_norms"].records(at)["cluster_norms"]
        return tau - float(np.abs(sums - 1.0).max())

    return Event(f"clusters_fitted_{tau:g}", value, terminal, needs_gmm=True)


def normalized_margin_reached(level: float, *, terminal: bool = False) -> Event:
    """The normalised margin, min y f / ||theta||^2 (polynomial: ^(p+1)), rises to ``level``.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(40, balanced=True, dtype="float64", rng=1)
    >>> net = pf.initialize(width=20, scale=1e-3, like=data.X, p=3, rng=2)
    >>> wide = pf.events.normalized_margin_reached(0.1, terminal=True)
    >>> run = pf.gradient_flow(net, data.X, data.y, t1=1e4, loss="exponential", events=[wide])
    >>> round(float(pf.normalized_margins(run.network, data.X, data.y).min()), 3)
    0.1
    """
    level = _arrays.real(level, "level")

    def value(at: Snapshot) -> float:
        return float(OBSERVERS["normalized_margin"].records(at)["normalized_margin"]) - level

    return Event(f"normalized_margin_reached_{level:g}", value, terminal, needs_homogeneous=True)
