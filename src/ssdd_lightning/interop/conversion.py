"""From another project's scores to our score maps: range, labels, size, background."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ssdd_lightning.errors import InputError
from ssdd_lightning.functional.cam import cam_background
from ssdd_lightning.interop.formats import Scores

_ROUNDING = 1e-3
"""How far half-precision files may leave [0, 1]."""


class Conversion(NamedTuple):
    """How scores become score maps.

    Attributes:
        alpha: Exponent of the background that files without one get, (1 - max) ** alpha.
        logits: The scores are logits; softmax over the channels that are kept.
        stretch: Resize scores of another aspect ratio than the image's too.
    """

    alpha: float = 4.0
    logits: bool = False
    stretch: bool = False


def convert(
    scores: Scores, size: tuple[int, int], labels: tuple[int, ...] | None, how: Conversion, path: Path
) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Turn scores into what `write_map` takes.

    Args:
        scores: Scores of one image.
        size: The image's (height, width).
        labels: Dataset indices of the image's foreground classes: only these and background are kept. None keeps all.
        how: The options.
        path: The file, for messages.

    Returns:
        The dataset's class indices, ascending, background among them, and n x H x W float32 in [0, 1].

    Raises:
        InputError: Values are no numbers, out of range or no logits, the aspect ratio is another, or a label has no
            channel.
    """
    values = torch.from_numpy(_checked_values(scores.values, how.logits, path))
    _check_aspect(scores.values.shape[1:], size, how.stretch, path)
    order = _channels(scores.class_indices, labels, path)
    values = F.interpolate(values[None, order].float(), size, mode="bilinear", align_corners=False)
    class_indices = [scores.class_indices[channel] for channel in order]
    if class_indices[0] == 0:
        values = values.softmax(1) if how.logits else values
    elif how.logits:
        raise InputError(f"{path} holds logits without a background channel; expected background among them.")
    else:
        class_indices, values = (
            [0, *class_indices],
            torch.cat((cam_background(values.clamp(0, 1), how.alpha), values), 1),
        )
    return class_indices, values[0].clamp(0, 1).numpy()


def _checked_values(values: npt.NDArray[np.generic], logits: bool, path: Path) -> npt.NDArray[np.float32]:
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool) or np.iscomplexobj(values):
        raise InputError(f"{path}: expected numbers, found {values.dtype}.")
    numbers = values.astype(np.float32)
    low, high = float(numbers.min()), float(numbers.max())
    if not np.isfinite([low, high]).all():
        raise InputError(f"{path} holds NaN or infinite values; write it again.")
    if not logits and (low < -_ROUNDING or high > 1 + _ROUNDING):
        raise InputError(
            f"{path}: expected scores in [0, 1], found {low:.4g} to {high:.4g}; if they are logits, add "
            "`--logits`; else scale them."
        )
    if logits and low >= 0 and np.abs(numbers.sum(axis=0) - 1).max() < _ROUNDING:
        raise InputError(f"{path} holds probabilities, which add up to 1, not logits; leave out `--logits`.")
    return numbers


def _check_aspect(found: tuple[int, ...], size: tuple[int, int], stretch: bool, path: Path) -> None:
    """A map of another resolution is the image scaled and rounded, or padded to a whole number of cells."""
    lowest = max((cells - 1) / pixels for cells, pixels in zip(found, size, strict=True))
    highest = min((cells + 1) / pixels for cells, pixels in zip(found, size, strict=True))
    if lowest > highest and not stretch:
        raise InputError(
            f"{path}: the scores are {found[1]} x {found[0]}, the image {size[1]} x {size[0]}, a different "
            "aspect ratio; if the image was squashed to this size, add `--stretch`."
        )


def _channels(class_indices: list[int], labels: tuple[int, ...] | None, path: Path) -> list[int]:
    """Channels to keep, in the order of their classes."""
    if len(set(class_indices)) < len(class_indices):
        raise InputError(f"{path} names a class twice: {class_indices}.")
    lacking = [index for index in labels or () if index not in class_indices]
    if lacking:
        raise InputError(
            f"{path} holds the classes {sorted(class_indices)} and lacks {lacking}, which the labels give its image; "
            "it was made with other labels or counts its classes differently."
        )
    kept = set(class_indices) if labels is None else {0, *labels}
    if not kept.intersection(class_indices):
        raise InputError(f"{path} belongs to an image without any labelled class; remove it or label the image.")
    order = sorted((index, channel) for channel, index in enumerate(class_indices) if index in kept)
    return [channel for _, channel in order]
