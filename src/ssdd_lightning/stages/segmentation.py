"""Segmentation on given masks: the plain baseline, the retraining step, and how every segmentation model is tested."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from ssdd_lightning.crf import CRFOptions, DenseCRF
from ssdd_lightning.errors import InputError
from ssdd_lightning.functional.losses import segmentation_loss
from ssdd_lightning.functional.refinement import present_argmax
from ssdd_lightning.functional.totals import over_processes
from ssdd_lightning.metrics.difference import Watched
from ssdd_lightning.metrics.iou import SegmentationIoU
from ssdd_lightning.nn.inference import multi_scale_probabilities
from ssdd_lightning.nn.protocols import SegmentationLike, built, try_segmentation
from ssdd_lightning.nn.segmentation import SegmentationNetwork
from ssdd_lightning.nn.ssdd import resize_logits, resize_mask
from ssdd_lightning.stages.base import Batch, Stage
from ssdd_lightning.stages.values import Optimization, TestProtocol
from ssdd_lightning.weights.loading import LoadReport, load_tensors
from ssdd_lightning.weights.reading import read_weights


class Start(NamedTuple):
    """A checkpoint of an earlier stage that a fit starts from.

    Attributes:
        option: The stage's option that names it.
        made_by: What trained it.
        source: Where it lies.
        parts: Modules that start from it, and the prefix of their tensors' names there.
    """

    option: str
    made_by: str
    source: str
    parts: Sequence[tuple[nn.Module, str]]

    def load(self) -> list[LoadReport]:
        """Load all of it, or raise an error."""
        if not Path(self.source).is_file():
            raise InputError(
                f"{self.option}: expected the checkpoint of {self.made_by} at {self.source}, found none; fit it first, "
                "or name another file."
            )
        weights = read_weights(Path(self.source))
        return [load_tensors(own, _part(weights, name), self.source, f"the {name}") for own, name in self.parts]


def static_start(source: str, parts: Sequence[tuple[nn.Module, str]]) -> Start:
    """A start from what `static_checkpoint` names."""
    return Start("static_checkpoint", "a static stage", source, parts)


class SegmentationStage(Stage):
    """Base of the stages that train a segmentation network: masks, validation, test and prediction.

    Args:
        num_classes: C, background included.
        network: the segmentation network.
        mask_stride: masks, logits and DD-Net are compared at 1/mask_stride of the input (4 in the paper).
        testing: scales, flip and CRF of `test` and `predict`.
        crf: preset, widths and weights of the dense CRF.
        static_checkpoint: checkpoint of a static stage, or of another one with this network, that a fit starts from,
            instead of from the backbone's weights.
        backbone_weights: see `Stage`.
        optimization: see `Stage`.
    """

    only_used: ClassVar[tuple[str, ...]] = ("testing",)

    def __init__(
        self,
        num_classes: int,
        network: nn.Module,
        mask_stride: int,
        testing: TestProtocol,
        crf: CRFOptions,
        backbone_weights: str | None,
        optimization: Optimization,
        static_checkpoint: str | None = None,
    ) -> None:
        super().__init__(network, backbone_weights, optimization)
        self.network: SegmentationLike
        self.num_classes = num_classes
        self.mask_stride = mask_stride
        self.testing = testing
        self.crf_options = crf
        self.test_crf = DenseCRF(iterations=10, **asdict(crf)) if testing.crf else None
        self.static_checkpoint = static_checkpoint
        self.val_iou = SegmentationIoU(num_classes)
        self.test_iou = SegmentationIoU(num_classes)

    def on_fit_start(self) -> None:
        """Try the network, and load the starting weights before a fit that does not resume from a checkpoint."""
        try_segmentation(self.network, self.num_classes)
        starts = [] if self.trainer.ckpt_path else self.starts()
        if not starts:
            super().on_fit_start()
        for start in starts:
            for report in start.load():
                rank_zero_info(str(report))

    def starts(self) -> list[Start]:
        """What a fit starts from, if not from the backbone's weights alone."""
        network = [(self.get_submodule("network"), "network.")]
        return [static_start(self.static_checkpoint, network)] if self.static_checkpoint else []

    def mask_size(self, image: Tensor) -> tuple[int, int]:
        """Size of masks for an image B x 3 x H x W: ceil(H / mask_stride) x ceil(W / mask_stride)."""
        return -(-image.shape[-2] // self.mask_stride), -(-image.shape[-1] // self.mask_stride)

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities of the network alone: one scale, no flip, no CRF, no image-level labels; `segment` has these.

        Args:
            image: B x 3 x H x W uint8 RGB, or float of the same range (0 to 255).

        Returns:
            B x C x H x W float in [0, 1], background first; the channels sum to one.
        """
        *_, logits = self.network(image)
        return resize_logits(logits.float(), image.shape[-2:]).softmax(1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """IoU of the plain network at one scale; image-level labels are not used."""
        truth = batch["mask"]
        *_, logits = self.network(batch["image"])
        prediction = resize_logits(logits.float(), truth.shape[-2:]).argmax(1)
        self.val_iou.update(prediction, truth)
        self._pictures = {"image": batch["image_raw"], "prediction": prediction, "truth": truth}

    def on_validation_epoch_end(self) -> None:
        """Log the IoU of the classes that occur, and the mean over them."""
        self._log_iou("val", self.val_iou)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """IoU under the testing protocol, without image-level labels; returns the masks for the writer."""
        prediction = self.segment(batch["image_raw"])
        self.test_iou.update(prediction, batch["mask"])
        return {"name": batch["name"], "mask": list(prediction)}

    def on_test_epoch_end(self) -> None:
        """Log the IoU of the classes that occur, and the mean over them."""
        self._log_iou("test", self.test_iou)

    def _log_iou(self, phase: Literal["val", "test"], metric: SegmentationIoU) -> None:
        scores = metric.compute()
        metric.reset()
        self.confusion[phase] = scores["confusion"]
        self.log(f"{phase}/miou", scores["miou"], prog_bar=phase == "val")
        table = self._data_classes()
        names = [f"class {index}" for index in range(len(scores["iou"]))] if table is None else table.selected_names
        for name, iou in zip(names, scores["iou"].tolist(), strict=True):
            if not math.isnan(iou):
                self.log(f"{phase}/iou/{name}", iou)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Masks under the testing protocol, restricted to the image's own labels (masks for retraining)."""
        return {"name": batch["name"], "mask": list(self.segment(batch["image_raw"], batch["image_labels"]))}

    def protocol(self) -> dict[str, Any]:
        """Scales, flip and the widths and weights of the CRF (None: no CRF)."""
        crf = (
            None
            if self.test_crf is None
            else {**asdict(self.test_crf.settings), "iterations": self.test_crf.iterations}
        )
        return {"scales": list(self.testing.scales), "flip": self.testing.flip, "crf": crf}

    @torch.no_grad()
    def segment(self, image: Tensor, image_labels: Tensor | None = None) -> Tensor:
        """Segment under the testing protocol: scales, flip, optional CRF.

        Args:
            image: B x 3 x H x W uint8 RGB.
            image_labels: B x C bool; if given, only these classes may be predicted.

        Returns:
            B x H x W long mask.
        """
        probabilities = multi_scale_probabilities(
            lambda view: self.network(view)[-1], image, self.testing.scales, self.testing.flip
        )
        if image_labels is None:
            image_labels = probabilities.new_ones(probabilities.shape[:2], dtype=torch.bool)
        if self.test_crf is not None:
            probabilities = self.test_crf(image, probabilities, image_labels)
        return present_argmax(probabilities, image_labels)


class SegmentationModule(SegmentationStage):
    """Train a segmentation network on given masks, and nothing else.

    Args:
        num_classes: C, background included; comes from the data.
        network: the segmentation network; called with the number of classes, yields a `SegmentationLike`.
        mask_stride: logits and masks are compared at 1/mask_stride of the input (4 in the paper).
        per_class_loss: L_seg is the mean within each class, then over classes (Eq. 8 as printed); false is the mean
            over pixels (the authors' code), which leans to background while training is short.
        testing: scales, flip and CRF of `test` and `predict`.
        crf: preset, widths and weights of the CRF after the average, such as
            {bilateral_sxy: 40}; the preset psa was made for photos of 500 pixels.
        backbone_weights: weights the backbone starts from; the paper's are the classification stage's checkpoint.
        static_checkpoint: checkpoint of a static stage, or of another one with this network, that the network starts
            from, instead of from backbone_weights; null is the paper's start.
        optimization: learning rates, optimizer and schedule.
    """

    only_used = ("testing", "crf")

    def __init__(
        self,
        num_classes: int,
        network: Callable[[int], nn.Module] = SegmentationNetwork,
        mask_stride: int = 4,
        per_class_loss: bool = True,
        testing: TestProtocol = TestProtocol(),
        crf: CRFOptions = CRFOptions(),
        backbone_weights: str | None = "imagenet",
        static_checkpoint: str | None = None,
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
        self.per_class_loss = per_class_loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross entropy against the given masks (Eq. 8)."""
        size = self.mask_size(batch["image"])
        mask = resize_mask(self.guide(batch, "knowledge"), size)
        *_, logits = self.network(batch["image"])
        loss = segmentation_loss(resize_logits(logits, size), mask, self.per_class_loss, over_processes)
        self.log_training({"train/loss": loss})
        self.watched = Watched(logits=logits)
        self._pictures = {"image": batch["image_raw"], "knowledge": mask}
        return loss

    def look(self, batch: Batch) -> dict[str, Tensor]:
        """The masks that it learns from, and what it predicts."""
        image = batch["image_raw"]
        *_, logits = self.network(image)
        prediction = resize_logits(logits, image.shape[-2:]).argmax(1)
        return {"image": image, "knowledge": self.guide(batch, "knowledge"), "prediction": prediction}


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
