"""What every experiment promises: Ctrl-C keeps what is done, files bring it back, options are used or refused."""

import re
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preluflow import attacks
from preluflow.experiments import (
    REGISTRY,
    Options,
    Outcome,
    beyond,
    descent_vs_flow,
    digits,
    fig1,
    fig3,
    fig4,
    fig5,
    fig6,
    fig7_recipes,
    mnist,
    mv24,
    neurons,
    orthogonal,
    proposition4,
    theorem1,
)  # fmt: skip
from preluflow.experiments._harness import Row
from preluflow.experiments.robust import curves
from preluflow.experiments.robust.table import models

QUICK = {name: experiment.presets["quick"] for name, experiment in REGISTRY.items()}
SWEEP = {"alphas": (0.4, 0.35, 0.3), "seeds": 3, "width": 10}
TWO_PHASES = {"dim": 20, "n": 100, "width": 10, "steps": 30, "every": 10}
ROBUST = {"dim": 100, "n": 600, "width": 40, "test": 80, "alpha": 0.07, "pgd_points": 40, "pgd_steps": 3}


@dataclass(frozen=True)
class Case:
    """A small form of an experiment; ``calls`` counts calls of ``module.function``, ``kept`` what is there after some.

    ``runs``: whether the function returns a run, which may say itself that it was interrupted.
    """

    module: Any
    function: str
    config: Any
    count: Callable[[Outcome], int]
    kept: dict[int, int]
    runs: bool = True


def some(name, *keys):
    return tuple(recipe for recipe in QUICK[name].recipes if recipe.key in keys)


def finite(name):
    return lambda outcome: int(np.isfinite(outcome.arrays.get(name, np.nan)).sum())


