"""Files in the way, interrupts while one is written, and files made to mislead whoever reads them."""

import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import assert_same_runs

import preluflow as pf
from preluflow import _files, _npz, results
from preluflow.cli import cli
from preluflow.experiments import FIG1, REGISTRY, Options, Outcome, neurons

OLD, NEW = b"what was there before", b"what is there afterwards"


@pytest.fixture(scope="module")
def run():
    gmm = pf.OrthonormalGMM(dim=6, positive=2, negative=1, alpha=0.1, rng=0)
    data = gmm.sample(21, balanced=True, dtype="float64", rng=1)
    network = pf.initialize(4, 6, 0.3, p=3, dtype="float64", rng=2)
    events = [pf.events.loss_below(0.9)]
    observe = pf.Observe(every=1.0, what=["loss", "alignment"], gmm=gmm)
    return pf.gradient_flow(network, data.X, data.y, t1=4.0, events=events, observe=observe)


@pytest.fixture(scope="module")
def radius(run):
    X = np.random.default_rng(3).standard_normal((7, 6))
    return pf.robust_radius(run.network, X, np.where(run.network.decision_function(X) > 0, 1, -1))


@pytest.fixture(scope="module")
def outcome(run):
    return Outcome("fig5", {"quick": True, "nudge": None}, {"noisy": run}, "noisy", {"words": np.array(["a", "bc"])})


def save_new(path):
    _files.write_file(path, lambda stream: stream.write(NEW))


def leftovers(folder):
    return [name for name in os.listdir(folder) if name.endswith(".tmp")]


# ---- what is in the way


def make_device(path):
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except OSError:  # not root: a terminal, whose folder takes no files whatever is tried
        return Path(os.ttyname(os.openpty()[1]))
    return path


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # names of sockets are short
        server.bind(path.name)
        os.chdir(here)
    return path


def make_fifo(path):
    os.mkfifo(path)
    return path


def make_folder(path):
    path.mkdir()
    return path


def make_circle(path):
    path.symlink_to(path.name)
    return path


IN_THE_WAY = {
    "a device": make_device,
    "a socket": make_socket,
    "a FIFO": make_fifo,
    "a folder": make_folder,
    "a symbolic link in a circle": make_circle,
}


@pytest.mark.parametrize("kind", IN_THE_WAY)
@pytest.mark.parametrize("through", ["itself", "link"])
def test_only_regular_files_are_replaced(run, radius, outcome, tmp_path, kind, through):
    place = IN_THE_WAY[kind](tmp_path / "x.npz")
    before = os.lstat(place)
    path = place
    if through == "link":
        path = tmp_path / "link.npz"
        path.symlink_to(place)
    for save in (run.save, radius.save, outcome.save, _files.check_writable):
        with pytest.raises(OSError, match=rf"{path.name}.*{kind}"):
            save(path)
    after = os.lstat(place)
    assert (after.st_mode, after.st_ino, after.st_rdev) == (before.st_mode, before.st_ino, before.st_rdev)
    assert not leftovers(tmp_path)
    if kind != "a symbolic link in a circle":
        for load in (pf.Run.load, pf.RobustRadius.load, Outcome.load):
            with pytest.raises(ValueError, match=kind):
                load(path)


def test_links_are_written_through(run, tmp_path):
    there = make_folder(tmp_path / "there")
    for target, text in (("old.npz", OLD), ("new.npz", None)):
        if text is not None:
            (there / target).write_bytes(text)
        link = tmp_path / f"link-{target}"
        link.symlink_to(os.path.join("there", target))
        run.save(link)
        assert link.is_symlink()
        assert not (there / target).is_symlink()
        assert_same_runs(pf.Run.load(there / target), run)
    assert not leftovers(tmp_path) + leftovers(there)
    (tmp_path / "lost.npz").symlink_to("nowhere/run.npz")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run.save(tmp_path / "lost.npz")


