from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ssdd_lightning.errors import InputError
from ssdd_lightning.functional import (
    MergeBiases,
    bad_samples,
    difference_loss,
    difference_target,
    failed_classes,
    ssdd_merge,
)
from ssdd_lightning.functional.refinement import valid_pixels
from ssdd_lightning.nn import SSDD, SegmentationNetwork
from ssdd_lightning.nn.ssdd import resize_logits, resize_mask


def ssdd(**options: Any) -> SSDD:
    torch.manual_seed(0)
    return SSDD(3, 6, 5, width=4, frozen_norm=True, **options)


def inputs(size: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """e_h, e_l, two masks with 255s and image labels."""
    draw = torch.Generator().manual_seed(1)
    high, low = torch.randn(2, 6, 4, 4, generator=draw), torch.randn(2, 5, 16, 16, generator=draw)
    knowledge, advice = torch.randint(0, 3, (2, 2, size, size), generator=draw)
    knowledge[:, :2], advice[:, :, :2] = 255, 255
    return high, low, knowledge, advice, torch.tensor([[1, 1, 1], [1, 0, 1]], dtype=torch.bool)


def probability(model: SSDD, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return model.ddnet(features, mask).sigmoid()[:, 0]


def test_ssdd_is_the_merge_by_predicted_differences() -> None:
    """Eq. 5, with the default biases of training."""
    model = ssdd()
    high, low, knowledge, advice, present = inputs()
    out = model(high, low, knowledge, advice, present)
    features = model.ddnet.image_features(high, low, (16, 16))
    torch.testing.assert_close(out.knowledge_logits.sigmoid()[:, 0], probability(model, features, knowledge))
    torch.testing.assert_close(out.advice_logits.sigmoid()[:, 0], probability(model, features, advice))
    maps = probability(model, features, knowledge), probability(model, features, advice)
    expected = ssdd_merge(knowledge, advice, *maps, present, MergeBiases(0.4, 1.0, 0.0))
    assert torch.equal(out.mask, expected)
    assert (out.mask[:, :2, :2] == 255).all()


@pytest.mark.parametrize("biases", [MergeBiases(-0.5), MergeBiases(-0.2, 0.1), MergeBiases(-0.2, background_bias=0.6)])
def test_ssdd_merges_with_its_own_biases(biases: MergeBiases) -> None:
    high, low, knowledge, advice, present = inputs()
    out = ssdd(biases=biases)(high, low, knowledge, advice, present)
    maps = out.knowledge_logits.sigmoid()[:, 0], out.advice_logits.sigmoid()[:, 0]
    assert torch.equal(out.mask, ssdd_merge(knowledge, advice, *maps, present, biases))
    assert not torch.equal(out.mask, ssdd_merge(knowledge, advice, *maps, present))


def test_ssdd_leans_to_the_side_of_a_large_bias() -> None:
    high, low, knowledge, advice, present = inputs()
    labelled = valid_pixels(knowledge, advice)
    for bias, side in ((2.0, advice), (-2.0, knowledge)):
        mask = ssdd(biases=MergeBiases(bias, 0.0))(high, low, knowledge, advice, present).mask
        assert torch.equal(mask[labelled], side[labelled])


def test_ssdd_with_a_size_merges_at_image_size() -> None:
    model = ssdd()
    high, low, knowledge, advice, present = inputs(size=32)
    out = model(high, low, knowledge, advice, present, size=(8, 8))
    features = model.ddnet.image_features(high, low, (8, 8))
    # nearest pixel centres of a reduction by four: 2, 6, 10, ...
    small = [mask[:, 2::4, 2::4] for mask in (knowledge, advice)]
    logits = [F.interpolate(model.ddnet(features, mask), (32, 32), mode="bilinear") for mask in small]
    torch.testing.assert_close(out.knowledge_logits, logits[0])
    torch.testing.assert_close(out.advice_logits, logits[1])
    first, second = (logit.sigmoid()[:, 0] for logit in logits)
    assert out.mask.shape == (2, 32, 32)
    assert torch.equal(out.mask, ssdd_merge(knowledge, advice, first, second, present))


def test_ssdd_refuses_masks_of_two_sizes() -> None:
    high, low, knowledge, advice, present = inputs()
    with pytest.raises(InputError, match="one size"):
        ssdd()(high, low, knowledge, advice[:, :8], present)


def test_difference_loss_trains_the_ddnet_alone() -> None:
    torch.manual_seed(0)
    network = SegmentationNetwork(3, "resnet18", head_channels=6, dilation=1)
    model = SSDD(3, network.high_channels, network.low_channels, width=4)
    image = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    seg = network(image)
    _, _, knowledge, advice, present = inputs(size=8)
    assert seg.high.requires_grad
    out = model(seg.high, seg.low, knowledge, advice, present)
    target, valid = difference_target(knowledge, advice), valid_pixels(knowledge, advice)
    keep = ~bad_samples(failed_classes(knowledge, advice, present, ratio=0.0))
    first, second = (difference_loss(d, target, keep, valid) for d in (out.knowledge_logits, out.advice_logits))
    (first + second).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert all(p.grad is None for p in network.parameters())


def test_merged_masks_carry_no_gradient() -> None:
    out = ssdd()(*inputs())
    assert out.knowledge_logits.requires_grad
    assert out.mask.dtype == torch.int64
    assert not out.mask.requires_grad


def test_resize_mask_keeps_labels_and_takes_pixel_centres() -> None:
    mask = torch.tensor([[[0, 1, 2, 255], [3, 4, 5, 6], [7, 8, 9, 10], [11, 12, 13, 255]]])
    assert resize_mask(mask, (2, 2)).tolist() == [[[4, 6], [12, 255]]]
    assert resize_mask(mask, (8, 8))[:, ::2, ::2].tolist() == mask.tolist()
    assert resize_mask(mask, (4, 4)) is mask


def test_resize_logits_is_bilinear() -> None:
    logits = torch.tensor([[[[0.0, 4.0]]]])
    assert resize_logits(logits, (1, 4)).tolist() == [[[[0, 1, 3, 4]]]]
    assert resize_logits(logits, (1, 2)) is logits
