"""Quality of a mask near contours: boundary IoU, and the trimap curve of IoU within bands around ground truth contours.

Both count distance as chessboard distance: what lies within w of a pixel is the square of 2w + 1 around it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ssdd_lightning.constants import IGNORE

RATIO = 0.02
"""Depth of the boundary region as a share of the image's diagonal (Cheng et al., CVPR 2021)."""
TRIMAP_WIDTHS = (1, 2, 4, 8, 16, 32)
"""Widths of the bands in pixels, ascending (DeepLab's curve goes from 1 to 40)."""

Counts = npt.NDArray[np.int64]


def boundary_counts(prediction: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], num_classes: int) -> Counts:
    """Count the boundary regions of one pair of masks; add them up over a split.

    The boundary region of a class is that part of it that lies within d pixels of its contour, on its inner side, with
    d = round(0.02 x diagonal), at least 1. The border of the image is a contour, as in the paper. Pixels of 255 in the
    ground truth are taken out of both masks first, so that they have contours in the same places, and a prediction
    that is right wherever it is scored reaches 1.

    Args:
        prediction: H x W uint8, 0..num_classes-1 or 255.
        truth: H x W uint8, 0..num_classes-1 or 255.
        num_classes: C, background included.

    Returns:
        3 x C int64: pixels in both boundary regions of a class, in the ground truth's, in the prediction's.

    Examples:
        >>> ground_truth = np.zeros((5, 5), np.uint8)
        >>> ground_truth[1:4, 1:4] = 1  # all of this square is boundary, save its centre
        >>> boundary_counts(np.zeros_like(ground_truth), ground_truth, num_classes=2)
        array([[16,  0],
               [16,  8],
               [16,  0]])
    """
    depth = boundary_depth(truth.shape[0], truth.shape[1])
    prediction = np.where(truth == IGNORE, np.uint8(IGNORE), prediction)
    inner = [_inner_boundary(mask, depth) for mask in (prediction, truth)]
    regions = [np.where(near, mask, IGNORE) for near, mask in zip(inner, (prediction, truth), strict=True)]
    both = regions[1][regions[0] == regions[1]]
    counts = [np.bincount(labels.ravel(), minlength=IGNORE + 1) for labels in (both, regions[1], regions[0])]
    return np.stack(counts)[:, :num_classes]


def boundary_iou(counts: Counts) -> npt.NDArray[np.float64]:
    """IoU of the boundary regions, pooled by class (Cheng et al., Eq. 2, with sums over the split).

    Args:
        counts: 3 x C, see `boundary_counts`.

    Returns:
        C float64 in [0, 1]; NaN where neither mask shows the class.

    Examples:
        >>> boundary_iou(np.array([[16, 4, 0], [16, 8, 0], [16, 4, 0]]))
        array([1. , 0.5, nan])
    """
    both, truth, predicted = counts
    union = truth + predicted - both
    return np.where(union > 0, both / np.maximum(union, 1), np.nan)


def boundary_depth(height: int, width: int) -> int:
    """Depth of the boundary region in pixels: 12 for VOC's 500 x 375.

    Examples:
        >>> boundary_depth(375, 500)
        12
    """
    return max(1, round(RATIO * float(np.hypot(height, width))))


def trimap_counts(
    prediction: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.uint8],
    num_classes: int,
    widths: Sequence[int] = TRIMAP_WIDTHS,
) -> Counts:
    """Count confusions within bands around ground truth contours (Kohli et al., IJCV 2009); add them up over a split.

    A pixel is in the band of width w if a pixel of another value lies within w of it. 255 is a value of its own, so
    that in VOC, where objects are surrounded by it, the band begins where that ends, as in DeepLab's evaluation.

    Args:
        prediction: H x W uint8, 0..num_classes-1 or 255.
        truth: H x W uint8, 0..num_classes-1 or 255; pixels of 255 are in no band.
        num_classes: C, background included.
        widths: K widths in pixels, ascending.

    Returns:
        K x C x (C+1) int64, a confusion for each width, see `confusion.confusion_matrix`.

    Examples:
        >>> ground_truth = np.array([[0, 0, 0, 1, 1, 1]], np.uint8)
        >>> prediction = np.array([[1, 0, 0, 0, 1, 1]], np.uint8)
        >>> [narrow, wide] = trimap_counts(prediction, ground_truth, num_classes=2, widths=[1, 4])
        >>> narrow.tolist(), wide.tolist()  # 2 pixels in the narrow band, all 6 in the wide one
        ([[1, 0, 0], [1, 0, 0]], [[2, 1, 0], [1, 2, 0]])
    """
    narrowest = np.zeros(truth.shape, dtype=np.intp)  # number of the first band that a pixel is in
    for width in widths:
        narrowest += ~near_other_value(truth, width)
    inside = (narrowest < len(widths)) & (truth != IGNORE)
    columns = np.where(prediction == IGNORE, num_classes, prediction)[inside]
    cells = (narrowest[inside] * num_classes + truth[inside]) * (num_classes + 1) + columns
    shape = len(widths), num_classes, num_classes + 1
    return np.bincount(cells, minlength=int(np.prod(shape))).reshape(shape).cumsum(axis=0)


def near_other_value(mask: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.bool_]:
    """Which pixels have a pixel of another value within `width` of them, H x W; outside the image there is none.

    Examples:
        >>> near_other_value(np.array([[0, 0, 0, 8, 8, 8]], np.uint8), width=1)
        array([[False, False,  True,  True, False, False]])
    """
    import cv2  # for this measure alone; the others start without it

    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    return np.asarray(cv2.erode(mask, square) != cv2.dilate(mask, square))


def _inner_boundary(mask: npt.NDArray[np.uint8], depth: int) -> npt.NDArray[np.bool_]:
    near = near_other_value(mask, depth)
    for side in (near[:depth], near[-depth:], near[:, :depth], near[:, -depth:]):
        side[...] = True
    return near
