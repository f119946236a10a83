"""Answers to the course's exercises are right: held against the flow, against theory, and against brackets."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

import preluflow as pf

EXERCISES = Path(__file__).parents[1] / "docs" / "exercises"
GALLERY = Path(__file__).parents[1] / "docs" / "gallery"


def answers(lesson):
    specification = importlib.util.spec_from_file_location(f"exercises_{lesson}", EXERCISES / f"{lesson}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_lesson_has_exercises_and_answers_and_a_test():
    lessons = {path.stem.split("_", 2)[2] for path in GALLERY.glob("plot_*.py")}
    assert len(lessons) == 8
    assert lessons == {path.stem for path in EXERCISES.glob("*.py")}
    tests = Path(__file__).read_text(encoding="utf-8")
    page = (EXERCISES.parent / "answers.md").read_text(encoding="utf-8")
    for lesson in lessons:
        assert f'answers("{lesson}")' in tests
        assert f"exercises/{lesson}.py" in page
    assert all("\n# Exercises\n# ---------\n" in path.read_text(encoding="utf-8") for path in GALLERY.glob("plot_*.py"))


def test_alignment():
    lesson = answers("alignment")
    for c0, c1, clusters in ((0.1, 0.5, 7), (0.05, 0.99, 2)):
        t = lesson.alignment_time(c0, c1, clusters)
        assert pf.theory.nominal_alignment(t, c0, p=3, clusters=clusters) == pytest.approx(c1, rel=1e-6)
    assert lesson.median_alignment_time(400) / lesson.median_alignment_time(100) == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize(("positive", "negative"), [(4, 3), (2, 5)])
def test_averages_or_clusters(positive, negative):
    lesson = answers("averages_or_clusters")
    gmm = pf.OrthonormalGMM(dim=12, positive=positive, negative=negative, alpha=0.1, rng=0)
    cases = (
        (pf.classifiers.class_average_relu(gmm), lesson.perturbation_of_averages, 1 / math.sqrt(gmm.clusters)),
        (pf.classifiers.cluster_prelu(gmm, 3), lesson.perturbation_of_clusters, lesson.LENGTH_FOR_CLUSTERS),
    )
    for network, perturbation, length in cases:
        radius = pf.robust_radius(network, gmm.centers, gmm.labels, "exact")
        for k in range(gmm.clusters):
            d = perturbation(gmm, k)
            assert np.linalg.norm(d) == pytest.approx(length, rel=1e-12)
            assert gmm.labels[k] * network.decision_function((gmm.centers[k] + 1.000001 * d)[None])[0] <= 0
            assert radius.lower[k] <= length * (1 + 1e-9)
            assert radius.lower[k] == pytest.approx(length, rel=1e-3)


def test_two_phases():
    lesson = answers("two_phases")
    for Z0, clusters in ((1e-6, 7), (0.1, 2)):
        t = lesson.time_to_half(Z0, clusters)
        assert pf.theory.nominal_norm(t, math.log(Z0), clusters=clusters) == pytest.approx(0.5, rel=1e-9)
    predicted = lesson.predicted_delay(1e-7, 1e-14, 5)
    assert lesson.measured_delay(1e-7, 1e-14) == pytest.approx(predicted, rel=1e-3)


def test_voronoi():
    lesson = answers("voronoi")
    gmm = pf.OrthonormalGMM(dim=30, positive=4, negative=3, alpha=0.1, rng=0)
    many = pf.initialize(20_000, 30, 1e-7, rng=1)
    void = pf.voronoi_regions(many, gmm) < 0
    for sign, count in ((1, 4), (-1, 3)):
        q = lesson.void_probability(count)
        chosen = void[np.sign(many.v) == sign]
        assert abs(chosen.mean() - q) < 5 * math.sqrt(q / len(chosen))
    width = lesson.width_for_all_regions(4, 3)
    rng = np.random.default_rng(2)
    covered = np.mean([pf.covers_all_regions(pf.initialize(width, 30, 1e-7, rng=rng), gmm) for _ in range(1000)])
    narrow = np.mean([pf.covers_all_regions(pf.initialize(width // 3, 30, 1e-7, rng=rng), gmm) for _ in range(200)])
    assert covered > 0.975
    assert narrow < 0.9


def test_pgd_lies():
    lesson = answers("pgd_lies")
    gmm = pf.OrthonormalGMM(dim=100, positive=4, negative=3, alpha=0.1, rng=0)
    exact = pf.classifiers.cluster_prelu(gmm, 3)
    for s in (0.0, 0.3, 0.9):
        found = exact.input_gradient((1 - s) * gmm.centers[:1])[0]
        np.testing.assert_allclose(lesson.gradient_on_the_way(gmm, s, 3), found, atol=1e-12)
    data, fresh = gmm.sample(700, balanced=True, dtype="float64", rng=1), gmm.sample(50, dtype="float64", rng=3)
    start = pf.initialize(width=80, scale=1e-7, like=data.X, p=3, rng=2)
    net = pf.gradient_flow(start, data.X, data.y, t1=80).network
    delta = lesson.swap(net, gmm, fresh.X, fresh.y, 0.8)
    assert np.all(fresh.y * net.decision_function(fresh.X + delta) <= 0)
    assert np.all(pf.robust_radius(net, fresh.X, fresh.y).lower <= 0.8)
    assert pf.attacks.pgd(net, fresh.X, fresh.y, eps=0.8, steps=200).accuracy > 0.5


def test_brackets():
    lesson = answers("brackets")
    rng = np.random.default_rng(0)
    gmm = pf.OrthonormalGMM(dim=20, positive=3, negative=3, alpha=0.3, rng=0)
    data = gmm.sample(200, dtype="float64", rng=1)
    start = pf.initialize(20, scale=0.5, kind="gaussian", p=1, like=data.X, rng=2)
    net = pf.gradient_flow(start, data.X, data.y, t1=10, loss="logistic").network
    radius = pf.robust_radius(net, data.X[:40], data.y[:40], "tight")
    lesson.check(net, data.X[:40], data.y[:40], radius)
    wrong = pf.RobustRadius(2 * radius.upper, 2 * radius.upper, 2 * radius.witness, radius.correct)
    with pytest.raises(AssertionError):
        lesson.check(net, data.X[:40], data.y[:40], wrong)
    for _ in range(20):
        u, w, x = rng.standard_normal((3, 4))
        a, b = rng.uniform(0.5, 2, 2)
        pair = pf.TwoLayerNetwork(np.stack([u, w]), np.array([a, -b]), "prelu", 1.0)
        length = lesson.radius_of_two(a, u, b, w, x)
        found = pf.robust_radius(pair, x[None], [1.0], "exact")
        assert found.lower[0] <= length * (1 + 1e-9) and length <= found.upper[0] * (1 + 1e-6)
        assert found.lower[0] == pytest.approx(length, rel=1e-3)


def test_scale():
    lesson = answers("scale")
    assert lesson.alignment_ends(1e-7) == pytest.approx(lesson.alignment_ends(1e-300), rel=1e-3)
    epsilon = lesson.underflows_from()
    assert (epsilon * 0.1) ** 3 == 0.0 < (epsilon * 10 * 0.1) ** 3


def test_digits():
    pytest.importorskip("sklearn")
    lesson = answers("digits")
    linear, network = lesson.linear_and_network()
    np.testing.assert_allclose(linear.lower, linear.upper, rtol=1e-6)
    assert np.median(network.lower[network.correct]) > np.median(linear.upper[linear.correct])
    images, free, bounded = lesson.raw_pixels()
    moved = images + bounded.witness
    assert np.all((moved >= -1e-12) & (moved <= 1 + 1e-12))
    assert np.all(bounded.upper >= free.lower) and np.median(bounded.upper) > np.median(free.upper)
