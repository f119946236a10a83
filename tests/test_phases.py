"""Figure 4's experiment, and Figures 5 and 6 with the flow beside descent."""

from dataclasses import replace

import numpy as np
import pytest

from preluflow.experiments import Options, Outcome, phases, two_phases


@pytest.fixture(scope="module")
def outcome():
    patch = pytest.MonkeyPatch()
    patch.setattr(phases, "QUICK", replace(phases.QUICK, dim=60, n=300, seeds=2))
    yield phases.run(Options(quick=True, width=40))
    patch.undo()


def test_every_seed_has_its_three_runs_and_its_phases_in_order(outcome):
    assert phases.seeds(outcome) == [0, 1]
    assert set(outcome.runs) == {f"{kind}{seed}" for kind in phases.KINDS for seed in (0, 1)}
    for kind in phases.KINDS:
        times = phases.phases(outcome, kind)
        assert times.shape == (2, 4)
        assert np.all(np.diff(times, axis=1) >= 0)


def test_what_is_measured_follows_the_nominal_curves(outcome):
    for seed in phases.seeds(outcome):
        noisy, nominal = outcome.runs[f"noisy{seed}"], outcome.runs[f"nominal{seed}"]
        np.testing.assert_array_equal(noisy.t, nominal.t)
        np.testing.assert_allclose(noisy["cluster_norms"][-1], 1.0, atol=0.03)
        np.testing.assert_allclose(nominal["cluster_norms"][-1], 1.0, atol=1e-3)


def test_the_figure_is_redrawn_from_its_file(outcome, tmp_path):
    outcome.save(tmp_path / "fig4.npz")
    loaded = Outcome.load(tmp_path / "fig4.npz")
    assert [row.measured for row in phases.table(loaded)] == [row.measured for row in phases.table(outcome)]
    left, right = phases.draw(loaded).axes
    assert len(left.lines) == len(right.lines) - 1  # eq. 14 is drawn over the norms
    for ax in (left, right):
        assert ax.get_xlabel()
        assert ax.get_ylabel()


def test_an_interrupted_seed_is_left_out(monkeypatch):
    monkeypatch.setattr(phases, "QUICK", replace(phases.QUICK, dim=40, n=100, seeds=3, t1=5.0))
    real, calls = phases.gradient_flow, []

    def interrupting(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(phases, "gradient_flow", interrupting)
    found = phases.run(Options(quick=True, width=10))
    assert phases.seeds(found) == [0]
    assert found.interrupted
    assert found.drawable
    assert "interrupted" in phases.draw(found).get_suptitle()


def test_flow_and_descent_share_a_time_axis(monkeypatch):
    small = replace(two_phases.QUICK, dim=60, n=300, width=30, every=10)
    monkeypatch.setattr(two_phases, "QUICK", small)
    found = two_phases.run("fig5", None, Options(quick=True, dynamics="flow"))
    flow, descent = found.runs["flow"], found.runs["noisy"]
    np.testing.assert_allclose(flow.t, descent.t)
    # Descent with step 0.2 lags behind the flow it discretises, by up to a few units of time.
    delay = np.array(two_phases.crossing_times(descent)) - np.array(two_phases.crossing_times(flow))
    assert np.all((delay > 0) & (delay < 4.0))
    left, _ = two_phases.draw(found).axes
    assert "time" in left.get_xlabel()
    assert any("flow" in row.quantity for row in two_phases.table(found))
