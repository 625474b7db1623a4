"""torch.compile turns each network into one graph: the tracer never falls back to Python."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from ssdd_lightning.nn import SSDD, AffinityNet, ClassificationNetwork, DDNet, SegmentationNetwork, cpu

IMAGE = torch.zeros(2, 3, 64, 96, dtype=torch.uint8)
MASK = torch.zeros(2, 16, 24, dtype=torch.long)
FEATURES = torch.rand(2, 8, 4, 6), torch.rand(2, 16, 32, 48)
LABELS = torch.tensor([[True, True, False]] * 2)
TINY = "test_efficientnet"


pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13), reason="older versions of torch trace less"
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("network", "inputs"),
    [
        (lambda: SegmentationNetwork(3, TINY, head_channels=8), (IMAGE,)),
        (lambda: SegmentationNetwork(3, TINY, "fpn", 32), (IMAGE,)),
        (lambda: ClassificationNetwork(3, TINY), (IMAGE,)),
        (lambda: AffinityNet(TINY), (IMAGE,)),
        (lambda: DDNet(3, 8, 16, width=8), (torch.rand(2, 8, 16, 24), MASK)),
        (lambda: SSDD(3, 8, 16, width=8), (*FEATURES, MASK, MASK.roll(1), LABELS)),
    ],
)
def test_a_network_is_one_graph(network: Any, inputs: tuple[torch.Tensor, ...]) -> None:
    module = network().eval()
    compiled = torch.compile(module, backend="eager", fullgraph=True)  # raises at a break
    with torch.no_grad():
        for found, expected in zip(compiled(*inputs), module(*inputs), strict=True):
            # folded normalisation, which the compiled one does without, rounds otherwise
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_what_is_faster_on_a_cpu_is_off_while_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mode sees the calls of torch's functions one by one, of which a graph would hold the slower ones."""
    network = SegmentationNetwork(3, TINY, head_channels=8).eval()
    entered: list[object] = []
    monkeypatch.setattr(cpu.FastConvolutions, "__enter__", lambda mode: entered.append(mode))
    monkeypatch.setattr(cpu.FastConvolutions, "__exit__", lambda *_: None)
    with torch.no_grad():
        network(IMAGE)
        assert len(entered) == 1
        torch.compile(network, backend="eager", fullgraph=True)(IMAGE)
    assert len(entered) == 1
