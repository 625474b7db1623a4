"""IoU during validation and testing, pooled over the epoch and over processes."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_confusion_matrix

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.errors import InputError


class SegmentationIoU(Metric):
    """Pooled IoU of masks inside a LightningModule; the same counting as `ssdd evaluate`.

    torchmetrics counts, with one class more than there are: it holds predictions of 255, which torchmetrics
    itself refuses and which count as errors here. Pixels that are 255 in the ground truth are left out.

    Args:
        num_classes: C, background included.

    Examples:
        >>> iou = SegmentationIoU(num_classes=2)
        >>> ground_truth = torch.tensor([[[0, 0, 1, 1, 255]]])
        >>> iou.update(torch.tensor([[[0, 1, 1, 1, 0]]]), ground_truth)
        >>> scores = iou.compute()  # 1 / 2 and 2 / 3
        >>> scores["miou"], scores["iou"]
        (tensor(0.5833), tensor([0.5000, 0.6667]))
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    confusion: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        size = num_classes + 1
        self.add_state("confusion", torch.zeros(size, size, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Count a batch.

        Args:
            prediction: B x H x W long, 0..C-1 or 255.
            truth: B x H x W long, 0..C-1 or 255.

        Raises:
            InputError: The masks differ in shape or hold another value.
        """
        if prediction.shape != truth.shape:
            raise InputError(f"prediction is {list(prediction.shape)} but the ground truth is {list(truth.shape)}.")
        self._check_values("prediction", prediction)
        self._check_values("ground truth", truth)
        self.confusion += multiclass_confusion_matrix(
            prediction.masked_fill(prediction == IGNORE, self.num_classes),
            truth,
            self.num_classes + 1,
            ignore_index=IGNORE,
            validate_args=False,  # its check knows no 255 in a mask of C classes and is slower than ours
        )

    def compute(self) -> dict[str, Tensor]:
        """Scores of everything counted since the last reset, over all processes.

        Returns:
            "miou": scalar in [0, 1], the mean over the classes in ground truth or predictions (NaN if none);
            "iou": C floats, NaN for the other classes;
            "confusion": C x (C+1) long, as `confusion_matrix` counts.
        """
        counts = self.confusion[: self.num_classes]
        hits = counts.diagonal()
        union = counts.sum(dim=1) + counts[:, : self.num_classes].sum(dim=0) - hits
        iou = hits / union  # 0 / 0 is the NaN of a class that does not occur
        return {"miou": iou.nanmean(), "iou": iou, "confusion": counts}

    def _check_values(self, what: str, mask: Tensor) -> None:
        strange = mask[((mask < 0) | (mask >= self.num_classes)) & (mask != IGNORE)]
        if strange.numel():
            raise InputError(
                f"{what} holds the value {int(strange[0])}, expected 0..{self.num_classes - 1} or {IGNORE}."
            )
