"""Descent against flow: the error, the orders it shows, and what an outcome promises."""

import math

import numpy as np
import pytest

import preluflow as pf
from preluflow.experiments import DESCENT_VS_FLOW, Options, descent_vs_flow
from preluflow.experiments._stats import over_seeds
from preluflow.experiments.descent_vs_flow import gradients_to, neuron_errors, slope


@pytest.fixture(scope="module")
def outcome():
    return DESCENT_VS_FLOW.run(Options(seed=1, quick=True))


def test_the_error_of_a_neuron_is_its_angle_or_its_log_norm():
    angles, logs = np.array([0.0, 0.3, 1e-9, math.pi]), np.array([0.2, -0.1, 0.0, 0.0])
    U = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    still = pf.TwoLayerNetwork.from_polar(np.tile([1.0, 0.0], (4, 1)), np.zeros(4), np.ones(4), np.zeros(4))
    moved = pf.TwoLayerNetwork.from_polar(U, logs, np.ones(4), logs)
    np.testing.assert_allclose(neuron_errors(moved, still), [0.2, 0.3, 1e-9, math.pi], rtol=1e-7)


def test_first_order_methods_have_order_one_and_runge_kutta_four(outcome):
    arrays = outcome.arrays
    for method in ("descent", "euler"):
        assert slope(arrays[f"{method}.level"], arrays[f"{method}.error"]) == pytest.approx(1.0, abs=0.15)
    assert slope(arrays["rk4.level"], arrays["rk4.error"]) > 3.0
    for method in descent_vs_flow.methods(outcome):
        worst = over_seeds(arrays[f"{method}.error"], np.max)
        assert np.all(np.diff(worst) < 0)  # coarse to fine
        assert np.all(arrays[f"{method}.median_error"] <= arrays[f"{method}.error"])
    finest = arrays["tsit5.error"][:, -1].max()
    assert arrays["descent.error"][:, -1].max() > 10 * finest
    assert arrays["descent.gradients"][:, -1].min() > 3 * arrays["tsit5.gradients"][:, -1].max()


def test_gradients_are_counted(outcome):
    t1 = outcome.config["t1"]
    for method, share in (("descent", 1), ("euler", 1), ("rk4", 4)):
        expected = share * t1 / outcome.arrays[f"{method}.level"]
        np.testing.assert_allclose(outcome.arrays[f"{method}.gradients"], np.tile(expected, (2, 1)), atol=1.0)


def test_gradients_to():
    gradients, errors = np.array([100.0, 200.0, 400.0]), np.array([0.4, 0.2, 0.1])
    assert gradients_to(0.2 - 1e-12, gradients, errors) == pytest.approx(200.0)
    assert gradients_to(0.15, gradients, errors) == pytest.approx(100 * 0.4 / 0.15)
    assert gradients_to(0.05, gradients, errors) == math.inf
    assert gradients_to(0.5, gradients, errors) == -100.0
    # Order does not matter, missing points are left out, and the error must stay below.
    assert gradients_to(0.15, gradients[::-1], errors[::-1]) == pytest.approx(100 * 0.4 / 0.15)
    assert gradients_to(0.15, gradients, np.array([0.4, np.nan, 0.1])) == pytest.approx(100 * 0.4 / 0.15)
    assert gradients_to(0.15, np.append(gradients, 800.0), np.array([0.4, 0.1, 0.2, 0.05])) > 400
    assert math.isnan(gradients_to(0.1, gradients, np.full(3, np.nan)))


def test_slope_recovers_an_order():
    levels = np.array([0.4, 0.2, 0.1])
    assert slope(levels, np.stack([2 * levels**4, 5 * levels**4])) == pytest.approx(4.0)
    assert math.isnan(slope(levels, np.full((2, 3), np.nan)))


def test_the_table_follows_from_the_arrays(outcome):
    rows = {row.quantity: row for row in DESCENT_VS_FLOW.table(outcome)}
    arrays = outcome.arrays
    for method in descent_vs_flow.methods(outcome):
        gradients = np.median(arrays[f"{method}.gradients"], axis=0)
        worst = gradients_to(0.02, gradients, arrays[f"{method}.error"].max(axis=0))
        told = rows[f"gradients to E <= 0.02 for every seed, {method}"].measured.split(" (")[0]
        assert told == (
            f"> {gradients.max():.0f}" if worst == math.inf else f"<= {-worst:.0f}" if worst < 0 else f"{worst:.0f}"
        )
    errors = arrays["descent.error"][:, 1]
    told = rows["E of descent with the paper's step 0.2, over seeds"].measured
    assert told == f"{errors.min():.2g} to {errors.max():.2g}"
    assert rows["exponent of E in the step, rk4"].theory == "4"


def test_the_figure(outcome):
    figure = DESCENT_VS_FLOW.draw(outcome)
    left, right = figure.axes
    assert "gradients" in left.get_xlabel()
    assert "step" in right.get_xlabel()
    for ax in (left, right):
        assert ax.get_xscale() == ax.get_yscale() == "log"
    drawn = {text.get_text() for text in left.get_legend().get_texts()}
    assert drawn == set(descent_vs_flow.methods(outcome))
