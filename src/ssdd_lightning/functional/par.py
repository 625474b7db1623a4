"""Pixel-adaptive refinement: score maps spread to neighbours of like colour, a mapping function without a CRF."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ssdd_lightning.errors import InputError

DILATIONS = (1, 2, 4, 8, 12, 24)
"""How far the eight neighbours of a pixel lie, in pixels, in the code of AFA and ToCo."""
_WIDTH = 0.3  # w1: of both kernels, in standard deviations
_POSITION = 0.01  # w2: weight of the position kernel
_AROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


@torch.no_grad()
def pixel_adaptive_refinement(
    image: Tensor,
    probabilities: Tensor,
    present: Tensor | None = None,
    iterations: int = 10,
    dilations: Sequence[int] = DILATIONS,
) -> Tensor:
    """Replace each pixel's probabilities by an average over its neighbours, again and again.

    This is PAR of AFA (Ru et al., CVPR 2022), with the settings of its authors' code. A pixel has eight
    neighbours at each dilation; beyond the border the nearest pixel stands in. The weight of a neighbour is the
    softmax of -(difference of colour / standard deviation of the neighbours' / 0.3)^2, averaged over the channels,
    plus 0.01 times the same softmax of the distance. Here the weights are divided by their sum, 1.01, so that
    probabilities stay probabilities; their order is the same.

    Args:
        image: B x 3 x H x W uint8 RGB.
        probabilities: B x C x H x W float >= 0, on the image's device; each pixel's are first divided by their sum.
        present: B x C bool, the classes to use; the others come out as 0. None means all.
        iterations: averagings, 0 or more.
        dilations: distances of the neighbours in pixels.

    Returns:
        B x C x H x W float32 summing to one over the classes, without a gradient.

    Raises:
        InputError: a wrong shape, type or number, a probability that is negative, infinite or NaN, or an image without
            any present class.

    Examples:
        >>> image = torch.tensor([0, 0, 0, 255, 255, 255], dtype=torch.uint8).expand(1, 3, 1, 6)
        >>> foreground = torch.tensor([[[0.2, 0.6, 0.1, 0.8, 0.4, 0.9]]])  # one wrong pixel on either side of the edge
        >>> probabilities = torch.stack((1 - foreground, foreground), dim=1)
        >>> refined = pixel_adaptive_refinement(image, probabilities, dilations=(1, 2))
        >>> refined[:, 1].round(decimals=1)
        tensor([[[0.3000, 0.3000, 0.3000, 0.7000, 0.7000, 0.7000]]])
    """
    _check(image, probabilities, iterations, dilations)
    shares = probabilities.detach().float()
    if present is None:
        present = shares.new_ones(shares.shape[:2], dtype=torch.bool)
    _check_present(present, shares)
    _check_values(shares, present)
    shares = _normalised(shares, present)
    affinity = _affinity(image, dilations)
    for _ in range(iterations):
        spread = torch.zeros_like(shares)
        for weight, neighbour in zip(affinity, _neighbours(shares, dilations), strict=True):
            spread.addcmul_(weight, neighbour)
        shares = spread
    return shares


def _neighbours(values: Tensor, dilations: Sequence[int]) -> list[Tensor]:
    """The values of every neighbour, each B x C x H x W: views of one padded tensor."""
    reach, (height, width) = max(dilations), values.shape[-2:]
    padded = F.pad(values, [reach] * 4, mode="replicate")
    corners = [(reach + y * far, reach + x * far) for far in dilations for y, x in _AROUND]
    return [padded[..., top : top + height, left : left + width] for top, left in corners]


def _affinity(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """Weights of the neighbours of every pixel, n x B x 1 x H x W, summing to one over the neighbours."""
    colours = image.float()
    neighbours = _neighbours(colours, dilations)
    mean = torch.zeros_like(colours)
    for neighbour in neighbours:
        mean += neighbour / len(neighbours)
    variance = torch.zeros_like(colours)
    for neighbour in neighbours:
        variance += (neighbour - mean) ** 2 / (len(neighbours) - 1)
    width = (variance.sqrt() + 1e-8) * _WIDTH
    near = [-(((neighbour - colours) / width) ** 2).mean(1, keepdim=True) for neighbour in neighbours]
    far = torch.tensor([step * math.hypot(y, x) for step in dilations for y, x in _AROUND], device=image.device)
    position = (-((far / (far.std() + 1e-8) / _WIDTH) ** 2)).softmax(0)
    weights = torch.stack(near).softmax(0) + _POSITION * position[:, None, None, None, None]
    return weights / (1 + _POSITION)


def _normalised(shares: Tensor, present: Tensor) -> Tensor:
    """Divide by the sum over the present classes; where it is 0, they are all equal."""
    taking_part = present[:, :, None, None].to(shares)
    shares = shares * taking_part
    total = shares.sum(1, keepdim=True)
    return torch.where(total > 0, shares / total.clamp(min=1e-30), taking_part / taking_part.sum(1, keepdim=True))


def _check(image: Tensor, probabilities: Tensor, iterations: int, dilations: Sequence[int]) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or image.dtype != torch.uint8:
        raise InputError(
            f"the image must be B x 3 x H x W uint8 RGB; found {tuple(image.shape)} {image.dtype}. Pass the raw image."
        )
    if (
        probabilities.ndim != 4
        or not probabilities.is_floating_point()
        or not probabilities.numel()
        or probabilities.shape[::2] + probabilities.shape[3:] != image.shape[::2] + image.shape[3:]
    ):
        raise InputError(
            f"probabilities must be B x C x H x W floats of the images' number and size, {tuple(image.shape)}; found "
            f"{tuple(probabilities.shape)} {probabilities.dtype}."
        )
    if iterations < 0 or not dilations or min(dilations) < 1:
        raise InputError(
            f"refinement needs 0 or more iterations and dilations of 1 or more; found {iterations} and {dilations}."
        )


def _check_present(present: Tensor, shares: Tensor) -> None:
    if present.dtype != torch.bool or present.shape != shares.shape[:2]:
        raise InputError(
            f"present classes must be {shares.shape[0]} x {shares.shape[1]} bool (images x classes); found "
            f"{tuple(present.shape)} {present.dtype}."
        )


def _check_values(shares: Tensor, present: Tensor) -> None:
    """One wait for the device."""
    some = present.any(1).all().to(shares)
    low, high, all_some = torch.stack([*shares.aminmax(), some]).tolist()  # NaN comes through aminmax
    if not 0 <= low <= high < math.inf:
        raise InputError(
            f"probabilities must be finite and 0 or more; found {low:.6g} to {high:.6g}. Apply a softmax first."
        )
    if not all_some:
        raise InputError("every image needs at least one present class; found an image with none.")
