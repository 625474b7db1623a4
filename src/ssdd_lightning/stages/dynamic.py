"""Stage 3, dynamic region refinement (4.2): the labels are refined at every step while the network trains."""

from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.crf import CRFOptions, DenseCRF
from ssdd_lightning.errors import InputError
from ssdd_lightning.functional.losses import difference_losses, segmentation_loss
from ssdd_lightning.functional.refinement import bad_samples, class_counts, present_argmax
from ssdd_lightning.functional.totals import Total, over_processes, own
from ssdd_lightning.metrics.difference import Detection, Watched
from ssdd_lightning.nn.par import PAR
from ssdd_lightning.nn.protocols import SegmentationLike, built
from ssdd_lightning.nn.segmentation import SegmentationNetwork
from ssdd_lightning.nn.ssdd import SSDD, SSDDOutput, resize_logits, resize_mask
from ssdd_lightning.stages.base import Batch
from ssdd_lightning.stages.segmentation import SegmentationStage, Start, static_start
from ssdd_lightning.stages.static import maps_of
from ssdd_lightning.stages.values import LabelRefinement, Optimization, TestProtocol

SMALLEST_SHARE = 0.01
"""Added to each class's share of the pixels: a class that the seeds of a batch do not show is not ruled out."""


def log_of_shares(counts: Tensor) -> Tensor:
    """Log of each class's share, with a floor for classes that are rare.

    Args:
        counts: C numbers of pixels.

    Returns:
        1 x C x 1 x 1 float.
    """
    return (counts / counts.sum().clamp(min=1) + SMALLEST_SHARE).log()[None, :, None, None]


def log_shares(mask: Tensor, num_classes: int, total: Total = own) -> Tensor:
    """Log of each class's share of the labelled pixels of a batch.

    Args:
        mask: B x H x W long, 255 = ignore.
        num_classes: C.
        total: Sums counts over the processes of a run.

    Returns:
        1 x C x 1 x 1 float.
    """
    return log_of_shares(total(class_counts(mask, mask != IGNORE, num_classes).sum(0)))


class Refinement(NamedTuple):
    """What one step makes before its losses; masks B x H x W long, 255 on padding.

    Attributes:
        main: B x C x H x W float, logits of the main branch at the masks' size.
        sub: B x C x H x W float, logits of the sub branch.
        knowledge: K1.
        advice: A1.
        first: SSDD_1(K1, A1); its mask is D1.
        seeds: m_D0.
        sub_mask: What the sub branch predicts, among the image's own classes.
        second: SSDD_2(m_D0, D1); its mask is D2.
    """

    main: Tensor
    sub: Tensor
    knowledge: Tensor
    advice: Tensor
    first: SSDDOutput
    seeds: Tensor
    sub_mask: Tensor
    second: SSDDOutput


