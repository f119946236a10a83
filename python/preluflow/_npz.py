"""Npz files read with suspicion: nothing is unpacked before it is known to be in proportion to the file, or small.

A file may come from anywhere, be damaged, or be made to harm. So the ZIP directory is looked at first (names, methods,
sizes), then each array's header, which must say the very size that the directory does, and only then the data, whose
checksum ``zipfile`` compares. Headers are the one form in which NumPy writes plain arrays; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from preluflow import _files

# A file may unpack to so many bytes whatever its own size: witnesses of an attack that found nothing, which are zeros,
# pack a thousand to one. What is larger packs less well than the ratio, or is written unpacked (``results.write_npz``).
MOST_BYTES = 256 * 2**20
MOST_RATIO = 100
MOST_DIRECTORY = 2**20  # bytes of the ZIP directory: some 15,000 arrays, where a figure's file has a hundred
MOST_META = 4 * 2**20  # characters of JSON; a figure's file has some thousands
MOST_DEPTH = 50  # of lists and dicts in it, of which ours nest four deep

_END = 22  # bytes of the end record of a ZIP file without a comment
_LOCATOR = 20  # bytes of what stands before it if the file is too large for its fields
_ENTRY = 46  # bytes of a directory entry, but for the name

_HEADER = re.compile(
    rb"\{'descr': '([<>|][biufU][0-9]{1,9})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,18}(?:, [0-9]{1,18})*,?)?)\), \} *\n"
)

REAL = "biuf"  # kinds of dtypes that are real numbers
KINDS = REAL + "U"  # kinds of dtypes that are read


def allowed_bytes(size: int) -> int:
    """Bytes that a file of ``size`` bytes may unpack to."""
    return max(MOST_BYTES, MOST_RATIO * size)


def fits_directory(names: list[str]) -> bool:
    """Whether a file of arrays of these names can be read again."""
    lengths = [len(f"{name}.npy".encode()) for name in names]
    plain = all(length < 2**16 for length in lengths) and not any("\0" in name for name in names)
    return plain and sum(_ENTRY + length for length in lengths) <= MOST_DIRECTORY


def read_arrays(stream: BinaryIO) -> dict[str, NDArray[Any]]:
    """Read all arrays of an npz file; raises whatever ``zipfile`` does besides ValueError."""
    size = os.fstat(stream.fileno()).st_size
    _check_directory(stream, size)
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len(set(names)) < len(names):
            raise ValueError("it holds two arrays of one name")
        total = sum(member.file_size for member in members)
        if total > allowed_bytes(size):
            raise ValueError(f"{size} bytes that unpack to {total} are not believed")
        return {_array_name(member): _read_member(archive, member) for member in members}


def read_meta(text: NDArray[Any]) -> dict[str, Any]:
    """Parse the JSON metadata; ValueError if it is none, or no object, or too large or deep."""
    if text.dtype.kind != "U" or text.shape != () or text.dtype.itemsize > 4 * MOST_META:
        raise ValueError(f"meta must be a string of at most {MOST_META} characters, got {text.dtype} {text.shape}")
    try:
        meta = json.loads(str(text[()]))
    except RecursionError:
        raise ValueError("meta is nested too deeply") from None
    _check_depth(meta, MOST_DEPTH)
    if not isinstance(meta, dict):
        raise ValueError(f"meta must be a JSON object, got {short(meta)}")
    return meta


def field(meta: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """Return a field of the metadata of one of these types."""
    if name not in meta:
        raise ValueError(f"{name!r} is missing")
    if type(meta[name]) not in kinds:
        expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        raise ValueError(f"{name} must be {expected}, got {short(meta[name])}")
    return meta[name]


def real_field(meta: Mapping[str, Any], name: str, *, finite: bool = False) -> float:
    """Return a field of the metadata that is a real number."""
    value = field(meta, name, int, float)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if finite and not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {short(value)}")
    return number


def expect(array: Any, name: str, kinds: str, shape: tuple[int | str, ...]) -> NDArray[Any]:
    """Return an array if its dtype is of one of these kinds and its shape is this one; a word stands for any length.

    A last "..." stands for any further dimensions.
    """
    found = np.asarray(array)
    lengths, more = (shape[:-1], True) if shape and shape[-1] == "..." else (shape, False)
    fits = found.ndim >= len(lengths) if more else found.ndim == len(lengths)
    if not fits or any(isinstance(n, int) and n != m for n, m in zip(lengths, found.shape, strict=False)):
        expected = ", ".join(map(str, shape)) + "," * (len(shape) == 1)
        raise ValueError(f"{name} must have shape ({expected}), got {found.shape}")
    if found.dtype.kind not in kinds:
        raise ValueError(f"{name} must have a dtype of kind {' or '.join(kinds)}, got {found.dtype}")
    return found


def expect_names(arrays: Mapping[str, Any], names: tuple[str, ...], prefixes: tuple[str, ...] = ()) -> None:
    """Refuse a mapping that lacks one of these names, or has others than them and those with one of the prefixes."""
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"{missing[0]!r} is missing")
    others = [name for name in arrays if name not in names and not name.startswith(prefixes)]
    if others:
        raise ValueError(f"{short(others[0])} does not belong there")


def short(value: Any) -> str:
    """Show a value of which nothing is known in one short line."""
    return " ".join(reprlib.repr(value).split())


def one_line(error: BaseException) -> str:
    """Show an error of which nothing is known in one line."""
    words = " ".join(str(error).split())
    return f"{words[:300]}..." if len(words) > 300 else words or type(error).__name__


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to be read; ValueError for anything else, which is neither opened nor waited for."""
    kind = _files.describe(os.stat(path).st_mode)
    if kind is not None:
        raise ValueError(f"{str(path)!r} is {kind}, not a preluflow file")
    return open(path, "rb")


