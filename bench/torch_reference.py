"""The same training as a torch user would write it: autograd and optim.SGD or optim.Adam, nothing else.

Public and readable on purpose: this is what preluflow is compared with, in answers and in time. Run it alone with
``python bench/torch_reference.py`` to see Figure 5's loss fall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": lambda f, y: ((y - f) ** 2).mean(),
    "exponential": lambda f, y: torch.exp(-y * f).mean(),
    "logistic": lambda f, y: torch.nn.functional.softplus(-y * f).mean(),
    "cross_entropy": torch.nn.functional.cross_entropy,
}

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


class PReLUNetwork(torch.nn.Module):
    """f(x) = sum_j v_j relu(<x,w_j>)^p / ||w_j||^(p-1), MV25 eq. 5; v (h,), or (h, C) for C outputs."""

    def __init__(self, W: Tensor, v: Tensor, p: int = 3) -> None:
        super().__init__()
        self.W = torch.nn.Parameter(W.clone())
        self.v = torch.nn.Parameter(v.clone())
        self.p = p

    def forward(self, X: Tensor) -> Tensor:
        """Evaluate f on X (n, D)."""
        z = torch.relu(X @ self.W.T)
        return (z**self.p / self.W.norm(dim=1) ** (self.p - 1)) @ self.v


def train(
    model: torch.nn.Module,
    X: Tensor,
    y: Tensor,
    *,
    step: float,
    loss: str,
    batches: Iterable[Tensor | None],
    method: str = "sgd",
) -> None:
    """One step for each entry of ``batches``: indices of a mini-batch, or None for all of the data."""
    optimizer = OPTIMIZERS[method](model.parameters(), lr=step)
    criterion = LOSSES[loss]
    for batch in batches:
        optimizer.zero_grad()
        value = criterion(model(X), y) if batch is None else criterion(model(X[batch]), y[batch])
        value.backward()
        optimizer.step()


def main() -> None:
    """Figure 5 at the paper's scale."""
    import preluflow as pf

    gmm = pf.OrthonormalGMM(1000, 5, 5, 0.1, rng=0)
    data = gmm.sample(5000, balanced=True, rng=1)
    start = pf.initialize(200, 1000, 1e-7, rng=2)
    X, y = torch.from_numpy(data.X), torch.from_numpy(data.y)
    model = PReLUNetwork(torch.from_numpy(start.W), torch.from_numpy(start.v.astype("float32")))
    for iteration in range(0, 600, 50):
        with torch.no_grad():
            print(f"iteration {iteration:4d}  loss {LOSSES['squared'](model(X), y):.4f}")
        train(model, X, y, step=0.2, loss="squared", batches=[None] * 50)


if __name__ == "__main__":
    main()
