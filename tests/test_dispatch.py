import os
import shutil
import subprocess
import sys

import pytest

from preluflow import _dispatch

# A short float64 and float32 descent against the oracle; prints the instruction set that did it.
PARITY = """
import numpy as np, preluflow as pf, reference as ref
from conftest import make_problem
from preluflow import _dispatch
data = make_problem(n=300, h=70, D=17, seed=1)
for kind in (("prelu", 3.0), ("prelu", 2.7), ("prelu", 1.5), ("polynomial", 1.0), ("tanh", 3.0)):
    for loss in ref.LOSSES:
        W, v, curve = ref.descend(data.W, data.v, data.X, data.y, *kind, loss, 0.05, 4)
        for dtype, digits in (("float64", 1e-12), ("float32", 1e-5)):
            X = data.X.astype(dtype)
            run = pf.gradient_descent(data.network(*kind, dtype), X, data.y, step=0.05, steps=4, loss=loss)
            np.testing.assert_allclose(run["loss"], curve[[0, -1]], rtol=digits)
            np.testing.assert_allclose(run.network.W, W, rtol=0, atol=digits)
            np.testing.assert_allclose(run.network.v, v, rtol=0, atol=digits)
            gradient = ref.input_gradient(data.W, data.v, data.X, *kind)
            np.testing.assert_allclose(data.network(*kind, dtype).input_gradient(X), gradient, rtol=0, atol=digits)
print(_dispatch.isa)
"""

# Imports the package on a CPU of the given level; prints the instruction set chosen and those available.
PRETEND = """
import sys, types
level = int(sys.argv[1])
sys.modules["preluflow._cpu"] = types.SimpleNamespace(level=lambda: level)
from preluflow import _dispatch
print(_dispatch.isa, *_dispatch.available())
"""

LEVELS = {name: int(name[1]) for name in _dispatch.built() if name != "base"}
only_x86 = pytest.mark.skipif(not LEVELS, reason="built for one instruction set only")


@pytest.mark.parametrize("isa", _dispatch.available())
def test_every_instruction_set_agrees_with_the_oracle(run_python, isa):
    done = run_python(PARITY, env={"PRELUFLOW_ISA": isa})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [isa]


def test_the_best_available_is_chosen(run_python):
    done = run_python("from preluflow import _dispatch as d; print(d.isa)", env={"PRELUFLOW_ISA": ""})
    assert done.stdout.split() == [_dispatch.available()[0]]
    assert _dispatch.isa in _dispatch.available()
    assert set(_dispatch.available()) <= set(_dispatch.built())


@pytest.mark.parametrize("spelling", ["{}", " {} ", "{}\n"])
def test_case_and_blanks_do_not_matter(run_python, spelling):
    isa = _dispatch.available()[-1]
    done = run_python(
        "from preluflow import _dispatch as d; print(d.isa)", env={"PRELUFLOW_ISA": spelling.format(isa.upper())}
    )
    assert done.stdout.split() == [isa]


def test_an_unknown_instruction_set_is_refused(run_python):
    done = run_python("import preluflow", env={"PRELUFLOW_ISA": "v9"})
    assert done.returncode != 0
    assert "ImportError: PRELUFLOW_ISA=v9 is not one of the instruction sets built here" in done.stderr
    assert all(name in done.stderr for name in _dispatch.built())


@only_x86
@pytest.mark.parametrize("isa", [name for name, level in LEVELS.items() if level > 2])
def test_one_above_the_cpu_is_refused(run_python, isa):
    below = LEVELS[isa] - 1
    done = run_python(PRETEND, below, env={"PRELUFLOW_ISA": isa})
    assert done.returncode != 0
    assert f"ImportError: PRELUFLOW_ISA={isa}, but this CPU runs x86-64-v{below} at most; available:" in done.stderr


@only_x86
@pytest.mark.parametrize("level", sorted(LEVELS.values()))
def test_an_older_cpu_gets_what_it_can_run(run_python, level):
    if f"v{level}" not in _dispatch.available():
        pytest.skip(f"this CPU cannot run v{level}")
    done = run_python(PRETEND, level, env={"PRELUFLOW_ISA": ""})
    assert done.returncode == 0, done.stderr
    chosen, *available = done.stdout.split()
    assert chosen == f"v{level}"
    assert available == [f"v{k}" for k in sorted(LEVELS.values(), reverse=True) if k <= level]


@only_x86
def test_a_cpu_below_all_that_was_built_is_told_so(run_python):
    done = run_python(PRETEND, 1, env={"PRELUFLOW_ISA": ""})
    assert done.returncode != 0
    assert "this CPU is at x86-64 level 1; build from source" in done.stderr


EMULATED = """
import numpy as np, preluflow as pf
from preluflow import _dispatch
data = pf.OrthonormalGMM(17, 2, 2, 0.1, rng=0).sample(150, rng=1)
run = pf.gradient_descent(pf.initialize(70, 17, 0.3, rng=2), data.X, data.y, step=0.1, steps=3)
print(_dispatch.isa, *run["loss"])
"""
QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")


@only_x86
@pytest.mark.skipif(QEMU is None, reason="qemu-user is not installed")
@pytest.mark.parametrize(("cpu", "isa"), [("Nehalem", "v2"), ("Haswell", "v3")])
def test_an_emulated_older_cpu_chooses_and_runs_what_it_can(run_python, cpu, isa):
    environment = {name: value for name, value in os.environ.items() if name != "PRELUFLOW_ISA"}
    done = subprocess.run(
        [str(QEMU), "-cpu", cpu, sys.executable, "-c", EMULATED],
        env={**environment, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    native = run_python(EMULATED, env={"PRELUFLOW_ISA": isa})
    chosen, *losses = done.stdout.split()
    assert chosen == isa
    assert [float(loss) for loss in losses] == pytest.approx([float(x) for x in native.stdout.split()[1:]], rel=1e-6)
