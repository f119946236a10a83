"""What is known of the robustness of points: a bracket on each radius."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays, _exports, _html, _npz
from preluflow._arrays import Float64
from preluflow._brackets import CERTIFICATES
from preluflow.results import environment, naming, read_npz, write_npz

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

_ARRAYS = ("lower", "upper", "witness", "correct")  # of a result, and of its file
_TRACE = ("certificate", "rival", "rounds", "nodes")  # of a result of a network, and of files since version 0.2


@dataclass
class RobustRadius:
    """A bracket on the l2 distance of each point to the decision boundary.

    An error is y f(x) <= 0, or F_y(x) <= F_c(x) for a rival class c: the radius of a misclassified point is 0.

    Attributes
    ----------
    lower : ndarray, shape (n,)
        Certified: no perturbation of this length or less changes the decision.
    upper : ndarray, shape (n,)
        Attacked: the length of ``witness``, which does; inf where no error was found.
    witness : ndarray, shape (n, D)
        Perturbations: x + witness is an error, evaluated on the whole network in float64; 0 where none was found.
    correct : ndarray of bool, shape (n,)
        Whether x is no error, outputs being exact: also where their powers leave float64.
    reached : ndarray of int64, shape (n,), or None
        The class that x + witness is taken for, or that ties with the right one; the right one where no error was
        found. None in files of versions that knew two classes only.
    config, environment : dict
        What was asked, and the versions and instruction set that answered.
    trace : dict of ndarray, shape (n,)
        How the bracket of a network came about: ``certificate`` (its name: ``certificates``), ``rival`` (the class it
        is about), ``rounds`` of moving contacts, ``nodes`` of branch and bound. Empty for other classifiers.

    Examples
    --------
    >>> gmm = pf.OrthonormalGMM(dim=20, positive=2, negative=2, alpha=0.1, rng=0)
    >>> net = pf.classifiers.cluster_prelu(gmm, p=3)  # F^(3)
    >>> radius = pf.robust_radius(net, gmm.centers, gmm.labels)
    >>> certified, attacked = radius.accuracy([0.5, 0.7, 0.8])
    >>> certified.tolist(), attacked.tolist()
    ([1.0, 1.0, 0.0], [1.0, 1.0, 0.0])
    """

    lower: Float64
    upper: Float64
    witness: Float64
    correct: NDArray[np.bool_]
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=environment)
    reached: NDArray[np.int64] | None = None
    trace: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def certificates(self) -> list[str]:
        """Which certificate ``lower`` is, of each point: "tangent", "slice", "flat", "branch and bound" or "none"."""
        return [CERTIFICATES[k] for k in self.trace.get("certificate", np.zeros(len(self.lower), dtype=np.int64))]

    @property
    def consistent(self) -> NDArray[np.bool_]:
        """Where lower <= upper, as it must be everywhere; elsewhere is a bug worth reporting."""
        return np.asarray(self.lower <= self.upper)

    def accuracy(self, eps: ArrayLike) -> tuple[Float64, Float64]:
        """Share of points that survive every perturbation of length <= ``eps``: at least, and at most.

        Parameters
        ----------
        eps : float or array, shape (R,)
            Radii, not negative.

        Returns
        -------
        certified, attacked : ndarray, shape () or (R,)
            The truth lies between.
        """
        radii = _arrays.numbers_in(eps, "eps", minimum=0.0)
        count = len(self.lower)
        # Certified: no error within the closed ball; attacked: none was found in it.
        lower, upper = (np.sort(np.where(self.correct, radius, -1.0)) for radius in (self.lower, self.upper))
        certified = 1.0 - np.searchsorted(lower, radii, side="left") / count
        attacked = 1.0 - np.searchsorted(upper, radii, side="right") / count
        return np.asarray(certified), np.asarray(attacked)

    def summary(self) -> str:
        """Tell the bracket in a few lines: accuracy, quantiles of the radii and of their ratio."""
        right = self.correct & (self.upper > 0)
        note = "" if self.config.get("certified", True) else ", attacked only"
        lines = [f"{len(self.lower)} points, accuracy {self.correct.mean():.4f}{note}"]
        if right.any():
            quantiles = (0.05, 0.5, 0.95)
            for name, values in (
                ("certified", self.lower[right]),
                ("attacked", self.upper[right]),
                ("certified / attacked", self.lower[right] / self.upper[right]),
            ):
                low, median, high = np.quantile(values, quantiles)
                lines.append(f"{name}: median {median:.4f} (5% {low:.4f}, 95% {high:.4f}, min {values.min():.4f})")
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Show the medians."""
        low, high = np.median(self.lower), np.median(self.upper)
        note = "" if self.config.get("certified", True) else ", attacked only"
        return f"RobustRadius({len(self.lower)} points, median in [{low:.4f}, {high:.4f}]{note})"

    def to_dataframe(self) -> pandas.DataFrame:
        """Return a ``pandas.DataFrame`` with a row for each point, without the witnesses.

        Its columns are lower, upper, correct and, where known, reached, certificate (its name), rival, rounds, nodes.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return _exports.radius_frame(self)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw certified and attacked robust accuracy against the radius; see ``plots.radius_panel``.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default those of a new figure, ``.figure`` of what is returned.
        """
        from preluflow import plots

        if ax is None:
            with plots.style():
                ax = plots.new_figure(1)[1][0]
        plots.radius_panel(ax, self)
        return ax

    def _repr_html_(self) -> str:
        """Show the summary's numbers and the curves of certified and attacked accuracy."""
        rows = {}
        for text in self.summary().splitlines():
            name, colon, value = text.partition(": ")
            rows[name if colon else "points"] = value if colon else text
        top = float(np.max(self.upper[np.isfinite(self.upper)], initial=0.0)) * 1.05
        eps = np.linspace(0.0, top, 201)
        certified, attacked = self.accuracy(eps)
        caption = f"robust accuracy at radii up to {top:.4g}: attacked, certified dashed"
        return _html.table("Robust radius", rows, _html.line([(eps, attacked), (eps, certified)]), caption)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to an npz file (no pickle), atomically.

        A path that is a symbolic link is written through; anything but a regular file is refused.

        Raises
        ------
        ValueError
            If the arrays do not belong together, so that the file could not be loaded again.
        OSError
            If the file cannot be written; one that was there stays.
        """
        self._check()
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        if self.reached is not None:
            arrays["reached"] = self.reached
        arrays.update({f"trace_{name}": values for name, values in self.trace.items()})
        write_npz(path, "robust_radius", arrays, {"config": self.config, "environment": self.environment})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RobustRadius:
        """Load what ``save`` wrote; ValueError if the file is damaged, hostile or something else."""
        arrays, meta = read_npz(path, "robust_radius")
        with naming(path):
            trace = {name: arrays[f"trace_{name}"] for name in _TRACE if f"trace_{name}" in arrays}
            reached = arrays.get("reached")
            further = {f"trace_{name}" for name in trace} | ({"reached"} if reached is not None else set())
            _npz.expect_names(arrays, (*_ARRAYS, *sorted(further)))
            config, versions = (_npz.field(meta, name, dict) for name in ("config", "environment"))
            lower, upper, witness, correct = (arrays[name] for name in _ARRAYS)
            radius = cls(lower, upper, witness, correct, config, versions, reached, trace)
            radius._check()
        return radius

    def _check(self) -> None:
        """Raise ValueError if the arrays do not belong together, or a radius is none."""
        count = len(_npz.expect(self.lower, "lower", "f", ("n",)))
        _npz.expect(self.correct, "correct", "b", (count,))
        for name, radii in (("lower", self.lower), ("upper", self.upper)):
            if not np.all(_npz.expect(radii, name, "f", (count,)) >= 0):
                raise ValueError(f"{name} must hold radii, not negative and not NaN")
        if not count:
            raise ValueError("lower must hold at least one radius")
        if self.reached is not None:
            _npz.expect(self.reached, "reached", "i", (count,))
        for name, values in self.trace.items():
            _npz.expect(values, f"trace_{name}", "i", (count,))
        if len(certificate := self.trace.get("certificate", np.zeros(0, dtype=np.int64))) and not (
            0 <= certificate.min() and certificate.max() < len(CERTIFICATES)
        ):
            raise ValueError(f"trace_certificate must hold numbers from 0 to {len(CERTIFICATES) - 1}")
        if not np.isfinite(_npz.expect(self.witness, "witness", "f", (count, "D"))).all():
            raise ValueError("witness must be finite")
