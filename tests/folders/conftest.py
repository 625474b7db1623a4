"""Checkpoints of the tiniest networks on the tiny devkit, for cat (8) and dog (12) alone."""

import pytest
import torch
import yaml

from ssdd_lightning.folders.segment_checkpoint import load_stage
from ssdd_lightning.pipeline.lightning import run_command
from ssdd_lightning.storage.masks import read_image

NETWORK = {"backbone": "test_efficientnet", "output_stride": 16, "freeze_norm": False}
STAGES = {
    "SegmentationModule": {
        "network": {
            "class_path": "ssdd_lightning.SegmentationNetwork",
            "init_args": {**NETWORK, "head_channels": 8, "dilation": 1},
        },
        "testing": {"scales": [0.5, 1.0], "flip": True, "crf": False},
        "crf": {"bilateral_sxy": 20},
    },
    "ClassificationModule": {
        "network": {"class_path": "ssdd_lightning.ClassificationNetwork", "init_args": NETWORK},
    },
}


@pytest.fixture(scope="session")
def trained(tiny_devkit, tmp_path_factory):
    """Stage name -> checkpoint, and under "config" the YAML of the segmentation stage."""
    out, found = tmp_path_factory.mktemp("trained"), {}
    for stage, options in STAGES.items():
        content = {
            "model": {
                "class_path": f"ssdd_lightning.{stage}",
                "init_args": {
                    **options,
                    "backbone_weights": None,
                    "optimization": {"learning_rate": 0.05, "new_learning_rate": 0.05},
                },
            },
            "data": {
                "root": str(tiny_devkit),
                "classes": ["cat", "dog"],
                "knowledge": str(tiny_devkit / "VOCdevkit" / "VOC2012" / "SegmentationClass"),
                "augmentation": {"crop_size": 64},
                "batch_size": 2,
                "num_workers": 0,
            },
            "trainer": {
                "accelerator": "cpu",
                "max_epochs": 2,
                "logger": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "limit_val_batches": 0,
                "default_root_dir": str(out / stage),
            },
        }
        found[f"config of {stage}"] = out / f"{stage}.yaml"
        found[f"config of {stage}"].write_text(yaml.safe_dump(content))
        run_command(["fit", f"--config={out / stage}.yaml"])
        found[stage] = out / stage / "checkpoints" / "last.ckpt"
    content = torch.load(found["SegmentationModule"], weights_only=True)
    last = content["state_dict"]["network.head.classifier.1.weight"]
    last.copy_(torch.randn(last.shape, generator=torch.Generator().manual_seed(1)))  # masks that show all classes
    torch.save(content, found["SegmentationModule"])
    network = load_stage(found["SegmentationModule"], torch.device("cpu"))[0].network
    photos = sorted((tiny_devkit / "VOCdevkit" / "VOC2012" / "JPEGImages").glob("*.jpg"))
    with torch.no_grad():  # no class is ahead of the others everywhere
        logits = [network(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None]).logits for path in photos[:4]]
    content["state_dict"]["network.head.classifier.1.bias"] -= torch.stack([x.mean((0, 2, 3)) for x in logits]).mean(0)
    torch.save(content, found["SegmentationModule"])
    return found


@pytest.fixture(scope="session")
def checkpoint(trained):
    """Checkpoint of a segmentation stage."""
    return trained["SegmentationModule"]


@pytest.fixture
def old_checkpoint(checkpoint, tmp_path):
    """The same, written before checkpoints kept their classes."""
    content = torch.load(checkpoint, weights_only=True)
    del content["ssdd_classes"]
    torch.save(content, tmp_path / "old.ckpt")
    return tmp_path / "old.ckpt"
