"""Files made to mislead whoever reads them."""

import json
import struct
import tracemalloc
import zlib
from dataclasses import replace

import hostile_results
import numpy as np
import pytest
from hostile_results import OLD, contents, leftovers, write_wrong

import preluflow as pf
from preluflow import _npz, results
from preluflow.experiments import Outcome

run = pytest.fixture(scope="module")(hostile_results.make_run)
radius = pytest.fixture(scope="module")(hostile_results.make_radius)
outcome = pytest.fixture(scope="module")(hostile_results.make_outcome)


# ---- damage


@pytest.fixture(scope="module")
def saved(run, radius, outcome, tmp_path_factory):
    """Bytes of one file of each kind, what loads it, and what it holds."""
    folder = tmp_path_factory.mktemp("saved")
    found = {}
    for name, value in (("run", run), ("radius", radius), ("outcome", outcome)):
        value.save(folder / name)
        found[name] = ((folder / name).read_bytes(), type(value).load, contents(value))
    return found


@pytest.mark.parametrize("kind", ["run", "radius", "outcome"])
def test_bit_flips_and_truncations_are_refused_or_change_nothing(saved, tmp_path, kind):
    whole, load, expected = saved[kind]
    path = tmp_path / "x.npz"
    generator = np.random.default_rng(5)
    flips = [*generator.integers(8 * len(whole), size=200).tolist(), *range(8 * len(whole) - 22 * 8, 8 * len(whole), 3)]
    damaged = [whole[:size] for size in generator.integers(len(whole), size=30).tolist()]
    for bit in flips:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(data))
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            found = contents(load(path))
        except ValueError as error:
            assert "x.npz" in str(error)
            refused += 1
        else:
            assert found == expected
    assert refused > len(damaged) / 2  # the rest hit times, versions and the like


# ---- lies in the ZIP directory


def npy(array, *, header=None):
    """Bytes of an .npy file; with another header, if one is given."""
    array = np.asarray(array)
    text = header or f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    data = f"{text}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(data)) + data + array.tobytes()


def zip_file(members, *, comment=b"", directory=None):
    """A ZIP file of (name, data, claims); claims replace fields of the directory: method, flags, crc, packed, size."""
    body, entries = bytearray(), bytearray()
    for name, data, claims in members:
        fields = {"method": 0, "flags": 0, "crc": zlib.crc32(data), "packed": len(data), "size": len(data), **claims}
        common = struct.pack(
            "<HHHHHIIIHH", 20, fields["flags"], fields["method"], 0, 0, fields["crc"], fields["packed"],
            fields["size"], len(name), 0,
        )  # fmt: skip
        entries += b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, len(body))
        entries += name.encode()
        body += b"PK\x03\x04" + common + name.encode() + data
    count, length = len(members), len(entries) if directory is None else directory
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, length, len(body), len(comment))
    return bytes(body + entries + end + comment)


META = npy(np.array(json.dumps({"schema": 1, "kind": "robust_radius", "config": {}, "environment": {}})))
ZEROS = npy(np.zeros(3))


def radius_members(**replaced):
    """Members of a good file, some exchanged for (data, claims)."""
    parts = {"lower": ZEROS, "upper": ZEROS, "witness": npy(np.zeros((3, 2))), "correct": npy(np.ones(3, bool))}
    parts |= {"meta": META}
    members = {name: (data, {}) for name, data in parts.items()} | replaced
    return [(f"{name}.npy", data, claims) for name, (data, claims) in members.items()]


def header(descr="'<f8'", order="False", shape="(3,)"):
    return npy(np.zeros(3), header=f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}")