def mnist_files():
    """A folder of a few images in MNIST's format, which goes with the process."""
    folder, rng = tempfile.TemporaryDirectory(), np.random.default_rng(0)
    for name, n in (("train", 60), ("t10k", 20)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        images[np.arange(n), np.arange(n) % 10] = 255  # a row that tells the digit
        for kind, magic, array in (("images-idx3", 0x803, images), ("labels-idx1", 0x801, np.arange(n) % 10)):
            head = struct.pack(f">I{array.ndim}I", magic, *array.shape)
            Path(folder.name, f"{name}-{kind}-ubyte").write_bytes(head + array.astype(np.uint8).tobytes())
    return folder


MNIST = mnist_files()
CASES = {
    "fig1": Case(fig1, "sample_clusters", QUICK["fig1"], lambda o: len(o.arrays) > 0, {0: 0, 1: 1}, runs=False),
    "fig2": Case(
        curves, "radii", replace(QUICK["fig2"], recipes=some("fig2", "bayes", "flow", "linear"), **ROBUST),
        lambda o: len(models(o)), {0: 0, 2: 2, 8: 3}, runs=False,
    ),
    "fig3": Case(fig3, "gradient_flow", replace(QUICK["fig3"], width=40), lambda o: len(o.runs), {0: 0, 1: 1}),
    "fig4": Case(
        fig4, "gradient_flow", replace(QUICK["fig4"], dim=40, n=100, width=10, seeds=3, t1=5.0),
        lambda o: len(fig4.seeds(o)), {0: 0, 2: 0, 4: 1, 9: 3},
    ),
    "fig5": Case(
        fig5, "gradient_descent", replace(QUICK["fig5"], **TWO_PHASES), lambda o: len(o.runs), {0: 0, 1: 1, 2: 2}
    ),
    "fig6": Case(fig5, "gradient_descent", replace(QUICK["fig6"], **TWO_PHASES), lambda o: len(o.runs), {1: 1, 2: 2}),
    "fig7": Case(
        curves, "radii", replace(QUICK["fig7"], recipes=some("fig7", "bayes", "prelu"), **ROBUST),
        lambda o: len(models(o)), {0: 0, 1: 1, 4: 2}, runs=False,
    ),
    "fig7-recipes": Case(
        fig7_recipes, "sgd",
        replace(
            QUICK["fig7-recipes"], dim=40, n=200, width=12, test=12, pgd_points=6, pgd_steps=3, seeds=2,
            ways=tuple(replace(way, epochs=8, stops=(5,)) for way in QUICK["fig7-recipes"].ways[:3]),
        ),
        lambda o: sum(finite(f"{way['key']}.reached")(o) for way in o.config["ways"]), {0: 0, 1: 1, 4: 4, 6: 6},
    ),
    "pgd-gap": Case(
        attacks, "pgd", replace(QUICK["pgd-gap"], dim=40, n=100, width=20, points=20, pgd_steps=5, ddn_steps=20),
        lambda o: len(o.arrays["radii"]), {0: 0, 1: 0, 3: 1, 4: 2, 100: 7}, runs=False,
    ),
    "mv24": Case(
        mv24, "sgd",
        replace(
            QUICK["mv24"], dim=30, n=100, width=12, epochs=30, points=20, pgd_steps=3, dist_points=5, dist_steps=3
        ),
        finite("loss"), {0: 0, 1: 1, 2: 2, 3: 3, 4: 4},
    ),
    "neurons": Case(
        neurons, "gradient_flow", replace(QUICK["neurons"], seeds=3, width=20, n=60),
        lambda o: len(o.arrays.get("share", ())), {0: 0, 1: 0, 3: 1, 6: 3},
    ),
    "theorem1": Case(
        theorem1, "gradient_flow", replace(QUICK["theorem1"], **SWEEP),
        lambda o: finite("loss")(o) // 5, {0: 0, 1: 0, 2: 1, 3: 1, 12: 5, 24: 9},
    ),
    "proposition4": Case(
        proposition4, "gradient_flow", replace(QUICK["proposition4"], **SWEEP),
        lambda o: finite("growing_median")(o) // 3, {0: 0, 1: 1, 2: 1, 3: 2, 12: 6, 18: 9},
    ),
    "descent-vs-flow": Case(
        descent_vs_flow, "integrate",
        replace(
            QUICK["descent-vs-flow"], n=50, width=10, t1=60.0,
            levels={name: levels[:2] for name, levels in QUICK["descent-vs-flow"].levels.items()},
        ),
        lambda o: sum(finite(f"{method}.error")(o) for method in descent_vs_flow.methods(o)),
        {0: 0, 1: 0, 2: 1, 7: 6, 34: 32}, runs=False,
    ),
    "beyond": Case(
        beyond, "gradient_flow",
        replace(
            QUICK["beyond"], degrees=(1.0, 3.0), seeds=1, dim=20, n=60, width=12, t1=20.0, points=12, ranks=(1, 20)
        ),
        lambda o: sum(finite(f"{axis}_loss")(o) for axis in beyond.AXES), {0: 0, 1: 1, 5: 5, 12: 12},
    ),
    "digits": Case(
        digits, "gradient_flow",
        replace(QUICK["digits"], kinds=(("prelu", 2.0, 0.1),), train=80, width=10, points=3, t1=5.0, epochs=1),
        finite("loss"), {0: 0, 1: 2, 3: 6, 4: 8},
    ),
    "mnist": Case(
        mnist, "adam", replace(QUICK["mnist"], data=MNIST.name, width=8, epochs=1, points=2, apgd_steps=2),
        finite("loss"), {0: 0, 1: 1, 3: 3, 4: 4},
    ),
    "orthogonal": Case(
        orthogonal, "gradient_flow", replace(QUICK["orthogonal"], stops=20, width=60), finite("worst"),
        {0: 0, 1: 1, 3: 3, 4: 4},
    ),
}  # fmt: skip
# Flat panels (of mv24 two colour bars) and spheres of a figure, and what its title begins with.
FIGURES = {
    "fig1": (2, 0, "Figure 1"),
    "fig2": (3, 0, "Figure 2"),
    "fig3": (1, 1, "Figure 3"),
    "fig4": (2, 0, "Figure 4"),
    "fig5": (3, 0, "Figure 5"),
    "fig6": (3, 0, "Figure 6"),
    "fig7": (2, 0, "Figure 7"),
    "fig7-recipes": (2, 0, "Figure 7, what was published"),
    "pgd-gap": (2, 0, "An attack that fails"),
    "mv24": (10, 0, "What SGD learns"),
    "neurons": (2, 4, "Neuron directions"),
    "theorem1": (2, 0, "Theorem 1"),
    "proposition4": (2, 0, "Proposition 4"),
    "descent-vs-flow": (2, 0, "Descent against flow"),
    "beyond": (3, 0, "Beyond the theorem"),
    "orthogonal": (3, 0, "Orthogonal inputs"),
    "digits": (10, 0, "scikit-learn's digits"),  # two are colour bars
    "mnist": (4, 0, "MNIST"),
}
SHARES_Y = {"fig2", "fig7", "fig7-recipes", "pgd-gap", "beyond"}  # panels are of one quantity, named at the left one
DRAWN_WITHOUT = {("pgd-gap", 0), ("pgd-gap", 1)}  # the bracket alone is drawn
NOT_DRAWN = {("fig5", 1), ("fig6", 1)}  # what happens at alpha = 0 is not


@cache
def whole(name):
    """The small form, run to its end; not to be changed."""
    return REGISTRY[name].run(Options(seed=1, quick=True), CASES[name].config)


def pixels(figure):
    return np.asarray(figure.canvas.buffer_rgba()).copy()


def test_every_experiment_is_held_to_the_contract():
    assert set(CASES) == set(REGISTRY)
    assert [experiment.name for experiment in REGISTRY.values()] == list(REGISTRY)


@pytest.mark.parametrize("name", REGISTRY)
def test_an_outcome_survives_its_file(name, tmp_path):
    experiment, outcome = REGISTRY[name], whole(name)
    assert outcome.drawable
    assert not outcome.interrupted
    outcome.save(tmp_path / "x.npz")
    again = Outcome.load(tmp_path / "x.npz")
    assert again.config == outcome.config
    assert set(again.arrays) == set(outcome.arrays)
    assert set(again.runs) == set(outcome.runs)
    for key, array in outcome.arrays.items():
        np.testing.assert_array_equal(again.arrays[key], array)
    assert experiment.table(again) == experiment.table(outcome)
    figure = experiment.draw(again)
    np.testing.assert_array_equal(pixels(figure), pixels(experiment.draw(outcome)))
    flat_panels, spheres, begins = FIGURES[name]
    title = figure.get_suptitle()
    assert title.startswith(begins)
    assert "quick" in title
    assert "interrupted" not in title
    assert re.search(r"seeds?( from)? 1\b", title)
    flat = [ax for ax in figure.axes if ax.name != "3d"]
    assert (len(flat), len(figure.axes) - len(flat)) == (flat_panels, spheres)
    if name not in ("mv24", "digits"):  # pictures of neurons have colour bars, and names for numbers
        assert all(ax.get_xlabel() for ax in flat)
        assert all(ax.get_ylabel() for ax in flat[: 1 if name in SHARES_Y else None])


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("name", ["fig3", "neurons"])
def test_few_neurons_are_drawn_too(name, width):
    outcome = REGISTRY[name].run(Options(quick=True, width=width))
    assert REGISTRY[name].table(outcome)
    REGISTRY[name].draw(outcome)


WAYS = {False: ("exception",), True: ("exception", "status")}
INTERRUPTS = [(name, done, by) for name, case in CASES.items() for done in case.kept for by in WAYS[case.runs]]


@pytest.mark.parametrize(("name", "done", "by"), INTERRUPTS)
def test_ctrl_c_keeps_what_was_done(name, done, by, monkeypatch):
    case, calls = CASES[name], []
    work = getattr(case.module, case.function)

    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) <= done:
            return work(*args, **kwargs)
        if by == "exception":
            raise KeyboardInterrupt
        return replace(work(*args, **kwargs), status="interrupted")

    monkeypatch.setattr(case.module, case.function, counted)
    experiment = REGISTRY[name]
    outcome = experiment.run(Options(quick=True), case.config)
    ended = done == max(case.kept)
    assert outcome.stopped == outcome.interrupted == (not ended)
    assert len(calls) == (done + 1 if not ended else min(done, len(calls)))  # nothing more is begun
    # Of fig3, fig5, fig6 and neurons the run that was cut off is itself shown.
    shown = by == "status" and name in ("fig3", "fig5", "fig6", "neurons")
    if not shown:
        assert case.count(outcome) == case.kept[done]
        drawable = case.kept[done] > 0 and (name, done) not in NOT_DRAWN
        assert outcome.drawable == (drawable or (name, done) in DRAWN_WITHOUT)
    if outcome.drawable:
        assert ("interrupted" in experiment.draw(outcome).get_suptitle()) == (not ended)
        rows = experiment.table(outcome)
        assert rows
        assert not any("nan" in cell.split() for row in rows for cell in (row.measured, row.theory))


