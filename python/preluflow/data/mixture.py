"""Gaussian mixtures: MV25's orthonormal one (section 2), and any other (docs/mathematics.md#general-mixture)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from preluflow import _arrays, _html
from preluflow._arrays import Float, Float64
from preluflow.data import _noise

Rng = None | int | np.random.Generator

_LARGEST_ALPHA = 1e150  # its square is a float64
_ROWS = 4096  # rows drawn at a time: no temporary grows with n
_LARGEST_LABEL = 2.0**53  # up to there every float64 that is an integer is that integer
_WHOLE = 1e-6  # points of a cluster, a balanced sample's share of n may be off from an integer by rounding


@dataclass(frozen=True)
class Dataset:
    """A labelled sample.

    Attributes
    ----------
    X : ndarray, shape (n, D)
        Points, float32 or float64.
    y : ndarray, shape (n,)
        Labels: -1 and +1 in the dtype of X, or other integers as int64.
    z : ndarray of int, shape (n,)
        Cluster of each point, 0 .. K-1 (the paper's z - 1).

    Examples
    --------
    >>> data = pf.Dataset(X=np.eye(3), y=np.array([1.0, 1.0, -1.0]), z=np.arange(3))
    >>> len(data), data.X.shape
    (3, (3, 3))
    """

    X: Float
    y: NDArray[Any]
    z: NDArray[np.intp]

    def __len__(self) -> int:
        """Return the number of points n."""
        return int(self.X.shape[0])

    def _told(self) -> dict[str, Any]:
        """What else there is to tell of it."""
        return {}

    def _repr_html_(self) -> str:
        """Show sizes, labels and how many points each cluster has."""
        labels, counts = np.unique(self.y, return_counts=True)
        clusters = np.bincount(self.z) if len(self.z) else np.zeros(0, dtype=int)
        told = ", ".join(f"{label:g}: {count}" for label, count in zip(labels[:12], counts[:12], strict=True))
        rows = {
            "points n, dimension D": f"{len(self)}, {self.X.shape[1]}",
            "dtype": self.X.dtype,
            "labels": told + (", ..." if len(labels) > 12 else ""),
            "clusters": len(clusters),
            **self._told(),
        }
        return _html.table(type(self).__name__, rows, _html.bars(clusters), "points in each cluster")


class GaussianMixture:
    """Mixture of K Gaussians about any centres, each with a label, a weight and noise of its own.

    ``OrthonormalGMM`` is the special case of orthonormal centres, labels -1 and +1, equal weights and one alpha.
    Definition: docs/mathematics.md#general-mixture.

    Parameters
    ----------
    centers : array, shape (K, D)
        mu_k, the clusters' means.
    labels : array of int, shape (K,)
        Label of each cluster; at least two different ones.
    weights : array, shape (K,), optional
        Positive; in proportion to them clusters are drawn. By default all are equally likely.
    noise : number, or array of shape (K,), (K, D) or (K, D, r)
        Standard deviations, never variances, of x - mu_k for the points of cluster k:

        - a number alpha, or one for each cluster: isotropic, covariance alpha^2 I / D, so that E||x - mu_k||^2 =
          alpha^2;
        - (K, D): independent coordinates, of these standard deviations;
        - (K, D, r): factors A_k, x = mu_k + A_k g with g standard normal in R^r, covariance A_k A_k^T. With r < D the
          data are a union of affine subspaces.
    covariances : array, shape (K, D, D), optional
        In the place of ``noise``: symmetric without negative eigenvalues. They become factors.
    floor : float, default 0
        Isotropic noise added to that of factors or covariances: covariance floor^2 I / D.
    label_noise : float, default 0
        Probability that a sampled point's label is replaced by one of the other labels, drawn uniformly; less than
        1 - 1/C for C different labels, where labels would say nothing.

    Attributes
    ----------
    dim, clusters : int
        D and K.
    classes : ndarray of int64, shape (C,)
        The different labels, sorted.
    weights : ndarray, shape (K,)
        The clusters' probabilities; their sum is 1.

    Raises
    ------
    ValueError, TypeError
        For bad input, by the argument's name.

    Examples
    --------
    Two correlated centres to a class, the second class half as frequent, noise of rank 3:

    >>> rng = np.random.default_rng(0)
    >>> mu = np.eye(4, 50) + 0.3 * np.eye(1, 50)
    >>> noise = 0.1 * rng.standard_normal((4, 50, 3))
    >>> mixture = pf.GaussianMixture(mu, [1, 1, -1, -1], [2, 2, 1, 1], noise=noise, floor=0.05)
    >>> data = mixture.sample(6000, balanced=True, rng=1)
    """

    def __init__(
        self,
        centers: ArrayLike,
        labels: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        noise: ArrayLike | None = None,
        covariances: ArrayLike | None = None,
        floor: float = 0.0,
        label_noise: float = 0.0,
    ) -> None:
        self.centers: Float64 = _arrays.real_array(centers, "centers", dtype=np.float64, ndim=2).astype(np.float64)
        if np.abs(self.centers).max() > _noise.LARGEST:
            raise ValueError(f"centers must be at most {_noise.LARGEST:g}, got {np.abs(self.centers).max():g}")
        self.centers.flags.writeable = False
        self.dim = self.centers.shape[1]
        self._labels = as_labels(labels, "labels", len(self.centers), "centers")
        if np.all(self._labels == self._labels[0]):
            raise ValueError(f"labels must hold at least two different ones, got {self._labels[0]} alone")
        self.weights: Float64 = _shares(weights, len(self.centers))
        self.noise: Float64 = _noise.checked(noise, covariances, *self.centers.shape)
        self.floor = _arrays.real(floor, "floor", minimum=0.0, maximum=_noise.LARGEST)
        if self.floor and self.noise.ndim < 3:
            raise ValueError(f"floor must be 0 unless noise has factors (K, D, r), or covariances, got {self.floor:g}")
        self.label_noise = _arrays.real(label_noise, "label_noise", minimum=0.0)
        if self.label_noise >= 1.0 - 1.0 / len(self.classes):
            raise ValueError(
                f"label_noise must be less than 1 - 1/C = {1.0 - 1.0 / len(self.classes):g} for {len(self.classes)} "
                f"different labels, got {self.label_noise:g}"
            )

    @property
    def clusters(self) -> int:
        """K."""
        return len(self.centers)

    @property
    def labels(self) -> NDArray[Any]:
        """Label of each cluster, shape (K,)."""
        return self._labels.copy()

    @property
    def classes(self) -> NDArray[np.int64]:
        """The different labels, sorted, shape (C,)."""
        return np.unique(self.labels).astype(np.int64)

    def covariance(self, k: int) -> Float64:
        """Covariance matrix of the points of cluster k, shape (D, D)."""
        k = _arrays.integer(k, "k", minimum=0, maximum=self.clusters - 1)
        _arrays.require_room("k", self.dim, self.dim)
        return _noise.covariance(self.noise, self.floor, k, self.dim)

    def sample(
        self,
        n: int,
        *,
        balanced: bool = False,
        dtype: DTypeLike = "float32",
        rng: Rng = None,
        out: Float | None = None,
    ) -> Dataset:
        """Draw n labelled points.

        Parameters
        ----------
        n : int
            Number of points.
        balanced : bool, default False
            True: exactly n w_k points of each cluster, in cluster order: n/K where all are equally likely (MV25, eq.
            6). False: clusters drawn independently, with these probabilities (eq. 1).
        dtype : {"float32", "float64"}
            Of X, and of y where labels are -1 and +1 (others are int64). The two draw different points from the same
            rng.
        rng : None, int or Generator
            Source of randomness.
        out : array, shape (n, D), optional
            C-contiguous float array to fill, for instance a ``np.memmap``; its dtype then counts.

        Raises
        ------
        ValueError
            If ``balanced`` and some n w_k is no integer, or ``out`` does not fit.
        """
        n = _arrays.integer(n, "n", minimum=1)
        balanced = _arrays.flag(balanced, "balanced")
        if out is not None and (not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray)):
            raise TypeError(f"out must be an array, got {type(out).__name__}")
        kind = _arrays.dtype_of(dtype)
        if out is not None:
            kind = _arrays.dtype_of(out.dtype, "out.dtype")
        far = max(float(np.abs(self.centers).max()), float(np.abs(self.noise).max()), self.floor)
        if far > 1e-3 * float(np.finfo(kind).max):
            raise ValueError(f"dtype must hold points as far away as {far:g}, {kind} does not")
        _arrays.require_room(
            "n", n, 2 if out is not None else self.dim, itemsize=8 if out is not None else kind.itemsize
        )
        generator = _arrays.generator(rng)
        z = self._clusters_of(n, balanced, generator)
        if out is None:
            out = np.empty((n, self.dim), dtype=kind)
        elif out.shape != (n, self.dim) or not out.flags.c_contiguous or not out.flags.writeable:
            raise ValueError(f"out must be a writable C-contiguous array of shape ({n}, {self.dim}), got {out.shape}")
        centers = self.centers.astype(kind)
        for start in range(0, n, _ROWS):
            rows, which = out[start : start + _ROWS], z[start : start + _ROWS]
            _noise.add(rows, which, self.noise, self.floor, generator)
            rows += centers[which]
        return Dataset(X=out, y=self._labels_of(z, kind, generator), z=z.astype(np.intp))

    def _clusters_of(self, n: int, balanced: bool, generator: np.random.Generator) -> NDArray[Any]:
        """Clusters (n,): of equal weights by the draws that OrthonormalGMM has always made."""
        equal = bool(np.all(self.weights == self.weights[0]))
        if not balanced:
            if equal:
                return generator.integers(self.clusters, size=n)
            return generator.choice(self.clusters, size=n, p=self.weights)
        if equal:
            if n % self.clusters:
                raise ValueError(f"n must be divisible by the {self.clusters} clusters when balanced, got {n}")
            return np.repeat(np.arange(self.clusters), n // self.clusters)
        exact = n * self.weights
        counts = np.rint(exact).astype(np.int64)
        off = np.abs(exact - counts)
        if off.max() > _WHOLE or counts.sum() != n:
            k = int(np.argmax(off))
            raise ValueError(
                f"n must give each cluster a whole number of points when balanced, got {n} with n weights[{k}] = "
                f"{exact[k]:g}"
            )
        return np.repeat(np.arange(self.clusters), counts)

    def _labels_of(self, z: NDArray[Any], kind: np.dtype[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Labels (n,) of points of clusters z (n,), with their noise."""
        classes = self.classes
        y: NDArray[Any] = self.labels[z].astype(kind if np.array_equal(classes, (-1, 1)) else np.int64)
        if self.label_noise > 0:
            wrong = np.flatnonzero(generator.random(len(z)) < self.label_noise)
            here = np.searchsorted(classes, y[wrong])
            y[wrong] = classes[(here + generator.integers(1, len(classes), size=len(wrong))) % len(classes)]
        return y

    def config(self) -> dict[str, Any]:
        """Describe the mixture in plain numbers, for results' metadata."""
        return {
            "dim": self.dim,
            "labels": self.labels.tolist(),
            "weights": self.weights.tolist(),
            "noise": self.noise.tolist() if self.noise.ndim < 2 else list(self.noise.shape),
            "floor": self.floor,
            "label_noise": self.label_noise,
        }

    def __repr__(self) -> str:
        """Show the parameters, not the centres."""
        more = "".join(f", {name}={getattr(self, name):g}" for name in ("floor", "label_noise") if getattr(self, name))
        classes = _arrays.shown(self.classes.tolist())
        noise = self._noise_told()
        return f"GaussianMixture(dim={self.dim}, clusters={self.clusters}, classes={classes}, noise={noise}{more})"

    def _noise_told(self) -> str:
        return f"{self.noise[()]:g}" if self.noise.ndim == 0 else f"<{self.noise.shape}>"

    def _repr_html_(self) -> str:
        """Show sizes, classes and noise, and the weight of each cluster."""
        rows = {
            "dimension D, clusters K": f"{self.dim}, {self.clusters}",
            "classes": _arrays.shown(self.classes.tolist()),
            "noise": self._noise_told(),
            "label noise": f"{self.label_noise:g}",
        }
        return _html.table(type(self).__name__, rows, _html.bars(self.weights), "weight of each cluster")


def as_labels(labels: ArrayLike, name: str, n: int, of: str) -> NDArray[np.int64]:
    """Labels (n,), integers of any real dtype, as int64."""
    given = _arrays.as_array(labels, name)
    if given.dtype.kind not in "iuf":
        raise TypeError(
            f"{name} must hold integers, got dtype {given.dtype}; encode other labels by np.unique(..., "
            "return_inverse=True)"
        )
    if given.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},) to match {of}, got {given.shape}")
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(given.astype(np.float64)) <= _LARGEST_LABEL) | (given != np.floor(given))
    if wrong.any():
        k = int(np.argmax(wrong))
        raise ValueError(f"{name} must hold integers of at most 2**53, but {name}[{k}] is {given[k]}")
    return given.astype(np.int64)


