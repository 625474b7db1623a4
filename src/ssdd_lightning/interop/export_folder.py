"""Our score maps as other projects' files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.files import atomic_write
from ssdd_lightning.storage.ledger import Item, Items, Ledger, Recipe
from ssdd_lightning.storage.listing import map_names
from ssdd_lightning.storage.lock import locked
from ssdd_lightning.storage.score_maps import map_path, read_map
from ssdd_lightning.storage.threads import cores

Writer = Callable[[Sequence[int], npt.NDArray[np.float32]], dict[Any, Any]]
IRN_STRIDE = 4


def to_psa_cam(class_indices: Sequence[int], scores: npt.NDArray[np.float32]) -> dict[Any, Any]:
    """PSA's `out_cam`: foreground classes counted from 0; background is left out."""
    return {index - 1: score for index, score in zip(class_indices, scores, strict=True) if index}


def to_psa_aff(class_indices: Sequence[int], scores: npt.NDArray[np.float32]) -> dict[Any, Any]:
    """PSA's `out_aff`: all classes, 0 = background."""
    return dict(zip(class_indices, scores, strict=True))


def to_irn(class_indices: Sequence[int], scores: npt.NDArray[np.float32]) -> dict[Any, Any]:
    """IRN's dict: `keys` and `cam` as torch tensors, `high_res` as an array; background is left out."""
    import torch
    from torch.nn import functional as F

    foreground = [channel for channel, index in enumerate(class_indices) if index]
    keys = torch.tensor([class_indices[channel] - 1 for channel in foreground], dtype=torch.long)
    high = scores[foreground]
    _, height, width = high.shape
    size = ((height - 1) // IRN_STRIDE + 1, (width - 1) // IRN_STRIDE + 1)
    return {"keys": keys, "cam": F.adaptive_avg_pool2d(torch.from_numpy(high), size), "high_res": high}


WRITERS: dict[str, Writer] = {"psa-cam": to_psa_cam, "psa-aff": to_psa_aff, "irn": to_irn}
"""How score maps become the content of a file, by the name of the format."""


def export_folder(source: Path, out: Path, format: str, num_workers: int | None = None, progress: bool = True) -> int:
    """Write `<name>.npy` for every `<name>.map.png` of a folder; what the ledger calls finished stays.

    Args:
        source: Folder of score maps.
        out: Folder to write, created if need be.
        format: One of `WRITERS`.
        num_workers: Threads, one image each; None means one per core.
        progress: Whether to show a bar.

    Returns:
        How many files were written by this run.

    Raises:
        InputError: The format is unknown, there are no maps, one is damaged, or another run works in `out`.
    """
    if format not in WRITERS:
        raise InputError(f"unknown format {format!r}; choose one of {', '.join(WRITERS)}.")
    items = Items(map_names(source), lambda name: Item((map_path(source, name),), (out / f"{name}.npy",)))

    def write(name: str) -> None:
        """Write one file."""
        (path,), (target,) = items[name].sources, items[name].products
        class_indices, scores = read_map(path)
        if class_indices == [0]:
            raise InputError(f"score map {path} holds only background, which {format} files cannot store; remove it.")
        content: Any = WRITERS[format](class_indices, scores)
        with atomic_write(target) as stream:
            np.save(stream, content, allow_pickle=True)

    with locked(out):
        return Ledger(out, "export", Recipe({"format": format}), items).make_each(
            write, num_workers or cores(), progress
        )
