"""Gaussian mixtures of any kind: what they draw, the special case that was there before, and what they refuse."""

import numpy as np
import pytest

import preluflow as pf

K, D = 3, 4
CENTERS = np.array([[1.0, 0.5, 0.0, 0.0], [0.9, -0.7, 0.2, 0.0], [-3.0, 0.0, 1.0, 2.0]])
LABELS = [7, -2, 7]


def as_before(gmm, n, balanced, dtype, seed):
    """OrthonormalGMM.sample as it was before there was any other mixture."""
    generator, kind = np.random.default_rng(seed), np.dtype(dtype)
    if balanced:
        z = np.repeat(np.arange(gmm.clusters), n // gmm.clusters)
    else:
        z = generator.integers(gmm.clusters, size=n)
    X = np.empty((n, gmm.dim), dtype=kind)
    for start in range(0, n, 4096):
        rows = X[start : start + 4096]
        generator.standard_normal(out=rows, dtype=kind.type)
        rows *= gmm.alpha / np.sqrt(gmm.dim)
        rows += gmm.centers.astype(kind)[z[start : start + 4096]]
    return X, gmm.labels[z].astype(kind), z


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.1, 3.0])
def test_the_orthonormal_mixture_is_the_special_case_bit_for_bit(dtype, balanced, alpha):
    gmm = pf.OrthonormalGMM(11, 3, 2, alpha, rng=1)
    assert isinstance(gmm, pf.GaussianMixture)
    general = [
        pf.GaussianMixture(gmm.centers, gmm.labels, noise=alpha),
        pf.GaussianMixture(gmm.centers, gmm.labels, [2.5] * 5, noise=np.float32(alpha) if alpha != 0.1 else alpha),
    ]
    X, y, z = as_before(gmm, 5000, balanced, dtype, 4)
    for mixture in [gmm, *general]:
        data = mixture.sample(5000, balanced=balanced, dtype=dtype, rng=4)
        for found, expected in ((data.X, X), (data.y, y), (data.z, z)):
            np.testing.assert_array_equal(found, expected)
        assert data.y.dtype == data.X.dtype == np.dtype(dtype)
        assert data.z.dtype == np.intp
        np.testing.assert_array_equal(mixture.classes, [-1, 1])
        np.testing.assert_array_equal(mixture.weights, [0.2] * 5)
        np.testing.assert_allclose(mixture.covariance(2), alpha**2 / 11 * np.eye(11), rtol=1e-14)


