"""Attacks on anything with ``decision_function`` and ``input_gradient``: FGSM, PGD, APGD, DDN, FMN, swap starts.

What they lower is the margin: y f of a classifier of one output, F_y - max_{c != y} F_c of several. An error is a
margin <= 0, so that a tie is one.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from preluflow import _arrays, _recipes, _searches
from preluflow._arrays import Float64
from preluflow._scores import Model
from preluflow._searches import Attack
from preluflow.typing import Norm, Objective, Recipe

if TYPE_CHECKING:
    from preluflow.classifiers import Classifier

__all__ = ["Attack", "apgd", "ddn", "fgsm", "fmn", "minimal_norm", "pgd", "swap"]

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
RECIPES: tuple[Recipe, ...] = get_args(Recipe)
_SMOOTH: tuple[Objective, ...] = ("margin", "cross_entropy")  # of which minimal norms go by
_STEPWISE: tuple[Objective, ...] = ("margin", "cross_entropy", "dlr")  # of APGD; "exponential" would go as "margin"
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
    """One step of length eps down the margin m: delta = -eps g/||g||, or -eps sign(g) for "linf"; g its gradient.

    Parameters
    ----------
    classifier : object
        With ``decision_function(X) -> (n,)`` and ``input_gradient(X) -> (n, D)``; ``value_and_input_gradient``, which
        returns both, is used where it exists. Or, of C >= 2 outputs, with ``decision_function(X) -> (n, C)`` and
        ``input_gradient(X, weights) -> (n, D)``, the gradient of sum_c weights_ic F_c(x_i). A TwoLayerNetwork of any
        dtype and scale is evaluated in float64.
    X : array, shape (n, D)
        Points, any real dtype.
    y : array, shape (n,)
        Labels, members of ``classifier.classes`` (or ``classes_``): integers, one for each output, or two where f <= 0
        and f > 0 of one output. By default -1 and +1 of one output, 0 to C - 1 of several.
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

    Examples
    --------
    >>> line = pf.classifiers.Linear([3.0, 4.0])
    >>> pf.attacks.fgsm(line, [[1.0, 1.0]], [1.0], eps=1.5).delta.round(6).tolist()
    [[-0.9, -1.2]]
    """
    ball = _searches.Ball.of(eps, norm, bounds)
    return _searches.run(*_searches.prepared(classifier, X), y, partial(_searches.fgsm, ball=ball), ball)


def pgd(
    classifier: Classifier,
    X: ArrayLike,
    y: ArrayLike,
    *,
    eps: float,
    norm: Norm = "l2",
    steps: int = 2000,
    step: float = 0.1,
    objective: Objective | None = None,
    normalize: bool | None = None,
    restarts: int = 0,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    stop_early: bool = True,
    recipe: Recipe | None = None,
    batch: int | None = None,
) -> Attack:
    """Projected gradient ascent; as it stands, the attack of MV24 and MV25, which overstates the robustness of pReLU.

    delta <- P(delta + step g), P the projection on the ball, g the gradient of the objective at x + delta.

    The papers state: l2, projected gradient ascent on the exponential loss of f itself, 2000 steps of size 0.1. Our
    reading: plain gradient steps from delta = 0 without restarts, and a point counts as broken if any iterate is.
    ``objective="margin"`` is the stronger variant: -y f with steps of length ``step``. Neither finds the swaps that
    break pReLU networks (see ``swap``). MV24's networks of several outputs are attacked on the cross-entropy.

    ``recipe="mv24"`` is instead what the authors' code does, all of it in float32: the loss is the mean of exp(-y f)
    over the whole of X, g its gradient in the point, which carries 1/n, and

        delta <- P(delta + step g / (||g|| + 1e-7)),

    judged at the last iterate alone, also of points that are wrong to begin with. It is there to draw the published
    curves; what it reports is no robustness. Where exp(-y f) ||grad f|| / n is far below 1e-7 the steps vanish, the
    sooner the larger n: of n = 20000 points one with y f - log ||grad f|| = m moves by exp(6.2 - m) ``step`` at most in
    a step, and by less than 0.01 in 2000 steps of 0.1 from m = 16.1 on, so that a network with large outputs looks
    robust at every radius. Of 300 points of a mixture with D = 2000, K = 12 + 8 and alpha = 0.3, of which F^(3) keeps
    none but 0.0033 right at radius 0.72 in truth (certified and attacked), it leaves 1.00 / 0.72 / 0.02 of F^(3) at
    0.72 / 0.8 / 0.9, 1.00 / 0.95 / 0.85 of 20 F^(3), and all of 30 F^(3), even at 1. (``batch`` was 20000.)

    Parameters
    ----------
    classifier, X, y, eps, norm, bounds
        As in ``fgsm``.
    steps : int, default 2000
        Steps of a run. One that comes back to an iterate ends, as what follows is known: most do within hundreds.
    step : float, default 0.1
        Factor of the gradient, or length of each step if normalised; > 0.
    objective : {"exponential", "margin", "cross_entropy", "dlr"}, optional
        Of the margin m: exp(-m), -m, log sum_c exp(F_c - F_y) (of one output log(1 + exp(-y f))), or -m over the gap of
        the largest output to the third (three outputs or more). By default "exponential" of one output,
        "cross_entropy" of several.
    normalize : bool, optional
        Divide each point's gradient by its norm ("linf": take its sign); by default only for "margin" and "dlr".
    restarts : int, default 0
        Further runs from random points of the ball's surface, for the points that survived.
    seed : int, default 0
        Of the random points, with the number of the point.
    stop_early : bool, default True
        Leave a point alone once it is flipped; else go on, and return the iterate of the lowest margin.
    recipe : {"mv24"}, optional
        As above: for one output, with eps, steps and step; the rest must be left at its default ("exponential" is the
        recipe's). A TwoLayerNetwork is evaluated in float32 and not rescaled, so that an output that underflows it is
        an error; of any other classifier outputs and gradients are rounded to float32.
    batch : int, optional
        n of the recipe, if X is but a part of the batch: no point depends on another but by n. By default len(X).

    Returns
    -------
    Attack
        Of a recipe ``delta`` is the last iterate and ``success`` what float32 says of it.

    Raises
    ------
    ValueError, TypeError
        As in ``fgsm``.

    References
    ----------
    Madry et al., ICLR 2018; MV24 and MV25, experiments.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> net = pf.classifiers.cluster_prelu(gmm, p=3)  # F^(3)
    >>> pf.attacks.pgd(net, gmm.centers, gmm.labels, eps=0.9, steps=100).accuracy  # the truth is 0
    1.0
    """
    ball = _searches.Ball.of(eps, norm, bounds)
    steps = _arrays.integer(steps, "steps", minimum=1)
    step = _arrays.real(step, "step", above=0.0)
    if objective is not None:
        objective = _arrays.choice(objective, "objective", OBJECTIVES)
    if normalize is not None:
        normalize = _arrays.flag(normalize, "normalize")
    stop_early = _arrays.flag(stop_early, "stop_early")
    restarts = _arrays.integer(restarts, "restarts", minimum=0)
    seed = _arrays.integer(seed, "seed", minimum=0, maximum=_arrays.UINT64)
    if recipe is not None:
        objective = None if objective == "exponential" else objective
        return _by_recipe(
            *(classifier, X, y, ball, steps, step, batch, recipe),
            norm=(ball.norm, "l2"),
            bounds=(ball.bounds, None),
            objective=(objective, None),
            normalize=(normalize, None),
            restarts=(restarts, 0),
            stop_early=(stop_early, True),
        )
    if batch is not None:
        raise ValueError(f"batch must be None without a recipe, got {_arrays.shown(batch)}")
    model, data = _searches.prepared(classifier, X)
    chosen = objective or ("exponential" if model.outputs == 1 else "cross_entropy")
    _require_outputs(chosen, model)
    plain = chosen in ("exponential", "cross_entropy") if normalize is None else not normalize
    once = partial(
        _searches.pgd,
        ball=ball,
        steps=steps,
        objective=chosen,
        ascent=partial(_ascent, ball=ball, step=step, objective=chosen, plain=plain),
        stop_early=stop_early,
    )
    search = partial(_searches.restarted, once, ball=ball, restarts=restarts, seed=seed, from_point=True)
    return _searches.run(model, data, y, search, ball)


def _by_recipe(
    classifier: Classifier,
    X: ArrayLike,
    y: ArrayLike,
    ball: _searches.Ball,
    steps: int,
    step: float,
    batch: int | None,
    recipe: Recipe,
    **others: tuple[Any, Any],
) -> Attack:
    """Run a recipe, unless one of the ``others``, name=(value, what the recipe has), contradicts it."""
    _arrays.choice(recipe, "recipe", RECIPES)
    for name, (value, own) in others.items():
        if value != own:
            raise ValueError(f"{name} must be {own!r} with recipe {recipe!r}, got {_arrays.shown(value)}")
    if step > _recipes.LARGEST_STEP:
        raise ValueError(f"step must be at most {_recipes.LARGEST_STEP:g} with recipe {recipe!r}, got {step:g}")
    if batch is not None:
        batch = _arrays.integer(batch, "batch", minimum=1)
    return _recipes.mv24_pgd(classifier, X, y, eps=ball.eps, steps=steps, step=step, batch=batch)


def _ascent(
    model: Model,
    score: Float64,
    gradient: Float64,
    *,
    ball: _searches.Ball,
    step: float,
    objective: Objective,
    plain: bool,
) -> Float64:
    """What PGD adds, from the score that falls and its gradient: a step along the gradient of the objective."""
    if not plain:
        return step * ball.steepest(-gradient)
    uphill = -gradient
    # Gradients fall short of overflow; log_scale undoes the network's rescaling, in value and in gradient.
    true = score * math.exp(min(model.log_scale, 700.0))
    if objective == "exponential":
        uphill = uphill * np.exp(np.minimum(model.log_scale - true, _LARGEST))[:, None]
    elif objective == "cross_entropy":
        # d log(1 + exp(-m)) = -dm / (1 + exp(m)); the score leaves out the number of rivals.
        m = true - math.log(len(model.classes) - 1)
        uphill = uphill * np.exp(np.minimum(model.log_scale - np.logaddexp(0.0, m), _LARGEST))[:, None]
    return step * uphill


def _require_outputs(objective: Objective, model: Model) -> None:
    """Refuse an objective that needs more classes than there are."""
    if objective == "dlr" and model.outputs < 3:
        raise ValueError(f"objective must not be 'dlr' of fewer than three outputs, got {model.outputs}")


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
    objective: Objective = "margin",
    restarts: int = 0,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
) -> Attack:
    """Auto-PGD: momentum, and steps from 2 eps that halve, with a return to the best point, at checkpoints.

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
    objective : {"margin", "cross_entropy", "dlr"}, default "margin"
        As in ``pgd``; of one output they are the same. The authors' are the last two.
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

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> net = pf.classifiers.cluster_prelu(gmm, p=3)  # F^(3)
    >>> pf.attacks.apgd(net, gmm.centers, gmm.labels, eps=0.3, steps=20).accuracy
    1.0
    """
    ball = _searches.Ball.of(eps, norm, bounds)
    once = partial(
        _searches.apgd,
        ball=ball,
        steps=_arrays.integer(steps, "steps", minimum=1),
        rho=_arrays.real(rho, "rho", minimum=0.0, maximum=1.0),
        momentum=_arrays.real(momentum, "momentum", above=0.0, maximum=1.0),
        objective=_arrays.choice(objective, "objective", _STEPWISE),
    )
    search = partial(
        _searches.restarted,
        once,
        ball=ball,
        restarts=_arrays.integer(restarts, "restarts", minimum=0),
        seed=_arrays.integer(seed, "seed", minimum=0, maximum=_arrays.UINT64),
        from_point=False,
    )
    model, data = _searches.prepared(classifier, X)
    _require_outputs(objective, model)
    return _searches.run(model, data, y, search, ball)


# ---- minimal l2 norm


def ddn(
    classifier: Classifier,
    X: ArrayLike,
    y: ArrayLike,
    *,
    steps: int = 1000,
    gamma: float = 0.05,
    init_eps: float = 1.0,
    objective: Objective = "cross_entropy",
    rivals: int = 0,
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
    objective : {"cross_entropy", "margin"}, default "cross_entropy"
        Whose gradients; of one output they are parallel.
    rivals : int, default 0
        Of several outputs, further runs against the nearest so many rival classes alone (by the linearised margin).
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

    Examples
    --------
    >>> line = pf.classifiers.Linear([3.0, 4.0])
    >>> pf.attacks.ddn(line, [[1.0, 1.0]], [1.0], steps=100).norms.round(2).tolist()  # 7/5
    [1.4]
    """
    box = _searches.box(bounds)
    once = partial(
        _searches.ddn,
        steps=_arrays.integer(steps, "steps", minimum=1),
        gamma=_arrays.real(gamma, "gamma", above=0.0, maximum=0.99),
        init_eps=_arrays.real(init_eps, "init_eps", above=0.0),
        objective=_arrays.choice(objective, "objective", _SMOOTH),
        seed=_arrays.integer(seed, "seed", minimum=0, maximum=_arrays.UINT64),
        bounds=box,
    )
    search = partial(_searches.with_rivals, once, rivals=_arrays.integer(rivals, "rivals", minimum=0))
    return _searches.run(*_searches.prepared(classifier, X), y, search, _searches.Ball(np.inf, "l2", box))


def fmn(
    classifier: Classifier,
    X: ArrayLike,
    y: ArrayLike,
    *,
    steps: int = 1000,
    step: float = 1.0,
    gamma: float = 0.05,
    rivals: int = 0,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
) -> Attack:
    """Fast minimum norm: unit gradients of the margin within a ball whose radius is fitted to the boundary.

    delta <- P(delta + s g/||g||), P the projection on the ball of radius r. Until a point is first flipped r is where
    the linearised margin vanishes, ||delta|| + |m|/||g||; after that r <- min((1 - gamma) r, the shortest so far) where
    it is flipped and (1 + gamma) r where it is not. By cosines s falls to 0.01 ``step`` and gamma to 0.001. The
    shortest flipped iterate is returned, the last one included.

    Parameters
    ----------
    classifier, X, y, bounds
        As in ``fgsm``.
    steps : int, default 1000
        Gradients.
    step : float, default 1
        Length of the first step, > 0.
    gamma : float, default 0.05
        First share by which the radius changes, in (0, 0.99].
    rivals, seed
        As in ``ddn``.

    Returns
    -------
    Attack

    Raises
    ------
    ValueError, TypeError
        As in ``fgsm``.

    References
    ----------
    Pintor et al., NeurIPS 2021, Algorithm 1.

    Examples
    --------
    >>> line = pf.classifiers.Linear([3.0, 4.0])
    >>> pf.attacks.fmn(line, [[1.0, 1.0]], [1.0], steps=100).norms.round(2).tolist()  # 7/5
    [1.4]
    """
    box = _searches.box(bounds)
    once = partial(
        _searches.fmn,
        steps=_arrays.integer(steps, "steps", minimum=1),
        step=_arrays.real(step, "step", above=0.0),
        gamma=_arrays.real(gamma, "gamma", above=0.0, maximum=0.99),
        seed=_arrays.integer(seed, "seed", minimum=0, maximum=_arrays.UINT64),
        bounds=box,
    )
    search = partial(_searches.with_rivals, once, rivals=_arrays.integer(rivals, "rivals", minimum=0))
    return _searches.run(*_searches.prepared(classifier, X), y, search, _searches.Ball(np.inf, "l2", box))


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
    rivals: int = 3,
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
        Labels, as those of y. The own centre of a point is the one of its label with the largest <x, mu>/||mu||.
    starts : int, default 3
        Rivals whose rays are refined, those that reach the boundary first.
    steps : int, default 30
        Refinements of each start.
    restarts : int, default 2
        Random starts.
    rivals : int, default 3
        Of several outputs, the nearest so many rival classes are besides sought one by one.
    seed : int, default 0
        Of the random starts, with the number of the point.

    Returns
    -------
    Attack

    Raises
    ------
    ValueError, TypeError
        As in ``fgsm``.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> net = pf.classifiers.cluster_prelu(gmm, p=3)  # F^(3)
    >>> found = pf.attacks.swap(net, gmm.centers, gmm.labels, centers=gmm.centers, center_labels=gmm.labels)
    >>> found.norms.round(3).tolist()
    [0.707, 0.707, 0.707, 0.707]
    """
    options = _searches.swap_options(starts, steps, restarts, seed, rivals)
    model, data = _searches.prepared(classifier, X)
    search = partial(_searches.swap, mixture=_searches.Centers.of(centers, center_labels, model, data), **options)
    return _searches.run(model, data, y, search, _searches.Ball(np.inf, "l2", None))


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
    rivals: int = 3,
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
    starts, steps, restarts, rivals, seed
        As in ``swap``.

    Returns
    -------
    Attack
        ``delta`` are witnesses: the margin at x + delta is <= 0 where ``success``.

    Raises
    ------
    ValueError, TypeError
        As in ``fgsm``.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> net = pf.classifiers.cluster_prelu(gmm, p=3)  # F^(3)
    >>> centers = {"centers": gmm.centers, "center_labels": gmm.labels}
    >>> pf.attacks.minimal_norm(net, gmm.centers[:1], gmm.labels[:1], **centers).norms.round(3).tolist()
    [0.707]
    """
    if (centers is None) != (center_labels is None):
        raise ValueError("centers and center_labels must be given together")
    options = _searches.swap_options(starts, steps, restarts, seed, rivals)
    ddn_steps = _arrays.integer(ddn_steps, "ddn_steps", minimum=1)
    model, data = _searches.prepared(classifier, X)
    mixture = None
    if centers is not None and center_labels is not None:
        mixture = _searches.Centers.of(centers, center_labels, model, data)

    def search(points: _searches.Points) -> Float64:
        first = _searches.ddn(points, steps=ddn_steps, gamma=0.05, init_eps=1.0, seed=options["seed"], bounds=None)
        return _searches.swap(points, mixture=mixture, first=first, **options)

    return _searches.run(model, data, y, search, _searches.Ball(np.inf, "l2", None))
