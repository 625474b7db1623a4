from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn import Backbone, ClassificationNetwork, SegmentationNetwork, backbones
from ssdd_lightning.nn.resnet38 import ResidualBlock, ResNet38
from ssdd_lightning.weights.backbone import load_backbone_weights
from tests.helpers.weights import meta

# stage: blocks, channels in, inside, out, stride, dilation of the first and of the other 3x3 convolutions
STAGES = {
    **{2: (3, 64, 128, 128, 2, 1, 1), 3: (3, 128, 256, 256, 2, 1, 1), 4: (6, 256, 512, 512, 2, 1, 1)},
    5: (3, 512, 512, 1024, 1, 1, 2),
}
# mean, standard deviation and maximum of the five features
VALUES = [
    (0.962054, 1.637274, 14.266810),
    (1.879949, 3.020730, 21.118046),
    (8.765520, 14.409634, 104.806719),
    (11.216289, 18.147514, 142.954032),
    (9.652158, 15.431049, 113.835361),
]
PATTERN = np.random.RandomState(0).standard_normal(65537).astype(np.float32)


def fill(module: ResNet38) -> None:
    """Give a network weights that any platform computes alike: one pattern, repeated, scaled as Kaiming's."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            values = torch.from_numpy(np.resize(PATTERN, tensor.numel())).view(tensor.shape)
            if tensor.ndim == 4:
                tensor.copy_(values * (2 / tensor[0].numel()) ** 0.5)
            elif name.endswith("running_var"):
                tensor.copy_(1 + 0.3 * values.abs())
            elif name.endswith("weight"):
                tensor.copy_(1 + 0.1 * values)
            elif tensor.is_floating_point():
                tensor.copy_(0.1 * values)


def image(height: int = 29, width: int = 42) -> torch.Tensor:
    pixels = np.random.RandomState(1).standard_normal((1, 3, height, width))
    return torch.from_numpy(pixels.astype(np.float32))


@pytest.fixture(scope="module")
def network() -> ResNet38:
    with torch.device("meta"):
        model = ResNet38()
    model = model.to_empty(device="cpu").eval()
    fill(model)
    return model


@pytest.fixture(scope="module")
def skeleton() -> ResNet38:
    with torch.device("meta"):
        return ResNet38()


def norm(t: dict[str, torch.Tensor], x: torch.Tensor, name: str) -> torch.Tensor:
    mean, variance, scale, shift = (
        t[f"{name}.{k}"].view(-1, 1, 1) for k in ("running_mean", "running_var", "weight", "bias")
    )
    return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)


def wide_block(
    t: dict[str, torch.Tensor], x: torch.Tensor, name: str, stride: int = 1, first: int = 1, dilation: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    entry = norm(t, x, f"{name}.bn_branch2a")
    y = F.conv2d(entry, t[f"{name}.conv_branch2a.weight"], stride=stride, padding=first, dilation=first)
    y = norm(t, y, f"{name}.bn_branch2b1")
    y = F.conv2d(y, t[f"{name}.conv_branch2b1.weight"], padding=dilation, dilation=dilation)
    if f"{name}.conv_branch1.weight" in t:
        x = F.conv2d(entry, t[f"{name}.conv_branch1.weight"], stride=stride)
    return x + y, entry


def bottleneck(t: dict[str, torch.Tensor], x: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    entry = norm(t, x, f"{name}.bn_branch2a")
    y = norm(t, F.conv2d(entry, t[f"{name}.conv_branch2a.weight"]), f"{name}.bn_branch2b1")
    y = norm(t, F.conv2d(y, t[f"{name}.conv_branch2b1.weight"], padding=4, dilation=4), f"{name}.bn_branch2b2")
    y = F.conv2d(y, t[f"{name}.conv_branch2b2.weight"])
    return F.conv2d(entry, t[f"{name}.conv_branch1.weight"]) + y, entry


def written_out(t: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """ResNet-38 as METHOD and PSA describe it, function by function."""
    x, features = F.conv2d(x, t["conv1a.weight"], padding=1), []
    for stage, (count, _, _, _, stride, first, dilation) in STAGES.items():
        x, entry = wide_block(t, x, f"b{stage}", stride, first, dilation)
        features.append(entry)
        for i in range(1, count):
            x, _ = wide_block(t, x, f"b{stage}_{i}", 1, dilation, dilation)
    for name in ("b6", "b7"):
        x, entry = bottleneck(t, x, name)
        features.append(entry)
    return [*features[1:5], norm(t, x, "bn7")]


@pytest.mark.parity
@torch.no_grad()
def test_features_equal_the_network_written_out(network: ResNet38) -> None:
    expected = written_out(dict(network.state_dict()), image())
    for ours, theirs in zip(network(image()), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parity
@torch.no_grad()
def test_features_keep_their_values(network: ResNet38) -> None:
    """Fixed once, after the test above agreed: a change of the network's arithmetic shows here."""
    for feature, expected in zip(network(image()), VALUES, strict=True):
        assert (feature.mean().item(), feature.std().item(), feature.max().item()) == pytest.approx(expected, rel=1e-4)


