import math
from itertools import product
from typing import Any

import pytest
import torch

from ssdd_lightning.errors import InputError
from ssdd_lightning.functional import difference_loss, segmentation_loss

LOG3 = math.log(3)  # sigmoid(log 3) = 3/4
RIGHT, WRONG = -math.log(0.75), -math.log(0.25)


def softplus(x: float) -> float:
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def difference_by_loops(
    logits: torch.Tensor,
    target: torch.Tensor,
    keep: torch.Tensor | None,
    valid: torch.Tensor,
    per_image: bool,
) -> float:
    """One term of Eq. 2 in plain Python: lists of pixel losses, in float64."""
    groups = []
    for b in range(len(target)):
        if keep is not None and not keep[b]:
            continue
        pixels = [
            (t, softplus(x) - x * t)
            for x, t, v in zip(
                logits[b].flatten().tolist(), target[b].flatten().tolist(), valid[b].flatten().tolist(), strict=True
            )
            if v
        ]
        groups.append(pixels)
    if not per_image:
        groups = [[pixel for pixels in groups for pixel in pixels]]
    values = []
    for pixels in groups:
        by_side = [[loss for t, loss in pixels if t == side] for side in (0, 1)]
        sides = [mean(losses) for losses in by_side if losses]
        if sides:
            values.append(mean(sides))
    return mean(values) if values else 0.0


