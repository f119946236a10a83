"""What a two-layer network may have beyond one output of weighted neurons: offsets, biases, a centre, classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preluflow import _arrays
from preluflow._arrays import Float64
from preluflow.typing import Activation


class Parts(NamedTuple):
    """The optional parts, as checked; an array that would be 0 everywhere is None."""

    offsets: Float64 | None
    output_bias: Float64 | None
    center: Float64 | None
    normalize_input: bool
    classes: NDArray[np.int64]


def check(
    width: int,
    dim: int,
    outputs: int,
    activation: Activation,
    *,
    offsets: ArrayLike | None,
    output_bias: ArrayLike | None,
    center: ArrayLike | None,
    normalize_input: bool,
    classes: ArrayLike | None,
) -> Parts:
    """Check the parts of a network of these sizes; what comes back is its own and read-only."""
    normalize = _arrays.flag(normalize_input, "normalize_input")
    if normalize and activation == "tanh":
        raise ValueError("normalize_input must be False for 'tanh': it is defined for 'prelu' and 'polynomial'")
    return Parts(
        vector(offsets, "offsets", width),
        vector(_biases(output_bias, outputs), "output_bias", outputs),
        vector(center, "center", dim),
        normalize,
        class_labels(classes, outputs),
    )


def vector(values: ArrayLike | None, name: str, n: int) -> Float64 | None:
    """A vector (n,), or None where it is 0."""
    if values is None:
        return None
    given = _arrays.real_array(values, name, dtype=np.float64, ndim=1)
    result: Float64 = given.astype(np.float64) + 0.0  # no -0
    if result.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {result.shape}")
    result.flags.writeable = False
    return result if result.any() else None


def _biases(output_bias: ArrayLike | None, outputs: int) -> Any:
    """Output biases, of which a network with one output may be given a number."""
    if output_bias is None or outputs > 1 or np.ndim(_arrays.as_array(output_bias, "output_bias")) != 0:
        return output_bias
    return np.array([_arrays.real(output_bias, "output_bias")])


def class_labels(classes: ArrayLike | None, outputs: int) -> NDArray[np.int64]:
    """Labels (max(C, 2),) of the outputs' classes; by default -1 and +1 for one output, 0 .. C-1 for C."""
    count = max(outputs, 2)
    if classes is None:
        result = np.arange(count) if outputs > 1 else np.array([-1, 1])
    else:
        given = _arrays.as_array(classes, "classes")
        if given.dtype.kind not in "iu":
            raise TypeError(
                f"classes must be integers, got dtype {given.dtype}; encode other labels as integers, for instance by "
                f"np.unique(y, return_inverse=True)"
            )
        if given.shape != (count,):
            raise ValueError(f"classes must have shape ({count},) for {outputs} outputs, got {given.shape}")
        if len(np.unique(given)) != count:
            raise ValueError(f"classes must be distinct, got {_arrays.shown(given.tolist())}")
        if given.dtype.kind == "u" and int(given.max()) > _arrays.INT64:
            raise ValueError(f"classes must be at most {_arrays.INT64}, got {int(given.max())}")
        result = given
    result = np.array(result, dtype=np.int64)
    result.flags.writeable = False
    return result


def of_hidden_bias(
    hidden_bias: ArrayLike | None, largest: Float64, lengths: Float64
) -> tuple[Float64 | None, Float64 | None]:
    """Offsets b_j / ||w_j|| of neurons with ||w_j|| = largest * length, 0 where that is 0; and the biases b (h,)."""
    if hidden_bias is None:
        return None, None
    bias = _arrays.real_array(hidden_bias, "hidden_bias", dtype=np.float64, ndim=1)
    if bias.shape != largest.shape:
        raise ValueError(f"hidden_bias must have shape {largest.shape} to match W, got {bias.shape}")
    alive = largest > 0
    with np.errstate(over="ignore"):
        offsets = np.where(alive, bias / np.where(alive, largest, 1.0) / np.where(alive, lengths, 1.0), 0.0)
    if not np.isfinite(offsets).all():
        j = int(np.argmin(np.isfinite(offsets)))
        raise ValueError(f"hidden_bias[{j}] must be within float64 in units of ||W[{j}]||, got {bias[j]:g}")
    return np.asarray(offsets, dtype=np.float64), bias.astype(np.float64)


def constants(
    bias: Float64, v: Float64, dead: NDArray[np.bool_], activation: Activation, p: float, normalize_input: bool
) -> Float64 | None:
    """What dead neurons (w_j = 0) with biases add to the outputs, (C,); None if nothing: v (h, C).

    pReLU: v_j sigma(b_j) at p = 1, and nothing for p > 1, as pReLU's limit for large ||w_j|| is 0 there and for small
    ones there is none; polynomial: v_j sigma(b_j)^p; tanh: v_j tanh(b_j).
    """
    if activation == "prelu" and p > 1.0:
        return None
    rows = np.flatnonzero(dead & (bias != 0.0))
    if not rows.size:
        return None
    if normalize_input and p > 1.0:
        raise ValueError(
            f"hidden_bias[{rows[0]}] must be 0 where W[{rows[0]}] is and the input is normalised, as the neuron is no "
            f"constant then, got {bias[rows[0]]:g}"
        )
    b = bias[rows]
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.tanh(b) if activation == "tanh" else np.maximum(b, 0.0) ** (p if activation == "polynomial" else 1)
        total = np.asarray(values @ v[rows])
    if not np.isfinite(total).all():
        raise ValueError("hidden_bias must leave the constant of neurons with W = 0 finite")
    return total


def output_weights(weights: ArrayLike | None, n: int, outputs: int) -> Float64:
    """Weights of the outputs (n, C) of a weighted sum; 1 for one output without them."""
    if weights is None:
        if outputs > 1:
            raise ValueError(f"weights must be given, shape ({n}, {outputs}), for {outputs} outputs")
        return np.ones((n, 1))
    ndim = 1 if outputs == 1 and _arrays.as_array(weights, "weights").ndim == 1 else 2
    result = _arrays.real_array(weights, "weights", dtype=np.float64, ndim=ndim)
    if result.shape not in (((n,), (n, 1)) if outputs == 1 else ((n, outputs),)):
        raise ValueError(f"weights must have shape ({n}, {outputs}) to match X and the outputs, got {result.shape}")
    return result.astype(np.float64).reshape(n, outputs)
