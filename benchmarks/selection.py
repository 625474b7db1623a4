r"""What decides between knowledge and advice: SSDD's w beside simpler ways to choose, on masks of a static stage.

    python benchmarks/selection.py --knowledge runs/x/knowledge --advice runs/x/advice \
        --differences runs/x/static/predictions --checkpoint runs/x/static/checkpoints/last.ckpt \
        --photos VOCdevkit/VOC2012/JPEGImages --truth VOCdevkit/VOC2012/SegmentationClassAug \
        --split train.txt --others others.txt

Every way gives each pixel where the masks differ a score, and takes the advice where score + lean >= 0. The lean that
is best on the photos of --others is the one that --split is scored with, so that each way is tuned alike and on other
photos; the last column has the lean of --dd_bias. The area under the ROC curve needs no lean: it is how well the score,
with its biases by class, ranks the pixels of --split where exactly one of the masks is right.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from machine import report
from paired_bootstrap import mious
from torch import Tensor

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.data.splits import read_list
from ssdd_lightning.folders.merge import MergeFolders, MergeInput
from ssdd_lightning.folders.segment_checkpoint import load_stage
from ssdd_lightning.functional.refinement import MergeBiases, failed_classes, merge_bias, ssdd_merge
from ssdd_lightning.metrics.confusion import confusion_matrix
from ssdd_lightning.metrics.difference import area_under_roc
from ssdd_lightning.nn.inference import multi_scale_probabilities
from ssdd_lightning.storage.masks import read_image, read_mask
from ssdd_lightning.storage.progress import Progress

LEANS = np.round(np.arange(-1, 1.01, 0.1), 1)
LEVELS = 1000
"""Steps of the histogram of scores, from -4 to 4."""
Confidences = Callable[[str, MergeInput], Tensor]
"""Name and parts -> how much likelier the advice's label is than the knowledge's, 1 x H x W float."""


def scores(parts: MergeInput, confidence: Tensor, class_bias: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Score of the advice over the knowledge, without lean, 1 x H x W float, for each way to choose."""
    failed = failed_classes(parts.knowledge, parts.advice, parts.image_labels)
    by_class = merge_bias(parts.knowledge, parts.advice, failed, MergeBiases(dd_bias=0.0, class_bias=class_bias))
    difference = parts.d_knowledge - parts.d_advice
    return {
        "SSDD: w = d_K - d_A, with b_class": difference + by_class,
        "w without b_class": difference,
        "w without d_A, the threshold of each pixel (d_K - 0.5)": parts.d_knowledge - 0.5 + by_class,
        "w without d_K (0.5 - d_A)": 0.5 - parts.d_advice + by_class,
        "b_class alone": by_class,
        "confidence of the static stage's segmentation": confidence,
        "the same with b_class": confidence + by_class,
        "random choice of each pixel": 2 * torch.rand(parts.knowledge.shape, generator=generator) - 1,
    }


class Counts:
    """Pooled counts of all ways on some photos.

    Args:
        names: Photos.
        read: Name -> parts of the merge, true mask 1 x H x W, and the score of each way.
    """

    def __init__(self, names: list[str], read: Callable[[str], tuple[MergeInput, Tensor, dict[str, Tensor]]]) -> None:
        classes = len(VOC_CLASSES)
        self.inputs = np.zeros((3, classes, classes + 1))  # K, A, the better one of each pixel
        self.merged: dict[str, npt.NDArray[np.float64]] = {}
        self.ranks: dict[str, npt.NDArray[np.float64]] = {}
        for name in Progress(names, "selection", unit="image"):
            parts, truth, found = read(name)
            masks = parts.knowledge, parts.advice, torch.where(parts.advice == truth, parts.advice, parts.knowledge)
            self.inputs += [_confusion(mask, truth) for mask in masks]
            advice_right, knowledge_right = parts.advice == truth, parts.knowledge == truth
            one_right = (advice_right != knowledge_right) & (truth != IGNORE)
            for way, score in found.items():
                made = [_confusion(_merged(parts, score, float(lean)), truth) for lean in LEANS]
                self.merged[way] = self.merged.get(way, 0) + np.stack(made)
                level = ((score[one_right].clamp(-4, 4) + 4) / 8 * LEVELS).round().long()
                index = advice_right[one_right].long() * (LEVELS + 1) + level
                ranks = torch.bincount(index, minlength=2 * (LEVELS + 1)).view(2, -1).double().numpy()
                self.ranks[way] = self.ranks.get(way, 0) + ranks

    def auc(self, way: str) -> float:
        """Area under the ROC curve, ties counted half."""
        return area_under_roc(*torch.from_numpy(self.ranks[way]))


