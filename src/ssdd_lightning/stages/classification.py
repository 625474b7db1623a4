"""Stage 1: a multi-label classifier, and the class activation maps that are the first knowledge."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import BinaryAveragePrecision, MultilabelAveragePrecision

from ssdd_lightning.functional.cam import cam_background, normalize_cam, sum_cams
from ssdd_lightning.nn.classification import ClassificationNetwork
from ssdd_lightning.nn.cpu import folded_once
from ssdd_lightning.nn.inference import flipped_back, scaled_views
from ssdd_lightning.nn.protocols import ClassificationLike, built
from ssdd_lightning.stages.base import Batch, Stage
from ssdd_lightning.stages.values import PSA, Optimization


class ClassificationModule(Stage):
    """Train a classifier on image-level labels; `predict` writes its class activation maps.

    Args:
        num_classes: C, background included; comes from the data.
        network: the classifier; called with the number of classes, yields a `ClassificationLike`.
        scales: scales of the activation maps (PSA: 1, 0.5, 1.5, 2).
        flip: add the horizontal flip of each scale.
        background_alpha: background score (1 - max CAM) ** alpha in the maps written by `predict`.
        background_constant: if given, a constant background score in [0, 1] instead.
        backbone_weights: weights the backbone starts from: "imagenet", "offline", a file, or null.
        optimization: learning rates, optimizer and schedule.
    """

    predicts = ("map",)
    only_used = ("scales", "flip", "background_alpha", "background_constant")
    needs_truth = False

    def __init__(
        self,
        num_classes: int,
        network: Callable[[int], nn.Module] = ClassificationNetwork,
        scales: Sequence[float] = (1.0, 0.5, 1.5, 2.0),
        flip: bool = True,
        background_alpha: float = 4.0,
        background_constant: float | None = None,
        backbone_weights: str | None = "imagenet",
        optimization: Optimization = PSA,
    ) -> None:
        super().__init__(built(network, ClassificationLike, num_classes), backbone_weights, optimization)
        self.save_hyperparameters()
        self.network: ClassificationLike
        self.scales = list(scales)
        self.flip = flip
        self.background_alpha = background_alpha
        self.background_constant = background_constant
        several = num_classes > 2  # torchmetrics refuses several labels that are one
        self.val_precision: Metric = (
            MultilabelAveragePrecision(num_classes - 1, average="weighted") if several else BinaryAveragePrecision()
        )

    def forward(self, image: Tensor) -> Tensor:
        """Probability of each foreground class to be somewhere in the image; `score_maps` says where.

        Args:
            image: B x 3 x H x W uint8 RGB, or float of the same range (0 to 255).

        Returns:
            B x (C-1) float in [0, 1], each class by itself.
        """
        return self.network(image).float().sigmoid()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Multi-label soft-margin loss on the foreground classes."""
        loss = F.multilabel_soft_margin_loss(self.network(batch["image"]).float(), batch["image_labels"][:, 1:].float())
        self.log_training({"train/loss": loss})
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Average precision, mean over the classes weighted by their images (image-level labels only)."""
        self.val_precision.update(self.network(batch["image"]).float(), batch["image_labels"][:, 1:].long())
        self.log("val/mean_ap", self.val_precision, on_epoch=True, prog_bar=True, batch_size=len(batch["name"]))

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Score maps of background and the image's own classes, at image size."""
        maps = self.score_maps(batch["image_raw"], batch["image_labels"])
        present = [labels.nonzero()[:, 0] for labels in batch["image_labels"]]
        return {
            "name": batch["name"],
            "map": [m[classes] for m, classes in zip(maps, present, strict=True)],
            "map_classes": present,
        }

    @torch.no_grad()
    def score_maps(self, image: Tensor, image_labels: Tensor) -> Tensor:
        """Compute CAMs over all scales and flips, normalised, with the background in front.

        Args:
            image: B x 3 x H x W uint8 RGB.
            image_labels: B x C bool, column 0 (background) true.

        Returns:
            B x C x H x W float in [0, 1]; absent classes are 0.
        """
        views = scaled_views(image, self.scales, self.flip)
        with folded_once():
            cams = [cam for v in views for cam in flipped_back(self.network.activation_maps(v), self.flip)]
        cam = normalize_cam(sum_cams(cams, (image.shape[-2], image.shape[-1])), image_labels)
        if self.background_constant is None:
            background = cam_background(cam, self.background_alpha)
        else:
            background = torch.full_like(cam[:, :1], self.background_constant)
        return torch.cat((background, cam), 1)
