"""MNIST from its own files, wherever a user keeps them."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from preluflow import _arrays
from preluflow.data.features import Digits, Features, _digits

Split = Literal["train", "test"]

_NAMES = {"train": "train", "test": "t10k"}
_MAGIC = {3: 0x803, 1: 0x801}  # of images, of labels: unsigned bytes in so many dimensions
_MOST = 10**9  # bytes of a file that is believed


def load_mnist(
    folder: str | os.PathLike[str],
    split: Split = "train",
    classes: Digits = "ten",
    *,
    center: bool = False,
    unit: bool = False,
    dtype: DTypeLike = "float32",
) -> Features:
    """MNIST's own files: ``train-images-idx3-ubyte`` and the others, as they are or with ``.gz``, pixels in [0, 1].

    Parameters
    ----------
    folder : path
        Where they lie.
    split : {"train", "test"}
        60,000 or 10,000 images.
    classes, center, unit, dtype
        As in ``load_digits``.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    ValueError
        If one is not what its name says.

    Examples
    --------
    >>> train = pf.data.load_mnist("mnist/")  # doctest: +SKIP
    """
    _arrays.choice(split, "split", get_args(Split))
    _arrays.choice(classes, "classes", get_args(Digits))
    kind, center, unit = _arrays.dtype_of(dtype), _arrays.flag(center, "center"), _arrays.flag(unit, "unit")
    try:
        place = Path(folder)
    except TypeError:
        raise TypeError(f"folder must be a path, got {_arrays.shown(folder)}") from None
    images = _read(place, f"{_NAMES[split]}-images-idx3-ubyte", 3)
    digits = _read(place, f"{_NAMES[split]}-labels-idx1-ubyte", 1)
    if len(images) != len(digits):
        raise ValueError(f"{str(place)!r} must hold as many labels as images, got {len(digits)} and {len(images)}")
    return _digits(images.reshape(len(images), -1) / 255.0, digits, classes, center, unit, kind)


def _read(folder: Path, name: str, ndim: int) -> NDArray[np.uint8]:
    """An array of bytes in the IDX format: a magic number and the sizes in big-endian order, and the bytes."""
    for path, unpack in ((folder / name, open), (folder / f"{name}.gz", gzip.open)):
        if path.is_file():
            with unpack(path, "rb") as file:
                return _parsed(file.read(_MOST), str(path), ndim)
    raise FileNotFoundError(f"folder must hold {name} or {name}.gz, and {str(folder)!r} does not")


def _parsed(data: bytes, path: str, ndim: int) -> NDArray[np.uint8]:
    head = 4 + 4 * ndim
    if len(data) < head or struct.unpack(">I", data[:4])[0] != _MAGIC[ndim]:
        raise ValueError(f"{path!r} must be an IDX file of bytes in {ndim} dimension{'s' * (ndim > 1)}")
    shape = struct.unpack(f">{ndim}I", data[4:head])
    if len(data) - head != int(np.prod(shape, dtype=np.float64)) or 0 in shape:
        raise ValueError(f"{path!r} must hold the {shape} bytes its head says, got {len(data) - head}")
    return np.frombuffer(data, dtype=np.uint8, offset=head).reshape(shape)
