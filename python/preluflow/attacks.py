"""Attacks on anything with ``decision_function`` and ``input_gradient``: FGSM, PGD, APGD, DDN, swap starts."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import ArrayLike

from preluflow import _arrays, _searches
from preluflow._arrays import Float64
from preluflow._searches import Attack
from preluflow.typing import Norm, Objective

if TYPE_CHECKING:
    from preluflow.classifiers import Classifier

__all__ = ["Attack", "apgd", "ddn", "fgsm", "minimal_norm", "pgd", "swap"]

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
_LARGEST = 300.0  # exponent at which exp(-y f) is cut; the step leaves the ball long before


# ---- attacks within a ball


def fgsm(
    classifier: Classifier,
    X: ArrayLike,
    y: ArrayLike,
    *,
    eps: float,
    norm: Norm = "l2",
    bounds: tuple[float, float] | None = None,
) -> Attack:
    """One step of length eps against the gradient of y f: delta = -eps y g/||g||, or -eps y sign(g) for "linf".

    Parameters
    ----------
    classifier : object
        With ``decision_function(X) -> (n,)`` and ``input_gradient(X) -> (n, D)``; ``value_and_input_gradient``, which
        returns both, is used where it exists. A TwoLayerNetwork of any dtype and scale is evaluated in float64.
    X : array, shape (n, D)
        Points, any real dtype.
    y : array, shape (n,)
        Labels -1 and +1.
    eps : float
        Radius of the ball, > 0.
    norm : {"l2", "linf"}, default "l2"
        Of the ball.
    bounds : (low, high), optional
        Keep every coordinate of x + delta within; those of X must be. No bounds by default.

    Returns
    -------
    Attack

    Raises
    ------
    ValueError, TypeError
        For bad input, before any work, or if the classifier returns something else than it should.

    References
    ----------
    Goodfellow, Shlens, Szegedy, ICLR 2015 (l-infinity).
    """
    ball = _searches.Ball.of(eps, norm, bounds)
    return _searches.run(classifier, X, y, partial(_searches.fgsm, ball=ball), ball)


def pgd(
    classifier: Classifier,
    X: ArrayLike,
    y: ArrayLike,
    *,
    eps: float,
    norm: Norm = "l2",
    steps: int = 2000,
    step: float = 0.1,
    objective: Objective = "exponential",
    normalize: bool | None = None,
    restarts: int = 0,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    stop_early: bool = True,
) -> Attack:
    """Projected gradient ascent; as it stands, the attack of MV24 and MV25, which overstates the robustness of pReLU.

    delta <- P(delta + step g), P the projection on the ball, g the gradient of exp(-y f) or of -y f at x + delta.

    The papers state: l2, projected gradient ascent on the exponential loss of f itself, 2000 steps of size 0.1. Our
    reading: plain gradient steps from delta = 0 without restarts, and a point counts as broken if any iterate is.
    ``objective="margin"`` is the stronger variant: -y f with steps of length ``step``. Neither finds the swaps that
    break pReLU networks (see ``swap``).

    Parameters
    ----------
    classifier, X, y, eps, norm, bounds
        As in ``fgsm``.
    steps : int, default 2000
        Gradients a run takes.
    step : float, default 0.1
        Factor of the gradient, or length of each step if normalised; > 0.
    objective : {"exponential", "margin"}, default "exponential"
        exp(-y f) or -y f.
    normalize : bool, optional
        Divide each point's gradient by its norm ("linf": take its sign); by default only for "margin".
    restarts : int, default 0
        Further runs from random points of the ball's surface, for the points that survived.
    seed : int, default 0
        Of the random points, with the number of the point.
    stop_early : bool, default True
        Leave a point alone once it is flipped; else go on, and return the iterate of the lowest y f.

    Returns
    -------
    Attack

    Raises
    ------
    ValueError, TypeError
        As in ``fgsm``.

    References
    ----------
    Madry et al., ICLR 2018; MV24 and MV25, experiments.
    """
    ball = _searches.Ball.of(eps, norm, bounds)
    steps = _arrays.integer(steps, "steps", minimum=1)
    step = _arrays.real(step, "step", above=0.0)
    exponential = _arrays.choice(objective, "objective", OBJECTIVES) == "exponential"
    normalize = not exponential if normalize is None else _arrays.flag(normalize, "normalize")
    stop_early = _arrays.flag(stop_early, "stop_early")

    def ascent(log_scale: float, margin: Float64, gradient: Float64) -> Float64:
        uphill = ball.steepest(-gradient) if normalize else -gradient
        if exponential and not normalize:
            # exp(-y f) falls short of overflow; log_scale undoes the network's rescaling, in value and in gradient.
            true = margin * math.exp(min(log_scale, 700.0))
            uphill = uphill * np.exp(np.minimum(log_scale - true, _LARGEST))[:, None]
        return step * uphill

    search = partial(
        _searches.restarted,
        partial(_searches.pgd, ball=ball, steps=steps, ascent=ascent, stop_early=stop_early),
        ball=ball,
        restarts=_arrays.integer(restarts, "restarts", minimum=0),
        seed=_arrays.integer(seed, "seed", minimum=0, maximum=_arrays.UINT64),
        from_point=True,
    )
    return _searches.run(classifier, X, y, search, ball)


def apgd(
    classifier: Classifier,
    X: ArrayLike,
    y: ArrayLike,
    *,
    eps: float,
    norm: Norm = "l2",
    steps: int = 100,
    rho: float = 0.75,
    momentum: float = 0.75,
    restarts: int = 0,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
) -> Attack:
    """Auto-PGD on -y f: momentum, and steps from 2 eps that halve, with a return to the best point, at checkpoints.

    Steps are halved at checkpoint w_j where the objective rose in fewer than rho (w_j - w_{j-1}) of the steps since
    w_{j-1}, or where neither step nor best value have changed since. w_j = ceil(p_j steps), p_0 = 0, p_1 = 0.22,
    p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06). Every run starts at a random point of the ball's surface, as in the
    authors' code; a point that is flipped is done.

    Parameters
    ----------
    classifier, X, y, eps, norm, bounds
        As in ``fgsm``.
    steps : int, default 100
        Steps a run takes.
    rho : float, default 0.75
        In [0, 1].
    momentum : float, default 0.75
        Weight of the new step against the last one, in (0, 1].
    restarts : int, default 0
        Further runs, for the points that survived.
    seed : int, default 0
        Of the random points, with the number of the point.

    Returns
    -------
    Attack

    Raises
    ------
    ValueError, TypeError
        As in ``fgsm``.

    References
    ----------
    Croce and Hein, ICML 2020, Algorithm 1.
    """
    ball = _searches.Ball.of(eps, norm, bounds)
    search = partial(
        _searches.restarted,
        partial(
            _searches.apgd,
            ball=ball,
            steps=_arrays.integer(steps, "steps", minimum=1),
            rho=_arrays.real(rho, "rho", minimum=0.0, maximum=1.0),
            momentum=_arrays.real(momentum, "momentum", above=0.0, maximum=1.0),
        ),
        ball=ball,
        restarts=_arrays.integer(restarts, "restarts", minimum=0),
        seed=_arrays.integer(seed, "seed", minimum=0, maximum=_arrays.UINT64),
        from_point=False,
    )
    return _searches.run(classifier, X, y, search, ball)


# ---- minimal l2 norm


def ddn(
    classifier: Classifier,
    X: ArrayLike,
    y: ArrayLike,
    *,
    steps: int = 1000,
    gamma: float = 0.05,
    init_eps: float = 1.0,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
) -> Attack:
    """Decoupled direction and norm: ascend by unit gradients on a sphere that shrinks when flipped and grows when not.

    delta <- r u, u the direction of delta + s g/||g||, r <- (1 - gamma) r if x + delta is flipped, else (1 + gamma) r;
    s falls from 1 to 0.01 by a cosine. The shortest flipped iterate is returned, the last one included.

    Parameters
    ----------
    classifier, X, y, bounds
        As in ``fgsm``.
    steps : int, default 1000
        Gradients; the paper shows 100, 300 and 1000.
    gamma : float, default 0.05
        Share by which the radius changes, in (0, 0.99].
    init_eps : float, default 1
        First radius, > 0.
    seed : int, default 0
        Of the random directions that stand in for vanishing gradients, with the number of the point.

    Returns
    -------
    Attack

    Raises
    ------
    ValueError, TypeError
        As in ``fgsm``.

    References
    ----------
    Rony et al., CVPR 2019, Algorithm 1.
    """
    box = _searches.box(bounds)
    search = partial(
        _searches.ddn,
        steps=_arrays.integer(steps, "steps", minimum=1),
        gamma=_arrays.real(gamma, "gamma", above=0.0, maximum=0.99),
        init_eps=_arrays.real(init_eps, "init_eps", above=0.0),
        seed=_arrays.integer(seed, "seed", minimum=0, maximum=_arrays.UINT64),
        bounds=box,
    )
    return _searches.run(classifier, X, y, search, _searches.Ball(np.inf, "l2", box))


def swap(
    classifier: Classifier,
    X: ArrayLike,
    y: ArrayLike,
    *,
    centers: ArrayLike,
    center_labels: ArrayLike,
    starts: int = 3,
    steps: int = 30,
    restarts: int = 2,
    seed: int = 0,
) -> Attack:
    """Shortest way to the boundary from swaps of the own centre for a rival one (docs/mathematics.md#attack).

    From x, rays -cos(t) mu_own + sin(t) mu_rival and the way to mu_rival itself are followed to y f = 0 for every rival
    centre; the best ray of each of the nearest ``starts`` rivals is refined: turn the direction towards the gradient at
    the boundary point, where the nearest zero of the linearised f lies, by less whenever that does not help, and return
    to the boundary. The gradient, the way to the origin and random mixtures are tried as well.

    Parameters
    ----------
    classifier, X, y
        As in ``fgsm``.
    centers : array, shape (K, D)
        Of the clusters; only their directions count but for the way to mu_rival.
    center_labels : array, shape (K,)
        Labels -1 and +1. The own centre of a point is the one of its label with the largest <x, mu>/||mu||.
    starts : int, default 3
        Rivals whose rays are refined, those that reach the boundary first.
    steps : int, default 30
        Refinements of each start.
    restarts : int, default 2
        Random starts.
    seed : int, default 0
        Of the random starts, with the number of the point.

    Returns
    -------
    Attack

    Raises
    ------
    ValueError, TypeError
        As in ``fgsm``.
    """
    mixture = _searches.Centers.of(centers, center_labels, X)
    options = _searches.swap_options(starts, steps, restarts, seed)
    return _searches.run(
        classifier, X, y, partial(_searches.swap, mixture=mixture, **options), _searches.Ball(np.inf, "l2", None)
    )


def minimal_norm(
    classifier: Classifier,
    X: ArrayLike,
    y: ArrayLike,
    *,
    centers: ArrayLike | None = None,
    center_labels: ArrayLike | None = None,
    ddn_steps: int = 200,
    starts: int = 3,
    steps: int = 30,
    restarts: int = 2,
    seed: int = 0,
) -> Attack:
    """The shortest of ``ddn`` and ``swap`` for each point, the former refined as the latter is.

    Parameters
    ----------
    classifier, X, y
        As in ``fgsm``.
    centers, center_labels : arrays, shapes (K, D) and (K,), optional
        As in ``swap``; without them only the gradient, the origin and random directions are its starts.
    ddn_steps : int, default 200
        Gradients ``ddn`` takes.
    starts, steps, restarts, seed
        As in ``swap``.

    Returns
    -------
    Attack
        ``delta`` are witnesses: y f(x + delta) <= 0 where ``success``.

    Raises
    ------
    ValueError, TypeError
        As in ``fgsm``.
    """
    if (centers is None) != (center_labels is None):
        raise ValueError("centers and center_labels must be given together")
    mixture = None if centers is None or center_labels is None else _searches.Centers.of(centers, center_labels, X)
    options = _searches.swap_options(starts, steps, restarts, seed)
    ddn_steps = _arrays.integer(ddn_steps, "ddn_steps", minimum=1)

    def search(points: _searches.Points) -> Float64:
        first = _searches.ddn(points, steps=ddn_steps, gamma=0.05, init_eps=1.0, seed=options["seed"], bounds=None)
        return _searches.swap(points, mixture=mixture, first=first, **options)

    return _searches.run(classifier, X, y, search, _searches.Ball(np.inf, "l2", None))
