"""The modules of the ablations lack the part that they are named after, and nothing else."""

import importlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssdd_lightning import DynamicRefinementModule
from ssdd_lightning.functional.refinement import MergeBiases
from ssdd_lightning.nn import SSDD, SegmentationNetwork

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


def dynamic(stage: type[Any]) -> Any:
    torch.manual_seed(0)
    network = partial(
        SegmentationNetwork, backbone="test_efficientnet", head="largefov", head_channels=8, freeze_norm=False
    )
    keep = partial(SSDD, width=8, biases=MergeBiases(-10.0, 0.0))
    return stage(3, network, keep, backbone_weights=None)


@pytest.fixture
def batch() -> dict[str, Any]:
    torch.manual_seed(0)
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    knowledge = torch.zeros(2, 32, 32, dtype=torch.long)
    knowledge[:, 8:24, 8:24] = 1
    labels = torch.tensor([[True, True, False], [True, True, True]])
    valid = torch.ones(2, 32, 32, dtype=torch.bool)
    return {"image": image, "image_raw": image, "image_labels": labels, "valid": valid, "knowledge": knowledge}


def test_the_first_module_alone_decides(ablated: Any, batch: dict[str, Any]) -> None:
    usual, alone = (
        dynamic(stage).eval().refine(batch) for stage in (DynamicRefinementModule, ablated.FirstModuleAlone)
    )
    assert torch.equal(usual.first.mask, alone.first.mask)
    assert torch.equal(usual.second.mask, usual.seeds), "the second module keeps m_D0 with its bias"
    assert not torch.equal(usual.second.mask, usual.first.mask)
    assert torch.equal(alone.second.mask, alone.first.mask)


def test_the_second_module_stays_and_the_first_learns(ablated: Any, batch: dict[str, Any]) -> None:
    stage = dynamic(ablated.SecondModuleStays)
    stage.setup("fit")
    stage.log = stage.log_dict = lambda *_, **__: None
    stage.training_step(batch, 0).backward()
    learnt = {name.split(".")[0] for name, weight in stage.named_parameters() if weight.grad is not None}
    assert learnt == {"network", "sub_head", "ssdd1"}


def test_knowledge_is_what_an_average_of_the_weights_says(
    ablated: Any, batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = dynamic(ablated.AveragedKnowledge)
    stage.setup("fit")
    stage.log = stage.log_dict = lambda *_, **__: None
    stage.decay = 0.25
    stage.refinement = replace(stage.refinement, prior=0.5)
    prior = 0.5 * (torch.tensor([0.75, 0.25, 0.0]) + 0.01).log()  # of m_D0's classes
    usual, seen = DynamicRefinementModule.knowledge_and_advice, []
    monkeypatch.setattr(
        DynamicRefinementModule, "knowledge_and_advice", lambda *given: seen.append(given[1]) or usual(*given)
    )
    stage.training_step(batch, 0)
    state = {name: tensor.clone() for name, tensor in stage.network.state_dict().items()}
    weights = dict(stage.network.named_parameters())
    with torch.no_grad():
        for weight in weights.values():
            weight.mul_(1.5)
    stage.training_step(batch, 1)
    assert stage.network.training
    averaged = {name: (0.25 + 0.75 * 1.5) * tensor if name in weights else tensor for name, tensor in state.items()}
    stage.network.load_state_dict(averaged)
    with torch.no_grad():
        *_, expected = stage.network.eval()(batch["image"])
    expected = torch.nn.functional.interpolate(expected, (8, 8), mode="bilinear") + prior[:, None, None]
    torch.testing.assert_close(seen[1], expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(seen[0], seen[1])


def test_the_bias_grows_until_half_of_the_steps_are_done(ablated: Any, batch: dict[str, Any]) -> None:
    stage = dynamic(ablated.RampedBias)
    for module in (stage.ssdd1, stage.ssdd2):
        module.biases = MergeBiases(0.5, 0.0)
    stage.setup("fit")
    stage.log = stage.log_dict = lambda *_, **__: None
    found = []
    for step in (0, 2, 4, 7):
        stage._trainer = SimpleNamespace(global_step=step, estimated_stepping_batches=8)
        stage.training_step(batch, step)
        found += [module.biases for module in (stage.ssdd1, stage.ssdd2)]
    assert found == [MergeBiases(bias, 0.0) for bias in (-1.0, -1.0, -0.25, -0.25, 0.5, 0.5, 0.5, 0.5)]


@pytest.mark.parametrize("bad", [0, 1, 2, 3, 4])
def test_of_a_batch_with_many_bad_samples_the_knowledge_is_kept(ablated: Any, inputs: list[Any], bad: int) -> None:
    stage = dynamic(ablated.GuardedKnowledge)
    stage.setup("fit")
    knowledge, advice, labels = (part.repeat(4, *[1] * (part.ndim - 1)) for part in inputs[2:])
    advice[:bad] = 0  # lost every class
    features = torch.rand(4, stage.network.high_channels, 3, 3), torch.rand(4, stage.network.low_channels, 12, 12)
    inputs = [*features, knowledge, advice, labels]
    stage.ssdd1.biases = stage.ssdd2.biases = MergeBiases(10.0, 0.0)  # take the advice
    made = stage.ssdd1(*inputs)
    assert torch.equal(made.mask, knowledge if bad > 2 else advice)
    assert torch.equal(stage.ssdd2(*inputs).mask, advice)
