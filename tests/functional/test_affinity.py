import math
from collections.abc import Iterator, Sequence

import pytest
import torch

from ssdd_lightning.errors import InputError
from ssdd_lightning.functional import (
    affinity_loss,
    confident_labels,
    half_plane_offsets,
    pair_affinity,
    pair_labels,
)

OFFSETS = half_plane_offsets()


def pairs_of(height: int, width: int, offsets: Sequence[tuple[int, int]] = OFFSETS) -> Iterator[tuple[int, ...]]:
    """Every valid pair as (k, y, x, y2, x2)."""
    for k, (dy, dx) in enumerate(offsets):
        for y in range(height):
            for x in range(width):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    yield k, y, x, y + dy, x + dx


def test_offsets_and_their_mirror_images_fill_the_disk() -> None:
    assert len(OFFSETS) == 34
    disk = {(dy, dx) for dy in range(-9, 10) for dx in range(-9, 10) if dx * dx + dy * dy < 25}
    assert {*OFFSETS, *((-dy, -dx) for dy, dx in OFFSETS), (0, 0)} == disk
    assert list(OFFSETS) == sorted(OFFSETS)
    assert half_plane_offsets(2) == ((0, 1), (1, -1), (1, 0), (1, 1))


@pytest.mark.parametrize("radius", [1, 0, -3])
def test_a_radius_without_neighbours_is_refused(radius: int) -> None:
    with pytest.raises(InputError, match=f"must be 2 or more, found {radius}"):
        half_plane_offsets(radius)


def test_confident_labels_on_every_combination() -> None:
    low = torch.tensor([[[3, 3, 3, 3, 0, 0, 0, 255, 255, 255]]])
    high = torch.tensor([[[3, 2, 0, 255, 3, 0, 255, 3, 0, 255]]])
    expected = [3, 3, 255, 255, 255, 0, 255, 255, 255, 255]
    assert confident_labels(low, high).flatten().tolist() == expected


@pytest.mark.parametrize(("height", "width"), [(7, 11), (3, 2), (1, 6), (1, 1)])
def test_pair_labels_equal_a_loop(height: int, width: int) -> None:
    choices = torch.tensor([0, 0, 1, 2, 255])
    generator = torch.Generator().manual_seed(height)
    labels = choices[torch.randint(0, 5, (2, height, width), generator=generator)]
    expected = torch.full((2, 34, height, width), 255, dtype=torch.uint8)
    for k, y, x, y2, x2 in pairs_of(height, width):
        for b in range(2):
            first, second = labels[b, y, x].item(), labels[b, y2, x2].item()
            if 255 not in (first, second):
                expected[b, k, y, x] = 2 if first != second else min(first, 1)
    found = pair_labels(labels)
    assert found.dtype == torch.uint8
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("height", "width"), [(7, 11), (3, 2), (1, 6), (1, 1)])
def test_pair_affinity_equals_a_loop(height: int, width: int) -> None:
    features = torch.randn(2, 5, height, width, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, 34, height, width)
    for k, y, x, y2, x2 in pairs_of(height, width):
        expected[:, k, y, x] = torch.exp(-(features[:, :, y, x] - features[:, :, y2, x2]).abs().mean(1))
    torch.testing.assert_close(pair_affinity(features), expected)


def test_gradients_of_pair_affinity() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: pair_affinity(f, 3), features)


def test_equal_features_have_affinity_one_and_a_finite_gradient() -> None:
    features = torch.ones(1, 4, 6, 6, requires_grad=True)
    affinity = pair_affinity(features)
    assert set(affinity.unique().tolist()) == {0.0, 1.0}
    affinity_loss(affinity, pair_labels(torch.arange(36).view(1, 6, 6))).backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_half_precision_features_give_float32() -> None:
    features = torch.randn(1, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    found = pair_affinity(features.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, pair_affinity(features.bfloat16().float()))


def test_loss_on_a_hand_computed_case() -> None:
    affinity = torch.tensor([0.5, 0.25, 0.8, 0.9, 0.1, 0.3]).view(1, 1, 1, 6)
    pairs = torch.tensor([0, 0, 1, 2, 2, 255], dtype=torch.uint8).view(1, 1, 1, 6)
    background = -(math.log(0.5) + math.log(0.25)) / 2
    apart = -(math.log(0.1) + math.log(0.9)) / 2
    expected = background / 4 - math.log(0.8) / 4 + apart / 2
    torch.testing.assert_close(affinity_loss(affinity, pairs), torch.tensor(expected), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_kind_without_pairs_adds_nothing(kind: int) -> None:
    generator = torch.Generator().manual_seed(0)
    affinity = torch.rand(1, 34, 5, 5, generator=generator)
    pairs = torch.randint(0, 3, affinity.shape, generator=generator, dtype=torch.uint8)
    alone = affinity_loss(affinity, torch.where(pairs == kind, kind, 255).byte())
    rest = affinity_loss(affinity, torch.where(pairs == kind, 255, pairs))
    assert alone > 0
    torch.testing.assert_close(alone + rest, affinity_loss(affinity, pairs))


def test_without_any_pair_the_loss_is_zero_and_still_connected() -> None:
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = affinity_loss(pair_affinity(features), pair_labels(torch.full((2, 4, 4), 255)))
    assert loss == 0
    loss.backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_the_loss_pulls_pairs_of_one_class_together_and_others_apart() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2]).view(1, 1, 6).expand(1, 4, 6).contiguous()
    features = torch.randn(1, 4, 4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pairs = pair_labels(labels)
    losses = []
    for _ in range(200):
        loss = affinity_loss(pair_affinity(features), pairs)
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, features)
        features = (features - 3 * gradient).detach().requires_grad_()
    assert losses[-1] < losses[0] / 4
    affinity = pair_affinity(features)
    assert affinity[pairs < 2].mean() > 0.8
    assert affinity[pairs == 2].mean() < 0.4
