"""Pixel affinities of PSA (Ahn & Kwak, CVPR 2018): which neighbours belong together, and how this is learnt.

A *pair* is a pixel and its neighbour at one of the half-plane offsets. Whatever belongs to pairs is B x P x H x W and
stands at the pixel that comes first in reading order; P is 34 for radius 5. A pair whose second pixel lies outside the
image is invalid.
"""

from functools import lru_cache
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.errors import InputError
from ssdd_lightning.functional.totals import Total, own, with_processes

BOTH_BACKGROUND, SAME_CLASS, DIFFERENT = 0, 1, 2
"""What `pair_labels` tells of a pair; 255 where nothing is known."""

_LEAST = 1e-5  # added inside the logarithms, as in the authors' code
_Window = tuple[EllipsisType, slice, slice]


@lru_cache
def half_plane_offsets(radius: int = 5) -> tuple[tuple[int, int], ...]:
    """List the offsets (dy, dx) that follow the centre in reading order, with dx^2 + dy^2 < radius^2.

    Args:
        radius: in pixels, 2 or more; 5 gives PSA's 34 offsets.

    Raises:
        InputError: for a smaller radius, which leaves no neighbour.

    Examples:
        >>> half_plane_offsets(radius=2)
        ((0, 1), (1, -1), (1, 0), (1, 1))
        >>> len(half_plane_offsets(radius=5))
        34
    """
    if radius < 2:
        raise InputError(f"the radius of pixel pairs must be 2 or more, found {radius}.")
    reach = range(1 - radius, radius)
    return tuple((dy, dx) for dy in reach for dx in reach if (dy, dx) > (0, 0) and dy * dy + dx * dx < radius * radius)


def confident_labels(low: Tensor, high: Tensor) -> Tensor:
    """Combine the CRF masks of two backgrounds into labels that are probably right (section 3.2 of PSA).

    Args:
        low: B x H x W long, from a low background exponent (4), hence with much background; 255 = ignore.
        high: B x H x W long, from a high one (24 in the paper, 32 in the authors' code), with little background.

    Returns:
        B x H x W long: a class where `low` still shows it, background where even `high` shows background, and 255 in
        between, where one of them is 255 and where they contradict each other (`low` a class, `high` background).

    Examples:
        >>> low = torch.tensor([[[0, 0, 8, 8]]])
        >>> high = torch.tensor([[[0, 8, 8, 0]]])
        >>> confident_labels(low, high)  # background, in between, cat, contradiction
        tensor([[[  0, 255,   8, 255]]])
    """
    foreground = (low != 0) & (low != IGNORE) & (high != 0) & (high != IGNORE)
    background = (low == 0) & (high == 0)
    return torch.where(foreground, low, torch.where(background, 0, IGNORE))


def pair_labels(labels: Tensor, radius: int = 5) -> Tensor:
    """Tell for every pair whether its pixels belong together.

    Args:
        labels: B x H x W long, 255 = ignore.
        radius: see `half_plane_offsets`.

    Returns:
        B x P x H x W uint8: 0 both are background, 1 both are of one class, 2 they differ, 255 where a label is 255 or
        the pair is invalid.

    Examples:
        >>> labels = torch.tensor([[[0, 0, 8, 8, 255]]])
        >>> pair_labels(labels, radius=2)[:, 0]  # offset (0, 1): every pixel with its right neighbour
        tensor([[[  0,   2,   1, 255, 255]]], dtype=torch.uint8)
    """
    pairs = labels.new_full((len(labels), len(half_plane_offsets(radius)), *labels.shape[1:]), IGNORE).byte()
    for k, (here, there) in enumerate(_pair_slices(labels.shape[1], labels.shape[2], radius)):
        first, second = labels[here], labels[there]
        same = torch.where(first == 0, BOTH_BACKGROUND, SAME_CLASS)
        known = (first != IGNORE) & (second != IGNORE)
        pairs[:, k][here] = torch.where(first == second, same, DIFFERENT).where(known, IGNORE).byte()
    return pairs


