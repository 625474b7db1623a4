"""What all rooms share: a tiny devkit, and settings that keep two cores and the network out of trouble."""

import atexit
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: see ssdd_lightning.cli.main.entry_point
os.environ["WANDB_MODE"] = "offline"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="ssdd-tests-")  # fingerprints of the tests' own files

import numpy as np
import pytest
import torch

from ssdd_lightning.prepare.coco import prepare_coco
from ssdd_lightning.prepare.download import Obtaining
from ssdd_lightning.storage.masks import read_mask
from ssdd_lightning.synthetic.devkit import write_synthetic_devkit

torch.set_num_threads(1)
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _heard() -> None:
    """Let `caplog` hear what Lightning says, which some of its versions keep from the root logger."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).propagate = True


@pytest.fixture(scope="session")
def tiny_devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that holds VOCdevkit/VOC2012: 12 training and 4 validation images of 64 x 64, read-only by agreement."""
    root = tmp_path_factory.mktemp("tiny_devkit")
    write_synthetic_devkit(root, num_train=12, num_val=4, image_size=64, seed=0)
    return root


@pytest.fixture(scope="session")
def voc_animals() -> Path:
    """Folder of real photos, or skip."""
    folder = os.environ.get("SSDD_VOC_ANIMALS")
    if not folder:
        pytest.skip("SSDD_VOC_ANIMALS is not set: no real photos here")
    return Path(folder)


COCO_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
ANIMALS = {8: ("cat", 17), 10: ("cow", 21), 12: ("dog", 18), 17: ("sheep", 20)}  # VOC's index -> COCO's category


@pytest.fixture(scope="session")
def coco_source(tiny_devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny devkit as COCO 2014 hands out its own: train2014, val2014, annotations; 80 categories, ids with gaps."""
    voc = tiny_devkit / "VOCdevkit" / "VOC2012"
    source = tmp_path_factory.mktemp("coco")
    (source / "annotations").mkdir()
    known = {number: name for name, number in ANIMALS.values()} | {1: "person", 90: "toothbrush"}
    categories = [{"id": number, "name": known.get(number, f"thing {number}")} for number in COCO_IDS]
    for split in ("train", "val"):
        (source / f"{split}2014").mkdir()
        content = {"categories": categories, "images": [], "annotations": []}
        names = (voc / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
        for n, name in enumerate(names, start=1):
            file = f"COCO_{split}2014_{n:012d}.jpg"
            shutil.copy(voc / "JPEGImages" / f"{name}.jpg", source / f"{split}2014" / file)
            mask = read_mask(voc / "SegmentationClass" / f"{name}.png")
            content["images"].append({"id": n, "file_name": file, "height": mask.shape[0], "width": mask.shape[1]})
            for value in sorted(set(mask.ravel().tolist()) & set(ANIMALS)):
                rows, columns = np.nonzero(mask == value)
                top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
                box = [left, top, right, top, right, bottom, left, bottom]
                content["annotations"].append(
                    {
                        "image_id": n,
                        "category_id": ANIMALS[value][1],
                        "iscrowd": 0,
                        "segmentation": [[float(x) for x in box]],
                    }
                )
        (source / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(content))
    return source


@pytest.fixture(scope="session")
def tiny_coco(coco_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder COCO2014 that `ssdd prepare coco` makes of it, read-only by agreement."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `coco`)")
    out = tmp_path_factory.mktemp("prepared")
    return prepare_coco(out, Obtaining(out / "downloads", progress=False), coco_source).devkit


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch work on two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
