"""Theory: nominal dynamics against the flow, phases, guarantees, and the nearest-cluster rule against brute force."""

import math

import numpy as np
import pytest
import reference as ref
from scipy.integrate import quad, solve_ivp
from scipy.special import expi

import preluflow as pf
from preluflow import theory

C = {"squared": 2.0, "exponential": 1.0, "logistic": 0.5}


@pytest.mark.parametrize("loss", ref.LOSSES)
@pytest.mark.parametrize("p", [1.0, 1.5, 3.0, 4.5])
def test_nominal_alignment_takes_the_time_its_equation_says(loss, p):
    t = np.array([0.0, 3.0, 7.5, 20.0])
    c = theory.nominal_alignment(t, 0.2, clusters=6, p=p, loss=loss)
    for time, value in zip(t, c, strict=True):
        if 1.0 - value > 1e-9:
            taken, _ = quad(lambda x: 1.0 / (C[loss] * p / 6 * x ** (p - 1) * (1 - x * x)), 0.2, value, epsabs=1e-12)
            assert taken == pytest.approx(time, abs=1e-6)


def test_nominal_alignment_has_the_closed_form_at_p_3():
    t, c0 = np.linspace(0, 30, 7), np.array([0.05, 0.3])
    c = theory.nominal_alignment(t, c0, clusters=10)
    grown = np.arctanh(c) - 1 / c - (np.arctanh(c0) - 1 / c0)
    inside = c < 1 - 1e-6
    np.testing.assert_allclose(grown[inside], (0.6 * t[:, None] * np.ones(2))[inside], atol=1e-6)
    assert inside.sum() >= 6


@pytest.mark.parametrize("loss", ref.LOSSES)
def test_nominal_cosines_are_those_of_the_flow_on_the_centres(loss):
    gmm = pf.OrthonormalGMM(8, 3, 2, 0.0, centers="canonical")
    net = pf.initialize(9, 8, 1e-200, p=3.0, rng=1, dtype="float64")
    t1 = 4.0 / C[loss]
    run = pf.gradient_flow(net, gmm.centers, gmm.labels, t1=t1, loss=loss, rtol=1e-10, method="dop853")
    cosines = theory.nominal_cosines([t1], pf.center_cosines(net, gmm), net.sign, gmm.labels, p=3.0, loss=loss)[0]
    np.testing.assert_allclose(pf.center_cosines(run.network, gmm), cosines, atol=1e-6)
    assert np.abs(cosines - pf.center_cosines(net, gmm)).max() > 0.1


@pytest.mark.parametrize("log_Z0", [-1400.0, -20.0, -1.0, 0.0, 0.5])
def test_nominal_norm_solves_equation_14(log_Z0):
    t = np.linspace(0.0, 40.0, 5)
    fields = {
        "squared": lambda _, y: 4 / 5 * (1 - np.exp(y)),
        "exponential": lambda _, y: 2 / 5 * np.exp(-np.exp(y)),
        "logistic": lambda _, y: 2 / 5 / (1 + np.exp(np.exp(y))),
    }
    for loss, field in fields.items():
        solved = solve_ivp(field, (0, 40), [log_Z0], t_eval=t, rtol=1e-11, atol=1e-11, method="DOP853").y[0]
        np.testing.assert_allclose(theory.nominal_norm(t, log_Z0, clusters=5, loss=loss), np.exp(solved), rtol=1e-7)


def test_nominal_norm_of_the_exponential_loss_follows_the_exponential_integral():
    t = np.array([5.0, 20.0, 60.0])
    Z = theory.nominal_norm(t, math.log(0.01), clusters=4, loss="exponential")
    np.testing.assert_allclose(expi(Z) - expi(0.01), t / 2, rtol=1e-7)


def test_late_times_follow_the_closed_forms_too():
    """A million units of time: at the limit, still on the way, or growing like a logarithm."""
    c0 = np.array([0.9, 0.2, 1.5e-6, 1e-9])
    c = theory.nominal_alignment([1e6], c0, clusters=10)[0]
    np.testing.assert_array_equal(c[:2], 1.0)
    np.testing.assert_allclose(np.arctanh(c[2:]) - 1 / c[2:], 6e5 + np.arctanh(c0[2:]) - 1 / c0[2:], rtol=1e-9)
    Z = theory.nominal_norm([50.0, 1e6], math.log(0.01), clusters=4, loss="exponential")
    np.testing.assert_allclose(expi(Z) - expi(0.01), [25.0, 5e5], rtol=1e-7)


