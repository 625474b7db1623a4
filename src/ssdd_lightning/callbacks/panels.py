"""Drawing: photos with their masks and difference maps side by side, as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.files import atomic_write
from ssdd_lightning.storage.masks import LIGHT_PALETTE

Picture = npt.NDArray[np.uint8]
Row = Mapping[str, npt.NDArray[np.generic]]

TITLES = {
    "image": "image",
    "knowledge": "knowledge K",
    "d_knowledge": "d_K",
    "advice": "advice A",
    "d_advice": "d_A",
    "refined": "refined",
    "prediction": "prediction",
    "truth": "ground truth",
}
"""What a row may hold, in the order of the columns, and the columns' headings."""
DIFFERENCES = ("d_knowledge", "d_advice")
IGNORED = "ignored (255)"
"""What 255 is called in a legend or a table."""

GAP = 6
TEXT = 15
LINE = TEXT + 9
PAPER = (255, 255, 255)
INK = (40, 40, 40)
EMPTY = (244, 244, 244)
HATCH = np.array([(226, 226, 226), (190, 190, 190)])


def panel(rows: Sequence[Row], class_names: Mapping[int, str] | None = None, width: int = 192) -> Picture:
    """Draw images with their masks and difference maps, one row per image, with headings and a legend.

    Args:
        rows: Each a dictionary with `image`, H x W x 3 uint8 RGB, and any of `knowledge`, `advice`,
            `refined`, `prediction`, `truth`, h x w masks of class indices with 255 = ignore, and `d_knowledge`,
            `d_advice`, h x w floats in [0, 1]. Sizes may differ; everything is scaled to its image.
        class_names: Names for the legend by class index; a class without a name is shown by its number.
        width: Width of a column in pixels. Tall images are made narrower, so that no row exceeds 1.25 widths.

    Returns:
        H x W x 3 uint8 RGB.

    Raises:
        InputError: There is no row, or one without an image.
    """
    if not rows or any("image" not in row for row in rows):
        raise InputError("a picture needs at least one row, and an image in each.")
    keys = [key for key in TITLES if any(key in row for row in rows)]
    strips = [_strip(row, keys, width) for row in rows]
    total = strips[0].shape[1]
    legend = _legend(_shown(rows), any(key in keys for key in DIFFERENCES), class_names or {}, total)
    return np.concatenate([_header(keys, width), *strips, legend])


def write_panel(
    path: Path, rows: Sequence[Row], class_names: Mapping[int, str] | None = None, width: int = 192
) -> None:
    """Draw a panel into an RGB PNG that appears at once or not at all; see `panel`."""
    picture = Image.fromarray(panel(rows, class_names, width))
    with atomic_write(path) as stream:
        picture.save(stream, format="PNG")


def overlay(image: Picture, mask: Picture) -> Picture:
    """Colour a photo by its mask: classes tinted and outlined, background dim and grey, 255 hatched.

    Args:
        image: H x W x 3 uint8 RGB.
        mask: H x W uint8.

    Returns:
        H x W x 3 uint8 RGB.
    """
    grey = image.mean(axis=2, keepdims=True)
    foreground = (mask != 0)[..., None]
    drawn = np.where(foreground, 0.35 * grey + 0.65 * LIGHT_PALETTE[mask], 0.55 * grey + 25)
    stripes = (np.add.outer(np.arange(mask.shape[0]), np.arange(mask.shape[1])) % 8 < 2).astype(np.intp)
    drawn = np.where((mask == IGNORE)[..., None], 0.2 * grey + 0.8 * HATCH[stripes], drawn)
    drawn[outline(mask)] = 255
    return np.rint(drawn).astype(np.uint8)


def outline(mask: Picture) -> npt.NDArray[np.bool_]:
    """Find the pixels whose right or lower neighbour is of another class.

    Args:
        mask: H x W uint8.

    Returns:
        H x W bool.
    """
    edge = np.zeros(mask.shape, dtype=bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    return edge


def heat(values: npt.NDArray[np.floating]) -> Picture:
    """Colour values by matplotlib's inferno: 0 is black, 1/2 red, 1 pale yellow.

    Args:
        values: Floats of any shape in [0, 1]; others are clipped, NaN counts as 0.

    Returns:
        uint8 RGB, one axis more.
    """
    from matplotlib import colormaps  # half a second, for which masks alone need not wait

    return colormaps["inferno"](np.clip(np.nan_to_num(values), 0, 1), bytes=True)[..., :3]


def heat_of(values: npt.NDArray[np.floating], size: tuple[int, int]) -> Picture:
    """Colour a difference map at another size, (width, height); see `heat`."""
    return heat(np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)))


