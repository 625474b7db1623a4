"""Knowledge and advice of one image: read, checked against the labels, turned into masks.

A *guide* is either kind of file: score maps or a mask. In memory a mask is H x W uint8 in network indices;
score maps are H x W x n float32 with one channel for background and each of the image's own classes, ascending.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.masks import read_mask
from ssdd_lightning.storage.score_maps import is_map, map_path, mask_path, read_map

Guide = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


def find_guide(folder: Path, name: str, what: str) -> Path:
    """Find the file of one image in a folder of maps (`<name>.map.png`) or masks (`<name>.png`).

    Args:
        folder: The folder.
        name: Image name.
        what: `knowledge` or `advice`, for the message.

    Returns:
        The file; the mask's path where neither exists.

    Raises:
        InputError: Both exist.
    """
    maps, mask = map_path(folder, name), mask_path(folder, name)
    if maps.exists() and mask.exists():
        raise InputError(
            f"{what}: both {maps} and {mask.name} exist; keep score maps and masks in separate folders and name one."
        )
    return maps if maps.exists() else mask


def read_guides(paths: Mapping[str, Path], table: ClassTable, labels: Sequence[int]) -> dict[str, Guide]:
    """Read knowledge and advice of one image.

    Only present classes can be right: mask values of classes that the image's labels do not name become 255,
    and such channels of maps are dropped.

    Args:
        paths: `knowledge` and `advice`, or one of them, or none -> file.
        table: The dataset's classes and the network's choice of them.
        labels: Dataset indices of the image's foreground classes.

    Returns:
        The same keys -> guide, see the module's docstring.

    Raises:
        InputError: A file is unreadable, holds a class that the dataset does not have, or lacks a class that the
            image shows.
    """
    present = [0, *labels]
    stored = {key: read_map(path) for key, path in paths.items() if is_map(path)}
    return {
        key: _present_channels(*stored[key], present, path, table)
        if key in stored
        else _present_values(read_mask(path), present, path, table)
        for key, path in paths.items()
    }


def read_scores(path: Path, table: ClassTable, labels: Sequence[int]) -> npt.NDArray[np.float32]:
    """Read score maps of one image as scores, for stages that need more than their argmax.

    Args:
        path: File of maps, see `read_map`.
        table: The dataset's classes and the network's choice of them.
        labels: Dataset indices of the image's foreground classes.

    Returns:
        C x H x W in [0, 1], one channel for each network output; 0 for classes that the labels do not name.

    Raises:
        InputError: The file is unreadable, holds a class that the dataset does not have, or lacks a class that the
            image shows.
    """
    present = [0, *labels]
    channels = _present_channels(*read_map(path), present, path, table)
    scores = np.zeros((table.num_classes, *channels.shape[:2]), np.float32)
    scores[table.to_network()[present]] = channels.transpose(2, 0, 1)
    return scores


def guide_to_mask(guide: Guide, present: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Decide every pixel of a guide: argmax over the present classes; a mask stays as it is.

    Args:
        guide: H x W mask or H x W x n maps.
        present: n uint8, network index of each channel.

    Returns:
        H x W uint8 in network indices, 255 ignore.
    """
    if guide.ndim == 2:
        return guide.astype(np.uint8, copy=False)
    highest = np.ascontiguousarray(guide[..., 0])
    mask = np.full(highest.shape, present[0])
    for channel, index in enumerate(present[1:], start=1):  # a tenth of the time of argmax over few channels
        scores = np.ascontiguousarray(guide[..., channel])
        mask[cv2.compare(scores, highest, cv2.CMP_GT) > 0] = index
        highest = cv2.max(scores, highest)
    return mask


def check_values(mask: npt.NDArray[np.uint8], path: Path, table: ClassTable) -> None:
    """Raise an InputError if a mask holds values that are neither a class of the dataset nor 255."""
    if (mask + np.uint8(1)).max(initial=0) > len(table.names):  # 255 wraps around to 0
        bad = mask[(mask >= len(table.names)) & (mask != IGNORE)].min()
        raise InputError(
            f"mask {path} holds the value {bad}, expected class indices 0..{len(table.names) - 1} or 255; "
            "the file belongs to another dataset or is not a mask."
        )


def _present_values(
    mask: npt.NDArray[np.uint8], present: list[int], path: Path, table: ClassTable
) -> npt.NDArray[np.uint8]:
    check_values(mask, path, table)
    lookup = np.full(256, IGNORE, dtype=np.uint8)
    lookup[present] = table.to_network()[present]
    return np.asarray(cv2.LUT(mask, lookup), np.uint8)


def _present_channels(
    classes: list[int], scores: npt.NDArray[np.float32], present: list[int], path: Path, table: ClassTable
) -> npt.NDArray[np.float32]:
    if classes[-1] >= len(table.names):
        raise InputError(
            f"score map {path} holds class {classes[-1]}, the dataset has 0..{len(table.names) - 1}; "
            "the file belongs to another dataset."
        )
    lacking = [table.names[index] for index in present if index not in classes]
    if lacking:
        raise InputError(
            f"score map {path} holds the classes {classes} and lacks {', '.join(lacking)}, which its image is "
            "labelled with; write it again with the same labels."
        )
    if classes != present:
        scores = scores[[classes.index(index) for index in present]]
    return scores.transpose(1, 2, 0)  # one plane a channel in memory
