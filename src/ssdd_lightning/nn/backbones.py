"""Backbones: timm encoders or ResNet-38, which normalise their own input."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn.cpu import FastConvolutions, Pair, can_be_faster, find_pairs
from ssdd_lightning.nn.layers import next_multiple, resize_up
from ssdd_lightning.nn.resnet38 import ResNet38
from ssdd_lightning.nn.transformers import TRANSFORMERS, PlainTransformer, SimplePyramid, transformer

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TRIAL = 128, 160
"""Height and width of the image on which an encoder is tried, whole strides."""


class Backbone(nn.Module):
    """An encoder: image in, five feature maps of growing depth out.

    The image enters as uint8 RGB and is normalised here with the constants of the backbone's own configuration, so a
    wrong mean or standard deviation cannot happen.

    Args:
        name: "resnet38" (the paper's) or timm's name, for example `tf_efficientnet_lite0`, `resnet50`,
            `vit_base_patch14_dinov2.lvd142m` or `swin_tiny_patch4_window7_224`.
        output_stride: 8, 16 or 32; the last stages are dilated so that the deepest features have this stride.
            resnet38 has 8. Swin and Hiera have 32, and their deeper features are resized.
        freeze_norm: keep batch normalisation in eval mode with a frozen affine part, as the authors do; false is
            for an encoder that starts from nothing.
        frozen_layers: names of the encoder's layers that are not trained, batch normalisation included; the authors
            freeze `conv1a` of resnet38, PSA `conv1a`, `b2`, `b2_1` and `b2_2`.
        checkpointing: save memory in training by computing activations again in the backward pass. With a timm
            encoder, normalisation that is not frozen then counts every batch twice in its running averages.
        conv_head: pass the deepest features through the layers that stand before the pooling of timm's own classifier
            (`conv_head` and `bn2` of the EfficientNet family, MobileNetV2 included; other encoders have none). A linear
            classifier needs them: the last block of these networks ends without an activation.
        pyramid: give the features of a plain vision transformer the promised strides by a learnt pyramid, as decoders
            need it (`ssdd_lightning.nn.transformers.SimplePyramid`). Without it they are tokens of four depths on the
            grid of the patches, e_l alone resized to stride 4. Other encoders have their own strides.

    Raises:
        InputError: for a name that timm does not know, an encoder that does not yield these features of images of any
            size, another output stride, or a layer that does not exist.

    Attributes:
        channels: channels of each feature map, the shallowest (stride 2) first; 0 there if the encoder begins at
            stride 4, as ConvNeXt, PVT and transformers do.

    Examples:
        >>> backbone = Backbone("test_efficientnet").eval()  # timm's smallest encoder
        >>> features = backbone(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))
        >>> [tuple(level.shape[1:]) for level in features]
        [(16, 32, 48), (24, 16, 24), (32, 8, 12), (48, 4, 6), (64, 4, 6)]
    """

    encoder: Any  # ResNet38, a transformer or smp's encoder
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
        pyramid: bool = False,
    ) -> None:
        super().__init__()
        _check(name, output_stride)
        self.name = name
        self.output_stride = output_stride
        self.freeze_norm = freeze_norm
        self.encoder = ResNet38() if name == "resnet38" else _timm_encoder(name, output_stride)
        plain = isinstance(self.encoder, PlainTransformer)
        self.pyramid = SimplePyramid(self.encoder.channels[-1], output_stride) if pyramid and plain else None
        source: Any = self.pyramid or self.encoder
        self.channels = list(source.channels if hasattr(source, "channels") else source.out_channels[1:])
        self.conv_head = conv_head and self._add_conv_head()
        mean, std = _constants(name)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)
        self.frozen_layers = list(frozen_layers)
        for layer in self.frozen_layers:
            self._layer(layer).requires_grad_(False)
        self._checkpoints = checkpointing
        if checkpointing:
            self._checkpoint()
        self._pairs: list[Pair] | None = None
        self.train()

    @property
    def model(self) -> Any:  # noqa: ANN401 - a module, with timm's method for checkpointing
        """The network whose names the weights carry: ResNet38 itself, or timm's inside its encoder."""
        return self.encoder if self.name == "resnet38" else self.encoder.model

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the features.

        Sides that are no multiple of the output stride (or of whole patches, or of 32 in Swin and Hiera) are resized,
        bilinearly, up to the next one: decoders with skip connections need it, and everything made from the features
        is resized to the image or the masks anyway.

        Args:
            image: B x 3 x H x W uint8 RGB, or float of the same range (0 to 255).

        Returns:
            Five feature maps B x channels[i] x h x w, of stride 2, 4, ... up to the output stride. The first that has
            channels is e_l; the last three are what PSA calls conv4, conv5 and conv6 (for resnet38 exactly those).
        """
        normalized = self._normalized(image)
        if self.pyramid is not None:
            size = [next_multiple(side, self.output_stride) for side in image.shape[-2:]]
            maps: list[Tensor] = self.pyramid(self.encoder.tokens(normalized), size)
            return maps
        if isinstance(self.encoder, TRANSFORMERS):
            return self.encoder(normalized)
        resized = resize_up(normalized, self.output_stride)
        # computing activations again happens outside of this function, and would be another computation there
        if self._checkpoints or not can_be_faster(image):
            return self._convolve(resized)
        if self._pairs is None:
            self._pairs = self._find_pairs(resized[:1, :, : _TRIAL[0], : _TRIAL[1]])
        with FastConvolutions(self._pairs):
            return self._convolve(resized)

    @torch.no_grad()
    def _find_pairs(self, normalized: Tensor) -> list[Pair]:
        mode = self.training
        self.eval()  # nothing is counted
        pairs = find_pairs(self, lambda: self._convolve(normalized))
        self.train(mode)
        return pairs

    def _convolve(self, normalized: Tensor) -> list[Tensor]:
        # smp's encoders return the image in front
        features = list(self.encoder(normalized)[-5:])
        if self.conv_head:
            features[-1] = self.model.bn2(self.model.conv_head(features[-1]))
        return features

    def attend(self, image: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
        """Compute the deepest features and the attention between their positions, of plain vision transformers.

        Args:
            image: B x 3 x H x W uint8 RGB, or float of the same range.
            blocks: how many of the last blocks are averaged.

        Returns:
            Features B x D x h x w float on the grid of the patches, and attention B x hw x hw float whose rows sum to
            one.
        """
        result: tuple[Tensor, Tensor] = self.encoder.attend(self._normalized(image), blocks)
        return result

    def check_attention(self, blocks: int) -> None:
        """Complain now if `attend` could not average so many blocks.

        Raises:
            InputError: the backbone is no plain vision transformer, or has fewer blocks.
        """
        if not isinstance(self.encoder, PlainTransformer):
            raise InputError(
                f"attention_blocks: the backbone {self.name} has no attention between all positions; expected a plain "
                "vision transformer such as vit_base_patch14_dinov2.lvd142m, or attention_blocks: 0."
            )
        self.encoder.attention_layers(blocks)

    def _normalized(self, image: Tensor) -> Tensor:
        normalized = (image.float() - self.mean) / self.std
        return normalized.contiguous(memory_format=torch.channels_last)

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
        if isinstance(self.encoder, (ResNet38, *TRANSFORMERS)):
            return False
        classifier = timm.create_model(self.name)
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
    """A transformer, or smp's wrapper of another timm model, tried: some fail to be built, others when they run."""
    try:
        return transformer(name, output_stride) or _smp_encoder(name, output_stride)
    except Exception as error:  # timm's models refuse what they cannot do in many ways
        reason = str(error).partition("\n")[0].rstrip(".") or "it fails without a word"
        raise InputError(
            f"the backbone {name} cannot be used with output stride {output_stride}: expected an encoder that yields "
            f"features of stride 2 (or 4) to {output_stride} of images of any size, found: {reason}; "
            f"{'try output_stride: 32, or ' if output_stride < 32 else ''}choose another one such as resnet50 or "
            "vit_base_patch14_dinov2."
        ) from error


def _smp_encoder(name: str, output_stride: int) -> nn.Module:
    sizes = [tuple(side // min(2**level, output_stride) for side in _TRIAL) for level in range(1, 6)]
    encoder = smp.encoders.get_encoder(f"tu-{name}", depth=5, weights=None, output_stride=output_stride)
    with torch.no_grad():
        features = encoder.eval()(torch.zeros(1, 3, *_TRIAL))[1:]
    if [tuple(level.shape[2:]) for level in features] != sizes:
        raise ValueError("features of other sizes")
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


@contextmanager
def constant_padding() -> Iterator[None]:
    """Let timm's "same" padding (tf_* models) take sides for multiples of the stride, as those in a `Backbone` are.

    It is the same padding then. Otherwise a program for images of any size computes the padding of each layer from the
    size of the image, in a formula that doubles with every layer: it took minutes to make one.
    """

    def padding(size: int, kernel: int, stride: int, dilation: int) -> int:
        """Padding of a side, before and after it together."""
        return max((kernel - 1) * dilation + 1 - stride, 0)

    with patch.object(timm.layers.padding, "get_same_padding", padding):
        yield
