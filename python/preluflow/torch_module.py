"""Two-layer networks as torch modules, and back. Importing this file needs torch (``pip install torch``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from preluflow import _arrays
from preluflow.network import ACTIVATIONS, TwoLayerNetwork, require_plain
from preluflow.typing import Activation

_ROUNDINGS = 1e3  # that a module's forward pass may be away from ours, in units of the dtype's eps or least number


class TwoLayerModule(torch.nn.Module):
    """The same function as a ``TwoLayerNetwork``, with parameters W (h, D) and v (h,) that torch can train.

    The forward pass takes X (n, D) and returns f (n,). pReLU is computed from cosines, so it does not underflow at
    small scales as long as W and v themselves are representable.
    """

    def __init__(self, W: torch.Tensor, v: torch.Tensor, activation: Activation = "prelu", p: float = 3.0) -> None:
        super().__init__()
        for name, tensor, ndim in (("W", W, 2), ("v", v, 1)):
            _arrays.instance(tensor, name, torch.Tensor)
            if tensor.ndim != ndim or tensor.numel() == 0 or not tensor.is_floating_point():
                raise ValueError(
                    f"{name} must be a tensor of floats of {ndim} dimension{'s' * (ndim > 1)}, not empty, "
                    f"got shape {tuple(tensor.shape)} of {tensor.dtype}"
                )
        if len(v) != len(W):
            raise ValueError(f"v must have shape ({len(W)},) to match W, got {tuple(v.shape)}")
        self.W = torch.nn.Parameter(W)
        self.v = torch.nn.Parameter(v)
        self.activation = _arrays.choice(activation, "activation", ACTIVATIONS)
        self.p = _arrays.real(p, "p", minimum=1.0)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Evaluate f on X (n, D)."""
        if self.activation == "tanh":
            return torch.mv(torch.tanh(X @ self.W.T), self.v)
        if self.activation == "polynomial":
            return torch.mv(torch.relu(X @ self.W.T) ** self.p, self.v)
        norms = torch.linalg.vector_norm(self.W, dim=1)
        directions = self.W / torch.where(norms > 0, norms, 1.0)[:, None]  # a dead neuron is 0, not NaN
        return torch.mv(torch.relu(X @ directions.T) ** self.p, self.v * norms)


def to_torch(network: TwoLayerNetwork) -> TwoLayerModule:
    """Copy a network into a torch module of the same dtype.

    Raises
    ------
    ValueError
        If weights that matter to the network leave the range of its dtype, in which they would be 0 or infinite.
    """
    _arrays.instance(network, "network", TwoLayerNetwork)
    require_plain(network, "to_torch")
    _require_range(network)
    W = torch.from_numpy(np.array(network.W))
    return TwoLayerModule(W, torch.from_numpy(network.v.astype(network.dtype)), network.activation, network.p)


def _require_range(network: TwoLayerNetwork) -> None:
    """Refuse a network whose function would be lost with the weights that its dtype cannot hold."""
    lost = np.flatnonzero(_lost(network, network.dtype))
    if not lost.size:
        return
    j = lost[0]
    # float64 need not hold them either, which rescaled() does not change: it leaves W as it is.
    double = not _lost(network, np.dtype(np.float64)).any()
    cure = "use network.astype('float64').to_torch()" if double else "change log_norm and log_abs_v by network.replace"
    raise ValueError(
        f"network must have weights in the range of {network.dtype}, but ||w_{j}|| is {_power(network.log_norm[j])} "
        f"and |v_{j}| is {_power(network.log_abs_v[j])}, and so of {lost.size} of {network.width} neurons; {cure}"
    )


