"""The scorecard: what one pooled confusion says, for people (a table) and for programs (JSON)."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdd_lightning.evaluation.confusion import intersection_over_union


@dataclass(frozen=True, eq=False)
class Scorecard:
    """Scores of one set of predictions, or of two and their oracle merge.

    Args:
        confusion: C x (C+1) int64, pooled over the split, see `confusion.confusion_matrix`.
        classes: Name of every class by its index in the masks; indices in 0..C-1.
        images: Number of images scored.
        companions: Further scorecards of the same images to show beside this one, by column title.
        notes: Sentences that the reader of the scores should know.
    """

    confusion: npt.NDArray[np.int64]
    classes: Mapping[int, str]
    images: int
    companions: Mapping[str, "Scorecard"] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def iou(self) -> npt.NDArray[np.float64]:
        """C float64 in [0, 1]: TP / (GT + Pred - TP) by class index; NaN where nobody shows the class."""
        return intersection_over_union(self.confusion)

    @property
    def miou(self) -> float:
        """Mean IoU in [0, 1] over the classes that truth or predictions show; NaN if there is none."""
        shown = self.iou[~np.isnan(self.iou)]
        return float(shown.mean()) if shown.size else math.nan

    @property
    def absent(self) -> list[str]:
        """Names of the classes left out of the mean: neither truth nor predictions show them."""
        return [name for index, name in sorted(self.classes.items()) if np.isnan(self.iou[index])]

    @property
    def pixels(self) -> int:
        """Number of pixels scored: those whose truth is a class."""
        return int(self.confusion.sum())

    @property
    def coverage(self) -> float:
        """Share of the scored pixels in [0, 1] where the prediction names a class, i.e. is not 255."""
        return 1 - float(self.confusion[:, -1].sum()) / self.pixels if self.pixels else math.nan

    def to_dict(self) -> dict[str, Any]:
        """All scores as plain numbers for JSON: fractions in [0, 1], not rounded, None for no value."""
        truth, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return {
            "miou": _number(self.miou),
            "coverage": _number(self.coverage),
            "images": self.images,
            "pixels": self.pixels,
            "classes": [
                {
                    "index": index,
                    "name": name,
                    "iou": _number(self.iou[index]),
                    "truth_pixels": int(truth[index]),
                    "predicted_pixels": int(predicted[index]),
                }
                for index, name in sorted(self.classes.items())
            ],
            "absent": self.absent,
            "confusion": self.confusion.tolist(),
            "notes": list(self.notes),
        } | {title: card.to_dict() for title, card in self.companions.items()}

    def to_json(self) -> str:
        """`to_dict` as JSON text, one line an entry: indenting would spread the confusion over pages."""
        entries = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in self.to_dict().items())
        return "{\n" + ",\n".join(entries) + "\n}\n"

    def table(self, title: str = "IoU") -> str:
        """The scores for a terminal, in percent with two decimals.

        Args:
            title: Heading of this card's own column; the companions bring theirs.
        """
        columns = {title: self, **self.companions}
        shown = [(i, name) for i, name in sorted(self.classes.items()) if name not in self._absent_everywhere]
        rows = [(name, [_percent(card.iou[index]) for card in columns.values()]) for index, name in shown]
        totals = [
            ("mIoU", [_percent(card.miou) for card in columns.values()]),
            ("coverage", [_percent(card.coverage) for card in columns.values()]),
        ]
        width = max(len(name) for name, _ in rows + totals)
        cell = max(8, *(len(heading) + 2 for heading in columns))
        lines = [_line("class", list(columns), width, cell)]
        rule = "-" * len(lines[0])
        lines += [rule, *(_line(name, cells, width, cell) for name, cells in rows)]
        lines += [rule, *(_line(name, cells, width, cell) for name, cells in totals)]
        return "\n".join([*lines, "", *self._footer()])

    @property
    def _absent_everywhere(self) -> list[str]:
        cards = [self, *self.companions.values()]
        return [name for name in self.absent if all(name in card.absent for card in cards)]

    def _footer(self) -> list[str]:
        lines = [f"percent; {self.images} images, {self.pixels} pixels; a predicted 255 counts as an error"]
        if self._absent_everywhere:
            lines.append(f"not in the mean, nobody shows them: {', '.join(self._absent_everywhere)}")
        return [*lines, *self.notes]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _line(name: str, cells: list[str], width: int, cell: int) -> str:
    return name.ljust(width) + "".join(text.rjust(cell) for text in cells)
