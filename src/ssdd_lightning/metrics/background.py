"""Which background score suits score maps best: curves over a constant and over the exponent of (1 - max) ** alpha.

Of the strongest foreground score m of a pixel both kinds of background ask the same: is m above some level? A constant
t makes background where m <= t; (1 - m) ** alpha falls while m rises, so it makes background below the one level where
both are equal. So one histogram of m by class, over the 256 values that a map can hold, gives all points of both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.metrics.confusion import shown_mean

CONSTANTS = tuple(round(0.01 * step, 2) for step in range(100))
ALPHAS = (0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
LEVELS = 256
SCORES = np.square(np.arange(LEVELS) / (LEVELS - 1))
"""The 256 scores that a map can hold, see `ssdd_lightning.storage.score_maps`."""

Counts = npt.NDArray[np.int64]


def foreground_counts(
    class_indices: Sequence[int], scores: npt.NDArray[np.float32], truth: npt.NDArray[np.uint8], num_classes: int
) -> Counts:
    """Count the strongest foreground scores of one image; add them up over a split.

    Args:
        class_indices: Dataset index of each channel; background's (0), if there is one, is not looked at.
        scores: n x H x W float in [0, 1], as `read_map` gives them.
        truth: H x W uint8, 0..num_classes-1 or 255, which is not counted.
        num_classes: C, background included.

    Returns:
        2 x C x 256 int64, by class and level of the strongest foreground score. Entry (1, c): pixels where c is the
        strongest; (0, c): those of them that are c in the ground truth. Class 0 stands for all pixels: (1, 0) counts
        all, (0, 0) those that are background in the ground truth.

    Examples:
        >>> scores = np.array([[[1.0, 0.36, 0.0]]], np.float32)
        >>> counts = foreground_counts([1], scores, np.array([[1, 0, 0]], np.uint8), num_classes=2)
        >>> counts.sum(axis=2)  # class 1 is strongest in all three pixels and right in one
        array([[2, 1],
               [3, 3]])
    """
    foreground = [channel for channel, index in enumerate(class_indices) if index]
    scored = truth != IGNORE
    if foreground:
        strongest = scores[foreground].argmax(axis=0)
        best = np.take_along_axis(scores[foreground], strongest[None], axis=0)[0][scored]
        label = np.array(class_indices)[foreground][strongest[scored]]
    else:
        best, label = np.zeros(int(scored.sum()), np.float32), np.zeros(int(scored.sum()), np.intp)
    level = np.rint(np.sqrt(best) * (LEVELS - 1)).astype(np.intp)
    true = truth[scored]
    counts = np.zeros((2, num_classes, LEVELS), dtype=np.int64)
    counts[1] = _by_class(label, level, num_classes)
    counts[0] = _by_class(label[label == true], level[label == true], num_classes)
    counts[1, 0] = np.bincount(level, minlength=LEVELS)
    counts[0, 0] = np.bincount(level[true == 0], minlength=LEVELS)
    return counts


@dataclass(frozen=True, eq=False)
class BackgroundCurves:
    """The mIoU of score maps by the background that they are given.

    Args:
        counts: 2 x C x 256, see `foreground_counts`, pooled over the split.
        truth: C int64, pixels of every class in the ground truth.

    Examples:
        >>> scores, ground_truth = np.array([[[1.0, 0.36, 0.0]]], np.float32), np.array([[1, 0, 0]], np.uint8)
        >>> counts = foreground_counts([1], scores, ground_truth, num_classes=2)
        >>> curves = BackgroundCurves(counts, np.array([2, 1]))
        >>> curves.constant([0.3, 0.4]), curves.alpha([2, 4])  # 0.4 and 0.64 ** 2 are above 0.36
        ({0.3: 0.5, 0.4: 1.0}, {2: 1.0, 4: 0.5})
    """

    counts: Counts
    truth: Counts

    def constant(self, values: Sequence[float] = CONSTANTS) -> dict[float, float]:
        """Mean IoU in [0, 1] by the constant background score."""
        mious = self._miou_by_cut()
        return {value: float(mious[(value >= SCORES).sum()]) for value in values}

    def alpha(self, values: Sequence[float] = ALPHAS) -> dict[float, float]:
        """Mean IoU in [0, 1] by the exponent of (1 - max) ** alpha."""
        mious = self._miou_by_cut()
        return {value: float(mious[((1 - SCORES) ** value >= SCORES).sum()]) for value in values}

    def to_dict(self) -> dict[str, Any]:
        """Both curves and their best points as plain numbers."""
        return {"constant": _plain(self.constant()), "alpha": _plain(self.alpha())}

    def _miou_by_cut(self) -> npt.NDArray[np.float64]:
        """Mean IoU where all levels below a cut are background: 257 float64."""
        below = np.concatenate([np.zeros((2, len(self.truth), 1), np.int64), self.counts.cumsum(axis=2)], axis=2)
        hits, predicted = below[..., -1:] - below  # foreground is what lies above the cut
        hits[0], predicted[0] = below[:, 0]
        union = self.truth[:, None] + predicted - hits
        iou = np.where(union > 0, hits / np.maximum(union, 1), np.nan)
        return np.array([shown_mean(column) for column in iou.T])


def best_point(curve: dict[float, float]) -> tuple[float, float]:
    """Value and mIoU of a curve's highest point, the first of equals.

    Examples:
        >>> best_point({0.2: 0.41, 0.3: 0.47, 0.4: 0.45})
        (0.3, 0.47)
    """
    value = max(curve, key=lambda key: -1.0 if np.isnan(curve[key]) else curve[key])
    return value, curve[value]


def _plain(curve: dict[float, float]) -> dict[str, Any]:
    points = {value: None if np.isnan(miou) else miou for value, miou in curve.items()}
    best = best_point(curve)[0]
    return {"best": {"value": best, "miou": points[best]}, "curve": [list(point) for point in points.items()]}


def _by_class(label: npt.NDArray[np.integer], level: npt.NDArray[np.intp], num_classes: int) -> Counts:
    cells = label.astype(np.intp) * LEVELS + level
    return np.bincount(cells, minlength=num_classes * LEVELS).reshape(num_classes, LEVELS)
