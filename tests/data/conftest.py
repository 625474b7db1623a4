"""A devkit of four small images that every test of this room may break in its own way."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from ssdd_lightning.storage.masks import write_mask
from tests.helpers.files import write_photo

SHOWN = {"a_cat": ("cat",), "b_dog": ("dog",), "c_both": ("cat", "dog"), "d_bus": ("bus",)}
INDEX = {"bus": 6, "cat": 8, "dog": 12}
SIZE = (40, 60)  # height, width


def truth_of(name: str) -> np.ndarray:
    """Blocks of the image's classes on background, with a frame of 255."""
    mask = np.zeros(SIZE, dtype=np.uint8)
    for place, label in enumerate(SHOWN[name]):
        mask[8:30, 6 + 26 * place : 28 + 26 * place] = INDEX[label]
    mask[:2] = 255
    return mask


def write_annotation(path: Path, labels: Iterable[str]) -> None:
    objects = "".join(
        f"<object><name>{label}</name><difficult>1</difficult><part><name>head</name></part></object>"
        for label in labels
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation>{objects}</annotation>")


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """Folder in VOC's layout; lists `trainaug` and `val` hold all images."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    rng = np.random.default_rng(0)
    for folder in ("JPEGImages", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name, labels in SHOWN.items():
        write_photo(root / "JPEGImages" / f"{name}.jpg", SIZE, rng)
        write_mask(root / "SegmentationClass" / f"{name}.png", truth_of(name))
        write_annotation(root / "Annotations" / f"{name}.xml", labels)
    for split in ("trainaug", "val"):
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(SHOWN) + "\n")
    return root