def pair_affinity(features: Tensor, radius: int = 5) -> Tensor:
    """Affinity exp(-mean over channels of |f_i - f_j|) of every pair (PSA, Eq. 3).

    Memory is that of the result and one feature map, in the backward pass too: differences are computed again there.

    Args:
        features: B x C x H x W float.
        radius: see `half_plane_offsets`.

    Returns:
        B x P x H x W float in [0, 1]; 0 for invalid pairs.

    Examples:
        >>> features = torch.tensor([[[[0.0, 0.0, 1.0]]]])
        >>> pair_affinity(features, radius=2)[:, 0]  # exp(0), exp(-1), and no neighbour
        tensor([[[1.0000, 0.3679, 0.0000]]])
    """
    distance: Tensor = _PairDistance.apply(features.float() if features.itemsize < 4 else features, radius)
    return torch.exp(-distance)


def affinity_loss(affinity: Tensor, pairs: Tensor, total: Total = own) -> Tensor:
    """Cross entropy of affinities: bg / 4 + fg / 4 + neg / 2, each the mean over its own pairs (PSA, Eq. 6 to 9).

    Args:
        affinity: B x P x H x W float in [0, 1].
        pairs: B x P x H x W uint8, see `pair_labels`.
        total: sums counts over the processes of a run, see `ssdd_lightning.functional.difference_loss`.

    Returns:
        Scalar. A kind without pairs adds 0; without any pair it is 0 and still connected to `affinity`.

    Examples:
        >>> pairs = torch.tensor([[[[0, 1, 2, 255]]]], dtype=torch.uint8)
        >>> affinity = torch.tensor([[[[1.0, 1.0, 0.5, 0.5]]]])
        >>> affinity_loss(affinity, pairs)  # 0 / 4 + 0 / 4 + log(2) / 2
        tensor(0.3466)
    """
    affinity = affinity.float() if affinity.itemsize < 4 else affinity
    together, apart = -torch.log(affinity + _LEAST), -torch.log(1 + _LEAST - affinity)
    kinds = [pairs == kind for kind in (BOTH_BACKGROUND, SAME_CLASS, DIFFERENT)]
    counts, processes = with_processes(total, torch.stack([chosen.sum() for chosen in kinds]))
    sums = [torch.where(chosen, v, 0).sum() for chosen, v in zip(kinds, (together, together, apart), strict=True)]
    background, foreground, different = torch.stack(sums) / counts.clamp(min=1)  # absent pairs may be infinite
    return processes * (background / 4 + foreground / 4 + different / 2)


class _PairDistance(torch.autograd.Function):
    """Mean absolute difference of the features of every pair; infinite where the pair is invalid."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, radius: int) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(features)
        ctx.radius = radius
        batch, _, height, width = features.shape
        distance = features.new_full((batch, len(half_plane_offsets(radius)), height, width), torch.inf)
        for k, (here, there) in enumerate(_pair_slices(height, width, radius)):
            distance[:, k][here] = (features[here] - features[there]).abs_().mean(1)
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """The derivative of mean |f_i - f_j| is the sign of each channel's difference, shared by both ends."""
        (features,) = ctx.saved_tensors
        gradient = gradients[0] / features.shape[1]
        result = torch.zeros_like(features)
        for k, (here, there) in enumerate(_pair_slices(features.shape[2], features.shape[3], ctx.radius)):
            step = (features[here] - features[there]).sign_() * gradient[:, k : k + 1][here]
            result[here] += step
            result[there] -= step
        return result, None


def _pair_slices(height: int, width: int, radius: int) -> list[tuple[_Window, _Window]]:
    """For every offset the window of the first pixels of all valid pairs, and that of the second ones."""
    return [
        (
            (..., slice(0, max(0, height - dy)), slice(max(0, -dx), max(0, width - max(0, dx)))),
            (..., slice(dy, max(dy, height)), slice(max(0, dx), max(0, dx, width - max(0, -dx)))),
        )
        for dy, dx in half_plane_offsets(radius)
    ]