def test_within_a_folder_no_link_leads_out(tmp_path):
    folder, outside = make_folder(tmp_path / "in"), tmp_path / "outside"
    (folder / "out").symlink_to("../outside")
    (folder / "around").symlink_to("../in/inside")
    (tmp_path / "alias").symlink_to("in")
    with pytest.raises(PermissionError, match="symbolic link out of its folder"):
        _files.write_file(folder / "out", lambda stream: stream.write(NEW), within=folder)
    assert not outside.exists()
    _files.write_file(folder / "around", lambda stream: stream.write(NEW), within=folder)
    assert (folder / "inside").read_bytes() == NEW
    _files.write_file(tmp_path / "alias" / "x", lambda stream: stream.write(NEW), within=tmp_path / "alias")
    assert (folder / "x").read_bytes() == NEW


def test_permissions_are_kept_and_new_ones_follow_the_umask(tmp_path):
    path = tmp_path / "x"
    before = os.umask(0o027)
    try:
        save_new(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        for mode in (0o600, 0o664):
            path.chmod(mode)
            save_new(path)
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


def test_a_write_protected_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(OLD)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # what root does not see
    with pytest.raises(PermissionError, match="write-protected"):
        save_new(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == OLD


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_files, "_Stream", refuse)  # root may write everywhere
    with pytest.raises(PermissionError, match=rf"{tmp_path.name}.*not writable: Permission denied"):
        _files.check_writable(tmp_path / "x")
    with pytest.raises(PermissionError, match=rf"{tmp_path.name}.*not writable"):
        save_new(tmp_path / "x")


@pytest.mark.parametrize(
    "name",
    ["n" * 251 + ".npz", os.fsdecode(b"\xff\xfe.npz"), "räume und 漢字.npz", "-rf", "no extension", "a\nb.npz"],
)
def test_any_name_that_a_file_may_have(run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    run.save(name)
    run.save(name)
    assert os.listdir(tmp_path) == [name]
    assert_same_runs(pf.Run.load(name), run)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("n" * 300, OSError),
        ("a\0b", ValueError),
        ("", IsADirectoryError),
        (".", IsADirectoryError),
        (None, TypeError),
        (3, TypeError),
        (b"x.npz", TypeError),
    ],
)
def test_no_file_has_such_a_name(run, tmp_path, monkeypatch, path, error):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=r"path|nnn|\."):
        run.save(path)
    with pytest.raises((error, ValueError)):
        pf.Run.load(path)
    assert os.listdir(tmp_path) == []


def test_the_current_folder_may_be_gone(run, tmp_path, monkeypatch):
    monkeypatch.chdir(make_folder(tmp_path / "gone"))
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError, match=r"x\.npz"):
        run.save("x.npz")
    with pytest.raises(FileNotFoundError, match=r"x\.npz"):
        pf.Run.load("x.npz")


# ---- interrupts


def interrupted_at(step, function, *, every_file=False, event="opcode"):
    """Call a function, with Ctrl-C before its step-th opcode (or line) in _files.py; return how many there were."""
    count = 0

    def local(frame, what, _):
        nonlocal count
        if what == event:
            count += 1
            if count == step:
                signal.raise_signal(signal.SIGINT)
        return local

    def trace(frame, *_):
        if not every_file and frame.f_code.co_filename != _files.__file__:
            return None
        frame.f_trace_opcodes = event == "opcode"
        return local

    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(None)
    return count


def assert_interrupted(step, function, **options):
    with pytest.raises(KeyboardInterrupt):
        interrupted_at(step, function, **options)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def interrupt_at_every_opcode(folder):
    """Save over a file, and where there is none, interrupted at every opcode of _files.py in turn."""
    path = folder / "x"
    os.fsync = lambda descriptor: None  # which takes most of the time

    def prepare(old):
        path.unlink(missing_ok=True)
        if old is not None:
            path.write_bytes(old)

    for old in (OLD, None):
        prepare(old)
        opcodes, found = interrupted_at(0, lambda: save_new(path)), set()
        for step in range(1, opcodes + 1):
            prepare(old)
            assert_interrupted(step, lambda: save_new(path))
            assert os.listdir(folder) in ([path.name], [])
            found.add(path.read_bytes() if path.exists() else None)
        assert found == {old, NEW}
        print(opcodes)


