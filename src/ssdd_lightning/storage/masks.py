"""Images and masks on disk: RGB photos, indexed PNG masks with the VOC palette."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.decoding import decoding
from ssdd_lightning.storage.files import atomic_write

MOST_PIXELS = 1 << 27
"""Pixels that an image may claim; a few hundred kilobytes can claim more than any memory holds."""
MOST_SCANS = 100
"""Passes over all pixels that a progressive JPEG may ask for, each in two hundred bytes; real ones have ten."""
_SCAN = b"\xff\xda"
"""What a scan of a JPEG begins with; in the data of a scan a zero follows each 255."""
_BY_PROGRAMS = ("EPS",)
"""Formats that Pillow hands to other programs, Ghostscript for one, which run what is in the file."""


def _voc_palette() -> npt.NDArray[np.uint8]:
    """Colours of the VOC devkit: the index's bits, lowest first, fill R, G, B from the highest bit down."""
    index = np.arange(256)[:, None]
    channel = np.arange(3)[None, :]
    colours = np.zeros((256, 3), dtype=np.int64)
    for step in range(8):
        colours |= ((index >> (3 * step + channel)) & 1) << (7 - step)
    return colours.astype(np.uint8)


VOC_PALETTE = _voc_palette()
"""256 x 3 uint8 RGB: colour of every mask value, the same as in the VOC devkit."""
VOC_PALETTE.setflags(write=False)
LIGHT_PALETTE = np.rint(255 * (VOC_PALETTE / 255) ** 0.6).astype(np.uint8)
"""256 x 3 uint8: the same, lighter, for half of its colours are too dark to see upon a photo."""
LIGHT_PALETTE.setflags(write=False)


@contextmanager
def opened_image(
    path: Path,
    what: str,
    remedy: str,
    formats: list[str] | None = None,
    missing: str = "check the list and the folder",
) -> Iterator[Image.Image]:
    """Open an image; whatever is wrong with the file is one sentence.

    Args:
        path: The file.
        what: What it is called.
        remedy: What to do if it cannot be read.
        formats: Those of Pillow's that it may have; None means all.
        missing: What to do if it does not exist.

    Raises:
        InputError: There is no file, or it is damaged, too large or of another kind.
    """
    with decoding(f"{what} {path}", remedy, missing), Image.open(path, formats=formats) as image:
        if image.format in _BY_PROGRAMS:
            raise InputError(f"{what} {path} is a program in {image.format}, no picture; save it as PNG or JPEG.")
        if image.width * image.height > MOST_PIXELS:
            raise InputError(
                f"{what} {path} claims {image.width} x {image.height} pixels, expected at most {MOST_PIXELS:,} in all; "
                "scale it down if it is real, or do not trust it."
            )
        yield image


