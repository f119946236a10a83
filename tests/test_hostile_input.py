"""Every public callable, every parameter, every kind of wrong argument: refused by name, at once, or known to work."""

import time

import hostile_arguments as hostile
import numpy as np
import pytest

import preluflow as pf
from preluflow import _arrays, theory

WITH_THREADS = [name for name, case in hostile.TABLE.items() if "num_threads" in case.kinds]


def faults(case, names):
    """What is wrong with the answers to every value in the place of each of the parameters."""
    found = []
    for name in names:
        for label, value, verdict in case.kinds[name].values(case.fresh()[name]):
            fault = case.judge(name, value, verdict)
            if fault is not None:
                found.append(f"{name} = {label}: {fault}")
    return found


@pytest.mark.parametrize("name", hostile.TABLE)
def test_wrong_arguments_are_refused_by_name_and_right_ones_work(name):
    case = hostile.TABLE[name]
    case.function(**case.fresh())
    assert faults(case, [parameter for parameter in case.kinds if parameter != "num_threads"]) == []


@pytest.mark.parametrize("name", WITH_THREADS)
def test_wrong_numbers_of_threads_are_refused_by_name(name):
    assert faults(hostile.TABLE[name], ["num_threads"]) == []


def test_every_public_callable_is_in_the_table_with_every_parameter():
    missing = [name for name in hostile.public() if name not in hostile.TABLE and not hostile.excused(name)]
    assert missing == []
    for name, function in hostile.public().items():
        if name in hostile.TABLE:
            assert set(hostile.TABLE[name].kinds) == hostile.parameters(function), name


# ---- arguments that are right alone

O = hostile.O  # noqa: E741
LOOK = pf.Observe


def descend(**options):
    pf.gradient_descent(O.network, O.X, O.y, **{"step": 0.1, "steps": 3, **options})


def flow(start=O.network, **options):
    pf.gradient_flow(start, O.X, O.y, **{"t1": 1.0, **options})


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (lambda: descend(steps=2**62, observe=LOOK(every=1)), "every"),
        (lambda: pf.sgd(O.network, O.X, O.y, step=0.1, batch=1, epochs=2**62, observe=LOOK(every=7)), "every"),
        (lambda: flow(observe=LOOK(every=1e-300)), "every"),
        (lambda: descend(observe=LOOK(at=[4])), "at"),
        (lambda: flow(observe=LOOK(at=[0.5, 1.5])), "at"),
        (lambda: flow(method="euler", step=0.1, events=None), "events"),
        (lambda: flow(method="euler"), "step"),
        (lambda: flow(O.flow, t1=0.1), "t1"),
        (lambda: flow(O.run, t1=9.0), "network"),
        (lambda: pf.OrthonormalGMM(3, 1, 1, 1e40, rng=0).sample(4), "dtype"),
        (lambda: pf.robust_radius(O.network, O.X, O.y, gmm=pf.OrthonormalGMM(4, 1, 1, 0.1)), "gmm"),
        (lambda: theory.bayes_deviation(pf.OrthonormalGMM(3, 1, 1, 1e-200), O.X), "gmm"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(run, name):
    began = time.process_time()
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
        run()
    assert time.process_time() - began < 1.0


def test_guarantees_hold_at_the_ends_of_alpha():
    """The square of a small or large alpha neither divides by zero nor overflows."""
    for alpha in (0.0, 1e-200, 1e150):
        gmm = pf.OrthonormalGMM(3, 1, 1, alpha, rng=0)
        assert theory.prelu_guarantee(gmm, 1e-4).probability <= 1.0
        assert np.isfinite(theory.nearest_cluster_accuracy(gmm, [0.1, 0.5])).all()


def test_masks_that_hide_nothing_and_arrays_of_no_dimension_are_what_they_hold():
    masked = np.ma.masked_array(O.X, mask=np.zeros(O.X.shape, dtype=bool))
    np.testing.assert_array_equal(O.network.decision_function(masked), O.network.decision_function(O.X))
    a = pf.robust_radius(O.network, O.X, O.y, "fast", seed=3)
    b = pf.robust_radius(O.network, O.X, O.y, np.array("fast"), seed=np.array(3))
    np.testing.assert_array_equal(a.lower, b.lower)
    assert a.config == b.config


def test_every_seed_that_is_taken_gives_a_radius():
    """The number of the point is added to the seed, which must not leave 64 bits."""
    X, y = np.tile(O.X, (300, 1)), np.tile(O.y, 300)
    radius = pf.robust_radius(O.linear, X, y, seed=2**64 - 1, starts=1, restarts=1, steps=1)
    assert len(radius.lower) == 1200


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_entry_that_is_not_finite_is_found_wherever_it_stands(dtype):
    tiny, most = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    for size in (4095, 4096, 4097, 4160, 5000, 8191):
        X = np.resize(np.array([0.0, -0.0, tiny, -tiny, most, -most, 1.0], dtype), (1, size))
        assert _arrays.real_array(X, "X", dtype=dtype, ndim=2) is X
        for place in (0, 1, 63, 64, 127, 4000, size - 65, size - 1):
            for value in (np.nan, np.inf, -np.inf):
                bad = X.copy()
                bad[0, place] = value
                with pytest.raises(ValueError, match=rf"X\[0, {place}\] is {value}"):
                    _arrays.real_array(bad, "X", dtype=dtype, ndim=2)