def test_ctrl_c_at_any_opcode_leaves_the_old_file_or_the_new_one(run_python, tmp_path):
    script = "import sys, pathlib, test_hostile_files as t; t.interrupt_at_every_opcode(pathlib.Path(sys.argv[1]))"
    done = run_python(script, tmp_path)  # on its own: an exception from a trace function leaves traces in Python
    assert done.returncode == 0, done.stderr
    assert min(map(int, done.stdout.split())) > 300


def test_ctrl_c_while_a_run_is_packed(run, tmp_path):
    path = tmp_path / "run.npz"
    run.save(path)
    options = {"every_file": True, "event": "line"}
    lines = interrupted_at(0, lambda: run.save(path), **options)
    for step in np.linspace(1, lines - 1, 60).astype(int):
        assert_interrupted(step, lambda: run.save(path), **options)
        assert os.listdir(tmp_path) == [path.name]
        assert_same_runs(pf.Run.load(path), run)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("where", ["chmod", "fsync", "replace"])
@pytest.mark.parametrize("by", ["signal", "raise"])
def test_ctrl_c_around_every_call_of_the_system(tmp_path, monkeypatch, by, where, when):
    path = tmp_path / "x"
    path.write_bytes(OLD)
    path.chmod(0o600)
    real = getattr(os, where)

    def call(*arguments):
        if when == "after":
            real(*arguments)
        if by == "raise":
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)
        if when == "before":
            real(*arguments)

    monkeypatch.setattr(os, where, call)
    with pytest.raises(KeyboardInterrupt):
        save_new(path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["x"]
    assert path.read_bytes() in (OLD, NEW)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_stop_the_cleaning(tmp_path, monkeypatch):
    def write(stream):
        stream.write(b"half")
        signal.raise_signal(signal.SIGINT)
        stream.write(b"more")

    real = os.unlink

    def unlink(path):
        signal.raise_signal(signal.SIGINT)
        real(path)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt):
        _files.write_file(tmp_path / "x", write)
    assert os.listdir(tmp_path) == []


def test_a_ctrl_c_that_turns_into_another_error_or_is_swallowed_is_one_all_the_same(tmp_path):
    def turned(stream):
        signal.raise_signal(signal.SIGINT)
        try:
            stream.write(b"half")
        finally:
            raise ValueError("Can't close the ZIP file")

    def swallowed(stream):
        signal.raise_signal(signal.SIGINT)
        try:
            stream.write(b"half")
        except KeyboardInterrupt:
            stream.write(b"half")

    for write in (turned, swallowed):
        with pytest.raises(KeyboardInterrupt):
            _files.write_file(tmp_path / "x", write)
    assert os.listdir(tmp_path) == []


def test_a_handler_of_ones_own_is_called_and_kept(tmp_path):
    calls = []

    def note(*_):
        calls.append(1)

    before = signal.signal(signal.SIGINT, note)
    try:
        _files.write_file(tmp_path / "x", lambda stream: [signal.raise_signal(signal.SIGINT), stream.write(NEW)])
        assert signal.getsignal(signal.SIGINT) is note
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == [1]
    assert (tmp_path / "x").read_bytes() == NEW


def test_other_threads_save_too(tmp_path):
    thread = threading.Thread(target=save_new, args=(tmp_path / "x",))
    thread.start()
    thread.join()
    assert (tmp_path / "x").read_bytes() == NEW


# ---- what kill -9 leaves

SAVING = """
import os, signal, sys
from preluflow import _files
where, path = sys.argv[1:]

def stop(*arguments):
    print("here", flush=True)
    sys.stdin.readline()
    real(*arguments)

real = getattr(os, where)
setattr(os, where, stop)
_files.write_file(path, lambda stream: stream.write(b"from the other process"))
"""


