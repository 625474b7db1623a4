"""Between stages 1 and 2: pixel affinities, and the random walk that spreads activation maps along them (PSA)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.functional.affinity import affinity_loss, confident_labels, pair_labels
from ssdd_lightning.functional.cam import cam_background
from ssdd_lightning.functional.random_walk import random_walk
from ssdd_lightning.functional.totals import Total, over_processes, own, with_processes
from ssdd_lightning.nn.affinity import AffinityNet
from ssdd_lightning.nn.protocols import AffinityLike, built
from ssdd_lightning.nn.ssdd import resize_mask
from ssdd_lightning.stages.base import Batch, Stage
from ssdd_lightning.stages.values import PSA, Optimization


class AffinityModule(Stage):
    """Train AffinityNet on confident labels; `predict` writes random-walked score maps (PSA, Ahn & Kwak, CVPR 2018).

    The data are three folders, all derived from one folder CAM of class activation maps:

    - `data.knowledge`: CRF with a low background exponent, `ssdd crf --maps CAM --background_alpha 4`; what is still
      foreground there is confident foreground;
    - `data.advice`: CRF with a high one, `ssdd crf --maps CAM --background_alpha 32`; what is background even there is
      confident background; the rest is ignored;
    - `data.maps`: CAM itself, for `predict`, which replaces its background.

    Args:
        num_classes: C, background included; comes from the data, as in every stage, though affinities know no classes.
        network: the network; called without arguments, yields an `AffinityLike`.
        background_alpha: background score (1 - max CAM) ** alpha of the scores that walk.
        beta: exponent of the affinities; a larger one keeps the walk within tighter borders.
        steps: length of the walk.
        backbone_weights: weights the backbone starts from: "imagenet", "offline", a file, or null.
        optimization: learning rates, optimizer and schedule.
    """

    predicts = ("map",)
    only_used = ("background_alpha", "beta", "steps")

    def __init__(
        self,
        num_classes: int,
        network: Callable[[], nn.Module] = AffinityNet,
        background_alpha: float = 16.0,
        beta: float = 8.0,
        steps: int = 256,
        backbone_weights: str | None = "imagenet",
        optimization: Optimization = PSA,
    ) -> None:
        super().__init__(built(network, AffinityLike), backbone_weights, optimization)
        self.save_hyperparameters()
        self.network: AffinityLike
        self.background_alpha = background_alpha
        self.beta = beta
        self.steps = steps
        self.val_loss = MeanMetric()

    def forward(self, image: Tensor) -> Tensor:
        """Probability of each pair of neighbouring positions to show the same thing; `walk` makes score maps of it.

        Args:
            image: B x 3 x H x W uint8 RGB, or float of the same range (0 to 255).

        Returns:
            B x P x h x w float in [0, 1] at the network's own stride, see `AffinityLike`.
        """
        return self.network(image)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross entropy of the affinities of confident pairs."""
        self._pictures = self.look(batch)
        labels = self._pictures["refined"]
        loss = self.loss(batch["image"], labels, over_processes)
        pixels, processes = with_processes(over_processes, batch["valid"].sum())
        confident = processes * ((labels != IGNORE) & batch["valid"]).sum() / pixels.clamp(min=1)
        self.log_training({"train/loss": loss, "train/confident": confident})
        return loss

    def look(self, batch: Batch) -> dict[str, Tensor]:
        """Both masks, and where they agree with confidence."""
        knowledge, advice = self.guide(batch, "knowledge"), self.guide(batch, "advice")
        shown = {"image": batch["image_raw"], "knowledge": knowledge, "advice": advice}
        return {**shown, "refined": confident_labels(knowledge, advice)}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same loss on the pairs of the ground truth."""
        self.val_loss.update(self.loss(batch["image"], batch["mask"]), weight=len(batch["name"]))
        # a metric: Lightning's own mean over processes is wrong where they have different numbers of images
        self.log("val/loss", self.val_loss, on_epoch=True, prog_bar=True, batch_size=len(batch["name"]))

    def loss(self, image: Tensor, labels: Tensor, total: Total = own) -> Tensor:
        """Loss of the affinities of an image B x 3 x H x W against labels B x H x W long, 255 = unknown."""
        affinity = self.network(image)
        pairs = pair_labels(resize_mask(labels, (affinity.shape[-2], affinity.shape[-1])), self.network.radius)
        return affinity_loss(affinity, pairs, total)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Random-walked scores of background and the image's own classes, at image size."""
        labels = batch["image_labels"]
        shown = labels.any(0)  # a walk of the other classes would be a walk of zeros
        walked = self.walk(batch["image_raw"], self.guide(batch, "maps")[:, shown][:, 1:])
        return {
            "name": batch["name"],
            "map": [scores[present] for scores, present in zip(walked, labels[:, shown], strict=True)],
            "map_classes": [present.nonzero()[:, 0] for present in labels],
        }

    @torch.no_grad()
    def walk(self, image: Tensor, cam: Tensor) -> Tensor:
        """Spread activation maps along the image's affinities.

        Args:
            image: B x 3 x H x W uint8 RGB.
            cam: B x n x H x W float in [0, 1], foreground classes only.

        Returns:
            B x (1 + n) x H x W float in [0, 1], background in front; the channels sum to one.
        """
        scores = torch.cat((cam_background(cam, self.background_alpha), cam), 1)
        pooled = F.interpolate(scores, self.network.size(image), mode="area")
        walked = random_walk(pooled, self.network(image), self.beta, self.steps, self.network.radius).clamp(min=0)
        walked = F.interpolate(walked, image.shape[-2:], mode="bilinear", align_corners=False)
        return walked / walked.sum(1, keepdim=True).clamp(min=torch.finfo(walked.dtype).tiny)
