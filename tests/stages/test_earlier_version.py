"""A checkpoint of the version before options became values: its stage loads, segments and is tested."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ssdd_lightning.cli.main import main
from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.folders.segment_checkpoint import load_stage
from ssdd_lightning.stages import DynamicRefinementModule
from tests.helpers.stages import STAGES, write_stage

NETWORK = {
    "class_path": "ssdd_lightning.SegmentationNetwork",
    "init_args": {
        **{"backbone": "test_efficientnet", "head": "largefov", "output_stride": 16, "head_channels": 8, "dilation": 1},
        **{"decoder_options": None, "freeze_norm": False, "frozen_layers": [], "checkpointing": False},
    },
}
SSDD = {
    "class_path": "ssdd_lightning.SSDD",
    "init_args": {
        **{"width": 8, "frozen_norm": False, "dd_bias": 0.3, "class_bias": 1.0, "background_bias": 0.0},
        "failed_ratio": 0.5,
    },
}
HYPER_PARAMETERS = {  # word for word what the code of revision cf5400d wrote
    "_class_path": "ssdd_lightning.DynamicRefinementModule",
    "num_classes": 3,
    "network": NETWORK,
    "ssdd": SSDD,
    **{"mask_stride": 4, "crf_iterations": 3, "alpha": 0.5, "sub_target": "d1", "diff2_target": "d1"},
    **{"bad_sample_rule": "any", "exclude_bad_from_diff2": True, "balanced_difference_loss": True},
    **{"average_difference_loss": False, "per_class_loss": True, "test_scales": [1.0], "test_flip": False},
    **{"test_crf": False, "crf": None, "backbone_weights": None, "static_checkpoint": None, "learning_rate": 0.002},
    **{"new_learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.0002, "schedule": "cosine"},
    "_instantiator": "pytorch_lightning.cli.instantiate_module",
}


@pytest.fixture(scope="module")
def earlier(tiny_devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with what that version kept; the names of the tensors are the same today."""
    root = tmp_path_factory.mktemp("earlier")
    masks = tiny_devkit / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    data = {"root": tiny_devkit, "knowledge": masks, "classes": ["cat", "dog"], "augmentation": {"crop_size": 32}}
    config = write_stage(root / "dynamic.yaml", "DynamicRefinementModule", root / "today", data)
    assert main(["fit", f"--config={config}", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=0"]) == 0
    content = torch.load(root / "today" / "checkpoints" / "last.ckpt", weights_only=True)
    kept = [
        *("epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks", "optimizer_states"),
        *("lr_schedulers", "hparams_name"),
    ]
    old: dict[str, Any] = {key: content[key] for key in kept}
    old["hyper_parameters"] = HYPER_PARAMETERS
    old["ssdd_classes"] = {"names": ["background", *VOC_CLASSES[1:]], "indices": [0, 8, 12]}
    torch.save(old, root / "earlier.ckpt")
    return root / "earlier.ckpt"


def test_it_loads(earlier: Path) -> None:
    stage = DynamicRefinementModule.load_from_checkpoint(earlier)
    assert (stage.testing.scales, stage.testing.flip, stage.testing.crf) == ((1.0,), False, False)
    assert stage.optimization.learning_rate == 0.002
    assert {module.biases.dd_bias for module in stage.modules() if hasattr(module, "biases")} == {0.3}
    for name, tensor in torch.load(earlier, weights_only=True)["state_dict"].items():
        assert torch.equal(stage.state_dict()[name], tensor)


def test_it_segments_and_is_tested(earlier: Path) -> None:
    stage, table = load_stage(earlier, torch.device("cpu"))
    assert tuple(table.selected_names) == ("background", "cat", "dog")
    with torch.no_grad():
        assert stage(torch.zeros(1, 3, 40, 48, dtype=torch.uint8)).shape == (1, 3, 40, 48)
    config = earlier.parent / "dynamic.yaml"
    content = yaml.safe_load(config.read_text())
    assert content["model"]["init_args"]["testing"] == STAGES["DynamicRefinementModule"]["testing"]
    words = [f"--config={config}", f"--ckpt_path={earlier}", f"--trainer.default_root_dir={earlier.parent / 'out'}"]
    assert main(["test", *words]) == 0
    assert len(list((earlier.parent / "out" / "test").glob("*.png"))) == 2, "the images of val with these classes"