@pytest.fixture
def saving(tmp_path):
    """Start a process that stops before it calls os.fsync or os.replace."""
    started = []

    def start(where):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVING, where, str(tmp_path / "x")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "here\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def age(folder, seconds):
    for name in leftovers(folder):
        os.utime(folder / name, (time.time() - seconds,) * 2)


def test_what_kill_9_leaves_is_removed_when_old(tmp_path, saving):
    process = saving("fsync")
    process.kill()
    process.wait()
    assert len(leftovers(tmp_path)) == 1
    save_new(tmp_path / "y")
    assert len(leftovers(tmp_path)) == 1  # it might be one that is just being made
    age(tmp_path, 3500)
    save_new(tmp_path / "y")
    assert len(leftovers(tmp_path)) == 1
    age(tmp_path, 3700)
    save_new(tmp_path / "y")
    assert os.listdir(tmp_path) == ["y"]


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_what_a_living_process_writes_is_never_removed(tmp_path, saving, where):
    process = saving(where)
    age(tmp_path, 1e6)
    save_new(tmp_path / "y")
    process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "x").read_bytes() == b"from the other process"
    assert sorted(os.listdir(tmp_path)) == ["x", "y"]


def test_nothing_else_is_taken_for_a_leftover(tmp_path):
    (tmp_path / "kept").write_bytes(OLD)
    names = [".preluflow-0123456789abcdef.tmp", ".preluflow-0123456789abcdee.tmp", ".preluflow-0123456789abcded.tmp"]
    make_folder(tmp_path / names[0])
    make_fifo(tmp_path / names[1])
    (tmp_path / names[2]).symlink_to("kept")
    for name in ("preluflow-0123456789abcdef.tmp", ".preluflow-0123.tmp", ".preluflow-0123456789abcdef.tmp.bak"):
        (tmp_path / name).write_bytes(OLD)
    before = sorted(os.listdir(tmp_path))
    for name in before:
        os.utime(tmp_path / name, (0, 0))
    save_new(tmp_path / "y")
    assert sorted(os.listdir(tmp_path)) == [*before, "y"]


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


def contents(value):
    """All that a result holds, to be compared."""
    if isinstance(value, Outcome):
        runs = {key: contents(run) for key, run in value.runs.items()}
        arrays = {name: array.tolist() for name, array in value.arrays.items()}
        return value.name, value.config, runs, value.main, arrays, value.stopped
    if isinstance(value, pf.Run):
        return {name: array.tolist() for name, array in value.arrays().items()}, value.meta()
    arrays = (value.lower, value.upper, value.witness, value.correct)
    return [array.tolist() for array in arrays], value.config, value.environment


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


@pytest.mark.parametrize("lie", LIES)
def test_a_directory_or_header_that_lies_is_refused(tmp_path, recwarn, lie):
    path = tmp_path / "x.npz"
    path.write_bytes(zip_file(LIES[lie]))
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


@pytest.mark.parametrize(
    "data",
    [
        zip_file(radius_members(), comment=b"hello"),
        zip_file(radius_members()) + b"more",
        zip_file(radius_members(), directory=2**31),
        zip_file([]),
        b"PK\x06\x07" + bytes(16) + zip_file([])[-22:],
        zip_file([(f"{i}.npy", b"", {}) for i in range(30000)]),
    ],
)
def test_an_end_that_is_not_ours_is_refused(tmp_path, data):
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.npz.*damaged"):
        pf.RobustRadius.load(tmp_path / "x.npz")


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

DELETE = object()
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


def write_wrong(path, arrays, meta):
    np.savez(path, **{**arrays, "meta": np.array(meta if isinstance(meta, str) else json.dumps(meta))})


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


# ---- the command line


