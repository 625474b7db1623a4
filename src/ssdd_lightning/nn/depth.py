"""How deep each pretrained parameter lies in its backbone, for learning rates that grow with the depth."""

from collections import defaultdict
from typing import Any

import timm
import torch
from timm.models import group_parameters

from ssdd_lightning.nn.backbones import Backbone


def layer_depths(backbone: Backbone) -> dict[str, int]:
    """Number the layers of a backbone as timm groups them: blocks of a plain transformer or Hiera, stages of others.

    Args:
        backbone: any backbone.

    Returns:
        For each name of `backbone.model.named_parameters()` the number of its layer; 0 is the shallowest (patches,
        positions, stem).

    Examples:
        >>> depths = layer_depths(Backbone("test_vit"))  # six blocks
        >>> depths["pos_embed"], depths["blocks.0.attn.qkv.weight"], depths["norm.weight"]
        (0, 1, 6)
    """
    grouped = _grouped(backbone)
    numbers = group_parameters(grouped, grouped.group_matcher(coarse=True), reverse=True)
    # feature extractors write `stages.0` as `stages_0`; what the grouped model lacks is as deep as can be
    by_plain_name = defaultdict(lambda: max(numbers.values()), {_plain(name): n for name, n in numbers.items()})
    own = dict(backbone.model.named_parameters())
    # the last normalisation belongs to the layer before it
    deepest = max(by_plain_name[_plain(name)] for name, parameter in own.items() if parameter.ndim > 1)
    return {name: min(deepest, by_plain_name[_plain(name)]) for name in own}


def decay_exceptions(backbone: Backbone) -> set[str]:
    """Names of a backbone's position embeddings and tokens, which timm's training leaves without weight decay."""
    return set(getattr(backbone.model, "no_weight_decay", set)())


def _grouped(backbone: Backbone) -> Any:  # noqa: ANN401 - a module with timm's method for grouping
    if hasattr(backbone.model, "group_matcher"):
        return backbone.model
    with torch.device("meta"):
        return timm.create_model(backbone.name)  # a feature extractor does not say how the model it is made of groups


def _plain(name: str) -> str:
    return name.replace(".", "_")
