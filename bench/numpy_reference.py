"""The same training in plain NumPy, with the gradient by hand: what is left where nothing is fused."""

from __future__ import annotations

from typing import Any

import numpy as np

BETAS, EPS = (0.9, 0.999), 1e-8  # of Adam, as in torch


class NumPyTraining:
    """Steps of descent or Adam on f(x) = sum_j V_j relu(<x,w_j>)^p / ||w_j||^(p-1), V (h,) or (h, C)."""

    def __init__(self, W: np.ndarray, V: np.ndarray, *, step: float, loss: str, optimizer: str, p: int = 3) -> None:
        self.W, self.V, self.step, self.loss, self.p = W.copy(), V.astype(W.dtype), W.dtype.type(step), loss, p
        self.moments: list[Any] | None = None
        if optimizer == "adam":
            self.moments = [(np.zeros_like(part), np.zeros_like(part)) for part in (self.W, self.V)]
        self.steps = 0

    def __call__(self, X: np.ndarray, y: np.ndarray) -> None:
        """One step on (X, y)."""
        for k, (part, move) in enumerate(zip((self.W, self.V), self.downhill(X, y), strict=True)):
            part += self.step * (move if self.moments is None else self._adam(k, move))
        self.steps += self.moments is not None

    def downhill(self, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gradient, negated, in W and V."""
        norms = np.linalg.norm(self.W, axis=1)
        U = self.W / norms[:, None]
        z = np.maximum(X @ U.T, 0)
        square = z * z
        cube = square * z
        wide = norms if self.V.ndim == 1 else norms[:, None]
        residual = self.residual(cube @ (self.V * wide), y) / z.dtype.type(len(y))
        s = cube.T @ residual  # (h,) or (h, C)
        if self.V.ndim == 1:
            G = (self.p * square * residual[:, None]).T @ X
            return self.V[:, None] * (G - (self.p - 1) * s[:, None] * U), norms * s
        G = (self.p * square * (residual @ self.V.T)).T @ X
        return G - (self.p - 1) * (self.V * s).sum(axis=1)[:, None] * U, wide * s

    def residual(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """-d loss / d f at each point."""
        if self.loss == "squared":
            return 2 * (y - f)
        if self.loss == "exponential":
            return y * np.exp(-y * f)
        shares = np.exp(f - f.max(axis=1, keepdims=True))
        shares /= -shares.sum(axis=1, keepdims=True)
        shares[np.arange(len(y)), y] += 1
        return shares

    def _adam(self, k: int, move: np.ndarray) -> np.ndarray:
        assert self.moments is not None
        (beta1, beta2), t, (m, q) = BETAS, self.steps + 1, self.moments[k]
        m += (1 - beta1) * (move - m)
        q += (1 - beta2) * (move * move - q)
        return (m / (1 - beta1**t)) / (np.sqrt(q / (1 - beta2**t)) + EPS)
