"""A network as the core trains it: biases of neurons are weights of a constant input.

With biases b_j a network is trained on (x', 1), and the norm of a pReLU neuron is that of (w_j, b_j): the weights and
output weights are (w_j, b_j) and V_j ((||w_j||^2 + b_j^2) / ||w_j||^2)^((p-1)/2) then, V_j for the other activations
(docs/mathematics.md#training-outputs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from preluflow import _arrays
from preluflow._arrays import Float, Float64
from preluflow._dispatch import core
from preluflow.typing import Biases, Trained

if TYPE_CHECKING:
    from preluflow.network import TwoLayerNetwork

BIASES: tuple[Biases, ...] = ("hidden", "output", "both")
TRAINED: tuple[Trained, ...] = ("both", "inner", "outer")


@dataclass(frozen=True)
class TrainedForm:
    """Which parts of a network are trained.

    Attributes
    ----------
    like : TwoLayerNetwork
        The network training starts from.
    hidden, output : bool
        Whether neurons, and outputs, have biases; there may be some that are 0 at the start.
    trained : {"both", "inner", "outer"}
    """

    like: TwoLayerNetwork
    hidden: bool
    output: bool
    trained: Trained

    @classmethod
    def check(cls, network: TwoLayerNetwork, biases: Biases | None, trained: Trained) -> TrainedForm:
        """Biases that are asked for, besides those the network has."""
        trained = _arrays.choice(trained, "train", TRAINED)
        if biases is not None:
            biases = _arrays.choice(biases, "biases", BIASES)
        hidden = network.offsets is not None or biases in ("hidden", "both")
        output = network.output_bias is not None or biases in ("output", "both")
        return cls(network, hidden, output, trained)

    @property
    def plain(self) -> bool:
        """Whether it is one output and none of the parts, whatever the labels."""
        return self.like._one_function and not self.hidden and not self.output

    def start(self) -> Any:
        """The start for the core's steppers."""
        U, log_norm, log_abs_v = self.inner(self.like)
        return _start(self.like, U, log_norm, log_abs_v, self.output_bias(self.like) if self.output else None)

    def inner(self, network: TwoLayerNetwork) -> tuple[Float, Float64, Float64]:
        """Directions of (w_j, b_j), log-norms of them, and log |V_j|, as trained."""
        if not self.hidden:
            return network.directions, network.log_norm, network.log_abs_v
        offsets = np.zeros(network.width) if network.offsets is None else network.offsets
        length = np.hypot(1.0, offsets)
        log_length = np.log(length)
        alive = np.isfinite(network.log_norm)
        U = np.empty((network.width, network.dim + 1), dtype=network.dtype)
        U[:, :-1] = network.directions / length[:, None]
        U[:, -1] = np.where(alive, offsets / length, 0.0)
        more = (network.p - 1.0) * log_length if network.activation == "prelu" else np.zeros(network.width)
        return U, network.log_norm + log_length, network.log_abs_v + (more if network.sign.ndim == 1 else more[:, None])

    def output_bias(self, network: TwoLayerNetwork) -> Float64:
        """Biases of the outputs, (C,), also where they are 0."""
        return np.zeros(network.num_outputs) if network.output_bias is None else network.output_bias

    def network(self, state: tuple[Any, ...]) -> TwoLayerNetwork:
        """The network of a stepper's state: directions, log-norms, signs and log |V|, (h, C), and biases."""
        like = self.like
        U, log_norm, sign, log_abs_v, output_bias = state
        if like.num_outputs == 1:
            sign, log_abs_v = sign[:, 0], log_abs_v[:, 0]
        offsets = None
        if self.hidden:
            U, log_norm, log_abs_v, offsets = self._apart(U, log_norm, log_abs_v)
        if self.trained == "outer":  # the very bits
            U, log_norm, offsets = like.directions, like.log_norm, like.offsets
        return like.from_polar(
            U,
            log_norm,
            sign,
            log_abs_v,
            like.activation,
            like.p,
            offsets=offsets,
            output_bias=output_bias if self.output else None,
            center=like.center,
            normalize_input=like.normalize_input,
            classes=like.classes,
        )

    def _apart(self, U: Float, log_norm: Float64, log_abs_v: Float64) -> tuple[Float, Float64, Float64, Float64]:
        """Weights and biases of neurons apart: directions, log-norms, log |V| and offsets b_j / ||w_j||."""
        exact = U.astype(np.float64)
        length = np.linalg.norm(exact[:, :-1], axis=1)
        alive = length > 0.0
        if not np.all(alive | ~np.isfinite(log_norm)):
            j = int(np.argmin(alive | ~np.isfinite(log_norm)))
            raise FloatingPointError(f"the weights of neuron {j} have vanished beside its bias")
        safe = np.where(alive, length, 1.0)
        log_length = np.log(safe)
        more = (self.like.p - 1.0) * log_length if self.like.activation == "prelu" else np.zeros(len(U))
        return (
            (exact[:, :-1] / safe[:, None]).astype(U.dtype),
            np.where(alive, log_norm + log_length, -np.inf),
            log_abs_v + (more if log_abs_v.ndim == 1 else more[:, None]),
            np.where(alive, exact[:, -1] / safe, 0.0),
        )


def gradient_start(network: TwoLayerNetwork) -> Any:
    """A start whose gradient is that in the network's own weights: rows (u_j, o_j), where ||u_j|| = 1."""
    U = network.directions
    if network.offsets is not None:
        U = np.column_stack([U, network.offsets]).astype(network.dtype)
    return _start(network, U, network.log_norm, network.log_abs_v, network.output_bias)


def _start(like: TwoLayerNetwork, U: Float, log_norm: Float64, log_abs_v: Float64, output_bias: Float64 | None) -> Any:
    """The core's start with these rows, (h, D) or (h, D + 1) with a column for biases, and all else of a network."""
    kind = core.Start32 if like.dtype == np.float32 else core.Start64
    outer = (like.width, like.num_outputs)
    return kind(
        U,
        log_norm,
        like.sign.reshape(outer),
        log_abs_v.reshape(outer),
        like.activation,
        like.p,
        output_bias,
        like.center,
        U.shape[1] > like.dim,
        like.p - 1.0 if like.normalize_input else 0.0,
    )
