"""Confusion counts between predicted and ground truth masks; the sum over a split is all that scoring needs."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ssdd_lightning.constants import IGNORE
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

    Examples:
        >>> ground_truth = np.array([[0, 0, 15, 255]], np.uint8)
        >>> counts = joint_histogram(np.array([[0, 15, 15, 15]], np.uint8), ground_truth)
        >>> counts[0, [0, 15]], counts[15, [0, 15]]
        (array([1, 1]), array([0, 1]))
    """
    if prediction.shape != truth.shape:
        raise InputError(
            f"prediction has shape {prediction.shape} but the ground truth {truth.shape}; they must agree."
        )
    if prediction.dtype != np.uint8 or truth.dtype != np.uint8:
        raise InputError(f"masks must be uint8, found {prediction.dtype} and {truth.dtype}.")
    pairs = truth.astype(np.uint16) << 8 | prediction
    return np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)


def confusion_matrix(
    prediction: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], num_classes: int
) -> npt.NDArray[np.int64]:
    """Confusion of one pair of masks; add them up over a split.

    Pixels that are 255 in the ground truth are not counted. A 255 in the prediction is an error and has a column.

    Args:
        prediction: H x W uint8, values 0..num_classes-1 or 255.
        truth: H x W uint8, values 0..num_classes-1 or 255.
        num_classes: C, background included, 1..255.

    Returns:
        C x (C+1) int64: rows are true classes, columns predicted ones; the last column counts 255.

    Raises:
        InputError: The masks differ in size, are not uint8, or hold a value that is neither class nor 255.

    Examples:
        >>> ground_truth = np.array([[0, 0, 0, 1, 1, 255]], np.uint8)
        >>> confusion_matrix(np.array([[0, 0, 1, 1, 255, 1]], np.uint8), ground_truth, num_classes=2)
        array([[2, 1, 0],
               [0, 1, 1]])
    """
    pairs = joint_histogram(prediction, truth)
    unknown = np.arange(num_classes, IGNORE)
    for what, counts in (("prediction", pairs.sum(axis=0)), ("ground truth", pairs.sum(axis=1))):
        found = unknown[counts[unknown] > 0]
        if found.size:
            raise InputError(
                f"{what} holds the value {found[0]}, expected 0..{num_classes - 1} or {IGNORE}; "
                "check the list of classes."
            )
    return pairs[:num_classes, [*range(num_classes), IGNORE]]


class ClassRates(NamedTuple):
    """What one pooled confusion says of every class, from TP, T (pixels of the ground truth) and P (of the prediction).

    All are C float64 in [0, 1], NaN where the class occurs in neither the ground truth nor the prediction. Where it
    occurs in one of them only, precision or recall, else 0 / 0, is 0.

    Attributes:
        iou: TP / (T + P - TP), as the VOC devkit counts it.
        precision: TP / P.
        recall: TP / T.
        fp: (P - TP) / (T + P - TP), the share of the union that is predicted wrongly (MCTformer, CVPR 2022).
        fn: (T - TP) / (T + P - TP), the share of the union that is missed; iou + fp + fn = 1.

    Examples:
        >>> rates = class_rates(np.array([[3, 1, 0], [0, 4, 0]]))
        >>> rates.iou, rates.fp, rates.fn  # iou + fp + fn = 1
        (array([0.75, 0.8 ]), array([0. , 0.2]), array([0.25, 0.  ]))
    """

    iou: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    fp: npt.NDArray[np.float64]
    fn: npt.NDArray[np.float64]


def class_rates(confusion: npt.NDArray[np.integer]) -> ClassRates:
    """Work out the scores of every class.

    Args:
        confusion: C x (C+1), see `confusion_matrix`.

    Examples:
        >>> rates = class_rates(np.array([[3, 1, 0], [0, 4, 0]]))
        >>> rates.precision, rates.recall
        (array([1. , 0.8]), array([0.75, 1.  ]))
    """
    hits = confusion.diagonal()
    truth, predicted = confusion.sum(axis=1), confusion[:, : len(confusion)].sum(axis=0)
    union = truth + predicted - hits

    pairs = ((hits, union), (hits, predicted), (hits, truth), (predicted - hits, union), (truth - hits, union))
    return ClassRates(*(np.where(union > 0, part / np.maximum(whole, 1), np.nan) for part, whole in pairs))


def intersection_over_union(confusion: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """IoU of every class, C float64; see `ClassRates`.

    Examples:
        >>> intersection_over_union(np.array([[3, 1, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0]]))  # nothing shows class 2
        array([0.75, 0.8 ,  nan])
    """
    return class_rates(confusion).iou


def shown_mean(values: npt.NDArray[np.float64]) -> float:
    """Mean over the classes that occur in ground truth or prediction, which are not NaN; NaN if there is none.

    Examples:
        >>> shown_mean(np.array([0.75, 0.25, np.nan]))
        0.5
    """
    shown = values[~np.isnan(values)]
    return float(shown.mean()) if shown.size else float("nan")


def best_of_both(
    prediction: npt.NDArray[np.uint8], advice: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """The oracle merge: what a perfect choice between two masks, pixel by pixel, would give.

    Args:
        prediction: H x W uint8, the knowledge K; its label stays where neither mask is right.
        advice: H x W uint8, the advice A.
        truth: H x W uint8.

    Returns:
        H x W uint8: the ground truth where K or A is right, else K.

    Examples:
        >>> knowledge, advice = np.array([[0, 8, 8]], np.uint8), np.array([[8, 0, 0]], np.uint8)
        >>> best_of_both(knowledge, advice, np.array([[8, 8, 12]], np.uint8))  # A is right, K is right, neither is
        array([[8, 8, 8]], dtype=uint8)
    """
    return np.where(advice == truth, truth, prediction)