def invoke(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def nothing_may_run(monkeypatch):
    def refuse(*_):
        raise AssertionError("this must not run anything")

    for name, experiment in REGISTRY.items():
        monkeypatch.setitem(REGISTRY, name, replace(experiment, measure=refuse))


@pytest.mark.parametrize(
    ("kind", "file", "names", "options"),
    [
        ("a folder", "fig5.png", ["fig5"], []),
        ("a folder", "fig5.pdf", ["fig5"], ["--format", "pdf"]),
        ("a folder", "fig5.npz", ["fig5"], []),
        ("a folder", "neurons.gif", ["neurons"], []),
        ("a folder", "fig6.png", ["fig5", "fig6"], []),
        ("a FIFO", "neurons.gif", ["fig5", "neurons"], []),
        ("a socket", "fig6.npz", ["fig5", "fig6"], []),
        ("a device", "fig6.npz", ["fig5", "fig6"], []),
        ("a symbolic link in a circle", "fig6.npz", ["fig5", "fig6"], []),
    ],
)
def test_what_is_in_the_way_is_found_before_the_run(tmp_path, nothing_may_run, kind, file, names, options):
    place = IN_THE_WAY[kind](tmp_path / file)
    if place != tmp_path / file:
        (tmp_path / file).symlink_to(place)
        kind = "a symbolic link out of its folder"
    result = invoke("reproduce", *names, "--out", tmp_path, *options)
    assert result.exit_code == 1, result.output
    assert file in result.output
    assert kind in result.output
    assert len(result.output.splitlines()) == 1
    assert os.listdir(tmp_path) == [file]


@pytest.mark.parametrize("file", ["fig1.png", "fig1.npz"])
def test_out_does_not_follow_a_link_out_of_the_folder(tmp_path, nothing_may_run, file):
    folder, outside = make_folder(tmp_path / "results"), tmp_path / "precious"
    outside.write_bytes(OLD)
    (folder / file).symlink_to(outside)
    result = invoke("reproduce", "fig1", "--out", folder)
    assert result.exit_code == 1
    assert result.output.startswith("Error: --out:")
    assert "symbolic link out of its folder" in result.output
    assert outside.read_bytes() == OLD
    assert os.listdir(folder) == [file]


@pytest.fixture(scope="module")
def fig1(tmp_path_factory):
    """Arrays and metadata of Figure 1's file."""
    path = tmp_path_factory.mktemp("fig1") / "fig1.npz"
    FIG1.run(Options(quick=True)).save(path)
    return results.read_npz(path, "experiment")


def test_links_within_the_folder_and_odd_names_are_fine(fig1, tmp_path):
    results.write_npz(tmp_path / "fig1.npz", "experiment", *fig1)
    folder = make_folder(tmp_path / os.fsdecode(b"\xff"))
    (folder / "fig1.png").symlink_to("real.png")
    result = invoke("reproduce", "fig1", "--from", tmp_path, "--out", folder)
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir(folder)) == ["fig1.png", "real.png"]
    assert (folder / "real.png").read_bytes().startswith(b"\x89PNG")


FROM = {
    "an array is missing": lambda arrays, meta: arrays.pop("/z"),
    "a wrong shape": lambda arrays, meta: arrays.update({"/z": np.zeros((2, 3))}),
    "words for numbers": lambda arrays, meta: arrays.update({"/noise": np.array(["x"] * 5)}),
    "nothing": lambda arrays, meta: arrays.clear(),
    "empty arrays": lambda arrays, meta: arrays.update({name: arrays[name][:0] for name in ("/z", "/noise")}),
    "an unknown array": lambda arrays, meta: arrays.update({"x": np.zeros(3)}),
    "a setting is missing": lambda arrays, meta: meta["config"].pop("alpha"),
    "quick is missing": lambda arrays, meta: meta["config"].pop("quick"),
    "a setting is a word": lambda arrays, meta: meta["config"].update(alpha="large"),
    "a setting is a list": lambda arrays, meta: meta["config"].update(dim=[1, 2]),
    "a setting is 0": lambda arrays, meta: meta["config"].update(dim=0),
    "a setting is too large to be a float": lambda arrays, meta: meta["config"].update(alpha=10**400),
    "another figure": lambda arrays, meta: meta.update(name="fig5"),
    "no figure": lambda arrays, meta: meta.update(name="a\nb\x1b[31m"),
    "another schema": lambda arrays, meta: meta.update(schema=2),
}  # fmt: skip


