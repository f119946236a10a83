"""Initial networks, and where their neurons lie: Voronoi regions and the non-degeneracy gap."""

from __future__ import annotations

from typing import get_args, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from preluflow import _arrays
from preluflow._arrays import Float64
from preluflow._dispatch import core
from preluflow.data import OrthonormalGMM, Rng
from preluflow.network import ACTIVATIONS, TwoLayerNetwork, require_plain
from preluflow.typing import Activation, Kind

VOID = -1


class _Default(str):
    """A word that was not said: what ``like`` says counts then."""


_FLOAT32 = _Default("float32")


@overload
def initialize(
    width: int,
    dim: int,
    scale: float,
    *,
    kind: Kind = ...,
    nudge: float | None = ...,
    centers: ArrayLike | OrthonormalGMM | None = ...,
    p: float = ...,
    activation: Activation = ...,
    dtype: DTypeLike = ...,
    like: ArrayLike | None = ...,
    outputs: int = ...,
    rng: Rng = ...,
) -> TwoLayerNetwork: ...
@overload
def initialize(
    width: int,
    dim: None = ...,
    *,
    scale: float,
    like: ArrayLike,
    kind: Kind = ...,
    nudge: float | None = ...,
    centers: ArrayLike | OrthonormalGMM | None = ...,
    p: float = ...,
    activation: Activation = ...,
    dtype: DTypeLike = ...,
    outputs: int = ...,
    rng: Rng = ...,
) -> TwoLayerNetwork: ...
def initialize(
    width: int,
    dim: int | None = None,
    scale: float | None = None,
    *,
    kind: Kind = "balanced",
    nudge: float | None = None,
    centers: ArrayLike | OrthonormalGMM | None = None,
    p: float = 3.0,
    activation: Activation = "prelu",
    dtype: DTypeLike = _FLOAT32,
    like: ArrayLike | None = None,
    outputs: int = 1,
    rng: Rng = None,
) -> TwoLayerNetwork:
    """Draw an initial network.

    Parameters
    ----------
    width : int
        Neurons h.
    dim : int
        Input dimension D; that of ``like`` if left out.
    scale : float
        ``kind="balanced"``: epsilon of MV25's Assumption 1, any positive float64 (1e-7, 1e-300).
        ``kind="gaussian"``: standard deviation of every entry of W and v (App. B.2: 0.01 "small", 0.5 "large").
    kind : {"balanced", "gaussian"}
        Balanced: w_j = epsilon w_j0 with w_j0 ~ N(0, I_D) and v_j = +-epsilon ||w_j0||, signs by a fair coin. Of
        C >= 2 outputs v_j has the length epsilon ||w_j0|| and a direction that is uniform on the sphere in R^C.
    nudge : float in [0, 1], optional
        Moves each *unit* direction u towards a uniformly chosen centre mu and keeps the norm:
        u <- normalise(u + nudge (mu - u)) (App. B.1 as docs/mathematics.md#initialisation reads it; Figure 6 has
        0.05).
    centers : array, shape (K, D), or OrthonormalGMM
        Centres to nudge towards; needed when ``nudge`` is given.
    p, activation, dtype
        As in ``TwoLayerNetwork``, but float32 where neither ``dtype`` nor ``like`` says otherwise. The same rng gives
        the same network in both dtypes, up to rounding.
    like : array, shape (n, D), optional
        Data the network is for: ``initialize(200, scale=1e-7, like=X)`` takes dim and dtype from it.
    outputs : int, default 1
        Outputs C. Labels of several are 0 .. C-1; ``network.replace(classes=...)`` gives it others.
    rng : None, int or Generator
        Source of randomness.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range, only one of ``nudge`` and ``centers`` is given, or ``like`` is at odds with others.

    Examples
    --------
    >>> net = pf.initialize(width=8, dim=3, scale=1e-300, p=3, dtype="float64", rng=0)
    >>> bool(np.allclose(abs(net.v), net.norms, rtol=1e-12, atol=0)), net.width, net.dim  # balanced
    (True, 8, 3)
    """
    width = _arrays.integer(width, "width", minimum=1)
    if like is not None:
        dim, dtype = _fitting(like, dim, dtype)
    if dim is None:
        raise TypeError("dim must be an integer, or taken from data by like=X; got neither")
    dim = _arrays.integer(dim, "dim", minimum=1)
    scale = _arrays.real(scale, "scale", above=0.0)
    _arrays.choice(kind, "kind", get_args(Kind))
    _arrays.choice(activation, "activation", ACTIVATIONS)
    p = _arrays.real(p, "p", minimum=1.0)
    result_dtype = _arrays.dtype_of(dtype)
    if (nudge is None) != (centers is None):
        raise ValueError("nudge and centers must be given together")
    mu = None if nudge is None or centers is None else _targets(centers, dim)
    if nudge is not None:
        nudge = _arrays.real(nudge, "nudge", minimum=0.0, maximum=1.0)
    _arrays.require_room("dim", dim)
    _arrays.require_room("width", width, dim)
    outputs = _arrays.integer(outputs, "outputs", minimum=1)
    _arrays.require_room("outputs", width, outputs)
    generator = _arrays.generator(rng)

    shape = generator.standard_normal((width, dim))
    lengths = np.linalg.norm(shape, axis=1)
    U = shape / lengths[:, None]
    log_norm = np.log(scale) + np.log(lengths)
    sign, log_abs_v = _outer(kind, scale, log_norm, outputs, generator)
    if nudge is not None and mu is not None:
        U = _nudged(U, nudge, mu, generator)
    return TwoLayerNetwork.from_polar(U.astype(result_dtype), log_norm, sign, log_abs_v, activation, p)