def mask_of(mask: npt.NDArray[np.integer], size: tuple[int, int]) -> Picture:
    """A mask at another size, (width, height), by nearest neighbour."""
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))


def _strip(row: Row, keys: Sequence[str], width: int) -> Picture:
    """One row of cells, side by side, with gaps around and below."""
    height, true_width = row["image"].shape[:2]
    scale = min(width / true_width, 1.25 * width / height)
    size = max(1, round(true_width * scale)), max(1, round(height * scale))
    image = np.array(Image.fromarray(row["image"].astype(np.uint8)).resize(size, Image.Resampling.LANCZOS))
    strip = _paper(size[1] + GAP, len(keys) * (width + GAP) + GAP)
    for column, key in enumerate(keys):
        left = GAP + column * (width + GAP) + (width - size[0]) // 2
        strip[: size[1], left : left + size[0]] = _cell(row, key, image) if key in row else EMPTY
    return strip


def _cell(row: Row, key: str, image: Picture) -> Picture:
    size = image.shape[1], image.shape[0]
    if key == "image":
        return image
    if key in DIFFERENCES:
        return heat_of(row[key], size)  # type: ignore[arg-type]
    return overlay(image, mask_of(row[key], size))  # type: ignore[arg-type]


def _paper(height: int, width: int) -> Picture:
    return np.full((height, width, 3), PAPER, dtype=np.uint8)


def _header(keys: Sequence[str], width: int) -> Picture:
    sheet = Image.fromarray(_paper(LINE + GAP, len(keys) * (width + GAP) + GAP))
    draw = ImageDraw.Draw(sheet)
    for column, key in enumerate(keys):
        centre = GAP + column * (width + GAP) + width / 2
        draw.text((centre, GAP / 2 + LINE / 2), TITLES[key], INK, _font(), anchor="mm")
    return np.asarray(sheet)


def _shown(rows: Sequence[Row]) -> list[int]:
    """All values in the masks, ascending, background left out: it is the grey photo."""
    masks = [row[key] for row in rows for key in row if key in TITLES and key not in (*DIFFERENCES, "image")]
    return sorted({int(value) for mask in masks for value in np.unique(mask)} - {0})


def _legend(shown: Sequence[int], differences: bool, class_names: Mapping[int, str], width: int) -> Picture:
    """Swatches with names, as many lines as they need."""
    entries = [(_swatch(value), _name(value, class_names)) for value in shown]
    if differences:
        entries.append((heat(np.tile(np.linspace(0, 1, 90), (TEXT, 1))), "difference, 0 to 1"))
    places, left, top = [], 2 * GAP, GAP
    for swatch, name in entries:
        step = swatch.shape[1] + GAP + round(_font().getlength(name)) + 3 * GAP
        if left + step > width and left > 2 * GAP:
            left, top = 2 * GAP, top + LINE
        places.append((left, top))
        left += step
    sheet = Image.fromarray(_paper(top + LINE if entries else GAP, width))
    draw = ImageDraw.Draw(sheet)
    for (swatch, name), (x, y) in zip(entries, places, strict=True):
        sheet.paste(Image.fromarray(swatch), (x, y))
        draw.text((x + swatch.shape[1] + GAP, y + TEXT / 2), name, INK, _font(), anchor="lm")
    return np.asarray(sheet)


def _swatch(value: int) -> Picture:
    """A small example of how `overlay` draws a class on mid grey."""
    return overlay(np.full((TEXT, 2 * TEXT, 3), 150, np.uint8), np.full((TEXT, 2 * TEXT), value, np.uint8))


def _name(value: int, class_names: Mapping[int, str]) -> str:
    return IGNORED if value == IGNORE else class_names.get(value, f"class {value}")


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(TEXT)
