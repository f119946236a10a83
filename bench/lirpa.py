"""auto_LiRPA's certified l2 radii of a two-layer torch network: IBP, CROWN and alpha-CROWN, by bisection.

Its last release on PyPI (0.3, of 2022) names parts of NumPy and torch that have moved since; ``load`` puts them back
where it looks, which changes nothing it computes. It needs appdirs. Bounds are float32, as its users have them.
"""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

METHODS = {"IBP": "IBP", "CROWN": "CROWN", "alpha-CROWN": "CROWN-Optimized"}
ITERATIONS = 20  # of alpha-CROWN, for every radius tried
RATE = 0.1  # of its optimiser
DENSE = {"sparse_features_alpha": False, "sparse_spec_alpha": False}  # sparse slopes lose their shapes on batches
BISECTIONS = 11  # radii are exact to 1/2000 of the attacked one


def load() -> Any | None:
    """auto_LiRPA, or None where it cannot be imported."""
    try:
        _put_back()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import auto_LiRPA
    except Exception as error:  # whatever it trips over in libraries newer than it
        print(f"auto_LiRPA is left out: {error!r}")
        return None
    return auto_LiRPA


def _put_back() -> None:
    """Names that auto_LiRPA 0.3 imports, where they have gone."""
    if "numpy.lib.arraysetops" not in sys.modules and not hasattr(np.lib, "arraysetops"):
        module = types.ModuleType("numpy.lib.arraysetops")
        module.isin = np.isin
        sys.modules["numpy.lib.arraysetops"] = module
    import torch.onnx.symbolic_helper as symbolic
    import torch.onnx.utils as onnx_utils

    if hasattr(symbolic, "_set_opset_version"):
        return
    from torch.onnx._internal.torchscript_exporter import _globals, utils

    symbolic._set_opset_version = lambda version: setattr(_globals.GLOBALS, "export_onnx_opset_version", version)
    onnx_utils._optimize_graph = utils._optimize_graph
    torch._C.Node.__getitem__ = lambda node, name: getattr(node, node.kindOf(name))(name)
    if not hasattr(torch.onnx, "OperatorExportTypes"):
        torch.onnx.OperatorExportTypes = torch._C._onnx.OperatorExportTypes


def pairs(y: np.ndarray, classes: int) -> Tensor:
    """Rows e_y - e_c of every rival c, (n, C - 1, C); y itself of one output, (n, 1, 1)."""
    if classes == 1:
        return torch.from_numpy(y.astype(np.float32))[:, None, None]
    eye = torch.eye(classes)
    return torch.stack([torch.stack([eye[int(k)] - eye[c] for c in range(classes) if c != k]) for k in y])


def radii(lirpa: Any, model: nn.Module, X: np.ndarray, y: np.ndarray, limit: np.ndarray, method: str) -> np.ndarray:
    """Largest radius (n,) within ``limit`` (n,) at which every pair's lower bound is positive."""
    classes = model(torch.zeros(1, X.shape[1])).shape[1]
    x, C = torch.from_numpy(X).float(), pairs(y, classes)
    bounded = lirpa.BoundedModule(model, x)
    low, high = np.zeros(len(X)), limit.copy()
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        eps = torch.from_numpy(middle).float()[:, None]
        ball = lirpa.PerturbationLpNorm(norm=2, eps=eps)
        if method == "alpha-CROWN":
            bounded = lirpa.BoundedModule(model, x, bound_opts=DENSE)  # the slopes of one radius do not fit another
            options = {"ob_iteration": ITERATIONS, "iteration": ITERATIONS, "ob_lr": RATE, "lr_alpha": RATE}
            bounded.set_bound_opts({"optimize_bound_args": options})
        point = lirpa.BoundedTensor(x, ball)
        lower, _ = bounded.compute_bounds(x=(point,), method=METHODS[method], C=C, bound_upper=False)
        good = (lower.detach() > 0).all(dim=1).numpy()
        low, high = np.where(good, middle, low), np.where(good, high, middle)
    return low
