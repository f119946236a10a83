import numpy as np
import pytest

from preluflow.experiments import Options, neurons

CONFIG = neurons.QUICK


@pytest.fixture(scope="module")
def outcome():
    return neurons.NEURONS.run(Options(seed=1, quick=True))


def test_the_outcome_holds_what_is_drawn(outcome):
    assert set(outcome.runs) == {"p1", "p3"}
    for key, p in neurons.POWERS.items():
        kept = outcome.runs[key]
        assert kept.status == "finished"
        assert kept.network.p == p
        stops = CONFIG.stops + 1
        assert kept["directions"].shape == (stops, CONFIG.width, 3)
        assert kept["contributions"].shape == (stops, CONFIG.width)
        np.testing.assert_allclose(np.linalg.norm(kept["directions"], axis=2), 1.0, atol=1e-12)
        np.testing.assert_array_equal(kept["directions"][-1], kept.network.directions)
        assert kept["loss"][0] == pytest.approx(1.0, abs=1e-9)
        assert kept["loss"][-1] < 0.02
    np.testing.assert_array_equal(*(kept["directions"][0] for kept in outcome.runs.values()))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_averages_for_p_1_and_centres_for_p_3(seed):
    average = np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
    for p in neurons.POWERS.values():
        kept = neurons.train(CONFIG, p, seed, Options())
        cosines = neurons.final_cosines(kept, CONFIG)
        assert len(cosines) > CONFIG.width / 3
        # One that starts at the border of two regions may go either way: the sample's own centres are not quite mu_k.
        assert np.sum(cosines <= neurons.ALIGNED) <= 1
        # Written out for the positive neurons that have one positive cosine of their class, or two.
        start, end, size = kept["directions"][0], kept["directions"][-1], kept["contributions"][-1]
        positive = kept.network.sign > 0
        big = positive & (start[:, :2].max(axis=1) > 0) & (size > 1e-3 * size[positive].max())
        towards = average if p == 1 else np.eye(3)[start[big, :2].argmax(axis=1)]
        assert np.median(np.sum(end[big] * towards, axis=1)) > 0.99


def test_cosines_and_regions(outcome):
    kept = outcome.runs["p3"]
    directions = np.vstack([np.eye(3), -np.eye(3)])
    nearest, average = neurons.own_cosines(directions, np.array([1, 1, 1, 1, -1, -1]), CONFIG)
    np.testing.assert_allclose(nearest, [1, 1, 0, 0, 0, -1], atol=1e-15)
    np.testing.assert_allclose(average, [np.sqrt(0.5), np.sqrt(0.5), 0, -np.sqrt(0.5), 0, -1], atol=1e-15)
    region, start = neurons.starts_in(kept, CONFIG), kept["directions"][0]
    for j, sign in enumerate(kept.network.sign):
        own = [0, 1] if sign > 0 else [2]
        best = max(own, key=lambda k: start[j, k])
        assert region[j] == (best if start[j, best] > 0 else -1)


def test_the_figure(outcome):
    figure = neurons.NEURONS.draw(outcome)
    spheres = [ax for ax in figure.axes if ax.name == "3d"]
    flat = [ax for ax in figure.axes if ax.name != "3d"]
    assert [ax.get_title().split(",")[0] for ax in spheres] == [
        "$p=1$: start",
        "$p=1$: end",
        "$p=3$: start",
        "$p=3$: end",
    ]
    assert all(ax.get_legend() for ax in flat)
    assert all({rf"$\mu_{k}$" for k in (1, 2, 3)} <= {text.get_text() for text in ax.texts} for ax in spheres)


def test_the_table(outcome):
    rows = neurons.NEURONS.table(outcome)
    measured = [row.measured for row in rows if "share of neurons" in row.quantity]
    assert [float(cell.split()[0]) for cell in measured] == pytest.approx(outcome.arrays["share"][0], abs=1e-3)
    assert outcome.arrays["share"].shape == outcome.arrays["median"].shape == outcome.arrays["kept"].shape == (1, 2)


def test_the_animation(outcome, tmp_path):
    from PIL import Image

    (path,) = neurons.NEURONS.more(outcome, tmp_path)
    assert path == tmp_path / "neurons.gif"
    assert path.stat().st_size < 2_000_000
    with Image.open(path) as gif:
        assert 10 < gif.n_frames <= CONFIG.frames + 1
