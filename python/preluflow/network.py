"""Two-layer networks in polar form."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from preluflow import _arrays, _html, _parts, _targets
from preluflow import loss as losses
from preluflow._arrays import Float, Float64
from preluflow._dispatch import core
from preluflow._lazy import lazy
from preluflow.loss import LOSSES, TRAINING_LOSSES, LossGradient, mean_loss
from preluflow.loss import residual as _residual
from preluflow.typing import Activation, TrainingLoss

if TYPE_CHECKING:
    import torch

    from preluflow._core import Evaluator, _Network
    from preluflow.torch_module import TwoLayerModule

__all__ = ["ACTIVATIONS", "LOSSES", "LossGradient", "TwoLayerNetwork", "_residual", "mean_loss", "require_plain"]

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
_LEAST, _MOST = 1e-200, 1e300  # outputs whose order float64 holds


class TwoLayerNetwork:
    r"""A two-layer network, immutable, held as directions, log-norms and output weights.

    With sigma = relu, D inputs, h neurons and one output (C = 1; its sign decides):

    - ``"prelu"``: f(x) = sum_j v_j sigma(<x,w_j>)^p / ||w_j||^(p-1), MV25 eq. 5 (p = 1: a ReLU network);
    - ``"polynomial"``: f(x) = sum_j v_j sigma(<x,w_j>)^p, MV25 App. B.2;
    - ``"tanh"``: f(x) = sum_j v_j tanh(<x,w_j>).

    Such a network is *plain*, and what training and theory take. Any network has C outputs and optional parts,

        F_c(x) = kappa(x') sum_j v_jc phi_j(x') + B_c,    x' = x - center,

    where phi_j is sigma(<x',w_j> + b_j)^p / ||w_j||^(p-1), sigma(<x',w_j> + b_j)^p or tanh(<x',w_j> + b_j), and kappa
    is ||x'||^-(p-1) with ``normalize_input``, else 1. At x' = 0 and p > 1 the sum of a network with normalised input
    is taken to be 0. For C >= 2 outputs the class is that of the largest.

    The state is w_j = exp(log_norm_j) u_j, v_j = sign_j exp(log_abs_v_j) and b_j = offsets_j ||w_j||, so networks of
    scale 1e-300 are ordinary: outputs and gradients are computed from cosines with u_j and neither underflow nor lose
    digits.

    Parameters
    ----------
    W : array, shape (h, D)
        Input weights. A zero row is a dead neuron (log-norm -inf).
    v : array, shape (h,) or (h, C)
        Output weights, of C >= 2 outputs if there are two dimensions.
    activation : {"prelu", "polynomial", "tanh"}, default "prelu"
    p : float, default 3
        Degree of the activation, any real p >= 1; not used by tanh.
    dtype : {"float32", "float64"}, optional
        Of the directions and of the data the network accepts; by default that of W, float64 if W is no float array.
        Networks that are not plain are always evaluated in float64.
    hidden_bias : array, shape (h,), optional
        Biases b_j. A dead neuron with one is a constant, which goes into ``output_bias`` (for pReLU with p > 1: 0).
    output_bias : float, or array of shape (C,), optional
        Biases B_c.
    center : array, shape (D,), optional
        What is subtracted from the input.
    normalize_input : bool, default False
        Whether the sum is divided by ||x'||^(p-1), as if pReLU neurons saw x'/||x'|| (MV24); not with tanh.
    classes : array of int, shape (max(C, 2),), optional
        Distinct labels: of f <= 0 and f > 0 for one output, of the outputs otherwise. By default -1 and +1, and
        0 .. C-1.

    Attributes
    ----------
    directions, log_norm, sign, log_abs_v : ndarray, shapes (h, D), (h,), and twice (h,) or (h, C)
        The state.
    offsets, output_bias, center : ndarray or None, shapes (h,), (C,) and (D,)
        Parts of the network, float64; None where there is none, or it is 0 everywhere.
    normalize_input : bool
    classes : ndarray of int64, shape (max(C, 2),)

    Raises
    ------
    ValueError, TypeError
        If shapes do not match, an entry is not finite, p < 1, or there is no neuron.

    Examples
    --------
    >>> net = pf.TwoLayerNetwork(W=[[3.0, 4.0], [0.0, -1.0]], v=[2.0, -1.0], activation="prelu", p=1)
    >>> net.decision_function([[1.0, 1.0], [0.0, -1.0]]).round(6).tolist()  # 2 sigma(<x,w_1>) - sigma(<x,w_2>)
    [14.0, -1.0]
    >>> net.norms.round(6).tolist(), net.contributions.round(6).tolist()
    ([5.0, 1.0], [10.0, 1.0])
    """

    def __init__(
        self,
        W: ArrayLike,
        v: ArrayLike,
        activation: Activation = "prelu",
        p: float = 3.0,
        *,
        dtype: DTypeLike | None = None,
        hidden_bias: ArrayLike | None = None,
        output_bias: ArrayLike | None = None,
        center: ArrayLike | None = None,
        normalize_input: bool = False,
        classes: ArrayLike | None = None,
    ) -> None:
        kind = _arrays.network_dtype(W, "W", dtype)
        weights = _arrays.real_array(W, "W", dtype=np.float64, ndim=2)
        outer = _arrays.real_array(v, "v", dtype=np.float64, ndim=_dimensions(v, "v"))
        # Scale rows by their largest entry first: squares of 1e-300 would underflow.
        largest = np.abs(weights).max(axis=1, keepdims=True)
        scaled = weights / np.where(largest > 0, largest, 1.0)
        lengths = np.sqrt(np.einsum("jd,jd->j", scaled, scaled))
        with np.errstate(divide="ignore"):
            log_norm = np.log(largest[:, 0]) + np.log(lengths)
            log_abs_v = np.log(np.abs(outer))
        U = scaled / np.where(lengths > 0, lengths, 1.0)[:, None]
        offsets, bias = _parts.of_hidden_bias(hidden_bias, largest[:, 0], lengths)
        parts = {
            "offsets": offsets,
            "output_bias": output_bias,
            "center": center,
            "normalize_input": normalize_input,
            "classes": classes,
        }
        self._set(U, log_norm, np.sign(outer), log_abs_v, activation, p, kind, parts)
        if bias is not None:
            self._fold_constants(bias, outer.astype(np.float64))

    @classmethod
    def from_polar(
        cls,
        U: ArrayLike,
        log_norm: ArrayLike,
        sign: ArrayLike,
        log_abs_v: ArrayLike,
        activation: Activation = "prelu",
        p: float = 3.0,
        *,
        dtype: DTypeLike | None = None,
        offsets: ArrayLike | None = None,
        output_bias: ArrayLike | None = None,
        center: ArrayLike | None = None,
        normalize_input: bool = False,
        classes: ArrayLike | None = None,
    ) -> TwoLayerNetwork:
        """Make the network from its state: w_j = exp(log_norm_j) u_j, v_j = sign_j exp(log_abs_v_j).

        Parameters
        ----------
        U : array, shape (h, D)
            Directions; each row a unit vector (within 1e-5), or zero where log_norm is -inf.
        log_norm : array, shape (h,)
            Logarithms of ||w_j||; -inf for zero.
        sign : array, shape (h,) or (h, C)
            Sign of v_j; 0 exactly where log_abs_v is -inf.
        log_abs_v : array, shape (h,) or (h, C)
            Logarithms of |v_j|; -inf for zero.
        offsets : array, shape (h,), optional
            b_j / ||w_j||; those of dead neurons count as 0, as b_j is.
        activation, p, dtype, output_bias, center, normalize_input, classes
            As in the constructor.
        """
        kind = _arrays.network_dtype(U, "U", dtype)
        directions = _arrays.real_array(U, "U", dtype=kind, ndim=2)
        width = len(directions)
        norms = _arrays.logarithms(log_norm, "log_norm", shape=(width,))
        ndim = _dimensions(sign, "sign")
        signs = _arrays.real_array(sign, "sign", dtype=np.float64, ndim=ndim)
        if len(signs) != width:
            raise ValueError(f"sign must have shape ({width},) or ({width}, C) to match U, got {signs.shape}")
        shape = (width, *signs.shape[1:])
        outer = _arrays.logarithms(log_abs_v, "log_abs_v", shape=shape)
        if not np.isin(signs, (-1.0, 0.0, 1.0)).all():
            raise ValueError(f"sign must hold -1, 0 or +1 and have shape {shape}")
        if np.any((signs == 0) != np.isneginf(outer)):
            raise ValueError("sign must be 0 exactly where log_abs_v is -inf")
        _require_units(directions, norms)
        parts = {
            "offsets": offsets,
            "output_bias": output_bias,
            "center": center,
            "normalize_input": normalize_input,
            "classes": classes,
        }
        self = cls.__new__(cls)
        self._set(directions, norms, signs, outer, activation, p, kind, parts)
        return self

    def _set(
        self,
        U: Float,
        log_norm: Float,
        sign: Float,
        log_abs_v: Float,
        activation: Activation,
        p: float,
        kind: Any,
        parts: dict[str, Any],
    ) -> None:
        width = len(U)
        if sign.ndim == 2 and (len(sign) != width or sign.shape[1] < 2):
            raise ValueError(
                f"v must have 1 dimension, got shape {sign.shape}; for C >= 2 outputs it has shape ({width}, C)"
            )
        if len(sign) != width:
            raise ValueError(f"v must have shape ({width},) to match W, got {sign.shape}")
        self.activation = _arrays.choice(activation, "activation", ACTIVATIONS)
        self.p = _arrays.real(p, "p", minimum=1.0)
        self.directions: Float = np.array(U, dtype=kind, order="C")
        self.log_norm: Float64 = np.array(log_norm, dtype=np.float64)
        self.sign: Float64 = np.array(sign, dtype=np.float64, order="C") + 0.0  # no -0
        self.log_abs_v: Float64 = np.array(log_abs_v, dtype=np.float64, order="C")
        for array in (self.directions, self.log_norm, self.sign, self.log_abs_v):
            array.flags.writeable = False
        self._set_parts(parts)

    def _set_parts(self, parts: dict[str, Any]) -> None:
        found = _parts.check(self.width, self.dim, self.num_outputs, self.activation, **parts)
        offsets, dead = found.offsets, np.isneginf(self.log_norm)
        if offsets is not None and offsets[dead].any():
            offsets = _parts.vector(np.where(dead, 0.0, offsets), "offsets", self.width)
        self.offsets: Float64 | None = offsets
        self.output_bias: Float64 | None = found.output_bias
        self.center: Float64 | None = found.center
        self.normalize_input: bool = found.normalize_input
        self.classes: NDArray[np.int64] = found.classes

    def _fold_constants(self, bias: Float64, v: Float64) -> None:
        """Add the constants of dead neurons to the output biases."""
        dead = np.isneginf(self.log_norm)
        total = _parts.constants(bias, v.reshape(len(v), -1), dead, self.activation, self.p, self.normalize_input)
        if total is not None:
            more = total + (0.0 if self.output_bias is None else self.output_bias)
            self.output_bias = _parts.vector(more, "output_bias", self.num_outputs)

    # ---- what it is

    @property
    def width(self) -> int:
        """Number of neurons h."""
        return int(self.directions.shape[0])

    @property
    def dim(self) -> int:
        """Input dimension D."""
        return int(self.directions.shape[1])

    @property
    def num_outputs(self) -> int:
        """Number of outputs C: 1, decided by its sign, or more, decided by the largest."""
        return 1 if self.sign.ndim == 1 else int(self.sign.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the directions and of the data the network accepts."""
        return self.directions.dtype

    @property
    def plain(self) -> bool:
        """Whether there is one output with the labels -1 and +1 and none of the optional parts."""
        return not self.unusual

    @property
    def unusual(self) -> tuple[str, ...]:
        """What keeps the network from being plain, by name."""
        arrays = [name for name in ("offsets", "output_bias", "center") if getattr(self, name) is not None]
        names = [{"offsets": "hidden_bias"}.get(name, name) for name in arrays]
        if self.num_outputs > 1:
            names.insert(0, f"{self.num_outputs} outputs")
        elif self.classes.tolist() != [-1, 1]:
            names.append(f"classes {self.classes[0]} and {self.classes[1]}")
        return (*names, *(["normalize_input"] if self.normalize_input else []))

    @property
    def norms(self) -> Float64:
        """||w_j||, shape (h,); 0 where it underflows float64."""
        return np.exp(self.log_norm)

    @property
    def W(self) -> Float:
        """Input weights w_j, shape (h, D), in the network's dtype (rows below its range underflow to 0)."""
        return (self.directions * self.norms[:, None]).astype(self.dtype)

    @property
    def v(self) -> Float64:
        """Output weights v_j, shape (h,) or (h, C), float64."""
        return np.asarray(self.sign * np.exp(self.log_abs_v))

    @property
    def hidden_bias(self) -> Float64 | None:
        """Biases b_j = offsets_j ||w_j||, shape (h,), float64; None where there are none."""
        return None if self.offsets is None else self.offsets * self.norms

    @property
    def log_contributions(self) -> Float64:
        """Logarithms of ``contributions``, (h,) or (h, C); -inf for a neuron that contributes nothing."""
        if self.activation == "tanh":
            raise ValueError("contributions are defined for 'prelu' and 'polynomial' activations, not for 'tanh'")
        degree = 1.0 if self.activation == "prelu" else self.p
        log_norm = self.log_norm if self.sign.ndim == 1 else self.log_norm[:, None]
        return np.asarray(self.log_abs_v + degree * log_norm)

    @property
    def contributions(self) -> Float64:
        """a_j = |v_j| ||w_j|| (prelu) or |v_j| ||w_j||^p (polynomial), as v: f = sum s_j a_j sigma(<x,u_j>)^p."""
        return np.exp(self.log_contributions)

    @property
    def log_parameter_power(self) -> float:
        """Logarithm of ||theta||^L with theta = (W, v) and L the degree of f in it: 2 (prelu) or p + 1 (polynomial)."""
        if self.activation == "tanh":
            raise ValueError("a network must be 'prelu' or 'polynomial' to be homogeneous in its weights, got 'tanh'")
        require_plain(self, "log_parameter_power")
        degree = 2.0 if self.activation == "prelu" else self.p + 1.0
        logs = np.concatenate([self.log_norm, self.log_abs_v])
        return float(degree * np.logaddexp.reduce(2.0 * logs) / 2.0)

    def rescaled(self) -> tuple[TwoLayerNetwork, float]:
        """Return (g, m) with f = e^m g and g's largest coefficient 1: its sign survives where f itself underflows.

        The coefficient of a neuron is its contribution, or v_j for tanh; output biases count as well. m = 0 when all
        are 0.
        """
        largest = self._log_largest()
        if np.isneginf(largest):
            return self, 0.0
        bias = None if self.output_bias is None else _scaled(self.output_bias, -largest)
        return self.replace(log_abs_v=self.log_abs_v - largest, output_bias=bias), largest

    def _log_largest(self) -> float:
        """Logarithm of the largest coefficient, as ``rescaled`` counts them; -inf when all are 0."""
        logs = self.log_abs_v if self.activation == "tanh" else self.log_contributions
        largest = float(np.max(logs))
        if self.output_bias is not None:
            largest = max(largest, float(np.log(np.abs(self.output_bias).max())))
        return largest

    # ---- from and to elsewhere

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to an npz file (no pickle), atomically: all of the state, so that ``load`` gives the same bits.

        A path that is a symbolic link is written through; anything but a regular file is refused.

        Raises
        ------
        OSError
            If the file cannot be written; one that was there stays.
        """
        from preluflow.results import save_network

        save_network(path, self)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> TwoLayerNetwork:
        """Load what ``save`` wrote; ValueError if the file is damaged, hostile or something else."""
        from preluflow.results import load_network

        return load_network(path)

    def to_torch(self) -> TwoLayerModule:
        """Copy into a ``torch.nn.Module`` with trainable parameters W, v and biases (needs torch)."""
        from preluflow.torch_module import to_torch

        return to_torch(self)

    @staticmethod
    def from_torch(module: torch.nn.Module) -> TwoLayerNetwork:
        """Copy a torch module: one from ``to_torch``, or an ``nn.Sequential`` of Linear, ReLU or Tanh, and Linear.

        Biases, any number of outputs and Flatten, Identity and Dropout in between are taken, too. ReLU becomes pReLU
        with p = 1; an output layer of one output is one whose sign decides. Or any module that has W (h, D), v (h,),
        activation and p. Its forward pass is held against the network's at random points.

        Raises
        ------
        ValueError, TypeError
            If the module computes anything else.
        """
        from preluflow.torch_module import from_torch

        return from_torch(module)

    @staticmethod
    def from_sklearn(estimator: Any) -> TwoLayerNetwork:
        """Copy a fitted ``MLPClassifier`` of one hidden layer of scikit-learn, relu or tanh, in float64.

        It may be the end of a ``Pipeline`` after ``StandardScaler``, ``MinMaxScaler`` or ``MaxAbsScaler``, which are
        folded into W and ``center``: X, perturbations and radii are in the coordinates of X as the pipeline is given
        it. Classes are the estimator's, which must be integers. A binary one has one output.

        Raises
        ------
        ValueError, TypeError
            If it is not fitted, or the network or its classes cannot be expressed.
        """
        from preluflow.sklearn_import import network

        return network(estimator)

    def astype(self, dtype: DTypeLike) -> TwoLayerNetwork:
        """Return the same network with directions in ``dtype``."""
        kind = _arrays.dtype_of(dtype)
        return self if kind == self.dtype else self.replace(U=self.directions.astype(kind))

    def replace(
        self,
        U: Float | None = None,
        log_norm: Float64 | None = None,
        sign: Float64 | None = None,
        log_abs_v: Float64 | None = None,
        *,
        offsets: ArrayLike | None = None,
        output_bias: ArrayLike | None = None,
        center: ArrayLike | None = None,
        normalize_input: bool | None = None,
        classes: ArrayLike | None = None,
    ) -> TwoLayerNetwork:
        """Return a network of the same kind with some of its state exchanged (checked as in ``from_polar``).

        None leaves a part as it is; zeros take it away. Where the number of outputs changes, classes are the default
        again.
        """
        if classes is None and (sign is None or np.shape(sign)[1:] == self.sign.shape[1:]):
            classes = self.classes
        return TwoLayerNetwork.from_polar(
            self.directions if U is None else U,
            self.log_norm if log_norm is None else log_norm,
            self.sign if sign is None else sign,
            self.log_abs_v if log_abs_v is None else log_abs_v,
            self.activation,
            self.p,
            offsets=self.offsets if offsets is None else offsets,
            output_bias=self.output_bias if output_bias is None else output_bias,
            center=self.center if center is None else center,
            normalize_input=self.normalize_input if normalize_input is None else normalize_input,
            classes=classes,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the compiled views, which are made again when needed."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_core", "_evaluator")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state, also of before there were optional parts."""
        self.__dict__.update(state)
        if "classes" not in state:
            none = dict.fromkeys(("offsets", "output_bias", "center", "classes"))
            self._set_parts({**none, "normalize_input": False})

    def __repr__(self) -> str:
        """Show shape and kind."""
        degree = "" if self.activation == "tanh" else f", p={self.p:g}"
        more = "".join(f", {part}" for part in self.unusual)
        return f"TwoLayerNetwork(width={self.width}, dim={self.dim}, {self.activation!r}{degree}, {self.dtype}{more})"

    def _repr_html_(self) -> str:
        """Show shape, kind and parts, and how large the neurons' contributions are."""
        rows = {
            "activation": self.activation if self.activation == "tanh" else f"{self.activation}, p = {self.p:g}",
            "neurons h, inputs D": f"{self.width}, {self.dim}",
            "outputs": self.sign.shape[1] if self.sign.ndim == 2 else 1,
            "dtype": self.dtype,
            **({"parts": ", ".join(self.unusual)} if self.unusual else {}),
            "log ||w_j||": f"{self.log_norm.min():.4g} to {self.log_norm.max():.4g}",
        }
        picture = _html.line([(np.arange(self.width), np.sort(self.log_norm)[::-1])])
        return _html.table("Two-layer network", rows, picture, "log ||w_j||, largest first")

    # ---- what it computes

    @lazy
    def _core(self) -> _Network:
        kind = core.Network32 if self.dtype == np.float32 else core.Network64
        return kind(self.directions, self.log_norm, self.sign, self.log_abs_v, self.activation, self.p)

    @lazy
    def _evaluator(self) -> Evaluator:
        outer = (self.width, self.num_outputs)
        return core.Evaluator(
            self.directions.astype(np.float64),
            self.log_norm,
            self.sign.reshape(outer),
            self.log_abs_v.reshape(outer),
            self.activation,
            self.p,
            self.offsets,
            self.output_bias,
            self.center,
            self.normalize_input,
        )

    @property
    def _one_function(self) -> bool:
        """Whether the function is that of a plain network, whatever the labels."""
        parts = (self.offsets, self.output_bias, self.center)
        return self.num_outputs == 1 and not self.normalize_input and all(part is None for part in parts)

    def decision_function(self, X: ArrayLike, *, num_threads: int | None = None) -> Float64:
        """Evaluate the outputs on X (n, D) of the network's dtype; returns (n,) for one output, else (n, C), float64.

        Where powers of <x,u_j> leave the dtype's range the sum is taken by logarithms: an output is 0 or infinite only
        where it is beyond float64 itself, or no neuron is active, and then has the right sign. A row's result does not
        depend on the rows around it, bit for bit.
        """
        X = _arrays.data_matrix(X, dim=self.dim, dtype=self.dtype)
        threads = _arrays.threads(num_threads)
        if self._one_function:
            return self._core.forward(X, threads)
        return self._shaped(self._evaluator.outputs(X.astype(np.float64, copy=False), threads))

    def predict(self, X: ArrayLike, *, num_threads: int | None = None) -> NDArray[np.int64]:
        """Predict labels from ``classes`` for X (n, D), int64.

        One output: ``classes[1]`` where f > 0, else ``classes[0]``; f = 0 is an error for either label. Several: the
        class of the largest, the first of equals, where a tie is an error for either label, too.
        """
        X = _arrays.data_matrix(X, dim=self.dim, dtype=self.dtype)
        threads = _arrays.threads(num_threads)
        plain = self._one_function
        outputs = (self.rescaled()[0] if plain else self).decision_function(X, num_threads=num_threads)
        outputs = outputs.reshape(len(X), -1)
        largest = np.abs(outputs).max(axis=1)
        lost = largest == 0.0 if plain else ~((largest >= _LEAST) & (largest <= _MOST))
        if lost.any() and not (plain and self.activation == "tanh"):  # or beyond float64
            outputs[lost] = self._evaluator.relative_outputs(X[lost].astype(np.float64, copy=False), threads)
        which = np.argmax(outputs, axis=1) if self.num_outputs > 1 else (outputs[:, 0] > 0).astype(np.intp)
        return np.asarray(self.classes[which])

    def input_gradient(
        self, X: ArrayLike, weights: ArrayLike | None = None, *, num_threads: int | None = None
    ) -> Float:
        """Gradient of f in x at each row of X (n, D); returns (n, D) in the network's dtype.

        With ``weights`` (n, C), which several outputs need: of sum_c weights_ic F_c at row i. For one output
        ``weights`` may be (n,), too. At x' = 0 the gradient of a network with normalised input and p > 1 is given as 0.
        """
        return self.value_and_input_gradient(X, weights, num_threads=num_threads)[1]

    def value_and_input_gradient(
        self, X: ArrayLike, weights: ArrayLike | None = None, *, num_threads: int | None = None
    ) -> tuple[Float64, Float]:
        """Return the outputs, (n,) or (n, C), and the gradient of ``input_gradient`` (n, D), in one pass."""
        X = _arrays.data_matrix(X, dim=self.dim, dtype=self.dtype)
        threads = _arrays.threads(num_threads)
        factors = _parts.output_weights(weights, len(X), self.num_outputs)
        if self._one_function:
            value, slopes = self._core.input_gradient(X, threads)
            return value, slopes if weights is None else slopes * factors.astype(self.dtype)
        outputs, gradient = self._evaluator.gradient(X.astype(np.float64, copy=False), factors, threads)
        with np.errstate(over="ignore", under="ignore"):
            return self._shaped(outputs), gradient.astype(self.dtype, copy=False)

    def _shaped(self, outputs: Float64) -> Float64:
        """Outputs (n, C), or (n,) of one."""
        return outputs[:, 0].copy() if self.num_outputs == 1 else outputs

    def loss_gradient(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        loss: TrainingLoss = "squared",
        sample_weight: ArrayLike | None = None,
        num_threads: int | None = None,
    ) -> LossGradient:
        """Mean loss over (X, y) and its gradient in the weights (mathematics: MV25 eq. 7 is minus this gradient).

        Parameters
        ----------
        X : array, shape (n, D)
            Data of the network's dtype.
        y : array, shape (n,) or (n, C)
            Labels or targets, as in ``gradient_descent``.
        loss : {"squared", "exponential", "logistic", "cross_entropy"}
            As in ``gradient_descent``.
        sample_weight : array, shape (n,), optional
            Weights of the points in the mean, at least 0.
        num_threads : int, optional
            At most so many, and no more than the processors the process may use; by default ``OMP_NUM_THREADS``, or
            all of them. The result does not depend on it, bit for bit.
        """
        X = _arrays.data_matrix(X, dim=self.dim, dtype=self.dtype)
        loss = _arrays.choice(loss, "loss", TRAINING_LOSSES)
        targets = _targets.check(self, y, len(X), loss)
        weight = _targets.sample_weights(sample_weight, len(X))
        return losses.loss_gradient(self, X, targets, loss, weight, _arrays.threads(num_threads))


def require_plain(network: TwoLayerNetwork, what: str, name: str = "network") -> None:
    """Refuse a network with parts that ``what`` knows nothing of."""
    if network.unusual:
        raise ValueError(
            f"{name} must be plain for {what} - one output, labels -1 and +1, no biases, no centre, no normalised "
            f"input -, but this one has {', '.join(network.unusual)}"
        )


def _dimensions(v: ArrayLike, name: str) -> int:
    """Dimensions an array of output weights has: 2 if it has 2, else it must have 1."""
    return 2 if _arrays.as_array(v, name).ndim == 2 else 1


def _require_units(directions: Float, log_norm: Float64) -> None:
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(directions.astype(np.float64), axis=1)
    expected = np.where(np.isneginf(log_norm), 0.0, 1.0)
    if np.abs(lengths - expected).max() > 1e-5:
        j = int(np.argmax(np.abs(lengths - expected)))
        raise ValueError(f"U must have unit rows (zero where log_norm is -inf), but ||U[{j}]|| = {lengths[j]:.6g}")


def _scaled(values: Float64, log: float) -> Float64:
    """Values times e^log, where e^log alone may leave float64."""
    with np.errstate(divide="ignore", under="ignore"):
        return np.asarray(np.sign(values) * np.exp(np.log(np.abs(values)) + log))
