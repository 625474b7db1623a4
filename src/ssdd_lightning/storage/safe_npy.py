"""Reading other projects' `.npy` files without running code that may hide in them."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ssdd_lightning.errors import InputError
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
    try:
        with Path(path).open("rb") as stream:
            content = _load(stream)
    except FileNotFoundError as error:
        raise InputError(f"file {path} does not exist; check the path.") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise InputError(f"cannot read {path} ({error}); expected a file written by numpy.save.") from error
    return content.item() if isinstance(content, np.ndarray) and content.shape == () else content


def _load(stream: BinaryIO) -> Any:  # noqa: ANN401
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = header(stream)
    if dtype.hasobject:
        return load_pickle(stream)
    stream.seek(0)
    return np.load(stream, allow_pickle=False)