LIES = {
    "twice the same name": [*radius_members(), ("lower.npy", ZEROS, {})],
    "a name that does not belong": [*radius_members(), ("extra.npy", ZEROS, {})],
    "no array": [*radius_members(), ("readme.txt", b"hello", {})],
    "encrypted": radius_members(lower=(ZEROS, {"flags": 1})),
    "bzip2": radius_members(lower=(ZEROS, {"method": 12})),
    "lzma": radius_members(lower=(ZEROS, {"method": 14})),
    "unknown packing": radius_members(lower=(ZEROS, {"method": 77})),
    "checksum": radius_members(lower=(ZEROS, {"crc": 1})),
    "longer than it is": radius_members(lower=(ZEROS, {"size": 10**6})),
    "much longer than it is": radius_members(lower=(ZEROS, {"size": 2**32 - 2, "packed": 2**32 - 2})),
    "shorter than it is": radius_members(lower=(ZEROS, {"size": 90})),
    "packed longer than the file": radius_members(lower=(ZEROS, {"packed": 10**6, "size": 10**6})),
    "a huge shape": radius_members(lower=(header(shape=f"({10**17},)"), {})),
    "a shape whose product overflows": radius_members(lower=(header(shape=f"({2**40}, {2**40})"), {})),
    "a negative shape": radius_members(lower=(header(shape="(-3,)"), {})),
    "a shape of names": radius_members(lower=(header(shape="(n,)"), {})),
    "a shape of truths": radius_members(lower=(header(shape="(True,)"), {})),
    "a scalar shape": radius_members(lower=(header(shape="3"), {})),
    "very many dimensions": radius_members(lower=(header(shape=f"({'1, ' * 99}3)"), {})),
    "no bytes an item": radius_members(lower=(npy(np.zeros(0), header=header("'<U0'", shape=f"({10**17},)")), {})),
    "one huge item": radius_members(lower=(header(f"'<U{10**8}'", shape="()"), {})),
    "objects": radius_members(lower=(header("'|O'"), {})),
    "records": radius_members(lower=(header("[('a', '<f8')]"), {})),
    "dates": radius_members(lower=(header("'<M8[s]'"), {})),
    "complex numbers": radius_members(lower=(header("'<c16'"), {})),
    "bytes": radius_members(lower=(header("'|S8'"), {})),
    "no dtype": radius_members(lower=(header("'<f7'"), {})),
    "order": radius_members(lower=(header(order="None"), {})),
    "a header that is code": radius_members(lower=(npy(np.zeros(3), header="__import__('os').abort()"), {})),
    "a header that nests": radius_members(lower=(npy(np.zeros(3), header="[" * 30000 + "]" * 30000), {})),
    "a header of digits": radius_members(lower=(header(shape="(" + "1" * 60000 + "x)"), {})),
    "a header without end": radius_members(lower=(b"\x93NUMPY\x01\x00\xff\xff{", {})),
    "format 2": radius_members(lower=(ZEROS.replace(b"NUMPY\x01", b"NUMPY\x02"), {})),
    "empty": radius_members(lower=(b"", {})),
    "no meta": radius_members()[:-1],
}
FILES = {
    **{lie: zip_file(members) for lie, members in LIES.items()},
    "a comment": zip_file(radius_members(), comment=b"hello"),
    "more behind its end": zip_file(radius_members()) + b"more",
    "a huge directory": zip_file(radius_members(), directory=2**31),
    "nothing in it": zip_file([]),
    "an end for files beyond 4 GiB": b"PK\x06\x07" + bytes(16) + zip_file([])[-22:],
    "very many members": zip_file([(f"{i}.npy", b"", {}) for i in range(30000)]),
}


@pytest.mark.parametrize("lie", FILES)
def test_a_directory_header_or_end_that_lies_is_refused(tmp_path, recwarn, lie):
    path = tmp_path / "x.npz"
    path.write_bytes(FILES[lie])
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"x\.npz.*damaged") as refused:
        pf.RobustRadius.load(path)
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600
    assert not recwarn.list


def test_the_file_that_those_are_made_from_is_good(tmp_path):
    (tmp_path / "x.npz").write_bytes(zip_file(radius_members()))
    found = pf.RobustRadius.load(tmp_path / "x.npz")
    np.testing.assert_array_equal(found.lower, np.zeros(3))
    assert found.witness.shape == (3, 2)


