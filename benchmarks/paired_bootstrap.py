r"""Whether one folder of masks is better than another: the difference in mIoU and its 95 % interval over the images.

    python benchmarks/paired_bootstrap.py --masks runs/x/dynamic/test --than runs/x/baseline_seeds/test \
        --truth VOCdevkit/VOC2012/SegmentationClassAug

Images are drawn with replacement, the same ones for both folders, and mIoU is pooled over each draw. The interval says
how far the difference depends on the choice of images; it says nothing of another seed of the training. Of score maps
the best class counts.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.evaluation.folder import read_prediction
from ssdd_lightning.metrics.confusion import confusion_matrix
from ssdd_lightning.storage.masks import read_mask
from ssdd_lightning.storage.score_maps import SUFFIX


def confusions(masks: Path, truth: Path, names: list[str]) -> npt.NDArray[np.int64]:
    """Confusion of each image, images x C x (C + 1)."""
    pairs = [(read_prediction(masks, name), read_mask(truth / f"{name}.png")) for name in names]
    return np.stack([confusion_matrix(mask, true, len(VOC_CLASSES)) for mask, true in pairs])


def mious(pooled: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Percent mIoU of pooled confusions ... x C x (C + 1), over the classes that occur."""
    return np.asarray(np.nanmean(ious(pooled), axis=-1))


def ious(pooled: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Percent IoU of each class, ... x C; NaN for classes that occur nowhere."""
    hits = np.diagonal(pooled, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * hits / (pooled.sum(-1) + pooled[..., :-1].sum(-2) - hits))


def main() -> None:
    """Print both scores, the difference and its interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--than", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--split", type=Path, help="list of images; all masks by default")
    parser.add_argument("--draws", type=int, default=2000)
    options = parser.parse_args()
    every = sorted(path.name.removesuffix(SUFFIX).removesuffix(".png") for path in options.masks.glob("*.png"))
    names = options.split.read_text().split() if options.split else every
    both = [confusions(folder, options.truth, names) for folder in (options.masks, options.than)]
    scores = [float(mious(found.sum(0).astype(float))) for found in both]
    times = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), options.draws)
    drawn = [mious(np.tensordot(times.astype(float), found, axes=1)) for found in both]
    low, high = np.percentile(drawn[0] - drawn[1], [2.5, 97.5])
    print(f"{len(names)} images: {scores[0]:.2f} against {scores[1]:.2f}, {scores[0] - scores[1]:+.2f}", end=" ")
    print(f"(95 % interval {low:+.2f} to {high:+.2f}, {options.draws} draws)")


if __name__ == "__main__":
    main()
