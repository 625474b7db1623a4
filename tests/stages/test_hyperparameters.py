"""A stage built in Python trains, and its checkpoint loads like that of one from a YAML."""

from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer

from ssdd_lightning import SegmentationModule, StaticRefinementModule, VOCDataModule
from ssdd_lightning.cli.main import main
from ssdd_lightning.crf import CRFOptions
from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.nn import SSDD, SegmentationNetwork
from ssdd_lightning.stages.hyperparameters import plain_hyperparameters
from ssdd_lightning.stages.values import Optimization, TestProtocol
from ssdd_lightning.storage.masks import read_mask

NETWORK = partial(SegmentationNetwork, backbone="test_efficientnet", head="largefov", output_stride=16, head_channels=8)


@pytest.fixture(scope="module")
def fitted(tiny_devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StaticRefinementModule, Path]:
    """A static stage after a step, and its checkpoint."""
    root = tmp_path_factory.mktemp("python")
    masks = tiny_devkit / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    names = root / "names.txt"
    names.write_text("\n".join(path.stem for path in sorted(masks.glob("*.png"))[:4]))
    data = VOCDataModule(
        tiny_devkit, knowledge=masks, advice=masks, augmentation=Augmentation(32), batch_size=2, num_workers=0
    )
    data.splits = data.splits.__class__(str(names), str(names), str(names), str(names))
    torch.manual_seed(0)
    stage = StaticRefinementModule(
        data.num_classes,
        NETWORK,
        partial(SSDD, width=8),
        per_class_loss=False,
        testing=TestProtocol((0.5, 1.0), flip=True, crf=False),
        crf=CRFOptions("deeplab"),
        backbone_weights=None,
        optimization=Optimization(optimizer=partial(torch.optim.AdamW, weight_decay=0.1)),
    )
    trainer = Trainer(
        default_root_dir=root,
        max_steps=1,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(stage, data)
    trainer.save_checkpoint(root / "stage.ckpt")
    return stage, root / "stage.ckpt"


def test_a_checkpoint_holds_plain_values_and_loads(fitted: tuple[StaticRefinementModule, Path]) -> None:
    stage, path = fitted
    torch.load(path, weights_only=True)  # nothing but tensors and plain values
    loaded = StaticRefinementModule.load_from_checkpoint(path, weights_only=True)
    assert (loaded.testing, loaded.per_class_loss, loaded.crf_options) == (stage.testing, False, stage.crf_options)
    assert isinstance(loaded.optimization.optimizer_of(loaded.parameter_groups()), torch.optim.AdamW)
    for name, tensor in stage.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor)


def test_segment_takes_it(fitted: tuple[StaticRefinementModule, Path], tiny_devkit: Path, tmp_path: Path) -> None:
    photo = sorted((tiny_devkit / "VOCdevkit" / "VOC2012" / "JPEGImages").glob("*.jpg"))[0]
    assert main(["segment", str(fitted[1]), str(photo), f"--out={tmp_path}", "--device=cpu"]) == 0
    assert read_mask(tmp_path / f"{photo.stem}.png").max() <= 20


def test_what_cannot_be_kept_is_said() -> None:
    given = {"num_classes": 3, "network": lambda classes: NETWORK(classes)}
    with pytest.warns(UserWarning, match="will not keep the argument network of SegmentationModule"):
        kept = plain_hyperparameters(SegmentationModule, given)
    assert kept.keys() == {"_instantiator", "_class_path", "num_classes"}