def _outer(
    kind: Kind, scale: float, log_norm: Float64, outputs: int, generator: np.random.Generator
) -> tuple[Float64, Float64]:
    """Draw output weights, (h,) or (h, C): signs and logarithms."""
    width = len(log_norm)
    if kind == "balanced" and outputs == 1:
        return generator.choice([-1.0, 1.0], size=width), log_norm
    v = generator.standard_normal(width if outputs == 1 else (width, outputs))
    log_abs_v = np.log(np.abs(v))
    if kind == "gaussian":
        return np.sign(v), np.log(scale) + log_abs_v
    return np.sign(v), log_norm[:, None] + log_abs_v - np.log(np.linalg.norm(v, axis=1, keepdims=True))


def _fitting(like: ArrayLike, dim: int | None, dtype: DTypeLike) -> tuple[int, DTypeLike]:
    """Dimension and dtype of a network for such data; what was asked for must not be another."""
    given = _arrays.as_array(like, "like")
    if given.dtype.kind not in "fiub":
        raise TypeError(f"like must hold real numbers, got dtype {given.dtype}")
    if given.ndim != 2 or given.size == 0:
        raise ValueError(f"like must be data of shape (n, D), not empty, got shape {given.shape}")
    found = int(given.shape[1])
    if dim is not None and _arrays.integer(dim, "dim", minimum=1) != found:
        raise ValueError(f"dim must be {found}, the columns of like, or left out, got {_arrays.shown(dim)}")
    if given.dtype.kind != "f":
        return found, dtype  # networks of both dtypes take integers
    wanted = _arrays.dtype_of(given.dtype, "the dtype of like")
    if not isinstance(dtype, _Default) and _arrays.dtype_of(dtype) != wanted:
        raise ValueError(f"dtype must be {wanted}, that of like, or left out, got {_arrays.shown(dtype)}")
    return found, wanted


def _targets(centers: ArrayLike | OrthonormalGMM, dim: int) -> Float64:
    mu = centers.centers if isinstance(centers, OrthonormalGMM) else _arrays.orthonormal_rows(centers)
    if mu.shape[1] != dim:
        raise ValueError(f"centers must have shape (K, {dim}), got {mu.shape}: dim is {dim}")
    return mu


def _nudged(U: Float64, nudge: float, mu: Float64, generator: np.random.Generator) -> Float64:
    chosen = mu[generator.integers(len(mu), size=len(U))]
    moved = U + nudge * (chosen - U)
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True))


