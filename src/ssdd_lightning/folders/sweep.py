"""Scores the merge for each choice of biases, and how well the difference maps tell K from A (scored images only)."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.errors import InputError, check_size
from ssdd_lightning.evaluation.chart import draw_panels
from ssdd_lightning.evaluation.scorecard import Scorecard
from ssdd_lightning.evaluation.table import percent
from ssdd_lightning.evaluation.text_table import text_table
from ssdd_lightning.folders.merge import MergeFolders, MergeInput
from ssdd_lightning.functional.refinement import MergeBiases
from ssdd_lightning.metrics.confusion import confusion_matrix
from ssdd_lightning.metrics.difference import area_under_roc
from ssdd_lightning.storage.masks import read_mask
from ssdd_lightning.storage.progress import Progress
from ssdd_lightning.storage.score_maps import mask_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SweepResult:
    """What `sweep_biases` finds.

    Args:
        knowledge: mIoU of K in [0, 1].
        advice: mIoU of A.
        oracle: mIoU of a merge that takes the better of both at each pixel.
        merged: mIoU of the merge for each choice of biases.
        advice_right: among the pixels where exactly one of K and A is right, the share where A is.
        auc: area under the ROC curve when these pixels are ranked by w = d_K - d_A, by d_K and by -d_A.
        images: number of images.
    """

    knowledge: float
    advice: float
    oracle: float
    merged: Mapping[MergeBiases, float]
    advice_right: float
    auc: Mapping[str, float]
    images: int

    @property
    def best(self) -> MergeBiases:
        """Biases with the highest mIoU."""
        return max(self.merged, key=lambda biases: self.merged[biases])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, for JSON."""
        rows = [{**_named(biases), "miou": miou} for biases, miou in self.merged.items()]
        return {
            "knowledge": self.knowledge,
            "advice": self.advice,
            "oracle": self.oracle,
            "best": _named(self.best),
            "merged": rows,
            "advice_right": self.advice_right,
            "auc": dict(self.auc),
            "images": self.images,
        }

    def _grid(self) -> tuple[list[float], list[tuple[float, float]]]:
        """Values of b_dd, and pairs of b_class and b_bg, in order."""
        pairs = {(biases.class_bias, biases.background_bias) for biases in self.merged}
        return sorted({biases.dd_bias for biases in self.merged}), sorted(pairs)

    def draw(self) -> "Figure":
        """Curves over b_dd: a panel for each b_bg, a line for each b_class, and the levels of K and A."""
        columns, rows = self._grid()
        panels: dict[str, dict[str, dict[float, float]]] = {}
        for class_, background in rows:
            curve = {dd: self.merged[MergeBiases(dd, class_, background)] for dd in columns}
            panels.setdefault(f"b_bg {background:g}", {})[f"b_class {class_:g}"] = curve
        return draw_panels("b_dd", panels, {"K": self.knowledge, "A": self.advice})

    def table(self) -> str:
        """A table for the terminal: one row per pair of b_class and b_bg, one column per b_dd, in percent."""
        columns, rows = self._grid()
        cells = [
            [*map("{:g}".format, row), *(percent(self.merged[MergeBiases(dd, *row)]) for dd in columns)] for row in rows
        ]
        headings = ["b_class", "b_bg", *(f"b_dd {dd:g}" for dd in columns)]
        best = self.best
        return "\n".join(
            [
                text_table(headings, cells, left=()),
                "",
                f"mIoU, percent, of {self.images} images; K {100 * self.knowledge:.2f}, A {100 * self.advice:.2f}, "
                f"oracle {100 * self.oracle:.2f}",
                f"best: b_dd {best.dd_bias:g}, b_class {best.class_bias:g}, b_bg {best.background_bias:g}: "
                f"{100 * self.merged[best]:.2f}",
                f"where exactly one of K and A is right, A is right at {100 * self.advice_right:.1f} %; AUC of "
                + ", ".join(f"{name} {value:.3f}" for name, value in self.auc.items()),
            ]
        )


def sweep_biases(
    folders: MergeFolders,
    truth: Path,
    names: Sequence[str],
    dd: Sequence[float],
    class_: Sequence[float],
    background: Sequence[float],
    num_classes: int = len(VOC_CLASSES),
    progress: bool = True,
) -> SweepResult:
    """Score the merge for every combination of biases, in one pass over the images.

    Args:
        folders: The parts of the merge.
        truth: Folder of ground truth masks; pixels with 255 are not counted.
        names: Images to score.
        dd: Values of b_dd to try.
        class_: Values of b_class.
        background: Values of b_bg.
        num_classes: One more than the highest class index of the dataset.
        progress: Whether to show a bar.

    Returns:
        The scores.

    Raises:
        InputError: No image or no bias is given, or a file is missing or damaged.
    """
    grid = [MergeBiases(*values) for values in itertools.product(dd, class_, background)]
    if not names or not grid:
        raise InputError("the sweep needs at least one image and one value of each bias; check the split.")
    counts = np.zeros((3 + len(grid), num_classes, num_classes + 1), dtype=np.int64)
    ranks = np.zeros((3, 2, 511), dtype=np.int64)
    for name in Progress(names, "sweep", unit="image", shown=progress):
        parts, true = folders.read(name), read_mask(mask_path(truth, name))
        check_size(true.shape, parts.knowledge.shape[1:], str(mask_path(truth, name)), "the merge of its image")
        counts += _confusions(parts, true, grid, num_classes)
        ranks += _rank_histograms(parts, true)
    mious = [Scorecard(c, dict(enumerate(map(str, range(num_classes)))), len(names)).miou for c in counts]
    return SweepResult(
        knowledge=mious[0],
        advice=mious[1],
        oracle=mious[2],
        merged=dict(zip(grid, mious[3:], strict=True)),
        advice_right=float(ranks[0, 1].sum() / max(ranks[0].sum(), 1)),
        auc={
            name: area_under_roc(*pair)
            for name, pair in zip(("w", "d_K", "-d_A"), torch.from_numpy(ranks), strict=True)
        },
        images=len(names),
    )


def _confusions(
    parts: MergeInput, truth: npt.NDArray[np.uint8], grid: Sequence[MergeBiases], num_classes: int
) -> Counts:
    """Confusions of K, A, their oracle merge and the merge with each of the biases."""
    knowledge, advice = (mask[0].numpy().astype(np.uint8) for mask in (parts.knowledge, parts.advice))
    masks = [knowledge, advice, np.where(advice == truth, advice, knowledge)]
    masks += [parts.merged(biases)[0].numpy().astype(np.uint8) for biases in grid]
    return np.stack([confusion_matrix(mask, truth, num_classes) for mask in masks])


def _rank_histograms(parts: MergeInput, truth: npt.NDArray[np.uint8]) -> Counts:
    """Histograms of w, d_K and -d_A in steps of 1/255 where K alone (row 0) and A alone (row 1) is right."""
    true = torch.from_numpy(truth.astype(np.int64))[None]
    right = parts.knowledge == true, parts.advice == true
    one_right = (right[0] != right[1]) & (true != IGNORE)
    levels = [(255 * d[one_right]).round().long() for d in (parts.d_knowledge, parts.d_advice)]
    scores = (levels[0] - levels[1], levels[0], -levels[1])
    by_advice = right[1][one_right]
    histograms = [
        torch.bincount(score[by_advice == side] + 255, minlength=511) for score in scores for side in (False, True)
    ]
    return torch.stack(histograms).view(3, 2, 511).numpy()


def _named(biases: MergeBiases) -> dict[str, float]:
    return {name: value for name, value in asdict(biases).items() if name != "failed_ratio"}
