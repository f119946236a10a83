"""The words that arguments take, as types: annotate your own with them, and a type checker finds what is misspelt."""

from typing import Literal

Activation = Literal["prelu", "polynomial", "tanh"]
"""``TwoLayerNetwork`` and ``initialize``."""

Kind = Literal["balanced", "gaussian"]
"""Of ``initialize``."""

Loss = Literal["squared", "exponential", "logistic"]
"""Of one output, in training and theory."""

TrainingLoss = Literal["squared", "exponential", "logistic", "cross_entropy"]
"""Of training: the last is of several outputs, the two before it of one."""

Biases = Literal["hidden", "output", "both"]
"""Which biases training adds to those a network has."""

Trained = Literal["both", "inner", "outer"]
"""Which layers are trained."""

Training = Literal["adam", "sgd", "descent", "flow"]
"""How an estimator of ``preluflow.sklearn`` is trained."""

ClassifierLoss = Literal["cross_entropy", "logistic", "squared", "exponential"]
"""Of ``preluflow.sklearn.TwoLayerClassifier``."""

Method = Literal["tsit5", "dopri5", "bosh3", "flow43", "dop853", "rkc", "rk4", "euler"]
"""Of ``gradient_flow``."""

Level = Literal["fast", "tight", "exact"]
"""Of ``robust_radius``."""

Norm = Literal["l2", "linf"]
"""Of the ball of an attack."""

Objective = Literal["exponential", "margin", "cross_entropy", "dlr"]
"""Of ``attacks.pgd``; APGD takes all but the first, DDN the two in the middle."""

Recipe = Literal["mv24"]
"""Of ``attacks.pgd`` and ``distance_estimate``: a paper's search as its authors ran it."""
