"""Two-layer networks as torch modules, and back. Importing this file needs torch (``pip install torch``)."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from preluflow import _arrays
from preluflow._parts import class_labels
from preluflow.network import ACTIVATIONS, TwoLayerNetwork
from preluflow.typing import Activation

_NOTHING = (torch.nn.Flatten, torch.nn.Identity, torch.nn.Dropout)  # in evaluation, for points that are rows
_CANCELLED = 32.0  # units of rounding that a sum of products may be off by, relative to the lengths it is made of
_ROUNDINGS = 1e3  # that a module's forward pass may be away from ours, in units of the dtype's eps or least number


class TwoLayerModule(torch.nn.Module):
    """The same function as a ``TwoLayerNetwork``, with parameters that torch can train.

    The forward pass takes X (n, D) and returns f (n,), or F (n, C) for v (h, C). pReLU is computed from cosines, so it
    does not underflow at small scales as long as W and v themselves are representable.

    Parameters
    ----------
    W, v : Tensor, shapes (h, D) and (h,) or (h, C)
        Become parameters.
    activation, p, normalize_input, classes
        As in ``TwoLayerNetwork``; classes are kept, and not used.
    hidden_bias, output_bias : Tensor, shapes (h,) and (C,), optional
        Become parameters.
    center : Tensor, shape (D,), optional
        Becomes a buffer.

    Examples
    --------
    >>> net = pf.TwoLayerNetwork(W=[[3.0, 4.0]], v=[2.0], p=3)
    >>> module = net.to_torch()
    >>> type(module).__name__, sorted(name for name, _ in module.named_parameters())
    ('TwoLayerModule', ['W', 'v'])
    """

    hidden_bias: torch.nn.Parameter | None
    output_bias: torch.nn.Parameter | None
    center: torch.Tensor | None

    def __init__(
        self,
        W: torch.Tensor,
        v: torch.Tensor,
        activation: Activation = "prelu",
        p: float = 3.0,
        *,
        hidden_bias: torch.Tensor | None = None,
        output_bias: torch.Tensor | None = None,
        center: torch.Tensor | None = None,
        normalize_input: bool = False,
        classes: Any = None,
    ) -> None:
        super().__init__()
        _require_tensor(W, "W", 2)
        _require_tensor(v, "v", 2 if isinstance(v, torch.Tensor) and v.ndim == 2 else 1)
        if len(v) != len(W) or (v.ndim == 2 and v.shape[1] < 2):
            raise ValueError(f"v must have shape ({len(W)},) to match W, got {tuple(v.shape)}")
        outputs = 1 if v.ndim == 1 else v.shape[1]
        for name, part, length in (
            ("hidden_bias", hidden_bias, len(W)),
            ("output_bias", output_bias, outputs),
            ("center", center, W.shape[1]),
        ):
            if part is not None:
                _require_tensor(part, name, 1, length)
        self.W = torch.nn.Parameter(W)
        self.v = torch.nn.Parameter(v)
        self.activation = _arrays.choice(activation, "activation", ACTIVATIONS)
        self.p = _arrays.real(p, "p", minimum=1.0)
        for name, part in (("hidden_bias", hidden_bias), ("output_bias", output_bias)):
            self.register_parameter(name, None if part is None else torch.nn.Parameter(part))
        self.register_buffer("center", center)
        self.normalize_input = _arrays.flag(normalize_input, "normalize_input")
        if self.normalize_input and activation == "tanh":
            raise ValueError("normalize_input must be False for 'tanh': it is defined for 'prelu' and 'polynomial'")
        self.classes = None if classes is None else class_labels(classes, outputs).tolist()

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Evaluate f, or F, on X (n, D)."""
        x = X if self.center is None else X - self.center
        f: torch.Tensor = self._neurons(x) @ self._outer()
        if self.normalize_input and self.p > 1.0:
            length = torch.linalg.vector_norm(x, dim=1)
            kappa = torch.where(length > 0, length, 1.0) ** (1.0 - self.p) * (length > 0)
            f = f * (kappa if f.ndim == 1 else kappa[:, None])
        return f if self.output_bias is None else f + self.output_bias

    def _neurons(self, x: torch.Tensor) -> torch.Tensor:
        """Phi of all neurons, (n, h), where pReLU leaves ||w|| to the outer weights."""
        bias = 0.0 if self.hidden_bias is None else self.hidden_bias
        if self.activation == "tanh":
            return torch.tanh(x @ self.W.T + bias)
        if not self._by_cosines():
            return torch.relu(x @ self.W.T + bias) ** self.p
        norms = self._norms()
        return torch.relu(x @ (self.W / norms[:, None]).T + bias / norms) ** self.p

    def _outer(self) -> torch.Tensor:
        if self.activation != "prelu" or not self._by_cosines():
            return self.v
        norms: torch.Tensor = torch.linalg.vector_norm(self.W, dim=1)
        return self.v * (norms if self.v.ndim == 1 else norms[:, None])

    def _by_cosines(self) -> bool:
        """Whether neurons see x in units of ||w||: not where a dead one with a bias is a constant."""
        return self.activation == "prelu" and (self.p > 1.0 or self.hidden_bias is None)

    def _norms(self) -> torch.Tensor:
        norms = torch.linalg.vector_norm(self.W, dim=1)
        return torch.where(norms > 0, norms, 1.0)  # a dead neuron is 0, not NaN


