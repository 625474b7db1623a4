"""`pydensecrf.utils`: unary energies of probabilities and labels, and features of pairwise potentials."""

from collections.abc import Sequence
from numbers import Real

import numpy as np
import numpy.typing as npt

from ssdd_lightning.crf.settings import SMALLEST_PROBABILITY
from ssdd_lightning.errors import InputError

Floats = npt.NDArray[np.float32]


def unary_from_softmax(
    sm: npt.NDArray[np.floating], scale: float | None = None, clip: float | None = SMALLEST_PROBABILITY
) -> Floats:
    """Unary energies of class probabilities, -log.

    Args:
        sm: C x ... probabilities.
        scale: Mix the probabilities with 1 - scale of uniform ones, in (0, 1]; None leaves them.
        clip: Smallest probability; None clips nothing.

    Returns:
        C x n, n the product of the other dimensions.

    Raises:
        InputError: The scale is out of range.

    Examples:
        >>> unary_from_softmax(np.array([[0.0, 0.5], [1.0, 0.5]])).round(2) + 0
        array([[11.51,  0.69],
               [ 0.  ,  0.69]], dtype=float32)
    """
    sm = np.asarray(sm)
    if scale is not None:
        if not 0 < scale <= 1:
            raise InputError(f"scale must be above 0 and at most 1; found {scale}.")
        sm = scale * sm + (1 - scale) / len(sm)
    if clip is not None:
        sm = np.clip(sm, clip, 1.0)
    return -np.log(sm).reshape(len(sm), -1).astype(np.float32)


def unary_from_labels(
    labels: npt.NDArray[np.integer], n_labels: int, gt_prob: float, zero_unsure: bool = True
) -> Floats:
    """Unary energies of labels that are right with a certain probability.

    Args:
        labels: Whole numbers of any shape.
        n_labels: C; without the 0 if that means unsure.
        gt_prob: Probability of the given label, in (0, 1); the others share the rest.
        zero_unsure: 0 means that any label may be right, and the label c is written as c + 1.

    Returns:
        C x n.

    Raises:
        InputError: The probability or a label is out of range.

    Examples:
        >>> unary_from_labels(np.array([0, 1, 2]), 2, gt_prob=0.8).round(2)
        array([[0.69, 0.22, 1.61],
               [0.69, 1.61, 0.22]], dtype=float32)
    """
    if not 0 < gt_prob < 1:
        raise InputError(f"gt_prob must be in (0, 1); found {gt_prob}.")
    shown = np.asarray(labels).reshape(-1).astype(np.int64) - (1 if zero_unsure else 0)
    unsure = shown < 0 if zero_unsure else np.zeros_like(shown, bool)
    if ((shown < 0) & ~unsure | (shown >= n_labels)).any():
        raise InputError(f"labels must be below {n_labels + int(zero_unsure)}; found {int(np.max(labels))}.")
    others = (1 - gt_prob) / (n_labels - 1) if n_labels > 1 else 1.0
    energies = np.full((n_labels, len(shown)), -np.log(others), np.float32)
    energies[shown[~unsure], np.flatnonzero(~unsure)] = -np.log(gt_prob)
    energies[:, unsure] = np.log(n_labels)
    return energies


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> Floats:
    """Features of a smoothness kernel on a grid of any dimensions, for `DenseCRF.addPairwiseEnergy`.

    Args:
        sdims: Width along each dimension; on an image that is first y, then x.
        shape: Size along each dimension.

    Returns:
        d x n.

    Examples:
        >>> create_pairwise_gaussian((1, 2), (2, 2))
        array([[0. , 0. , 1. , 1. ],
               [0. , 0.5, 0. , 0.5]], dtype=float32)
    """
    places = np.indices(tuple(shape)).astype(np.float32).reshape(len(shape), -1)
    return places / np.array(sdims, np.float32)[:, None]


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: float | Sequence[float], img: npt.NDArray[np.generic], chdim: int = -1
) -> Floats:
    """Features of an appearance kernel on an image of any dimensions and channels.

    Args:
        sdims: Width along each dimension.
        schan: Width of all channels, or of each one.
        img: The image.
        chdim: Which dimension holds the channels; -1 for an image without.

    Returns:
        (d + channels) x n.

    Examples:
        >>> create_pairwise_bilateral((1, 1), 10, np.array([[0, 50], [100, 150]]))[2]
        array([ 0.,  5., 10., 15.], dtype=float32)
    """
    channels = img[None] if chdim == -1 else np.moveaxis(img, chdim, 0)
    widths = np.full(len(channels), schan, np.float32) if isinstance(schan, Real) else np.array(schan, np.float32)
    colours = channels.astype(np.float32).reshape(len(channels), -1) / widths[:, None]
    return np.concatenate((create_pairwise_gaussian(sdims, channels.shape[1:]), colours))


def softmax_to_unary(sm: npt.NDArray[np.floating], GT_PROB: float = 1) -> Floats:
    """Unary energies by the older name, without clipping; take `unary_from_softmax`.

    Examples:
        >>> softmax_to_unary(np.array([[0.5], [0.5]])).round(2)
        array([[0.69],
               [0.69]], dtype=float32)
    """
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def compute_unary(labels: npt.NDArray[np.integer], M: int, GT_PROB: float = 0.5) -> Floats:
    """Unary energies by the older name; take `unary_from_labels`.

    Examples:
        >>> compute_unary(np.array([1]), 2).round(2)
        array([[0.69],
               [0.69]], dtype=float32)
    """
    return unary_from_labels(labels, M, GT_PROB)
