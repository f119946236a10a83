"""Orthonormal Gaussian mixtures: the data of MV25, section 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from preluflow import _arrays
from preluflow._arrays import Float, Float64

Rng = None | int | np.random.Generator

_LARGEST_ALPHA = 1e150  # its square is a float64

_ROWS = 4096  # rows drawn at a time: no temporary grows with n


@dataclass(frozen=True)
class Dataset:
    """A labelled sample of a mixture.

    Attributes
    ----------
    X : ndarray, shape (n, D)
        Points, float32 or float64.
    y : ndarray, shape (n,)
        Labels -1 and +1, in the dtype of X.
    z : ndarray of int, shape (n,)
        Cluster of each point, 0 .. K-1 (the paper's z - 1).
    """

    X: Float
    y: Float
    z: NDArray[np.intp]

    def __len__(self) -> int:
        """Return the number of points n."""
        return int(self.X.shape[0])


class OrthonormalGMM:
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
            True: exactly n/K points of each cluster, in cluster order (eq. 6). False: clusters drawn
            independently and uniformly (eq. 1).
        dtype : {"float32", "float64"}
            Of X and y. The two draw different points from the same rng.
        rng : None, int or Generator
            Source of randomness.
        out : array, shape (n, D), optional
            C-contiguous float array to fill, for instance a ``np.memmap``; its dtype then counts.

        Raises
        ------
        ValueError
            If ``balanced`` and K does not divide n, or ``out`` does not fit.
        """
        n = _arrays.integer(n, "n", minimum=1)
        balanced = _arrays.flag(balanced, "balanced")
        if out is not None and (not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray)):
            raise TypeError(f"out must be an array, got {type(out).__name__}")
        kind = _arrays.dtype_of(dtype)
        if out is not None:
            kind = _arrays.dtype_of(out.dtype, "out.dtype")
        if self.alpha > 1e-3 * float(np.finfo(kind).max):
            raise ValueError(f"dtype must hold points as far away as alpha = {self.alpha:g}, {kind} does not")
        _arrays.require_room(
            "n", n, 2 if out is not None else self.dim, itemsize=8 if out is not None else kind.itemsize
        )
        generator = _arrays.generator(rng)
        if balanced:
            if n % self.clusters:
                raise ValueError(f"n must be divisible by the {self.clusters} clusters when balanced, got {n}")
            z = np.repeat(np.arange(self.clusters), n // self.clusters)
        else:
            z = generator.integers(self.clusters, size=n)
        if out is None:
            out = np.empty((n, self.dim), dtype=kind)
        elif out.shape != (n, self.dim) or not out.flags.c_contiguous or not out.flags.writeable:
            raise ValueError(f"out must be a writable C-contiguous array of shape ({n}, {self.dim}), got {out.shape}")
        centers = self.centers.astype(kind)
        for start in range(0, n, _ROWS):
            rows = out[start : start + _ROWS]
            generator.standard_normal(out=rows, dtype=kind.type)
            rows *= self.alpha / np.sqrt(self.dim)
            rows += centers[z[start : start + _ROWS]]
        return Dataset(X=out, y=self.labels[z].astype(kind), z=z.astype(np.intp))

    def config(self) -> dict[str, Any]:
        """Describe the mixture in plain numbers, for results' metadata."""
        return {"dim": self.dim, "positive": self.positive, "negative": self.negative, "alpha": self.alpha}

    def __repr__(self) -> str:
        """Show the parameters, not the centres."""
        return (
            f"OrthonormalGMM(dim={self.dim}, positive={self.positive}, negative={self.negative}, alpha={self.alpha:g})"
        )
