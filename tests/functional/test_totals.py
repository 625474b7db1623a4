from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ssdd_lightning.functional import affinity_loss, difference_loss, over_processes, segmentation_loss
from ssdd_lightning.functional.totals import Total

Loss = Callable[[Tensor, Tensor, Total], Tensor]


def in_two_processes(loss: Loss, values: Tensor, target: Tensor) -> Tensor:
    """Mean of the losses of two halves of a batch, each with the counts of both, as a distributed run has them."""
    halves = list(zip(values.chunk(2), target.chunk(2), strict=True))
    counts: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        counts.append(tensor)
        return tensor

    for half in halves:
        loss(*half, note)
    everything = torch.stack(counts).sum(0)
    return torch.stack([loss(*half, lambda _: everything) for half in halves]).mean()


def segmentation(per_class: bool) -> Loss:
    return lambda logits, mask, total: segmentation_loss(logits, mask, per_class, total)


def difference(per_image: bool) -> Loss:
    def loss(logits: Tensor, mask: Tensor, total: Total) -> Tensor:
        target, valid, keep = (mask == 1).float(), mask < 4, (mask != 5).all((1, 2))
        return difference_loss(logits[:, :1], target, keep, valid, per_image, total)

    return loss


def affinity(values: Tensor, mask: Tensor, total: Total) -> Tensor:
    pairs = torch.where(mask < 3, mask, 255)[:, None].byte()
    return affinity_loss(values[:, :1].sigmoid(), pairs, total)


LOSSES = {
    "L_seg per class": segmentation(True),
    "L_seg, pixel mean": segmentation(False),
    "L_diff": difference(per_image=True),
    "L_diff2": difference(per_image=False),
    "affinity": affinity,
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_over_processes_is_the_loss_of_the_whole_batch(name: str) -> None:
    torch.manual_seed(0)
    values = torch.randn(6, 4, 5, 7, requires_grad=True)
    mask = torch.randint(0, 4, (6, 5, 7))
    mask[0] = 0  # the halves have other classes, and one image is left out
    mask[1, :2] = 255 if name.startswith("L_seg") else 4
    mask[2, 0, 0] = 255 if name.startswith("L_seg") else 5
    whole = LOSSES[name](values, mask, over_processes)  # there is one process here
    (expected,) = torch.autograd.grad(whole, values)
    parts = in_two_processes(LOSSES[name], values, mask)
    (gradient,) = torch.autograd.grad(parts, values)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(gradient, expected)
    alone = torch.stack(
        [LOSSES[name](*half, over_processes) for half in zip(values.chunk(2), mask.chunk(2), strict=True)]
    )
    assert abs(alone.mean() - whole) > 1e-4  # which is not so without the counts


def test_a_process_without_anything_to_learn_from_takes_part() -> None:
    values, mask = torch.randn(2, 4, 3, 3, requires_grad=True), torch.randint(0, 4, (2, 3, 3))
    mask[1] = 255
    parts = in_two_processes(segmentation(True), values, mask)
    torch.testing.assert_close(parts, segmentation(True)(values, mask, over_processes))
