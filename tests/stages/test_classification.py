from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ssdd_lightning.cli.main import main
from ssdd_lightning.nn import ClassificationNetwork
from ssdd_lightning.stages import ClassificationModule
from tests.helpers.stages import write_stage
from tests.helpers.steps import Build, Reached, Step


@pytest.fixture
def module(build: Build, classifier: Callable[..., ClassificationNetwork]) -> Build:
    """A classifier in eval mode whose maps are positive somewhere for every class."""

    def make(**options: Any) -> Any:
        stage = build(ClassificationModule, network=classifier, **options).eval()
        stage.network.classifier.weight.data.abs_()
        return stage

    return make


def test_loss_is_multi_label_soft_margin_of_the_foreground(
    build: Build,
    step: Step,
    batch: dict[str, Any],
    classifier: Callable[..., ClassificationNetwork],
    reached: Reached,
) -> None:
    stage = build(ClassificationModule, network=classifier)
    loss, logged = step(stage, batch)
    torch.manual_seed(1)
    logits = stage.network(batch["image"])
    assert logits.shape == (2, 3)
    torch.testing.assert_close(loss, F.multilabel_soft_margin_loss(logits, batch["image_labels"][:, 1:].float()))
    assert torch.equal(logged["train/loss"], loss)
    trained = reached(loss, stage)
    assert "network.classifier.weight" in trained
    assert any("backbone" in name for name in trained)


def test_maps_are_zero_for_absent_and_reach_one_for_present_classes(module: Build, batch: dict[str, Any]) -> None:
    maps = module().score_maps(batch["image_raw"], batch["image_labels"])
    assert maps.shape == (2, 4, 64, 64)
    assert maps.min() >= 0
    assert maps.max() <= 1
    highest = maps[:, 1:].amax((2, 3))
    torch.testing.assert_close(highest, batch["image_labels"][:, 1:].float())


@pytest.mark.parametrize("alpha", [1.0, 4.0, 16.0])
def test_background_is_a_power_of_what_the_classes_leave(module: Build, batch: dict[str, Any], alpha: float) -> None:
    maps = module(background_alpha=alpha).score_maps(batch["image_raw"], batch["image_labels"])
    torch.testing.assert_close(maps[:, 0], (1 - maps[:, 1:].amax(1)) ** alpha)


def test_constant_background_wins_over_alpha(module: Build, batch: dict[str, Any]) -> None:
    powered, constant = module(), module(background_constant=0.25)
    maps = constant.score_maps(batch["image_raw"], batch["image_labels"])
    assert (maps[:, 0] == 0.25).all()
    torch.testing.assert_close(maps[:, 1:], powered.score_maps(batch["image_raw"], batch["image_labels"])[:, 1:])


def test_flips_make_the_maps_of_a_mirrored_image_mirrored(module: Build, batch: dict[str, Any]) -> None:
    image, labels = batch["image_raw"], batch["image_labels"]
    for flip in (True, False):
        stage = module(flip=flip, scales=(1.0, 0.5))
        same = torch.allclose(
            stage.score_maps(image.flip(-1), labels), stage.score_maps(image, labels).flip(-1), atol=1e-4
        )
        assert same == flip


def test_every_scale_takes_part(module: Build, batch: dict[str, Any]) -> None:
    one, two = module(scales=(1.0,)), module(scales=(1.0, 0.5))
    first, second = (stage.score_maps(batch["image_raw"], batch["image_labels"]) for stage in (one, two))
    assert not torch.allclose(first, second, atol=1e-3)


def test_prediction_holds_background_and_present_classes_only(module: Build, batch: dict[str, Any]) -> None:
    stage = module()
    prediction = stage.predict_step(batch, 0)
    assert prediction["name"] == ["a", "b"]
    assert [classes.tolist() for classes in prediction["map_classes"]] == [[0, 1], [0, 2, 3]]
    maps = stage.score_maps(batch["image_raw"], batch["image_labels"])
    torch.testing.assert_close(prediction["map"][0], maps[0, [0, 1]])
    torch.testing.assert_close(prediction["map"][1], maps[1, [0, 2, 3]])


def test_maps_need_no_gradient(module: Build, batch: dict[str, Any]) -> None:
    assert not module().score_maps(batch["image_raw"], batch["image_labels"]).requires_grad


def test_a_single_class_is_trained_and_scored(tiny_devkit: Path, tmp_path: Path) -> None:
    voc = tiny_devkit / "VOCdevkit" / "VOC2012"
    name = (voc / "ImageSets" / "Segmentation" / "train.txt").read_text().split()[0]
    (tmp_path / "few.txt").write_text(f"{name}\n")
    (tmp_path / "labels.csv").write_text(f"name,labels\n{name},cat\n")
    few = str(tmp_path / "few.txt")
    data = {"root": tiny_devkit, "classes": ["cat"], "labels": tmp_path / "labels.csv", "batch_size": 1}
    splits = {"splits": dict.fromkeys(("train", "val", "test", "predict"), few), "augmentation": {"crop_size": 32}}
    path = write_stage(tmp_path / "stage.yaml", "ClassificationModule", tmp_path, {**data, **splits})
    assert main(["fit", f"--config={path}"]) == 0
    scores = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["ssdd_scores"]
    assert scores["val/mean_ap"] == 1.0