# ---- the parts of the file


def _check_directory(stream: BinaryIO, size: int) -> None:
    """Refuse what does not end as ``zipfile`` ends a file, or a directory so large that listing it is work."""
    tail = min(size, _END + _LOCATOR)
    stream.seek(size - tail)
    end = stream.read(tail)
    if end[-_END:-18] != b"PK\x05\x06" or end[-2:] != b"\0\0":
        raise ValueError("it does not end as a ZIP file does")
    if end[:4] == b"PK\x06\x07" and size < 2**32 - 1:  # the fields below are not the ones that count then
        raise ValueError("its directory is larger than the file")
    length = int.from_bytes(end[-10:-6], "little")
    if length > MOST_DIRECTORY:
        raise ValueError(f"its directory has {length} bytes, more than {MOST_DIRECTORY}")


def _array_name(member: zipfile.ZipInfo) -> str:
    name = member.filename
    if not name.endswith(".npy"):
        raise ValueError(f"{short(name)} does not belong there")
    return name[: -len(".npy")]


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Read an array, native byte order; its header must announce the very bytes that the directory does."""
    shown = short(member.filename)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 0x1:
        raise ValueError(f"{shown} is packed or encrypted in a way that is not ours")
    with archive.open(member) as stream:
        start = stream.read(10)
        length = int.from_bytes(start[8:], "little")
        header = stream.read(length)
        match = _HEADER.fullmatch(header)
        if start[:8] != b"\x93NUMPY\x01\x00" or len(header) != length or match is None:
            raise ValueError(f"{shown} has no header as NumPy writes it for plain arrays")
        dtype = np.dtype(match[1].decode())
        shape = tuple(int(digits) for digits in match[3].replace(b",", b" ").split())
        if dtype.itemsize == 0 or math.prod(shape) * dtype.itemsize != member.file_size - 10 - length:
            raise ValueError(f"{shown} has another size than {dtype} {shape} needs")
        array = np.empty(math.prod(shape), dtype)
        _fill(array, stream, shown)
    fortran = match[2] == b"True"
    array = array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _fill(array: NDArray[Any], stream: Any, shown: str) -> None:
    """Fill an array from a stream that must have just its bytes, for then the checksum has been compared."""
    target = memoryview(array.view(np.uint8))
    filled = 0
    while filled < len(target):
        count = stream.readinto(target[filled : filled + 2**20])
        if not count:
            raise ValueError(f"{shown} ends early")
        filled += count
    if stream.read(1):
        raise ValueError(f"{shown} does not end where it should")


def _check_depth(value: Any, depth: int) -> None:
    if depth < 0:
        raise ValueError(f"meta is nested deeper than {MOST_DEPTH}")
    if isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            _check_depth(part, depth - 1)