def random_case(
    seed: int, images: int = 4, height: int = 5, width: int = 6
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image 1 has no difference, image 2 nothing but differences, image 3 not one valid pixel."""
    draw = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, 1, height, width, generator=draw)
    target = (torch.rand(images, height, width, generator=draw) < 0.3).float()
    target[1], target[2] = 0, 1
    valid = torch.rand(images, height, width, generator=draw) < 0.8
    valid[3] = False
    return logits, target, valid


@pytest.mark.parametrize(
    ("per_image", "expected"),
    [
        # image 0: one difference pixel (right), three agreement pixels (right, right, wrong);
        # image 1: two differences (right, wrong), two agreements (wrong, wrong)
        (True, mean([mean([RIGHT, (2 * RIGHT + WRONG) / 3]), mean([(RIGHT + WRONG) / 2, WRONG])])),
        (False, mean([(2 * RIGHT + WRONG) / 3, (2 * RIGHT + 3 * WRONG) / 5])),
    ],
)
def test_difference_loss_on_a_hand_computed_case(per_image: bool, expected: float) -> None:
    target = torch.tensor([[[1.0, 0, 0, 0]], [[1, 1, 0, 0]]])
    logits = torch.tensor([[[LOG3, -LOG3, -LOG3, LOG3]], [[LOG3, -LOG3, LOG3, LOG3]]])
    loss = difference_loss(logits[:, None], target, per_image=per_image)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("per_image", "keeping", "masking"), list(product([True, False], repeat=3)))
def test_difference_loss_equals_plain_loops(seed: int, per_image: bool, keeping: bool, masking: bool) -> None:
    logits, target, valid = random_case(seed)
    keep = torch.tensor([True, False, True, True]) if keeping else None
    everywhere = valid if masking else torch.ones_like(valid)
    expected = difference_by_loops(logits, target, keep, everywhere, per_image)
    loss = difference_loss(logits, target, keep, valid if masking else None, per_image)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_difference_loss_is_per_image_by_default() -> None:
    logits, target, valid = random_case(7)
    assert difference_loss(logits, target, valid=valid) == difference_loss(logits, target, None, valid, True)
    assert difference_loss(logits, target, valid=valid) != difference_loss(logits, target, None, valid, False)


@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize(("side", "expected"), [(1.0, RIGHT), (0.0, WRONG)])
def test_difference_loss_with_an_empty_side_uses_the_other_alone(per_image: bool, side: float, expected: float) -> None:
    target = torch.full((2, 3, 3), side)
    loss = difference_loss(torch.full((2, 1, 3, 3), LOG3), target, per_image=per_image)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_an_image_without_valid_pixels_does_not_dilute_the_mean() -> None:
    logits, target = torch.full((2, 1, 2, 2), LOG3), torch.ones(2, 2, 2)
    valid = torch.tensor([True, False])[:, None, None].expand(2, 2, 2)
    assert difference_loss(logits, target, valid=valid).item() == pytest.approx(RIGHT, rel=1e-6)


@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("how", ["keep", "valid"])
def test_difference_loss_with_everything_excluded_is_a_zero_that_reaches_the_parameters(
    per_image: bool, how: str
) -> None:
    parameter = torch.ones(1, requires_grad=True)
    target = (torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    excluded: dict[str, Any] = {
        "keep": torch.zeros(2, dtype=torch.bool),
        "valid": torch.zeros(2, 3, 3, dtype=torch.bool),
    }
    loss = difference_loss((parameter * 5).expand(2, 1, 3, 3), target, per_image=per_image, **{how: excluded[how]})
    loss.backward()
    assert loss.item() == 0
    assert parameter.grad.tolist() == [0]


def test_excluded_pixels_and_images_get_no_gradient() -> None:
    logits, target, valid = random_case(0)
    logits.requires_grad_()
    keep = torch.tensor([False, True, True, True])
    difference_loss(logits, target, keep, valid).backward()
    took_part = valid & keep[:, None, None]
    assert torch.equal(logits.grad[:, 0] != 0, took_part)


def test_difference_loss_takes_logits_without_a_channel() -> None:
    logits, target, _ = random_case(0)
    assert difference_loss(logits[:, 0], target) == difference_loss(logits, target)


@pytest.mark.parametrize("shape", [(2, 1, 6, 4), (2, 1, 2, 3), (1, 2, 4, 6), (2, 2, 4, 6), (24, 2)])
def test_difference_loss_refuses_another_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="must have one size"):
        difference_loss(torch.zeros(shape), torch.zeros(2, 4, 6))


def two_class_case() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose softmax gives the true class 1/2, 1/2, 4/5 | 1/5, ignored, ignored over two images."""
    log4 = math.log(4)
    logits = torch.tensor([[[[0, 0, log4]], [[0, 0, 0.0]]], [[[log4, 9, 9]], [[0, -9, -9.0]]]])
    return logits, torch.tensor([[[0, 1, 0]], [[1, 255, 255]]])


def test_segmentation_loss_on_a_hand_computed_case() -> None:
    logits, mask = two_class_case()
    mask[0, 0, 0] = 255  # one pixel of class 0 and two of class 1 are left: the two means differ
    half, likely, unlikely = -math.log(1 / 2), -math.log(4 / 5), -math.log(1 / 5)
    class_mean = mean([likely, mean([half, unlikely])])
    assert segmentation_loss(logits, mask).item() == pytest.approx(class_mean, rel=1e-6)
    pixel_mean = mean([half, likely, unlikely])
    assert segmentation_loss(logits, mask, per_class=False).item() == pytest.approx(pixel_mean, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("per_class", [False, True])
def test_segmentation_loss_equals_plain_loops(seed: int, per_class: bool) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 5, 6, 7, generator=draw)
    mask = torch.randint(0, 4, (3, 6, 7), generator=draw)  # class 4 never occurs
    mask[torch.rand(mask.shape, generator=draw) < 0.2] = 255
    mask[mask == 2] = torch.where(torch.rand(mask[mask == 2].shape, generator=draw) < 0.1, 2, 0)
    losses: dict[int, list[float]] = {}
    for b, y, x in torch.cartesian_prod(*map(torch.arange, mask.shape)).tolist():
        label = int(mask[b, y, x])
        if label != 255:
            scores = logits[b, :, y, x].tolist()
            losses.setdefault(label, []).append(math.log(sum(map(math.exp, scores))) - scores[label])
    by_pixel = mean([loss for of_class in losses.values() for loss in of_class])
    expected = mean([mean(of_class) for of_class in losses.values()]) if per_class else by_pixel
    assert segmentation_loss(logits, mask, per_class).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("per_class", [False, True])
def test_segmentation_loss_without_a_label_is_a_zero_that_reaches_the_parameters(per_class: bool) -> None:
    parameter = torch.ones(1, requires_grad=True)
    logits = parameter * torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    loss = segmentation_loss(logits, torch.full((2, 4, 4), 255), per_class)
    loss.backward()
    assert loss.item() == 0
    assert parameter.grad.tolist() == [0]


def test_segmentation_loss_gives_ignored_pixels_no_gradient() -> None:
    logits, mask = two_class_case()
    logits.requires_grad_()
    for per_class in (False, True):
        (gradient,) = torch.autograd.grad(segmentation_loss(logits, mask, per_class), logits)
        assert torch.equal(gradient.abs().sum(1) > 0, mask != 255)
