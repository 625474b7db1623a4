from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from ssdd_lightning import ClassificationModule, SegmentationModule
from ssdd_lightning.errors import InputError
from ssdd_lightning.nn import ClassificationNetwork, SegmentationNetwork
from ssdd_lightning.stages.groups import parameter_groups
from ssdd_lightning.stages.values import Optimization


def groups_of(module: Any, **options: Any) -> dict[str, dict[str, Any]]:
    groups = parameter_groups(module, module.network.backbone, Optimization(0.1, 1.0, **options))
    together = [id(p) for group in groups for p in group["params"]]
    assert sorted(together) == sorted(id(p) for p in module.parameters() if p.requires_grad), "each once"
    return {group["name"]: group for group in groups}


@pytest.fixture
def classifier() -> Callable[[str], ClassificationModule]:
    return lambda name: ClassificationModule(3, partial(ClassificationNetwork, backbone=name), backbone_weights=None)


def test_each_layer_learns_at_a_share_of_the_next_ones_rate(
    classifier: Callable[[str], ClassificationModule],
) -> None:
    module = classifier("test_vit")  # six blocks
    groups = groups_of(module, layer_decay=0.5)
    assert {name: group["lr"] for name, group in groups.items()} == {
        **{f"backbone_layer{n}": pytest.approx(0.1 * 0.5 ** (6 - n)) for n in range(7)},
        "new": 1.0,
    }
    model: Any = module.network.backbone.model
    assert {id(p) for p in groups["backbone_layer3"]["params"]} == {id(p) for p in model.blocks[2].parameters()}
    first = [model.cls_token, model.pos_embed, *model.patch_embed.parameters()]
    assert {id(p) for p in groups["backbone_layer0"]["params"]} == {id(p) for p in first}
    assert {id(p) for p in model.norm.parameters()} <= {id(p) for p in groups["backbone_layer6"]["params"]}


def test_a_decay_of_one_leaves_two_groups(classifier: Callable[[str], ClassificationModule]) -> None:
    assert {name: group["lr"] for name, group in groups_of(classifier("test_vit")).items()} == {
        "backbone": 0.1,
        "new": 1.0,
    }


def test_the_pyramid_is_new() -> None:
    network = partial(SegmentationNetwork, backbone="test_vit", head="fpn", output_stride=32)
    module = SegmentationModule(3, network, backbone_weights=None)
    new = {id(p) for p in groups_of(module)["new"]["params"]}
    assert {id(p) for p in module.network.backbone.pyramid.parameters()} <= new
    assert not {id(p) for p in module.network.backbone.model.parameters()} & new


def test_norms_biases_and_positions_can_learn_without_weight_decay(
    classifier: Callable[[str], ClassificationModule],
) -> None:
    module = classifier("test_vit")
    groups = groups_of(module, weight_decay_exclude_1d=True, optimizer=partial(torch.optim.AdamW, weight_decay=0.05))
    assert set(groups) == {"backbone", "backbone_no_decay", "new"}
    names = {id(p): name for name, p in module.network.backbone.model.named_parameters()}
    exempt = {names[id(p)] for p in groups["backbone_no_decay"]["params"]}
    assert exempt == {n for n in names.values() if n.endswith("bias") or "norm" in n} | {"pos_embed", "cls_token"}
    optimizer = Optimization(optimizer=partial(torch.optim.AdamW, weight_decay=0.05)).optimizer_of(
        list(groups.values())
    )
    assert {g["name"]: g["weight_decay"] for g in optimizer.param_groups} == {
        "backbone": 0.05,
        "backbone_no_decay": 0.0,
        "new": 0.05,
    }


def test_both_go_together(classifier: Callable[[str], ClassificationModule]) -> None:
    groups = groups_of(classifier("resnet18"), layer_decay=0.9, weight_decay_exclude_1d=True)
    norms_are_frozen = {f"backbone_layer{n}" for n in range(5)}
    assert set(groups) == {*norms_are_frozen, "new"}


def test_layers_of_a_foreign_backbone_are_not_known(classifier: Callable[[str], ClassificationModule]) -> None:
    module = classifier("resnet18")
    module.network.backbone = torch.nn.Linear(2, 2)  # type: ignore[misc]
    assert set(groups_of(module)) == {"backbone", "new"}
    assert set(groups_of(module, weight_decay_exclude_1d=True)) == {"backbone", "backbone_no_decay", "new"}
    with pytest.raises(InputError, match=r"layer_decay: the layers of a Linear are not known.*layer_decay: 1\.0"):
        groups_of(module, layer_decay=0.9)


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.1])
def test_another_share_is_refused(decay: float) -> None:
    with pytest.raises(InputError, match=f"layer_decay: expected a share above 0, up to 1, found {decay}"):
        Optimization(layer_decay=decay)
