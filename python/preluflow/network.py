"""Two-layer networks in polar form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from preluflow import _arrays
from preluflow._arrays import Float, Float64
from preluflow._dispatch import core
from preluflow._lazy import lazy
from preluflow.typing import Activation, Loss

if TYPE_CHECKING:
    import torch

    from preluflow._core import _Network
    from preluflow.torch_module import TwoLayerModule

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
LOSSES: tuple[Loss, ...] = get_args(Loss)
_ROWS = 1024  # evaluated by logarithms at a time
_DEPTH = {np.dtype(np.float32): 69.0, np.dtype(np.float64): 460.0}  # e^-depth of a sum's unit is well within the dtype


@dataclass(frozen=True)
class LossGradient:
    """Mean loss of a network over data, with what was found on the way.

    Attributes
    ----------
    loss : float
        Mean loss.
    outputs : ndarray, shape (n,)
        f(x_i), float64.
    residual : ndarray, shape (n,)
        r_i = -(1/n) d loss / d f at point i, float64.
    W, v : ndarray, shapes (h, D) and (h,)
        Gradient of the mean loss in w_j and v_j, float64.
    """

    loss: float
    outputs: Float64
    residual: Float64
    W: Float64
    v: Float64


class TwoLayerNetwork:
    r"""A two-layer network, immutable, held as directions, log-norms and output weights.

    With sigma = relu and D inputs, h neurons:

    - ``"prelu"``: f(x) = sum_j v_j sigma(<x,w_j>)^p / ||w_j||^(p-1), MV25 eq. 5 (p = 1: a ReLU network);
    - ``"polynomial"``: f(x) = sum_j v_j sigma(<x,w_j>)^p, MV25 App. B.2;
    - ``"tanh"``: f(x) = sum_j v_j tanh(<x,w_j>).

    The state is w_j = exp(log_norm_j) u_j and v_j = sign_j exp(log_abs_v_j), so networks of scale 1e-300 are ordinary:
    outputs and gradients are computed from cosines with u_j and neither underflow nor lose digits.

    Parameters
    ----------
    W : array, shape (h, D)
        Input weights. A zero row is a dead neuron (log-norm -inf).
    v : array, shape (h,)
        Output weights.
    activation : {"prelu", "polynomial", "tanh"}, default "prelu"
    p : float, default 3
        Degree of the activation, any real p >= 1; not used by tanh.
    dtype : {"float32", "float64"}, optional
        Of the directions and of the data the network accepts; by default that of W, float64 if W is no float array.

    Raises
    ------
    ValueError, TypeError
        If shapes do not match, an entry is not finite, p < 1, or there is no neuron.
    """

    def __init__(
        self,
        W: ArrayLike,
        v: ArrayLike,
        activation: Activation = "prelu",
        p: float = 3.0,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        kind = _arrays.network_dtype(W, "W", dtype)
        weights = _arrays.real_array(W, "W", dtype=np.float64, ndim=2)
        outer = _arrays.real_array(v, "v", dtype=np.float64, ndim=1)
        # Scale rows by their largest entry first: squares of 1e-300 would underflow.
        largest = np.abs(weights).max(axis=1, keepdims=True)
        scaled = weights / np.where(largest > 0, largest, 1.0)
        lengths = np.sqrt(np.einsum("jd,jd->j", scaled, scaled))
        with np.errstate(divide="ignore"):
            log_norm = np.log(largest[:, 0]) + np.log(lengths)
            log_abs_v = np.log(np.abs(outer))
        U = scaled / np.where(lengths > 0, lengths, 1.0)[:, None]
        self._set(U, log_norm, np.sign(outer), log_abs_v, activation, p, kind)

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
    ) -> TwoLayerNetwork:
        """Make the network from its state: w_j = exp(log_norm_j) u_j, v_j = sign_j exp(log_abs_v_j).

        Parameters
        ----------
        U : array, shape (h, D)
            Directions; each row a unit vector (within 1e-5), or zero where log_norm is -inf.
        log_norm, log_abs_v : array, shape (h,)
            Logarithms of ||w_j|| and |v_j|; -inf for zero.
        sign : array, shape (h,)
            Sign of v_j; 0 exactly where log_abs_v is -inf.
        activation, p, dtype
            As in the constructor.
        """
        kind = _arrays.network_dtype(U, "U", dtype)
        directions = _arrays.real_array(U, "U", dtype=kind, ndim=2)
        width = len(directions)
        logs = {
            name: _arrays.logarithms(values, name, n=width)
            for name, values in (("log_norm", log_norm), ("log_abs_v", log_abs_v))
        }
        signs = _arrays.real_array(sign, "sign", dtype=np.float64, ndim=1)
        if signs.shape != (width,) or not np.isin(signs, (-1.0, 0.0, 1.0)).all():
            raise ValueError(f"sign must hold -1, 0 or +1 and have shape ({width},)")
        if np.any((signs == 0) != np.isneginf(logs["log_abs_v"])):
            raise ValueError("sign must be 0 exactly where log_abs_v is -inf")
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(directions.astype(np.float64), axis=1)
        expected = np.where(np.isneginf(logs["log_norm"]), 0.0, 1.0)
        if np.abs(lengths - expected).max() > 1e-5:
            j = int(np.argmax(np.abs(lengths - expected)))
            raise ValueError(f"U must have unit rows (zero where log_norm is -inf), but ||U[{j}]|| = {lengths[j]:.6g}")
        self = cls.__new__(cls)
        self._set(directions, logs["log_norm"], signs, logs["log_abs_v"], activation, p, kind)
        return self

    def _set(
        self, U: Float, log_norm: Float, sign: Float, log_abs_v: Float, activation: Activation, p: float, kind: Any
    ) -> None:
        width = len(U)
        if len(sign) != width:
            raise ValueError(f"v must have shape ({width},) to match W, got ({len(sign)},)")
        self.activation = _arrays.choice(activation, "activation", ACTIVATIONS)
        self.p = _arrays.real(p, "p", minimum=1.0)
        self.directions: Float = np.array(U, dtype=kind, order="C")
        self.log_norm: Float64 = np.array(log_norm, dtype=np.float64)
        self.sign: Float64 = np.array(sign, dtype=np.float64) + 0.0  # no -0
        self.log_abs_v: Float64 = np.array(log_abs_v, dtype=np.float64)
        for array in (self.directions, self.log_norm, self.sign, self.log_abs_v):
            array.flags.writeable = False

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
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the directions and of the data the network accepts."""
        return self.directions.dtype

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
        """Output weights v_j, shape (h,), float64."""
        return np.asarray(self.sign * np.exp(self.log_abs_v))

    @property
    def log_contributions(self) -> Float64:
        """Logarithms of ``contributions``, shape (h,); -inf for a neuron that contributes nothing."""
        if self.activation == "tanh":
            raise ValueError("contributions are defined for 'prelu' and 'polynomial' activations, not for 'tanh'")
        degree = 1.0 if self.activation == "prelu" else self.p
        return np.asarray(self.log_abs_v + degree * self.log_norm)

    @property
    def contributions(self) -> Float64:
        """a_j = |v_j| ||w_j|| (prelu) or |v_j| ||w_j||^p (polynomial), (h,); f = sum s_j a_j sigma(<x,u_j>)^p."""
        return np.exp(self.log_contributions)

    @property
    def log_parameter_power(self) -> float:
        """Logarithm of ||theta||^L with theta = (W, v) and L the degree of f in it: 2 (prelu) or p + 1 (polynomial)."""
        if self.activation == "tanh":
            raise ValueError("a network must be 'prelu' or 'polynomial' to be homogeneous in its weights, got 'tanh'")
        degree = 2.0 if self.activation == "prelu" else self.p + 1.0
        logs = np.concatenate([self.log_norm, self.log_abs_v])
        return float(degree * np.logaddexp.reduce(2.0 * logs) / 2.0)

    def rescaled(self) -> tuple[TwoLayerNetwork, float]:
        """Return (g, m) with f = e^m g and g's largest coefficient 1: its sign survives where f itself underflows.

        The coefficient of a neuron is its contribution, or v_j for tanh. m = 0 when all are 0.
        """
        logs = self.log_abs_v if self.activation == "tanh" else self.log_contributions
        largest = float(np.max(logs))
        if np.isneginf(largest):
            return self, 0.0
        return self.replace(log_abs_v=self.log_abs_v - largest), largest

    def to_torch(self) -> TwoLayerModule:
        """Copy into a ``torch.nn.Module`` with trainable parameters W and v (needs torch)."""
        from preluflow.torch_module import to_torch

        return to_torch(self)

    @staticmethod
    def from_torch(module: torch.nn.Module) -> TwoLayerNetwork:
        """Copy a torch module that has W (h, D), v (h,), activation and p, for instance one from ``to_torch``."""
        from preluflow.torch_module import from_torch

        return from_torch(module)

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
    ) -> TwoLayerNetwork:
        """Return a network of the same kind with some of its state exchanged (checked as in ``from_polar``)."""
        return TwoLayerNetwork.from_polar(
            self.directions if U is None else U,
            self.log_norm if log_norm is None else log_norm,
            self.sign if sign is None else sign,
            self.log_abs_v if log_abs_v is None else log_abs_v,
            self.activation,
            self.p,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the compiled view, which is made again when needed."""
        return {name: value for name, value in self.__dict__.items() if name != "_core"}

    def __repr__(self) -> str:
        """Show shape and kind."""
        degree = "" if self.activation == "tanh" else f", p={self.p:g}"
        return f"TwoLayerNetwork(width={self.width}, dim={self.dim}, {self.activation!r}{degree}, {self.dtype})"

    # ---- what it computes

    @lazy
    def _core(self) -> _Network:
        kind = core.Network32 if self.dtype == np.float32 else core.Network64
        return kind(self.directions, self.log_norm, self.sign, self.log_abs_v, self.activation, self.p)

    def decision_function(self, X: ArrayLike, *, num_threads: int | None = None) -> Float64:
        """Evaluate f on X (n, D) of the network's dtype; returns (n,), float64.

        Where powers of <x,u_j> leave the dtype's range the sum is taken by logarithms: f is 0 or infinite only where
        it is beyond float64 itself, or no neuron is active, and then has the right sign.
        """
        X = _arrays.data_matrix(X, dim=self.dim, dtype=self.dtype)
        threads = _arrays.threads(num_threads)
        f = self._core.forward(X, threads)
        if self.activation != "tanh":
            self._mend_range(X, f, threads)
        return f

    def _mend_range(self, X: Float, f: Float64, threads: int) -> None:
        """Evaluate again, by logarithms, what may have left the range of the network's dtype."""
        # The core sums terms relative to the largest contribution e^most, of which it loses what its dtype cannot hold.
        most, depth = float(self.log_contributions.max()), _DEPTH[self.dtype]
        # Of a tiny network f itself is about to leave float64's range: 0 is right.
        least = most - depth if most > -450.0 else -np.inf
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.log(np.abs(f))
        rows = np.flatnonzero(~((size >= least) & (size <= min(most + depth, 640.0))))
        for first in range(0, len(rows), _ROWS):
            some = rows[first : first + _ROWS]
            sign, log_size = self._signed_logs(X[some], threads)
            with np.errstate(over="ignore", under="ignore"):
                f[some] = sign * np.exp(log_size)

    def _signed_logs(self, X: Float, threads: int) -> tuple[Float64, Float64]:
        """Sign of f and log |f| at rows X (m, D), right at any scale; relu networks only."""
        x = X.astype(np.float64)
        exponent = np.frexp(np.abs(x).max(axis=1))[1]
        z = core.products(np.ldexp(x, -exponent[:, None]), self.directions.astype(np.float64), threads)
        with np.errstate(divide="ignore", under="ignore"):
            terms = np.where(z > 0, self.p * np.log(np.maximum(z, 0.0)), -np.inf) + self.log_contributions
            top = terms.max(axis=1)
            top[np.isneginf(top)] = 0.0
            size = (np.exp(terms - top[:, None]) * self.sign).sum(axis=1)
            return np.sign(size), np.log(np.abs(size)) + top + self.p * np.log(2.0) * exponent

    def predict(self, X: ArrayLike, *, num_threads: int | None = None) -> NDArray[np.int64]:
        """Predict labels -1 and +1 of X (n, D); f = 0, an error for either label, is returned as -1."""
        X = _arrays.data_matrix(X, dim=self.dim, dtype=self.dtype)
        f = self.rescaled()[0].decision_function(X, num_threads=num_threads)
        if self.activation != "tanh":
            rows = np.flatnonzero(f == 0.0)  # or beyond float64
            for first in range(0, len(rows), _ROWS):
                some = rows[first : first + _ROWS]
                f[some] = self._signed_logs(X[some], _arrays.threads(num_threads))[0]
        return np.where(f > 0, 1, -1)

    def input_gradient(self, X: ArrayLike, *, num_threads: int | None = None) -> Float:
        """Gradient of f in x at each row of X (n, D); returns (n, D) in the network's dtype."""
        return self.value_and_input_gradient(X, num_threads=num_threads)[1]

    def value_and_input_gradient(self, X: ArrayLike, *, num_threads: int | None = None) -> tuple[Float64, Float]:
        """Return f (n,) and its gradient in x (n, D), in one pass."""
        X = _arrays.data_matrix(X, dim=self.dim, dtype=self.dtype)
        return self._core.input_gradient(X, _arrays.threads(num_threads))

    def loss_gradient(
        self, X: ArrayLike, y: ArrayLike, *, loss: Loss = "squared", num_threads: int | None = None
    ) -> LossGradient:
        """Mean loss over (X, y) and its gradient in W and v (mathematics: MV25 eq. 7 is minus this gradient).

        Parameters
        ----------
        X : array, shape (n, D)
            Data of the network's dtype.
        y : array, shape (n,)
            Labels -1 and +1.
        loss : {"squared", "exponential", "logistic"}
            (y - f)^2, exp(-y f) or log(1 + exp(-y f)).
        num_threads : int, optional
            At most so many, and no more than the processors the process may use; by default ``OMP_NUM_THREADS``, or
            all of them. The result does not depend on it, bit for bit.
        """
        X = _arrays.data_matrix(X, dim=self.dim, dtype=self.dtype)
        target = _arrays.labels(y, n=len(X))
        loss = _arrays.choice(loss, "loss", LOSSES)
        value, f, G, s = self._core.loss_gradient(X, target, loss, _arrays.threads(num_threads))
        # G_j = sum r phi' x and s_j = sum r phi; the chain rule through each parametrization.
        U, v, norms = self.directions.astype(np.float64), self.v[:, None], self.norms
        if self.activation == "prelu":
            W_gradient, v_gradient = -v * (G - (self.p - 1.0) * s[:, None] * U), -norms * s
        elif self.activation == "polynomial":
            W_gradient, v_gradient = -v * norms[:, None] ** (self.p - 1.0) * G, -(norms**self.p) * s
        else:
            W_gradient, v_gradient = -v * G, -s
        return LossGradient(value, f, _residual(loss, target, f) / len(X), W_gradient, v_gradient)


def _residual(loss: Loss, y: Float64, f: Float64) -> Float64:
    if loss == "squared":
        return np.asarray(2.0 * (y - f))
    if loss == "exponential":
        return np.asarray(y * np.exp(-y * f))
    return np.asarray(y * np.exp(-np.logaddexp(0.0, y * f)))


def mean_loss(loss: Loss, y: Float64, f: Float64) -> float:
    """Mean loss of outputs f (n,) for labels y (n,)."""
    if loss == "squared":
        return float(np.mean((y - f) ** 2))
    if loss == "exponential":
        return float(np.mean(np.exp(-y * f)))
    return float(np.mean(np.logaddexp(0.0, -y * f)))
