"""Bayes and nearest centre of any mixture: against scipy's densities, brute force in the plane, the special case."""

import numpy as np
import pytest
import reference as ref
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import preluflow as pf
from preluflow.classifiers import Bayes, Classifier, MixtureBayes, NearestCenter, NearestCluster

ANGLES = np.linspace(0.0, 2.0 * np.pi, 2001)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


def plane(clusters=8, classes=3, noise=0.5, seed=0, offset=0.0):
    """Centres in the plane, every class with some."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=clusters - classes)]) * 3 - 2
    weights = rng.uniform(0.2, 1.0, clusters)
    return pf.GaussianMixture(2.0 * rng.standard_normal((clusters, 2)) + offset, labels, weights, noise=noise)


def high(labels=(1, -1, 1, -1, 1), noise=0.7, seed=0, dim=6):
    """Correlated and unequal centres."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((len(labels), dim)) + 1.0
    return pf.GaussianMixture(centers, labels, rng.uniform(0.5, 1.0, len(labels)), noise=noise)


def noises(K, D):
    rng = np.random.default_rng(3)
    return {
        "one": {"noise": 0.9},
        "a cluster": {"noise": rng.uniform(0.5, 2.0, K)},
        "a coordinate": {"noise": rng.uniform(0.2, 1.0, (K, D))},
        "low rank and a floor": {"noise": rng.standard_normal((K, D, 2)), "floor": 0.6},
        "wide": {"noise": rng.standard_normal((K, D, D + 1))},
        "covariances": {"covariances": (A := rng.standard_normal((K, D, D + 2))) @ A.transpose(0, 2, 1)},
    }


def own_and_other(F, classes, y):
    """F_y and the largest other output."""
    if F.ndim == 1:
        F = np.stack([-F, F], axis=1) / 2
    mine = classes == np.asarray(y)[:, None]
    return F[mine], np.where(mine, -np.inf, F).max(axis=1)


def wrong(rule, X, y):
    own, other = own_and_other(rule.decision_function(X), rule.classes, y)
    return own <= other


# ---- values and gradients


