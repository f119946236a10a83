"""The command line and what is in the way of its files, or wrong with those it reads."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from hostile_results import IN_THE_WAY, OLD, leftovers, make_folder, write_wrong

from preluflow import results
from preluflow.cli import cli
from preluflow.experiments import FIG1, REGISTRY, Options, neurons


def invoke(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def refusal(*arguments):
    """Whether the command line refuses in a sentence of one line; returns that line."""
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert len(result.output.splitlines()) == 1
    return result.output


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
        ("a symbolic link out of its folder", "fig1.png", ["fig1"], []),
        ("a symbolic link out of its folder", "fig1.npz", ["fig1"], []),
    ],
)
def test_what_is_in_the_way_is_found_before_the_run(tmp_path, nothing_may_run, kind, file, names, options):
    folder, outside = make_folder(tmp_path / "results"), tmp_path / "precious"
    outside.write_bytes(OLD)
    place = IN_THE_WAY[kind](folder / file) if kind in IN_THE_WAY else outside
    if place != folder / file:
        (folder / file).symlink_to(place)
        kind = "a symbolic link out of its folder"
    told = refusal("reproduce", *names, "--out", folder, *options)
    assert told.startswith("Error: --out:")
    assert file in told
    assert kind in told
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
    told = refusal("reproduce", "fig1", "--from", tmp_path / "fig1.npz", "--out", tmp_path / "out", "--profile")
    assert told.startswith("Error: --from:")
    assert "\x1b" not in told
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("kind", ["a device", "a FIFO", "a socket"])
def test_from_what_is_no_file_is_one_sentence(tmp_path, kind):
    place = IN_THE_WAY[kind](tmp_path / "x")
    for names in (["fig1"], ["fig1", "fig3"]):
        assert refusal("reproduce", *names, "--from", place, "--out", tmp_path).startswith("Error: --from:")


def test_a_picture_does_not_replace_the_numbers_it_is_drawn_from(fig1, tmp_path):
    results.write_npz(tmp_path / "fig1.png", "experiment", *fig1)
    before = (tmp_path / "fig1.png").read_bytes()
    assert "is what --from reads" in refusal("reproduce", "fig1", "--from", tmp_path / "fig1.png", "--out", tmp_path)
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
