import pytest
import torch
from torch.nn import functional as F

from ssdd_lightning.nn import ClassificationNetwork


@pytest.fixture(scope="module")
def network() -> ClassificationNetwork:
    torch.manual_seed(0)
    return ClassificationNetwork(5, "resnet18", output_stride=16)


def image() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@torch.no_grad()
def test_one_logit_for_each_foreground_class(network: ClassificationNetwork) -> None:
    assert network.eval()(image()).shape == (2, 4)


@torch.no_grad()
def test_logits_are_the_average_of_the_linear_maps(network: ClassificationNetwork) -> None:
    network.eval()
    features = network.backbone(image())[-1]
    expected = F.linear(features.mean((2, 3)), network.classifier.weight.flatten(1))
    torch.testing.assert_close(network(image()), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_activation_maps_are_the_positive_part_of_the_linear_maps(network: ClassificationNetwork) -> None:
    network.eval()
    maps = network.activation_maps(image())
    features = network.backbone(image())[-1]
    linear = torch.einsum("bchw,kc->bkhw", features, network.classifier.weight.flatten(1))
    assert maps.shape == (2, 4, 4, 6)
    torch.testing.assert_close(maps, linear.clamp(min=0), rtol=1e-4, atol=1e-5)
    assert (linear < 0).any()
    torch.testing.assert_close(linear.mean((2, 3)), network(image()), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    network = ClassificationNetwork(3, "resnet18", output_stride=32, dropout=0.9, freeze_norm=True)
    assert torch.equal(network.eval()(image()), network(image()))
    assert not torch.equal(network.train()(image()), network(image()))


@pytest.mark.parametrize(("stride", "size"), [(8, (8, 12)), (32, (2, 3))])
def test_output_stride_sets_the_size_of_the_maps(stride: int, size: tuple[int, int]) -> None:
    network = ClassificationNetwork(3, "resnet18", output_stride=stride).eval()
    with torch.no_grad():
        assert network.activation_maps(image()).shape == (2, 2, *size)


def test_efficientnets_classifier_sees_the_features_of_timms_own() -> None:
    network = ClassificationNetwork(3, "test_efficientnet")
    assert network.classifier.in_channels == network.backbone.model.conv_head.out_channels
    assert {id(p) for p in network.backbone.model.bn2.parameters()} <= {id(p) for p in network.backbone.parameters()}


@torch.no_grad()
def test_logits_may_be_the_maximum_of_the_linear_maps() -> None:
    network = ClassificationNetwork(5, "resnet18", pooling="max").eval()
    linear = torch.einsum("bchw,kc->bkhw", network.backbone(image())[-1], network.classifier.weight.flatten(1))
    torch.testing.assert_close(network(image()), linear.flatten(2).max(2).values, rtol=1e-4, atol=1e-5)