def noises():
    rng = np.random.default_rng(5)
    factors = rng.standard_normal((K, D, 2))
    full = rng.standard_normal((K, D, D))
    return {
        "a number": ({"noise": 0.8}, [0.16 * np.eye(D)] * K),
        "one a cluster": ({"noise": [0.4, 1.0, 2.0]}, [a**2 / D * np.eye(D) for a in (0.4, 1.0, 2.0)]),
        "one a coordinate": (
            {"noise": np.arange(12.0).reshape(K, D)},
            [np.diag(s**2) for s in np.arange(12.0).reshape(K, D)],
        ),
        "of low rank": ({"noise": factors}, [A @ A.T for A in factors]),
        "of low rank above a floor": (
            {"noise": factors, "floor": 1.2},
            [A @ A.T + 0.36 * np.eye(D) for A in factors],
        ),
        "wide factors": (
            {"noise": np.concatenate([full, factors], axis=2)},
            [A @ A.T + B @ B.T for A, B in zip(full, factors, strict=True)],
        ),
        "covariances": ({"covariances": full @ full.transpose(0, 2, 1)}, [A @ A.T for A in full]),
        "singular covariances": ({"covariances": factors @ factors.transpose(0, 2, 1)}, [A @ A.T for A in factors]),
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", noises())
def test_clusters_have_their_mean_and_covariance(name, dtype):
    given, expected = noises()[name]
    mixture = pf.GaussianMixture(CENTERS, LABELS, [1, 2, 1], **given)
    data = mixture.sample(80_000, balanced=True, dtype=dtype, rng=2)
    np.testing.assert_array_equal(np.bincount(data.z), [20_000, 40_000, 20_000])
    np.testing.assert_array_equal(data.y, np.array(LABELS)[data.z])
    assert data.y.dtype == np.int64
    for k, S in enumerate(expected):
        np.testing.assert_allclose(mixture.covariance(k), S, rtol=1e-12, atol=1e-12 * np.abs(S).max())
        d = data.X[data.z == k].astype(np.float64) - CENTERS[k]
        n, scale = len(d), np.sqrt(np.diag(S))
        # Standard errors: sqrt(S_ii / n) of a mean, sqrt((S_ii S_jj + S_ij^2) / n) of a covariance. 5 of them.
        rounding = 1e-6 * (1.0 + np.abs(CENTERS).max())
        assert np.all(np.abs(d.mean(axis=0)) <= 5 * scale / np.sqrt(n) + rounding)
        error = np.sqrt((np.outer(scale, scale) ** 2 + S**2) / n)
        assert np.all(np.abs(d.T @ d / n - S) <= 5 * error + rounding * (1.0 + scale.max()))


def test_low_rank_noise_is_a_union_of_subspaces():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((K, 9, 2))
    data = pf.GaussianMixture(rng.standard_normal((K, 9)), [0, 1, 2], noise=A).sample(300, dtype="float64", rng=1)
    for k in range(K):
        rows = data.X[data.z == k]
        sizes = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
        assert sizes[1] > 1.0
        assert sizes[2] < 1e-12


def test_unequal_weights_are_the_clusters_shares():
    mixture = pf.GaussianMixture(CENTERS, LABELS, [6.0, 3.0, 1.0], noise=0.1)
    np.testing.assert_allclose(mixture.weights, [0.6, 0.3, 0.1], rtol=1e-15)
    counts = np.bincount(mixture.sample(50_000, rng=0).z)
    np.testing.assert_allclose(counts, 50_000 * mixture.weights, rtol=0, atol=5 * np.sqrt(50_000 / 4))
    np.testing.assert_array_equal(np.bincount(mixture.sample(70, balanced=True).z), [42, 21, 7])
    with pytest.raises(
        ValueError, match=r"n must give each cluster a whole number.*72 with n weights\[2\] = 7.2|= 21.6"
    ):
        mixture.sample(72, balanced=True)


@pytest.mark.parametrize("labels", [[1, -1, 1], [0, 5, 9]])
def test_label_noise_is_a_share_of_other_labels(labels):
    mixture = pf.GaussianMixture(CENTERS, labels, noise=0.1, label_noise=0.3)
    clean = pf.GaussianMixture(CENTERS, labels, noise=0.1)
    n = 30_000
    data, same = mixture.sample(n, balanced=True, rng=3), clean.sample(n, balanced=True, rng=3)
    np.testing.assert_array_equal(data.X, same.X)  # drawn after the points: it moves none
    np.testing.assert_array_equal(data.z, same.z)
    wrong = data.y != same.y
    assert abs(wrong.mean() - 0.3) < 5 * np.sqrt(0.21 / n)
    assert set(data.y) == set(labels)
    for own in set(labels):
        others = [label for label in set(labels) if label != own]
        rows = data.y[wrong & (same.y == own)]
        for label in others:  # uniform among the others
            assert abs(np.mean(rows == label) - 1 / len(others)) < 5 * np.sqrt(0.25 / len(rows))


def test_what_was_given_is_kept_and_not_shared():
    centers, noise = CENTERS.copy(), np.ones((K, D))
    mixture = pf.GaussianMixture(centers, LABELS, noise=noise)
    before = mixture.sample(9, rng=0).X
    centers[...], noise[...] = 0.0, 0.0
    np.testing.assert_array_equal(mixture.sample(9, rng=0).X, before)
    for array in (mixture.centers, mixture.weights, mixture.noise):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0
    mixture.labels[...] = 0
    np.testing.assert_array_equal(mixture.labels, LABELS)
    np.testing.assert_array_equal(mixture.classes, [-2, 7])


@pytest.mark.parametrize("noise", [0.3, np.full((K, D), 0.2), np.ones((K, D, 2))])
def test_out_is_filled_and_blocks_are_seamless(noise):
    mixture = pf.GaussianMixture(CENTERS, LABELS, noise=noise)
    out = np.empty((9000, D))
    data = mixture.sample(9000, rng=1, out=out)
    assert data.X is out
    expected = mixture.sample(9000, rng=1, dtype="float64")
    np.testing.assert_array_equal(out, expected.X)
    rest = np.abs(out - CENTERS[data.z]).max(axis=1)
    assert rest[4090:4100].min() > 0


def test_what_is_shown_and_stored_is_plain():
    mixture = pf.GaussianMixture(CENTERS, LABELS, noise=np.ones((K, D, 2)), floor=0.5, label_noise=0.1)
    assert repr(mixture) == (
        "GaussianMixture(dim=4, clusters=3, classes=[-2, 7], noise=<(3, 4, 2)>, floor=0.5, label_noise=0.1)"
    )
    assert mixture.config() == {
        "dim": 4,
        "labels": LABELS,
        "weights": [1 / 3] * 3,
        "noise": [3, 4, 2],
        "floor": 0.5,
        "label_noise": 0.1,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"centers": np.ones(3)}, "centers must have 2 dimensions"),
        ({"centers": np.full((3, 4), np.nan)}, "centers must be finite"),
        ({"centers": np.full((3, 4), 1e200)}, r"centers must be at most 1e\+150"),
        ({"labels": [1, -1]}, r"labels must have shape \(3,\) to match centers, got \(2,\)"),
        ({"labels": [1, 1, 1]}, "labels must hold at least two different ones, got 1 alone"),
        ({"labels": [1, 0.5, 1]}, r"labels must hold integers .* labels\[1\] is 0.5"),
        ({"labels": [1, np.inf, 1]}, r"labels must hold integers .* labels\[1\] is inf"),
        ({"labels": [1, 2**60, 1]}, r"labels must hold integers of at most 2\*\*53"),
        ({"weights": [1, 1]}, r"weights must have shape \(3,\)"),
        ({"weights": [1, 0, 1]}, "weights must be greater than 0, got 0"),
        ({"weights": [1, 1e-320, 1e300]}, "weights must be within float64 of one another"),
        ({"noise": None}, "noise must be given, or covariances in its place, got neither"),
        ({"covariances": np.ones((3, 4, 4))}, "noise must be given, or covariances in its place, got both"),
        ({"noise": -0.1}, "noise must be at least 0, got -0.1"),
        ({"noise": [0.1, 0.1]}, r"noise must be a number or have shape \(3,\), \(3, 4\) or \(3, 4, r\)"),
        ({"noise": np.ones((4, 3))}, r"noise must be a number or have shape .*got \(4, 3\)"),
        ({"noise": np.ones((3, 4, 0))}, r"noise must be a number or have shape .*got \(3, 4, 0\)"),
        ({"noise": np.ones((3, 3, 4))}, r"noise must be a number or have shape .*got \(3, 3, 4\)"),
        ({"noise": 1e200}, r"noise must be at most 1e\+150"),
        ({"noise": None, "covariances": np.eye(4)}, "covariances must have 3 dimensions"),
        ({"noise": None, "covariances": np.ones((3, 3, 3))}, r"covariances must have shape \(3, 4, 4\)"),
        ({"noise": None, "covariances": np.triu(np.ones((3, 4, 4)))}, r"covariances\[0\] is not"),
        ({"noise": None, "covariances": -np.ones((3, 4, 4))}, "covariances must have no negative eigenvalue"),
        ({"floor": 0.1}, "floor must be 0 unless noise has factors"),
        ({"floor": -0.1}, "floor must be at least 0"),
        ({"label_noise": 0.5}, "label_noise must be less than 1 - 1/C = 0.5 for 2 different labels, got 0.5"),
        ({"label_noise": -0.1}, "label_noise must be at least 0"),
    ],
)
def test_bad_mixtures_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        pf.GaussianMixture(**{"centers": CENTERS, "labels": LABELS, "noise": 0.1, **change})


def test_points_beyond_the_dtype_are_refused():
    mixture = pf.GaussianMixture(1e60 * CENTERS, LABELS, noise=0.1)
    with pytest.raises(ValueError, match=r"dtype must hold points as far away as 3e\+60, float32 does not"):
        mixture.sample(3)
    assert np.isfinite(mixture.sample(3, dtype="float64").X).all()