@pytest.mark.parametrize("kind", FROM)
def test_from_a_file_that_cannot_be_drawn_is_one_sentence(fig1, tmp_path, kind):
    arrays, meta = (dict(part) for part in fig1)
    meta = json.loads(json.dumps({"schema": 1, "kind": "experiment", **meta}))
    FROM[kind](arrays, meta)
    write_wrong(tmp_path / "fig1.npz", arrays, meta)
    result = invoke("reproduce", "fig1", "--from", tmp_path / "fig1.npz", "--out", tmp_path / "out", "--profile")
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.output.startswith("Error: --from:")
    assert len(result.output.splitlines()) == 1
    assert "\x1b" not in result.output
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("kind", ["a device", "a FIFO", "a socket"])
def test_from_what_is_no_file_is_one_sentence(tmp_path, kind):
    place = IN_THE_WAY[kind](tmp_path / "x")
    for names in (["fig1"], ["fig1", "fig3"]):
        result = invoke("reproduce", *names, "--from", place, "--out", tmp_path)
        assert result.exit_code == 1, result.output
        assert result.output.startswith("Error: --from:")
        assert len(result.output.splitlines()) == 1


def test_a_picture_does_not_replace_the_numbers_it_is_drawn_from(fig1, tmp_path):
    results.write_npz(tmp_path / "fig1.png", "experiment", *fig1)
    before = (tmp_path / "fig1.png").read_bytes()
    result = invoke("reproduce", "fig1", "--from", tmp_path / "fig1.png", "--out", tmp_path)
    assert result.exit_code == 1
    assert "is what --from reads" in result.output
    assert (tmp_path / "fig1.png").read_bytes() == before


def test_a_bug_of_a_fresh_run_shows_its_traceback(tmp_path, monkeypatch):
    def draw(outcome):
        raise KeyError("a bug")

    monkeypatch.setitem(REGISTRY, "fig1", replace(REGISTRY["fig1"], draw=draw))
    result = invoke("reproduce", "fig1", "--quick", "--out", tmp_path)
    assert isinstance(result.exception, KeyError)
    assert os.listdir(tmp_path) == ["fig1.npz"]  # the numbers are not lost


@pytest.mark.parametrize("format_", ["png", "pdf", "gif"])
def test_pictures_are_written_at_once_or_not_at_all(fig1, tmp_path, monkeypatch, format_):
    results.write_npz(tmp_path / "fig1.npz", "experiment", *fig1)
    path = tmp_path / ("neurons.gif" if format_ == "gif" else f"fig1.{format_}")
    path.write_bytes(OLD)

    def draw():
        if format_ == "gif":
            return neurons.animate(None, tmp_path)
        result = invoke("reproduce", "fig1", "--from", tmp_path, "--out", tmp_path, "--format", format_)
        if result.exit_code:
            raise result.exception or KeyboardInterrupt
        return None

    from PIL import Image

    monkeypatch.setattr(neurons, "_frames", lambda _: [Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2), "red")])
    real = os.fsync

    def stop(descriptor):
        real(descriptor)
        signal.raise_signal(signal.SIGINT)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        draw()
    assert path.read_bytes() == OLD
    assert not leftovers(tmp_path)
    monkeypatch.setattr(os, "fsync", real)
    draw()
    magic = {"png": b"\x89PNG", "pdf": b"%PDF", "gif": b"GIF8"}[format_]
    assert path.read_bytes().startswith(magic)
    assert not leftovers(tmp_path)
