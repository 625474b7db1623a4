"""The modules of the ablations lack the part that they are named after, and nothing else."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from ssdd_lightning.functional.refinement import MergeBiases
from ssdd_lightning.nn import SSDD

SIZES = {"num_classes": 3, "high_channels": 8, "low_channels": 4, "width": 16}


@pytest.fixture
def ablated(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("ablated")


@pytest.fixture
def inputs() -> list[Any]:
    torch.manual_seed(0)
    masks = torch.randint(0, 3, (2, 1, 12, 12))
    return [torch.rand(1, 8, 3, 3), torch.rand(1, 4, 12, 12), *masks, torch.ones(1, 3, dtype=torch.bool)]


def test_a_fixed_threshold_compares_d_k_with_a_half(ablated: Any, inputs: list[Any]) -> None:
    module = ablated.FixedThreshold(**SIZES, biases=MergeBiases(0.0, 0.0)).eval()
    made = module(*inputs)
    knowledge, advice = inputs[2:4]
    assert torch.equal(made.mask, torch.where(made.knowledge_logits[:, 0] >= 0, advice, knowledge))
    assert not torch.equal(made.mask, SSDD.forward(module, *inputs).mask)


def test_a_random_choice_takes_half_of_the_advice(ablated: Any, inputs: list[Any]) -> None:
    knowledge, advice = (mask.repeat(1, 20, 20) for mask in inputs[2:4])
    mask = ablated.RandomChoice(**SIZES)(*inputs[:2], knowledge, advice, inputs[4]).mask
    differ = knowledge != advice
    assert torch.equal(mask[~differ], knowledge[~differ])
    assert 0.48 < (mask == advice)[differ].float().mean() < 0.52


def test_bad_samples_are_kept_and_the_merge_still_protects(ablated: Any, inputs: list[Any]) -> None:
    inputs[3] = torch.zeros_like(inputs[3])  # the advice lost every class
    module = ablated.BadSamplesKept(**SIZES).eval()
    made, plain = module(*inputs), SSDD.forward(module, *inputs)
    assert plain.failed.any()
    assert not made.failed.any()
    assert torch.equal(made.mask, plain.mask)
