"""Checkpoints of the tiniest networks on the tiny devkit, for cat (8) and dog (12) alone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ssdd_lightning.folders.segment_checkpoint import load_stage
from ssdd_lightning.pipeline.lightning import run_command
from ssdd_lightning.storage.masks import read_image
from tests.helpers.stages import write_stage

STAGES: dict[str, dict[str, Any]] = {
    "SegmentationModule": {
        "testing": {"scales": [0.5, 1.0], "flip": True, "crf": False},
        "crf": {"bilateral_sxy": 20},
    },
    "ClassificationModule": {},
}
OPTIMIZATION = {"learning_rate": 0.05, "new_learning_rate": 0.05}


@pytest.fixture(scope="session")
def trained(tiny_devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stage name -> checkpoint, and under "config" the YAML of the segmentation stage."""
    out, found = tmp_path_factory.mktemp("trained"), {}
    data = {
        "root": tiny_devkit,
        "classes": ["cat", "dog"],
        "knowledge": tiny_devkit / "VOCdevkit" / "VOC2012" / "SegmentationClass",
        "augmentation": {"crop_size": 64},
        "batch_size": 2,
    }
    trainer = {"max_epochs": 2, "limit_val_batches": 0}
    for stage, options in STAGES.items():
        path = out / f"{stage}.yaml"
        write_stage(path, stage, out / stage, data, trainer=trainer, optimization=OPTIMIZATION, **options)
        found[f"config of {stage}"] = path
        run_command(["fit", f"--config={path}"])
        found[stage] = out / stage / "checkpoints" / "last.ckpt"
    content = torch.load(found["SegmentationModule"], weights_only=True)
    last = content["state_dict"]["network.head.classifier.1.weight"]
    last.copy_(torch.randn(last.shape, generator=torch.Generator().manual_seed(1)))  # masks that show all classes
    torch.save(content, found["SegmentationModule"])
    network = load_stage(found["SegmentationModule"], torch.device("cpu"))[0].network
    photos = sorted((tiny_devkit / "VOCdevkit" / "VOC2012" / "JPEGImages").glob("*.jpg"))
    with torch.no_grad():  # no class is ahead of the others everywhere
        logits = [network(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None])[-1] for path in photos[:4]]
    content["state_dict"]["network.head.classifier.1.bias"] -= torch.stack([x.mean((0, 2, 3)) for x in logits]).mean(0)
    torch.save(content, found["SegmentationModule"])
    return found


@pytest.fixture(scope="session")
def checkpoint(trained: dict[str, Path]) -> Path:
    """Checkpoint of a segmentation stage."""
    return trained["SegmentationModule"]


@pytest.fixture
def old_checkpoint(checkpoint: Path, tmp_path: Path) -> Path:
    """The same, written before checkpoints kept their classes."""
    content = torch.load(checkpoint, weights_only=True)
    del content["ssdd_classes"]
    torch.save(content, tmp_path / "old.ckpt")
    return tmp_path / "old.ckpt"
