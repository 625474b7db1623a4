"""Reading what `torch.save` wrote without running code that may hide in it."""

import re
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ssdd_lightning.errors import InputError


def load_torch(source: Path | BinaryIO, **options: bool) -> Any:  # noqa: ANN401 - the file decides
    """Read tensors, containers and plain values onto the CPU.

    Args:
        source: File of `torch.save`.
        options: Further ones of `torch.load`, such as mmap.

    Raises:
        InputError: The file asks for anything else, or is damaged. Torch's own text advises to load it unsafely.
    """
    try:
        return torch.load(source, map_location="cpu", weights_only=True, **options)
    except Exception as error:  # zip, pickle, sizes: a damaged file raises nearly anything
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked is None:
            raise InputError(f"truncated, damaged or not written by torch.save ({type(error).__name__})") from error
        if asked[1].startswith("numpy."):
            raise InputError(
                "it holds arrays or numbers of numpy, which torch cannot read safely; save them as .npy or .npz, or as "
                "tensors"
            ) from error
        raise InputError(
            f"it asks for {asked[1]}, but only tensors, dicts, lists and plain values are admitted; do not trust it "
            "unless you know who wrote it, who can save its state dict or arrays alone"
        ) from error
