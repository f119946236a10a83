"""Theorem 1 and Proposition 4: the fit, the nudge, and what an outcome promises."""

import math
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

import preluflow as pf
from preluflow.experiments import PROPOSITION4, THEOREM1, Options, proposition4, theorem1
from preluflow.experiments._stats import fit_power, share, smaller_half
from preluflow.experiments.theorem1 import own_class_nudge

EXPERIMENTS = {"theorem1": THEOREM1, "proposition4": PROPOSITION4}


@cache
def quick(name):
    """The quick form of an experiment, run once; not to be changed."""
    return EXPERIMENTS[name].run(Options(seed=1, quick=True))


@pytest.fixture(params=list(EXPERIMENTS))
def outcome(request):
    return quick(request.param)


def measured(rows, quantity):
    (found,) = [row.measured for row in rows if row.quantity == quantity]
    return found


# ---- the fit


@pytest.mark.parametrize("exponent", [2.0, 4.0])
def test_the_fit_recovers_an_exponent(exponent):
    alphas = np.geomspace(0.04, 0.4, 7)
    covered = 0
    for trial in range(200):
        noise = np.random.default_rng(trial).normal(0.0, 0.2, (5, 7))
        fit = fit_power(alphas, 3.0 * alphas**exponent * np.exp(noise))
        assert fit.exponent == pytest.approx(exponent, abs=0.25)
        assert fit.low <= fit.boot_low <= fit.exponent <= fit.boot_high <= fit.high
        covered += fit.low <= exponent <= fit.high
    assert 180 <= covered <= 200  # 95% of 200, and four standard deviations
    exact = fit_power(alphas, np.tile(3.0 * alphas**exponent, (5, 1)))
    assert exact.exponent == pytest.approx(exponent, abs=1e-12)
    assert exact.factor == pytest.approx(3.0, rel=1e-12)


def test_the_fit_is_least_squares_over_all_points_and_leaves_out_what_is_missing():
    alphas = np.array([0.1, 0.2, 0.3, 0.4])
    values = alphas**2 * np.exp(np.random.default_rng(0).normal(0.0, 0.3, (3, 4)))
    line = np.polyfit(np.tile(np.log(alphas), 3), np.log(values).ravel(), 1)
    fit = fit_power(alphas, values)
    assert (fit.exponent, math.log(fit.factor)) == pytest.approx(tuple(line))
    values = np.vstack([values, [0.01, np.nan, np.nan, np.nan], np.full(4, np.nan)])
    assert fit_power(alphas, values) == fit
    assert math.isnan(fit_power(alphas, np.full((2, 4), np.nan)).exponent)
    assert str(fit_power(alphas, np.full((2, 4), np.nan))) == "-"
    alone = fit_power(alphas, values[:1])
    assert math.isfinite(alone.exponent)
    assert math.isnan(alone.low)
    assert alone.against(2.0) == "no interval"


@pytest.mark.parametrize("count", [2, 5, 12, 40])
def test_the_interval_is_student_s_for_any_number_of_seeds(count):
    exponents = np.random.default_rng(count).normal(2.0, 0.3, count)
    alphas = np.array([0.1, 0.2, 0.4])
    fit = fit_power(alphas, alphas ** exponents[:, None])
    expected = stats.t.interval(0.95, count - 1, exponents.mean(), exponents.std(ddof=1) / math.sqrt(count))
    assert (fit.low, fit.high) == pytest.approx(expected, rel=1e-9)


def test_shares_have_intervals_that_are_not_empty_at_0_and_1():
    # Wilson, 1927: at k = 0 the upper end is z^2 / (n + z^2).
    limit = 1.959964**2 / (50 + 1.959964**2)
    assert share(0, 50) == f"0.0000 [0.0000, {limit:.4f}]"
    assert share(50, 50) == f"1.0000 [{1 - limit:.4f}, 1.0000]"
    assert share(25, 50, 2) == "0.50 [0.37, 0.63]"


def test_without_scipy_there_are_exponents_without_intervals_and_a_word_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    alphas = np.array([0.1, 0.2, 0.4])
    fit = fit_power(alphas, np.stack([alphas**2, alphas**2.1]))
    assert fit.exponent == pytest.approx(2.05)
    assert fit.against(2.0) == "no interval"
    for told in (str(fit), share(3, 4)):
        assert "pip install 'preluflow[stats]'" in told
    assert THEOREM1.table(quick("theorem1"))


