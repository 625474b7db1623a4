import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn import ClassificationNetwork, SegmentationNetwork
from ssdd_lightning.stages import (
    ClassificationModule,
    DynamicRefinementModule,
    SegmentationModule,
    StaticRefinementModule,
    base,
)
from ssdd_lightning.stages.base import Stage
from ssdd_lightning.stages.values import PSA, LabelRefinement, Optimization
from tests.helpers.steps import Build
from tests.helpers.weights import equal


class FakeTrainer:
    """As much of a trainer as a stage asks for."""

    def __init__(self, steps: int = 10, ckpt_path: str | None = None) -> None:
        self.estimated_stepping_batches = steps
        self.ckpt_path = ckpt_path


def optimisation(module: Any, steps: int = 10) -> tuple[Any, Any]:
    trainer = FakeTrainer(steps)
    module.trainer = trainer
    configured = module.configure_optimizers()
    assert configured["lr_scheduler"]["interval"] == "step"
    return configured["optimizer"], configured["lr_scheduler"]["scheduler"]


def rates_after(module: Any, steps: int, total: int) -> list[float]:
    optimizer, scheduler = optimisation(module, total)
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    return [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("stage", [SegmentationModule, StaticRefinementModule, DynamicRefinementModule])
def test_two_groups_hold_every_parameter_once(build: Build, stage: type[Stage]) -> None:
    module = build(stage, optimization=Optimization(0.002, 0.3, 0.5, 0.01))
    backbone, new = optimisation(module)[0].param_groups
    assert {id(p) for p in backbone["params"]} == {id(p) for p in module.network.backbone.parameters()}
    assert len(backbone["params"]) + len(new["params"]) == len(list(module.parameters()))
    assert (backbone["lr"], new["lr"]) == (0.002, 0.3)
    assert {(g["momentum"], g["weight_decay"]) for g in (backbone, new)} == {(0.5, 0.01)}


def test_default_rates(build: Build, classifier: Callable[..., ClassificationNetwork]) -> None:
    segmentation, classification = build(SegmentationModule), build(ClassificationModule, network=classifier)
    assert [g["lr"] for g in optimisation(segmentation)[0].param_groups] == [1e-3, 1e-2]
    assert [g["lr"] for g in optimisation(classification)[0].param_groups] == [1e-2, 1e-1]


def test_frozen_parameters_are_not_optimised(build: Build, network: Callable[..., SegmentationNetwork]) -> None:
    module = build(SegmentationModule, network=lambda classes: network(classes, freeze_norm=True))
    optimised = {id(p) for group in optimisation(module)[0].param_groups for p in group["params"]}
    frozen = {id(p) for p in module.parameters() if not p.requires_grad}
    assert frozen
    assert not frozen & optimised


def test_cosine_runs_towards_one_fifth_more_steps(build: Build) -> None:
    module = build(SegmentationModule, optimization=Optimization(1.0, 2.0))
    last = (1 + math.cos(math.pi / 1.2)) / 2
    assert rates_after(module, 10, 10) == pytest.approx([last, 2 * last])
    assert last > 0.06


def test_poly_has_power_nine_tenths_and_ends_at_zero(build: Build) -> None:
    module = build(SegmentationModule, optimization=Optimization(1.0, 2.0, lr_scheduler="poly"))
    assert rates_after(module, 5, 10) == pytest.approx([0.5**0.9, 2 * 0.5**0.9])
    assert rates_after(module, 10, 10) == pytest.approx([0, 0])


def test_classification_is_poly_by_default(build: Build, classifier: Callable[..., ClassificationNetwork]) -> None:
    scheduler = optimisation(build(ClassificationModule, network=classifier))[1]
    assert isinstance(scheduler, torch.optim.lr_scheduler.PolynomialLR)


@pytest.fixture
def weights(build: Build, classifier: Callable[..., ClassificationNetwork], tmp_path: Path) -> Path:
    """Checkpoint of a classification stage whose backbone is recognisable."""
    module = build(ClassificationModule, network=classifier)
    with torch.no_grad():
        for parameter in module.network.backbone.parameters():
            parameter.fill_(0.125)
    path = tmp_path / "classification.ckpt"
    torch.save({"state_dict": module.state_dict()}, path)
    return path


@pytest.mark.parametrize(("ckpt_path", "loaded"), [(None, True), ("last.ckpt", False)])
def test_backbone_weights_are_loaded_on_a_fresh_fit_only(
    build: Build, weights: Path, ckpt_path: str | None, loaded: bool
) -> None:
    module = build(SegmentationModule, backbone_weights=str(weights))
    trainer = FakeTrainer(ckpt_path=ckpt_path)
    module.trainer = trainer
    module.on_fit_start()
    assert all((p == 0.125).all() for p in module.network.backbone.parameters()) == loaded


def test_loading_says_what_it_did(build: Build, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(base, "rank_zero_info", lines.append)
    module = build(SegmentationModule, backbone_weights=str(weights))
    module.trainer = FakeTrainer()
    module.on_fit_start()
    count = len(module.network.backbone.model.state_dict())
    head, *skipped = lines.pop().splitlines()
    assert head == f"{weights}: {count} loaded, {len(skipped)} skipped, 0 missing"
    assert skipped[-1] == "  skipped network.classifier.weight: unknown name"
    assert all(" network.backbone.encoder.model." in line for line in skipped[:-1]), "the classifier's conv_head"
    assert not lines


def test_missing_backbone_weights_are_named(build: Build, tmp_path: Path) -> None:
    module = build(SegmentationModule, backbone_weights=str(tmp_path / "none.ckpt"))
    trainer = FakeTrainer()
    module.trainer = trainer
    with pytest.raises(InputError, match=r"none\.ckpt"):
        module.on_fit_start()


@pytest.fixture
def static(build: Build, tmp_path: Path) -> tuple[Any, Path]:
    """A static stage with weights of its own, and its checkpoint."""
    module = build(StaticRefinementModule)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(generator=torch.Generator().manual_seed(parameter.numel()))
    torch.save({"state_dict": module.state_dict()}, tmp_path / "static.ckpt")
    return module, tmp_path / "static.ckpt"


def test_a_baseline_can_start_from_the_static_stage(build: Build, static: tuple[Any, Path]) -> None:
    module = build(SegmentationModule, static_checkpoint=str(static[1]))
    module.trainer = FakeTrainer()
    module.on_fit_start()
    assert equal(module.network.state_dict(), static[0].network.state_dict())


def test_both_branches_and_ssdd_modules_can_start_from_the_static_stage(build: Build, static: tuple[Any, Path]) -> None:
    module = build(DynamicRefinementModule, static_checkpoint=str(static[1]))
    module.trainer = FakeTrainer()
    module.on_fit_start()
    assert equal(module.network.state_dict(), static[0].network.state_dict())
    assert equal(module.sub_head.state_dict(), static[0].network.head.state_dict())
    assert equal(module.ssdd1.state_dict(), static[0].ssdd.state_dict())
    assert equal(module.ssdd2.state_dict(), static[0].ssdd.state_dict())


def test_branches_can_start_from_another_model_than_the_ssdd_modules(
    build: Build, static: tuple[Any, Path], tmp_path: Path
) -> None:
    plain = build(SegmentationModule)
    torch.save({"state_dict": plain.state_dict()}, tmp_path / "plain.ckpt")
    module = build(
        DynamicRefinementModule, static_checkpoint=str(static[1]), network_checkpoint=str(tmp_path / "plain.ckpt")
    )
    module.trainer = FakeTrainer()
    module.on_fit_start()
    assert equal(module.network.state_dict(), plain.network.state_dict())
    assert equal(module.sub_head.state_dict(), plain.network.head.state_dict())
    assert equal(module.ssdd1.state_dict(), static[0].ssdd.state_dict())
    assert equal(module.ssdd2.state_dict(), static[0].ssdd.state_dict())


@pytest.mark.parametrize(
    "options", [{"network_checkpoint": "plain.ckpt"}, {"refinement": LabelRefinement(train_ddnets=False)}]
)
def test_ddnets_that_nothing_trained_are_refused(build: Build, options: dict[str, Any]) -> None:
    module = build(DynamicRefinementModule, **options)
    module.trainer = FakeTrainer()
    with pytest.raises(InputError, match="expected static_checkpoint to name the checkpoint of a static stage"):
        module.on_fit_start()


def test_a_resumed_fit_does_not_start_from_the_static_stage(build: Build, static: tuple[Any, Path]) -> None:
    module = build(SegmentationModule, static_checkpoint=str(static[1]))
    before = [p.clone() for p in module.parameters()]
    module.trainer = FakeTrainer(ckpt_path="last.ckpt")
    module.on_fit_start()
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_a_missing_static_checkpoint_is_named(build: Build, tmp_path: Path) -> None:
    module = build(SegmentationModule, static_checkpoint=str(tmp_path / "none.ckpt"))
    module.trainer = FakeTrainer()
    with pytest.raises(InputError, match=r"static_checkpoint: .* stage at .*none\.ckpt, found none; fit it first"):
        module.on_fit_start()


def test_another_stage_than_the_static_one_is_refused(build: Build, weights: Path) -> None:
    module = build(DynamicRefinementModule, static_checkpoint=str(weights))
    module.trainer = FakeTrainer()
    with pytest.raises(InputError, match=r"classification\.ckpt do not fit"):
        module.on_fit_start()


def test_biases_learn_at_twice_the_rate_without_decay(
    build: Build, classifier: Callable[..., ClassificationNetwork]
) -> None:
    module = build(
        ClassificationModule,
        network=classifier,
        optimization=replace(PSA, learning_rate=0.1, new_learning_rate=1.0, double_bias_rate=True),
    )
    groups = {group["name"]: group for group in optimisation(module)[0].param_groups}
    assert {name: (g["lr"], g["weight_decay"]) for name, g in groups.items()} == {
        "backbone": (0.1, 5e-4),
        "backbone_bias": (0.2, 0.0),
        "new": (1.0, 5e-4),
    }  # the classifier has no bias
    biases = {id(p) for name, p in module.named_parameters() if name.endswith("bias")}
    assert {id(p) for p in groups["backbone_bias"]["params"]} == biases
    assert sum(len(g["params"]) for g in groups.values()) == len(list(module.parameters()))


def test_a_checkpoint_of_other_classes_is_refused_in_one_sentence(build: Build) -> None:
    module = build(SegmentationModule)
    state = module.state_dict()
    module.on_load_checkpoint({"state_dict": state})
    other = {**state, "network.head.classifier.1.weight": torch.zeros(7, 8, 3, 3)}
    with pytest.raises(InputError, match=r"1.weight should be \(4, 8, 3, 3\), found \(7, 8, 3, 3\); use the"):
        module.on_load_checkpoint({"state_dict": other})
    state.pop("network.head.classifier.1.weight")
    with pytest.raises(InputError, match="found missing"):
        module.on_load_checkpoint({"state_dict": state})