def _shares(weights: ArrayLike | None, clusters: int) -> Float64:
    """Probabilities (K,) of the clusters."""
    if weights is None:
        result = np.full(clusters, 1.0 / clusters)
    else:
        given = _arrays.real_array(weights, "weights", dtype=np.float64, ndim=1)
        if given.shape != (clusters,):
            raise ValueError(f"weights must have shape ({clusters},) to match centers, got {given.shape}")
        if given.min() <= 0:
            raise ValueError(f"weights must be greater than 0, got {given.min():g}")
        result = given / given.max()
        result = result / result.sum()
        if not result.min() > 0:
            raise ValueError(f"weights must be within float64 of one another, got {given.min():g} and {given.max():g}")
    result.flags.writeable = False
    return result


class OrthonormalGMM(GaussianMixture):
    """Mixture of K = K1 + K2 Gaussians N(mu_k, alpha^2 I / D) with orthonormal centres (MV25, eq. 1).

    The label is +1 for the first K1 clusters and -1 for the others.

    Parameters
    ----------
    dim : int
        D, the dimension of the inputs; at least K.
    positive, negative : int
        K1 and K2, the numbers of clusters of each label; at least 1 each.
    alpha : float
        Intra-cluster standard deviation of the whole vector: E||x - mu_k||^2 = alpha^2. Not negative.
    centers : {"random", "canonical"} or array, shape (K, D), default "random"
        Haar-random orthonormal rows, the first K unit vectors, or the centres themselves; given ones are replaced by
        the nearest orthonormal rows, in float64, where they are not orthonormal to rounding (float32 ones, say).
    rng : None, int or Generator
        Draws the random centres.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range, K > D, or given centres are not orthonormal within 1e-5.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> data = gmm.sample(100, balanced=True, rng=1)
    >>> data.X.shape, data.y[:3].tolist(), data.z[[0, 25, 50, 75]].tolist()
    ((100, 20), [1.0, 1.0, 1.0], [0, 1, 2, 3])
    """

    def __init__(
        self,
        dim: int,
        positive: int,
        negative: int,
        alpha: float,
        centers: str | ArrayLike = "random",
        rng: Rng = None,
    ) -> None:
        self.dim = _arrays.integer(dim, "dim", minimum=1)
        self.positive = _arrays.integer(positive, "positive", minimum=1)
        self.negative = _arrays.integer(negative, "negative", minimum=1)
        self.alpha = _arrays.real(alpha, "alpha", minimum=0.0, maximum=_LARGEST_ALPHA)
        if self.clusters > self.dim:
            raise ValueError(f"dim must be at least positive + negative = {self.clusters}, got {self.dim}")
        _arrays.require_room("dim", self.clusters, self.dim)
        self.centers: Float64 = self._make_centers(centers, rng)
        self.centers.flags.writeable = False
        self.weights = _shares(None, self.clusters)
        self.noise = _noise.checked(self.alpha, None, self.clusters, self.dim)
        self.floor = self.label_noise = 0.0

    def _make_centers(self, centers: str | ArrayLike, rng: Rng) -> Float64:
        K, D = self.clusters, self.dim
        generator = _arrays.generator(rng)
        if isinstance(centers, str):
            _arrays.choice(centers, "centers", ("random", "canonical"))
            if centers == "canonical":
                return np.eye(K, D)
            Q, R = np.linalg.qr(generator.standard_normal((D, K)))
            return np.ascontiguousarray((Q * np.sign(np.diag(R))).T)  # the sign makes Q Haar-distributed
        result = _arrays.orthonormal_rows(centers).copy()
        if result.shape != (K, D):
            raise ValueError(f"centers must have shape (positive + negative, dim) = ({K}, {D}), got {result.shape}")
        return result

    @property
    def clusters(self) -> int:
        """K = K1 + K2."""
        return self.positive + self.negative

    @property
    def labels(self) -> Float64:
        """Label of each cluster, shape (K,)."""
        return np.repeat([1.0, -1.0], [self.positive, self.negative])

    def config(self) -> dict[str, Any]:
        """Describe the mixture in plain numbers, for results' metadata."""
        return {"dim": self.dim, "positive": self.positive, "negative": self.negative, "alpha": self.alpha}

    def __repr__(self) -> str:
        """Show the parameters, not the centres."""
        return (
            f"OrthonormalGMM(dim={self.dim}, positive={self.positive}, negative={self.negative}, alpha={self.alpha:g})"
        )
