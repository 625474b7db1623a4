"""Multi-scale inference with horizontal flips, the field's testing protocol."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ssdd_lightning.nn.ssdd import resize_logits


def scaled_views(image: Tensor, scales: Sequence[float], flip: bool) -> list[tuple[Tensor, bool]]:
    """Make every resized and, if wanted, flipped copy of a batch of images.

    Args:
        image: B x 3 x H x W uint8 RGB.
        scales: factors of the image's size.
        flip: add the horizontally flipped copy of each.

    Returns:
        Pairs of an image B x 3 x h x w float (0 to 255) and whether it is flipped.
    """
    views = []
    for scale in scales:
        size = [max(1, round(side * scale)) for side in image.shape[-2:]]
        view = F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=scale < 1)
        views += [(view, False)] + ([(view.flip(-1), True)] if flip else [])
    return views


def multi_scale_probabilities(
    logits_of: Callable[[Tensor], Tensor], image: Tensor, scales: Sequence[float] = (1.0,), flip: bool = False
) -> Tensor:
    """Average a network's probabilities over scales and flips.

    Args:
        logits_of: maps an image B x 3 x h x w float (0 to 255) to logits B x C x h' x w'.
        image: B x 3 x H x W uint8 RGB.
        scales: factors of the image's size (the testing protocol: 0.5, 0.75, 1, 1.25, 1.5).
        flip: average over the horizontal flip too.

    Returns:
        B x C x H x W float probabilities.
    """
    views = scaled_views(image, scales, flip)
    total: Tensor | float = 0.0
    for view, flipped in views:
        logits = logits_of(view)
        logits = resize_logits((logits.flip(-1) if flipped else logits).float(), image.shape[-2:])
        total = total + logits.softmax(1)
    return torch.as_tensor(total) / len(views)