def test_shapes_strides_and_channels(skeleton: ResNet38) -> None:
    features = skeleton(torch.empty(2, 3, 448, 320, device="meta"))
    assert [tuple(f.shape) for f in features] == [
        (2, 128, 224, 160),
        (2, 256, 112, 80),
        (2, 512, 56, 40),
        (2, 1024, 56, 40),
        (2, 4096, 56, 40),
    ]
    assert [f.shape[1] for f in features] == list(ResNet38.channels)


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """The published state dict, spelled out."""
    shapes: dict[str, tuple[int, ...]] = {"conv1a.weight": (64, 3, 3, 3)}

    def add(block: str, convolutions: tuple[int, ...], channels: tuple[int, ...], shortcut: bool) -> None:
        names = ("2a", "2b1", "2b2")
        for i, kernel in enumerate(convolutions):
            for tensor in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{block}.bn_branch{names[i]}.{tensor}"] = (channels[i],)
            shapes[f"{block}.conv_branch{names[i]}.weight"] = (channels[i + 1], channels[i], kernel, kernel)
        if shortcut:
            shapes[f"{block}.conv_branch1.weight"] = (channels[-1], channels[0], 1, 1)

    for stage, (count, before, inside, after, *_) in STAGES.items():
        add(f"b{stage}", (3, 3), (before, inside, after), True)
        for i in range(1, count):
            add(f"b{stage}_{i}", (3, 3), (after, inside, after), False)
    add("b6", (1, 3, 1), (1024, 512, 1024, 2048), True)
    add("b7", (1, 3, 1), (2048, 1024, 2048, 4096), True)
    return shapes | {f"bn7.{k}": (4096,) for k in ("weight", "bias", "running_mean", "running_var")}


