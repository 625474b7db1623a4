"""A network that shares no class with the package goes through every stage: from Python, a YAML, a checkpoint."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer

from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.nn import SSDD
from ssdd_lightning.stages import (
    AffinityModule,
    ClassificationModule,
    DynamicRefinementModule,
    SegmentationModule,
    StaticRefinementModule,
)
from ssdd_lightning.storage.masks import read_mask
from tests.helpers.networks import Affinities, Backbone, Boastful, Classifier, Headless, OwnStart, Segmenter
from tests.helpers.stages import write_stage
from tests.helpers.steps import Build, Reached, Step

SEGMENTERS: list[type[Any]] = [SegmentationModule, StaticRefinementModule, DynamicRefinementModule]
OWN = {"class_path": "tests.helpers.networks.Segmenter", "init_args": {"width": 4}}


def start(stage: SegmentationModule) -> Any:
    """Begin a fresh fit; return the stage's network."""
    stage.trainer = SimpleNamespace(ckpt_path=None)  # type: ignore[assignment]
    stage.on_fit_start()
    return stage.network


@pytest.mark.parametrize("stage", SEGMENTERS)
def test_a_step_reaches_all_of_it(
    build: Build, step: Step, reached: Reached, batch: dict[str, Any], stage: type[Any]
) -> None:
    module = build(stage, network=partial(Segmenter, width=4))
    assert module.network.width == 4
    loss, _ = step(module, batch)
    assert {name for name, _ in module.network.named_parameters()} <= reached(loss, module.network)
    group, *_ = module.parameter_groups()
    assert {id(p) for p in group["params"]} == {id(p) for p in module.network.backbone.parameters()}


def test_a_classifier_and_affinities_of_others(batch: dict[str, Any]) -> None:
    classifier = ClassificationModule(4, Classifier, backbone_weights=None)
    maps = classifier.score_maps(batch["image"], batch["image_labels"])
    assert maps.shape == (2, 4, 64, 64)
    affinities = AffinityModule(4, Affinities, backbone_weights=None)
    walked = affinities.walk(batch["image"], maps[:, 1:])
    torch.testing.assert_close(walked.sum(1), torch.ones(2, 64, 64))


def test_a_network_that_is_built_already_is_taken_as_it_is_and_given_again_to_load(tmp_path: Path) -> None:
    network = Segmenter(3)
    with pytest.warns(UserWarning, match="will not keep the argument network of SegmentationModule: a Segmenter"):
        stage = SegmentationModule(3, network, per_class_loss=False, backbone_weights=None)
    assert stage.network is network
    trainer = Trainer(accelerator="cpu", logger=False)
    trainer.strategy.connect(stage)
    trainer.save_checkpoint(tmp_path / "stage.ckpt")
    with pytest.warns(UserWarning, match="will not keep"):
        loaded = SegmentationModule.load_from_checkpoint(tmp_path / "stage.ckpt", network=Segmenter(3))
    assert loaded.per_class_loss is False
    torch.testing.assert_close(loaded.state_dict(), stage.state_dict())


@pytest.mark.parametrize("stage", SEGMENTERS)
def test_missing_members_are_named(stage: type[Any]) -> None:
    with pytest.raises(InputError, match=r"Headless cannot.*SegmentationLike lists, found no head, high_channels, low"):
        stage(3, Headless, backbone_weights=None)


def test_wrong_channels_are_found_before_the_first_step() -> None:
    stage = SegmentationModule(3, Boastful, backbone_weights=None)
    with pytest.raises(InputError, match=r"Boastful should turn.*e_l 1 x 100 x h x w.*found 1 x 8 x 32 x 48"):
        start(stage)


def test_starting_weights_are_its_own_affair(tmp_path: Path) -> None:
    def started(network: Any, source: str) -> Any:
        return start(SegmentationModule(3, network, backbone_weights=source))

    torch.manual_seed(0)
    before = Segmenter(3)
    torch.save(before.state_dict(), tmp_path / "before.pth")
    assert started(OwnStart, "0.25").backbone.early.weight.unique().tolist() == [0.25]
    network = Segmenter(3)
    weight = network.backbone.early.weight.clone()
    torch.testing.assert_close(started(lambda _: network, "imagenet").backbone.early.weight, weight)
    network = started(Segmenter, str(tmp_path / "before.pth"))
    torch.testing.assert_close(network.backbone.state_dict(), before.backbone.state_dict())
    assert not torch.equal(network.head.classifier.weight, before.head.classifier.weight)
    with pytest.raises(InputError, match="a file or null for the backbone, a Backbone, found 'offline'"):
        started(Segmenter, "offline")