def test_late_cosines_end_at_the_nearest_centre_or_keep_moving():
    labels = np.array([1.0, 1.0, -1.0])
    cosines = np.array([[0.5, 0.4, 0.6], [0.3, 0.0, -0.2], [-0.1, -0.2, 0.5]])
    for p in (2.5, 3.0):
        late = theory.nominal_cosines([1e6], cosines, np.ones(3), labels, p=p)[0]
        np.testing.assert_allclose(late[:2], [[1, 0, 0], [1, 0, 0]], atol=1e-10)
    # Without a centre of its own the neuron loses its cosine with the rival like 1/t: 1/c = rate t for p = 3.
    assert late[2, 2] == pytest.approx(1 / (2e6 * 3 / 3), rel=1e-3)


def test_a_time_that_takes_too_many_steps_is_refused(monkeypatch):
    monkeypatch.setattr(theory, "_MOST_MORE", 100)
    with pytest.raises(ValueError, match="t must be smaller"):
        theory.nominal_alignment([1e308], 1e-300, clusters=3)


@pytest.fixture(scope="module")
def figure_5():
    """Figure 5's problem at a quarter of its size, by the flow."""
    gmm = pf.OrthonormalGMM(250, 5, 5, 0.1, rng=0)
    data = gmm.sample(1000, balanced=True, rng=1)
    net = pf.initialize(120, 250, 1e-7, rng=2)
    look = pf.Observe(every=1.0, what=["loss", "cluster_norms", "cluster_alignment", "target"], gmm=gmm)
    return pf.gradient_flow(net, data.X, data.y, t1=130.0, observe=look), gmm


def test_phases_come_in_their_order(figure_5):
    run, _ = figure_5
    times = theory.phase_times(run)
    assert 0 < times.t1 <= times.t2 <= times.t_star <= times.T_star == 130.0
    # What they say is so: before and after.
    i = np.searchsorted(run.t, times.t_star)
    assert np.abs(run["cluster_norms"][i] - 1).max() <= 0.05 < np.abs(run["cluster_norms"][i - 1] - 1).max()
    i = np.searchsorted(run.t, times.t1)
    assert run["cluster_alignment"][i:].min() >= 0.95 > run["cluster_alignment"][i - 1].min()
    i = np.searchsorted(run.t, times.t2)
    assert run["loss"][i] <= 0.95 * run["loss"][0] < run["loss"][i - 1]


def test_phases_that_were_not_seen_are_nan(figure_5):
    _, gmm = figure_5
    data = gmm.sample(1000, balanced=True, rng=1)
    look = pf.Observe(every=1.0, what=["loss", "cluster_norms", "cluster_alignment"], gmm=gmm)
    short = pf.gradient_flow(pf.initialize(120, 250, 1e-7, rng=2), data.X, data.y, t1=3.0, observe=look)
    assert all(math.isnan(x) for x in vars(theory.phase_times(short)).values())


def test_targets_are_predicted_better_as_neurons_burn_in(figure_5):
    run, gmm = figure_5
    agreement = theory.target_agreement(run)
    assert agreement[-1] == 1.0
    assert agreement[0] > 0.9
    assert np.all(np.diff(agreement) > -0.02)
    np.testing.assert_array_equal(pf.voronoi_regions(run.network, gmm), run["target"][-1])


def test_no_classifier_beats_proposition_1():
    gmm = pf.OrthonormalGMM(2000, 12, 8, 0.1, rng=0)
    assert theory.max_robust_accuracy(gmm) == pytest.approx(0.6)
    accuracy = theory.nearest_cluster_accuracy(gmm, [0.0, 0.7, theory.MAX_RADIUS, 0.72])
    assert accuracy[0] == pytest.approx(1.0, abs=1e-12)
    assert accuracy[2] <= 0.6
    assert accuracy[3] == pytest.approx(0.0, abs=1e-6)


