import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssdd_lightning.nn.layers import ConvNormAct, GroupNorm, MaskEmbedding, ReflectionPad


def one_hot(mask: torch.Tensor, classes: int) -> torch.Tensor:
    """One-hot of a mask, all zeros at 255: B x C x H x W."""
    return torch.stack([(mask == c).float() for c in range(classes)], 1)


def random_mask(classes: int = 5, shape: tuple[int, int, int] = (2, 6, 7)) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    mask = torch.randint(0, classes, shape, generator=draw)
    mask[torch.rand(shape, generator=draw) < 0.2] = 255
    return mask


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_group_normalisation_is_torchs_and_keeps_the_layout(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    own, other = GroupNorm(4, 8), nn.GroupNorm(4, 8)
    nn.init.normal_(own.weight)
    other.load_state_dict(own.state_dict())
    image, gradient = (torch.randn(2, 8, 5, 6).to(memory_format=layout) for _ in range(2))
    results = []
    for layer in (own, other):
        given = image.clone().requires_grad_()
        made = layer(given)
        made.backward(gradient)
        results.append((made, given.grad, layer.weight.grad, layer.bias.grad))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two)
    made, gradient = results[0][:2]
    assert made.is_contiguous(memory_format=layout)
    assert gradient.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("shape", [(2, 8), (2, 8, 5), (2, 8, 3, 4, 5)])
def test_group_normalisation_takes_what_torchs_takes(shape: tuple[int, ...]) -> None:
    image = torch.randn(*shape[::-1]).permute(*reversed(range(len(shape))))
    assert torch.equal(GroupNorm(4, 8)(image), nn.GroupNorm(4, 8)(image))


def test_mask_embedding_is_a_convolution_on_the_one_hot_mask() -> None:
    layer, mask = MaskEmbedding(5, 8), random_mask()
    embedded = layer(mask)
    torch.testing.assert_close(embedded, F.conv2d(one_hot(mask, 5), layer.weight))
    assert (embedded.permute(0, 2, 3, 1)[mask == 255] == 0).all()


def test_mask_embedding_has_the_convolutions_gradient() -> None:
    layer, mask = MaskEmbedding(5, 8), random_mask()
    weight = layer.weight.detach().clone().requires_grad_()
    direction = torch.randn(2, 8, 6, 7, generator=torch.Generator().manual_seed(1))
    (layer(mask) * direction).sum().backward()
    (F.conv2d(one_hot(mask, 5), weight) * direction).sum().backward()
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=1e-4, atol=1e-5)


def test_mask_embedding_loads_a_convolutions_weights() -> None:
    layer, convolution = MaskEmbedding(5, 8), nn.Conv2d(5, 8, 1, bias=False)
    layer.load_state_dict(convolution.state_dict())
    torch.testing.assert_close(layer(random_mask()), convolution(one_hot(random_mask(), 5)))


def test_reflection_pad_mirrors_without_repeating_the_edge() -> None:
    x = torch.arange(3.0).view(1, 1, 1, 3).expand(1, 1, 3, 3)
    assert ReflectionPad(2)(x)[0, 0, 0].tolist() == [2, 1, 0, 1, 2, 1, 0]


@pytest.mark.parametrize("size", [(2, 9), (9, 2), (1, 1)])
def test_reflection_pad_repeats_the_edge_of_a_small_map(size: tuple[int, int]) -> None:
    x = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0))
    padded = ReflectionPad(2)(x)
    assert padded.shape == (1, 2, size[0] + 4, size[1] + 4)
    assert torch.equal(padded[..., 2:-2, 0], x[..., 0])
    assert torch.equal(padded[..., 0, 2:-2], x[..., 0, :])


@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (3, 1), (3, 3)])
@pytest.mark.parametrize("activation", [True, False])
def test_conv_norm_act_keeps_the_size_and_normalises(kernel_size: int, dilation: int, activation: bool) -> None:
    x = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    layer = ConvNormAct(3, 4, kernel_size, dilation, activation)
    y = layer(x)
    assert y.shape == (2, 4, 8, 9)
    assert (y.min() >= 0) == activation
    if not activation:
        torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    assert not [name for name, _ in layer.named_parameters() if name == "1.bias" and kernel_size > 1]
