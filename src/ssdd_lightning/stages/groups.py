"""Parameters in groups: pretrained and new ones with rates of their own, and those without weight decay."""

from typing import Any

from torch import nn

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn.backbones import Backbone
from ssdd_lightning.nn.depth import decay_exceptions, layer_depths
from ssdd_lightning.stages.values import Optimization


def parameter_groups(module: nn.Module, backbone: nn.Module, rates: Optimization) -> list[dict[str, Any]]:
    """Group what is trained.

    Args:
        module: A stage, or another module that holds the backbone.
        backbone: Whose encoder is pretrained; what else it holds is new.
        rates: Learning rates, and which parameters have their own.

    Returns:
        Groups as torch's optimizers take them, named: "backbone" and "new"; with `double_bias_rate` also
        "backbone_bias" and "new_bias"; with `layer_decay` "backbone_layer0" and so on instead of "backbone"; with
        `weight_decay_exclude_1d` each also with "_no_decay".

    Raises:
        InputError: `layer_decay` with a backbone whose layers are not known.
    """
    pretrained = {id(parameter) for parameter in getattr(backbone, "encoder", backbone).parameters()}
    scales = _layer_scales(backbone, rates.layer_decay) if rates.layer_decay != 1 else {}
    exempt = _without_decay(module, backbone) if rates.weight_decay_exclude_1d else set()
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        old, double = id(parameter) in pretrained, rates.double_bias_rate and name.endswith("bias")
        layer, scale = scales.get(id(parameter), ("", 1.0))
        no_decay = double or id(parameter) in exempt
        group = f"{'backbone' if old else 'new'}{layer}{'_bias' if double else '_no_decay' if no_decay else ''}"
        options = {
            "name": group,
            "lr": (rates.learning_rate if old else rates.new_learning_rate) * scale * (2 if double else 1),
            **({"weight_decay": 0.0} if no_decay else {}),
        }
        groups.setdefault(group, {"params": [], **options})["params"].append(parameter)
    return list(groups.values())


def _layer_scales(backbone: nn.Module, decay: float) -> dict[int, tuple[str, float]]:
    """For each pretrained parameter the suffix of its group's name and the share of the backbone's rate."""
    if not isinstance(backbone, Backbone):
        raise InputError(
            f"optimization.layer_decay: the layers of a {type(backbone).__name__} are not known; expected a backbone "
            "of this package (ssdd_lightning.nn.Backbone), or layer_decay: 1.0."
        )
    depths, parameters = layer_depths(backbone), dict(backbone.model.named_parameters())
    deepest = max(depths.values())
    return {id(parameters[name]): (f"_layer{n}", decay ** (deepest - n)) for name, n in depths.items()}


def _without_decay(module: nn.Module, backbone: nn.Module) -> set[int]:
    vectors = {id(parameter) for parameter in module.parameters() if parameter.ndim <= 1}
    if not isinstance(backbone, Backbone):
        return vectors
    names = decay_exceptions(backbone)
    return vectors | {id(parameter) for name, parameter in backbone.model.named_parameters() if name in names}
