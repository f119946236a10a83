from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from preluflow.experiments import REGISTRY, Options, fig5
from preluflow.experiments._harness import Row, format_table


def cheap(config, nudge, seed):
    """The noisy run of Figure 5 or 6 with cheap observers, and the iterations where alignment and loss cross 0.5."""
    cheaply = replace(fig5.FIG5, measure=partial(fig5.measure, what=("loss", "alignment")))
    run = cheaply.run(Options(seed=seed), replace(config, nudge=nudge)).runs["noisy"]
    assert run.status == "finished"
    return run, fig5.crossings(run)


STOPS = fig5.QUICK.steps // fig5.QUICK.every + 1


@pytest.fixture(scope="module", params=["fig5", "fig6"])
def outcome(request):
    return REGISTRY[request.param].run(Options(seed=1, quick=True))


def test_the_outcome_holds_what_the_figure_shows(outcome):
    assert outcome.name in REGISTRY
    assert outcome.config["nudge"] == {"fig5": None, "fig6": 0.05}[outcome.name]
    assert set(outcome.runs) == {"noisy", "nominal"}
    noisy, nominal = outcome.runs["noisy"], outcome.runs["nominal"]
    assert noisy.status == nominal.status == "finished"
    assert not outcome.interrupted
    np.testing.assert_array_equal(noisy.iterations, np.arange(STOPS) * fig5.QUICK.every)
    width = fig5.QUICK.width
    shapes = {"alignment": (width,), "alignment_quartiles": (3,), "cluster_norms": (10,), "loss": ()}
    for name, shape in shapes.items():
        assert noisy[name].shape == (STOPS, *shape)
    assert nominal["alignment_quartiles"].shape == (len(nominal.t), 3)
    assert nominal.config["n"] == 10


def test_the_outcome_is_what_the_paper_describes(outcome):
    noisy, nominal = outcome.runs["noisy"], outcome.runs["nominal"]
    assert noisy["loss"][0] == pytest.approx(1.0, abs=1e-9)
    assert noisy["loss"][-1] < 1e-2
    assert noisy["accuracy"][-1] == 1.0
    assert np.all(noisy["distance_lower"] <= noisy["distance_upper"])
    assert np.all(noisy["distance_estimate"] <= noisy["distance_upper"] * (1 + 1e-5))
    assert noisy["distance_lower"][0] == pytest.approx(1.0, abs=1e-3)
    assert noisy["distance_upper"][-1] < 0.2
    # Alignment comes first, then the loss falls; the noiseless run shows the same two phases.
    for run in (noisy, nominal):
        aligned, fell = fig5.crossings(run)
        assert 0 < aligned < fell < 600
    np.testing.assert_allclose(fig5.crossings(noisy), fig5.crossings(nominal), rtol=0.1)
    # Every cluster ends with sum ||w_j||^2 near 1.
    np.testing.assert_allclose(noisy["cluster_norms"][-1], 1.0, rtol=0, atol=0.1)


def test_the_nudge_starts_closer_and_is_faster():
    (plain, crossed), (nudged, crossed_nudged) = (cheap(fig5.QUICK, nudge, 1) for nudge in (None, 0.05))
    assert np.median(nudged["alignment"][0]) > np.median(plain["alignment"][0])
    for fast, slow in zip(crossed_nudged, crossed, strict=True):
        assert fast < slow


def test_the_table(outcome):
    rows = REGISTRY[outcome.name].table(outcome)
    assert [row.quantity for row in rows][:4] == [
        "median alignment at the start",
        "non-degeneracy gap at the start",
        "median alignment crosses 0.5 (iteration)",
        "loss crosses 0.5 (iteration)",
    ]
    aligned, fell = fig5.crossings(outcome.runs["noisy"])
    assert [rows[2].measured, rows[3].measured] == [f"{aligned:.0f}", f"{fell:.0f}"]
    assert all(row.paper == "-" for row in rows)  # the paper's numbers are for the full size
    assert any("bracket" in row.quantity for row in rows)


