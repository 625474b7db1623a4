"""Reading other projects' `.npy` files without running code that may hide in them."""

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ssdd_lightning.errors import InputError


def load_npy(path: Path) -> Any:  # noqa: ANN401 - the file decides
    """Read a `.npy` file; pickled content may consist of numpy arrays, dicts, lists and plain values only.

    Args:
        path: File written by `numpy.save`, from Python 2 or 3.

    Returns:
        The array, or the object inside a 0-d object array (such as a pickled dict).

    Raises:
        InputError: The file is missing, damaged, or its pickle asks for anything else.
    """
    try:
        with Path(path).open("rb") as stream:
            content = _load(stream)
    except FileNotFoundError as error:
        raise InputError(f"file {path} does not exist; check the path") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise InputError(f"cannot read {path} ({error}); expected a file written by numpy.save") from error
    return content.item() if isinstance(content, np.ndarray) and content.shape == () else content


def _load(stream: BinaryIO) -> Any:  # noqa: ANN401
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = header(stream)
    if dtype.hasobject:
        return _Unpickler(stream, encoding="latin1").load()  # latin1: what numpy asks of Python 2 files
    stream.seek(0)
    return np.load(stream, allow_pickle=False)


class _Unpickler(pickle.Unpickler):
    """Unpickler that knows the handful of functions which numpy's own arrays and scalars need."""

    _admitted = {  # noqa: RUF012
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        # taken from live objects: their home moved from numpy.core to numpy._core
        ("multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("multiarray", "scalar"): np.float32(0).__reduce__()[0],
        ("numeric", "_frombuffer"): np.empty(1).__reduce_ex__(5)[0],
    }

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        """Return what a pickle names, if it is admitted."""
        home = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        if (home, name) in self._admitted and module.startswith("numpy"):
            return self._admitted[home, name]
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise InputError(
            f"the pickle asks for {module}.{name}, but only numpy arrays and plain values are admitted; "
            "do not trust this file"
        )


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 spells bytes: a str and its encoding, always latin1."""
    return text.encode(encoding)
