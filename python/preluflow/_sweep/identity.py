"""Who a function is: a digest of all that decides what it returns, but for its arguments and installed packages.

It covers the source and the compiled code of the function (a file may have been edited after it was imported), its
defaults, the values it closes over, and the globals it looks up: constants by value; functions, classes and modules
that are not installed by their own source, and so on from there. What is installed counts by its name.

Whatever cannot be told apart for certain is refused; what is told apart without need is only computed once more.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import inspect
import pickle
import struct
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from preluflow.network import TwoLayerNetwork
from preluflow.results import network_arrays

_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def function_digest(function: Callable[..., Any]) -> str:
    """Digest of all that decides what a function returns, 64 hex digits.

    Raises
    ------
    TypeError
        If it has no source, or uses a value that cannot be told from others.
    """
    digest = Digest()
    digest.add(function, "measure")
    return digest.hex()


def value_digest(value: Any) -> bytes:
    """Digest of plain values, lists and dicts, 32 bytes; the order of a dict does not matter, 1 is not 1.0."""
    digest = Digest()
    digest.add(value, "value")
    return digest.raw()


def source_of(function: Callable[..., Any]) -> str:
    """Source text of a function, for people to read; "" if there is none."""
    while isinstance(function, functools.partial):
        function = function.func
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def user_modules() -> list[ModuleType]:
    """Modules that are imported and not installed, but for the script that is run."""
    loaded = [module for name, module in list(sys.modules.items()) if name not in ("__main__", "__mp_main__")]
    return [module for module in loaded if getattr(module, "__file__", None) and not _installed(module)]


class Digest:
    """SHA-256 of a sequence of tagged values, each with its length, so that no two sequences run together."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._seen: dict[int, tuple[int, Any]] = {}  # functions and classes met, which may refer to one another

    def raw(self) -> bytes:
        """Return the digest of what was added, 32 bytes."""
        return self._sha.digest()

    def hex(self) -> str:
        """Return the digest of what was added, 64 hex digits."""
        return self._sha.hexdigest()

    def add(self, value: Any, where: str) -> None:
        """Add a value; ``where`` is how messages name it."""
        if isinstance(value, _PLAIN):
            self._plain(value)
        elif isinstance(value, np.generic):
            self._feed("scalar", value.dtype.str.encode(), value.tobytes())
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self._feed("array", value.dtype.str.encode(), repr(value.shape).encode(), value.tobytes())
        elif isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            self._feed(type(value).__name__, str(len(value)).encode())
            for i, part in enumerate(value):
                self.add(part, f"{where}[{i}]")
        elif type(value) in (set, frozenset):
            self._feed("set", *sorted(self._alone(part, where) for part in value))
        elif isinstance(value, dict):
            pairs = [(self._alone(key, where), self._alone(part, f"{where}[{key!r}]")) for key, part in value.items()]
            self._feed("dict", type(value).__name__.encode(), *(each for pair in sorted(pairs) for each in pair))
        elif isinstance(value, (FunctionType, type, ModuleType, CodeType)):
            self._code(value, where)
        else:
            self._object(value, where)

    def _feed(self, tag: str, *parts: bytes) -> None:
        for part in (tag.encode(), str(len(parts)).encode(), *parts):
            self._sha.update(len(part).to_bytes(8, "little"))
            self._sha.update(part)

    def _alone(self, value: Any, where: str) -> bytes:
        """Return the digest of a value by itself; what was met before it is known to it."""
        other = Digest()
        other._seen = self._seen
        other.add(value, where)
        return other.raw()

    def _plain(self, value: Any) -> None:
        if isinstance(value, (enum.Enum, np.generic)) or type(value) not in _PLAIN:
            self._feed("kind", type(value).__qualname__.encode())
        if isinstance(value, bool) or value is None:
            self._feed("word", repr(value).encode())
        elif isinstance(value, int):
            self._feed("int", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        elif isinstance(value, float):
            self._feed("float", struct.pack("<d", value))
        elif isinstance(value, complex):
            self._feed("complex", struct.pack("<dd", value.real, value.imag))
        else:
            self._feed(
                "str" if isinstance(value, str) else "bytes",
                value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value,
            )

    # ---- code

    def _code(self, value: Any, where: str) -> None:
        if isinstance(value, CodeType):
            self._compiled(value, where)
            return
        if id(value) in self._seen:
            self._feed("again", str(self._seen[id(value)][0]).encode())
            return
        self._seen[id(value)] = (len(self._seen), value)  # kept, so that the id stays its own
        name = value.__name__ if isinstance(value, ModuleType) else f"{value.__module__}.{value.__qualname__}"
        # measure itself, and what it closes over, is followed wherever it is: it is the user's by being handed to us.
        if _installed(value) and not (isinstance(value, FunctionType) and "." not in where):
            self._feed("installed", name.encode())
        elif isinstance(value, ModuleType):
            self._feed("module", *(path.read_bytes() for path in _files_of(value)))
        elif isinstance(value, type):
            self._class(value, where)
        else:
            self._function(value, where)

    def _function(self, function: FunctionType, where: str) -> None:
        self._feed("function", _source(function.__code__, where).encode())
        self._compiled(function.__code__, where)
        self.add(function.__defaults__, f"{where}.__defaults__")
        self.add(function.__kwdefaults__, f"{where}.__kwdefaults__")
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        for name, cell in cells:
            try:
                held = cell.cell_contents
            except ValueError:  # not bound yet
                continue
            self._feed("closes over", name.encode())
            self.add(held, f"{where}.{name}")
        for name in sorted(set(_global_names(function.__code__))):
            if name in function.__globals__:
                self._feed("global", name.encode())
                self.add(function.__globals__[name], f"{where}.{name}")

    def _compiled(self, code: CodeType, where: str) -> None:
        self._feed("code", code.co_code, *(name.encode() for name in (*code.co_names, *code.co_varnames)))
        self.add(code.co_consts, where)

    def _class(self, kind: type, where: str) -> None:
        try:
            self._feed("class", inspect.getsource(kind).encode())
        except (OSError, TypeError):
            raise _no_source(where) from None
        for base in kind.__bases__:
            self._code(base, where)
        for name, part in vars(kind).items():
            inner = getattr(part, "__func__", getattr(part, "fget", part))
            if isinstance(inner, FunctionType) and inner.__module__ == kind.__module__:
                generated = inner.__code__.co_filename.startswith("<")  # by dataclasses, out of the class's source
                if not generated:
                    self._code(inner, f"{where}.{name}")

    # ---- objects

    def _object(self, value: Any, where: str) -> None:
        kind = type(value)
        if isinstance(value, functools.partial):
            self._feed("partial")
            for part, name in ((value.func, "func"), (value.args, "args"), (value.keywords, "keywords")):
                self.add(part, where if name == "func" else f"{where}.{name}")
            return
        if isinstance(value, MethodType):
            self._feed("method")
            self.add(value.__func__, where)
            self.add(value.__self__, f"{where}.__self__")
            return
        if isinstance(getattr(value, "__wrapped__", None), FunctionType):  # functools.lru_cache
            self._feed("wrapped", kind.__qualname__.encode())
            self.add(value.__wrapped__, where)
            return
        self._code(kind, f"{where}.{kind.__name__}")
        if isinstance(value, TwoLayerNetwork):
            self.add(network_arrays(value), where)
        elif dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                self.add(getattr(value, field.name), f"{where}.{field.name}")
        else:
            self._feed("pickle", _pickled(value, where))


def _source(code: CodeType, where: str) -> str:
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        raise _no_source(where) from None


def _no_source(where: str) -> TypeError:
    return TypeError(
        f"{where} has no source to tell by whether it has changed; put it into a file, or give key=, a word of your "
        "own that changes with it"
    )


def _pickled(value: Any, where: str) -> bytes:
    try:
        return pickle.dumps(value, protocol=4)
    except Exception as error:  # pickle's errors are of many kinds
        raise TypeError(
            f"{where} is used by measure and cannot be told from others of its kind, {type(value).__name__}: {error}; "
            "make it within measure, or give key=, a word of your own that changes with it"
        ) from None


def _global_names(code: CodeType) -> Iterator[str]:
    """Names of the globals that code looks up, and the code within it."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def _files_of(module: ModuleType) -> list[Path]:
    """Files of Python code of a module: all those of a package."""
    if hasattr(module, "__path__"):
        return sorted(path for folder in module.__path__ for path in Path(folder).rglob("*.py"))
    return [Path(str(module.__file__))]


@functools.cache
def _installed_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    found = {Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found |= {Path(entry).resolve() for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")}
    return (*sorted(found), Path(__file__).resolve().parent.parent)


def _installed(value: Any) -> bool:
    """Whether a module, function or class is the interpreter's, a package's or ours, and not the user's own."""
    module: Any = value if isinstance(value, ModuleType) else sys.modules.get(value.__module__)
    place = getattr(module, "__file__", None)
    if isinstance(value, FunctionType):
        place = value.__code__.co_filename  # of what was made by exec, which no module may hold
    elif getattr(module, "__name__", None) == "__main__" or (module is None and isinstance(value, type)):
        return False
    if place is None:
        return not isinstance(value, ModuleType) or not hasattr(value, "__path__")
    if place.startswith("<"):  # typed, or made by exec
        return False
    return any(Path(place).resolve().is_relative_to(folder) for folder in _installed_folders())