def test_names_and_shapes_are_those_of_the_published_weights(skeleton: ResNet38) -> None:
    own = {k: tuple(v.shape) for k, v in skeleton.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert own == expected_shapes()
    assert {"b4_3.conv_branch2a.weight", "b4_5.bn_branch2b1.bias", "b7.conv_branch2b2.weight"} <= own.keys()
    assert sum(p.numel() for p in skeleton.parameters()) == 105_070_912


def test_dilations_and_strides(skeleton: ResNet38) -> None:
    convolutions = {k: m for k, m in skeleton.named_modules() if isinstance(m, nn.Conv2d)}
    dilated = {k: m.dilation[0] for k, m in convolutions.items() if m.dilation != (1, 1)}
    five = {f"b5{i}.conv_{b}": 2 for i in ("", "_1", "_2") for b in ("branch2a", "branch2b1")}
    del five["b5.conv_branch2a"]
    assert dilated == {**five, "b6.conv_branch2b1": 4, "b7.conv_branch2b1": 4}
    strided = {k for k, m in convolutions.items() if m.stride != (1, 1)}
    assert strided == {f"b{i}.conv_{b}" for i in (2, 3, 4) for b in ("branch2a", "branch1")}
    assert {k: m.p for k, m in skeleton.named_modules() if isinstance(m, nn.Dropout2d) and m.p > 0} == {
        "b6.dropout": 0.3,
        "b7.dropout": 0.5,
    }


def test_fresh_weights_are_kaimings() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(8, (16, 16))
    assert not any(p.std() < 1e-3 for p in block.parameters() if p.ndim == 4)
    torch.manual_seed(0)
    model: Any = ResNet38()
    for conv in (model.b2.conv_branch2a, model.b5_1.conv_branch2b1):
        deviation = (2 / (conv.in_channels * 9)) ** 0.5
        assert conv.weight.std().item() == pytest.approx(deviation, rel=0.02)


class Small(ResNet38):
    """The first two stages and the last block, narrow: enough for what does not depend on the size."""

    def __init__(self, checkpointing: bool = False) -> None:
        nn.Module.__init__(self)
        self.checkpointing = checkpointing
        self.conv1a = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self._add_stage("b2", 2, 8, (8, 8), stride=2)
        self._add_stage("b3", 2, 8, (8, 16), dilation=2)
        self.b7 = ResidualBlock(16, (8, 8, 32), dilations=(1, 4, 1), dropout=0.5)
        self.bn7 = nn.BatchNorm2d(32)


def trained_step(checkpointing: bool) -> tuple[list[torch.Tensor], Small]:
    torch.manual_seed(0)
    model = Small(checkpointing).train()
    torch.manual_seed(1)
    features = model(image().repeat(2, 1, 1, 1))
    sum(f.square().sum() for f in features).backward()
    return [f.detach() for f in features], model


def test_checkpointing_changes_neither_features_nor_gradients_nor_running_averages() -> None:
    (plain, one), (saved, two) = trained_step(False), trained_step(True)
    for a, b in zip(plain, saved, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    averages = [{k: v for k, v in m.state_dict().items() if "running" in k} for m in (one, two)]
    assert all(torch.equal(averages[0][k], averages[1][k]) for k in averages[0])
    assert all(m.momentum == 0.1 for m in two.modules() if isinstance(m, nn.BatchNorm2d))


def test_checkpointing_keeps_less() -> None:
    def kept(checkpointing: bool) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            torch.manual_seed(0)
            Small(checkpointing).train()(image(64, 64))
        return sum(sizes)

    assert kept(True) < 0.5 * kept(False)


@pytest.mark.parametrize("layers", [(), ("conv1a",), ("conv1a", "b2", "b2_1", "b2_2")])
def test_frozen_layers_and_norms_stay_frozen(layers: tuple[str, ...]) -> None:
    backbone = meta(Backbone, "resnet38", 8, freeze_norm=True, frozen_layers=layers)
    for mode in (True, False, True):
        backbone.train(mode)
        norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(norms) == 37
        assert not any(m.training for m in norms)
    parameters = dict(backbone.encoder.named_parameters())
    of_norms = {k for k in parameters if ".bn_" in k or k.startswith("bn7")}
    of_layers = {k for k in parameters if k.split(".")[0] in layers}
    assert {k for k, p in parameters.items() if not p.requires_grad} == of_norms | of_layers
    assert len(of_norms) == 2 * 37


def test_frozen_layers_freeze_their_own_norms_only() -> None:
    backbone = meta(Backbone, "resnet38", 8, freeze_norm=False, frozen_layers=["conv1a", "b2"])
    backbone.train()
    assert not backbone.encoder.b2.bn_branch2a.training
    assert backbone.encoder.b2_1.bn_branch2a.training
    assert backbone.encoder.b2_1.bn_branch2a.weight.requires_grad
    assert not backbone.encoder.b2.bn_branch2a.weight.requires_grad


def test_frozen_layers_work_with_timm() -> None:
    backbone = Backbone("resnet18", freeze_norm=False, frozen_layers=["conv1", "layer1.0"])
    frozen = {k.split(".")[0] for k, p in backbone.model.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "layer1"}
    assert not backbone.model.layer1[0].training
    assert backbone.model.layer1[1].training


@pytest.mark.parametrize("layer", ["b9", "", "bn_branch2a"])
def test_unknown_layer_to_freeze_is_named(layer: str) -> None:
    with pytest.raises(InputError, match=f"no layer '{layer}' to freeze; its layers are conv1a, b2, b2_1"):
        meta(Backbone, "resnet38", 8, frozen_layers=[layer])


@torch.no_grad()
def test_the_image_is_normalised_with_imagenets_constants(network: ResNet38, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "ResNet38", lambda: network)
    backbone = Backbone("resnet38", 8).eval()
    pixels = torch.randint(0, 256, (1, 3, 32, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for ours, expected in zip(backbone(pixels), network((pixels / 255 - mean) / std), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


def test_segmentation_network_of_the_paper() -> None:
    network = meta(SegmentationNetwork, 21, "resnet38", output_stride=8, freeze_norm=True)
    out = network(torch.empty(2, 3, 448, 448, dtype=torch.uint8, device="meta"))
    assert (network.low_channels, network.high_channels) == (128, 512)
    assert out.low.shape == (2, 128, 224, 224)
    assert out.high.shape == (2, 512, 56, 56)
    assert out.logits.shape == (2, 21, 56, 56)


def test_classification_network_of_psa() -> None:
    network = meta(ClassificationNetwork, 21, "resnet38", output_stride=8)
    image = torch.empty(2, 3, 448, 448, dtype=torch.uint8, device="meta")
    assert network(image).shape == (2, 20)
    assert network.activation_maps(image).shape == (2, 20, 56, 56)
    assert network.classifier.weight.shape == (20, 4096, 1, 1)
    assert network.classifier.bias is None


def test_the_last_three_levels_are_psas() -> None:
    backbone = meta(Backbone, "resnet38", 8)
    conv4, conv5, conv6 = backbone(torch.empty(1, 3, 448, 448, device="meta"))[-3:]
    assert [f.shape[1] for f in (conv4, conv5, conv6)] == backbone.channels[-3:] == [512, 1024, 4096]
    assert {tuple(f.shape[-2:]) for f in (conv4, conv5, conv6)} == {(56, 56)}


@pytest.mark.parametrize("stride", [16, 32])
def test_another_output_stride_is_refused(stride: int) -> None:
    with pytest.raises(InputError, match=f"resnet38 has the output stride 8, found {stride}; set output_stride: 8"):
        meta(Backbone, "resnet38", stride)


def test_a_decoder_is_refused() -> None:
    with pytest.raises(InputError, match="resnet38 has the head 'largefov' only, found 'fpn'"):
        meta(SegmentationNetwork, 21, "resnet38", "fpn", 8)


@pytest.mark.parametrize(("source", "hint"), [("imagenet", "res38_cls.pth"), ("offline", "tf_efficientnet_lite0 only")])
def test_weights_that_no_hub_has_are_explained(source: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        load_backbone_weights(meta(Backbone, "resnet38", 8), source)


def test_a_misspelt_name_finds_resnet38() -> None:
    with pytest.raises(InputError, match=r"did you mean .*resnet38"):
        Backbone("resnet_38", 8)