class DynamicRefinementModule(SegmentationStage):
    """Train a segmentation network on labels that two SSDD modules refine in every step (Eq. 11 to 15).

    Args:
        num_classes: C, background included; comes from the data.
        network: the segmentation network; called with the number of classes, yields a `SegmentationLike`. Its head is
            the main branch; a second head of the same design is the sub branch.
        ssdd: the SSDD modules; called with the number of classes and the channels of e_h and e_l.
        mask_stride: masks, CRF and DD-Nets work at 1/mask_stride of the input (4 in the paper).
        refinement: how K1, A1 and D2 are made.
        per_class_loss: L_seg is the mean within each class, then over classes (Eq. 8 as printed); false is the mean
            over pixels (the authors' code), which leans to background while training is short.
        testing: scales, flip and CRF of `test` and `predict`.
        crf: preset, widths and weights of both CRFs (in the step, with weights times refinement.crf_weight, and after
            the average), such as {bilateral_sxy: 40}; the preset psa was made for photos of 500 pixels.
        backbone_weights: weights the backbone starts from; the paper's are the classification stage's checkpoint.
        static_checkpoint: checkpoint of a static stage that backbone, both branches and both SSDD modules start from,
            instead of from backbone_weights; null is the paper's start.
        network_checkpoint: checkpoint of a segmentation model, such as the plain baseline's, that backbone and both
            branches start from; the SSDD modules alone then start from static_checkpoint. It is for short fits: D1 is
            worth taking once the network sees more than its seeds do.
        optimization: learning rates, optimizer and schedule.
    """

    def __init__(
        self,
        num_classes: int,
        network: Callable[[int], nn.Module] = SegmentationNetwork,
        ssdd: Callable[[int, int, int], SSDD] = SSDD,
        mask_stride: int = 4,
        refinement: LabelRefinement = LabelRefinement(),
        per_class_loss: bool = True,
        testing: TestProtocol = TestProtocol(),
        crf: CRFOptions = CRFOptions(),
        backbone_weights: str | None = "imagenet",
        static_checkpoint: str | None = None,
        network_checkpoint: str | None = None,
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
            static_checkpoint,
        )
        self.save_hyperparameters()
        channels = (num_classes, self.network.high_channels, self.network.low_channels)
        self.sub_head = self.network.new_head().to(memory_format=torch.channels_last)
        self.ssdd1 = ssdd(*channels)
        self.ssdd2 = ssdd(*channels)
        self.refinement = refinement
        self.network_checkpoint = network_checkpoint
        if not refinement.train_ddnets:
            self.ssdd1.requires_grad_(False)
            self.ssdd2.requires_grad_(False)
        step_crf = asdict(crf.weighted(refinement.crf_weight))
        self.mapping: nn.Module = (
            PAR() if refinement.advice == "par" else DenseCRF(iterations=refinement.crf_iterations, **step_crf)
        )
        self.per_class_loss = per_class_loss

    def starts(self) -> list[Start]:
        """Both branches start from the one of an earlier stage, both SSDD modules from the static stage's.

        Raises:
            InputError: Nothing says which DD-Nets it starts from.
        """
        if not self.static_checkpoint:
            if self.network_checkpoint or not self.refinement.train_ddnets:
                cause = "network_checkpoint is given" if self.network_checkpoint else "refinement.train_ddnets is false"
                raise InputError(
                    f"{cause}; expected static_checkpoint to name the checkpoint of a static stage whose DD-Nets this "
                    "one starts from, found null."
                )
            return []
        branches = [(self.get_submodule("network"), "network."), (self.sub_head, "network.head.")]
        modules = [(self.ssdd1, "ssdd."), (self.ssdd2, "ssdd.")]
        if not self.network_checkpoint:
            return [static_start(self.static_checkpoint, [*branches, *modules])]
        network = Start("network_checkpoint", "a segmentation model", self.network_checkpoint, branches)
        return [static_start(self.static_checkpoint, modules), network]

    def refine(self, batch: Batch) -> Refinement:
        """Run the network and both SSDD modules on a batch; no loss yet."""
        labels, size = batch["image_labels"], self.mask_size(batch["image"])
        features = self.network.backbone(batch["image"])
        low = self.network.low(features)
        high, main = self.network.head(features)
        sub_high, sub = self.sub_head(features)
        main, sub = resize_logits(main, size), resize_logits(sub, size)
        valid = resize_mask(batch["valid"].long(), size).bool()

        m_d0 = resize_mask(self.guide(batch, "knowledge"), size)
        # pictures are made by one process alone, and not in training mode
        prior = self.refinement.prior * log_shares(m_d0, main.shape[1], over_processes if self.training else own)
        m_k1, m_a1 = (
            m.masked_fill(~valid, IGNORE) for m in self.knowledge_and_advice(main + prior, batch["image_raw"], labels)
        )
        first = self.ssdd1(high, low, m_k1, m_a1, labels)
        second = self.ssdd2(sub_high, low, m_d0, first.mask, labels)
        m_sub = present_argmax(sub.detach() + prior, labels).masked_fill(~valid, IGNORE)
        return Refinement(main, sub, m_k1, m_a1, first, m_d0, m_sub, second)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """L_dynamic = L_main + L_sub + L_diff1 + L_diff2 (Eq. 15)."""
        main, sub, m_k1, m_a1, first, m_d0, m_sub, second = self.refine(batch)
        m_d1, m_d2 = first.mask, second.mask

        # Eq. 11
        loss_main = self.segmentation_loss(main, m_d2)
        # Eq. 14
        alpha = self.refinement.alpha
        loss_sub = alpha * self.segmentation_loss(sub, m_d0) + (1 - alpha) * self.segmentation_loss(sub, m_d1)
        # Eq. 12
        bad = bad_samples(first.failed)
        terms = [(first.knowledge_logits, m_k1, m_a1), (first.advice_logits, m_k1, m_a1)]
        diff1 = difference_losses(terms, ~bad, total=over_processes)
        detection1 = Detection(terms, m_k1, m_a1, m_d1, bad)
        # Eq. 13
        bad = bad_samples(second.failed)
        terms = [(second.knowledge_logits, m_d0, m_sub), (second.advice_logits, m_sub, m_d1)]
        diff2 = difference_losses(terms, ~bad, per_image=False, total=over_processes)
        detection2 = Detection(terms, m_d0, m_d1, m_d2, bad)

        loss: Tensor = loss_main + loss_sub + diff1 + diff2  # Eq. 15
        changed = (m_d2 != m_d0).float().mean()
        shown = {"train/loss": loss, "train/main": loss_main, "train/sub": loss_sub}
        others = {"train/diff1": diff1, "train/diff2": diff2, "train/changed": changed}
        self.log_training({**shown, **others}, bar=list(shown))
        masks = {"D0": m_d0, "D1": m_d1, "D2": m_d2}
        self.watched = Watched({"ssdd1": detection1, "ssdd2": detection2}, masks, main)
        self._pictures = {"image": batch["image_raw"], "knowledge": m_d0, "advice": m_d1, **maps_of(second)}
        return loss

    def look(self, batch: Batch) -> dict[str, Tensor]:
        """m_D0 as knowledge, D1 as advice, D2 with the second module's difference maps, and what is predicted."""
        made = self.refine(batch)
        masks = {"knowledge": made.seeds, "advice": made.first.mask, **maps_of(made.second)}
        return {"image": batch["image_raw"], **masks, "prediction": made.main.argmax(1)}

    @torch.compiler.disable  # the CRF of the CPU is numba's machine code, which a tracer cannot enter
    @torch.no_grad()
    def knowledge_and_advice(self, logits: Tensor, image: Tensor, image_labels: Tensor) -> tuple[Tensor, Tensor]:
        """K1, the network's own opinion, and A1, what the mapping function makes of it.

        Args:
            logits: B x C x H x W float, main branch at the masks' size.
            image: B x 3 x h x w uint8 RGB without colour jitter.
            image_labels: B x C bool, column 0 (background) true.

        Returns:
            Two masks B x H x W long.
        """
        present = logits.float().masked_fill(~image_labels[:, :, None, None], float("-inf"))
        small = F.interpolate(image.float(), logits.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
        advice = self.mapping(small.round().to(torch.uint8), present.softmax(1), image_labels)
        return present.argmax(1), present_argmax(advice, image_labels)

    def segmentation_loss(self, logits: Tensor, mask: Tensor) -> Tensor:
        """L_seg (Eq. 8)."""
        return segmentation_loss(logits, mask, self.per_class_loss, over_processes)
