"""The noise of a Gaussian mixture: what it may be given as, how it is drawn, and the densities it makes.

A number or (K,) is isotropic, (K, D) one standard deviation a coordinate, (K, D, r) factors A_k with covariance
A_k A_k^T, to which an isotropic ``floor`` may be added (docs/mathematics.md#general-mixture).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from preluflow import _arrays
from preluflow._arrays import Float, Float64

LARGEST = 1e150  # of what is given: its square is a float64
# Of the largest eigenvalue of a covariance matrix: how far it may be from symmetric, and below 0, by rounding (a matrix
# that was float32 once included).
_ROUNDED = 1e-6
_SINGULAR = 1e-12  # of the largest variance of a cluster: a smaller one is 0, and there is no density


def checked(noise: ArrayLike | None, covariances: ArrayLike | None, clusters: int, dim: int) -> Float64:
    """Return ``noise`` as an array of one of its shapes, or the factors of ``covariances``; read-only, float64."""
    if (noise is None) == (covariances is None):
        raise ValueError(
            f"noise must be given, or covariances in its place, got {'neither' if noise is None else 'both'}"
        )
    result = _factors(covariances, clusters, dim) if noise is None else _given(noise, clusters, dim)
    result.flags.writeable = False
    return result


def _given(noise: ArrayLike, clusters: int, dim: int) -> Float64:
    result = _arrays.numbers_in(noise, "noise", ndim=3)
    fits = ((), (clusters,), (clusters, dim), (clusters, dim, *result.shape[2:]))[result.ndim]
    if result.shape != fits or not result.size:
        raise ValueError(
            f"noise must be a number or have shape ({clusters},), ({clusters}, {dim}) or ({clusters}, {dim}, r) for "
            f"{clusters} centers in R^{dim}, got {result.shape}"
        )
    if result.ndim < 3 and result.min() < 0.0:
        raise ValueError(f"noise must be at least 0, got {result.min():g}")
    if np.abs(result).max() > LARGEST:
        raise ValueError(f"noise must be at most {LARGEST:g}, got {np.abs(result).max():g}")
    return result


def _factors(covariances: Any, clusters: int, dim: int) -> Float64:
    """Factors A_k = Q sqrt(lambda) (K, D, D) of covariance matrices Q lambda Q^T."""
    given = _arrays.real_array(covariances, "covariances", dtype=np.float64, ndim=3)
    if given.shape != (clusters, dim, dim):
        raise ValueError(f"covariances must have shape ({clusters}, {dim}, {dim}), got {given.shape}")
    result = np.empty(given.shape)
    for k, matrix in enumerate(given):
        size = float(np.abs(matrix).max())
        if size > LARGEST:
            raise ValueError(f"covariances must be at most {LARGEST:g}, but covariances[{k}] holds {size:g}")
        if np.abs(matrix - matrix.T).max() > _ROUNDED * size:
            raise ValueError(f"covariances must be symmetric, but covariances[{k}] is not")
        values, vectors = np.linalg.eigh(0.5 * matrix + 0.5 * matrix.T)
        if values[0] < -_ROUNDED * size:
            raise ValueError(
                f"covariances must have no negative eigenvalue, but one of covariances[{k}] is {values[0]:g}"
            )
        result[k] = vectors * np.sqrt(np.maximum(values, 0.0))
    return result


def add(rows: Float, z: Any, noise: Float64, floor: float, generator: np.random.Generator) -> None:
    """Fill rows (m, D) with the noise of clusters z (m,). Isotropic: alpha / sqrt(D) times standard normals."""
    kind, dim = rows.dtype.type, rows.shape[1]
    if noise.ndim < 3:
        generator.standard_normal(out=rows, dtype=kind)
        if noise.ndim == 0:
            rows *= noise[()] / np.sqrt(dim)
        else:
            rows *= (noise[:, None] / np.sqrt(dim) if noise.ndim == 1 else noise)[z].astype(kind, copy=False)
        return
    latent = generator.standard_normal((len(rows), noise.shape[2]), dtype=kind)
    for k in np.unique(z):
        which = z == k
        rows[which] = latent[which] @ noise[k].T.astype(kind)
    if floor > 0:
        around = generator.standard_normal(rows.shape, dtype=kind)
        around *= floor / np.sqrt(dim)
        rows += around


def variances(noise: Float64, k: int, dim: int) -> Float64:
    """Variances (D,) of cluster k's coordinates, for noise that is not factors."""
    if noise.ndim == 2:
        return np.asarray(noise[k] ** 2)
    alone = noise[k] if noise.ndim else noise[()]
    return np.full(dim, alone**2 / dim)


def covariance(noise: Float64, floor: float, k: int, dim: int) -> Float64:
    """Covariance matrix (D, D) of cluster k."""
    if noise.ndim < 3:
        return np.diag(variances(noise, k, dim))
    return np.asarray(noise[k] @ noise[k].T + floor**2 / dim * np.eye(dim))


class Density:
    """The Gaussian density of one cluster about its centre, of full rank: the inverse of its covariance, and log det.

    Of factors A = U diag(s) V^T the covariance is U diag(s^2 + t) U^T + t (I - U U^T) with t = floor^2/D; its inverse
    is I/t + U diag(1/(s^2 + t) - 1/t) U^T. Where U has D columns any t will do in that; the largest variance is taken.
    """

    def __init__(self, noise: Float64, floor: float, k: int, dim: int) -> None:
        self._basis, self._gain = np.empty((dim, 0)), np.empty(0)
        if noise.ndim < 3:
            every = self._rest = variances(noise, k, dim)
        else:
            self._basis, sizes, _ = np.linalg.svd(noise[k], full_matrices=False)
            inside = sizes**2 + floor**2 / dim
            outside = np.full(dim - len(inside), floor**2 / dim)
            every = np.concatenate([inside, outside])
            self._rest = np.full(dim, outside[0] if len(outside) else inside.max())
        if not every.min() > max(_SINGULAR * every.max(), float(np.finfo(np.float64).tiny)):
            raise ValueError(
                f"mixture must have noise in every direction, but cluster {k} has variances from {every.min():g} to "
                f"{every.max():g}: give it a floor, or use NearestCenter"
            )
        self.log_det = float(np.sum(np.log(every)))
        if noise.ndim == 3:
            self._gain = 1.0 / inside - 1.0 / self._rest[0]

    def solve(self, d: Float64) -> Float64:
        """Inverse of the covariance times every row of d (n, D)."""
        return np.asarray(d / self._rest + ((d @ self._basis) * self._gain) @ self._basis.T)
