"""Stages of the smallest networks, as the YAML files that the command line reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

BACKBONE = "test_efficientnet"
NETWORK = {"backbone": BACKBONE, "freeze_norm": False}
CLASSIFICATION = {"class_path": "ssdd_lightning.ClassificationNetwork", "init_args": NETWORK}
AFFINITY = {"class_path": "ssdd_lightning.AffinityNet", "init_args": NETWORK}
SEGMENTATION = {
    "class_path": "ssdd_lightning.SegmentationNetwork",
    "init_args": {**NETWORK, "output_stride": 16, "head_channels": 8, "dilation": 1},
}
SEGMENTED = {"network": SEGMENTATION, "testing": {"scales": [1.0], "flip": False, "crf": False}}
REFINED = {**SEGMENTED, "ssdd": {"class_path": "ssdd_lightning.SSDD", "init_args": {"width": 8}}}
STAGES: dict[str, dict[str, Any]] = {
    "ClassificationModule": {"network": CLASSIFICATION},
    "AffinityModule": {"network": AFFINITY},
    "StaticRefinementModule": REFINED,
    "SegmentationModule": SEGMENTED,
    "DynamicRefinementModule": REFINED,
}

SMALL: dict[str, object] = {
    "trainer.max_epochs": 1,
    "trainer.limit_val_batches": 1,
    "trainer.accelerator": "cpu",
    "trainer.enable_progress_bar": "false",
    "data.augmentation.crop_size": 32,
    "data.augmentation.resize": "[32,48]",
    "data.num_workers": 0,
    "model.init_args.network.init_args.backbone": BACKBONE,
}
"""Settings that make a shipped experiment run on the tiny devkit."""
TABLE = [
    *("knowledge K", "advice A", "static refinement m_D0", "oracle merge of K and A"),
    *("baseline on seeds", "baseline on seeds, goes on", "dynamic model"),
]
"""Rows of the table of a run with the default options, whose dynamic stage goes on from the baseline."""
SMALL_RUN = {
    **SMALL,
    "trainer.logger": "false",
    "trainer.callbacks": "null",
    "data.batch_size": 6,
    "data.classes": "[cat,cow,dog,sheep]",
}
"""The same for `ssdd run`."""


def write_stage(
    path: Path,
    stage: str,
    out: Path,
    data: Mapping[str, object],
    *,
    dataset: str = "voc",
    trainer: Mapping[str, object] | None = None,
    **init_args: Any,
) -> Path:
    """Write the YAML file of a stage that runs for one epoch on the CPU and leaves everything in `out`."""
    content: dict[str, Any] = {
        "dataset": dataset,
        "model": {
            "class_path": f"ssdd_lightning.{stage}",
            "init_args": {**STAGES[stage], "backbone_weights": None, **init_args},
        },
        "data": {key: str(value) if isinstance(value, Path) else value for key, value in data.items()},
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": str(out),
            **(trainer or {}),
        },
    }
    content["data"]["num_workers"] = 0
    path.write_text(yaml.safe_dump(content))
    return path
