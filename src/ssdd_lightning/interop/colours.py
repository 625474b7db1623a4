"""Masks of other projects: indexed, or painted in the colours of the VOC palette."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.masks import VOC_PALETTE, opened_image, read_mask


def read_any_mask(path: Path) -> npt.NDArray[np.uint8]:
    """Read a mask of class indices from an indexed PNG, or from an RGB one in VOC's colours.

    Args:
        path: PNG of mode P, L, RGB or RGBA.

    Returns:
        H x W uint8, 255 = ignore.

    Raises:
        InputError: The file is damaged, a colour is not VOC's, or a palette has been re-ordered.
    """
    with opened_image(path, "mask", "expected a PNG; write it again", ["PNG"]) as image:
        mode, palette = image.mode, image.getpalette() if image.mode == "P" else None
        pixels = np.array(image.convert("RGB")) if mode in ("RGB", "RGBA") else None
    if pixels is not None:
        return _indices_of(pixels, path)
    mask = read_mask(path)
    if palette is not None:
        _check_order(mask, np.array(palette, dtype=np.int64).reshape(-1, 3), path)
    return mask


def _codes(colours: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """One number per colour."""
    return colours.astype(np.int64) @ np.array([65536, 256, 1])


_VOC_CODES = _codes(VOC_PALETTE)
_ORDER = _VOC_CODES.argsort()


def _indices_of(pixels: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[np.uint8]:
    codes = _codes(pixels)
    index = _ORDER[np.searchsorted(_VOC_CODES, codes, sorter=_ORDER).clip(max=255)]
    strange = _VOC_CODES[index] != codes
    if strange.any():
        raise InputError(
            f"mask {path} holds the colour {tuple(pixels[strange][0].tolist())}, which is not in the VOC palette "
            f"({strange.mean():.1%} of its pixels are such); save class indices instead."
        )
    return index.astype(np.uint8)


def _check_order(mask: npt.NDArray[np.uint8], palette: npt.NDArray[np.int64], path: Path) -> None:
    """Refuse masks that a tool has shrunk by re-ordering the palette: their values are no class indices any more."""
    used = [value for value in np.unique(mask).tolist() if value < len(palette)]
    meant = {code: value for value, code in enumerate(_VOC_CODES.tolist())}
    classes = [meant.get(code) for code in _codes(palette[used]).tolist()]
    if None in classes or classes == used:
        return
    value, index = next((v, c) for v, c in zip(used, classes, strict=True) if v != c)
    raise InputError(
        f"mask {path} gives the value {value} the VOC colour of {index}: some tool has re-ordered its palette, so its "
        "values are not class indices; convert it to RGB and import that."
    )