@pytest.mark.parametrize("labels", [(1, -1, 1, -1, 1), (4, 0, 4, 9, 0)])
@pytest.mark.parametrize("name", noises(5, 6))
def test_bayes_is_the_log_odds_of_the_densities(name, labels):
    rng = np.random.default_rng(1)
    centers = rng.standard_normal((5, 6)) + 1.0
    mixture = pf.GaussianMixture(centers, labels, [1, 2, 3, 4, 5], **noises(5, 6)[name])
    rule, X = MixtureBayes(mixture), 2.0 * rng.standard_normal((40, 6))
    each = np.stack(
        [
            np.log(w) + multivariate_normal(m, mixture.covariance(k)).logpdf(X)
            for k, (w, m) in enumerate(zip(mixture.weights, centers, strict=True))
        ],
        axis=1,
    )
    log_p = np.stack([logsumexp(each[:, np.array(labels) == c], axis=1) for c in rule.classes], axis=1)
    F = rule.decision_function(X)
    if F.ndim == 1:
        np.testing.assert_allclose(F, log_p[:, 1] - log_p[:, 0], rtol=1e-9, atol=1e-9)
    else:
        np.testing.assert_allclose(F - F[:, :1], log_p - log_p[:, :1], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(rule.predict(X), rule.classes[np.argmax(log_p, axis=1)])


@pytest.mark.parametrize("labels", [(1, -1, 1, -1, 1), (4, 0, 4, 9, 0)])
@pytest.mark.parametrize("name", [*noises(5, 6), "nearest"])
def test_gradients_are_finite_differences(name, labels):
    rng = np.random.default_rng(2)
    noise = noises(5, 6).get(name, {"noise": 0.3})
    mixture = pf.GaussianMixture(rng.standard_normal((5, 6)), labels, **noise)
    rule = NearestCenter(mixture) if name == "nearest" else MixtureBayes(mixture)
    assert isinstance(rule, Classifier)
    X, C = rng.standard_normal((5, 6)), rule.num_outputs
    weights = rng.standard_normal((5, C)) if C > 1 else None
    value, gradient = rule.value_and_input_gradient(X, weights)
    np.testing.assert_array_equal(value, rule.decision_function(X))
    np.testing.assert_array_equal(gradient, rule.input_gradient(X, weights))
    for i, x in enumerate(X):

        def f(z, i=i):
            F = rule.decision_function(z[None])[0]
            return F if weights is None else weights[i] @ F

        np.testing.assert_allclose(gradient[i], ref.central_difference(f, x), rtol=2e-6, atol=1e-6)
    if C > 1:
        with pytest.raises(ValueError, match="weights must be given"):
            rule.input_gradient(X)


def test_nearest_center_is_the_nearest_centre():
    mixture = plane(offset=30.0)
    X = 30.0 + 4.0 * np.random.default_rng(0).standard_normal((5000, 2))
    squares = ((X[:, None] - mixture.centers) ** 2).sum(axis=2)
    np.testing.assert_array_equal(NearestCenter(mixture).predict(X), mixture.labels[np.argmin(squares, axis=1)])
    two = NearestCenter(plane(classes=2))
    squares = ((X[:, None] - two.mixture.centers) ** 2).sum(axis=2)
    near = [squares[:, two.mixture.labels == c].min(axis=1) for c in two.classes]
    np.testing.assert_allclose(two.decision_function(X), (near[0] - near[1]) / 2, rtol=1e-10, atol=1e-10)


# ---- the special case


@pytest.mark.parametrize("sizes", [(5, 3), (1, 1), (1, 6)])
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_rules_of_the_orthonormal_mixture_are_those_that_were_there(sizes, alpha):
    gmm, rng = pf.OrthonormalGMM(12, *sizes, alpha, rng=0), np.random.default_rng(1)
    X, y = rng.standard_normal((3000, 12)), rng.choice([-1.0, 1.0], 3000)
    for mixture in (gmm, pf.GaussianMixture(gmm.centers, gmm.labels, noise=alpha)):
        for old, new in ((Bayes(gmm), MixtureBayes(mixture)), (NearestCluster(gmm), NearestCenter(mixture))):
            scale = np.abs(old.decision_function(X)).max()
            np.testing.assert_allclose(new.decision_function(X), old.decision_function(X), rtol=0, atol=1e-14 * scale)
            size = np.abs(old.input_gradient(X)).max()
            np.testing.assert_allclose(new.input_gradient(X), old.input_gradient(X), rtol=0, atol=1e-12 * size)
            np.testing.assert_array_equal(new.predict(X), old.predict(X))
            # Both hold; the new certificate of Bayes may see more.
            a, b = old.certified_radius(X, y), new.certified_radius(X, y)
            assert np.all(b >= a * (1 - 1e-8) - 1e-12)
            if isinstance(new, NearestCenter):
                np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-12)
                d = new.nearest_error(X, y)
                np.testing.assert_allclose(
                    np.linalg.norm(d, axis=1), np.linalg.norm(old.nearest_error(X, y), axis=1), rtol=1e-8, atol=1e-12
                )


# ---- radii


@pytest.mark.parametrize(("clusters", "classes", "offset"), [(2, 2, 0.0), (8, 3, 0.0), (12, 2, 50.0), (9, 9, -3.0)])
def test_the_nearest_centres_radius_is_exact_in_the_plane(clusters, classes, offset):
    mixture = plane(clusters, classes, offset=offset)
    rule, rng = NearestCenter(mixture), np.random.default_rng(4)
    X = 3.0 * rng.standard_normal((200, 2)) + offset
    y = np.where(rng.random(200) < 0.2, mixture.classes[0], rule.predict(X))
    lower, d = rule.certified_radius(X, y), rule.nearest_error(X, y)
    error = wrong(rule, X, y)
    np.testing.assert_array_equal(lower[error], 0.0)
    np.testing.assert_array_equal(d[error], 0.0)
    assert wrong(rule, X + d, y).all()
    length = np.linalg.norm(d, axis=1)
    assert np.all(lower <= length)
    np.testing.assert_allclose(lower, length, rtol=1e-8, atol=1e-10)  # not longer, and no shorter error exists:
    for x, label, r in zip(X[~error], y[~error], lower[~error], strict=True):
        for share in (1.0, 0.7):
            assert not wrong(rule, x + share * r * CIRCLE, np.full(len(CIRCLE), label)).any()