def test_what_was_not_reached_is_said_in_words():
    assert Row("x", "nan (nan to nan)").measured == "not reached"
    assert Row("x", "[nan, nan]", "-", "nan (alpha = 0)") == Row("x", "not reached", "-", "not reached (alpha = 0)")
    assert Row("x", "3 of nan").measured == "3 of not reached"
    assert Row("nanometres", "banana").measured == "banana"


@pytest.mark.parametrize("name", REGISTRY)
def test_an_option_is_used_or_refused(name):
    values = {"width": 7, "dynamics": "flow", "alpha": 0.3, "batch": 9, "loss": "squared", "epochs": 3}
    values |= {"recipe": "mv24", "full": True, "data": "."}
    for option, value in values.items():
        options = Options(quick=option != "full", **{option: value})
        if option not in REGISTRY[name].options:
            with pytest.raises(ValueError, match=f"{option} is not used by {name}"):
                REGISTRY[name].run(options)
            continue
        found = REGISTRY[name].describe(options)
        assert found[option] == value
        assert found != REGISTRY[name].describe(Options(quick=True))


def test_figure_6_is_figure_5_nudged():
    five, six = fig5.FIG5.presets, fig6.FIG6.presets
    assert {name: replace(config, nudge=0.05) for name, config in five.items()} == six
