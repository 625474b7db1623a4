r"""Whether one folder of masks is better than another: the difference in mIoU and its 95 % interval over the images.

    python benchmarks/paired_bootstrap.py --masks runs/x/dynamic/test --than runs/x/baseline_seeds/test \
        --truth VOCdevkit/VOC2012/SegmentationClassAug

Several folders on each side are the seeds of a model, in the same order, and the figures are their means. Images are
drawn with replacement, the same ones for all folders, and mIoU is pooled over each draw. The interval says how far the
difference depends on the choice of images; it says nothing of another seed of the training. Of score maps the best
class counts.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.evaluation.folder import read_prediction
from ssdd_lightning.metrics.confusion import confusion_matrix
from ssdd_lightning.storage.masks import read_mask
from ssdd_lightning.storage.score_maps import SUFFIX

DRAWS = 2000


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


def pooled(models: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
    """The mIoU of each seed's model, pooled over its images, in percent."""
    return np.array([float(mious(counts.sum(0).astype(float))) for counts in models])


def difference(
    ours: Sequence[npt.NDArray[np.int64]], theirs: Sequence[npt.NDArray[np.int64]], draws: int = DRAWS
) -> tuple[float, float, float]:
    """Mean difference in mIoU over the seeds, and its 95 % interval over draws of the images, the same for all."""
    images = len(ours[0])
    times = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), draws).astype(float)
    drawn = [
        np.mean([mious(np.tensordot(times, found, axes=1)) for found in models], axis=0) for models in (ours, theirs)
    ]
    low, high = np.percentile(drawn[0] - drawn[1], [2.5, 97.5])
    return float(pooled(ours).mean() - pooled(theirs).mean()), float(low), float(high)


def main() -> None:
    """Print both scores, the difference and its interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=Path, nargs="+", required=True)
    parser.add_argument("--than", type=Path, nargs="+", required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--split", type=Path, help="list of images; all masks by default")
    parser.add_argument("--draws", type=int, default=DRAWS)
    options = parser.parse_args()
    every = sorted(path.name.removesuffix(SUFFIX).removesuffix(".png") for path in options.masks[0].glob("*.png"))
    names = options.split.read_text().split() if options.split else every
    ours, theirs = (
        [confusions(folder, options.truth, names) for folder in folders] for folders in (options.masks, options.than)
    )
    exact, low, high = difference(ours, theirs, options.draws)
    scores = pooled(ours), pooled(theirs)
    print(f"{len(names)} images: {scores[0].mean():.2f} against {scores[1].mean():.2f}, {exact:+.2f}", end=" ")
    print(f"(95 % interval {low:+.2f} to {high:+.2f}, {options.draws} draws)")
    if len(ours) == len(theirs) > 1:
        pairs = zip(*scores, strict=True)
        print("by seed: " + ", ".join(f"{one:.2f} against {other:.2f}" for one, other in pairs))


if __name__ == "__main__":
    main()
