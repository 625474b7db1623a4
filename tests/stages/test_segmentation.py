from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssdd_lightning.functional.losses import segmentation_loss
from ssdd_lightning.functional.totals import Total
from ssdd_lightning.nn import SegmentationOutput
from ssdd_lightning.stages import SegmentationModule
from ssdd_lightning.stages.values import TestProtocol
from tests.helpers.networks import Segmenter
from tests.helpers.steps import Build, Step

LEVEL = 12  # a pixel of red 12 * c shows class c


class RedNetwork(Segmenter):
    """Reads the class off the red channel."""

    def forward(self, image: Tensor) -> SegmentationOutput:
        image = image.float()
        centres = LEVEL * torch.arange(self.num_classes)[None, :, None, None]
        logits = -(image[:, :1] - centres).abs() / LEVEL
        return SegmentationOutput(image, image, logits)


@pytest.fixture
def truth() -> Tensor:
    mask = torch.zeros(1, 21, 30, dtype=torch.long)
    mask[:, 4:15, 3:12] = 1
    mask[:, 8:19, 16:27] = 3
    return mask


@pytest.fixture
def photo(truth: Tensor) -> Tensor:
    image = torch.full((1, 3, *truth.shape[1:]), 100, dtype=torch.uint8)
    image[:, 0] = (truth * LEVEL).to(torch.uint8)
    return image


def test_loss_is_cross_entropy_at_the_masks_size(build: Build, step: Step, batch: dict[str, Any]) -> None:
    stage = build(SegmentationModule)
    loss, _ = step(stage, batch)
    assert stage._pictures["knowledge"].shape == (2, 16, 16)
    assert loss.isfinite()
    logits = nn.functional.interpolate(stage.network(batch["image"]).logits, (16, 16), mode="bilinear")
    torch.testing.assert_close(loss, segmentation_loss(logits, batch["knowledge"][:, 2::4, 2::4]))


def test_per_class_loss_changes_the_mean(build: Build, step: Step, batch: dict[str, Any]) -> None:
    stages = [build(SegmentationModule, per_class_loss=per_class) for per_class in (False, True)]
    for stage in stages:  # one class is all that this network sees, so the rare classes cost more
        stage.network.head.classifier[1].bias.data[0] = 3.0
    plain, per_class = (step(stage, batch)[0] for stage in stages)
    assert per_class > 1.2 * plain


def test_padding_gets_no_gradient(
    build: Build,
    step: Step,
    batch: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = build(SegmentationModule, mask_stride=1)
    kept = []

    def keep_logits(logits: Tensor, mask: Tensor, per_class: bool, total: Total) -> Tensor:
        logits.retain_grad()
        kept.append(logits)
        return segmentation_loss(logits, mask, per_class, total)

    monkeypatch.setattr("ssdd_lightning.stages.segmentation.segmentation_loss", keep_logits)
    step(stage, batch)[0].backward()
    grad = kept[0].grad.abs().sum(1)
    assert (grad[batch["valid"]] > 0).all()
    assert not grad[~batch["valid"]].any()


def test_a_batch_of_nothing_but_padding_costs_nothing_and_stays_connected(
    build: Build, step: Step, batch: dict[str, Any]
) -> None:
    batch["knowledge"].fill_(255)
    loss, _ = step(build(SegmentationModule), batch)
    assert loss == 0
    loss.backward()


@pytest.mark.parametrize(("stride", "size"), [(1, (65, 64)), (4, (17, 16)), (8, (9, 8))])
def test_mask_size_rounds_up(build: Build, stride: int, size: tuple[int, int]) -> None:
    assert build(SegmentationModule, mask_stride=stride).mask_size(torch.zeros(1, 3, 65, 64)) == size


@pytest.mark.parametrize("flip", [False, True])
def test_protocol_gives_masks_at_image_size(build: Build, photo: Tensor, truth: Tensor, flip: bool) -> None:
    stage = build(SegmentationModule, network=RedNetwork, testing=TestProtocol((1.0,), flip, crf=False))
    torch.testing.assert_close(stage.segment(photo), truth)


def test_scales_take_part(build: Build, photo: Tensor, truth: Tensor) -> None:
    coarse = build(SegmentationModule, network=RedNetwork, testing=TestProtocol((0.25,), crf=False)).segment(photo)
    assert coarse.shape == truth.shape
    assert 0.7 < (coarse == truth).float().mean() < 1


def test_crf_is_optional(build: Build, photo: Tensor, truth: Tensor) -> None:
    with_crf = build(SegmentationModule, network=RedNetwork, testing=TestProtocol((1.0,)))
    without = build(SegmentationModule, network=RedNetwork, testing=TestProtocol((1.0,), crf=False))
    assert without.test_crf is None
    photo[0, 0, 17, 5] = LEVEL  # one odd pixel on even ground
    assert without.segment(photo)[0, 17, 5] == 1
    smoothed = with_crf.segment(photo)
    assert smoothed.shape == truth.shape
    assert smoothed[0, 17, 5] == 0


def test_image_labels_restrict_the_prediction_but_not_the_test(build: Build, photo: Tensor, truth: Tensor) -> None:
    stage = build(SegmentationModule, network=RedNetwork, testing=TestProtocol((1.0,), crf=False))
    labels = torch.tensor([[True, True, False, False]])
    batch = {"image_raw": photo, "image_labels": labels, "name": ["a"], "mask": truth}
    assert stage.predict_step(batch, 0)["mask"][0].unique().tolist() == [0, 1]
    assert stage.test_step(batch, 0)["mask"][0].unique().tolist() == [0, 1, 3]


def test_scores_are_means_over_the_classes_that_occur(build: Build, photo: Tensor, truth: Tensor) -> None:
    stage = build(SegmentationModule, network=RedNetwork, testing=TestProtocol((1.0,), crf=False))
    wrong = truth.clone()
    wrong[truth == 3] = 2
    batch = {"image": photo, "image_raw": photo, "name": ["a"]}
    for mask, miou in ((truth, 1.0), (wrong, 0.5)):  # 0 and 1 right; 2 and 3 wrong
        stage.test_step({**batch, "mask": mask}, 0)
        stage.on_test_epoch_end()
        stage.validation_step({**batch, "mask": mask}, 0)
        stage.on_validation_epoch_end()
        assert float(stage.logged["test/miou"]) == pytest.approx(miou)
        assert float(stage.logged["val/miou"]) == pytest.approx(miou)
