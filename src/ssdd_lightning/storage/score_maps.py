"""Score maps on disk: one small PNG per image, without pickle.

Format, version 1: `<folder>/<name>.map.png` is an 8-bit grey PNG that holds the channels on top of each
other (n*H x W). The value q stands for the score (q/255)^2: square-root companding spends the levels where
scores are small (the smallest above zero is 1.5e-5), so that background powers and CRF tails survive. A tEXt
chunk `ssdd-map` holds JSON: `{"version": 1, "classes": [0, 8, 12]}`, the dataset's own class index of each
channel, top to bottom. Any image viewer shows the score maps; any PNG reader reads them.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.decoding import decoding
from ssdd_lightning.storage.masks import opened_image, save_image
from ssdd_lightning.storage.names import check_name

CHUNK = "ssdd-map"
VERSION = 1
SUFFIX = ".map.png"
_SCORES = np.square(np.arange(256, dtype=np.float32) / 255)


def map_path(folder: Path, name: str) -> Path:
    """Path of an image's score maps in a folder; an invalid name is an InputError."""
    return Path(folder) / f"{check_name(name, folder)}{SUFFIX}"


def mask_path(folder: Path, name: str) -> Path:
    """Path of an image's mask in a folder; an invalid name is an InputError."""
    return Path(folder) / f"{check_name(name, folder)}.png"


def is_map(path: Path) -> bool:
    """Whether a file's name says that it holds score maps (and not a mask)."""
    return Path(path).name.endswith(SUFFIX)


def write_map(path: Path, class_indices: Sequence[int], scores: npt.NDArray[np.floating]) -> None:
    """Write the score maps of one image; the file appears at once or not at all.

    Args:
        path: File to write, see `map_path`.
        class_indices: The dataset's own class index of each channel: ascending, unique, 0..254; 0 is background.
        scores: n x H x W floats in [0, 1], n = len(class_indices) >= 1. Stored to within 0.004.

    Raises:
        InputError: Classes or scores break these rules, or the file cannot be written.
    """
    scores = np.asarray(scores)
    indices = _checked_classes([int(index) for index in class_indices], path)
    _check_scores(scores, len(indices), path)
    levels = np.rint(np.sqrt(scores.astype(np.float32)) * 255).astype(np.uint8)
    image = Image.fromarray(levels.reshape(-1, scores.shape[2]))
    info = PngInfo()
    info.add_text(CHUNK, json.dumps({"version": VERSION, "classes": indices}))
    save_image(path, image, format="PNG", pnginfo=info)


def read_map(path: Path) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Read the score maps of one image.

    Args:
        path: File written by `write_map`.

    Returns:
        The class indices, ascending, and the n x H x W float32 scores in [0, 1].

    Raises:
        InputError: The file is missing, damaged, or not in this format.
    """
    missing = "run the stage that writes it or check the folder"
    with opened_image(path, "score map", "the file is damaged; write it again", ["PNG"], missing) as image:
        header = image.info.get(CHUNK)
        levels = np.array(image)
    class_indices = _parse_header(header, path)
    if levels.ndim != 2 or levels.dtype != np.uint8 or levels.shape[0] % len(class_indices):
        raise InputError(
            f"score map {path} should stack {len(class_indices)} channels in 8-bit grey, found shape {levels.shape} of "
            f"{levels.dtype}; write it again."
        )
    return class_indices, np.take(_SCORES, levels, mode="clip").reshape(len(class_indices), -1, levels.shape[1])


def _parse_header(header: object, path: Path) -> list[int]:
    if not isinstance(header, str):
        raise InputError(
            f"{path} is a PNG without the text chunk {CHUNK!r}, so it holds no score maps; a mask must be "
            "named <name>.png."
        )
    with decoding(f"the text chunk {CHUNK!r} of score map {path}", "it is damaged; write it again"):
        content = json.loads(header)
        version, class_indices = content["version"], content["classes"]
    if version != VERSION:
        raise InputError(f"score map {path} has format version {version!r}, this release reads version {VERSION}.")
    return _checked_classes(class_indices, path)


def _checked_classes(class_indices: object, path: Path) -> list[int]:
    if isinstance(class_indices, list) and class_indices and all(type(index) is int for index in class_indices):
        ascending = class_indices == sorted(set(class_indices))
        if ascending and class_indices[0] >= 0 and class_indices[-1] < 255:
            return class_indices
    raise InputError(
        f"score map {path} should list class indices, ascending, unique and in 0..254, found {class_indices!r}."
    )


def _check_scores(scores: npt.NDArray[np.floating], channels: int, path: Path) -> None:
    if scores.ndim != 3 or scores.shape[0] != channels or scores.size == 0:
        raise InputError(f"cannot write score map {path}: expected {channels} x height x width, found {scores.shape}.")
    if not np.issubdtype(scores.dtype, np.floating):
        raise InputError(f"cannot write score map {path}: expected floats in [0, 1], found {scores.dtype}.")
    low, high = float(scores.min()), float(scores.max())
    if not (low >= 0 and high <= 1):  # false for NaN too
        raise InputError(f"cannot write score map {path}: expected scores in [0, 1], found {low}..{high}.")
