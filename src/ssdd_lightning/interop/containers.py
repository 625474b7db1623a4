"""Arrays in `.npy`, `.npz` and `.pt` files, read without running code that may hide in them."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.safe_npy import load_npy
from ssdd_lightning.storage.safe_pickle import to_numpy

ARRAY_SUFFIXES = (".npy", ".npz", ".pt", ".pth")


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
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zip, header, size: a damaged file raises nearly anything
        raise InputError(f"cannot read {path} ({error}); expected arrays of numbers by numpy.savez.") from error


def _load_torch(path: Path) -> Any:  # noqa: ANN401
    from ssdd_lightning.storage.safe_torch import load_torch

    try:
        content = load_torch(path)
    except InputError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    try:
        return _without_tensors(content)
    except (TypeError, RuntimeError, NotImplementedError) as error:  # sparse, quantised, without memory, ...
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} holds a tensor that is no plain array ({reason}); save dense numbers.") from error


def _without_tensors(content: Any) -> Any:  # noqa: ANN401
    import torch

    if isinstance(content, torch.Tensor):
        return to_numpy(content)
    if isinstance(content, dict):
        return {key: _without_tensors(value) for key, value in content.items()}
    return content
