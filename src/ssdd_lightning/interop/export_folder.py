"""Our score maps as other projects' files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.files import atomic_write, is_current
from ssdd_lightning.storage.score_maps import SUFFIX, map_path, read_map
from ssdd_lightning.storage.threads import cores, in_threads

Writer = Callable[[Sequence[int], npt.NDArray[np.float32]], dict[Any, Any]]
IRN_STRIDE = 4


def to_psa_cam(classes: Sequence[int], scores: npt.NDArray[np.float32]) -> dict[Any, Any]:
    """PSA's `out_cam`: foreground classes counted from 0; background is left out."""
    return {index - 1: score for index, score in zip(classes, scores, strict=True) if index}


def to_psa_aff(classes: Sequence[int], scores: npt.NDArray[np.float32]) -> dict[Any, Any]:
    """PSA's `out_aff`: all classes, 0 = background."""
    return dict(zip(classes, scores, strict=True))


def to_irn(classes: Sequence[int], scores: npt.NDArray[np.float32]) -> dict[Any, Any]:
    """IRN's dict: `keys` and `cam` as torch tensors, `high_res` as an array; background is left out."""
    import torch
    from torch.nn import functional as F

    foreground = [channel for channel, index in enumerate(classes) if index]
    keys = torch.tensor([classes[channel] - 1 for channel in foreground], dtype=torch.long)
    high = scores[foreground]
    _, height, width = high.shape
    size = ((height - 1) // IRN_STRIDE + 1, (width - 1) // IRN_STRIDE + 1)
    return {"keys": keys, "cam": F.adaptive_avg_pool2d(torch.from_numpy(high), size), "high_res": high}


WRITERS: dict[str, Writer] = {"psa-cam": to_psa_cam, "psa-aff": to_psa_aff, "irn": to_irn}
"""How score maps become the content of a file, by the name of the format."""


def export_folder(source: Path, out: Path, format: str, num_workers: int | None = None, progress: bool = True) -> int:
    """Write `<name>.npy` for every `<name>.map.png` of a folder; those that are current are kept.

    Args:
        source: Folder of score maps.
        out: Folder to write, created if need be.
        format: One of `WRITERS`.
        num_workers: Threads, one image each; None means one per core.
        progress: Whether to show a bar.

    Returns:
        How many files were written by this run.

    Raises:
        InputError: The format is unknown, there are no score maps, or one is damaged.
    """
    if format not in WRITERS:
        raise InputError(f"unknown format {format!r}; choose one of {', '.join(WRITERS)}.")
    names = sorted(path.name[: -len(SUFFIX)] for path in source.glob(f"[!.]*{SUFFIX}"))
    if not names:
        raise InputError(f"folder {source} holds no score maps; expected <name>{SUFFIX} files.")

    def write(name: str) -> bool:
        """Write one file unless it is current; whether it was written."""
        path, target = map_path(source, name), out / f"{name}.npy"
        if is_current(target, path):
            return False
        classes, scores = read_map(path)
        if classes == [0]:
            raise InputError(f"score map {path} holds only background, which {format} files cannot store; remove it.")
        content: Any = WRITERS[format](classes, scores)
        with atomic_write(target) as stream:
            np.save(stream, content, allow_pickle=True)
        return True

    done = in_threads(write, names, num_workers or cores())
    return sum(tqdm(done, f"export {format}", len(names), unit="image", disable=not progress))
