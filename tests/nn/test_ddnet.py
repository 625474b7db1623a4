from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssdd_lightning.nn import DDNet


def inputs(size: int = 8, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    high = torch.randn(2, 6, size // 2, size // 2, generator=draw)
    low = torch.randn(2, 5, 2 * size, 2 * size, generator=draw)
    return high, low, torch.randint(0, classes, (2, size, size), generator=draw)


def ddnet(**options: Any) -> DDNet:
    torch.manual_seed(0)
    return DDNet(3, 6, 5, width=4, **options)


def norms(model: DDNet) -> list[nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def reflect(x: torch.Tensor) -> torch.Tensor:
    return F.pad(x, (1, 1, 1, 1), mode="reflect")


def draw_norms(model: DDNet) -> None:
    """Give all normalisation weights and statistics that are far from the identity."""
    draw = torch.Generator().manual_seed(1)
    for norm in norms(model):
        for values, low, high in (
            (norm.weight.data, 0.5, 2.0),
            (norm.bias.data, -0.5, 0.5),
            (norm.running_mean, -0.5, 0.5),
            (norm.running_var, 0.2, 3.0),
        ):
            assert values is not None
            values.uniform_(low, high, generator=draw)


def normalized(x: torch.Tensor, norm: Any) -> torch.Tensor:
    mean, var, weight, bias = (
        values[None, :, None, None] for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


@pytest.mark.parametrize(("frozen", "drawn"), [(True, False), (True, True), (False, True)])
def test_ddnet_equals_the_figure_written_out(frozen: bool, drawn: bool) -> None:
    """Fig. 2 in float64, with convolutions on the one-hot mask; frozen normalisation also in training mode."""
    model: Any = ddnet(frozen_norm=frozen).double().train(frozen)
    if drawn:
        draw_norms(model)
    high, low, mask = inputs()
    high, low = high.double(), low.double()
    image = torch.cat((F.interpolate(high, (8, 8), mode="bilinear"), F.avg_pool2d(low, 2)), 1)
    features = normalized(F.conv2d(reflect(image), model.image[1].weight), model.image[2]).relu()
    torch.testing.assert_close(model.image_features(high, low), features)

    one_hot = F.one_hot(mask, 3).permute(0, 3, 1, 2).double()
    x = torch.cat((features, normalized(F.conv2d(one_hot, model.mask[0].weight), model.mask[1]).relu()), 1)
    narrow, middle, wide = model.residual
    residual = normalized(F.conv2d(x, narrow[0].weight), narrow[1]).relu()
    residual = normalized(F.conv2d(reflect(residual), middle[1].weight), middle[2]).relu()
    residual = normalized(F.conv2d(residual, wide[0].weight), wide[1])
    shortcut = normalized(F.conv2d(x, model.shortcut[0].weight), model.shortcut[1])
    expected = F.conv2d((residual + shortcut).relu(), model.predict.weight)
    logits = model(features, mask)
    assert logits.shape == (2, 1, 8, 8)
    torch.testing.assert_close(logits, expected)  # to 1e-7
    assert logits.std() > 0.1


@pytest.mark.parametrize(("size", "expected"), [(None, (8, 8)), ((12, 10), (12, 10)), ((3, 5), (3, 5))])
def test_image_features_have_the_masks_size(size: tuple[int, int] | None, expected: tuple[int, int]) -> None:
    high, low, _ = inputs()
    assert ddnet().image_features(high, low, size).shape == (2, 4, *expected)


def test_frozen_norm_stays_in_eval_mode() -> None:
    model = ddnet(frozen_norm=True)
    for mode in (True, False, True):
        model.train(mode)
        assert model.training is mode
        assert not any(norm.training for norm in norms(model))
    assert len(norms(model)) == 6
    assert not any(p.requires_grad for norm in norms(model) for p in norm.parameters())


def test_frozen_norm_does_not_learn_statistics_and_the_other_one_does() -> None:
    high, low, mask = inputs()
    for frozen in (True, False):
        model = ddnet(frozen_norm=frozen)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        model(model.image_features(high, low), mask)
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()) == frozen


def test_norm_that_is_not_frozen_follows_the_mode() -> None:
    model = ddnet()
    assert all(norm.training for norm in norms(model))
    assert not any(norm.training for norm in norms(model.eval()))


def test_fresh_frozen_norm_is_the_identity() -> None:
    for norm in norms(ddnet(frozen_norm=True)):
        x = torch.randn(2, norm.num_features, 3, 3, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(norm(x), x, rtol=1e-5, atol=1e-6)


def test_ignored_pixels_enter_as_zeros() -> None:
    model: Any = ddnet(frozen_norm=True)
    high, low, mask = inputs()
    features = model.image_features(high, low)
    ignored = model(features, torch.full_like(mask, 255))
    nn.init.zeros_(model.mask[0].weight)
    torch.testing.assert_close(ignored, model(features, mask))


def test_features_are_detached_from_the_segmentation_network() -> None:
    high, low, mask = inputs()
    high.requires_grad_()
    low.requires_grad_()
    model = ddnet()
    model(model.image_features(high, low), mask).sum().backward()
    assert high.grad is None
    assert low.grad is None
    assert all(p.grad is not None for p in model.parameters())
