import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssdd_lightning.nn.affinity import AffinityNet
from ssdd_lightning.nn.backbones import Backbone
from ssdd_lightning.nn.cpu import (
    FastConvolutions,
    Pair,
    bfloat16_slowdown,
    fast_convolutions,
    find_pairs,
    folded_once,
)
from ssdd_lightning.nn.ddnet import DDNet
from ssdd_lightning.nn.segmentation import SegmentationNetwork


class Net(nn.Module):
    """A convolution that may be folded, one whose output is also read elsewhere, and a depthwise one."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(3, 8, 3, padding=1, bias=bias), nn.BatchNorm2d(8)
        self.second, self.norm2 = nn.Conv2d(8, 8, 1, bias=bias), nn.BatchNorm2d(8)
        self.depthwise, self.norm3 = nn.Conv2d(8, 8, 3, groups=8, bias=bias), nn.BatchNorm2d(8, affine=False)
        for norm in (self.norm1, self.norm2, self.norm3):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            if norm.affine:
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)
        self.eval().norm1.requires_grad_(False)
        self.norm2.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.first(x)).relu_()
        y = self.second(x)
        return self.norm3(self.depthwise(self.norm2(y) + y))


@pytest.mark.parametrize("bias", [False, True])
def test_folding_changes_neither_the_output_nor_the_gradients(bias: bool) -> None:
    torch.manual_seed(0)
    net, image = Net(bias), torch.randn(2, 3, 9, 9)
    pairs = find_pairs(net, lambda: net(image))
    assert [pair.conv for pair in pairs] == [net.first, net.depthwise]  # the output of `second` is read twice
    plain = net(image)
    plain.square().sum().backward()
    expected = {name: parameter.grad for name, parameter in net.named_parameters()}
    net.zero_grad()
    with FastConvolutions(pairs):
        fast = net(image)
    fast.square().sum().backward()
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mixed", [False, True])
def test_folding_once_is_folding_every_time(mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, image = Net(), torch.randn(2, 3, 9, 9)
    pairs, made, folded = find_pairs(net, lambda: net(image)), [], Pair.folded
    monkeypatch.setattr(Pair, "folded", lambda pair: made.append(pair) or folded(pair))

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed), FastConvolutions(pairs):
            return net(image)

    def run_in_other_precision() -> Tensor:
        with torch.autocast("cpu", torch.float16 if mixed else torch.bfloat16), FastConvolutions(pairs):
            return net(image)

    with torch.no_grad():
        expected, other = run(), run_in_other_precision()
        made.clear()
        with folded_once():
            assert torch.equal(run(), expected)
            assert torch.equal(run(), expected)
            assert len(made) == len(pairs)
            assert torch.equal(run_in_other_precision(), other)
            assert len(made) == 2 * len(pairs)
            monkeypatch.setattr("ssdd_lightning.nn.cpu._KEPT", 0)  # as if all layers were large
            assert torch.equal(run(), expected)
            assert len(made) == 3 * len(pairs)
            monkeypatch.undo()
        net.first.weight.mul_(2)
        assert not torch.equal(run(), expected)  # nothing is kept behind it
    with folded_once():
        with torch.no_grad():
            run()
        for _ in range(2):  # each with a graph of its own
            run().float().sum().backward()
        assert net.first.weight.grad is not None


def test_normalisation_that_learns_or_counts_is_not_folded() -> None:
    net, image = Net(), torch.randn(2, 3, 9, 9)
    pairs = find_pairs(net, lambda: net(image))
    net.norm1.requires_grad_(True)
    assert [pair.frozen for pair in pairs] == [False, True]
    with FastConvolutions(pairs):
        net(image).sum().backward()
    assert net.norm1.weight.grad is not None
    before = net.norm3.running_mean.clone()
    net.norm3.train()
    with FastConvolutions(pairs):
        net(image)
    assert not torch.equal(net.norm3.running_mean, before)


def test_a_convolution_that_was_exchanged_is_normalised() -> None:
    net, image = Net(), torch.randn(2, 3, 9, 9)
    pairs = find_pairs(net, lambda: net(image))
    net.first = nn.Conv2d(3, 8, 3, padding=1)
    with FastConvolutions(pairs):
        fast = net(image)
    torch.testing.assert_close(fast, net(image), rtol=1e-4, atol=1e-4)


def test_an_output_that_is_read_elsewhere_is_noticed() -> None:
    net, image = Net(), torch.randn(2, 3, 9, 9)
    pairs = find_pairs(net, lambda: net(image))
    with pytest.raises(AssertionError, match="not followed by its normalisation"), FastConvolutions(pairs):
        net.first(image)


def test_depthwise_convolutions_learn_in_single_precision() -> None:
    """Rounded once, at the end; without a backward pass they are like all others."""
    torch.manual_seed(0)
    conv, image = nn.Conv2d(8, 8, 3, groups=8), torch.randn(1, 8, 9, 9)
    with torch.autocast("cpu", torch.bfloat16), FastConvolutions([]):
        learning = conv(image)
        with torch.no_grad():
            using = conv(image)
    assert learning.dtype == using.dtype == torch.bfloat16
    assert torch.equal(learning, conv(image).bfloat16())
    assert not torch.equal(using, learning)
    torch.testing.assert_close(using, learning, rtol=0.02, atol=0.02)


@contextmanager
def on_one_thread() -> Iterator[set[str]]:
    """Names of the operations that run meanwhile; they are there afterwards."""
    used: set[str] = set()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            yield used
    finally:
        torch.set_num_threads(threads)
    used |= {event.key for event in seen.key_averages()}


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_convolutions_of_one_pixel_are_those_of_onednn() -> None:
    """One thread and a small batch, for which torch has a slower one."""
    torch.manual_seed(0)
    image = torch.randn(2, 24, 40, 40).contiguous(memory_format=torch.channels_last).requires_grad_()
    conv = nn.Conv2d(24, 32, 1).to(memory_format=torch.channels_last)
    expected = torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], image) + conv.bias[:, None, None]
    with on_one_thread() as used, fast_convolutions(image):
        result = conv(image)
        found = torch.autograd.grad(result.square().sum(), (image, conv.weight))
    assert "aten::mkldnn_convolution" in used
    assert not any("slow" in name for name in used)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        found, torch.autograd.grad(expected.square().sum(), (image, conv.weight)), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("size", [(1, 24, 16, 16), (1, 320, 6, 8)])
def test_a_small_image_keeps_torchs_own_convolution(size: tuple[int, ...]) -> None:
    """A dilated one would take up to three times as long."""
    image, conv = torch.randn(size), nn.Conv2d(size[1], 32, 1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen, fast_convolutions(image):
        conv(image)
    assert not any("dilated" in event.key for event in seen.key_averages())


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"padding": 1}, {"padding": "same"}, {"groups": 4}])
def test_the_dilation_of_one_pixel_changes_nothing(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    conv, image = nn.Conv2d(8, 8, 1, **options), torch.randn(3, 8, 39, 27)
    with FastConvolutions([]):
        fast = conv(image)
    torch.testing.assert_close(fast, conv(image), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("part", ["backbone", "decoder", "DD-Net", "AffinityNet"])
def test_no_network_leaves_the_fast_way(part: str) -> None:
    torch.manual_seed(0)
    net: nn.Module
    inputs: tuple[Any, ...] = (torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8),)
    if part == "backbone":
        net = Backbone("test_efficientnet")
    elif part == "AffinityNet":
        net = AffinityNet("test_efficientnet")
    elif part == "decoder":
        network = SegmentationNetwork(3, "test_efficientnet", "fpn", output_stride=32)
        net, inputs = network.head, (network.backbone(*inputs),)
    else:
        net, inputs = DDNet(3, 8, 8, width=32), (torch.randn(2, 32, 32, 32), torch.zeros(2, 32, 32, dtype=torch.long))
    net(*inputs)  # a backbone looks for its pairs in its first call
    with on_one_thread() as used, torch.no_grad():
        net(*inputs)
    assert "aten::mkldnn_convolution" in used
    assert not any("slow" in name for name in used), used


def test_a_trace_has_the_convolutions_of_the_modules() -> None:
    """A graph that is made elsewhere of it, such as an ONNX file, has no dilation that nobody asked for."""
    net = DDNet(3, 8, 8, width=32)
    inputs = torch.randn(2, 32, 32, 32), torch.zeros(2, 32, 32, dtype=torch.long)
    graph = torch.jit.trace(net, inputs, check_trace=False).inlined_graph
    given = [list(node.inputs())[5].node() for node in graph.findAllNodes("aten::_convolution")]
    dilations = {tuple(value.toIValue() for value in node.inputs()) for node in given}
    assert dilations == {(1, 1)}


def test_the_backbone_is_as_without_and_forgets_nothing() -> None:
    torch.manual_seed(0)
    backbone = Backbone("test_efficientnet")
    for norm in backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 2)
    state = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    image = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    fast = backbone(image)
    assert len(backbone._pairs) > 10
    for other in (copy.deepcopy(backbone), backbone):
        torch.testing.assert_close(other(image), fast)
        other._pairs = []
        torch.testing.assert_close(other(image), fast, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.state_dict().items())
    assert backbone.training


def test_statistics_are_not_counted_while_the_pairs_are_sought() -> None:
    backbone = Backbone("test_efficientnet", freeze_norm=False).train()
    backbone(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    counted = [m.num_batches_tracked.item() for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert set(counted) == {1}


def test_bfloat16_is_measured_once() -> None:
    times = bfloat16_slowdown()
    assert 0.05 < times < 500
    assert bfloat16_slowdown() == times


def test_other_work_on_the_machine_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = bfloat16_slowdown.__wrapped__()
    real, calls = torch.autograd.grad, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(0)
        time.sleep(0.05 * (len(calls) % 2))  # in every step of bfloat16, as if others had the processor
        return real(*arguments, **options)

    monkeypatch.setattr(torch.autograd, "grad", interrupted)
    assert bfloat16_slowdown.__wrapped__() < 4 * alone
    assert len(calls) == 8
