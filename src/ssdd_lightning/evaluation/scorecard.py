"""The scorecard: scores from the pooled counts of a split, for people (a table) and for programs (JSON)."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdd_lightning.metrics.background import BackgroundCurves
from ssdd_lightning.metrics.boundary import TRIMAP_WIDTHS, boundary_iou
from ssdd_lightning.metrics.confusion import ClassRates, class_rates, shown_mean


@dataclass(frozen=True, eq=False)
class Scorecard:
    """Scores of one set of predictions, or of two and their oracle merge.

    Args:
        confusion: C x (C+1) int64, pooled over the split, see `confusion.confusion_matrix`.
        class_names: Name of every class by its index in the masks; indices in 0..C-1.
        images: Number of images scored.
        companions: Further scorecards of the same images to show beside this one, by column title.
        notes: Sentences that the reader of the scores should know.
        boundary: 3 x C int64, see `boundary.boundary_counts`; None where boundaries were not measured.
        trimap: K x C x (C+1) int64, see `boundary.trimap_counts`; None likewise.
        curves: mIoU by background, for score maps; None where it was not measured.
    """

    confusion: npt.NDArray[np.int64]
    class_names: Mapping[int, str]
    images: int
    companions: Mapping[str, "Scorecard"] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    boundary: npt.NDArray[np.int64] | None = None
    trimap: npt.NDArray[np.int64] | None = None
    curves: BackgroundCurves | None = None

    @cached_property
    def rates(self) -> ClassRates:
        """IoU, precision, recall, FP and FN of every class by its index."""
        return class_rates(self.confusion)

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """C float64 in [0, 1]: TP / (GT + Pred - TP) by class index; NaN where the class does not occur."""
        return self.rates.iou

    @property
    def miou(self) -> float:
        """Mean IoU in [0, 1] over the classes that occur in ground truth or predictions; NaN if there is none."""
        return shown_mean(self.iou)

    @cached_property
    def columns(self) -> dict[str, npt.NDArray[np.float64]]:
        """Every measure that has a value for each class, by its name in files: C float64, NaN for no value."""
        boundary = {} if self.boundary is None else {"boundary_iou": boundary_iou(self.boundary)}
        return {**self.rates._asdict(), **boundary}

    @cached_property
    def means(self) -> dict[str, float]:
        """Means of `columns` over the classes that occur in the ground truth or the predictions."""
        return {name: shown_mean(values) for name, values in self.columns.items()}

    @cached_property
    def trimap_curve(self) -> dict[int, float]:
        """Width of a band around the ground truth contours in pixels -> mIoU within it; empty where not measured."""
        if self.trimap is None:
            return {}
        mious = [shown_mean(class_rates(confusion).iou) for confusion in self.trimap]
        return dict(zip(TRIMAP_WIDTHS, mious, strict=True))

    @property
    def absent(self) -> list[str]:
        """Names of the classes left out of the mean: they occur in neither the ground truth nor the predictions."""
        return [name for index, name in sorted(self.class_names.items()) if np.isnan(self.iou[index])]

    @property
    def pixels(self) -> int:
        """Number of pixels scored: those with a class in the ground truth."""
        return int(self.confusion.sum())

    @property
    def coverage(self) -> float:
        """Share of the scored pixels in [0, 1] where the prediction names a class, i.e. is not 255."""
        return 1 - float(self.confusion[:, -1].sum()) / self.pixels if self.pixels else math.nan

    def class_rows(self) -> list[dict[str, Any]]:
        """One row per class, by index: index, name, `columns` as fractions or None, and pixel counts."""
        truth, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return [
            {
                "index": index,
                "name": name,
                **{measure: number(values[index]) for measure, values in self.columns.items()},
                "truth_pixels": int(truth[index]),
                "predicted_pixels": int(predicted[index]),
            }
            for index, name in sorted(self.class_names.items())
        ]

    def to_dict(self) -> dict[str, Any]:
        """All scores as plain numbers for JSON: fractions in [0, 1], not rounded, None for no value."""
        content: dict[str, Any] = {
            "miou": number(self.miou),
            "coverage": number(self.coverage),
            "images": self.images,
            "pixels": self.pixels,
            "means": {measure: number(value) for measure, value in self.means.items()},
            "classes": self.class_rows(),
            "absent": self.absent,
            "confusion": self.confusion.tolist(),
            "notes": list(self.notes),
        }
        if self.trimap_curve:
            content["trimap"] = [[width, number(miou)] for width, miou in self.trimap_curve.items()]
        if self.curves is not None:
            content["background"] = self.curves.to_dict()
        return content | {title: card.to_dict() for title, card in self.companions.items()}

    def to_json(self) -> str:
        """`to_dict` as JSON text, one line per entry: indenting would spread the confusion over pages."""
        entries = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in self.to_dict().items())
        return "{\n" + ",\n".join(entries) + "\n}\n"


def number(value: float) -> float | None:
    """A plain number for JSON, None for NaN."""
    return None if math.isnan(value) else float(value)
