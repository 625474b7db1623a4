"""Reading other projects' `.npy` files without running code that may hide in them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.decoding import decoding
from ssdd_lightning.storage.safe_pickle import load_pickle


def load_npy(path: Path) -> Any:  # noqa: ANN401 - the file decides
    """Read a `.npy` file; pickled content may consist of arrays, tensors, dicts, lists and plain values only.

    Args:
        path: File written by `numpy.save`, from Python 2 or 3.

    Returns:
        The array, or the object inside a 0-d object array (such as a pickled dict); torch tensors as arrays.

    Raises:
        InputError: The file is missing, damaged, or its pickle asks for anything else.
    """
    with decoding(f"file {path}", "expected a file written by numpy.save", "check the path"):
        try:
            with Path(path).open("rb") as stream:
                content = load_npy_stream(stream, Path(path).stat().st_size, load_pickle)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return content.item() if isinstance(content, np.ndarray) and content.shape == () else content


def load_npy_stream(
    stream: IO[bytes],
    size: int,
    unpickle: Callable[[BinaryIO], Any] | None = None,
) -> Any:  # noqa: ANN401 - the file decides
    """Read what `numpy.save` wrote from a stream; no memory is asked for before the header fits the size.

    Args:
        stream: At the beginning of the file.
        size: Bytes that the stream holds.
        unpickle: Reads the pickle of an array of objects; None refuses it.

    Raises:
        InputError: It claims more values than it has bytes for, or objects.
        Exception: Almost any kind, if it is damaged.
    """
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    if dtype.hasobject:
        if unpickle is None:
            raise InputError("it holds objects, expected an array of numbers.")
        return unpickle(stream)  # type: ignore[arg-type]
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed > size - stream.tell():
        raise InputError(f"it claims an array of {shape} ({claimed} bytes), but holds {size} bytes; it is damaged.")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)
