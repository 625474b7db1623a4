"""Pictures for a page: photos, masks and difference maps of one image, all of the same size."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.storage.masks import LIGHT_PALETTE, save_image

SIDE = 640
"""Longest side of a picture in pixels; photos are never enlarged."""
QUALITY = 85
CLEAR, WHITE = (0, 0, 0, 0), (255, 255, 255)
Mask = npt.NDArray[np.uint8]


def picture_size(height: int, width: int) -> tuple[int, int]:
    """Width and height of the pictures of a photo."""
    scale = min(1.0, SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def write_photo(path: Path, photo: npt.NDArray[np.uint8], size: tuple[int, int]) -> None:
    """Write a photo as JPEG.

    Args:
        path: File to write.
        photo: H x W x 3 uint8 RGB.
        size: Width and height of the picture.
    """
    save_image(path, Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS), format="JPEG", quality=QUALITY)


def write_difference(path: Path, values: Mask, size: tuple[int, int]) -> None:
    """Write a difference map in the colours of `heat` as JPEG.

    Args:
        path: File to write.
        values: H x W uint8, 255 times the difference.
        size: Width and height of the picture.
    """
    from ssdd_lightning.callbacks.panels import heat  # it loads torch, which a finished report can do without

    scaled = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    save_image(path, Image.fromarray(heat(np.arange(256) / 255)[scaled]), format="JPEG", quality=QUALITY)


def write_layer(path: Path, mask: Mask, size: tuple[int, int]) -> None:
    """Write a mask as an indexed PNG to lay upon its photo: background clear, classes coloured and outlined.

    Args:
        path: File to write.
        mask: H x W uint8 of class indices; 255 is hatched.
        size: Width and height of the picture.
    """
    from ssdd_lightning.callbacks.panels import HATCH, outline  # see above

    scaled = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    values = present(scaled)
    indices = np.searchsorted(values, np.arange(256)).astype(np.uint8)[scaled]
    colours = [CLEAR if value == 0 else (*LIGHT_PALETTE[value].tolist(), 255) for value in values.tolist()]
    drawn = [(outline(scaled), WHITE)]
    if values[-1] == IGNORE:
        colours[-1] = (*HATCH[0].tolist(), 255)
        stripes = np.add.outer(np.arange(size[1]), np.arange(size[0])) % 8 < 2
        drawn.insert(0, (stripes & (scaled == IGNORE), tuple(HATCH[1].tolist())))
    for where, colour in drawn:
        if len(colours) < 256:  # else a mask of all values, which is no mask
            indices[where] = len(colours)
            colours.append((*colour, 255))
    table = np.array(colours, np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(table[:, :3].tobytes())
    save_image(path, image, format="PNG", transparency=table[:, 3].tobytes())


def present(mask: Mask) -> npt.NDArray[np.intp]:
    """Find the values that occur in a mask, ascending; much faster than sorting its pixels."""
    return np.flatnonzero(np.bincount(mask.ravel(), minlength=256))


def css_colours(class_names: Mapping[int, str]) -> dict[int, str]:
    """Colour of each class in pictures, as CSS has it."""
    return {index: "#{:02x}{:02x}{:02x}".format(*LIGHT_PALETTE[index].tolist()) for index in class_names}