def _lost(network: TwoLayerNetwork, dtype: np.dtype[Any]) -> NDArray[np.bool_]:
    """Neurons (h,) whose weights leave a dtype's range, and whose part of the sum is more than rounding in it."""
    log_norm, log_abs_v, info = network.log_norm, network.log_abs_v, np.finfo(dtype)
    tanh = network.activation == "tanh"
    share = log_abs_v + np.minimum(log_norm, 0.0) if tanh else network.log_contributions
    least, most = np.log(float(info.tiny)), np.log(float(info.max))
    outside = (np.minimum(log_norm, log_abs_v) < least) | (np.maximum(log_norm, log_abs_v) > most)
    largest = float(share.max())
    if np.isneginf(largest):
        return np.zeros(network.width, dtype=bool)
    return np.asarray(outside & (share > largest + np.log(float(info.eps) / network.width)))


def _power(log: float) -> str:
    return f"about 1e{log / np.log(10.0):+.0f}"


def from_torch(module: Any) -> TwoLayerNetwork:
    """Copy a module with attributes W (h, D), v (h,), activation and p into a network of W's dtype.

    The module's own forward pass is held against the network's at random points, and 0.

    Raises
    ------
    ValueError, TypeError
        If something is missing, or the module computes another function: one with biases, another activation, more
        layers.
    """
    missing = [name for name in ("W", "v", "activation", "p") if not hasattr(module, name)]
    if missing:
        raise TypeError(f"module must have attributes W, v, activation and p; {missing} missing")
    if not callable(module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    for name in ("W", "v"):
        _arrays.instance(getattr(module, name), f"module.{name}", torch.Tensor)
    W, v = (np.asarray(getattr(module, name).detach().cpu().numpy()) for name in ("W", "v"))
    p = module.p.detach().cpu().numpy() if isinstance(module.p, torch.Tensor) else module.p
    p = _arrays.real(p, "module.p", minimum=1.0)
    network = TwoLayerNetwork(W, v, _arrays.choice(module.activation, "module.activation", ACTIVATIONS), p)
    _require_same_function(module, network)
    return network


def _require_same_function(module: Any, network: TwoLayerNetwork) -> None:
    """Refuse a module that computes anything but the network."""
    X = _test_points(network)
    found, expected = _forward(module, X), network.decision_function(X)
    info, outer = np.finfo(network.dtype), float(np.abs(network.v).sum())
    # What rounding may do to the terms of the sum, and where they underflow or overflow.
    terms = outer if network.activation == "tanh" else network.replace(sign=np.abs(network.sign)).decision_function(X)
    tolerance = _ROUNDINGS * (float(info.eps) * terms + float(info.tiny) * (1.0 + outer))
    beyond = terms > float(info.max) / _ROUNDINGS
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(found - expected) <= tolerance) & ~beyond
    if wrong.any():
        i = int(np.argmax(wrong))
        where = "at 0" if i == 0 else f"at a point of length {np.linalg.norm(X[i]):.3g}"
        raise ValueError(
            f"module must compute the sum of v_j phi(<x, w_j>) with its W, v, activation {network.activation!r} and "
            f"p = {network.p:g} and nothing else, such as a bias, but {where} it gives {found[i]:.6g} where that is "
            f"{expected[i]:.6g}"
        )


def _test_points(network: TwoLayerNetwork) -> Any:
    """0, and random points of lengths from 1/100 to 100, (m, D), in the network's dtype."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((60, network.dim))
    X *= (np.repeat([0.01, 1.0, 100.0], 20) / np.linalg.norm(X, axis=1))[:, None]
    return np.vstack([np.zeros((1, network.dim)), X]).astype(network.dtype)


def _forward(module: Any, X: Any) -> Any:
    """Outputs of a module in evaluation mode, (m,), float64; the mode it is in stays."""
    training = bool(getattr(module, "training", False))
    try:
        if training:
            module.eval()
        with torch.no_grad():
            f = module(torch.from_numpy(X).to(module.W.device))
        found = np.asarray(f.detach().cpu().numpy(), dtype=np.float64)
    except Exception as error:  # whatever a module of others raises
        raise ValueError(f"module must take points of shape {X.shape}: {type(error).__name__}: {error}") from error
    finally:
        if training:
            module.train()
    if found.size != len(X):
        raise ValueError(f"module must give one number for each of {len(X)} points, got shape {found.shape}")
    return found.reshape(-1)