def test_faces_of_several_own_centres_bind():
    """Of own centres at +-1 on the second axis and a rival at 3 on the first, the nearest error of 0 is a vertex."""
    mixture = pf.GaussianMixture([[0.0, 1.0], [0.0, -1.0], [3.0, 0.0]], [1, 1, -1], noise=0.1)
    rule = NearestCenter(mixture)
    # ||x - (0,1)|| = ||x - (3,0)|| where 6 x - 2 y = 8: on the axis at 4/3, and from 0 that face alone is 8/sqrt(40).
    assert rule.certified_radius([[0.0, 0.0]], [1])[0] == pytest.approx(4 / 3, rel=1e-8)
    assert 8 / np.sqrt(40) < 4 / 3 - 0.05
    np.testing.assert_allclose(rule.nearest_error([[0.0, 0.0]], [1]), [[4 / 3, 0.0]], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_nearest_centres_radius_is_a_quadratic_programs(seed):
    mixture = high(labels=(1, 1, 1, 1, 1, -1, -1), seed=seed, dim=5)
    rule = NearestCenter(mixture)
    X = np.random.default_rng(seed).standard_normal((6, 5)) + 1.0
    y = rule.predict(X)
    for x, label, r in zip(X, y, rule.certified_radius(X, y), strict=True):
        best = np.inf
        for rival in mixture.centers[mixture.labels != label]:
            faces = [
                {
                    "type": "ineq",
                    "fun": lambda d, a=a, x=x, k=rival: np.sum((x + d - a) ** 2) - np.sum((x + d - k) ** 2),
                }
                for a in mixture.centers[mixture.labels == label]
            ]
            found = minimize(
                lambda d: d @ d,
                rival - x,
                jac=lambda d: 2 * d,
                constraints=faces,
                method="SLSQP",
                options={"ftol": 1e-14, "maxiter": 500},
            )
            best = min(best, np.linalg.norm(found.x))
        np.testing.assert_allclose(r, best, rtol=2e-6)


def test_centres_in_degenerate_positions_keep_the_promises():
    grid = np.array([[i, j] for i in range(4) for j in range(3)], dtype=float)  # collinear, cocircular
    labels = (np.arange(12) * 5) % 3
    cases = [
        (grid, labels, 1e-11),
        (grid[:, :1] @ [[1.0, 1.0]] + 1e-9 * grid, labels, 1e-3),  # almost on one line: what float64 knows
        (np.concatenate([grid, grid[:2]]), np.append(labels, labels[:2]), 1e-11),  # twice the same, of one label
        (np.concatenate([grid, grid[:2]]), np.append(labels, (labels[:2] + 1) % 3), 1e-11),  # of two: never right there
        (1e7 + grid, labels, 1e-6),
    ]
    rng = np.random.default_rng(0)
    for centers, names, known in cases:
        rule = NearestCenter(pf.GaussianMixture(centers, names, noise=0.3))
        X = centers[rng.integers(len(centers), size=300)] + rng.standard_normal((300, 2))
        y = rule.predict(X)
        lower, d = rule.certified_radius(X, y), rule.nearest_error(X, y)
        length = np.linalg.norm(d, axis=1)
        assert wrong(rule, X + d, y).all()
        assert np.all(lower <= length)
        for x, label, r in zip(X, y, lower, strict=True):
            around = x + r * CIRCLE[::20]
            around = around[np.linalg.norm(around - x, axis=1) <= r]  # far from the origin the sum is rounded
            assert r == 0.0 or not wrong(rule, around, np.full(len(around), label)).any()
        np.testing.assert_allclose(lower, length, rtol=1e-6, atol=known)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("noise", [0.05, 0.7, 2.0])
def test_bayes_certificate_holds_in_the_plane(classes, noise):
    mixture = plane(7, classes, noise=noise)
    rule, rng = MixtureBayes(mixture), np.random.default_rng(6)
    X = 3.0 * rng.standard_normal((150, 2))
    y = np.where(rng.random(150) < 0.2, mixture.classes[0], rule.predict(X))
    lower, error = rule.certified_radius(X, y), wrong(rule, X, y)
    np.testing.assert_array_equal(lower[error], 0.0)
    shortest = []
    for x, label, r in zip(X[~error], y[~error], lower[~error], strict=True):
        for share in (1.0, 0.9, 0.5):
            assert not wrong(rule, x + share * r * CIRCLE, np.full(len(CIRCLE), label)).any()
        grown = [
            s for s in (1.02, 1.1, 1.3, 2.0, 4.0) if wrong(rule, x + s * r * CIRCLE, np.full(len(CIRCLE), label)).any()
        ]
        shortest.append(grown[0] if grown else np.inf)
    assert np.median(shortest) <= (1.02 if noise < 0.1 else 1.3)  # of some use, too
    assert np.all(lower[~error] > 0)


def test_bayes_is_nearest_centre_without_noise():
    centers, labels = plane(7, 3).centers, plane(7, 3).labels
    mixture = pf.GaussianMixture(centers, labels, noise=1e-4)
    X = 2.0 * np.random.default_rng(7).standard_normal((400, 2))
    bayes, nearest = MixtureBayes(mixture), NearestCenter(mixture)
    y = nearest.predict(X)
    np.testing.assert_array_equal(bayes.predict(X), y)
    np.testing.assert_allclose(bayes.certified_radius(X, y), nearest.certified_radius(X, y), rtol=0, atol=1e-6)


def test_bayes_errs_least():
    mixture = pf.GaussianMixture(
        np.eye(3, 8), [1, -1, 1], [6, 3, 1], noise=np.random.default_rng(0).standard_normal((3, 8, 2)), floor=0.3
    )
    data = mixture.sample(20_000, rng=1, dtype="float64")
    accuracy = [np.mean(rule(mixture).predict(data.X) == data.y) for rule in (MixtureBayes, NearestCenter)]
    assert accuracy[0] > accuracy[1] + 0.05
    noisy = pf.GaussianMixture(
        mixture.centers, mixture.labels, mixture.weights, noise=mixture.noise, floor=0.3, label_noise=0.2
    )
    np.testing.assert_array_equal(MixtureBayes(noisy).predict(data.X), MixtureBayes(mixture).predict(data.X))


def test_there_is_a_certificate_of_bayes_for_equal_isotropic_noise_alone():
    for noise in (0.3, [0.3] * 5, np.full((5, 6), 0.3)):
        assert hasattr(MixtureBayes(high(noise=noise)), "certified_radius")
    for noise in ([0.3, 0.3, 0.3, 0.3, 0.4], np.ones((5, 6, 6)) + np.eye(6)):
        rule = MixtureBayes(high(noise=noise))
        assert not hasattr(rule, "certified_radius")
        X = rule.mixture.sample(4, rng=0, dtype="float64").X
        radius = pf.robust_radius(rule, X, rule.predict(X), starts=1, restarts=1, steps=5)
        assert "attacked only" in repr(radius)
        np.testing.assert_array_equal(radius.lower, 0.0)


@pytest.mark.parametrize("labels", [(1, -1, 1, -1, 1), (4, 0, 4, 9, 0)])
def test_robust_radius_takes_the_rules(labels):
    mixture = high(labels)
    data = mixture.sample(30, rng=0)
    for rule, gap in ((NearestCenter(mixture), 1e-6), (MixtureBayes(mixture), np.inf)):
        radius = pf.robust_radius(rule, data.X, data.y)
        assert radius.correct.mean() > 0.5
        assert np.all(radius.lower <= radius.upper)
        np.testing.assert_array_equal(radius.correct, rule.predict(data.X) == data.y)
        assert np.all(radius.upper - radius.lower <= gap * (1.0 + radius.upper))


def test_noise_without_full_rank_has_no_bayes():
    mixture = pf.GaussianMixture(np.eye(2, 4), [0, 1], noise=np.ones((2, 4, 2)))
    with pytest.raises(ValueError, match=r"mixture must have noise in every direction, but cluster 0 .* from 0 to"):
        MixtureBayes(mixture)
    for noise in (0.0, 1e-160, np.diag(np.arange(4.0))[:2] * 1.0):
        with pytest.raises(ValueError, match="mixture must have"):
            MixtureBayes(pf.GaussianMixture(np.eye(2, 4), [0, 1], noise=noise))
    for rule in (MixtureBayes, NearestCenter):
        with pytest.raises(TypeError, match="mixture must be a GaussianMixture, got ndarray"):
            rule(np.eye(2))


def test_centres_that_are_one_are_decided_by_their_weights():
    mixture = pf.GaussianMixture(np.ones((3, 2)), [0, 1, 1], [3, 1, 1], noise=0.5)
    rule = MixtureBayes(mixture)
    np.testing.assert_array_equal(rule.predict([[0.0, 7.0]]), [0])
    np.testing.assert_allclose(rule.decision_function([[0.0, 7.0]]), np.log(2 / 3), rtol=1e-12)
    assert rule.certified_radius([[0.0, 7.0]], [0])[0] > 1e100  # there is no boundary
    assert rule.certified_radius([[0.0, 7.0]], [1])[0] == 0.0
    assert NearestCenter(mixture).certified_radius([[0.0, 7.0]], [0])[0] == 0.0  # all are equally near: an error
