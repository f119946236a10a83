"""What a type checker says of a user's script: nothing where it is right, and what is misspelt where it is not."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import preluflow as pf
from preluflow import _searches, attacks, flow, margins, network

pytest.importorskip("mypy")

RIGHT = '''
import numpy as np
from numpy.typing import ArrayLike, NDArray

import preluflow as pf
from preluflow.typing import Loss


class Plain:
    """Methods annotated as most people do."""

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(X[:, 0])

    def input_gradient(self, X: np.ndarray) -> np.ndarray:
        return np.eye(1, X.shape[1]).repeat(len(X), axis=0)


class Exact:
    """The same, to the letter."""

    def decision_function(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(X[:, 0])

    def input_gradient(self, X: NDArray[np.float64]) -> NDArray[np.float32]:
        return np.ones(X.shape, dtype=np.float32)


class Broad:
    """The same, of anything."""

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        return np.asarray(X, dtype=np.float64)[:, 0]

    def input_gradient(self, X: ArrayLike) -> NDArray[np.floating]:
        return np.ones_like(X, dtype=np.float64)


def train(X: NDArray[np.float32], y: NDArray[np.float64], loss: Loss = "squared") -> pf.Run:
    network = pf.initialize(20, scale=1e-7, like=X, rng=0)
    events = [pf.events.loss_below(0.1, terminal=True)]
    look = pf.Observe(every=1.0, what=["loss", lambda at: at.t], networks=True)
    start = pf.gradient_flow(network, X, y, t1=3.0, loss=loss, method="dopri5", events=events, observe=look, dense=True)
    pf.sgd(pf.initialize(20, 3, 0.1, kind="gaussian"), X, y, step=0.1, batch=2, epochs=3, events=events)
    three = pf.initialize(20, scale=0.1, like=X, outputs=3)
    pf.adam(three, X, y, batch=2, epochs=3, loss="cross_entropy", train="inner", betas=(0.5, 0.9))
    return pf.gradient_flow(start, X, y, t1=5.0, join=True, dense=True, observe=look)


gmm = pf.OrthonormalGMM(dim=10, positive=2, negative=1, alpha=0.1, rng=0)
data = gmm.sample(50, balanced=True, rng=1)
run = train(data.X, np.asarray(data.y, dtype=np.float64))
middle: pf.TwoLayerNetwork = run.at(2.0)
kept: tuple[pf.TwoLayerNetwork, ...] = run.networks
last: float = run.t[-1]
classifiers: list[pf.classifiers.Classifier] = [Plain(), Exact(), Broad(), middle, pf.classifiers.Bayes(gmm)]
for classifier in classifiers:
    found: pf.Attack = pf.attacks.pgd(classifier, data.X, data.y, eps=0.3, norm="linf", objective="margin")
    same: pf.attacks.Attack = pf.attacks.ddn(classifier, data.X, data.y)
    print(found.accuracy, same.norms, pf.robust_radius(classifier, data.X, data.y).summary())
print(pf.robust_radius(run.network, data.X, data.y, "exact", max_seconds=1.0).accuracy([0.1, 0.2]))
'''
WRONG = """
import numpy as np
import preluflow as pf

X, y = np.ones((2, 3)), np.ones(2)
net = pf.TwoLayerNetwork(np.ones((2, 3)), np.ones(2), "prelu")
pf.gradient_flow(net, X, y, t1=1.0, method="tsit6")
pf.gradient_flow(net, X, y, t1=1.0, loss="sqared")
pf.sgd(net, X, y, step=0.1, batch=1, epochs=1, loss="hinge")
pf.adam(net, X, y, batch=1, epochs=1, betas=0.9)
pf.robust_radius(net, X, y, "thight")
pf.TwoLayerNetwork(np.ones((2, 3)), np.ones(2), "relu")
pf.initialize(2, 3, 0.1, kind="gausian")
pf.attacks.fgsm(net, X, y, eps=0.1, norm="l1")
pf.attacks.pgd(net, X, y, eps=0.1, objective="logit")
pf.initialize(2, scale=0.1)
pf.robust_radius(3, X, y)
pf.attacks.fgsm("a network", X, y, eps=0.1)
"""


@pytest.fixture
def check(tmp_path, pytestconfig):
    """A function of scripts by name, which returns what mypy --strict finds in each, as {line: message}."""
    options = ["--strict", "--follow-imports=silent", "--no-error-summary"]
    cache = getattr(pytestconfig, "cache", None)  # most of the time goes into NumPy's types, which do not change
    options.append(f"--cache-dir={cache.mkdir('mypy') if cache else tmp_path / 'cache'}")

    def run(**scripts):
        for name, script in scripts.items():
            (tmp_path / f"{name}.py").write_text(script)
        done = subprocess.run(
            [sys.executable, "-m", "mypy", *options, *(f"{name}.py" for name in scripts)],
            env={**os.environ, "MYPYPATH": str(Path(pf.__file__).parents[1])},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.stderr == ""
        found = {name: {} for name in scripts}
        for name, line, message in re.findall(r"(\w+)\.py:(\d+): error: (.*)", done.stdout):
            found[name][int(line)] = message
        return found

    return run


def test_a_type_checker_takes_what_is_right_and_finds_what_is_misspelt(check):
    found = check(right=RIGHT, wrong=WRONG)
    assert found["right"] == {}
    assert set(found["wrong"]) == {number for number, line in enumerate(WRONG.splitlines(), 1) if number > 6 and line}


def test_the_words_are_those_that_are_taken():
    words = pf.typing
    for kind, taken in (
        (words.Activation, network.ACTIVATIONS),
        (words.Loss, network.LOSSES),
        (words.Method, flow.METHODS),
        (words.Level, margins.LEVELS),
        (words.Norm, _searches.NORMS),
        (words.Objective, attacks.OBJECTIVES),
    ):
        assert sorted(get_args(kind)) == sorted(taken)
    assert get_args(words.Kind) == ("balanced", "gaussian")
    assert pf.Attack is attacks.Attack
