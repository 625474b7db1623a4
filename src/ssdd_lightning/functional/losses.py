"""The losses of SSDD: difference detection (Eq. 2) and segmentation (Eq. 8)."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.errors import InputError
from ssdd_lightning.functional.refinement import difference_target, valid_pixels
from ssdd_lightning.functional.totals import Total, own, with_processes


def difference_loss(
    logits: Tensor,
    target: Tensor,
    keep: Tensor | None = None,
    valid: Tensor | None = None,
    per_image: bool = True,
    total: Total = own,
) -> Tensor:
    """Binary cross entropy between DD-Net's prediction and the difference (one term of Eq. 2).

    It is the mean over difference pixels and the mean over agreement pixels, averaged, as in the authors' code (the
    paper: the plain mean over pixels). A side without pixels leaves the mean to the other one.

    Args:
        logits: B x 1 x H x W or B x H x W float, before the sigmoid.
        target: B x H x W float, 1 where the masks differ.
        keep: B bool, images to use (None: all); the others are bad training samples (Eq. 16).
        valid: B x H x W bool, pixels to use (None: all).
        per_image: reduce within each image, then over the kept images that have valid pixels; otherwise pool the
            pixels of the whole batch.
        total: sums counts over the processes of a run, such as `functional.totals.over_processes`. The mean of what
            the processes return is then the loss of the global batch.

    Returns:
        Scalar. If nothing is left it is 0 and still connected to `logits`, so that every rank of a distributed
        run has a backward pass.

    Raises:
        InputError: if logits and target differ in size.

    Examples:
        >>> logits = torch.tensor([[[2.0, -2.0, -2.0, -2.0]]])  # BCE 0.127 where right, 2.127 where wrong
        >>> target = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
        >>> difference_loss(logits, target)  # (1.127 + 0.127) / 2
        tensor(0.6269)
    """
    if tuple(logits.shape) not in (tuple(target.shape), (len(target), 1, *target.shape[1:])):
        raise InputError(
            f"difference logits {tuple(logits.shape)} and target {tuple(target.shape)} must have one size; "
            "resize one of them first."
        )
    logits = logits.view(target.shape).float()
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = torch.ones_like(target) if valid is None else valid.to(target)
    if keep is not None:
        weight = weight * keep.to(target)[:, None, None]
    shape = (len(loss), -1) if per_image else (1, -1)
    loss, weight, target = loss.reshape(shape), weight.reshape(shape), target.reshape(shape)
    sides = torch.stack((weight * target, weight * (1 - target)))
    pixels = sides.sum(-1)
    if per_image:
        images, processes = with_processes(total, (pixels > 0).any(0).sum())
    else:
        pixels, processes = with_processes(total, pixels)
        images = (pixels > 0).any(0).sum()
    means = _mean_over_present((sides * loss).sum(-1) / pixels.clamp(min=1), pixels > 0)
    return processes * means.sum() / images.clamp(min=1)


def difference_losses(
    terms: Iterable[tuple[Tensor, Tensor, Tensor]],
    keep: Tensor | None = None,
    per_image: bool = True,
    total: Total = own,
) -> Tensor:
    """Sum of the terms of a difference loss (Eq. 6, 12 and 13).

    Args:
        terms: For each term the logits B x 1 x H x W of DD-Net on one mask, and the two masks B x H x W long,
            255 = ignore, whose difference is their target (Eq. 1).
        keep: As in `difference_loss`.
        per_image: As in `difference_loss`.
        total: As in `difference_loss`.

    Returns:
        Scalar.

    Examples:
        >>> mask, other = torch.tensor([[[0, 1]]]), torch.tensor([[[0, 2]]])
        >>> difference_losses([(torch.zeros(1, 1, 1, 2), mask, other)] * 2)  # 2 log 2
        tensor(1.3863)
    """
    losses = [
        difference_loss(logits, difference_target(mask, other), keep, valid_pixels(mask, other), per_image, total)
        for logits, mask, other in terms
    ]
    return torch.stack(losses).sum()


def segmentation_loss(logits: Tensor, mask: Tensor, per_class: bool = True, total: Total = own) -> Tensor:
    """Cross entropy of a segmentation network against a mask (Eq. 8).

    Args:
        logits: B x C x H x W float.
        mask: B x H x W long, 255 = ignore.
        per_class: mean within each class present in the batch, then over these classes (the printed sums);
            otherwise the plain mean over labelled pixels (the authors' code).
        total: as in `difference_loss`.

    Returns:
        Scalar; 0, connected to `logits`, if no pixel has a label.

    Examples:
        >>> probabilities = torch.tensor([[[[0.8, 0.8, 0.8, 0.5]], [[0.2, 0.2, 0.2, 0.5]]]])
        >>> mask = torch.tensor([[[0, 0, 0, 1]]])
        >>> segmentation_loss(probabilities.log(), mask)  # (-log(0.8) - log(0.5)) / 2
        tensor(0.4581)
        >>> segmentation_loss(probabilities.log(), mask, per_class=False)  # (-3 log(0.8) - log(0.5)) / 4
        tensor(0.3406)
    """
    loss = F.cross_entropy(logits.float(), mask, ignore_index=IGNORE, reduction="none")
    labelled = mask != IGNORE
    if not per_class:
        pixels, processes = with_processes(total, labelled.sum())
        return processes * loss.sum() / pixels.clamp(min=1)
    num_classes = logits.shape[1]
    index = mask.masked_fill(~labelled, num_classes).flatten()
    sums = loss.new_zeros(num_classes + 1).scatter_add(0, index, loss.flatten())[:num_classes]
    # not bincount, at whose size torch.compile stops
    counts = index.new_zeros(num_classes + 1).scatter_add(0, index, torch.ones_like(index))[:num_classes]
    counts, processes = with_processes(total, counts)
    return processes * _mean_over_present(sums / counts.clamp(min=1), counts > 0)


def _mean_over_present(values: Tensor, present: Tensor) -> Tensor:
    """Mean of `values` over the first dimension where `present` holds; 0 where none does."""
    return (values * present).sum(0) / present.sum(0).clamp(min=1)
