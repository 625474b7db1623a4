"""Difference, failure, bias and merge: the arithmetic of SSDD (Eq. 1, 3, 4, 16 and 17)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.errors import InputError


@dataclass(frozen=True)
class MergeBiases:
    """What the merge leans to (Eq. 16 and 17). The defaults are the paper's.

    Args:
        dd_bias: b_dd, lean towards the advice (positive) or the knowledge (negative).
        class_bias: b_class, protection of a vanishing class.
        background_bias: b_bg, lean towards the mask that says background; the authors' code's own addition.
        failed_ratio: A class failed whose share of pixels kept by the advice is smaller.

    Examples:
        >>> MergeBiases(class_bias=0.0)
        MergeBiases(dd_bias=0.4, class_bias=0.0, background_bias=0.0, failed_ratio=0.5)
    """

    dd_bias: float = 0.4
    class_bias: float = 1.0
    background_bias: float = 0.0
    failed_ratio: float = 0.5


def present_argmax(scores: Tensor, image_labels: Tensor) -> Tensor:
    """Take the argmax over background and the image's own classes only ("argmax of the presence labels", 4.1).

    Args:
        scores: B x C x H x W float, probabilities or logits; channel 0 is background.
        image_labels: B x C bool, column 0 (background) true.

    Returns:
        B x H x W long mask.

    Examples:
        >>> scores = torch.tensor([[[[0.5, 0.1]], [[0.3, 0.4]], [[0.2, 0.5]]]])
        >>> present_argmax(scores, image_labels=torch.tensor([[True, True, False]]))
        tensor([[[0, 1]]])
    """
    return scores.masked_fill(~image_labels[:, :, None, None], float("-inf")).argmax(1)


def valid_pixels(knowledge: Tensor, advice: Tensor) -> Tensor:
    """Say where both masks carry a label; only there are they used in losses, counts and decisions.

    Args:
        knowledge: B x H x W long, 255 = ignore.
        advice: B x H x W long, 255 = ignore.

    Returns:
        B x H x W bool.

    Examples:
        >>> knowledge = torch.tensor([[[0, 8, 8, 255]]])
        >>> advice = torch.tensor([[[0, 0, 255, 255]]])
        >>> valid_pixels(knowledge, advice)
        tensor([[[ True,  True, False, False]]])
    """
    return (knowledge != IGNORE) & (advice != IGNORE)


def difference_target(knowledge: Tensor, advice: Tensor) -> Tensor:
    """Mark the pixels where two masks disagree (Eq. 1).

    The equation as printed has the two cases exchanged; everything else in the paper needs 1 where the masks
    differ. Pixels that are 255 in either mask are 0 and must be left out with `valid_pixels`.

    Args:
        knowledge: B x H x W long, 255 = ignore.
        advice: B x H x W long, 255 = ignore.

    Returns:
        B x H x W float, 1 where both masks have a label and the labels differ, else 0.

    Raises:
        InputError: if the shapes differ.

    Examples:
        >>> knowledge = torch.tensor([[[0, 8, 8, 255]]])
        >>> advice = torch.tensor([[[0, 8, 0, 8]]])
        >>> difference_target(knowledge, advice)
        tensor([[[0., 0., 1., 0.]]])
    """
    _check_same_shape(knowledge, advice)
    return ((knowledge != advice) & valid_pixels(knowledge, advice)).float()


def failed_classes(knowledge: Tensor, advice: Tensor, image_labels: Tensor, ratio: float = 0.5) -> Tensor:
    """Find the classes that the mapping function made vanish (Eq. 16).

    A class of the image failed if |A = c| / max(|K = c|, 1) < ratio, counted over pixels valid in both masks.
    A class that neither mask shows fails too; it has no pixel that the merge bias could move.

    Args:
        knowledge: B x H x W long, 255 = ignore.
        advice: B x H x W long, 255 = ignore.
        image_labels: B x C bool, column 0 (background) true.
        ratio: share of its pixels that a class must keep, 0 to 1.

    Returns:
        B x C bool; background is always false.

    Raises:
        InputError: if the shapes of the masks differ.

    Examples:
        >>> knowledge = torch.tensor([[[1, 1, 1, 2, 2, 2]]])
        >>> advice = torch.tensor([[[1, 0, 0, 2, 2, 0]]])  # keeps a third of class 1 and two thirds of class 2
        >>> failed_classes(knowledge, advice, image_labels=torch.tensor([[True, True, True]]))
        tensor([[False,  True, False]])
    """
    _check_same_shape(knowledge, advice)
    valid = valid_pixels(knowledge, advice)
    num_classes = image_labels.shape[1]
    kept = class_counts(advice, valid, num_classes) / class_counts(knowledge, valid, num_classes).clamp(min=1)
    failed = (kept < ratio) & image_labels
    failed[:, 0] = False
    return failed


def class_counts(mask: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Count the valid pixels of each class.

    Args:
        mask: B x H x W long.
        valid: B x H x W bool; the others are not counted.
        num_classes: C.

    Returns:
        B x C float.

    Examples:
        >>> mask = torch.tensor([[[0, 1, 1, 255]]])
        >>> class_counts(mask, valid=mask != 255, num_classes=3)
        tensor([[1., 2., 0.]])
    """
    index = mask.masked_fill(~valid, num_classes).flatten(1)
    counts = torch.zeros(len(mask), num_classes + 1, device=mask.device)
    return counts.scatter_add_(1, index, torch.ones_like(index, dtype=counts.dtype))[:, :num_classes]