def _require_tensor(tensor: Any, name: str, ndim: int, length: int | None = None) -> None:
    _arrays.instance(tensor, name, torch.Tensor)
    if tensor.ndim != ndim or tensor.numel() == 0 or not tensor.is_floating_point():
        raise ValueError(
            f"{name} must be a tensor of floats of {ndim} dimension{'s' * (ndim > 1)}, not empty, "
            f"got shape {tuple(tensor.shape)} of {tensor.dtype}"
        )
    if length is not None and len(tensor) != length:
        raise ValueError(f"{name} must have shape ({length},), got {tuple(tensor.shape)}")


def to_torch(network: TwoLayerNetwork) -> TwoLayerModule:
    """Copy a network into a torch module of the same dtype.

    Raises
    ------
    ValueError
        If weights that matter to the network leave the range of its dtype, in which they would be 0 or infinite.

    Examples
    --------
    >>> module = pf.torch_module.to_torch(pf.TwoLayerNetwork(W=[[3.0, 4.0]], v=[2.0], p=1))
    >>> import torch
    >>> module(torch.ones(1, 2, dtype=torch.float64)).tolist()
    [14.0]
    """
    _arrays.instance(network, "network", TwoLayerNetwork)
    _require_range(network)
    parts = {name: _part(network, name) for name in ("hidden_bias", "output_bias", "center")}
    return TwoLayerModule(
        torch.from_numpy(np.array(network.W)),
        torch.from_numpy(network.v.astype(network.dtype)),
        network.activation,
        network.p,
        normalize_input=network.normalize_input,
        classes=network.classes,
        **parts,
    )


def _part(network: TwoLayerNetwork, name: str) -> torch.Tensor | None:
    """Return a part in the network's dtype, which must hold it."""
    values = getattr(network, name)
    if values is None:
        return None
    with np.errstate(over="ignore", under="ignore"):
        result = values.astype(network.dtype)
    lost = ~np.isfinite(result) | ((name == "output_bias") & (result == 0) & (values != 0))
    if lost.any():
        i = int(np.argmax(lost))
        raise ValueError(f"network must have a {name} in the range of {network.dtype}, got {values[i]:.3g}")
    return torch.from_numpy(result)


def _require_range(network: TwoLayerNetwork) -> None:
    """Refuse a network whose function would be lost with the weights that its dtype cannot hold."""
    lost = _lost(network, network.dtype)
    neurons = np.flatnonzero(lost.any(axis=1))
    if not neurons.size:
        return
    j = neurons[0]
    log_v = network.log_abs_v.reshape(network.width, -1)[j, np.argmax(lost[j])]
    # float64 need not hold them either, which rescaled() does not change: it leaves W as it is.
    double = not _lost(network, np.dtype(np.float64)).any()
    cure = "use network.astype('float64').to_torch()" if double else "change log_norm and log_abs_v by network.replace"
    raise ValueError(
        f"network must have weights in the range of {network.dtype}, but ||w_{j}|| is {_power(network.log_norm[j])} "
        f"and |v_{j}| is {_power(log_v)}, and so of {neurons.size} of {network.width} neurons; {cure}"
    )


def _lost(network: TwoLayerNetwork, dtype: np.dtype[Any]) -> NDArray[np.bool_]:
    """Weights (h, C) that leave a dtype's range, and whose part of the sum is more than rounding in it."""
    log_norm, info = network.log_norm[:, None], np.finfo(dtype)
    log_abs_v = network.log_abs_v.reshape(network.width, -1)
    tanh = network.activation == "tanh"
    share = log_abs_v + np.minimum(log_norm, 0.0) if tanh else network.log_contributions.reshape(log_abs_v.shape)
    least, most = np.log(float(info.tiny)), np.log(float(info.max))
    outside = (np.minimum(log_norm, log_abs_v) < least) | (np.maximum(log_norm, log_abs_v) > most)
    largest = share.max(axis=0)
    with np.errstate(invalid="ignore"):
        matters = share > largest + np.log(float(info.eps) / network.width)
    return np.asarray(outside & matters & ~np.isneginf(largest))


