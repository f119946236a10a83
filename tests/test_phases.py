"""Figure 4's experiment, and Figures 5 and 6 with the flow beside descent."""

from dataclasses import replace

import numpy as np
import pytest

from preluflow.experiments import Options, fig4, fig5


@pytest.fixture(scope="module")
def outcome():
    return fig4.FIG4.run(Options(quick=True), replace(fig4.QUICK, dim=60, n=300, seeds=2, width=40))


def test_every_seed_has_its_three_runs_and_its_phases_in_order(outcome):
    assert fig4.seeds(outcome) == [0, 1]
    assert set(outcome.runs) == {f"{kind}{seed}" for kind in fig4.KINDS for seed in (0, 1)}
    for kind in fig4.KINDS:
        times = fig4.phases(outcome, kind)
        assert times.shape == (2, 4)
        assert np.all(np.diff(times, axis=1) >= 0)


def test_what_is_measured_follows_the_nominal_curves(outcome):
    for seed in fig4.seeds(outcome):
        noisy, nominal = outcome.runs[f"noisy{seed}"], outcome.runs[f"nominal{seed}"]
        np.testing.assert_array_equal(noisy.t, nominal.t)
        np.testing.assert_allclose(noisy["cluster_norms"][-1], 1.0, atol=0.03)
        np.testing.assert_allclose(nominal["cluster_norms"][-1], 1.0, atol=1e-3)


def test_the_figure(outcome):
    left, right = fig4.draw(outcome).axes
    assert len(left.lines) == len(right.lines) - 1  # eq. 14 is drawn over the norms


def test_flow_and_descent_share_a_time_axis():
    small = replace(fig5.QUICK, dim=60, n=300, width=30, every=10)
    found = fig5.FIG5.run(Options(quick=True, dynamics="flow"), small)
    flow, descent = found.runs["flow"], found.runs["noisy"]
    np.testing.assert_allclose(flow.t, descent.t)
    # Descent with step 0.2 lags behind the flow it discretises, by up to a few units of time.
    delay = np.array(fig5.crossing_times(descent)) - np.array(fig5.crossing_times(flow))
    assert np.all((delay > 0) & (delay < 4.0))
    left, _, _ = fig5.draw(found).axes
    assert "time" in left.get_xlabel()
    assert any("flow" in row.quantity for row in fig5.table(found))
