import json
import os
import pickle

import numpy as np
import pytest
from conftest import assert_same_runs, assert_whole

import preluflow as pf
from preluflow import results
from preluflow.experiments import Outcome


def make_run(small, **options):
    network, data, gmm = small
    request = pf.Observe(every=2, what=["loss", "alignment", "cluster_norms", "norms"], gmm=gmm)
    return pf.gradient_descent(network, data.X, data.y, **{"step": 0.1, "steps": 5, "observe": request, **options})


@pytest.fixture
def run(small):
    return make_run(small)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip_is_exact(small, tmp_path, dtype):
    network, data, gmm = small
    data = pf.Dataset(data.X.astype(dtype), data.y, data.z)
    before = make_run((network.astype(dtype), data, gmm))
    before.save(tmp_path / "run.npz")
    after = pf.Run.load(tmp_path / "run.npz")
    assert_same_runs(before, after)
    assert_whole(after)
    for name in before:
        assert after[name].dtype == before[name].dtype
    assert after.network.dtype == np.dtype(dtype)
    assert (after.network.activation, after.network.p) == ("prelu", 3.0)
    assert (after.config, after.stats, after.environment) == (before.config, before.stats, before.environment)
    again = pf.gradient_descent(after.network, data.X, data.y, step=0.1, steps=1)
    assert_same_runs(again, pf.gradient_descent(before.network, data.X, data.y, step=0.1, steps=1))


@pytest.mark.parametrize("activation", ["polynomial", "tanh"])
def test_every_kind_of_network_comes_back(tmp_path, activation):
    network = pf.TwoLayerNetwork([[1e-300, 0.0], [0.0, 0.0], [3.0, 4.0]], [1e-200, 2.0, 0.0], activation, 2.7)
    run = pf.gradient_descent(network, np.eye(2), [1, -1], step=0.1, steps=0)
    run.save(tmp_path / "run.npz")
    assert_same_runs(run, pf.Run.load(tmp_path / "run.npz"))
    assert pf.Run.load(tmp_path / "run.npz").network.p == 2.7


def test_the_file_says_what_made_it(run, tmp_path):
    run.save(tmp_path / "run.npz")
    environment = pf.Run.load(tmp_path / "run.npz").environment
    assert environment["preluflow"] == pf.__version__
    assert environment["numpy"] == np.__version__
    assert {"isa", "compiler", "python", "machine"} <= set(environment)
    assert run.config["step"] == 0.1
    assert run.stats["seconds"] >= run.stats["seconds_kernel"] >= 0.0


def test_no_pickle(run, tmp_path):
    run.save(tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz", allow_pickle=False) as stored:
        assert all(stored[name].dtype.kind != "O" for name in stored.files)
        assert json.loads(str(stored["meta"]))["schema"] == results.SCHEMA
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        results.write_npz(tmp_path / "bad.npz", "run", {"a": np.array([{}], dtype=object)}, {})
    assert not (tmp_path / "bad.npz").exists()


class Explosive:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("run.npz", meta=np.array(Explosive(), dtype=object), allow_pickle=True)
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Explosive()))
    for name in ("run.npz", "plain.npz"):
        with pytest.raises(ValueError, match=name):
            pf.Run.load(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


# ---- damage


def assert_refused_or_whole(path, original):
    """A damaged file is a ValueError that names it; damage that a checksum cannot see changes nothing."""
    try:
        loaded = pf.Run.load(path)
    except ValueError as error:
        assert "run.npz" in str(error)
    else:
        assert_same_runs(loaded, original)


def test_a_truncated_file_is_refused(run, tmp_path):
    path = tmp_path / "run.npz"
    run.save(path)
    whole = path.read_bytes()
    for size in [*range(0, 100, 7), *range(100, len(whole), len(whole) // 60), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"run\.npz.*damaged"):
            pf.Run.load(path)


def test_flipped_bytes_are_refused(run, tmp_path):
    path = tmp_path / "run.npz"
    run.save(path)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for position in {*range(0, 120), *generator.integers(len(whole), size=300).tolist()}:
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        assert_refused_or_whole(path, run)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(100)])
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "run.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.npz.*not a preluflow file"):
        pf.Run.load(path)


def test_other_npz_and_npy_files_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    np.save(tmp_path / "b.npy", np.zeros(3))
    np.savez(tmp_path / "c.npz", meta=np.array("[1, 2]"))
    np.savez(tmp_path / "d.npz", meta=np.array("{"))
    for name in ("a.npz", "b.npy", "c.npz", "d.npz"):
        with pytest.raises(ValueError, match=name):
            pf.Run.load(tmp_path / name)


def test_the_wrong_kind_or_schema_is_refused(run, tmp_path, monkeypatch):
    run.save(tmp_path / "run.npz")
    Outcome("fig5", {}, {"noisy": run}, "noisy").save(tmp_path / "outcome.npz")
    with pytest.raises(ValueError, match=r"outcome\.npz.*'experiment'.*expected 'run'"):
        pf.Run.load(tmp_path / "outcome.npz")
    with pytest.raises(ValueError, match=r"run\.npz.*'run'.*expected 'experiment'"):
        Outcome.load(tmp_path / "run.npz")
    monkeypatch.setattr(results, "SCHEMA", 99)
    with pytest.raises(ValueError, match=r"schema 1.*expected.*schema 99"):
        pf.Run.load(tmp_path / "run.npz")


@pytest.mark.parametrize("missing", ["iterations", "network.U", "method"])
def test_a_missing_part_is_refused_by_name(run, tmp_path, missing):
    arrays, meta = run.arrays(), run.meta()
    arrays.pop(missing, None)
    meta.pop(missing, None)
    results.write_npz(tmp_path / "run.npz", "run", arrays, meta)
    with pytest.raises(ValueError, match=rf"run\.npz.*damaged.*{missing}"):
        pf.Run.load(tmp_path / "run.npz")


# ---- writing


def test_outcomes_round_trip(run, small, tmp_path):
    other = make_run(small, steps=3)
    Outcome("fig5", {"seed": 3, "nudge": None}, {"noisy": run, "nominal": other}, "noisy").save(tmp_path / "fig5.npz")
    back = Outcome.load(tmp_path / "fig5.npz")
    assert (back.name, back.config) == ("fig5", {"seed": 3, "nudge": None})
    assert list(back.runs) == ["noisy", "nominal"]
    assert_same_runs(back.runs["noisy"], run)
    assert_same_runs(back.runs["nominal"], other)
    assert not back.interrupted


def test_missing_files_and_folders_are_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        pf.Run.load(tmp_path / "absent.npz")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run.save(tmp_path / "nowhere" / "run.npz")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        run.save(tmp_path / "file" / "run.npz")
    with pytest.raises(ValueError, match=tmp_path.name):
        pf.Run.load(tmp_path)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["savez_compressed", "replace"])
def test_a_failure_while_writing_leaves_the_old_file_whole(run, small, tmp_path, monkeypatch, error, where):
    path = tmp_path / "run.npz"
    run.save(path)
    before = path.read_bytes()
    newer = make_run(small, steps=1)

    def fail(*arguments, **_):
        if where == "savez_compressed":
            arguments[0].write(b"half a file")
        raise error

    monkeypatch.setattr(np if where == "savez_compressed" else os, where, fail)
    with pytest.raises(type(error)):
        newer.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.npz"]
    newer.save(path)
    assert_same_runs(pf.Run.load(path), newer)
    assert os.listdir(tmp_path) == ["run.npz"]
