import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn import AffinityNet, Backbone, ClassificationNetwork, SegmentationNetwork
from ssdd_lightning.nn.transformers import HierarchicalTransformer, PlainTransformer, SimplePyramid
from ssdd_lightning.weights.backbone import load_backbone_weights
from ssdd_lightning.weights.loading import load_weights
from tests.helpers.transformers import FAMILIES, HIERARCHICAL, PLAIN, cut_down


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    cut_down(monkeypatch)


def photos(height: int, width: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def noise(*size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


def shapes(features: Sequence[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(level.shape) for level in features]


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_one_instance_takes_images_of_any_size_and_number(name: str) -> None:
    backbone = Backbone(name, 16, pyramid=True).eval()
    channels = backbone.channels
    assert channels[0] == 0
    first = backbone(photos(64, 96))
    assert shapes(first) == [(2, c, 64 // s, 96 // s) for c, s in zip(channels, (2, 4, 8, 16, 16), strict=True)]
    odd = shapes(backbone(photos(33, 75, count=1)))
    assert [shape[:2] for shape in odd] == [(1, c) for c in channels]
    assert all(a[2] in (b[2], 2 * b[2]) and a[3] in (b[3], 2 * b[3]) for a, b in pairwise(odd))
    for before, after in zip(first, backbone(photos(64, 96)), strict=True):
        assert torch.equal(before, after), "an image of another size changes what comes after it"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("stride", [8, 32])
@torch.no_grad()
def test_decoders_get_the_promised_strides(name: str, stride: int) -> None:
    features = Backbone(name, stride, pyramid=True).eval()(photos(64, 128))
    assert [shape[2:] for shape in shapes(features)] == [
        (64 // min(s, stride), 128 // min(s, stride)) for s in (2, 4, 8, 16, 32)
    ]


@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_without_a_pyramid_features_are_the_patches_tokens(name: str) -> None:
    encoder = PlainTransformer(name).eval()
    size = encoder.patch * 4, encoder.patch * 6
    x = noise(2, 3, *size)
    features = encoder(x)
    assert shapes(features)[2:] == [(2, encoder.channels[-1], 4, 6)] * 3
    assert features[1].shape[2:] == (-(-size[0] // 4), -(-size[1] // 4))
    # timm's model of the same weights, with the norm of its pooled token, when there is no other, on each token
    model = encoder.model
    tokens = model.forward_features(x)[:, model.num_prefix_tokens :]
    if isinstance(model.norm, nn.Identity):
        tokens = model.fc_norm(tokens)
    torch.testing.assert_close(features[-1].flatten(2).transpose(1, 2), tokens)
    torch.testing.assert_close(encoder.tokens(x), features[-1])


@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_the_encoder_is_timms_model_at_its_own_size(name: str) -> None:
    """Not only with `dynamic_img_size`: what the weights were trained with."""
    encoder = PlainTransformer(name).eval()
    plain = timm.create_model(name, img_size=encoder.patch * 6, num_classes=0).eval()
    weights = encoder.model.state_dict()
    if "pos_embed" in weights:
        grid, prefix = encoder.model.patch_embed.grid_size, 0 if plain.no_embed_class else plain.num_prefix_tokens
        weights["pos_embed"] = resample_abs_pos_embed(weights["pos_embed"], [6, 6], list(grid), prefix)
    plain.load_state_dict(weights, strict=False)
    x = noise(1, 3, encoder.patch * 6, encoder.patch * 6)
    expected = plain.forward_features(x)[:, plain.num_prefix_tokens :]
    if isinstance(plain.norm, nn.Identity):
        expected = plain.fc_norm(expected)
    torch.testing.assert_close(encoder.tokens(x).flatten(2).transpose(1, 2), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["hiera_tiny_224", "hiera_small_abswin_256"])
@pytest.mark.parametrize("size", [(64, 96), None])
@torch.no_grad()
def test_hiera_at_any_size_is_timms_hiera_built_for_it(name: str, size: tuple[int, int] | None) -> None:
    encoder = HierarchicalTransformer(name, 32).eval()
    size = size or (encoder.model.tokens_spatial_shape[0] * 4,) * 2
    built = timm.create_model(name, img_size=size, num_classes=0).eval()
    weights = encoder.model.state_dict()
    if "win" not in name:
        grid = encoder.model.tokens_spatial_shape
        weights["pos_embed"] = resample_abs_pos_embed(weights["pos_embed"], [s // 4 for s in size], grid, 0)
    built.load_state_dict(weights)
    x = noise(1, 3, *size)
    expected = built.forward_intermediates(x, intermediates_only=True)
    for found, level in zip(encoder(x)[1:4], expected[:3], strict=True):
        torch.testing.assert_close(found, level)
    torch.testing.assert_close(
        encoder(x)[4].mean((2, 3)), built.head.norm(expected[3].permute(0, 2, 3, 1)).mean((1, 2))
    )


@torch.no_grad()
def test_swin_shifts_its_windows_on_the_deepest_maps_too() -> None:
    encoder = HierarchicalTransformer("swin_tiny_patch4_window7_224", 32).eval()
    built = timm.create_model("swin_tiny_patch4_window7_224", img_size=(448, 448), num_classes=0).eval()
    built.set_input_size((448, 448), window_size=(7, 7))
    built.load_state_dict(encoder.model.state_dict())
    x = noise(1, 3, 448, 448)
    torch.testing.assert_close(encoder(x)[4], built.forward_features(x).permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "test_vit"])
@torch.no_grad()
def test_normalisation_constants_are_those_of_the_weights(name: str) -> None:
    config = timm.get_pretrained_cfg(name)
    backbone = Backbone(name)
    assert backbone.mean.flatten().tolist() == pytest.approx([255 * value for value in config.mean])
    tagged = Backbone("vit_base_patch16_clip_224.openai")
    assert tagged.mean[0].item() == pytest.approx(255 * 0.48145466)


@torch.no_grad()
def test_a_pyramid_of_patches_of_16_is_not_resized() -> None:
    pyramid = SimplePyramid(8, 32)
    tokens = noise(1, 8, 4, 6)
    maps = pyramid(tokens, (64, 96))
    twice = pyramid.up(tokens)
    assert torch.equal(maps[2], twice)
    assert torch.equal(maps[1], pyramid.up_again(twice))
    assert torch.equal(maps[3], tokens)
    assert torch.equal(maps[4], tokens.unflatten(3, (3, 2)).unflatten(2, (2, 2)).amax((3, 5)))
    assert [level.shape[1] for level in maps] == pyramid.channels == [0, 2, 4, 8, 8]


HEADS = ["largefov", "deeplabv3", "deeplabv3plus", "fpn", "unet", "upernet", "segformer", "linknet", "manet"]


@pytest.mark.parametrize("head", [*HEADS, "unetplusplus"])
@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "hiera_tiny_224"])
def test_every_head_trains_every_parameter(name: str, head: str) -> None:
    """One that got no gradient would stop training in several processes."""
    stride = 16 if head == "largefov" or head.startswith("deeplab") else 32
    network = SegmentationNetwork(3, name, head, stride, head_channels=8, dilation=2)
    low, high, logits = network(photos(50, 75))
    assert low.shape[1] == network.low_channels
    assert high.shape[1] == network.high_channels
    (logits * noise(*logits.shape)).sum().backward()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)
    first = network.backbone.model.patch_embed.proj.weight
    assert first.grad.abs().max() > 0
    norms = [m for m in network.backbone.modules() if isinstance(m, nn.LayerNorm)]
    assert norms
    assert all(norm.training and norm.weight.requires_grad for norm in norms), "freeze_norm freezes BatchNorm only"


@pytest.mark.parametrize("build", [partial(ClassificationNetwork, 3), AffinityNet])
@pytest.mark.parametrize("name", FAMILIES)
def test_classifier_and_affinities_train_every_parameter(name: str, build: Callable[..., nn.Module]) -> None:
    network: Any = build(backbone=name)
    output = network(photos(50, 75))
    (output * noise(*output.shape)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters() if parameter.requires_grad)
    assert network.backbone.model.patch_embed.proj.weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointing_changes_no_gradient(name: str) -> None:
    backbone, saving = Backbone(name), Backbone(name, checkpointing=True)
    saving.load_state_dict(backbone.state_dict())
    first = []
    for model in (backbone, saving):
        # dropped paths and jittered rotary positions are drawn anew
        torch.manual_seed(0)
        sum(level.square().mean() for level in model(photos(32, 64))[1:]).backward()
        first.append(model.model.patch_embed.proj.weight.grad)
    assert first[0].abs().max() > 0
    torch.testing.assert_close(*first)
    calls: list[int] = []
    block = next(m for m in saving.model.modules() if type(m).__name__.endswith("Block"))
    block.register_forward_pre_hook(lambda *_: calls.append(1))
    saving(photos(32, 64))[-1].mean().backward()
    assert len(calls) == 2, "the block is computed again"


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "vit_base_patch16_siglip_224", "hiera_tiny_224"])
def test_weights_of_timms_full_model_fit(name: str, tmp_path: Path) -> None:
    full = timm.create_model(name)
    torch.save(full.state_dict(), tmp_path / "weights.pth")
    backbone = Backbone(name, pyramid=True)
    report = load_backbone_weights(backbone, str(tmp_path / "weights.pth"))
    assert not report.missing
    own = backbone.model.state_dict()
    assert all(torch.equal(tensor, full.state_dict()[key]) for key, tensor in own.items())


def test_a_classifiers_weights_start_a_network_with_a_pyramid(tmp_path: Path) -> None:
    classifier = ClassificationNetwork(3, "test_vit")
    torch.save({f"network.{k}": v for k, v in classifier.state_dict().items()}, tmp_path / "last.pth")
    network = SegmentationNetwork(3, "test_vit", "fpn", 32)
    assert not load_backbone_weights(network.backbone, str(tmp_path / "last.pth")).missing
    report = load_weights(network, tmp_path / "last.pth")
    assert {name.partition(".")[0] for name in report.missing} == {"backbone", "head"}
    assert all(name.startswith(("backbone.pyramid.", "head.")) for name in report.missing)


def test_blocks_can_be_frozen() -> None:
    backbone = Backbone("test_vit", frozen_layers=["patch_embed", "blocks.0"])
    frozen = {name for name, parameter in backbone.model.named_parameters() if not parameter.requires_grad}
    assert {name.rpartition(".")[0].partition(".attn")[0] for name in frozen} >= {"patch_embed.proj", "blocks.0"}
    assert all(name.startswith(("patch_embed.", "blocks.0.")) for name in frozen)
    assert not backbone.train().model.blocks[0].training


def attention_by_hand(model: Any, x: Tensor, blocks: int) -> Tensor:
    """Mean attention between patches, from the weights alone, one image, head and token at a time."""
    tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))
    prefix, means = model.num_prefix_tokens, []
    for number, block in enumerate(model.blocks):
        layer, given = block.attn, block.norm1(tokens)
        weight, bias = layer.qkv.weight, layer.qkv.bias
        width, heads = given.shape[2] // layer.num_heads, []
        for head in range(layer.num_heads):
            part = slice(head * width, (head + 1) * width)
            query = given @ weight[: len(weight) // 3][part].T + bias[: len(weight) // 3][part]
            key = given @ weight[len(weight) // 3 :][part].T + bias[len(weight) // 3 :][part]
            shares = torch.einsum("bnd,bmd->bnm", query, key).div(math.sqrt(width)).exp()
            shares = shares / shares.sum(2, keepdim=True)
            heads.append(shares[:, prefix:, prefix:])
        if number >= len(model.blocks) - blocks:
            means.append(sum(heads) / len(heads))
        tokens = block(tokens)
    mean = sum(means) / blocks
    return mean / mean.sum(2, keepdim=True)


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_reg4_dinov2"])
@pytest.mark.parametrize("blocks", [1, 3])
@torch.no_grad()
def test_attention_equals_the_one_written_out(name: str, blocks: int) -> None:
    encoder = PlainTransformer(name).double().eval()
    for parameter in encoder.parameters():  # attention of fresh weights is almost even
        parameter.mul_(1.5)
    x = noise(2, 3, encoder.patch * 3, encoder.patch * 2).double()
    tokens, attention = encoder.attend(x, blocks)
    expected = attention_by_hand(encoder.model, x, blocks)
    torch.testing.assert_close(attention, expected, rtol=1e-10, atol=1e-12)
    assert (attention - attention.mean()).abs().max() > 1e-3
    torch.testing.assert_close(tokens, encoder(x)[-1])
    assert all(block.attn.fused_attn for block in encoder.model.blocks), "fused again"
    assert not any(block.attn.attn_drop._forward_hooks for block in encoder.model.blocks)


@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_rows_of_attention_sum_to_one_in_each_family(name: str) -> None:
    encoder = PlainTransformer(name).eval()
    tokens, attention = encoder.attend(noise(2, 3, encoder.patch * 2, encoder.patch * 3), 2)
    assert attention.shape == (2, 6, 6)
    assert attention.min() > 0
    torch.testing.assert_close(attention.sum(2), torch.ones(2, 6))
    assert tokens.shape[2:] == (2, 3)


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch16_dinov3"])
@torch.no_grad()
def test_activation_maps_are_spread_by_attention(name: str) -> None:
    network = ClassificationNetwork(4, name, attention_blocks=2).eval()
    plain = ClassificationNetwork(4, name).eval()
    plain.load_state_dict(network.state_dict())
    image = photos(48, 64)
    cam, spread = plain.activation_maps(image), network.activation_maps(image)
    _, attention = network.backbone.attend(image, 2)
    for i in range(2):
        for c in range(3):
            expected = (attention[i] @ cam[i, c].flatten()).view(3, 4)
            torch.testing.assert_close(spread[i, c], expected)
    assert not torch.allclose(cam, spread)
    assert torch.equal(plain(image), network(image)), "the classifier itself stays as it is"


@pytest.mark.parametrize("name", [*HIERARCHICAL, "resnet18"])
def test_without_global_attention_a_sentence_says_so(name: str) -> None:
    with pytest.raises(InputError, match=f"attention_blocks: the backbone {name} has no attention between all"):
        ClassificationNetwork(3, name, attention_blocks=1)


@pytest.mark.parametrize("blocks", [5, -1])
def test_another_number_of_attention_blocks_is_refused(blocks: int) -> None:
    with pytest.raises(
        InputError, match=re.escape(f"up to the backbone's 4, with one attention layer each, found {blocks}")
    ):
        ClassificationNetwork(3, "test_vit", attention_blocks=blocks)