def save_image(path: Path, image: Image.Image, **options: Any) -> None:  # noqa: ANN401 - Pillow's
    """Write an image, whole or not at all; `options` are those of its `save`."""
    with atomic_write(path) as stream:
        image.save(stream, **options)


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read a photo completely.

    Args:
        path: Any format that Pillow reads; grey, CMYK and palette images are converted to RGB.

    Returns:
        H x W x 3 uint8 RGB.

    Raises:
        InputError: The file is missing, truncated or not an image.
    """
    with opened_photo(path) as photo:
        return read_pixels(photo)


@contextmanager
def opened_photo(path: Path) -> Iterator[Image.Image]:
    """Open a photo, whose size is then known; see `opened_image`."""
    with opened_image(path, "image", "the file is damaged or not an image; copy or download it again") as image:
        yield image


def read_pixels(photo: Image.Image, reduction: int = 1) -> npt.NDArray[np.uint8]:
    """Read the pixels of an open photo, if asked for at a smaller size, for which a JPEG need not be decoded whole.

    Args:
        photo: From `opened_photo`.
        reduction: Each pixel is the mean of `reduction` x `reduction` pixels, a power of two; what is left over at the
            right and at the bottom is left out.

    Returns:
        H // reduction x W // reduction x 3 uint8 RGB.

    Raises:
        InputError: It is a progressive JPEG of very many scans.
        Exception: Almost any kind, if it is damaged; `opened_photo` makes a sentence of it.
    """
    _check_scans(photo)
    width, height = photo.width // reduction, photo.height // reduction
    if reduction > 1:
        drafted = photo.draft(None, (width, height))  # JPEG: a half, a quarter or an eighth
        if drafted is not None:
            reduction //= round(width * reduction / drafted[1][2])
    if photo.mode != "RGB":
        photo = photo.convert("RGB")
    if reduction > 1:
        photo = photo.reduce(reduction)
    return np.array(photo)[:height, :width]


def _check_scans(photo: Image.Image) -> None:
    """Refuse a JPEG that takes minutes to decode because it passes over its pixels again and again."""
    stream = getattr(photo, "fp", None)
    if stream is None or "progressive" not in photo.info:
        return
    start = stream.tell()
    stream.seek(0)
    scans = stream.read().count(_SCAN)
    stream.seek(start)
    if scans > MOST_SCANS:
        raise InputError(
            f"image {getattr(photo, 'filename', '')} holds {scans} scans, expected at most {MOST_SCANS}; do not trust "
            "it, or save it as a plain JPEG."
        )


def read_mask(path: Path) -> npt.NDArray[np.uint8]:
    """Read a mask of class indices.

    Args:
        path: PNG with one 8-bit channel: indexed (mode P, as VOC's own) or grey (mode L).

    Returns:
        H x W uint8: 0 background, 255 ignore, the rest classes by the dataset's own indices.

    Raises:
        InputError: The file is missing, truncated, not a PNG, or holds colours instead of indices.
    """
    with opened_image(path, "mask", "expected an indexed PNG; write or download it again", ["PNG"]) as image:
        _check_indexed(image, path)
        return np.array(image)


def odd_colours(image: Image.Image, values: Sequence[int]) -> list[int]:
    """Find the mask values whose colour is not the VOC palette's.

    Args:
        image: An open PNG of mode P.
        values: Mask values that it holds.
    """
    stored = b"" if image.palette is None else bytes(image.palette.palette)
    return [value for value in values if stored[3 * value : 3 * value + 3] != VOC_PALETTE[value].tobytes()]


def write_mask(path: Path, mask: npt.NDArray[np.integer]) -> None:
    """Write a mask as an indexed PNG with the VOC palette; the file appears at once or not at all.

    Args:
        path: File to write, `.png`.
        mask: H x W integers in 0..255: 0 background, 255 ignore, the rest the dataset's own class indices.

    Raises:
        InputError: The array is not a mask, or the file cannot be written.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.size == 0 or not np.issubdtype(mask.dtype, np.integer):
        raise InputError(f"cannot write mask {path}: expected 2-D integers, found shape {mask.shape} of {mask.dtype}.")
    if mask.min() < 0 or mask.max() > 255:
        raise InputError(f"cannot write mask {path}: expected values 0..255, found {mask.min()}..{mask.max()}.")
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(VOC_PALETTE.tobytes())  # turns mode L into mode P, values unchanged
    save_image(path, image, format="PNG")


def _check_indexed(image: Image.Image, path: Path) -> None:
    if image.mode not in {"P", "L"}:
        raise InputError(
            f"mask {path} has mode {image.mode}, expected an indexed PNG (P, or 8-bit L) of class indices; "
            "convert colours to class indices first (VOC's: `ssdd import --from masks`)."
        )
    tiles = getattr(image, "tile", None)
    if image.mode == "L" and tiles and tiles[0][3] != "L":
        # Pillow stretches 2- and 4-bit grey to 0..255, which turns index 1 into 85 or 17
        raise InputError(f"mask {path} is grey with fewer than 8 bits; save it as an indexed PNG.")