def main() -> None:
    """Score all ways on both lists, print the table, write the JSON."""
    options = arguments()
    folders = MergeFolders(options.knowledge, options.advice, options.differences)
    confidence = confidences(options.checkpoint, options.photos)
    generator = torch.Generator().manual_seed(0)

    def read(name: str) -> tuple[MergeInput, Tensor, dict[str, Tensor]]:
        parts = folders.read(name)
        truth = torch.from_numpy(read_mask(options.truth / f"{name}.png").astype(np.int64))[None]
        return parts, truth, scores(parts, confidence(name, parts), options.class_bias, generator)

    others, scored = (Counts(read_list(path, lambda name: True), read) for path in (options.others, options.split))
    rows: list[dict[str, Any]] = [
        {"choice": what, "others": float(other), "split": float(mine)}
        for what, other, mine in zip(
            ("knowledge K", "advice A", "oracle of K and A"), mious(others.inputs), mious(scored.inputs), strict=True
        )
    ]
    for way in scored.merged:
        tuned = int(mious(others.merged[way]).argmax())
        given = int(np.abs(LEANS - options.dd_bias).argmin())
        row: dict[str, Any] = {"choice": way, "AUC": scored.auc(way), "lean": float(LEANS[tuned])}
        row |= {"others": float(mious(others.merged[way])[tuned]), "split": float(mious(scored.merged[way])[tuned])}
        rows.append({**row, "split, lean as given": float(mious(scored.merged[way])[given])})
    report("who decides, mIoU", rows, options)


def confidences(checkpoint: Path, photos: Path) -> Confidences:
    """What the segmentation network of a static stage says of each pixel, at one scale."""
    stage, classes = load_stage(checkpoint, torch.device("cpu"))
    channels = torch.zeros(IGNORE + 1, dtype=torch.long)
    channels[list(classes.indices)] = torch.arange(len(classes.indices))

    @torch.inference_mode()
    def confidence(name: str, parts: MergeInput) -> Tensor:
        image = torch.from_numpy(read_image(photos / f"{name}.jpg")).permute(2, 0, 1)[None]
        probabilities = multi_scale_probabilities(lambda view: stage.network(view)[2], image)
        masks = parts.advice, parts.knowledge
        advice, knowledge = (probabilities.gather(1, channels[mask][:, None])[:, 0] for mask in masks)
        return advice - knowledge

    return confidence


def _merged(parts: MergeInput, score: Tensor, lean: float) -> Tensor:
    """Merge by a score in place of w; it has its biases by class already."""
    masks, labels = (parts.knowledge, parts.advice), parts.image_labels
    own, none_failed = MergeBiases(lean, class_bias=0.0), torch.zeros_like(labels)
    return ssdd_merge(*masks, score, torch.zeros_like(score), labels, own, none_failed)


def _confusion(mask: Tensor, truth: Tensor) -> npt.NDArray[np.float64]:
    arrays = (m[0].numpy().astype(np.uint8) for m in (mask, truth))
    return confusion_matrix(*arrays, len(VOC_CLASSES)).astype(float)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folders = {
        "knowledge": "masks or score maps",
        "advice": "masks or score maps",
        "differences": "difference maps of the static stage",
        "checkpoint": "checkpoint of the static stage",
        "photos": "folder of <name>.jpg",
        "truth": "folder of true masks",
        "split": "list of photos to report",
        "others": "list of other photos, to choose the lean on",
    }
    for name, what in folders.items():
        parser.add_argument(f"--{name}", type=Path, required=True, help=what)
    parser.add_argument("--dd_bias", type=float, default=0.2, help="the lean of the last column")
    parser.add_argument("--class_bias", type=float, default=0.5)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
