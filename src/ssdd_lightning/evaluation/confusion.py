"""Confusion counts between predicted and true masks; the sum over a split is all that scoring needs."""

import numpy as np
import numpy.typing as npt

from ssdd_lightning.data.classes import IGNORE
from ssdd_lightning.errors import InputError


def joint_histogram(prediction: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Count every pair of mask values.

    Args:
        prediction: uint8 of any shape, usually H x W.
        truth: uint8 of the same shape.

    Returns:
        256 x 256 int64; entry (t, p) counts the pixels with value t in `truth` and p in `prediction`.

    Raises:
        InputError: The arrays differ in shape or are not uint8.
    """
    if prediction.shape != truth.shape:
        raise InputError(f"prediction has shape {prediction.shape} but truth {truth.shape}; they must agree")
    if prediction.dtype != np.uint8 or truth.dtype != np.uint8:
        raise InputError(f"masks must be uint8, found {prediction.dtype} and {truth.dtype}")
    pairs = truth.astype(np.uint16) << 8 | prediction
    return np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)


def confusion_matrix(
    prediction: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], num_classes: int
) -> npt.NDArray[np.int64]:
    """Confusion of one pair of masks; add them up over a split.

    Pixels that are 255 in the truth are not counted. A 255 in the prediction is an error and has a column.

    Args:
        prediction: H x W uint8, values 0..num_classes-1 or 255.
        truth: H x W uint8, values 0..num_classes-1 or 255.
        num_classes: C, background included, 1..255.

    Returns:
        C x (C+1) int64: rows are true classes, columns predicted ones; the last column counts 255.

    Raises:
        InputError: The masks differ in size, are not uint8, or hold a value that is neither class nor 255.
    """
    pairs = joint_histogram(prediction, truth)
    unknown = np.arange(num_classes, IGNORE)
    for what, counts in (("prediction", pairs.sum(axis=0)), ("truth", pairs.sum(axis=1))):
        found = unknown[counts[unknown] > 0]
        if found.size:
            raise InputError(
                f"{what} holds the value {found[0]}, expected 0..{num_classes - 1} or {IGNORE}; "
                "check the list of classes"
            )
    return pairs[:num_classes, [*range(num_classes), IGNORE]]


def intersection_over_union(confusion: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """IoU = TP / (GT + Pred - TP) of every class, as the VOC devkit counts it.

    Args:
        confusion: C x (C+1), see `confusion_matrix`.

    Returns:
        C float64 in [0, 1]; NaN where neither truth nor prediction shows the class.
    """
    classes = len(confusion)
    hits = confusion.diagonal()
    union = confusion.sum(axis=1) + confusion[:, :classes].sum(axis=0) - hits
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


def best_of_both(
    prediction: npt.NDArray[np.uint8], advice: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """The oracle merge: what a perfect choice between two masks, pixel by pixel, would give.

    Args:
        prediction: H x W uint8, the knowledge K; its label stays where neither mask is right.
        advice: H x W uint8, the advice A.
        truth: H x W uint8.

    Returns:
        H x W uint8: the truth where K or A is right, else K.
    """
    return np.where(advice == truth, truth, prediction)