def test_the_fit_says_where_it_lies():
    alphas, noise = np.geomspace(0.04, 0.4, 7), np.random.default_rng(3).normal(0.0, 0.05, (5, 7))
    for exponent, told in ((3.0, "steeper"), (1.0, "shallower")):
        assert fit_power(alphas, alphas**exponent * np.exp(noise)).against(2.0) == told


def test_the_smaller_half_has_the_middle():
    assert smaller_half(np.array([0.4, 0.3, 0.2, 0.1])).tolist() == [False, True, True, True]
    assert smaller_half(np.array([0.5, 0.4, 0.3, 0.2, 0.1])).tolist() == [False, False, True, True, True]


# ---- the nudge


def nudged(alpha, delta, dim=2000, seed=0):
    gmm = pf.OrthonormalGMM(dim, 2, 2, alpha, rng=seed)
    start = pf.initialize(40, dim, 1e-7, dtype="float64", rng=seed + 1)
    return start, own_class_nudge(start, gmm, delta), gmm


def test_the_nudge_goes_to_the_own_class_and_keeps_norms():
    start, network, gmm = nudged(0.1, 0.5)
    np.testing.assert_array_equal(network.log_norm, start.log_norm)
    np.testing.assert_array_equal(network.log_abs_v, start.log_abs_v)
    np.testing.assert_array_equal(network.sign, start.sign)
    np.testing.assert_allclose(np.linalg.norm(network.directions, axis=1), 1.0, rtol=1e-12)
    region = pf.voronoi_regions(network, gmm)
    assert np.all(region >= 0)
    np.testing.assert_array_equal(gmm.labels[region], network.sign)
    np.testing.assert_array_equal(pf.center_cosines(network, gmm).argmax(axis=1), region)
    assert pf.covers_all_regions(network, gmm)
    target = gmm.centers[region]
    expected = start.directions + 0.5 * (target - start.directions)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(network.directions, expected, rtol=0, atol=1e-12)
    assert own_class_nudge(start.astype("float32"), gmm, 0.5).dtype == np.float32


def test_the_gap_grows_with_the_nudge_and_does_not_depend_on_alpha():
    gaps = [pf.non_degeneracy_gap(*nudged(0.1, delta)[1:]) for delta in (0.2, 0.4, 0.6, 0.8)]
    assert np.all(np.diff(gaps) > 0)
    assert gaps[2] > 0.1
    assert len({pf.non_degeneracy_gap(*nudged(alpha, 0.5)[1:]) for alpha in (0.4, 0.1, 0.04)}) == 1
    far = [pf.non_degeneracy_gap(*nudged(0.1, delta, dim=60_000)[1:]) for delta in (0.3, 0.7)]
    np.testing.assert_allclose(far, [theorem1.gap_limit(0.3), theorem1.gap_limit(0.7)], rtol=0.15)


def test_sizes_grow_as_the_inverse_square():
    full = theorem1.FULL
    assert len(full.alphas) >= 6
    assert max(full.alphas) / min(full.alphas) == pytest.approx(10.0)
    assert full.seeds == 5
    for alpha in full.alphas:
        assert full.ratio / alpha**2 <= full.size(alpha) + 1e-6 < full.ratio / alpha**2 + 1 + 1e-5
    assert full.size(0.4) == 25


# ---- what an outcome promises


def test_every_panel_is_labelled(outcome):
    figure = EXPERIMENTS[outcome.name].draw(outcome)
    for ax in figure.axes:
        assert "alpha" in ax.get_xlabel()
        assert ax.get_xscale() == ax.get_yscale() == "log"
        assert any("theory" in text.get_text() for text in ax.get_legend().get_texts())
    assert f"epsilon$={outcome.config['scale']:g}" in figure.get_suptitle()


