"""mv24: what an outcome promises."""

import math
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
from click.testing import CliRunner

import preluflow as pf
from preluflow.classifiers import cluster_prelu
from preluflow.cli import INTERRUPTED, cli
from preluflow.experiments import MV24, Options, Outcome, mv24
from preluflow.experiments._cells import Store


@cache
def quick():
    """The quick form, run once; not to be changed."""
    return MV24.run(Options(seed=1, quick=True))


@pytest.fixture
def gmm():
    return pf.OrthonormalGMM(15, 3, 2, 0.1, rng=0)


# ---- what was found


def test_p_1_learns_averages_and_p_3_clusters():
    outcome = quick()
    arrays = outcome.arrays
    config, shown = mv24.QUICK, mv24.QUICK.alphas.index(mv24.QUICK.alpha)
    assert not outcome.interrupted
    for name in mv24.CELLS:
        assert arrays[name].shape == (2, len(config.alphas), 1)
        assert np.isfinite(arrays[name]).all()
    assert np.all(arrays["distance_lower"] <= arrays["distance_upper"])
    assert np.all(arrays["distance_upper"][:, shown] < 0.35)
    assert arrays["accuracy"].min() == 1.0
    assert np.all(arrays["radius_lower"] <= arrays["radius_upper"])
    assert np.all(arrays["astray"][:, shown] < 0.01)
    lower, estimate = arrays["distance_lower"], arrays["estimate"]
    assert np.all((0.2 * lower <= estimate) & (estimate <= 1.5 * arrays["distance_upper"]))
    assert np.all(arrays["certified"] <= arrays["attacked"])
    assert np.all(arrays["attacked"] <= arrays["pgd"] + 1e-9)
    pgd, attacked = (arrays[name][1, 0, config.radii.index(0.75)] for name in ("pgd", "attacked"))
    assert pgd > 0.9 > 0.6 > attacked  # Proposition 1 allows 0.6
    K = config.clusters
    assert arrays["radius_upper"][0, shown] == pytest.approx(1 / math.sqrt(K), rel=0.05)
    assert 0.62 < arrays["radius_lower"][1, shown] <= arrays["radius_upper"][1, shown] < math.sqrt(0.5) * 1.02
    for p in mv24.PS:
        a = arrays[f"contributions_p{p:g}"]
        assert np.all(np.diff(a) <= 0)
        count = mv24.dominant_count(a)
        assert a[:count].sum() >= 0.99 * a.sum() > a[: count - 1].sum()
        cosines = arrays[f"cosines_p{p:g}"][:count]
        nearest = cosines[:, :2].max(axis=1) if p == 1.0 else cosines[:, 2:].max(axis=1)
        assert nearest.min() > 0.98
    assert mv24.dominant_count(arrays["contributions_p3"]) >= K


def test_a_neuron_between_two_centres_is_astray(gmm):
    target = cluster_prelu(gmm, 3.0)
    assert mv24.astray(target, target) == 0.0
    U = np.vstack([target.directions, (gmm.centers[:1] + gmm.centers[1:2]) / math.sqrt(2.0)])
    network = pf.TwoLayerNetwork(U, np.append(target.v, 1.0), p=3.0)
    assert mv24.astray(network, target) == pytest.approx(1 / 6)


def test_the_options_that_count():
    config = MV24.configure(Options(quick=True, alpha=0.2, width=30, batch=20, loss="logistic", epochs=7))
    assert config.alphas == (0.5, 0.2, 0.1)
    assert (config.alpha, config.width, config.batch, config.loss, config.epochs) == (0.2, 30, 20, "logistic", 7)
    assert MV24.configure(Options(full=True)) == mv24.PAPER
    paper = mv24.PAPER
    assert (paper.dim, paper.positive, paper.negative, paper.n, paper.width) == (1000, 6, 4, 20_000, 2000)
    assert (paper.std, paper.batch, paper.step, paper.loss, paper.epochs) == (1e-7, 100, 0.2, "exponential", 401)
    assert (len(paper.alphas), paper.alphas[0], paper.alphas[-1], paper.repeats) == (15, 0.3, 0.01, 5)
    assert (len(paper.radii), paper.radii[0], paper.radii[-1], paper.pgd_steps) == (15, 0.0, 1.5, 2000)
    assert (paper.dist_batches, paper.dist_points, paper.dist_steps) == (10, 1000, 2000)


