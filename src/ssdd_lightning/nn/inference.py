"""Multi-scale inference with horizontal flips, the field's testing protocol."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ssdd_lightning.nn.cpu import folded_once
from ssdd_lightning.nn.ssdd import resize_logits


def scaled_views(image: Tensor, scales: Sequence[float], flip: bool) -> list[Tensor]:
    """Resize a batch of images to every scale.

    Args:
        image: B x 3 x H x W uint8 RGB.
        scales: factors of the image's size.
        flip: append the horizontally flipped copies of the images to each batch.

    Returns:
        One B x 3 x h x w float (0 to 255) a scale, or 2B x 3 x h x w with the flipped copies.
    """
    views = []
    for scale in scales:
        size = [max(1, round(side * scale)) for side in image.shape[-2:]]
        view = F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=scale < 1)
        views.append(torch.cat((view, view.flip(-1))) if flip else view)
    return views


def flipped_back(maps: Tensor, flip: bool) -> list[Tensor]:
    """Split the maps of a view into those of the images and those of the flipped copies, which are flipped back."""
    if not flip:
        return [maps]
    straight, flipped = maps.chunk(2)
    return [straight, flipped.flip(-1)]


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
    total: Tensor | float = 0.0
    with folded_once():
        for view in scaled_views(image, scales, flip):
            for logits in flipped_back(logits_of(view), flip):
                total = total + resize_logits(logits.float(), image.shape[-2:]).softmax(1)
    return torch.as_tensor(total) / (len(scales) * (2 if flip else 1))