def test_the_figure(outcome):
    figure = REGISTRY[outcome.name].draw(outcome)
    left, right, small = figure.axes
    assert small.get_yscale() == "log"
    for name in ("distance_lower", "distance_upper", "distance_estimate"):
        drawn = [line.get_ydata() for line in small.get_lines()]
        assert any(np.array_equal(outcome.runs["noisy"][name], line) for line in drawn)
    assert left.get_xlabel() == right.get_xlabel() == "iteration"
    assert "cos" in left.get_ylabel()
    assert "loss" in right.get_ylabel()
    lines = [line.get_ydata() for line in right.get_lines()]
    noisy = outcome.runs["noisy"]
    for drawn in (noisy["loss"], noisy["distance_estimate"]):
        assert any(np.array_equal(drawn, line) for line in lines)
    assert any(np.array_equal(noisy["alignment_quartiles"][:, 1], line.get_ydata()) for line in left.get_lines())
    assert left.get_legend() is not None
    assert right.get_legend() is not None


def test_crossing():
    stops = np.array([0, 10, 20, 30])
    assert fig5.crossing(stops, np.array([0.0, 0.2, 0.6, 0.9]), 0.5) == pytest.approx(17.5)
    assert fig5.crossing(stops, np.array([1.0, 0.75, 0.25, 0.0]), 0.5) == pytest.approx(15.0)
    assert fig5.crossing(stops, np.array([0.0, 1.0, 0.0, 1.0]), 0.5) == pytest.approx(5.0)
    assert np.isnan(fig5.crossing(stops, np.zeros(4), 0.5))


def test_format_table():
    lines = format_table([Row("a quantity", "1"), Row("b", "2.5", "3", "4")]).splitlines()
    assert lines[0].split() == ["quantity", "|", "measured", "|", "paper", "|", "theory"]
    assert [line.index("|") for line in (lines[0], *lines[2:])] == [11] * 3
    assert lines[3].split() == ["b", "|", "2.5", "|", "3", "|", "4"]


# ---- the paper's own scale


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_figures_5_and_6(seed):
    run, (aligned, fell) = cheap(fig5.FULL, None, seed)
    assert 190 <= aligned <= 250
    assert 370 <= fell <= 430
    assert run.iterations[-1] == 600
    assert np.all(run["loss"][run.iterations >= 520] < 1e-3)
    assert np.any((run.iterations >= 510) & (run.iterations <= 525))
    nudged, (aligned_nudged, fell_nudged) = cheap(fig5.FULL, 0.05, seed)
    assert 0.05 <= nudged["alignment_quartiles"][0, 1] <= 0.07
    assert aligned_nudged < aligned
    assert fell_nudged < fell


def test_the_estimator_by_a_recipe_stands_beside_the_bracket():
    small = replace(fig5.QUICK, n=200, width=30, every=100, recipe_points=50)
    plain, outcome = (fig5.FIG5.run(Options(quick=True), replace(small, recipe=recipe)) for recipe in (None, "mv24"))
    noisy = outcome.runs["noisy"]
    assert "distance_mv24" not in plain.runs["noisy"]
    for name in plain.runs["noisy"]:
        np.testing.assert_array_equal(plain.runs["noisy"][name], noisy[name])
    found = noisy["distance_mv24"]
    assert found.shape == noisy["loss"].shape
    assert np.all(found <= noisy["distance_upper"] * (1 + 1e-5))
    assert 0.5 < found[0] <= 1.0 + 1e-5
    for ax in fig5.FIG5.draw(outcome).axes[1:]:
        assert any(np.array_equal(found, line.get_ydata()) for line in ax.get_lines())
        assert "estimator as in MV24, c = 1" in [text.get_text() for text in ax.get_legend().get_texts()]
    (row,) = [row for row in fig5.FIG5.table(outcome) if "as in MV24" in row.quantity]
    assert row.measured.startswith(f"{found[0]:.4f}, ")
