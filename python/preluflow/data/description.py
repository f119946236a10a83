"""How far data are from the paper's mixture: orthonormal cluster means and isotropic noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from preluflow import _arrays
from preluflow._arrays import Float64
from preluflow.data.mixture import Dataset, as_labels

Groups = Literal["cluster", "class"]

_SHOWN = 12  # groups in a table
_LARGEST = 1e150  # of a feature: its square is a float64


@dataclass(frozen=True, repr=False)
class Description:
    """Means, spread and orthonormality of the groups of a data set; ``print`` it for a table.

    Attributes
    ----------
    by : {"cluster", "class"}
        What the G groups are.
    groups : ndarray of int, shape (G,)
        Number or label of each.
    counts : ndarray of int, shape (G,)
        Points in each.
    means : ndarray, shape (G, D)
        m_g, the mean of each group's points.
    gram : ndarray, shape (G, G)
        Their inner products <m_g, m_h>.
    cosines : ndarray, shape (G, G)
        Cosines of their angles; 0 with a mean that is 0.
    scale : float
        Root mean square of ||m_g||: the paper's is 1.
    deviation : float
        max |gram / scale^2 - I|: 0 for means that are orthonormal but for one common factor, which changes no sign of a
        network without biases. 1 is as far as two equal means of norm ``scale`` are, or a mean that is 0.
    worst : tuple of int
        Where that is, two places in ``groups``.
    spread : ndarray, shape (G,)
        Root mean square distance of a group's points to their mean: the paper's alpha.
    sampling : ndarray, shape (G,)
        spread / sqrt(count): how far, in root mean square, a mean of so many points is from the true one.
    effective_rank : ndarray, shape (G,)
        (tr S)^2 / tr S^2 of a group's sample covariance S, at most D and count - 1: near D of many more than D points
        with isotropic noise, near r with r equal variances; 0 if S is 0.
    norms : tuple of float
        Least, median and largest ||x|| of all points.

    Examples
    --------
    >>> about = pf.data.describe(pf.OrthonormalGMM(30, 2, 2, alpha=0.1, rng=0).sample(4000, balanced=True, rng=1))
    >>> about.counts.tolist(), round(about.deviation, 1), about.spread.round(2).tolist()
    ([1000, 1000, 1000, 1000], 0.0, [0.1, 0.1, 0.1, 0.1])
    """

    by: Groups
    groups: NDArray[np.int64]
    counts: NDArray[np.intp]
    means: Float64
    gram: Float64
    cosines: Float64
    scale: float
    deviation: float
    worst: tuple[int, int]
    spread: Float64
    sampling: Float64
    effective_rank: Float64
    norms: tuple[float, float, float]

    def summary(self) -> str:
        """Return the table that ``print`` shows."""
        G, D = self.means.shape
        others = self.cosines - 2.0 * np.eye(G)
        head = ("cluster" if self.by == "cluster" else "class", "points", "|mean|", "spread", "eff. rank")
        lines = [
            f"{int(self.counts.sum())} points in R^{D}, norms {self.norms[0]:.4g} to {self.norms[2]:.4g} "
            f"(median {self.norms[1]:.4g})",
            f"{head[0]:>8} {head[1]:>8} {head[2]:>9} {head[3]:>9} {head[4]:>10}   cosines with other means",
        ]
        for g in range(min(G, _SHOWN)):
            rest = np.delete(others[g], g)
            cosines = f"{rest.min():+.3f} to {rest.max():+.3f}" if G > 1 else "-"
            lines.append(
                f"{self.groups[g]:>8} {self.counts[g]:>8} {np.sqrt(self.gram[g, g]):>9.4g} {self.spread[g]:>9.4g} "
                f"{self.effective_rank[g]:>10.4g}   {cosines}"
            )
        if G > _SHOWN:
            lines.append(f"{'...':>8} and {G - _SHOWN} more")
        i, j = (int(self.groups[g]) for g in self.worst)
        scale = self.scale or 1.0
        off = self.sampling.max() / scale
        lines += [
            f"means / {self.scale:.4g} are orthonormal within {self.deviation:.3g}, worst {i} and {j} (paper: 0); "
            f"sampling moves a mean by {off:.2g}",
            f"spread / {self.scale:.4g} is at most {self.spread.max() / scale:.3g} (paper: alpha << 1), "
            f"effective rank at least {self.effective_rank.min():.3g} (paper: D = {D})",
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Show the table."""
        return self.summary()


def describe(data: Dataset, by: Groups = "cluster") -> Description:
    """Say where the paper's assumption stands for a data set: means' Gram matrix, counts, spread, norms.

    Parameters
    ----------
    data : Dataset
        For instance of ``from_features``, ``load_digits`` or a mixture's ``sample``.
    by : {"cluster", "class"}, default "cluster"
        Groups: the clusters ``data.z`` (of ``from_features`` they are the classes), or the labels ``data.y``.

    Raises
    ------
    ValueError, TypeError
        For bad input, by the argument's name.

    Examples
    --------
    >>> about = pf.data.describe(pf.data.load_digits("ten", center=True, unit=True))  # ``print`` it for a table
    >>> about.groups.tolist(), round(about.deviation, 1)
    ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 0.7)
    """
    _arrays.instance(data, "data", Dataset)
    by = _arrays.choice(by, "by", get_args(Groups))
    X = _arrays.points(data.X).astype(np.float64)
    if np.abs(X).max() > _LARGEST:
        raise ValueError(f"data.X must be at most {_LARGEST:g}, got {np.abs(X).max():g}")
    key = as_labels(data.z if by == "cluster" else data.y, "data.z" if by == "cluster" else "data.y", len(X), "data.X")
    groups, place, counts = np.unique(key, return_inverse=True, return_counts=True)
    place = place.reshape(-1)
    parts = [_about_mean(X[place == g]) for g in range(len(groups))]
    means = np.stack([mean for mean, _, _ in parts])
    spread, rank = (np.array([part[i] for part in parts]) for i in (1, 2))
    gram = means @ means.T
    lengths = np.sqrt(np.diag(gram))
    scale = float(np.sqrt(np.mean(lengths**2)))
    unit = np.where(lengths > 0, lengths, 1.0)
    error = np.abs(gram / (scale**2 or 1.0) - np.eye(len(gram)))
    i, j = np.unravel_index(int(np.argmax(error)), error.shape)
    norms = np.linalg.norm(X, axis=1)
    return Description(
        by,
        groups,
        counts,
        means,
        gram,
        gram / np.outer(unit, unit),
        scale,
        float(error[i, j]),
        (int(i), int(j)),
        spread,
        spread / np.sqrt(counts),
        rank,
        (float(norms.min()), float(np.median(norms)), float(norms.max())),
    )


def _about_mean(X: Float64) -> tuple[Float64, float, float]:
    """Mean of the rows, root mean square distance to it and effective rank (tr S)^2 / tr S^2."""
    d = X - X[0]  # so that rows that are the same have no spread at all
    off = d.mean(axis=0)
    mean = X[0] + off
    d -= off
    size = float(np.abs(d).max())
    if size == 0.0:
        return mean, 0.0, 0.0
    d /= size
    products = d @ d.T if len(d) < d.shape[1] else d.T @ d
    total = float(np.trace(products))
    return mean, size * float(np.sqrt(total / len(d))), total**2 / float((products**2).sum())