def test_theorem1_finds_what_it_says():
    outcome = quick("theorem1")
    arrays, rows = outcome.arrays, THEOREM1.table(outcome)
    alphas = arrays["alphas"]
    assert measured(rows, "epsilon, the same for every alpha") == "1e-07"
    for name, values in arrays.items():
        # only the first seed is checked
        assert np.isfinite(values[0] if name.startswith("check") else values).all()
    for name in theorem1.THEORY:
        values = theorem1.in_window(arrays, name).max(axis=2)
        assert measured(rows, f"exponent of {theorem1.NAMES[name]}") == str(fit_power(alphas, values))
        two = fit_power(alphas[-2:], values[:, -2:])
        assert measured(rows, f"exponent of {theorem1.NAMES[name]}, the two smallest alphas") == str(two)
    for name in theorem1.QUANTITIES:
        assert theorem1.check_difference(arrays, name) < 1e-2
    assert np.all(arrays["distance_lower"] <= arrays["distance_upper"])
    assert np.all(arrays["distance_estimate"] <= arrays["distance_upper"])
    assert 0 < arrays["slack"] < arrays["distance_upper"].min()
    np.testing.assert_array_equal(theorem1.in_window(arrays, "less_slack"), arrays["distance_upper"] - arrays["slack"])
    # The loss is at its floor where alpha is small; the gap does not shrink with alpha.
    floor = 9 * alphas**2 / arrays["sizes"]
    np.testing.assert_allclose(arrays["loss"][:, -1, 0], floor[-1], rtol=0.1)
    assert np.median(arrays["gap"][:, -1]) > np.median(arrays["gap"][:, 0]) > 0.01
    assert np.all(arrays["norm_error"][:, -1] < 0.05)


def test_proposition4_finds_what_it_says():
    outcome = quick("proposition4")
    arrays, rows = outcome.arrays, PROPOSITION4.table(outcome)
    alphas, middle = arrays["alphas"], len(outcome.config["times"]) // 2
    for key, label in (("growing", "D, N growing"), ("fixed", f"D = N = {outcome.config['fixed']}")):
        for which in ("median", "worst"):
            fit = fit_power(alphas, arrays[f"{key}_{which}"][:, :, middle])
            assert measured(rows, f"exponent of 1 - cos, {which} neuron, {label}") == str(fit)
        assert np.all(arrays[f"{key}_median"] <= arrays[f"{key}_worst"])
        assert arrays[f"{key}_log10_f"].max() < -100
    # What remains is the error of a mean over N points.
    expected = alphas**2 / (2 * arrays["sizes"])
    np.testing.assert_allclose(np.median(arrays["growing_median"][:, -1, middle]), expected[-1], rtol=0.2)
    assert fit_power(alphas, arrays["growing_median"][:, :, middle]).exponent == pytest.approx(4.0, abs=0.4)
    assert fit_power(alphas, arrays["fixed_median"][:, :, middle]).exponent == pytest.approx(2.0, abs=0.4)


def test_one_minus_cosine_keeps_its_digits():
    gmm = pf.OrthonormalGMM(5, 1, 1, 0.1, centers="canonical")
    U = np.zeros((3, 5))
    angles = np.array([1e-7, 1e-3])
    U[:2, 0], U[:2, 3], U[2, 3] = np.cos(angles), np.sin(angles), 1.0
    network = pf.TwoLayerNetwork.from_polar(U, np.zeros(3), np.ones(3), np.zeros(3))
    X = np.eye(2, 5)
    run = pf.gradient_flow(
        network, X, [1.0, -1.0], t1=0.0, observe=pf.Observe(what=(proposition4.one_minus_cosine,), gmm=gmm)
    )
    found = run["one_minus_cosine"][0]
    np.testing.assert_allclose(found[:2], 2 * np.sin(angles / 2) ** 2, rtol=1e-12)
    assert np.isnan(found[2])  # in the void
    assert run["log10_f"][0] == pytest.approx(np.log10(3.0))


def test_a_cluster_that_does_not_grow_is_said_to_be_missing():
    config = replace(theorem1.QUICK, longest=1.0, alphas=(0.4, 0.3), seeds=1)
    outcome = THEOREM1.run(Options(quick=True), config)
    assert not outcome.stopped
    rows = THEOREM1.table(outcome)
    assert measured(rows, "runs missing (interrupted, or a cluster did not grow)") == "2"
    assert measured(rows, "exponent of loss") == "-"
    THEOREM1.draw(outcome)
