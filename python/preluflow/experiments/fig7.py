"""Figure 7 of MV25: robust accuracy from small and large initialisation; ``robust`` says how.

Of the published curves only those of Bayes and, from 1e-7, of pReLU are met. Tried without meeting the rest:
the three losses, several steps, 3 to 60 epochs, and, for pReLU, entries divided by sqrt(D) (that is Bayes' curve from
std 0.5 too). Nearest to the published "pReLU, large" (1.0 to 0.38, 0.6 at 0.6, 0 by 0.72) is std 0.03 as the papers'
PGD sees it: 1.0 to 0.5, 0.58 at 0.6, but 0.22 at 0.72. Our attack leaves 0.53 at 0.5 and nothing from 0.6.
"""

from __future__ import annotations

from dataclasses import replace

from preluflow.experiments.robust.curves import BAYES, SMALL, Config, experiment
from preluflow.experiments.robust.models import Recipe

_GAUSSIAN = Recipe("", "", init="gaussian", level="tight")
RECIPES = (
    BAYES,
    replace(SMALL, label="pReLU, 1e-7"),
    replace(_GAUSSIAN, key="prelu_small", label="pReLU, std 0.01", scale=0.01, level="fast"),
    replace(_GAUSSIAN, key="prelu_large", label="pReLU, std 0.5", scale=0.5),
    replace(_GAUSSIAN, key="poly_small", label="polynomial, std 0.01", activation="polynomial", scale=0.01, step=2.0),
    replace(_GAUSSIAN, key="poly_large", label="polynomial, std 0.5", activation="polynomial", scale=0.5, step=0.1),
)
# Tight certificates of networks far from any mixture of clusters take tenths of a second a point: 500 points.

FIG7 = experiment(
    "fig7",
    "robust accuracy of pReLU and polynomial ReLU from small and large initialisation",
    Config(recipes=RECIPES, loss="logistic", test=500),
    {"paper": 200, "quick": 20},
)
