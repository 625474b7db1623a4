"""The names of published weights, and the names of the same tensors in this package's stages.

| project | its names | a stage's |
| --- | --- | --- |
| PSA, and others on its ResNet-38 | `b4_3.conv_branch2a.weight`, `fc8.weight` | `network.backbone.encoder.b4_3...` |
| MXNet's ResNet-38 | `arg:res4b3_branch2a_weight`, `aux:bn4b3_branch2a_moving_mean` | the same |
| IRN | `resnet50.layer1.0.conv1.weight`, `classifier.weight` | `network.backbone.encoder.model.layer1...` |
| SSDD | `module.encoder.b4_3...`, `module.seg_main.seg1...`, `module.dd0...` | + `network.head`, `ssdd.ddnet` |
"""

import re
from collections import Counter

from torch import Tensor

from ssdd_lightning.errors import InputError
from ssdd_lightning.weights.reference import reference_heads

BACKBONE = "network.backbone.encoder."
CLASSIFIER = "network.classifier."
AFFINITY = tuple(f"network.{layer}." for layer in ("f8_3", "f8_4", "f8_5", "f9"))
_RESNET38 = r"(?:conv1a|bn7|b[2-7](?:_[1-5])?)\."
_MXNET = r"(?:arg:|aux:)?(?P<kind>res|bn)(?P<stage>[2-7])(?:a|b(?P<block>\d))_(?P<branch>branch\w+?)_(?P<last>\w+)"
_MXNET_ENDS = r"(?:arg:|aux:)?(?P<layer>conv1a|bn7)_(?P<last>\w+)"
_MXNET_LAST = {
    **{"weight": "weight", "gamma": "weight", "beta": "bias"},
    **{"moving_mean": "running_mean", "moving_var": "running_var"},
}


def stage_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename published tensors as a stage of this package calls them.

    The heads of SSDD's authors are recomputed for our layers besides (see `reference_heads`).

    Args:
        weights: tensors by any project's names.

    Returns:
        Tensors by a stage's names; those of no known project keep theirs.

    Raises:
        InputError: if two tensors would get the same name, such as MXNet's `arg:x` and `aux:x`.
    """
    plain = {name.removeprefix("module."): tensor for name, tensor in weights.items()}  # torch.nn.DataParallel's
    names = {name: _stage_name(name, plain) for name in plain}
    if len(set(names.values())) < len(weights):
        twice, _ = Counter(names[name.removeprefix("module.")] for name in weights).most_common(1)[0]
        raise InputError(
            f"several of the file's tensors are what a stage calls {twice}; expected one of each, so the file joins "
            "two networks or is damaged."
        )
    return reference_heads({names[name]: tensor for name, tensor in plain.items()})


def published_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a ResNet-38's tensors as PSA does, for other projects; all other names stay."""
    if not any(name.startswith(f"{BACKBONE}conv1a.") for name in weights):
        return weights
    return {_published_name(name): tensor for name, tensor in weights.items()}


def _published_name(name: str) -> str:
    if name.startswith(AFFINITY):
        return name.removeprefix("network.")
    return name.removeprefix(BACKBONE).replace(CLASSIFIER, "fc8.")


def _stage_name(name: str, weights: dict[str, Tensor]) -> str:
    if found := re.fullmatch(_MXNET, name) or re.fullmatch(_MXNET_ENDS, name):
        name = _psa_name(found)
    if found := re.fullmatch(rf"(?:encoder\.)?({_RESNET38}.+)", name):
        return BACKBONE + found[1]
    if name.startswith("fc8."):
        return CLASSIFIER + name.removeprefix("fc8.")
    if f"network.{name}".startswith(AFFINITY):
        return f"network.{name}"
    if "resnet50.conv1.weight" in weights and name.startswith("resnet50."):
        return f"{BACKBONE}model.{name.removeprefix('resnet50.')}"
    if "resnet50.conv1.weight" in weights and name.startswith("classifier."):
        return f"network.{name}"
    return name


def _psa_name(found: re.Match[str]) -> str:
    """Name a tensor of MXNet's ResNet-38 as PSA does; one with an unknown last part keeps its name."""
    parts = found.groupdict()
    last = _MXNET_LAST.get(parts["last"])
    if last is None:
        return found[0]
    if "layer" in parts:
        return f"{parts['layer']}.{last}"
    block = f"_{parts['block']}" if parts["block"] else ""
    kind = "conv" if parts["kind"] == "res" else "bn"
    return f"b{parts['stage']}{block}.{kind}_{parts['branch']}.{last}"
