"""Files in the way, interrupts while one is written, and what a killed process leaves."""

import contextlib
import gc
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import hostile_results
import numpy as np
import pytest
from conftest import assert_same_runs
from hostile_results import IN_THE_WAY, NEW, OLD, leftovers, make_fifo, make_folder, save_new

import preluflow as pf
from preluflow import _files
from preluflow.experiments import Outcome

run = pytest.fixture(scope="module")(hostile_results.make_run)
radius = pytest.fixture(scope="module")(hostile_results.make_radius)
outcome = pytest.fixture(scope="module")(hostile_results.make_outcome)


# ---- what is in the way


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

    gc.collect()  # what other tests left is not finalised in between: it would be counted, and hide the interrupt
    gc.disable()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(None)
        gc.enable()
    return count


@contextlib.contextmanager
def nothing_to_collect():
    """Take all that there is from the collector's sight: looking through it takes most of an interrupted call."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


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
    script = (
        "import sys, pathlib, test_hostile_files as t\n"
        "with t.nothing_to_collect(): t.interrupt_at_every_opcode(pathlib.Path(sys.argv[1]))"
    )
    done = run_python(script, tmp_path)  # on its own: an exception from a trace function leaves traces in Python
    assert done.returncode == 0, done.stderr
    assert min(map(int, done.stdout.split())) > 300


def test_ctrl_c_while_a_run_is_packed(run, tmp_path):
    path = tmp_path / "run.npz"
    run.save(path)
    options = {"every_file": True, "event": "line"}
    with nothing_to_collect():
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


def writes_on(stream):
    stream.write(b"half")
    signal.raise_signal(signal.SIGINT)
    stream.write(b"more")


def turns_it_into_another_error(stream):
    signal.raise_signal(signal.SIGINT)
    try:
        stream.write(b"half")
    finally:
        raise ValueError("Can't close the ZIP file")


def swallows_it(stream):
    signal.raise_signal(signal.SIGINT)
    try:
        stream.write(b"half")
    except KeyboardInterrupt:
        stream.write(b"half")


@pytest.mark.parametrize("again", [False, True], ids=["once", "and again while it is cleaned up"])
@pytest.mark.parametrize("write", [writes_on, turns_it_into_another_error, swallows_it])
def test_ctrl_c_is_one_whatever_the_writer_makes_of_it_and_leaves_nothing(tmp_path, monkeypatch, write, again):
    real = os.unlink

    def unlink(path):
        signal.raise_signal(signal.SIGINT)
        real(path)

    if again:
        monkeypatch.setattr(os, "unlink", unlink)
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
