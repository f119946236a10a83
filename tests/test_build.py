"""Where the build finds Eigen: conda's, else cmeel-eigen's, else the system's, with fake installations of each."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EIGEN_CMAKE = Path(__file__).parent.parent / "cpp" / "cmake" / "eigen.cmake"


def cmake_command():
    if shutil.which("cmake"):
        return [shutil.which("cmake")]
    command = [sys.executable, "-m", "cmake"]
    return command if subprocess.run([*command, "--version"], capture_output=True).returncode == 0 else None


CMAKE = cmake_command()
pytestmark = pytest.mark.skipif(CMAKE is None, reason="no cmake on PATH or as a Python module")

# Only what a test names is searched: nothing of the machine's own.
HERMETIC = [
    f"-DCMAKE_FIND_USE_{source}=OFF"
    for source in (
        "CMAKE_SYSTEM_PATH",
        "SYSTEM_ENVIRONMENT_PATH",
        "CMAKE_ENVIRONMENT_PATH",
        "PACKAGE_REGISTRY",
        "CMAKE_SYSTEM_PACKAGE_REGISTRY",
        "PACKAGE_ROOT_PATH",
    )
]


def install_eigen(prefix, version="3.4.0"):
    folder = prefix / "share" / "eigen3" / "cmake"
    folder.mkdir(parents=True)
    (folder / "Eigen3Config.cmake").write_text("")
    # As Eigen's own: compatible with requests of the same major version only.
    (folder / "Eigen3ConfigVersion.cmake").write_text(
        f'set(PACKAGE_VERSION "{version}")\n'
        f'if(PACKAGE_FIND_VERSION AND NOT PACKAGE_FIND_VERSION_MAJOR EQUAL "{version.split(".")[0]}")\n'
        "  set(PACKAGE_VERSION_COMPATIBLE FALSE)\nelse()\n  set(PACKAGE_VERSION_COMPATIBLE TRUE)\nendif()\n"
    )
    return prefix


@pytest.fixture
def find_eigen(tmp_path):
    """Run the look-up; returns (succeeded, everything cmake said, on one line)."""

    def find(prefixes=(), conda=None):
        script = tmp_path / "probe.cmake"
        script.write_text(
            f'cmake_minimum_required(VERSION 3.18...4.0)\ninclude("{EIGEN_CMAKE.as_posix()}")\npreluflow_find_eigen()\n'
        )
        env = {name: value for name, value in os.environ.items() if name not in ("CONDA_PREFIX", "CMAKE_PREFIX_PATH")}
        if conda is not None:
            env["CONDA_PREFIX"] = str(conda)
        path = f"-DCMAKE_PREFIX_PATH={';'.join(prefix.as_posix() for prefix in prefixes)}"
        done = subprocess.run(
            [*CMAKE, *HERMETIC, path, "-P", str(script)], capture_output=True, text=True, env=env, timeout=60
        )
        return done.returncode == 0, " ".join((done.stdout + done.stderr).split())

    return find


@pytest.mark.parametrize(("conda", "cmeel", "system"), list(itertools.product([False, True], repeat=3)))
def test_conda_wins_then_cmeel_then_the_system(find_eigen, tmp_path, conda, cmeel, system):
    site, usr, env = tmp_path / "site-packages", tmp_path / "usr", tmp_path / "conda"
    for present, prefix, version in (
        (conda, env, "3.4.1"),
        (cmeel, site / "cmeel.prefix", "3.4.2"),
        (system, usr, "3.4.3"),
    ):
        if present:
            install_eigen(prefix, version)
    ok, said = find_eigen([usr, site], conda=env)
    if conda:
        expected = f"preluflow: Eigen 3.4.1 from the conda environment ({env.as_posix()}/"
    elif cmeel:
        expected = f"preluflow: Eigen 3.4.2 from the cmeel-eigen ({site.as_posix()}/cmeel.prefix/"
    elif system:
        expected = f"preluflow: Eigen 3.4.3 from the system ({usr.as_posix()}/"
    else:
        assert not ok
        expected = "preluflow: Eigen was not found. Install it with `pip install cmeel-eigen`, `conda install"
    assert ok == (conda or cmeel or system), said
    assert expected in said


def test_conda_is_only_asked_inside_a_conda_environment(find_eigen, tmp_path):
    install_eigen(tmp_path / "conda")
    site = tmp_path / "site-packages"
    install_eigen(site / "cmeel.prefix")
    ok, said = find_eigen([site], conda=None)
    assert ok, said
    assert "from the cmeel-eigen" in said


def test_windows_conda_keeps_its_packages_in_library(find_eigen, tmp_path):
    install_eigen(tmp_path / "conda" / "Library")
    ok, said = find_eigen(conda=tmp_path / "conda")
    assert ok, said
    assert "from the conda environment" in said


@pytest.mark.parametrize(("version", "accepted"), [("3.3.9", False), ("3.4.0", True), ("5.0.1", True)])
@pytest.mark.parametrize("where", ["conda", "cmeel", "system"])
def test_versions_from_3_4_on_are_accepted(find_eigen, tmp_path, where, version, accepted):
    prefix = install_eigen(tmp_path / "cmeel.prefix" if where == "cmeel" else tmp_path / where, version)
    search = {"conda": [], "cmeel": [tmp_path], "system": [prefix]}[where]
    ok, said = find_eigen(search, conda=prefix if where == "conda" else None)
    assert ok is accepted, said
    if not accepted:
        assert f"preluflow: Eigen {version} ({prefix.as_posix()}/" in said
        assert "too old; 3.4 or newer is needed" in said
    else:
        assert f"Eigen {version}" in said
