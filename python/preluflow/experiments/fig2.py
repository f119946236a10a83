"""Figure 2 of MV25: robust accuracy against the radius, of networks of many kinds; ``robust`` says how.

Every published curve is met, by our attack. "Small" initialisation is balanced with epsilon = 1e-7 there,
Theorem 1's. Entries of N(0, 0.01^2), which App. B.2 calls small, are not small enough in D = 2000 (||w_j|| = 0.45): the
pReLU network they lead to breaks down between 0.5 and 0.6. tanh, nearly linear throughout, starts from these.
"""

from __future__ import annotations

from dataclasses import replace

from preluflow.experiments.robust.curves import BAYES, SMALL, Config, experiment
from preluflow.experiments.robust.models import Recipe

RECIPES = (
    BAYES,
    replace(SMALL, key="flow", label="pReLU, flow", kind="flow"),
    SMALL,
    Recipe("relu", "ReLU", p=1.0, step=0.2, level="tight"),
    Recipe("tanh", "tanh", activation="tanh", init="gaussian", scale=0.01, step=0.2, level="tight"),
    Recipe("linear", "logistic regression", "linear", step=0.2, loss="logistic"),
    Recipe("mlp", "4-layer ReLU MLP", "mlp", step=0.1),
)

FIG2 = experiment(
    "fig2",
    "robust accuracy against the radius: pReLU, ReLU, tanh, linear, MLP and Bayes",
    Config(recipes=RECIPES),
    {"paper": 220, "quick": 8},
)
