"""Stage 2, static region refinement (4.1): learn the difference between K0 and A0, then merge them into seed masks."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ssdd_lightning.crf import CRFOptions
from ssdd_lightning.functional.losses import difference_losses, segmentation_loss
from ssdd_lightning.functional.refinement import bad_samples, failed_classes, ssdd_merge
from ssdd_lightning.functional.totals import over_processes
from ssdd_lightning.metrics.difference import Detection, Watched
from ssdd_lightning.nn.inference import flipped_back, scaled_views
from ssdd_lightning.nn.protocols import SegmentationLike, built
from ssdd_lightning.nn.segmentation import SegmentationNetwork
from ssdd_lightning.nn.ssdd import SSDD, SSDDOutput, resize_logits, resize_mask
from ssdd_lightning.stages.base import Batch
from ssdd_lightning.stages.segmentation import SegmentationStage
from ssdd_lightning.stages.values import PLAIN, Optimization, TestProtocol


class StaticRefinementModule(SegmentationStage):
    """Train DD-Net on knowledge K0 and advice A0 beside a segmentation network on K0 (Eq. 6 to 10).

    `predict` merges K0 and A0 at image size into seed masks m_D0 and writes both difference maps.

    Args:
        num_classes: C, background included; comes from the data.
        network: the segmentation network; called with the number of classes, yields a `SegmentationLike`.
        ssdd: the SSDD module; called with the number of classes and the channels of e_h and e_l.
        mask_stride: masks and DD-Net work at 1/mask_stride of the input (4 in the paper).
        per_class_loss: L_seg is the mean within each class, then over classes (Eq. 8 as printed); false is the mean
            over pixels (the authors' code), which leans to background while training is short.
        testing: scales and flips that `predict` averages the difference maps over, and `test` the network's
            probabilities; CRF of `test`.
        crf: preset, widths and weights of the CRF after the average, such as
            {bilateral_sxy: 40}; the preset psa was made for photos of 500 pixels.
        backbone_weights: weights the backbone starts from; the paper's are the classification stage's checkpoint.
        optimization: learning rates, optimizer and schedule.
    """

    predicts = ("mask", "d_knowledge", "d_advice")
    only_used = (
        *("testing", "crf"),
        *(f"ssdd.init_args.biases.{name}" for name in ("dd_bias", "class_bias", "background_bias")),
    )

    def __init__(
        self,
        num_classes: int,
        network: Callable[[int], nn.Module] = SegmentationNetwork,
        ssdd: Callable[[int, int, int], SSDD] = SSDD,
        mask_stride: int = 4,
        per_class_loss: bool = True,
        testing: TestProtocol = PLAIN,
        crf: CRFOptions = CRFOptions(),
        backbone_weights: str | None = "imagenet",
        optimization: Optimization = Optimization(),
    ) -> None:
        super().__init__(
            num_classes,
            built(network, SegmentationLike, num_classes),
            mask_stride,
            testing,
            crf,
            backbone_weights,
            optimization,
        )
        self.save_hyperparameters()
        self.ssdd = ssdd(num_classes, self.network.high_channels, self.network.low_channels)
        self.per_class_loss = per_class_loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """L_static = L_base + L_diff0 (Eq. 9)."""
        size = self.mask_size(batch["image"])
        knowledge, advice = (resize_mask(mask, size) for mask in self.guides(batch))
        low, high, logits = self.network(batch["image"])
        refined: SSDDOutput = self.ssdd(high, low, knowledge, advice, batch["image_labels"])
        # Eq. 7
        base = segmentation_loss(resize_logits(logits, size), knowledge, self.per_class_loss, over_processes)
        # Eq. 6, without bad training samples (Eq. 16)
        bad = bad_samples(refined.failed)
        detectors = refined.knowledge_logits, refined.advice_logits
        terms = [(detected, knowledge, advice) for detected in detectors]
        diff = difference_losses(terms, ~bad, total=over_processes)
        losses = {"train/loss": base + diff, "train/base": base, "train/diff0": diff}
        self.log_training(losses, bar=list(losses))
        detection = Detection(terms, knowledge, advice, refined.mask, bad)
        self.watched = Watched({"ssdd0": detection}, logits=logits)
        self._pictures = {"image": batch["image_raw"], "knowledge": knowledge, "advice": advice, **maps_of(refined)}
        return base + diff

    def guides(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """K0 and A0 of a batch."""
        return self.guide(batch, "knowledge"), self.guide(batch, "advice")

    def protocol(self) -> dict[str, Any]:
        """Scales and flip, and the biases of the merge."""
        return {**super().protocol(), "biases": asdict(self.ssdd.biases)}

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Seed masks m_D0 (Eq. 10) and difference maps at image size."""
        maps = self.refine(batch)
        return {
            "name": batch["name"],
            "mask": list(maps["refined"]),
            "d_knowledge": list(maps["d_knowledge"]),
            "d_advice": list(maps["d_advice"]),
        }

    def look(self, batch: Batch) -> dict[str, Tensor]:
        """What `refine` returns, and what the network predicts at one scale."""
        image = batch["image_raw"]
        *_, logits = self.network(image)
        prediction = resize_logits(logits, image.shape[-2:]).argmax(1)
        return {"image": image, **self.refine(batch), "prediction": prediction}

    def refine(self, batch: Batch) -> dict[str, Tensor]:
        """K0, A0, m_D0 (Eq. 10) and the difference maps at image size, means over the scales and flips of `testing`."""
        image, (knowledge, advice), labels = batch["image_raw"], self.guides(batch), batch["image_labels"]
        scales, flip = self.testing.scales, self.testing.flip
        masks = [torch.cat((m, m.flip(-1))) if flip else m for m in (knowledge, advice)]
        sums = [torch.zeros(mask.shape, device=mask.device) for mask in (knowledge, advice)]
        for view in scaled_views(image, scales, flip):
            low, high, _ = self.network(view)
            refined = self.ssdd(high, low, *masks, labels.repeat(1 + flip, 1), self.mask_size(view))
            for total, differences in zip(sums, _differences(refined), strict=True):
                total += sum(flipped_back(differences, flip))
        d_knowledge, d_advice = (total / (len(scales) * (1 + flip)) for total in sums)
        failed = failed_classes(knowledge, advice, labels, self.ssdd.biases.failed_ratio)
        mask = ssdd_merge(knowledge, advice, d_knowledge, d_advice, labels, self.ssdd.biases, failed)
        maps = {"refined": mask, "d_knowledge": d_knowledge, "d_advice": d_advice}
        return {"knowledge": knowledge, "advice": advice, **maps}


def maps_of(refined: SSDDOutput) -> dict[str, Tensor]:
    """Refined mask and the difference maps d_K and d_A (B x H x W float in [0, 1]) of an SSDD module's output."""
    return dict(zip(("refined", "d_knowledge", "d_advice"), (refined.mask, *_differences(refined)), strict=True))


def _differences(refined: SSDDOutput) -> tuple[Tensor, Tensor]:
    logits = refined.knowledge_logits, refined.advice_logits
    d_knowledge, d_advice = (found.detach().float().sigmoid()[:, 0] for found in logits)
    return d_knowledge, d_advice
