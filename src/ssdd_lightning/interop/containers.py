"""Arrays in `.npy`, `.npz` and `.pt` files, read without running code that may hide in them."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.decoding import decoding
from ssdd_lightning.storage.safe_npy import load_npy, load_npy_stream
from ssdd_lightning.storage.safe_pickle import to_numpy

ARRAY_SUFFIXES = (".npy", ".npz", ".pt", ".pth")
LARGEST_ARRAYS = 1 << 30
"""Bytes that all arrays of a .npz may hold; score maps of one image hold some hundred million at most."""


def load_arrays(path: Path) -> Any:  # noqa: ANN401 - the file decides
    """Read a file of arrays.

    Args:
        path: `.npy` (plain or with a pickled dict), `.npz`, or `.pt`/`.pth` as `torch.save` writes them.

    Returns:
        An array, or a dict of them as the file has it; torch tensors come as arrays.

    Raises:
        InputError: The file is missing or damaged, or holds anything but arrays, dicts, lists and plain values.
    """
    if path.suffix == ".npy":
        return load_npy(path)
    if not path.is_file():
        raise InputError(f"file {path} does not exist; check the path.")
    return _load_npz(path) if path.suffix == ".npz" else _load_torch(path)


def only_array(content: Any, path: Path, key: str | None) -> npt.NDArray[Any]:  # noqa: ANN401
    """Choose the array that a file is about.

    Args:
        content: What `load_arrays` returned.
        path: The file, for the message.
        key: Which of several arrays; None expects one.

    Raises:
        InputError: There is no such array, or more than one to choose from.
    """
    if isinstance(content, np.ndarray):
        return content
    arrays = {str(k): v for k, v in content.items() if isinstance(v, np.ndarray)} if isinstance(content, dict) else {}
    chosen = [key] if key is not None else list(arrays)
    if len(chosen) != 1 or chosen[0] not in arrays:
        found = ", ".join(arrays) or f"a {type(content).__name__} without any"
        wanted = "one array" if key is None else f"an array {key!r}"
        raise InputError(f"{path}: expected {wanted}, found {found}; name the right one with `--key`.")
    return arrays[chosen[0]]


def _load_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    with decoding(str(path), "expected arrays of numbers by numpy.savez"), zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
        size = sum(entry.file_size for entry in entries)
        if size > LARGEST_ARRAYS:
            raise InputError(
                f"{path} holds {size} bytes of arrays, expected at most {LARGEST_ARRAYS}; do not trust it."
            )
        arrays = {}
        for entry in entries:
            with archive.open(entry) as stream:
                try:
                    arrays[entry.filename.removesuffix(".npy")] = load_npy_stream(stream, entry.file_size)
                except InputError as error:
                    raise InputError(f"{path}, {entry.filename}: {error}") from error
        return arrays


def _load_torch(path: Path) -> Any:  # noqa: ANN401
    from ssdd_lightning.storage.safe_torch import load_torch

    try:
        content = load_torch(path)
    except InputError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    with decoding(f"the tensors of {path} as plain arrays", "save dense numbers"):  # such as conjugate views
        return _without_tensors(content)


def _without_tensors(content: Any) -> Any:  # noqa: ANN401
    import torch

    if isinstance(content, torch.Tensor):
        return to_numpy(content)
    if isinstance(content, dict):
        return {key: _without_tensors(value) for key, value in content.items()}
    return content
