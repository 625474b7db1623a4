"""COCO's annotations: which instances an image shows, and its mask of classes."""

import importlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.data.labels import Labels
from ssdd_lightning.errors import InputError, shown
from ssdd_lightning.storage.decoding import decoding
from ssdd_lightning.storage.masks import MOST_PIXELS
from ssdd_lightning.storage.names import check_class_name, check_name

MOST_DRAWN = 1 << 30
"""Pixels that the regions of an image may have in all, each as large as the image; COCO's have some ten million."""
LONGEST_OUTLINE = 10_000_000
"""Pixels along the polygons of an object; COCO's have some thousand, and pycocotools keeps forty bytes of each."""


@dataclass(frozen=True)
class Photo:
    """One image of a split.

    Args:
        file: File name of the photo.
        height: Pixels.
        width: Pixels.
        instances: (class index, segmentation as COCO stores it) of each object.
        crowds: Segmentation of each region of many objects.
    """

    file: str
    height: int
    width: int
    instances: list[tuple[int, Any]] = field(default_factory=list)
    crowds: list[Any] = field(default_factory=list)

    @property
    def labels(self) -> Labels:
        """Classes that objects have; crowd regions do not count."""
        return tuple(sorted({index for index, _ in self.instances}))


@dataclass(frozen=True)
class Split:
    """The annotations of a split.

    Args:
        names: Class names, background first; the classes are COCO's categories by ascending id.
        photos: Image name -> photo.
    """

    names: tuple[str, ...]
    photos: Mapping[str, Photo]


def read_split(content: bytes, where: str) -> Split:
    """Parse a file `instances_*.json`.

    Args:
        content: The file.
        where: Its name, for messages.

    Raises:
        InputError: It is no such file, annotates nothing, gives a file to two images, or refers to images or
            categories that it does not name.
    """
    remedy = "expected COCO's JSON of images, annotations and categories; download it again"
    with decoding(where, remedy), _named(where):
        found = json.loads(content)
        categories = sorted((int(entry["id"]), check_class_name(str(entry["name"]))) for entry in found["categories"])
        index = {number: n for n, (number, _) in enumerate(categories, start=1)}
        photos = {int(image["id"]): Photo(_checked(image["file_name"]), *_size(image)) for image in found["images"]}
        for entry in found["annotations"]:
            photo, shape = photos[int(entry["image_id"])], entry["segmentation"]
            if entry.get("iscrowd"):
                photo.crowds.append(shape)
            else:
                photo.instances.append((index[int(entry["category_id"])], shape))
    if not 1 <= len(categories) < IGNORE or len(set(index)) != len(categories):
        raise InputError(f"{where} holds {len(categories)} categories, expected 1 to {IGNORE - 1} different ones.")
    twice = [file for file, count in Counter(photo.file for photo in photos.values()).items() if count > 1]
    if twice:
        raise InputError(f"{where} gives {len(twice)} files to two images each, such as {twice[0]}; download it again.")
    if not any(photo.instances for photo in photos.values()):
        raise InputError(f"{where} annotates no object in any of its {len(photos)} images; expected instances_*.json.")
    names = ("background", *(name for _, name in categories))
    return Split(names, {PurePosixPath(photo.file).stem: photo for photo in photos.values()})


def draw_mask(photo: Photo) -> npt.NDArray[np.uint8]:
    """Draw an image's objects: small ones over large ones, and all of them over crowd regions, which are ignored.

    Returns:
        H x W uint8: class indices, 255 for crowds.

    Raises:
        InputError: A segmentation is damaged, or there are too many, or pycocotools is not installed.
    """
    size = (photo.height, photo.width)
    if len(photo.instances) * photo.height * photo.width > MOST_DRAWN:
        raise InputError(
            f"the annotation of {photo.file} has {len(photo.instances)} objects in {photo.width} x {photo.height} "
            f"pixels, expected at most {MOST_DRAWN:,} pixels of all objects; do not trust it."
        )
    mask = np.zeros(size, dtype=np.uint8)
    for shape in photo.crowds:
        mask[decode(shape, size, photo.file)] = IGNORE
    regions = [(decode(shape, size, photo.file), index) for index, shape in photo.instances]
    for region, index in sorted(regions, key=lambda pair: -int(pair[0].sum())):
        mask[region] = index
    return mask


def decode(shape: Any, size: tuple[int, int], where: str) -> npt.NDArray[np.bool_]:  # noqa: ANN401
    """Turn COCO's polygons or run lengths into a H x W bool array; none true without a polygon of three corners.

    Raises:
        InputError: It is neither, or of another size, or pycocotools is not installed.
    """
    with decoding(f"the annotation of {where}", "its segmentation is damaged; download it again"):
        return _decode_runs(shape, size) if isinstance(shape, Mapping) else _decode_polygons(shape, size)


def _decode_runs(shape: Mapping[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Runs of pixels outside and inside in turn, down the columns."""
    counts = shape["counts"]
    if not isinstance(counts, list):
        raise ValueError("compressed run lengths, which COCO 2014 has none of")
    if tuple(shape["size"]) != size or min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
        raise ValueError(f"runs of {sum(counts)} pixels for an image of {size[1]} x {size[0]}")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size[::-1]).T


def _decode_polygons(shape: Sequence[Sequence[float]], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    coco = require_pycocotools()
    polygons = [[float(x) for x in polygon] for polygon in shape]
    if any(len(polygon) % 2 or not np.all(np.abs(polygon) <= 2 * max(size)) for polygon in polygons):
        # pycocotools believes all that it is told, and takes memory for a line to any point
        raise ValueError("a polygon that leads far out of the image")
    if sum(np.abs(np.diff(np.reshape(polygon, (-1, 2)), axis=0)).sum() for polygon in polygons) > LONGEST_OUTLINE:
        raise ValueError(f"polygons of more than {LONGEST_OUTLINE:,} pixels")
    areas = [polygon for polygon in polygons if len(polygon) >= 6]  # pycocotools would take two corners for a box
    if not areas:
        return np.zeros(size, dtype=bool)
    decoded: npt.NDArray[np.bool_] = coco.decode(coco.merge(coco.frPyObjects(areas, *size))).astype(bool)
    return decoded


def require_pycocotools() -> Any:  # noqa: ANN401 - a module without types
    """Import `pycocotools.mask`.

    Raises:
        InputError: It is not installed.
    """
    try:
        return importlib.import_module("pycocotools.mask")
    except ImportError as error:
        raise InputError(
            "COCO's annotations need pycocotools; install it with `pip install 'ssdd-lightning[coco]'`."
        ) from error


@contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    height, width = int(image["height"]), int(image["width"])
    if min(height, width) < 1 or height * width > MOST_PIXELS:
        raise InputError(f"{shown(image['file_name'])} is said to have {width:.3g} x {height:.3g} pixels.")
    return height, width


def _checked(file: str) -> str:
    if PurePosixPath(file).name != file or "\\" in file or PurePosixPath(file).suffix != ".jpg":
        raise InputError(f"expected the name of a .jpg file, found {file!r}; do not trust this file.")
    check_name(PurePosixPath(file).stem, "its images")
    return file