def _power(log: float) -> str:
    return f"about 1e{log / np.log(10.0):+.0f}"


def from_torch(module: Any) -> TwoLayerNetwork:
    """Copy a torch module of two layers into a network of its weights' dtype.

    The module has attributes W (h, D), v (h,), activation and p, as ``TwoLayerModule`` has; or it is an
    ``nn.Sequential`` of a Linear, a ReLU or Tanh and a Linear, with or without biases, with any number of outputs, and
    Flatten, Identity and Dropout, which does nothing in evaluation, in between. ReLU becomes pReLU with p = 1, a last
    layer of one output one whose sign decides.

    The module's own forward pass is held against the network's at random points, and 0.

    Raises
    ------
    ValueError, TypeError
        If something is missing, or the module computes another function: one with another activation, more layers.

    Examples
    --------
    >>> import torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> net = pf.torch_module.from_torch(module)
    >>> net.num_outputs, net.p
    (3, 1.0)
    """
    if isinstance(module, torch.nn.Sequential):
        network = _of_sequential(module)
    else:
        network = _of_attributes(module)
    _require_same_function(module, network)
    return network


def _of_attributes(module: Any) -> TwoLayerNetwork:
    missing = [name for name in ("W", "v", "activation", "p") if not hasattr(module, name)]
    if missing:
        raise TypeError(
            f"module must be an nn.Sequential of Linear, ReLU or Tanh, Linear, or have attributes W, v, activation and "
            f"p; {missing} missing"
        )
    if not callable(module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    for name in ("W", "v"):
        _arrays.instance(getattr(module, name), f"module.{name}", torch.Tensor)
    p = module.p.detach().cpu().numpy() if isinstance(module.p, torch.Tensor) else module.p
    p = _arrays.real(p, "module.p", minimum=1.0)
    parts: dict[str, Any] = {}
    if isinstance(module, TwoLayerModule):  # others' attributes of these names may be anything
        parts = {name: _values(getattr(module, name, None), name) for name in ("hidden_bias", "output_bias", "center")}
        parts |= {"normalize_input": getattr(module, "normalize_input", False)}
        parts |= {"classes": getattr(module, "classes", None)}
    activation = _arrays.choice(module.activation, "module.activation", ACTIVATIONS)
    return TwoLayerNetwork(_values(module.W, "W"), _values(module.v, "v"), activation, p, **parts)


def _of_sequential(module: torch.nn.Sequential) -> TwoLayerNetwork:
    """Read Linear, ReLU or Tanh, Linear."""
    layers = [layer for layer in _layers(module) if not isinstance(layer, _NOTHING)]
    kinds = [type(layer).__name__ for layer in layers]
    activations: dict[type, Activation] = {torch.nn.ReLU: "prelu", torch.nn.Tanh: "tanh"}
    fits = len(layers) == 3 and all(isinstance(layers[k], torch.nn.Linear) for k in (0, 2))
    if not fits or type(layers[1]) not in activations:
        raise ValueError(
            "module must be a Linear, a ReLU or Tanh, and a Linear, with Flatten, Identity or Dropout in between, got "
            f"{_arrays.shown(kinds)}"
        )
    first, last = (cast(torch.nn.Linear, layers[k]) for k in (0, 2))
    v = _values(last.weight, "the last layer's weight").T
    return TwoLayerNetwork(
        _values(first.weight, "the first layer's weight"),
        v[:, 0] if v.shape[1] == 1 else v,
        activations[type(layers[1])],
        1.0,
        hidden_bias=_values(first.bias, "the first layer's bias"),
        output_bias=_values(last.bias, "the last layer's bias"),
    )


def _layers(module: torch.nn.Sequential) -> list[torch.nn.Module]:
    """Layers of a Sequential, those of a Sequential within it in their place."""
    found: list[torch.nn.Module] = []
    for layer in module:
        found.extend(_layers(layer) if isinstance(layer, torch.nn.Sequential) else [layer])
    return found


def _values(tensor: torch.Tensor | None, name: str) -> Any:
    """What a tensor holds, as a NumPy array; None for none."""
    if tensor is None:
        return None
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"module must have weights of float32 or float64, but {name} is {tensor.dtype}")
    return np.asarray(tensor.detach().cpu().numpy())


