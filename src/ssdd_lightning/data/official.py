"""Numbers of images in the splits of public datasets."""

from collections.abc import Sequence

from ssdd_lightning.data.classes import VOC_CLASSES

VOC_COUNTS = {"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582, "test": 1456}
"""VOC 2012's segmentation splits (its development kit), and trainaug: train and all of SBD that is not in val."""

COCO_COUNTS = {"train": 82081, "val": 40137}
"""COCO 2014's images with at least one annotation: 82,783 and 40,504 with the others."""


def official_counts(names: Sequence[str]) -> dict[str, int]:
    """Sizes of the splits of the dataset that has these classes; empty for an unknown dataset.

    Args:
        names: Class names, background first.
    """
    if tuple(names) == VOC_CLASSES:
        return VOC_COUNTS
    # the first and the last of COCO's 80 categories
    return COCO_COUNTS if (len(names), *names[1:2], names[-1]) == (81, "person", "toothbrush") else {}
