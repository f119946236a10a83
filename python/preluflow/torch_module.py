"""Two-layer networks as torch modules, and back. Importing this file needs torch (``pip install torch``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from preluflow import _arrays
from preluflow.network import ACTIVATIONS, TwoLayerNetwork


class TwoLayerModule(torch.nn.Module):
    """The same function as a ``TwoLayerNetwork``, with parameters W (h, D) and v (h,) that torch can train.

    The forward pass takes X (n, D) and returns f (n,). pReLU is computed from cosines, so it does not underflow at
    small scales as long as W and v themselves are representable.
    """

    def __init__(self, W: torch.Tensor, v: torch.Tensor, activation: str = "prelu", p: float = 3.0) -> None:
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
    """Copy a network into a torch module of the same dtype."""
    _arrays.instance(network, "network", TwoLayerNetwork)
    W = torch.from_numpy(np.array(network.W))
    return TwoLayerModule(W, torch.from_numpy(network.v.astype(network.dtype)), network.activation, network.p)


def from_torch(module: Any) -> TwoLayerNetwork:
    """Copy a module with attributes W (h, D), v (h,), activation and p into a network of W's dtype."""
    missing = [name for name in ("W", "v", "activation", "p") if not hasattr(module, name)]
    if missing:
        raise TypeError(f"module must have attributes W, v, activation and p; {missing} missing")
    for name in ("W", "v"):
        _arrays.instance(getattr(module, name), f"module.{name}", torch.Tensor)
    W, v = (np.asarray(getattr(module, name).detach().cpu().numpy()) for name in ("W", "v"))
    p = module.p.detach().cpu().numpy() if isinstance(module.p, torch.Tensor) else module.p
    p = _arrays.real(p, "module.p", minimum=1.0)
    return TwoLayerNetwork(W, v, _arrays.choice(module.activation, "module.activation", ACTIVATIONS), p)
