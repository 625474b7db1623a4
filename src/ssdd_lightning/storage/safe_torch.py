"""Reading what `torch.save` wrote without running code that may hide in it."""

import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.decoding import check_expanded, inside, of_the_machine, reason
from ssdd_lightning.storage.safe_pickle import check_pickle

_CHUNK = 1 << 20
_NUMBERS = {
    *(torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64),
    *(torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
}
"""Types that arithmetic and comparisons know."""
LARGEST_VIEW = 1 << 28
"""Bytes that a tensor may stand for which repeats what is stored of it."""


def load_torch(source: Path | BinaryIO, mmap: bool = False) -> Any:  # noqa: ANN401 - the file decides
    """Read tensors, containers and plain values onto the CPU.

    Args:
        source: File of `torch.save`.
        mmap: Leave tensors on disk until they are used, if the file's format allows it.

    Raises:
        InputError: The file holds anything else, or is damaged: a check sum of one of its parts is wrong, which torch
            itself does not look at. (Torch's own message recommends unsafe loading.)
    """
    try:
        zipped = zipfile.is_zipfile(source)  # files from before torch 1.6 are not, and have no check sums
    except zipfile.BadZipFile as error:
        raise InputError(f"damaged: {reason(error)}.") from error
    if zipped:
        check_sums(source)
    if not isinstance(source, Path):
        source.seek(0)
    try:
        if not zipped:
            _check_old_file(source)
        content = torch.load(source, map_location="cpu", weights_only=True, mmap=mmap and zipped)
        check_expanded(content, _checked_parts)
        return content
    except InputError:
        raise
    except Exception as error:  # zip, pickle, sizes: a damaged file raises nearly anything
        if of_the_machine(error):
            raise
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked is None:
            raise InputError(f"truncated, damaged or not written by torch.save ({type(error).__name__}).") from error
        if asked[1].startswith("numpy."):
            raise InputError(
                "it holds arrays or numbers of numpy, which torch cannot read safely; save tensors and plain numbers "
                "instead, or arrays as .npy."
            ) from error
        raise InputError(
            f"it asks for {asked[1]}, but only tensors, dicts, lists and plain values are admitted; do not trust it "
            "unless you know who wrote it, who can save its state dict or arrays alone."
        ) from error


def check_sums(source: Path | BinaryIO) -> None:
    """Compare the bytes of each part of a zip file with the check sum that was written with it.

    Args:
        source: File of `torch.save`, as zip.

    Raises:
        InputError: One differs, or the file is no whole zip file.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:  # a few bytes could stand for gigabytes
                    raise InputError(f"it holds compressed data ({entry.filename}), which torch.save never writes.")
                with archive.open(entry) as part:
                    if entry.filename.lower().endswith("data.pkl"):
                        check_pickle(io.BytesIO(part.read()))
                    while part.read(_CHUNK):
                        pass
    except InputError:
        raise
    except Exception as error:  # names, sizes, offsets: a damaged archive raises nearly anything
        if of_the_machine(error):
            raise
        raise InputError(f"damaged: {reason(error)}.") from error


def _check_old_file(source: Path | BinaryIO) -> None:
    """Check a file from before torch 1.6: a huge number, its version, a note of the system, and then the content."""
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as stream:
        start = stream.tell()
        for number in range(4):
            check_pickle(stream, numbers=number > 0)
        stream.seek(start)


def _checked_parts(value: Any) -> Iterable[Any]:  # noqa: ANN401
    """The parts of a container; refuse a tensor of no plain numbers, or one that arithmetic would blow up."""
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_meta or value.is_nested or value.dtype not in _NUMBERS:
            kind = "nested" if value.is_nested else f"{value.device.type}, {value.layout}, {value.dtype}"
            raise InputError(f"it holds a tensor ({kind}) where plain numbers are expected; save it as such.")
        claimed, stored = value.numel() * value.element_size(), value.untyped_storage().nbytes()
        if claimed > max(stored, LARGEST_VIEW):
            raise InputError(f"it holds a tensor of {tuple(value.shape)} that is stored in {stored} bytes.")
    return inside(value)


def check_finite(tensors: Mapping[str, Any], source: str) -> None:
    """Refuse tensors with NaN or infinite values, which a diverged training leaves.

    Args:
        tensors: Tensors by name; other values are ignored.
        source: Where they come from, for the message.

    Raises:
        InputError: One holds NaN or an infinite number.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            continue
        if not tensor.isfinite().all():
            raise InputError(
                f"{source} holds NaN or infinite numbers, the first in {name}; if its training diverged, use an "
                "earlier checkpoint, or train again with a lower learning rate."
            )
