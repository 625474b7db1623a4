"""A synthetic VOC devkit: weakly-supervised segmentation in miniature, without a download."""

import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.files import write_text
from ssdd_lightning.storage.masks import save_image, write_mask
from ssdd_lightning.storage.progress import Progress
from ssdd_lightning.synthetic.scene import Scene, render_scene

MARKER = "synthetic.json"
_GENERATOR = 2  # raise it when the same settings draw other pictures
_YEARS = {"train": 2007, "val": 2008, "test": 2009}
_SMALLEST = 32

Range = tuple[int, int]


def write_synthetic_devkit(
    root: Path,
    *,
    num_train: int = 200,
    num_val: int = 60,
    num_test: int = 0,
    classes: Sequence[str] = ("cat", "cow", "dog", "sheep"),
    image_size: int | tuple[Range, Range] = ((112, 144), (144, 192)),
    seed: int = 0,
) -> Path:
    """Write a devkit of drawn animals in VOC 2012's layout: images, masks, annotations and splits.

    Every picture depends on the seed, the classes, the sizes, its split and its number only, so more images
    can be asked for later without changing the present ones. Files appear whole or not at all; a second call
    writes only what is missing. `trainaug` lists the same images as `train`; test images have neither masks
    nor annotations. A split with at least as many images as classes shows each class.

    Args:
        root: Folder that receives `VOCdevkit/VOC2012`.
        num_train: Number of training images.
        num_val: Number of validation images.
        num_test: Number of test images.
        classes: Names of the classes. A mask's value is VOC's index of the class if all are VOC's names, else
            the position in this list, from 1.
        image_size: ((lowest, highest) height, (lowest, highest) width) in pixels, ends included; an integer
            draws squares of that side.
        seed: Another seed, another devkit.

    Returns:
        The folder `VOC2012`.

    Raises:
        InputError: An argument is out of range, or the folder holds another devkit.
    """
    counts = {"train": num_train, "val": num_val, "test": num_test}
    sizes = ((image_size, image_size),) * 2 if isinstance(image_size, int) else image_size
    _check(counts, classes, sizes, seed)
    known = set(classes) <= set(VOC_CLASSES[1:])
    table = {name: VOC_CLASSES.index(name) if known else n for n, name in enumerate(classes, start=1)}
    folder = Path(root) / "VOCdevkit" / "VOC2012"
    _claim(folder, {"generator": _GENERATOR, "seed": seed, "classes": table, "sizes": sizes})
    names = {split: [f"{_YEARS[split]}_{n + 1:06d}" for n in range(count)] for split, count in counts.items()}
    missing = [
        name for listed in names.values() for name in listed if not all(p.is_file() for p in _paths(folder, name))
    ]
    for name in Progress(missing, desc="synthetic devkit", unit="image", shown=bool(missing)):
        _write_sample(folder, name, table, sizes, seed)
    for split, listed in {**names, "trainaug": names["train"]}.items():
        if listed:
            write_text(folder / "ImageSets" / "Segmentation" / f"{split}.txt", "".join(f"{name}\n" for name in listed))
    return folder


def _check(counts: dict[str, int], classes: Sequence[str], sizes: tuple[Range, ...], seed: int) -> None:
    if counts["train"] < 1 or min(counts.values()) < 0:
        raise InputError(f"expected at least one training image and no negative number, found {counts}")
    if isinstance(classes, str) or not 1 <= len(classes) <= 254 or len(set(classes)) < len(classes):
        raise InputError(f"classes: expected 1 to 254 different names, found {classes!r}")
    if not all(_SMALLEST <= low <= high for low, high in sizes):
        raise InputError(
            f"image_size: expected (lowest, highest) height and width, each at least {_SMALLEST}, found {sizes}"
        )
    if seed < 0:
        raise InputError(f"seed: expected a number from 0, found {seed}")


def _claim(folder: Path, settings: dict[str, object]) -> None:
    """Leave the settings in an empty folder; in any other, see that they are the same."""
    marker, text = folder / MARKER, json.dumps(settings, indent=2) + "\n"
    if marker.is_file():
        if marker.read_text() != text:
            raise InputError(
                f"{folder} holds a synthetic devkit of other settings (see {MARKER} there); "
                "remove it or write elsewhere"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"expected an empty folder or a synthetic devkit, found other files in {folder}; write elsewhere"
        )
    write_text(marker, text)


def _paths(folder: Path, name: str) -> list[Path]:
    """The files of an image: photo, mask, annotation; of a test image, the photo alone."""
    kinds = {"JPEGImages": "jpg", "SegmentationClass": "png", "Annotations": "xml"}
    paths = [folder / kind / f"{name}.{suffix}" for kind, suffix in kinds.items()]
    return paths[:1] if name.startswith(str(_YEARS["test"])) else paths


def _write_sample(folder: Path, name: str, table: dict[str, int], sizes: tuple[Range, ...], seed: int) -> None:
    """Draw and write one image; the classes take turns in being certain to be visible."""
    year, number = map(int, name.split("_"))
    rng = np.random.default_rng([seed, year, number])
    (height, width), labels = (int(rng.integers(low, high + 1)) for low, high in sizes), list(table.values())
    scene = render_scene(rng, height, width, labels[(number - 1) % len(labels)], labels)
    quality = int(rng.integers(75, 96))
    photo, *truth = _paths(folder, name)
    save_image(photo, Image.fromarray(scene.image), format="JPEG", quality=quality)
    if truth:
        write_mask(truth[0], scene.mask)
        write_text(truth[1], _annotation(photo.name, scene, {label: name for name, label in table.items()}))


def _annotation(file_name: str, scene: Scene, names: dict[int, str]) -> str:
    """VOC's XML: size and objects, pixel coordinates counted from 1."""
    height, width = scene.mask.shape
    top = ElementTree.Element("annotation")
    _leaves(top, folder="VOC2012", filename=file_name)
    _leaves(ElementTree.SubElement(top, "source"), database="ssdd_lightning synthetic devkit")
    _leaves(ElementTree.SubElement(top, "size"), width=width, height=height, depth=3)
    _leaves(top, segmented=1)
    for box in scene.boxes:
        item = ElementTree.SubElement(top, "object")
        _leaves(item, name=names[box.label], pose="Unspecified", truncated=int(box.truncated), difficult=0)
        corners = ElementTree.SubElement(item, "bndbox")
        _leaves(corners, xmin=box.left + 1, ymin=box.top + 1, xmax=box.right + 1, ymax=box.bottom + 1)
    ElementTree.indent(top, "\t")
    return ElementTree.tostring(top, encoding="unicode") + "\n"


def _leaves(parent: ElementTree.Element, **texts: str | int) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = str(text)
