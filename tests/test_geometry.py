from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

from preluflow.experiments import Options, fig1, fig3

FIGURES = {"fig1": fig1.FIG1, "fig3": fig3.FIG3}


@pytest.fixture(scope="module", params=FIGURES)
def case(request):
    experiment = FIGURES[request.param]
    return experiment, experiment.run(Options(seed=1, quick=True))


def test_the_seed_decides(case):
    experiment, outcome = case
    same, other = (experiment.run(Options(seed=seed, quick=True)) for seed in (1, 2))
    name = {"fig1": "plane", "fig3": "start"}[outcome.name]
    np.testing.assert_array_equal(same.arrays[name], outcome.arrays[name])
    assert not np.array_equal(other.arrays[name], outcome.arrays[name])


@pytest.mark.parametrize(("dim", "alpha"), [(400, 1.0), (1000, 0.3), (4, 0.5)])
def test_clusters_are_slabs(dim, alpha):
    config = replace(fig1.FULL, dim=dim, alpha=alpha, each=1000)
    found = fig1.sample_clusters(config, 0)
    thin = alpha / sqrt(dim)
    side = np.where(found["z"] == 0, 1.0, -1.0)
    margin = side * (found["plane"][:, 0] - found["plane"][:, 1]) / sqrt(2)
    assert margin.mean() == pytest.approx(sqrt(0.5), abs=5 * thin / sqrt(2000))
    assert np.std(margin) == pytest.approx(thin, rel=0.07)
    assert np.mean(found["noise"] ** 2) == pytest.approx(alpha**2, rel=0.05)
    assert found["means_apart"] ** 2 == pytest.approx(2 + 2 * alpha**2 / 1000, abs=20 * thin / sqrt(1000))
    # What the plane of the centres does not show is in the length.
    in_plane = found["plane"] - np.eye(2)[found["z"]]
    np.testing.assert_allclose(np.sum(in_plane**2, axis=1) + found["length"] ** 2, found["noise"] ** 2, rtol=1e-9)


def test_the_attack_of_half_the_distance():
    outcome = fig1.FIG1.run(Options(seed=0, quick=True))
    rows = {row.quantity: row for row in fig1.FIG1.table(outcome)}
    assert rows["nearest centre is the right one, share"].measured == "1.0000"
    for size in fig1.ATTACKS:
        row = rows[f"  after an attack of size {size:.4f}"]
        assert float(row.measured) == pytest.approx(float(row.theory), abs=0.1)
    assert float(row.theory) == 0.5


def test_directions_go_to_the_centre_of_their_region():
    outcome = fig3.FIG3.run(Options(seed=3, quick=True, width=1000))
    start, region = outcome.arrays["start"], outcome.arrays["region"]
    kept = outcome.runs["centers"]
    assert kept.status == "finished"
    assert outcome.config["width"] == len(region) == 1000
    # Def. 1, written out
    c = start[:, :2]
    expected = np.where(c.max(axis=1) <= 0, -1, np.where(c[:, 0] > c[:, 1], 0, 1))
    np.testing.assert_array_equal(region, expected)
    for k, share in zip((0, 1, -1), fig3.SHARES, strict=True):
        assert np.mean(region == k) == pytest.approx(share, abs=4 * sqrt(share * (1 - share) / 1000))
    end = kept.network.directions
    np.testing.assert_allclose(end[region == -1], start[region == -1], atol=1e-12)
    # One needs the time 1/(3 c) from a cosine c, and from near the border of the regions some time more.
    fast = (region >= 0) & (c.max(axis=1) > 0.01)
    assert np.all(end[fast, region[fast]] > 0.99)
    # The output stays zero: every neuron moves by itself.
    np.testing.assert_allclose(kept["loss"], 1.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(kept["directions"][0], start[: kept["directions"].shape[1]], rtol=0, atol=1e-15)
