"""Stage 3, dynamic region refinement (4.2): the labels are refined at every step while the network trains."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.crf import CRFOptions, DenseCRF
from ssdd_lightning.functional.losses import difference_loss, segmentation_loss
from ssdd_lightning.functional.refinement import (
    bad_samples,
    difference_target,
    failed_classes,
    present_argmax,
    valid_pixels,
)
from ssdd_lightning.nn.segmentation import SegmentationNetwork
from ssdd_lightning.nn.ssdd import SSDD, resize_logits, resize_mask
from ssdd_lightning.stages.base import Batch
from ssdd_lightning.stages.segmentation import SegmentationStage
from ssdd_lightning.stages.static import maps_of


class DynamicRefinementModule(SegmentationStage):
    """Train a segmentation network on labels that two SSDD modules refine in every step (Eq. 11 to 15).

    Args:
        num_classes: C, background included; comes from the data.
        network: the segmentation network; called with the number of classes. Its head is the main branch; a second
            head of the same design is the sub branch.
        ssdd: the SSDD modules; called with the number of classes and the channels of e_h and e_l.
        mask_stride: masks, CRF and DD-Nets work at 1/mask_stride of the input (4 in the paper).
        crf_iterations: mean-field iterations of the CRF inside the training step.
        alpha: share of m_D0 in the sub branch's loss (Eq. 14).
        sub_target: the sub branch's other label, "d1" (paper) or "d2" (authors' code).
        diff2_target: what the sub branch is compared with for d_D1, "d1" (paper) or "d2" (authors' code).
        bad_sample_rule: an image takes no part in a difference loss if "any" (authors' code) or "all" (paper) of its
            classes failed (Eq. 16).
        exclude_bad_from_diff2: leave bad samples out of L_diff2 as well (paper), not only out of L_diff1.
        balanced_difference_loss: average difference and agreement pixels separately (authors' code) instead of the
            plain pixel mean (paper).
        average_difference_loss: quarter the sum of its four terms (authors' code) instead of adding them (paper).
        per_class_loss: mean within each class, then over classes (Eq. 8 as printed); false is the plain mean over
            pixels (authors' code), which leans to background while training is short.
        test_scales: scales whose probabilities are averaged in `test` and `predict`.
        test_flip: average over the horizontal flip too.
        test_crf: pass the averaged probabilities through the dense CRF, 10 iterations at image size.
        crf: preset, widths and weights of both CRFs (in the step, after the average), such as {bilateral_sxy: 40}; null
            is the preset psa, made for photos of 500 pixels.
        backbone_weights: weights the backbone starts from; the paper's are the classification stage's checkpoint.
        static_checkpoint: checkpoint of a static stage that backbone, both branches and both SSDD modules start from,
            instead of from backbone_weights; null is the paper's start.
        learning_rate: of the backbone.
        new_learning_rate: of all other layers.
        momentum: of SGD.
        weight_decay: of SGD.
        schedule: "cosine" (SSDD) or "poly".
    """

    def __init__(
        self,
        num_classes: int,
        network: Callable[[int], SegmentationNetwork] = SegmentationNetwork,
        ssdd: Callable[[int, int, int], SSDD] = SSDD,
        mask_stride: int = 4,
        crf_iterations: int = 3,
        alpha: float = 0.5,
        sub_target: Literal["d1", "d2"] = "d1",
        diff2_target: Literal["d1", "d2"] = "d1",
        bad_sample_rule: Literal["any", "all"] = "any",
        exclude_bad_from_diff2: bool = True,
        balanced_difference_loss: bool = True,
        average_difference_loss: bool = False,
        per_class_loss: bool = True,
        test_scales: Sequence[float] = (0.5, 0.75, 1.0, 1.25, 1.5),
        test_flip: bool = True,
        test_crf: bool = True,
        crf: CRFOptions = CRFOptions(),
        backbone_weights: str | None = "imagenet",
        static_checkpoint: str | None = None,
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
            static_checkpoint,
            backbone_weights=backbone_weights,
            learning_rate=learning_rate,
            new_learning_rate=new_learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
            schedule=schedule,
        )
        self.save_hyperparameters()
        channels = (num_classes, self.network.high_channels, self.network.low_channels)
        self.sub_head = self.network.new_head()
        self.ssdd1 = ssdd(*channels)
        self.ssdd2 = ssdd(*channels)
        self.crf = DenseCRF(iterations=crf_iterations, **asdict(crf))
        self.alpha = alpha
        self.sub_target = sub_target
        self.diff2_target = diff2_target
        self.bad_sample_rule = bad_sample_rule
        self.exclude_bad_from_diff2 = exclude_bad_from_diff2
        self.balanced = balanced_difference_loss
        self.average = average_difference_loss
        self.per_class_loss = per_class_loss

    def static_parts(self) -> list[tuple[nn.Module, str]]:
        """Both branches start as the static stage's one, both SSDD modules as its SSDD."""
        branches = (self.network, "network."), (self.sub_head, "network.head.")
        return [*branches, (self.ssdd1, "ssdd."), (self.ssdd2, "ssdd.")]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """L_dynamic = L_main + L_sub + L_diff1 + L_diff2 (Eq. 15)."""
        labels, size = batch["image_labels"], self.mask_size(batch["image"])
        features = self.network.backbone(batch["image"])
        low = self.network.low(features)
        high, main = self.network.head(features)
        sub_high, sub = self.sub_head(features)
        main, sub = resize_logits(main, size), resize_logits(sub, size)
        inside = resize_mask(batch["inside"].long(), size).bool()

        m_d0 = resize_mask(batch["knowledge"], size)
        m_k1, m_a1 = (
            m.masked_fill(~inside, IGNORE) for m in self.knowledge_and_advice(main, batch["image_raw"], labels)
        )
        first = self.ssdd1(high, low, m_k1, m_a1, labels)
        m_d1 = first.mask
        second = self.ssdd2(sub_high, low, m_d0, m_d1, labels)
        m_d2 = second.mask
        m_sub = present_argmax(sub.detach(), labels).masked_fill(~inside, IGNORE)

        # Eq. 11
        loss_main = self.segmentation_loss(main, m_d2)
        # Eq. 14
        loss_sub = self.alpha * self.segmentation_loss(sub, m_d0)
        loss_sub = loss_sub + (1 - self.alpha) * self.segmentation_loss(sub, m_d1 if self.sub_target == "d1" else m_d2)
        # Eq. 12
        keep: Tensor | None = self.good_samples(m_k1, m_a1, labels)
        diff1 = self.difference_loss(first.knowledge_logits, m_k1, m_a1, keep)
        diff1 = diff1 + self.difference_loss(first.advice_logits, m_k1, m_a1, keep)
        # Eq. 13
        keep = self.good_samples(m_d0, m_d1, labels) if self.exclude_bad_from_diff2 else None
        compared = m_d1 if self.diff2_target == "d1" else m_d2
        diff2 = self.difference_loss(second.knowledge_logits, m_d0, m_sub, keep, per_image=False)
        diff2 = diff2 + self.difference_loss(second.advice_logits, m_sub, compared, keep, per_image=False)
        difference = (diff1 + diff2) / (4 if self.average else 1)

        loss: Tensor = loss_main + loss_sub + difference  # Eq. 15
        self.log_dict({"train/loss": loss, "train/main": loss_main, "train/sub": loss_sub}, prog_bar=True)
        self.log_dict({"train/diff1": diff1, "train/diff2": diff2, "train/changed": (m_d2 != m_d0).float().mean()})
        self._pictures = {"image": batch["image_raw"], "knowledge": m_d0, "advice": m_d1, **maps_of(second)}
        return loss

    @torch.no_grad()
    def knowledge_and_advice(self, logits: Tensor, image: Tensor, image_labels: Tensor) -> tuple[Tensor, Tensor]:
        """K1, the network's own opinion, and A1, what the dense CRF makes of it.

        Args:
            logits: B x C x H x W float, main branch at the masks' size.
            image: B x 3 x h x w uint8 RGB without colour jitter.
            image_labels: B x C bool, column 0 (background) true.

        Returns:
            Two masks B x H x W long.
        """
        present = logits.float().masked_fill(~image_labels[:, :, None, None], float("-inf"))
        small = F.interpolate(image.float(), logits.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
        advice = self.crf(small.round().to(torch.uint8), present.softmax(1), image_labels)
        return present.argmax(1), present_argmax(advice, image_labels)

    def segmentation_loss(self, logits: Tensor, mask: Tensor) -> Tensor:
        """L_seg (Eq. 8)."""
        return segmentation_loss(logits, mask, self.per_class_loss)

    def good_samples(self, knowledge: Tensor, advice: Tensor, image_labels: Tensor) -> Tensor:
        """Images that are no bad training samples (Eq. 16), B bool."""
        failed = failed_classes(knowledge, advice, image_labels, self.ssdd1.failed_ratio)
        return ~bad_samples(failed, image_labels, self.bad_sample_rule)

    def difference_loss(
        self, logits: Tensor, knowledge: Tensor, advice: Tensor, keep: Tensor | None, per_image: bool = True
    ) -> Tensor:
        """One term J of Eq. 12 and 13: predict where two masks differ."""
        target, valid = difference_target(knowledge, advice), valid_pixels(knowledge, advice)
        return difference_loss(logits, target, keep, valid, self.balanced, per_image)
