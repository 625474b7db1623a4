"""Reader of MXNet's parameter files (`.params`) that needs no MXNet.

The container, little-endian: uint64 0x112, uint64 0, a list of arrays (uint64 count, arrays), a list of names (uint64
count, each a uint64 length and the bytes). An array is a uint32 magic number, in versions 2 and 3 the int32 storage
type, the shape (int32 ndim, int64 each side), the device (two int32), the int32 type of its values, the values. The
first version has no magic number: ndim stands in its place, and the sides are uint32. (MXNet, src/ndarray/ndarray.cc.)
"""

import math
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ssdd_lightning.errors import InputError

_FILE_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_TYPES = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8", "?")
_MAX_DIMENSIONS = 32  # numpy's limit of old; MXNet's operators stop far below


def read_params(path: Path) -> dict[str, np.ndarray]:
    """Read a parameter file.

    Sizes are checked against the length of the file before anything is allocated.

    Args:
        path: a file written by `mxnet.nd.save` with names.

    Returns:
        Arrays by the names in the file; those of `mxnet.model.save_checkpoint` begin with `arg:` or `aux:`. An array
        that was saved empty has the shape (0,).

    Raises:
        InputError: if the file is missing, truncated, of another format, or holds sparse or unnamed arrays.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return _Reader(path, stream).named_arrays()
    except OSError as error:
        raise InputError(
            f"cannot read the parameter file {path}: {error.strerror or error}; check the path."
        ) from error


class _Reader:
    """Reads items off a stream and never more than the file holds."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.stream = stream
        self.left = path.stat().st_size

    def named_arrays(self) -> dict[str, np.ndarray]:
        """Read the whole file: the arrays by their names."""
        magic = self.number("<Q", "the magic number") if self.left >= 8 else None
        if magic != _FILE_MAGIC:
            found = "a shorter file" if magic is None else f"{magic:#x}"
            raise InputError(
                f"{self.path} is not an MXNet parameter file: expected the magic number {_FILE_MAGIC:#x} at its start, "
                f"found {found}."
            )
        self.number("<Q", "the header")
        arrays = [self.array(f"array {i}") for i in range(self.count("<Q", 4, "arrays"))]
        if not arrays:
            raise InputError(f"{self.path} holds no arrays; expected the parameters of a network.")
        names = [self.name() for _ in range(self.count("<Q", 8, "names"))]
        if len(set(names)) != len(arrays) or len(names) != len(arrays):
            raise InputError(
                f"{self.path} holds {len(arrays)} arrays and {len(set(names))} different names; expected a name for "
                "each array, as mxnet.model.save_checkpoint writes."
            )
        if self.left:
            raise InputError(
                f"{self.path} has {self.left} bytes after its names; the file is damaged or not from MXNet."
            )
        return dict(zip(names, arrays, strict=True))

    def array(self, what: str) -> np.ndarray:
        """Read the next array; `what` names it in messages."""
        magic = self.number("<I", what)
        if magic in (_V2, _V3) and (storage := self.number("<i", what)) != 0:
            raise InputError(
                f"{what} of {self.path} has the storage type {storage}; only dense arrays (0) are read, so save the "
                "model with dense parameters."
            )
        shape = self.shape(magic, what)
        if shape is None:
            return np.empty(0, np.float32)
        self.take(8, what)  # the device that the array was saved from
        flag = self.number("<i", what)
        if not 0 <= flag < len(_TYPES):
            raise InputError(f"{what} of {self.path} has values of the unknown type {flag}; expected 0 to 7.")
        dtype = np.dtype(_TYPES[flag])
        values = np.frombuffer(self.take(math.prod(shape) * dtype.itemsize, what), dtype)
        try:
            return values.reshape(shape)
        except ValueError as error:  # sides beyond numpy's range, whose product is 0
            raise InputError(f"{what} of {self.path} has the impossible shape {shape}; get the file again.") from error

    def shape(self, magic: int, what: str) -> tuple[int, ...] | None:
        """Read the sides; None for an array that was never filled, after which nothing of it follows."""
        modern = magic in (_V1, _V2, _V3)
        dimensions = self.number("<i", what) if modern else magic
        if dimensions == (-1 if magic == _V3 else 0):
            return None
        if not 0 <= dimensions <= _MAX_DIMENSIONS:
            raise InputError(
                f"{what} of {self.path} claims {dimensions} dimensions; the file is damaged or not from MXNet."
            )
        code = f"<{dimensions}{'q' if modern else 'I'}"
        shape: tuple[int, ...] = struct.unpack(code, self.take(struct.calcsize(code), what))
        if any(side < 0 for side in shape):
            raise InputError(f"{what} of {self.path} has the shape {shape}; the file is damaged or not from MXNet.")
        return shape

    def name(self) -> str:
        length = self.number("<Q", "a name")
        try:
            return self.take(length, "a name").decode()
        except UnicodeDecodeError as error:
            raise InputError(f"a name in {self.path} is not text; the file is damaged or not from MXNet.") from error

    def count(self, code: str, smallest: int, what: str) -> int:
        """Read a number of items that take at least `smallest` bytes each."""
        count = self.number(code, f"the number of {what}")
        if count * smallest > self.left:
            raise InputError(
                f"{self.path} is truncated: it announces {count} {what} in {self.left} bytes; get it again."
            )
        return count

    def number(self, code: str, what: str) -> int:
        value: int = struct.unpack(code, self.take(struct.calcsize(code), what))[0]
        return value

    def take(self, size: int, what: str) -> bytearray:
        """Read the next `size` bytes, or say that the file ends before."""
        if size > self.left:
            raise InputError(
                f"{self.path} is truncated: {what} needs {size} bytes, {self.left} are left; get it again."
            )
        buffer = bytearray(size)  # writable, as torch wants its arrays
        self.stream.readinto(buffer)  # type: ignore[attr-defined]
        self.left -= size
        return buffer