def test_guarantees_are_the_propositions():
    gmm = pf.OrthonormalGMM(1000, 5, 5, 0.1, rng=0)
    bayes = theory.bayes_guarantee(gmm, 0.1)
    assert bayes.radius == pytest.approx((math.sqrt(2) - 0.1) / 2)
    assert bayes.probability == pytest.approx(1 - 20 * math.exp(-1000 * 0.01 / 0.64))
    learned = theory.prelu_guarantee(gmm, 0.004, 3.0)
    root = 0.004 ** (1 / 3)
    assert learned.radius == pytest.approx((math.sqrt(2) - 8 * root) / 2)
    failure = 20 * math.exp(-1000 * root**2 / (200 * 0.01)) + 4 * math.exp(-3 / 0.08)
    assert learned.probability == pytest.approx(1 - failure)
    # Proposition 2 holds of the rule it is about (within eq. 4's deviation), where it says something.
    assert theory.nearest_cluster_accuracy(gmm, bayes.radius - 1e-4) >= bayes.probability


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda gmm: theory.bayes_guarantee(gmm, 1.5), "nu"),
        (lambda gmm: theory.bayes_guarantee(gmm, 1e-9), "nu"),
        (lambda gmm: theory.prelu_guarantee(gmm, 0.01), "distance"),
        (lambda gmm: theory.prelu_guarantee(gmm, 0.001, p=2.0), "p must"),
        (lambda gmm: theory.nearest_cluster_accuracy(gmm, -0.1), "radius"),
        (lambda gmm: theory.nominal_alignment([-1.0], 0.5, clusters=3), "t must"),
        (lambda gmm: theory.nominal_alignment([1.0], 1.0, clusters=3), "c0"),
        (lambda gmm: theory.nominal_norm([1.0], -3.0, clusters=3, loss="hinge"), "loss"),
        (lambda gmm: theory.nominal_cosines([1.0], np.ones((2, 3)), np.ones(3), np.ones(3)), "sign"),
    ],
)
def test_what_the_statements_do_not_cover_is_refused(call, argument):
    with pytest.raises(ValueError, match=argument):
        call(pf.OrthonormalGMM(100, 3, 3, 0.1, rng=0))


def test_bayes_is_nearest_cluster_within_equation_4():
    gmm = pf.OrthonormalGMM(40, 5, 2, 0.8, rng=0)
    X = gmm.sample(500, dtype="float64", rng=1).X
    deviation, bound = theory.bayes_deviation(gmm, X)
    assert bound == pytest.approx(0.64 / 40 * math.log(5))
    assert np.abs(deviation).max() <= bound
    products = X @ gmm.centers.T / (0.64 / 40)
    exact = np.log(np.exp(products[:, :5]).sum(1)) - np.log(np.exp(products[:, 5:]).sum(1))
    nearest = products[:, :5].max(1) - products[:, 5:].max(1)
    np.testing.assert_allclose(deviation, (exact - nearest) * 0.64 / 40, atol=1e-12)
    # The bound is attained where all own clusters are equally near, and the others are far.
    extreme = gmm.centers[:5].sum(0) - 10.0 * gmm.centers[5]
    assert theory.bayes_deviation(gmm, extreme[None])[0][0] == pytest.approx(bound, rel=1e-9)


def test_nearest_cluster_radius_is_the_distance_to_the_boundary():
    gmm = pf.OrthonormalGMM(4, 2, 2, 0.5, centers="canonical")
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 4)), rng.choice([-1.0, 1.0], 60)
    radius = theory.nearest_cluster_radius(gmm, X, y)
    for x, label, r in zip(X, y, radius, strict=True):
        own, other = (x[:2], x[2:]) if label > 0 else (x[2:], x[:2])
        if own.max() <= other.max():
            assert r == 0.0
            continue

        # The nearest point where no own entry exceeds a rival: both own entries at most t, the rival at least t.
        def squared(t, own=own, other=other):
            return (np.maximum(own - t, 0) ** 2).sum() + max(t - other.max(), 0) ** 2

        best = min(squared(t) for t in np.linspace(other.max(), own.max(), 4001))
        assert r**2 == pytest.approx(best, abs=1e-6)
    assert (radius > 0).sum() > 15


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0])
def test_quadrature_is_monte_carlo_within_sampling_error(alpha):
    gmm = pf.OrthonormalGMM(300, 6, 4, alpha, rng=0)
    data = gmm.sample(20_000, dtype="float64", rng=1)
    radius = theory.nearest_cluster_radius(gmm, data.X, data.y)
    radii = np.array([0.3, 0.5, 0.6, 0.65, 0.69, 0.7, theory.MAX_RADIUS])
    measured = (radius[:, None] >= radii).mean(axis=0)
    exact = theory.nearest_cluster_accuracy(gmm, radii)
    error = np.sqrt(exact * (1 - exact) / len(data)) + 1.0 / len(data)
    assert np.all(np.abs(measured - exact) < 4.5 * error)


def test_quadrature_gives_the_values_that_place_the_papers_alpha():
    values = [
        theory.nearest_cluster_accuracy(pf.OrthonormalGMM(2000, 12, 8, a, rng=0), 27 / 39) for a in (0.1, 0.25, 0.3)
    ]
    np.testing.assert_allclose(values, [1.0, 0.971, 0.916], atol=6e-4)