def _require_same_function(module: Any, network: TwoLayerNetwork) -> None:
    """Refuse a module that computes anything but the network."""
    X = _test_points(network)
    expected = network.decision_function(X).reshape(len(X), -1)
    found = _forward(module, X, expected.shape[1])
    info, outer = np.finfo(network.dtype), np.abs(network.v).reshape(network.width, -1).sum(axis=0)
    # What rounding may do to the terms of the sum, and where they underflow or overflow.
    terms, doubt = _terms(network, X, float(info.eps))
    tolerance = _ROUNDINGS * (float(info.eps) * terms + float(info.tiny) * (1.0 + outer)) + doubt
    beyond = terms > float(info.max) / _ROUNDINGS
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(found - expected) <= tolerance) & ~beyond
    if wrong.any():
        i, c = (int(k) for k in np.unravel_index(np.argmax(wrong), wrong.shape))
        where = "at 0" if i == 0 else f"at a point of length {np.linalg.norm(X[i]):.3g}"
        what = "the sum of v_j phi(<x, w_j>)" if network.plain else "the two layers"
        raise ValueError(
            f"module must compute {what} with its W, v, activation {network.activation!r} and "
            f"p = {network.p:g} and nothing else, such as a bias, but {where} it gives {found[i, c]:.6g} where that is "
            f"{expected[i, c]:.6g}"
        )


def _terms(network: TwoLayerNetwork, X: Any, eps: float) -> tuple[Any, Any]:
    """Sums of the terms' sizes at X (m, D), and what cancellation in z and x' may add to rounding; (m, C) each."""
    outer = np.abs(network.v).reshape(network.width, -1)
    bias = 0.0 if network.output_bias is None else np.abs(network.output_bias)
    if network.activation == "tanh":
        terms = np.broadcast_to(outer.sum(axis=0) + bias, (len(X), outer.shape[1]))
    else:
        sizes = network.replace(sign=np.abs(network.sign), output_bias=np.zeros(network.num_outputs))
        terms = sizes.decision_function(X).reshape(len(X), -1) + bias
    if network.offsets is None and network.center is None:
        return terms, 0.0
    center = 0.0 if network.center is None else network.center
    shift = np.linalg.norm(X, axis=1) + np.linalg.norm(center)
    offsets = np.zeros(network.width) if network.offsets is None else np.abs(network.offsets)
    reach = _CANCELLED * eps * (shift[:, None] + offsets)  # of z, (m, h)
    x = X.astype(np.float64) - center
    z = x @ network.directions.astype(np.float64).T + (0.0 if network.offsets is None else network.offsets)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if network.activation == "tanh":
            return terms, np.minimum(reach * network.norms, 1.0) @ outer
        z = np.maximum(z, 0.0)
        rise = ((z + reach) ** network.p - z**network.p) @ np.exp(network.log_contributions.reshape(outer.shape))
        if network.normalize_input:
            rise *= np.linalg.norm(x, axis=1)[:, None] ** (1.0 - network.p)
    return terms, np.where(np.isfinite(rise), rise, np.inf)


def _test_points(network: TwoLayerNetwork) -> Any:
    """0, and points at random distances from 1/100 to 100 of the centre, (m, D), in the network's dtype."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((60, network.dim))
    X *= (np.repeat([0.01, 1.0, 100.0], 20) / np.linalg.norm(X, axis=1))[:, None]
    if network.center is not None:
        X += network.center
    return np.vstack([np.zeros((1, network.dim)), X]).astype(network.dtype)


def _forward(module: Any, X: Any, outputs: int) -> Any:
    """Outputs of a module in evaluation mode, (m, C), float64; the modes it and its parts are in stay."""
    parts = module.modules() if isinstance(module, torch.nn.Module) else [module]
    modes = [(part, bool(getattr(part, "training", False))) for part in parts]
    try:
        if any(training for _, training in modes):
            module.eval()
        weight = module.W if hasattr(module, "W") else next(module.parameters())
        with torch.no_grad():
            f = module(torch.from_numpy(X).to(weight.device))
        found = np.asarray(f.detach().cpu().numpy(), dtype=np.float64)
    except Exception as error:  # whatever a module of others raises
        raise ValueError(f"module must take points of shape {X.shape}: {type(error).__name__}: {error}") from error
    finally:
        for part, training in modes:
            if training:
                part.training = True
    if found.size != len(X) * outputs:
        count = "one number" if outputs == 1 else f"{outputs} numbers"
        raise ValueError(f"module must give {count} for each of {len(X)} points, got shape {found.shape}")
    return found.reshape(len(X), outputs)