def center_cosines(network: TwoLayerNetwork, gmm: OrthonormalGMM) -> Float64:
    """cos(mu_k, w_j), shape (h, K), float64; 0 for a dead neuron.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=3, positive=2, negative=1, alpha=0.1, centers="canonical")
    >>> net = pf.TwoLayerNetwork(W=[[3.0, 4.0, 0.0]], v=[1.0])
    >>> pf.center_cosines(net, gmm).round(6).tolist()
    [[0.6, 0.8, 0.0]]
    """
    _arrays.instance(network, "network", TwoLayerNetwork)
    require_plain(network, "cosines with the centres")
    _arrays.instance(gmm, "gmm", OrthonormalGMM)
    if network.dim != gmm.dim:
        raise ValueError(f"network has input dimension {network.dim} but gmm has {gmm.dim}")
    # By the core, not NumPy's BLAS, which ends the process where it finds no memory.
    directions, centers = network.directions.astype(np.float64), np.ascontiguousarray(gmm.centers)
    return core.products(directions, centers, _arrays.threads(None))


def own_class_cosines(network: TwoLayerNetwork, gmm: OrthonormalGMM) -> Float64:
    """cos(mu_k, w_j) for the centres of the class of sign v_j, -inf for the others; shape (h, K)."""
    cosines = center_cosines(network, gmm)
    return np.where(network.sign[:, None] == gmm.labels[None, :], cosines, -np.inf)


def voronoi_regions(network: TwoLayerNetwork, gmm: OrthonormalGMM) -> NDArray[np.intp]:
    """Nearest centre of its own class for each neuron, ``VOID`` = -1 in the void region (MV25, Def. 1).

    Positive neurons (v_j > 0) are held against positive centres, negative ones against negative. The void region
    is where no own-class cosine is positive. A neuron with v_j = 0 has no class and is void.

    Returns
    -------
    ndarray of int, shape (h,)
        Cluster index 0 .. K-1, or -1.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=3, positive=2, negative=1, alpha=0.1, centers="canonical")
    >>> net = pf.TwoLayerNetwork(W=[[3.0, 4.0, 0.0], [-1.0, -1.0, 5.0], [0.0, 0.0, 1.0]], v=[1.0, 1.0, -1.0])
    >>> pf.voronoi_regions(net, gmm).tolist()  # the second centre, the void, the third
    [1, -1, 2]
    """
    own = own_class_cosines(network, gmm)
    return np.where(own.max(axis=1) > 0, own.argmax(axis=1), VOID)


def non_degeneracy_gap(network: TwoLayerNetwork, gmm: OrthonormalGMM) -> float:
    """Distance of the initialisation to a degenerate one, MV25 eq. 11, in closed form for orthonormal centres.

    With the own-class cosines of a neuron sorted c_1 >= c_2 >= ..., its distance 1 - sup cos to the boundaries of the
    Voronoi regions is 1 - sqrt(1 - min{c_1^2, (c_1 - c_2)^2 / 2}) when c_1 > 0 (no second term with one centre) and
    1 - sqrt(1 - c_1^2) in the void (docs/mathematics.md#voronoi). The gap is the minimum over neurons; 0 if some v_j or
    w_j is 0.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=3, positive=2, negative=1, alpha=0.1, centers="canonical")
    >>> net = pf.TwoLayerNetwork(W=[[3.0, 4.0, 0.0]], v=[1.0])  # on the border where 3 = 4 the gap is 0
    >>> round(float(pf.non_degeneracy_gap(net, gmm)), 3)
    0.01
    """
    own = np.sort(own_class_cosines(network, gmm), axis=1)[:, ::-1]
    if np.any(network.sign == 0) or np.any(np.isneginf(network.log_norm)):
        return 0.0
    square = own[:, 0] ** 2
    if own.shape[1] > 1:
        # An absent second centre has cosine -inf and so does not bind.
        square = np.where(own[:, 0] > 0, np.minimum(square, (own[:, 0] - own[:, 1]) ** 2 / 2), square)
    square = np.minimum(square, 1.0)
    # 1 - sqrt(1 - s) without cancellation
    return float(np.min(square / (1.0 + np.sqrt(1.0 - square))))


def covers_all_regions(network: TwoLayerNetwork, gmm: OrthonormalGMM) -> bool:
    """Whether every Voronoi region of each class holds a neuron of that class (MV25, Def. 2).

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=3, positive=2, negative=1, alpha=0.1, centers="canonical")
    >>> bool(pf.covers_all_regions(pf.TwoLayerNetwork(np.eye(3), [1.0, 1.0, -1.0]), gmm))
    True
    """
    regions = voronoi_regions(network, gmm)
    return set(range(gmm.clusters)) <= set(regions.tolist())