def packed_zeros(size):
    """An .npy file of that many float64 zeros, deflated, and what the directory has to say of it."""
    start = npy(np.zeros(0), header=f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({size},), }}")
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = pack.compress(start) + pack.flush(zlib.Z_FULL_FLUSH)
    block = pack.compress(bytes(2**20)) + pack.flush(zlib.Z_FULL_FLUSH)  # alike, for nothing before is referred to
    blocks, rest = divmod(8 * size, 2**20)
    assert rest == 0
    return first + blocks * block + pack.flush(), {"method": 8, "size": len(start) + 8 * size}


def test_a_bomb_is_refused_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    data, claims = packed_zeros(3 * 2**27)  # 3 GiB
    path.write_bytes(zip_file(radius_members(lower=(data, claims), upper=(data, claims))))
    assert path.stat().st_size < 2**23
    tracemalloc.start()
    for load in (pf.RobustRadius.load, pf.Run.load, Outcome.load):
        with pytest.raises(ValueError, match="unpack"):
            load(path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_sizes_are_added_up(tmp_path):
    (tmp_path / "x.npz").write_bytes(zip_file([(f"{i}.npy", *packed_zeros(2**23)) for i in range(5)]))  # 64 MiB each
    with pytest.raises(ValueError, match="unpack"):
        pf.RobustRadius.load(tmp_path / "x.npz")


def test_honest_zeros_are_read_however_well_they_pack(tmp_path, monkeypatch):
    zeros = np.zeros((300, 400))
    radius = pf.RobustRadius(zeros[:, 0], zeros[:, 0] + np.inf, zeros, zeros[:, 0] < 1)
    radius.save(tmp_path / "small.npz")
    assert (tmp_path / "small.npz").stat().st_size < zeros.nbytes / 100
    np.testing.assert_array_equal(pf.RobustRadius.load(tmp_path / "small.npz").witness, zeros)
    monkeypatch.setattr(_npz, "MOST_BYTES", 2**12)
    radius.save(tmp_path / "large.npz")  # as if that were more than is believed: not packed
    assert (tmp_path / "large.npz").stat().st_size > zeros.nbytes
    np.testing.assert_array_equal(pf.RobustRadius.load(tmp_path / "large.npz").witness, zeros)
    with pytest.raises(ValueError, match="unpack"):
        pf.RobustRadius.load(tmp_path / "small.npz")


# ---- contents that do not belong together

DELETE = type("Delete", (), {"__repr__": lambda _: "deleted"})()
NAN = float("nan")


def deep(levels):
    value = 0
    for _ in range(levels):
        value = [value]
    return value


RUN = {
    "t": [np.array(["a"] * 5), np.zeros(4), np.zeros((5, 1)), [0.0, 1, NAN, 3, 4], [0, 1.0, 2, 3, np.inf],
          [0.0, 2, 1, 3, 4], np.arange(5), np.zeros(5, complex), np.float64(3)],
    "iterations": [np.zeros(5), np.arange(4), np.arange(5)[::-1], np.arange(5) - 3, np.array(["0"] * 5),
                   np.zeros(5, bool)],
    "record.loss": [np.zeros(4), np.float64(1), np.array(["x"] * 5), np.zeros((4, 5)), np.zeros((0, 5))],
    "event.loss_below_0.9": [[NAN], [[1.0]], np.float64(1.0), np.array(["x"]), [np.inf]],
    "other": [np.zeros(5)],
    "network.U": [np.full((4, 6), 1e300), np.zeros((4, 6)), np.full((4, 6), NAN), np.zeros(4), np.zeros((0, 6)),
                  np.zeros((4, 0)), np.eye(6),
                  np.array([["1.0"] * 6] * 4), np.zeros((4, 6), np.float16), np.ones((4, 6), int)],
    "network.log_norm": [np.zeros(3), np.zeros((4, 1)), np.full(4, NAN), np.full(4, np.inf), np.array(["1"] * 4)],
    "network.sign": [np.full(4, 2.0), np.zeros(4), np.array(["+"] * 4), np.ones(4, bool), np.zeros(9)],
    "network.log_abs_v": [np.full(4, NAN), np.full(4, -np.inf), np.array(["0"] * 4), np.zeros(0)],
    "network.activation": ["gelu", "", ["prelu"], 3.0],
    "network.p": [NAN, 0.5, np.inf, [3.0], "3", -3.0, True, 10**6 * np.ones(3)],
}  # fmt: skip
RUN_META = {
    "method": [None, 3, ["sgd"]],
    "status": [None, {}],
    "message": [1.5],
    "config": [None, [], "x"],
    "stats": [None, [1], {"t": "soon"}, {"t": NAN}, {"t": 10**400}, {"t": None}, {"next_step": "long"}, {"t": True}],
    "environment": [None, 1],
}
RADIUS = {
    "lower": [np.zeros(6), np.full(7, NAN), np.full(7, -1.0), np.array(["0.1"] * 7), np.zeros((7, 1)), np.zeros(7, int),
              np.zeros(7, complex), np.float64(1)],
    "upper": [np.zeros(8), np.full(7, NAN), np.full(7, -np.inf), np.array([None] * 7, str), np.zeros(7, bool)],
    "correct": [np.zeros(7), np.zeros(6, bool), np.zeros((7, 7), bool), np.array(["True"] * 7)],
    "witness": [np.zeros((6, 6)), np.zeros(7), np.full((7, 6), NAN), np.full((7, 6), np.inf), np.array([["a"]] * 7),
                np.zeros((7, 6, 1))],
    "extra": [np.zeros(7)],
}  # fmt: skip
RADIUS_META = {"config": [None, [], 3], "environment": ["x", None]}
OUTCOME = {
    "noisy/t": [np.zeros(3), [0.0, 1, NAN, 3, 4]],
    "noisy/network.U": [np.zeros((4, 6))],
    "elsewhere/t": [np.zeros(5)],
    "t of no run": [np.zeros(5)],
}
OUTCOME_META = {
    "name": [None, 5, ["fig5"]],
    "config": [None, [], "quick"],
    "main": [3, True, []],
    "stopped": [None, "no", 0, 1.0],
    "runs": [None, [], {"noisy": None}, {"noisy": {}}, {"other": {}}, {}],
}
ANY_META = {"schema": [None, True, 1.0, 2, "1", NAN, 10**30], "kind": [None, 3, ["run"], "other"]}
OPTIONAL = ("record.loss", "event.loss_below_0.9", "other", "extra", "/words", "elsewhere/t", "t of no run")


def wrong_contents():
    """Every wrong value of every part of a file, and every part left out that must be there."""
    parts = {"run": (RUN, RUN_META), "robust_radius": (RADIUS, RADIUS_META), "experiment": (OUTCOME, OUTCOME_META)}
    for kind, (arrays, meta) in parts.items():
        for part, cases in (("arrays", arrays), ("meta", meta | ANY_META)):
            for name, values in cases.items():
                for value in values if name in OPTIONAL else [*values, DELETE]:
                    yield pytest.param(kind, part, name, value, id=f"{kind} {name} {value!r:.30}")


@pytest.fixture(scope="module")
def good(saved, tmp_path_factory):
    """Arrays and metadata of one file of each kind, and what loads it."""
    folder = tmp_path_factory.mktemp("good")
    found = {}
    for kind, name in (("run", "run"), ("robust_radius", "radius"), ("experiment", "outcome")):
        whole, load, expected = saved[name]
        (folder / name).write_bytes(whole)
        found[kind] = (*results.read_npz(folder / name, kind), load, expected)
    return found


@pytest.mark.parametrize(("kind", "part", "name", "value"), list(wrong_contents()))
@pytest.mark.filterwarnings("error")
def test_contents_that_are_wrong_are_refused_by_name(good, tmp_path, kind, part, name, value):
    arrays, meta, load, _ = good[kind]
    wrong = {"arrays": dict(arrays), "meta": {"schema": 1, "kind": kind, **meta}}
    wrong[part].pop(name, None)
    if value is not DELETE:
        wrong[part][name] = np.asarray(value) if part == "arrays" else value
    path = tmp_path / "x.npz"
    write_wrong(path, wrong["arrays"], wrong["meta"])
    with pytest.raises(ValueError, match=r"x\.npz") as refused:
        load(path)
    shown = name.split(".")[-1].split("/")[-1]
    assert "\n" not in str(refused.value)
    words = {
        "lower": ["correct"],
        "iterations": ["t must"],
        "stats": ["t must", "next_step"],
        "network.U": ["log_norm"],
    }
    if name not in ("schema", "kind", "runs"):
        assert any(word in str(refused.value) for word in (name, shown, *words.get(name, [])))


@pytest.mark.parametrize("kind", ["run", "robust_radius", "experiment"])
def test_metadata_that_is_no_plain_json_object_is_refused(good, tmp_path, kind):
    arrays, meta, load, _ = good[kind]
    path = tmp_path / "x.npz"
    whole = {"schema": 1, "kind": kind, **meta}
    texts = ["", "{", "[]", "null", "3", "NaN", '"x"', "[" * 100_000, '{"a":' * 100_000, json.dumps(deep(60)),
             json.dumps({**whole, "config": {"a": deep(60)}}), "{}" + "\0" * 10, "1" * 5000]  # fmt: skip
    for text in texts:
        write_wrong(path, arrays, text)
        with pytest.raises(ValueError, match=r"x\.npz.*damaged"):
            load(path)
    for array in (np.array([json.dumps(whole)]), np.array(3), np.frombuffer(json.dumps(whole).encode(), np.uint8)):
        np.savez(path, **{**arrays, "meta": array})
        with pytest.raises(ValueError, match=r"x\.npz.*damaged"):
            load(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_npz, "MOST_META", 100)
        write_wrong(path, arrays, whole)
        with pytest.raises(ValueError, match=r"at most 100 characters"):
            load(path)


def test_what_is_not_promised_may_be_nan_or_of_another_machine(good, tmp_path):
    arrays, meta, load, expected = good["run"]
    meta = {"schema": 1, "kind": "run", **meta, "config": {"gap": NAN, "limit": np.inf}}
    swapped = {name: array.astype(array.dtype.newbyteorder("S")) for name, array in arrays.items()}
    swapped["record.loss"] = np.full(5, NAN)
    swapped["record.alignment"] = np.asfortranarray(swapped["record.alignment"])
    write_wrong(tmp_path / "x.npz", swapped, meta)
    found = load(tmp_path / "x.npz")
    assert np.isnan(found["loss"]).all()
    assert np.isnan(found.config["gap"])
    np.testing.assert_array_equal(found["alignment"], arrays["record.alignment"])
    assert found.t.dtype == np.dtype("f8")
    assert found.t.tolist() == expected[0]["t"]


def test_radii_may_be_infinite_and_witnesses_left_out(radius, tmp_path):
    for change in ({"upper": np.full(7, np.inf)}, {"witness": np.zeros((7, 0))}, {"lower": np.full(7, np.inf)}):
        changed = replace(radius, **change)
        changed.save(tmp_path / "x.npz")
        assert contents(pf.RobustRadius.load(tmp_path / "x.npz")) == contents(changed)


def test_what_could_not_be_read_again_is_not_saved(run, radius, outcome, tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(OLD)
    wrong = replace(run, records={**run.records, "mine": np.zeros(2)})
    for save, name in (
        (wrong.save, "mine"),
        (replace(outcome, runs={"noisy": wrong}).save, "mine"),
        (replace(radius, lower=np.full(7, NAN)).save, "lower"),
        (replace(run, message="x" * (_npz.MOST_META + 1)).save, "meta must be"),
        (replace(run, config={"deep": deep(60)}).save, "nested"),
        (replace(run, records={"a\0b": run["loss"]}).save, "names"),
        (replace(run, records={"e" * 70_000: run["loss"]}).save, "names"),
        (replace(run, records={"c": run["loss"] * 1j}).save, "c"),
        (replace(outcome, arrays={"c": np.zeros(3, complex)}).save, "complex"),
        (replace(outcome, arrays={"d": np.zeros(3, "M8[s]")}).save, "datetime"),
        (replace(run, events={"e" * 60_000 + str(i): np.zeros(1) for i in range(20)}).save, "names"),
    ):
        with pytest.raises(ValueError, match=name):
            save(path)
    assert path.read_bytes() == OLD
    assert not leftovers(tmp_path)
