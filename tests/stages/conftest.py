"""Stages of the smallest networks, without a trainer, and batches made by hand."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssdd_lightning.functional import MergeBiases
from ssdd_lightning.nn import SSDD, ClassificationNetwork, SegmentationNetwork
from tests.helpers.steps import Build, Reached, Step

CLASSES = 4
SIZE = 64
INSIDE = 48  # columns from here on are padding


@pytest.fixture
def network() -> Callable[..., SegmentationNetwork]:
    return partial(
        SegmentationNetwork,
        backbone="test_efficientnet",
        head="largefov",
        output_stride=16,
        head_channels=8,
        dilation=1,
        freeze_norm=False,
    )


@pytest.fixture
def classifier() -> Callable[..., ClassificationNetwork]:
    return partial(ClassificationNetwork, backbone="test_efficientnet", freeze_norm=False)


@pytest.fixture
def build(network: Callable[..., SegmentationNetwork]) -> Build:
    """Build a stage of 4 classes from seed 0; `logged` collects what it logs, with the graph."""

    def make(
        stage: type[Any], bias: float | None = None, ratio: float = 0.5, classes: int = CLASSES, **options: Any
    ) -> Any:
        torch.manual_seed(0)
        if "ssdd" in stage.__init__.__annotations__:
            biases = replace(MergeBiases(bias, 0.0) if bias else MergeBiases(), failed_ratio=ratio)
            options["ssdd"] = partial(SSDD, width=8, biases=biases)
        module = stage(classes, **{"network": network, "backbone_weights": None, **options})
        module.logged = {}
        module.log = lambda name, value, **_: module.logged.update({name: value})
        return module

    return make


@pytest.fixture
def step() -> Step:
    """Run one training step and return (loss, what was logged)."""

    def run(module: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(1)
        return module.training_step(batch, 0), module.logged

    return run


@pytest.fixture
def batch() -> dict[str, Any]:
    """Two crops: the first shows class 1, the second 2 and 3; both are padded on the right, 255 in every mask."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (2, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    valid = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    valid[:, :, INSIDE:] = False
    knowledge = torch.zeros(2, SIZE, SIZE, dtype=torch.long)
    knowledge[0, 8:40, 8:40] = 1
    knowledge[1, 4:28, 8:40] = 2
    knowledge[1, 32:56, 8:40] = 3
    return {
        "image": image,
        "image_raw": image.clone(),
        "image_labels": torch.tensor([[1, 1, 0, 0], [1, 0, 1, 1]], dtype=torch.bool),
        "valid": valid,
        "knowledge": knowledge.masked_fill(~valid, 255),
        "advice": knowledge.roll(4, 2).masked_fill(~valid, 255),
        "name": ["a", "b"],
    }


@pytest.fixture
def reached() -> Reached:
    """Names of a module's parameters that a scalar sends a gradient to."""

    def names(scalar: Tensor, module: nn.Module) -> set[str]:
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        grads = torch.autograd.grad(scalar, [p for _, p in named], retain_graph=True, allow_unused=True)
        return {name for (name, _), grad in zip(named, grads, strict=True) if grad is not None and grad.any()}

    return names