def test_a_checkpoint_of_an_earlier_stage_starts_the_next_one(tmp_path: Path) -> None:
    classifier = ClassificationModule(3, Classifier)
    torch.save({"state_dict": classifier.state_dict()}, tmp_path / "classification.ckpt")
    stage = SegmentationModule(3, Segmenter, backbone_weights=str(tmp_path / "classification.ckpt"))
    torch.testing.assert_close(start(stage).backbone.state_dict(), classifier.network.backbone.state_dict())


def test_every_command_takes_it_from_a_yaml(tiny_devkit: Path, tmp_path: Path) -> None:
    masks = tiny_devkit / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    data = {"root": tiny_devkit, "knowledge": masks, "augmentation": {"crop_size": 32}, "batch_size": 6}
    out = tmp_path / "out"
    config = f"--config={write_stage(tmp_path / 'own.yaml', 'DynamicRefinementModule', out, data, network=OWN)}"
    assert main(["fit", config]) == 0
    checkpoint = out / "checkpoints" / "last.ckpt"
    assert main(["fit", config, "--trainer.max_epochs=2", f"--ckpt_path={checkpoint}"]) == 0
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 1
    assert main(["test", config]) == 0
    assert main(["predict", config]) == 0
    photo = sorted((tiny_devkit / "VOCdevkit" / "VOC2012" / "JPEGImages").glob("*.jpg"))[0]
    assert main(["segment", str(checkpoint), str(photo), f"--out={tmp_path}", "--device=cpu"]) == 0
    assert read_mask(tmp_path / f"{photo.stem}.png").max() <= 20
    loaded = DynamicRefinementModule.load_from_checkpoint(checkpoint, weights_only=True)
    assert isinstance(loaded.network, Segmenter)
    assert loaded.network.width == 4


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        ({"class_path": "tests.helpers.networks.Headless"}, "Headless cannot be the network of this stage"),
        ({"class_path": "tests.helpers.networks.Segmentor"}, "there is no class tests.helpers.networks.Segmentor"),
        ({"class_path": "nowhere.Segmenter"}, "there is no class nowhere.Segmenter"),
        ({**OWN, "init_args": {"widht": 4}}, "has no option '.*widht'.*did you mean .*width"),
        (
            {"class_path": "collections.Counter"},
            r"expected the class_path of a Module, found collections.Counter \(.*own.yaml, line \d+\)",
        ),
    ],
)
def test_what_is_wrong_in_a_yaml_is_said(
    tiny_devkit: Path, tmp_path: Path, network: dict[str, Any], sentence: str
) -> None:
    path = write_stage(tmp_path / "own.yaml", "SegmentationModule", tmp_path, {"root": tiny_devkit}, network=network)
    with pytest.raises(InputError, match=sentence):
        main(["fit", f"--config={path}"])


def test_a_stage_of_it_trains_from_python_and_loads(tiny_devkit: Path, tmp_path: Path) -> None:
    from ssdd_lightning import VOCDataModule
    from ssdd_lightning.data.augmentation import Augmentation

    masks = tiny_devkit / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    data = VOCDataModule(tiny_devkit, knowledge=masks, augmentation=Augmentation(32), batch_size=2, num_workers=0)
    stage = DynamicRefinementModule(data.num_classes, partial(Segmenter, width=4), partial(SSDD, width=8))
    trainer = Trainer(
        default_root_dir=tmp_path,
        max_steps=1,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(stage, data)
    trainer.save_checkpoint(tmp_path / "stage.ckpt")
    loaded = DynamicRefinementModule.load_from_checkpoint(tmp_path / "stage.ckpt", weights_only=True)
    torch.testing.assert_close(loaded.state_dict(), stage.state_dict())
    assert isinstance(loaded.network.backbone, Backbone)
