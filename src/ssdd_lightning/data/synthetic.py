"""A synthetic VOC devkit: weakly-supervised segmentation in miniature, without a download."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from tqdm import tqdm

from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.data.synthetic_scene import Scene, render_scene
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.files import atomic_write
from ssdd_lightning.storage.masks import write_mask

MARKER = "synthetic.json"
_GENERATOR = 1  # raise it when the same settings draw other pictures
_YEARS = {"train": 2007, "val": 2008, "test": 2009}
_SMALLEST = 32

Range = tuple[int, int]


@dataclass(frozen=True)
class _Settings:
    """What decides how a picture looks; its number and split are added by `_render`."""

    seed: int
    labels: dict[str, int]
    heights: Range
    widths: Range

    def to_json(self) -> str:
        """What identifies this devkit, to tell whether one on disk is the same."""
        content = {
            "generator": _GENERATOR,
            "seed": self.seed,
            "classes": self.labels,
            "heights": self.heights,
            "widths": self.widths,
        }
        return json.dumps(content, indent=2) + "\n"


def write_synthetic_devkit(
    root: Path,
    *,
    num_train: int = 240,
    num_val: int = 80,
    num_test: int = 0,
    classes: Sequence[str] | int = ("cat", "cow", "dog", "sheep"),
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
        classes: Names of the classes, or their number. A mask's value is VOC's index of the class if all are
            VOC's names, else the position in this list, from 1.
        image_size: ((lowest, highest) height, (lowest, highest) width) in pixels, ends included; an integer
            draws squares of that side.
        seed: Another seed, another devkit.

    Returns:
        The folder `VOC2012`.

    Raises:
        InputError: An argument is out of range, or the folder holds another devkit.
    """
    counts = {"train": num_train, "val": num_val, "test": num_test}
    settings = _settings(classes, image_size, seed)
    if num_train < 1 or min(counts.values()) < 0:
        raise InputError(f"expected at least one training image and no negative number, found {counts}.")
    folder = Path(root) / "VOCdevkit" / "VOC2012"
    _claim(folder, settings)
    missing = [sample for sample in _samples(counts) if not _is_written(folder, *sample)]
    for split, number in tqdm(missing, desc="synthetic devkit", unit="image", disable=not missing):
        _write_sample(folder, settings, split, number)
    _write_lists(folder, counts)
    return folder


def _settings(classes: Sequence[str] | int, image_size: int | tuple[Range, Range], seed: int) -> _Settings:
    heights, widths = ((image_size, image_size),) * 2 if isinstance(image_size, int) else image_size
    if not all(_SMALLEST <= low <= high for low, high in (heights, widths)):
        raise InputError(
            f"image_size: expected (lowest, highest) height and width, each at least {_SMALLEST}, found {image_size}."
        )
    if seed < 0:
        raise InputError(f"seed: expected a number from 0, found {seed}.")
    return _Settings(seed, _label_table(classes), (heights[0], heights[1]), (widths[0], widths[1]))


def _label_table(classes: Sequence[str] | int) -> dict[str, int]:
    """Mask value of each class name."""
    if isinstance(classes, int):
        voc = VOC_CLASSES[1 : max(classes, 0) + 1]
        classes = voc if len(voc) == classes else [f"class{n + 1:03d}" for n in range(classes)]
    if isinstance(classes, str) or not 1 <= len(classes) <= 254 or len(set(classes)) < len(classes):
        raise InputError(f"classes: expected 1 to 254 different names, or their number, found {classes!r}.")
    if set(classes) <= set(VOC_CLASSES[1:]):
        return {name: VOC_CLASSES.index(name) for name in classes}
    return {name: index for index, name in enumerate(classes, start=1)}


def _claim(folder: Path, settings: _Settings) -> None:
    """Leave the settings in an empty folder; in any other, see that they are the same."""
    marker = folder / MARKER
    if marker.is_file():
        if marker.read_text() != settings.to_json():
            raise InputError(
                f"{folder} holds a synthetic devkit of other settings (see {MARKER} there); "
                "remove it or write elsewhere."
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"expected an empty folder or a synthetic devkit, found other files in {folder}; write elsewhere."
        )
    _write_text(marker, settings.to_json())


def _samples(counts: dict[str, int]) -> Iterator[tuple[str, int]]:
    return ((split, number) for split, count in counts.items() for number in range(count))


def _name(split: str, number: int) -> str:
    return f"{_YEARS[split]}_{number + 1:06d}"


def _paths(folder: Path, split: str, number: int) -> tuple[Path, Path, Path]:
    name = _name(split, number)
    return (
        folder / "JPEGImages" / f"{name}.jpg",
        folder / "SegmentationClass" / f"{name}.png",
        folder / "Annotations" / f"{name}.xml",
    )


def _is_written(folder: Path, split: str, number: int) -> bool:
    paths = _paths(folder, split, number)
    return all(path.is_file() for path in (paths[:1] if split == "test" else paths))


def _write_sample(folder: Path, settings: _Settings, split: str, number: int) -> None:
    image_path, mask_path, annotation_path = _paths(folder, split, number)
    scene, quality = _render(settings, split, number)
    stream = io.BytesIO()
    Image.fromarray(scene.image).save(stream, "JPEG", quality=quality)
    with atomic_write(image_path) as file:
        file.write(stream.getvalue())
    if split != "test":
        write_mask(mask_path, scene.mask)
        names = {label: name for name, label in settings.labels.items()}
        _write_text(annotation_path, _annotation(image_path.name, scene, names))


def _render(settings: _Settings, split: str, number: int) -> tuple[Scene, int]:
    """The scene and its JPEG quality; the classes take turns in being certain to be visible."""
    key = (list(_YEARS).index(split), number)
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=key))
    height = int(rng.integers(settings.heights[0], settings.heights[1] + 1))
    width = int(rng.integers(settings.widths[0], settings.widths[1] + 1))
    quality = int(rng.integers(75, 96))
    labels = list(settings.labels.values())
    return render_scene(rng, height, width, labels[number % len(labels)], labels), quality


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


def _write_lists(folder: Path, counts: dict[str, int]) -> None:
    numbers = {**counts, "trainaug": counts["train"]}
    for split, count in numbers.items():
        path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        source = "train" if split == "trainaug" else split
        text = "".join(f"{_name(source, number)}\n" for number in range(count))
        if count and not (path.is_file() and path.read_text() == text):
            _write_text(path, text)


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())
