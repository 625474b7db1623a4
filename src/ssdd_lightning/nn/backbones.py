"""Backbones: timm encoders or ResNet-38, which normalise their own input."""

import difflib
from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn.resnet38 import ResNet38

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TRIAL = 128, 160
"""Height and width of the image on which an encoder is tried, whole strides."""


class Backbone(nn.Module):
    """An encoder: image in, five feature maps of growing depth out.

    The image enters as uint8 RGB and is normalised here with the constants of the backbone's own configuration, so a
    wrong mean or standard deviation cannot happen.

    Args:
        name: "resnet38" (the paper's) or timm's name, for example `tf_efficientnet_lite0` or `resnet50`.
        output_stride: 8, 16 or 32; the last stages are dilated so that the deepest features have this stride.
            resnet38 has 8.
        freeze_norm: keep batch normalisation in eval mode with a frozen affine part, as the authors do; false is
            for an encoder that starts from nothing.
        frozen_layers: names of the encoder's layers that are not trained, batch normalisation included; the authors
            freeze `conv1a` of resnet38, PSA `conv1a`, `b2`, `b2_1` and `b2_2`.
        checkpointing: save memory in training by computing activations again in the backward pass. With a timm
            encoder, normalisation that is not frozen then counts every batch twice in its running averages.
        conv_head: pass the deepest features through the layers that stand before the pooling of timm's own classifier
            (`conv_head` and `bn2` of the EfficientNet family, MobileNetV2 included; other encoders have none). A linear
            classifier needs them: the last block of these networks ends without an activation.

    Raises:
        InputError: for a name that timm does not know, an encoder that does not yield these features of images of any
            size, another output stride, or a layer that does not exist.

    Attributes:
        channels: channels of each feature map, the shallowest (stride 2) first; 0 there if the encoder begins at
            stride 4, as ConvNeXt and PVT do.

    Examples:
        >>> backbone = Backbone("test_efficientnet").eval()  # timm's smallest encoder
        >>> features = backbone(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))
        >>> [tuple(level.shape[1:]) for level in features]
        [(16, 32, 48), (24, 16, 24), (32, 8, 12), (48, 4, 6), (64, 4, 6)]
    """

    encoder: Any  # ResNet38 or smp's encoder
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str = "resnet50",
        output_stride: int = 16,
        freeze_norm: bool = True,
        frozen_layers: Sequence[str] = (),
        checkpointing: bool = False,
        conv_head: bool = False,
    ) -> None:
        super().__init__()
        _check(name, output_stride)
        self.name = name
        self.output_stride = output_stride
        self.freeze_norm = freeze_norm
        self.encoder = ResNet38() if name == "resnet38" else _timm_encoder(name, output_stride)
        self.channels = list(self.encoder.channels if name == "resnet38" else self.encoder.out_channels[1:])
        self.conv_head = conv_head and self._add_conv_head()
        mean, std = _constants(name)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)
        self.frozen_layers = list(frozen_layers)
        for layer in self.frozen_layers:
            self._layer(layer).requires_grad_(False)
        if checkpointing:
            self._checkpoint()
        self.train()

    @property
    def model(self) -> Any:  # noqa: ANN401 - a module, with timm's method for checkpointing
        """The network whose names the weights carry: ResNet38 itself, or timm's inside smp's encoder."""
        return self.encoder if self.name == "resnet38" else self.encoder.model

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the features.

        Sides that are no multiple of the output stride are resized (bilinearly) up to the next one: decoders with
        skip connections need it, and everything made from the features is resized to the image or the masks anyway.

        Args:
            image: B x 3 x H x W uint8 RGB, or float of the same range (0 to 255).

        Returns:
            Five feature maps B x channels[i] x h x w, of stride 2, 4, ... up to the output stride. The first that has
            channels is e_l; the last three are what PSA calls conv4, conv5 and conv6 (for resnet38 exactly those).
        """
        normalized = (image.float() - self.mean) / self.std
        size = [-(-side // self.output_stride) * self.output_stride for side in image.shape[-2:]]
        if size != list(image.shape[-2:]):
            normalized = F.interpolate(normalized, size, mode="bilinear", align_corners=False)
        # smp's encoders return the image in front
        features = list(self.encoder(normalized.contiguous(memory_format=torch.channels_last))[-5:])
        if self.conv_head:
            features[-1] = self.model.bn2(self.model.conv_head(features[-1]))
        return features

    def train(self, mode: bool = True) -> "Backbone":
        """Switch the mode; frozen layers and frozen normalisation stay in eval mode."""
        super().train(mode)
        for layer in self.frozen_layers:
            self._layer(layer).eval()
        if self.freeze_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval().requires_grad_(False)
        return self

    def _add_conv_head(self) -> bool:
        """Give timm's feature extractor the layers it leaves out; false if there are none before the pooling."""
        classifier = None if self.name == "resnet38" else timm.create_model(self.name)
        if not isinstance(classifier, timm.models.EfficientNet):
            return False
        self.model.conv_head, self.model.bn2 = classifier.conv_head, classifier.bn2
        self.channels[-1] = classifier.num_features
        return True

    def _checkpoint(self) -> None:
        try:
            self.model.set_grad_checkpointing(True)
        except (AssertionError, AttributeError, NotImplementedError) as error:
            raise InputError(
                f"the backbone {self.name} cannot checkpoint activations; leave `checkpointing` out."
            ) from error

    def _layer(self, name: str) -> nn.Module:
        layers = dict(self.model.named_modules())
        if not name or name not in layers:
            raise InputError(
                f"the backbone {self.name} has no layer {name!r} to freeze; its layers are "
                f"{', '.join(k for k, _ in self.model.named_children())}."
            )
        return layers[name]


def _timm_encoder(name: str, output_stride: int) -> nn.Module:
    """Smp's wrapper of a timm model, tried on a small image: some fail to be built, others only when they run."""
    sizes = [tuple(side // min(2**level, output_stride) for side in _TRIAL) for level in range(1, 6)]
    try:
        encoder = smp.encoders.get_encoder(f"tu-{name}", depth=5, weights=None, output_stride=output_stride)
        with torch.no_grad():
            features = encoder.eval()(torch.zeros(1, 3, *_TRIAL))[1:]
        if [tuple(level.shape[2:]) for level in features] != sizes:
            raise ValueError("features of other sizes")
    except Exception as error:  # timm's models refuse what they cannot do in many ways
        reason = str(error).partition("\n")[0].rstrip(".") or "it fails without a word"
        raise InputError(
            f"the backbone {name} cannot be used with output stride {output_stride}: expected an encoder that yields "
            f"features of stride 2 (or 4) to {output_stride} of images of any size, found: {reason}; "
            f"{'try output_stride: 32, or ' if output_stride < 32 else ''}choose a convolutional one such as resnet50."
        ) from error
    return encoder


def _constants(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of RGB in 0..1, by which the backbone's images were normalised."""
    if name == "resnet38":
        return _IMAGENET
    config = timm.get_pretrained_cfg(name)
    return config.mean, config.std


def _check(name: str, output_stride: int) -> None:
    if name != "resnet38" and not timm.is_model(name):
        close = difflib.get_close_matches(name, ["resnet38", *timm.list_models()], n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists the names."
        raise InputError(f"unknown backbone {name!r}: expected resnet38 or a model name of timm; {hint}")
    if output_stride not in (8, 16, 32):
        raise InputError(f"a backbone's output stride must be 8, 16 or 32, found {output_stride}.")
    if name == "resnet38" and output_stride != 8:
        raise InputError(f"the backbone resnet38 has the output stride 8, found {output_stride}; set output_stride: 8.")
