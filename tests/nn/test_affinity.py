from collections.abc import Callable
from typing import Any

import pytest
import torch

from ssdd_lightning.errors import InputError
from ssdd_lightning.functional import pair_affinity
from ssdd_lightning.nn import AffinityNet

BACKBONE = "test_efficientnet"


def image_of(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def build() -> Callable[..., AffinityNet]:
    def make(**options: Any) -> AffinityNet:
        torch.manual_seed(0)
        return AffinityNet(BACKBONE, **options).eval()

    return make


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 75), (8, 33)])
def test_affinities_stand_at_an_eighth_whatever_the_backbone(
    build: Callable[..., AffinityNet], output_stride: int, height: int, width: int
) -> None:
    net = build(output_stride=output_stride)
    image = image_of(height, width)
    size = (-(-height // 8), -(-width // 8))
    assert net.size(image) == size
    assert net.features(image).shape == (2, 448, *size)
    affinity = net(image)
    assert affinity.shape == (2, 34, *size)
    assert 0 <= affinity.min() <= affinity.max() <= 1
    torch.testing.assert_close(affinity, pair_affinity(net.features(image)))


def test_stride_and_radius_are_options(build: Callable[..., AffinityNet]) -> None:
    assert build(stride=4, radius=3)(image_of(64, 48)).shape == (2, 12, 16, 12)
    with pytest.raises(InputError, match="radius"):
        build(radius=1)


def test_new_layers_have_the_names_and_sizes_of_the_published_weights(build: Callable[..., AffinityNet]) -> None:
    net = build()
    shapes = {k: tuple(v.shape) for k, v in net.state_dict().items() if not k.startswith("backbone.")}
    third, fourth, fifth = net.backbone.channels[-3:]
    assert shapes == {
        "f8_3.weight": (64, third, 1, 1),
        "f8_4.weight": (128, fourth, 1, 1),
        "f8_5.weight": (256, fifth, 1, 1),
        "f9.weight": (448, 448, 1, 1),
    }


def test_every_level_takes_part(build: Callable[..., AffinityNet]) -> None:
    net, image = build(), image_of(64, 64)
    before = net(image)
    for layer in (net.f8_3, net.f8_4, net.f8_5, net.f9):
        kept = layer.weight.detach().clone()
        layer.weight.data.zero_()
        assert not torch.allclose(net(image), before, atol=1e-3)
        layer.weight.data.copy_(kept)


def test_fresh_affinities_are_neither_all_zero_nor_all_one(build: Callable[..., AffinityNet]) -> None:
    affinity = build()(image_of(64, 64))
    inside = affinity[affinity > 0]
    assert 0.01 < inside.mean() < 0.95


def test_normalisation_is_frozen_by_default(build: Callable[..., AffinityNet]) -> None:
    for frozen in (True, False):
        net = (build() if frozen else build(freeze_norm=False)).train()
        norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert norms
        assert all(m.training != frozen for m in norms)


def test_gradients_reach_the_backbone_and_all_new_layers(build: Callable[..., AffinityNet]) -> None:
    net = build(freeze_norm=False).train()
    net(image_of(64, 64)).sum().backward()
    # pairs that leave the image have an infinite distance, which must not make a NaN
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert all(layer.weight.grad.any() for layer in (net.f8_3, net.f8_4, net.f8_5, net.f9))
    assert any(p.grad.any() for p in net.backbone.parameters())
