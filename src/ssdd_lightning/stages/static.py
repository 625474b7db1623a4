"""Stage 2, static region refinement (4.1): learn the difference between K0 and A0, then merge them into seed masks."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ssdd_lightning.crf import CRFOptions
from ssdd_lightning.functional.losses import difference_loss, segmentation_loss
from ssdd_lightning.functional.refinement import bad_samples, difference_target, failed_classes, valid_pixels
from ssdd_lightning.nn.segmentation import SegmentationNetwork
from ssdd_lightning.nn.ssdd import SSDD, SSDDOutput, resize_logits, resize_mask
from ssdd_lightning.stages.base import Batch
from ssdd_lightning.stages.segmentation import SegmentationStage


class StaticRefinementModule(SegmentationStage):
    """Train DD-Net on knowledge K0 and advice A0 beside a segmentation network on K0 (Eq. 6 to 10).

    `predict` merges K0 and A0 at image size into seed masks m_D0 and writes both difference maps.

    Args:
        num_classes: C, background included; comes from the data.
        network: the segmentation network; called with the number of classes.
        ssdd: the SSDD module; called with the number of classes and the channels of e_h and e_l.
        mask_stride: masks and DD-Net work at 1/mask_stride of the input (4 in the paper).
        bad_sample_rule: an image takes no part in the difference loss if "any" (authors' code) or "all" (paper) of
            its classes failed (Eq. 16).
        balanced_difference_loss: average difference and agreement pixels separately (authors' code) instead of the
            plain pixel mean (paper).
        average_difference_loss: halve the sum of its two terms (authors' code) instead of adding them (paper).
        per_class_loss: mean within each class, then over classes (Eq. 8 as printed); false is the plain mean over
            pixels (authors' code), which leans to background while training is short.
        test_scales: scales averaged when the segmentation branch is tested.
        test_flip: average over the horizontal flip too.
        test_crf: dense CRF after the average.
        crf: preset, widths and weights of the CRF after the average, such as {bilateral_sxy: 40}; null
            is the preset psa, made for photos of 500 pixels.
        backbone_weights: weights the backbone starts from; the paper's are the classification stage's checkpoint.
        learning_rate: of the backbone.
        new_learning_rate: of all other layers.
        momentum: of SGD.
        weight_decay: of SGD.
        schedule: "cosine" (SSDD) or "poly".
    """

    predicts = ("mask", "d_knowledge", "d_advice")

    def __init__(
        self,
        num_classes: int,
        network: Callable[[int], SegmentationNetwork] = SegmentationNetwork,
        ssdd: Callable[[int, int, int], SSDD] = SSDD,
        mask_stride: int = 4,
        bad_sample_rule: Literal["any", "all"] = "any",
        balanced_difference_loss: bool = True,
        average_difference_loss: bool = False,
        per_class_loss: bool = True,
        test_scales: Sequence[float] = (1.0,),
        test_flip: bool = False,
        test_crf: bool = False,
        crf: CRFOptions = CRFOptions(),
        backbone_weights: str | None = "imagenet",
        learning_rate: float = 1e-3,
        new_learning_rate: float = 1e-2,
        momentum: float = 0.9,
        weight_decay: float = 2e-4,
        schedule: Literal["cosine", "poly"] = "cosine",
    ) -> None:
        super().__init__(
            num_classes,
            network(num_classes),
            mask_stride,
            test_scales,
            test_flip,
            test_crf,
            crf,
            backbone_weights=backbone_weights,
            learning_rate=learning_rate,
            new_learning_rate=new_learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
            schedule=schedule,
        )
        self.save_hyperparameters()
        self.ssdd = ssdd(num_classes, self.network.high_channels, self.network.low_channels)
        self.bad_sample_rule = bad_sample_rule
        self.balanced = balanced_difference_loss
        self.average = average_difference_loss
        self.per_class_loss = per_class_loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """L_static = L_base + L_diff0 (Eq. 9)."""
        size = self.mask_size(batch["image"])
        knowledge, advice = resize_mask(batch["knowledge"], size), resize_mask(batch["advice"], size)
        output = self.network(batch["image"])
        refined: SSDDOutput = self.ssdd(output.high, output.low, knowledge, advice, batch["image_labels"])
        # Eq. 7
        base = segmentation_loss(resize_logits(output.logits, size), knowledge, self.per_class_loss)
        diff = self.difference_loss(refined, knowledge, advice, batch["image_labels"])
        self.log_dict({"train/loss": base + diff, "train/base": base, "train/diff0": diff}, prog_bar=True)
        self.log("train/advice_taken", _share_taken(refined.mask, knowledge, advice))
        self._pictures = {"image": batch["image_raw"], "knowledge": knowledge, "advice": advice, **maps_of(refined)}
        return base + diff

    def difference_loss(self, refined: SSDDOutput, knowledge: Tensor, advice: Tensor, image_labels: Tensor) -> Tensor:
        """L_diff0 (Eq. 6) without the bad training samples (Eq. 16)."""
        target, valid = difference_target(knowledge, advice), valid_pixels(knowledge, advice)
        failed = failed_classes(knowledge, advice, image_labels, self.ssdd.failed_ratio)
        keep = ~bad_samples(failed, image_labels, self.bad_sample_rule)
        terms = [
            difference_loss(logits, target, keep, valid, self.balanced)
            for logits in (refined.knowledge_logits, refined.advice_logits)
        ]
        return sum(terms, torch.zeros_like(terms[0])) / (len(terms) if self.average else 1)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Seed masks m_D0 (Eq. 10) and difference maps at image size."""
        output = self.network(batch["image_raw"])
        size = self.mask_size(batch["image_raw"])
        refined = self.ssdd(output.high, output.low, batch["knowledge"], batch["advice"], batch["image_labels"], size)
        pictures = maps_of(refined)
        return {
            "name": batch["name"],
            "mask": list(refined.mask),
            "d_knowledge": list(pictures["d_knowledge"]),
            "d_advice": list(pictures["d_advice"]),
        }


def maps_of(refined: SSDDOutput) -> dict[str, Tensor]:
    """Refined mask and the difference maps d_K and d_A (B x H x W float in [0, 1]) of an SSDD module's output."""
    return {
        "refined": refined.mask,
        "d_knowledge": refined.knowledge_logits.detach().float().sigmoid()[:, 0],
        "d_advice": refined.advice_logits.detach().float().sigmoid()[:, 0],
    }


def _share_taken(refined: Tensor, knowledge: Tensor, advice: Tensor) -> Tensor:
    """Share of the difference pixels where the merge took the advice."""
    differ = difference_target(knowledge, advice).bool()
    return ((refined == advice) & differ).sum() / differ.sum().clamp(min=1)
