import pytest
import torch
from segmentation_models_pytorch.decoders.fpn.decoder import MergeBlock

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn import SegmentationNetwork


def image() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("head", "output_stride", "channels", "size"),
    [
        ("largefov", 16, 24, (4, 6)),
        ("largefov", 8, 24, (8, 12)),
        ("fpn", 32, 128, (16, 24)),
        ("unet", 32, 16, (64, 96)),
        ("deeplabv3plus", 16, 256, (16, 24)),
    ],
)
def test_heads_yield_features_and_logits(head: str, output_stride: int, channels: int, size: tuple[int, int]) -> None:
    network = SegmentationNetwork(4, "resnet18", head, output_stride, head_channels=24, dilation=2)
    out = network(image())
    assert out.low.shape == (2, 64, 32, 48)
    assert out.high.shape == (2, channels, *size)
    assert out.logits.shape == (2, 4, *size)
    assert (network.low_channels, network.high_channels) == (64, channels)
    torch.testing.assert_close(network.head.classifier(out.high), out.logits)
    out.logits.sum().backward()
    # all of the head learns, and the encoder through it
    assert all(p.grad is not None for p in network.head.parameters())
    assert network.backbone.encoder.model.conv1.weight.grad.abs().sum() > 0


def test_the_levels_of_an_fpn_are_added_as_smp_adds_them() -> None:
    network = SegmentationNetwork(4, "resnet18", "fpn", 32).eval().to(memory_format=torch.channels_last)
    features = network.backbone(image())
    high, logits = network.head(features)
    assert high.is_contiguous(memory_format=torch.channels_last)
    network.head.decoder.merge = MergeBlock("add")
    expected = network.head(features)
    assert torch.equal(high, expected[0])
    torch.testing.assert_close(logits, expected[1])


def test_levels_that_are_put_side_by_side_stay_so() -> None:
    network = SegmentationNetwork(4, "resnet18", "fpn", 32, decoder_options={"decoder_merge_policy": "cat"})
    assert network.high_channels == network(image()).high.shape[1] == 512


@pytest.mark.parametrize(
    ("head", "stride"),
    [("deeplabv3", 16), ("linknet", 1), ("manet", 1), ("segformer", 4), ("unetplusplus", 1), ("upernet", 4)],
)
def test_the_other_decoders_yield_logits_of_their_stride(head: str, stride: int) -> None:
    network = SegmentationNetwork(3, "resnet18", head, 16 if head == "deeplabv3" else 32).eval()
    with torch.no_grad():
        out = network(image())
    assert out.logits.shape == (2, 3, 64 // stride, 96 // stride)
    assert out.high.shape[1] == network.high_channels


@pytest.mark.parametrize(("head", "output_stride"), [("largefov", 16), ("fpn", 32)])
def test_new_head_has_the_same_design_and_fresh_weights(head: str, output_stride: int) -> None:
    torch.manual_seed(0)
    network = SegmentationNetwork(4, "resnet18", head, output_stride, head_channels=24)
    other = network.new_head()
    own, fresh = network.head.state_dict(), other.state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in fresh.items()}
    assert not {p.data_ptr() for p in network.head.parameters()} & {p.data_ptr() for p in other.parameters()}
    convolutions = [k for k, v in own.items() if v.ndim == 4]
    assert len(convolutions) >= 2
    assert not any(torch.equal(own[k], fresh[k]) for k in convolutions)


def test_new_head_does_not_copy_what_the_first_has_learned() -> None:
    network = SegmentationNetwork(4, "resnet18", head_channels=24)
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.fill_(7)
    assert not any((p == 7).all() for p in network.new_head().parameters())


def test_new_head_reads_the_same_features() -> None:
    network = SegmentationNetwork(4, "resnet18", head_channels=24).eval()
    with torch.no_grad():
        high, logits = network.new_head().eval()(network.backbone(image()))
        out = network(image())
    assert high.shape == out.high.shape
    assert logits.shape == out.logits.shape


def test_largefov_works_where_the_dilation_passes_the_map() -> None:
    network = SegmentationNetwork(4, "resnet18", head_channels=8, dilation=12).eval()
    with torch.no_grad():
        assert network(image()).logits.shape == (2, 4, 4, 6)


@pytest.mark.parametrize("output_stride", [16, 32])
@pytest.mark.parametrize("head", ["largefow", "deeplabv9", "pspnet"])
def test_unknown_head_is_refused_by_name(head: str, output_stride: int) -> None:
    with pytest.raises(InputError, match=f"unknown segmentation head '{head}'.*'largefov'.*fpn"):
        SegmentationNetwork(3, "resnet18", head, output_stride)


@pytest.mark.parametrize(("head", "stride", "needed"), [("fpn", 16, "32"), ("deeplabv3plus", 32, "8 or 16")])
def test_decoder_at_another_stride_is_refused(head: str, stride: int, needed: str) -> None:
    with pytest.raises(InputError, match=f"'{head}' needs output_stride {needed}, found {stride}"):
        SegmentationNetwork(3, "resnet18", head, stride)


@pytest.mark.parametrize(("head", "output_stride"), [("largefov", 16), ("fpn", 32)])
def test_a_backbone_that_begins_at_stride_4_gives_its_shallowest_features(head: str, output_stride: int) -> None:
    network = SegmentationNetwork(3, "convnext_atto", head, output_stride, head_channels=8)
    assert network.backbone.channels[:2] == [0, 40]
    assert network.low_channels == 40
    assert network(image()).low.shape == (2, 40, 16, 24)
