"""pgd-gap: what holds between attacks and bracket, and what an outcome promises."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from conftest import make_problem

import preluflow as pf
from preluflow import attacks, theory
from preluflow._span import InBasis, in_span
from preluflow.experiments import PGD_GAP, Options, pgd_gap
from preluflow.experiments._harness import bracket_of


@cache
def quick():
    """The quick form, run once; not to be changed."""
    return PGD_GAP.run(Options(seed=1, quick=True, num_threads=1))


def measured(rows, quantity):
    (found,) = [row.measured for row in rows if row.quantity == quantity]
    return found


def test_apgd_has_all_dimensions():
    reduced, Q = in_span(make_problem(h=6, D=25).network())
    config = replace(pgd_gap.QUICK, dim=25)
    X = np.ones((3, 25)) @ Q
    y = np.sign(reduced.decision_function(X))
    found = pgd_gap.BALLS["apgd"].run(config, reduced, X, y, 0.1, 0)
    padded = np.column_stack([X, np.zeros((3, 19))])
    restarts = config.apgd_starts - 1
    whole = attacks.apgd(InBasis(reduced), padded, y, eps=0.1, steps=config.apgd_steps, restarts=restarts)
    np.testing.assert_allclose(found.delta[:, :6], whole.delta[:, :6], rtol=0, atol=1e-7)
    assert found.gradients == whole.gradients


# ---- what was found


def test_no_attack_goes_below_the_certificate_nor_does_ours_above_any():
    outcome = quick()
    arrays = outcome.arrays
    assert not outcome.stopped
    np.testing.assert_allclose(arrays["radii"], sorted(pgd_gap.QUICK.radii))
    assert np.all(arrays["lower"] <= arrays["upper"])
    assert np.all(arrays["lower"] <= arrays["ddn"])
    bracket = bracket_of(outcome)
    certified, attacked = bracket.accuracy(arrays["radii"])
    grid = np.linspace(0.0, 1.0, 101)
    assert np.all(bracket.accuracy(grid)[0] <= pgd_gap.ddn_accuracy(outcome, grid))
    assert np.all(bracket.accuracy(grid)[1] <= pgd_gap.ddn_accuracy(outcome, grid))
    for key in pgd_gap.BALLS:
        broken = arrays[f"broken_{key}"]
        assert broken.shape == (len(arrays["radii"]), pgd_gap.QUICK.points)
        # An error within the ball is never nearer than the certificate.
        assert not np.any(broken & (arrays["radii"][:, None] < arrays["lower"]))
        assert np.all(pgd_gap.ball_accuracy(outcome, key) >= certified)
        assert np.all(pgd_gap.ball_accuracy(outcome, key) >= attacked)


def test_the_papers_attack_reports_what_proposition_1_forbids():
    outcome = quick()
    level = pgd_gap.floor(outcome)
    gmm = pf.OrthonormalGMM(20, 6, 4, 0.1, rng=0)
    assert level == theory.max_robust_accuracy(gmm) == pytest.approx(0.6)
    _, attacked = bracket_of(outcome).accuracy([theory.MAX_RADIUS, 0.8])
    assert np.all(attacked <= level)
    at_080 = int(np.flatnonzero(outcome.arrays["radii"] == 0.8)[0])
    for key in ("papers", "margin", "apgd"):
        assert pgd_gap.ball_accuracy(outcome, key)[at_080] > level
    assert pgd_gap.ball_accuracy(outcome, "papers")[at_080] == 1.0
    assert attacked[1] == 0.0
    assert pgd_gap.impossible(outcome)
    assert "theorem rules out" in PGD_GAP.draw(outcome).get_suptitle()
    arrays = {**outcome.arrays, **{f"broken_{key}": outcome.arrays[f"broken_{key}"] | True for key in pgd_gap.BALLS}}
    assert not pgd_gap.impossible(replace(outcome, arrays=arrays))


def test_the_table_counts_what_was_done():
    outcome, rows = quick(), PGD_GAP.table(quick())
    config = pgd_gap.QUICK
    name = "robust accuracy at 0.65 / 0.7071 / 0.72 / 0.8, attacked"
    _, attacked = bracket_of(outcome).accuracy(pgd_gap.TOLD)
    assert measured(rows, name) == " / ".join(f"{value:.3f}" for value in attacked)
    assert outcome.arrays["gradients_ddn"] == config.ddn_steps * config.points
    # Runs that come back to an iterate end there.
    taken = outcome.arrays["gradients_papers"][0]
    assert config.points <= taken < config.pgd_steps * config.points
    assert np.all(outcome.arrays["gradients_apgd"] <= config.apgd_steps * config.apgd_starts * config.points)
    assert measured(rows, f"papers' PGD, {config.pgd_steps} steps: the same").startswith("1.000 / 1.000")
    assert all(row.paper == "-" for row in rows)  # what is known is of the full size


def test_the_median_of_an_attack_is_between_radii():
    radii = np.array([0.5, 0.7, 0.9])
    assert pgd_gap._median(radii, np.array([1.0, 0.6, 0.2])) == "0.7 to 0.9"
    assert pgd_gap._median(radii, np.array([1.0, 0.9, 0.8])) == "above 0.9"
    assert pgd_gap._median(radii, np.array([0.1, 0.0, 0.0])) == "below 0.5"
    assert pgd_gap._median(radii[:0], radii[:0]) == "-"


def test_the_figure():
    figure = PGD_GAP.draw(quick())
    left, right = figure.axes
    assert left.get_xlabel() == right.get_xlabel()
    assert len(left.get_legend().get_texts()) == 6


def test_the_options_that_count():
    assert PGD_GAP.configure(Options()) == pgd_gap.FULL
    config = PGD_GAP.configure(Options(quick=True, alpha=0.4, width=30))
    assert config == replace(pgd_gap.QUICK, alpha=0.4, width=30)


def test_by_mv24s_recipe_no_point_is_left_out_at_any_radius():
    small = replace(pgd_gap.QUICK, points=30, radii=(0.5, 0.72, 1.0), pgd_steps=200, ddn_steps=100, apgd_starts=1)
    config = replace(small, recipe="mv24")
    plain, outcome = (PGD_GAP.run(Options(seed=1, quick=True, num_threads=1), each) for each in (small, config))
    arrays = outcome.arrays
    taken = arrays["gradients_papers"]
    assert np.all((taken >= config.points) & (taken <= config.pgd_steps * config.points))
    assert np.all(plain.arrays["gradients_papers"] <= config.pgd_steps * config.points)
    assert pgd_gap.ball_accuracy(outcome, "papers")[1] == 1.0 > pgd_gap.floor(outcome)
    for key in ("broken_margin", "broken_apgd", "lower", "upper", "ddn"):
        np.testing.assert_array_equal(arrays[key], plain.arrays[key])
    told = "papers' PGD, 200 steps as in MV24"
    assert measured(PGD_GAP.table(outcome), f"{told}: the same") == "- / - / 1.000 / -"
    assert told in [text.get_text() for text in PGD_GAP.draw(outcome).axes[0].get_legend().get_texts()]