def bad_samples(failed: Tensor) -> Tensor:
    """Say which images are bad training samples for difference detection (Eq. 16).

    One failed class suffices, as in the authors' code; in the paper, all classes of the image must have failed.

    Args:
        failed: B x C bool, from `failed_classes`.

    Returns:
        B bool.

    Examples:
        >>> bad_samples(torch.tensor([[False, True, False], [False, False, False]]))
        tensor([ True, False])
    """
    return failed.any(1)


def merge_bias(
    knowledge: Tensor,
    advice: Tensor,
    failed: Tensor,
    biases: MergeBiases = MergeBiases(),
) -> Tensor:
    """Compute the bias of the confidence score (Eq. 17), signed so that a vanishing class is protected.

    bias = dd_bias - class_bias [K failed] + class_bias [A failed] - background_bias [K = 0] + background_bias [A = 0]

    Args:
        knowledge: B x H x W long, 255 = ignore.
        advice: B x H x W long, 255 = ignore.
        failed: B x C bool, from `failed_classes`.
        biases: b_dd, b_class and b_bg.

    Returns:
        B x H x W float.

    Examples:
        >>> knowledge, advice = torch.tensor([[[0, 1, 0]]]), torch.tensor([[[0, 0, 1]]])
        >>> failed = torch.tensor([[False, True]])
        >>> merge_bias(knowledge, advice, failed)  # class 1 failed: -1 where K shows it, +1 where A does
        tensor([[[ 0.4000, -0.6000,  1.4000]]])
    """
    lost_in_knowledge = _lookup(failed, knowledge).float()
    lost_in_advice = _lookup(failed, advice).float()
    to_background = (advice == 0).float() - (knowledge == 0).float()
    vanishing = lost_in_advice - lost_in_knowledge
    return biases.dd_bias + biases.class_bias * vanishing + biases.background_bias * to_background


def ssdd_merge(
    knowledge: Tensor,
    advice: Tensor,
    d_knowledge: Tensor,
    d_advice: Tensor,
    image_labels: Tensor,
    biases: MergeBiases = MergeBiases(),
    failed: Tensor | None = None,
) -> Tensor:
    """Take the advice where the difference was predictable, else keep the knowledge (Eq. 3, Eq. 4).

    w = d_K - d_A + bias; the advice is taken where w >= 0. Where exactly one mask is 255 the other one's label is
    taken; where both are, the result is 255.

    Args:
        knowledge: B x H x W long, 255 = ignore.
        advice: B x H x W long, 255 = ignore.
        d_knowledge: B x H x W float in [0, 1], difference predicted from the knowledge.
        d_advice: B x H x W float in [0, 1], difference predicted from the advice.
        image_labels: B x C bool, column 0 (background) true.
        biases: b_dd, b_class, b_bg, and when a class failed.
        failed: B x C bool, from `failed_classes`, if it is known already.

    Returns:
        B x H x W long, the refined mask m_D.

    Raises:
        InputError: if the shapes of masks and difference maps are not all the same.

    Examples:
        >>> knowledge, advice = torch.tensor([[[1, 1, 1, 1]]]), torch.tensor([[[1, 1, 0, 0]]])
        >>> d_knowledge = torch.tensor([[[0.1, 0.1, 0.9, 0.1]]])
        >>> d_advice = torch.tensor([[[0.1, 0.1, 0.2, 0.8]]])
        >>> image_labels = torch.tensor([[True, True]])
        >>> ssdd_merge(knowledge, advice, d_knowledge, d_advice, image_labels)  # w is 0.4, 0.4, 1.1 and -0.3
        tensor([[[1, 1, 0, 1]]])
    """
    _check_same_shape(knowledge, advice, d_knowledge, d_advice)
    if failed is None:
        failed = failed_classes(knowledge, advice, image_labels, biases.failed_ratio)
    confidence = d_knowledge - d_advice + merge_bias(knowledge, advice, failed, biases)
    take_advice = ((confidence >= 0) & (advice != IGNORE)) | (knowledge == IGNORE)
    return torch.where(take_advice, advice, knowledge)


def _lookup(table: Tensor, mask: Tensor) -> Tensor:
    """Read table[b, mask[b, y, x]] for every pixel; false at 255."""
    index = mask.masked_fill(mask == IGNORE, 0).flatten(1)
    return table.gather(1, index).view_as(mask) & (mask != IGNORE)


def _check_same_shape(*tensors: Tensor) -> None:
    shapes = [tuple(t.shape) for t in tensors]
    if len(set(shapes)) > 1 or len(shapes[0]) != 3:
        raise InputError(
            f"masks and difference maps must all be B x H x W of one size, found {shapes}; resize them first."
        )
