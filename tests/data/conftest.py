"""A devkit of four small images that every test of this room may break in its own way."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdd_lightning.storage.masks import write_mask

SHOWN = {"a_cat": ("cat",), "b_dog": ("dog",), "c_both": ("cat", "dog"), "d_bus": ("bus",)}
INDEX = {"bus": 6, "cat": 8, "dog": 12}
SIZE = (40, 60)  # height, width


def truth_of(name):
    """Blocks of the image's classes on background, with a frame of 255."""
    mask = np.zeros(SIZE, dtype=np.uint8)
    for place, label in enumerate(SHOWN[name]):
        mask[8:30, 6 + 26 * place : 28 + 26 * place] = INDEX[label]
    mask[:2] = 255
    return mask


def write_annotation(path, labels):
    objects = "".join(
        f"<object><name>{label}</name><difficult>1</difficult><part><name>head</name></part></object>"
        for label in labels
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation>{objects}</annotation>")


@pytest.fixture
def devkit(tmp_path):
    """Folder in VOC's layout; lists `trainaug` and `val` hold all images."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    rng = np.random.default_rng(0)
    for folder in ("JPEGImages", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name, labels in SHOWN.items():
        photo = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(photo).save(root / "JPEGImages" / f"{name}.jpg")
        write_mask(root / "SegmentationClass" / f"{name}.png", truth_of(name))
        write_annotation(root / "Annotations" / f"{name}.xml", labels)
    for split in ("trainaug", "val"):
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(SHOWN) + "\n")
    return root


@pytest.fixture
def voc_animals():
    """Folder of real photos, or skip."""
    folder = os.environ.get("SSDD_VOC_ANIMALS")
    if not folder:
        pytest.skip("SSDD_VOC_ANIMALS is not set: no real photos here")
    return Path(folder)
