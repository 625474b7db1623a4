import threading
from collections.abc import Iterator
from typing import cast

import pytest
import timm
import torch
from torch import nn

from ssdd_lightning.folders.cores import is_reentrant, on_cores
from ssdd_lightning.nn import AffinityNet, SegmentationNetwork
from tests.helpers.networks import Segmenter


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    assert torch.get_num_threads() == 4
    torch.set_num_threads(before)


@pytest.mark.parametrize(("items", "threads"), [(1, 4), (2, 2), (3, 1), (9, 1)])
def test_the_threads_are_shared_out_and_the_results_are_in_order(items: int, threads: int) -> None:
    def work(item: int) -> tuple[int, bool, int]:
        return item, threading.current_thread() is threading.main_thread(), torch.get_num_threads()

    assert list(on_cores(work, range(items))) == [(item, False, threads) for item in range(items)]


def test_an_error_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        list(on_cores(lambda item: 1 // item, [1, 0, 1]))


def test_our_networks_are() -> None:
    assert is_reentrant(SegmentationNetwork(3, "test_efficientnet", output_stride=16).eval())
    assert is_reentrant(SegmentationNetwork(3, "test_efficientnet", "fpn", output_stride=32).eval())
    assert is_reentrant(AffinityNet("resnet18").eval())


def test_what_keeps_something_is_not() -> None:
    assert not is_reentrant(nn.Sequential(Segmenter(3)).eval())
    layer = nn.Conv2d(3, 3, 1).eval()
    assert is_reentrant(layer)
    assert not is_reentrant(cast(nn.Module, torch.compile(layer)))
    layer.register_forward_pre_hook(lambda module, given: None)
    assert not is_reentrant(nn.Sequential(layer).eval())
    replaced, compiled = nn.Conv2d(3, 3, 1).eval(), nn.Conv2d(3, 3, 1).eval()
    replaced.forward = lambda input: input  # type: ignore[method-assign]
    compiled.compile(backend="eager")
    assert not is_reentrant(replaced)
    assert not is_reentrant(compiled)


def test_features_that_timm_takes_by_hooks_are_not() -> None:
    """Two threads would mix them up: timm keeps them in the network, by device."""
    assert not is_reentrant(timm.create_model("legacy_xception", features_only=True).eval())
