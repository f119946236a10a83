import numpy as np
import pytest

import preluflow as pf


@pytest.mark.parametrize(("dim", "positive", "negative"), [(2, 1, 1), (7, 3, 4), (50, 6, 4)])
@pytest.mark.parametrize("centers", ["random", "canonical"])
def test_centres_are_orthonormal(dim, positive, negative, centers):
    gmm = pf.OrthonormalGMM(dim, positive, negative, 0.1, centers=centers, rng=3)
    K = positive + negative
    assert gmm.clusters == K
    assert gmm.centers.shape == (K, dim)
    np.testing.assert_allclose(gmm.centers @ gmm.centers.T, np.eye(K), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(gmm.labels, [1.0] * positive + [-1.0] * negative)
    if centers == "canonical":
        np.testing.assert_array_equal(gmm.centers, np.eye(K, dim))


def test_random_centres_have_no_preferred_direction():
    # Entries of a Haar-random unit vector in R^3 have mean 0 and variance 1/3: 4 standard errors over 2000 draws.
    generator = np.random.default_rng(0)
    draws = np.array([pf.OrthonormalGMM(3, 1, 1, 0.1, rng=generator).centers for _ in range(2000)])
    np.testing.assert_allclose(draws.mean(axis=0), 0.0, rtol=0, atol=4 * np.sqrt(1 / 3 / 2000))
    spread = np.sqrt((1 / 5 - 1 / 9) / 2000)  # of the square, whose mean fourth power is 3/15
    np.testing.assert_allclose((draws**2).mean(axis=0), 1 / 3, rtol=0, atol=4 * spread)


def test_given_centres_are_kept_and_not_shared():
    mine = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 4)))[0].T
    gmm = pf.OrthonormalGMM(6, 2, 2, 0.0, centers=mine)
    expected = mine.copy()
    mine[...] = 0.0
    np.testing.assert_array_equal(gmm.centers, expected)
    with pytest.raises(ValueError, match="read-only"):
        gmm.centers[0, 0] = 1.0
    data = gmm.sample(8, balanced=True, dtype="float64")
    np.testing.assert_array_equal(data.X, expected[data.z])  # alpha = 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("balanced", [False, True])
def test_clusters_have_their_mean_and_covariance(dtype, balanced):
    gmm = pf.OrthonormalGMM(4, 1, 2, 0.5, rng=1)
    data = gmm.sample(60_000, balanced=balanced, dtype=dtype, rng=2)
    assert data.X.dtype == data.y.dtype == np.dtype(dtype)
    assert len(data) == 60_000
    np.testing.assert_array_equal(data.y, gmm.labels[data.z])
    counts = np.bincount(data.z, minlength=3)
    assert np.abs(counts - 20_000).max() <= (0 if balanced else 5 * np.sqrt(60_000 * 2 / 9))
    variance = 0.5**2 / 4
    for k in range(3):
        noise = data.X[data.z == k].astype(np.float64) - gmm.centers[k]
        error = np.sqrt(variance / len(noise))
        np.testing.assert_allclose(noise.mean(axis=0), 0.0, rtol=0, atol=5 * error)
        covariance = np.cov(noise.T)
        np.testing.assert_allclose(
            covariance, variance * np.eye(4), rtol=0, atol=5 * variance * np.sqrt(2 / len(noise))
        )


def test_balanced_points_come_in_cluster_order(gmm):
    data = gmm.sample(20, balanced=True, rng=0)
    np.testing.assert_array_equal(data.z, np.repeat(np.arange(5), 4))


@pytest.mark.parametrize("n", [5, 4096, 10_000])
def test_out_is_filled_in_place(gmm, tmp_path, n):
    out = np.memmap(tmp_path / "X", dtype=np.float32, mode="w+", shape=(n, gmm.dim))
    data = gmm.sample(n, rng=4, out=out)
    assert np.shares_memory(data.X, out)
    out.flush()
    stored = np.fromfile(tmp_path / "X", dtype=np.float32).reshape(n, gmm.dim)
    expected = gmm.sample(n, dtype="float32", rng=4)
    np.testing.assert_array_equal(stored, expected.X)
    np.testing.assert_array_equal(data.z, expected.z)


def test_outs_dtype_counts(gmm):
    out = np.empty((10, gmm.dim))
    data = gmm.sample(10, dtype="float32", rng=4, out=out)
    assert data.X is out
    np.testing.assert_array_equal(out, gmm.sample(10, dtype="float64", rng=4).X)


def test_seeds(gmm):
    one, same, other = (gmm.sample(50, rng=rng) for rng in (7, np.random.default_rng(7), 8))
    np.testing.assert_array_equal(one.X, same.X)
    np.testing.assert_array_equal(one.z, same.z)
    assert np.abs(one.X - other.X).max() > 0.01
    a, b = (gmm.sample(2000, dtype="float64", rng=seed) for seed in (0, 1))
    noise = [(data.X - gmm.centers[data.z]).ravel() for data in (a, b)]
    assert abs(np.corrcoef(noise)[0, 1]) < 5 / np.sqrt(noise[0].size)
    again, twice = pf.OrthonormalGMM(9, 2, 2, 0.1, rng=5), pf.OrthonormalGMM(9, 2, 2, 0.1, rng=5)
    np.testing.assert_array_equal(again.centers, twice.centers)


def test_sampling_leaves_the_global_generator_alone(gmm):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    gmm.sample(10)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 4}, r"dim must be at least positive \+ negative = 5, got 4"),
        ({"alpha": -0.1}, "alpha must be at least 0, got -0.1"),
        ({"alpha": np.nan}, "alpha must be finite, got nan"),
        ({"positive": 0}, "positive must be at least 1, got 0"),
        ({"negative": 0}, "negative must be at least 1, got 0"),
        ({"centers": "cubic"}, "centers must be one of .*'cubic'"),
        ({"centers": np.eye(5, 7)}, r"centers must have shape .*\(5, 6\), got \(5, 7\)"),
        ({"centers": np.eye(4, 6)}, r"centers must have shape .*\(5, 6\), got \(4, 6\)"),
        ({"centers": np.eye(6, 5)}, "centers has 6 rows in R.5"),
        ({"centers": 2 * np.eye(5, 6)}, r"centers must have orthonormal rows, but <centers\[0\], centers\[0\]> = 4"),
        ({"centers": np.eye(5, 6) + 1e-3}, "centers must have orthonormal rows"),
        ({"centers": np.full((5, 6), np.inf)}, "centers must be finite"),
    ],
)
def test_bad_mixtures_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        pf.OrthonormalGMM(**{"dim": 6, "positive": 3, "negative": 2, "alpha": 0.1, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"n": 12, "balanced": True}, "n must be divisible by the 5 clusters when balanced, got 12"),
        ({"dtype": "float16"}, "dtype must be float32 or float64, got float16"),
        ({"dtype": "pancake"}, "dtype must be float32 or float64, got 'pancake'"),
        ({"out": np.empty((10, 11))}, r"out must be .*\(10, 12\), got \(10, 11\)"),
        ({"out": np.empty((10, 12), dtype=int)}, r"out.dtype must be float32 or float64, got int64"),
        ({"out": np.empty((10, 12), order="F")}, "out must be a writable C-contiguous"),
    ],
)
def test_bad_samples_are_refused(gmm, change, message):
    with pytest.raises(ValueError, match=message):
        gmm.sample(**{"n": 10, **change})


def test_out_must_be_an_array(gmm):
    with pytest.raises(TypeError, match=r"^out must be"):
        gmm.sample(10, out=[[0.0] * 12] * 10)