def test_negligible_neurons_change_the_function_by_what_they_contribute(gmm):
    rng = np.random.default_rng(0)
    network = pf.initialize(60, gmm.dim, 1.0, kind="gaussian", p=3.0, dtype="float64", rng=0)
    network = network.replace(log_norm=network.log_norm - rng.uniform(0.0, 30.0, 60))
    few = mv24.without_negligible(network, 1e-3)
    left_out = network.contributions.sum() - few.contributions.sum()
    assert few.width < 40
    assert 0 < left_out <= 1e-3 * network.contributions.sum()
    x = rng.standard_normal((500, gmm.dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert np.abs(network.decision_function(x) - few.decision_function(x)).max() <= left_out
    assert mv24.without_negligible(network, 0.0).width == 60


# ---- cells that are kept

SMALL = replace(
    mv24.QUICK, dim=30, n=100, width=12, epochs=30, points=20, pgd_steps=3, dist_points=5, dist_steps=3, repeats=2
)


@pytest.fixture
def trainings(monkeypatch):
    """Count the networks that are trained; more than ``trainings.most`` end as Ctrl-C does."""

    class Counted(list):
        most = 100

        def __call__(self, *args, **kwargs):
            if len(self) == self.most:
                raise KeyboardInterrupt
            self.append(1)
            return pf.sgd(*args, **kwargs)

    counted = Counted()
    monkeypatch.setattr(mv24, "sgd", counted)
    return counted


def equal(one, other):
    assert one.config == other.config
    assert set(one.arrays) == set(other.arrays)
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name])
    assert set(one.runs) == set(other.runs)
    for name, run in one.runs.items():
        np.testing.assert_array_equal(run.network.W, other.runs[name].network.W)


def test_a_run_goes_on_where_it_was_ended(trainings, tmp_path):
    options, store = Options(seed=3, quick=True), Store(tmp_path / "cells", tmp_path)
    plain = MV24.run(options, SMALL)
    assert len(trainings) == 8
    trainings.clear()
    trainings.most = 3
    ended = MV24.run(options, SMALL, store)
    assert ended.stopped
    assert len(list((tmp_path / "cells").iterdir())) == 3
    trainings.clear()
    trainings.most = 100
    equal(MV24.run(options, SMALL, store), plain)
    assert len(trainings) == 5
    equal(MV24.run(options, SMALL, store), plain)
    assert len(trainings) == 5


def test_a_cell_of_another_run_is_not_taken(trainings, tmp_path):
    options, store = Options(seed=3, quick=True), Store(tmp_path / "cells", tmp_path)
    one = replace(SMALL, repeats=1)
    MV24.run(options, one, store)
    for other, run in (
        (replace(options, seed=4), one),
        (options, replace(one, epochs=31)),
        (options, replace(one, pgd_steps=4)),
    ):
        trainings.clear()
        equal(MV24.run(other, run, store), MV24.run(other, run))
        assert len(trainings) == 8
    trainings.clear()
    MV24.run(options, replace(one, alphas=(0.5, 0.3, 0.1)), store)  # the other alphas' cells are the same
    assert len(trainings) == 2


def test_a_damaged_or_foreign_cell_is_computed_again(trainings, tmp_path):
    options, store = Options(seed=3, quick=True), Store(tmp_path / "cells", tmp_path)
    one = replace(SMALL, repeats=1)
    whole = MV24.run(options, one, store)
    first, second, *_ = sorted((tmp_path / "cells").iterdir())
    second.write_bytes(first.read_bytes())
    first.write_bytes(b"half of it")
    trainings.clear()
    equal(MV24.run(options, one, store), whole)
    assert len(trainings) == 2


def test_from_the_command_line_cells_lie_beside_the_outcome(trainings, tmp_path, monkeypatch):
    monkeypatch.setitem(MV24.presets, "paper", SMALL)
    run = partial(CliRunner().invoke, cli)
    arguments = ["reproduce", "mv24", "--full", "--threads", "1", "--out", str(tmp_path)]  # in this process
    trainings.most = 2
    ended = run(arguments)
    assert ended.exit_code == INTERRUPTED
    assert "run it again to go on" in ended.output
    assert len(list((tmp_path / "mv24-cells").iterdir())) == 2
    trainings.clear()
    trainings.most = 100
    assert run(arguments).exit_code == 0
    assert len(trainings) == 6
    assert not Outcome.load(tmp_path / "mv24.npz").interrupted
