"""Segmentation networks: a backbone, a head, and the three things SSDD needs from them: e_l, e_h and logits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin
from safetensors.torch import save_file
from segmentation_models_pytorch.decoders.fpn.decoder import MergeBlock
from torch import Tensor, nn

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn.backbones import Backbone
from ssdd_lightning.nn.cpu import fast_convolutions
from ssdd_lightning.nn.layers import ConvNormAct, GroupNorm, ReflectionPad, Sum
from ssdd_lightning.nn.protocols import SegmentationOutput

# not smp's pspnet, pan and dpt, which want other features than five strides or have another last layer
_DECODERS = ("deeplabv3", "deeplabv3plus", "fpn", "linknet", "manet", "segformer", "unet", "unetplusplus", "upernet")


CARD = """---
{{ card_data }}
---
# {{ title }}

A segmentation network of `ssdd_lightning`, trained with image-level labels by self-supervised difference detection
([paper]({{ paper_url }})).

```python
from ssdd_lightning import SegmentationNetwork

network = SegmentationNetwork.from_pretrained("FOLDER OR NAME").eval()
low, high, logits = network(image)  # image: B x 3 x H x W uint8 RGB; logits: B x C x h x w
```

{{ record or "How it was trained is not recorded." }}
"""
"""Template of the model card; `record` says how the network was trained."""


class SegmentationNetwork(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="ssdd_lightning",
    pipeline_tag="image-segmentation",
    paper_url="https://arxiv.org/abs/1911.01370",
    model_card_template=CARD,
):
    """A backbone with a segmentation head.

    `save_pretrained(folder)`, `push_to_hub(name)` and `from_pretrained(folder or name)` are huggingface_hub's.

    Args:
        num_classes: C, background included.
        backbone: "resnet38" (the paper's) or timm's name of the encoder.
        head: "largefov" (the paper's two dilated convolutions, on the features that a classifier sees) or a decoder of
            segmentation-models-pytorch: "fpn", "unet", "deeplabv3plus", ...
        output_stride: 8, 16 or 32, stride of the backbone's deepest features.
        head_channels: channels of e_h for "largefov" (512 in the paper); the decoders have their own.
        dilation: dilation of "largefov" (12 in the paper, at output stride 8).
        decoder_options: further arguments of smp's model for a decoder head, such as {decoder_pyramid_channels: 64}
            for "fpn".
        freeze_norm: keep the backbone's batch normalisation in eval mode with a frozen affine part, as the authors
            do; false is for a backbone that starts from nothing.
        frozen_layers: names of the backbone's layers that are not trained (the authors': conv1a).
        checkpointing: save memory in training by computing the backbone's activations again.

    Examples:
        >>> import torch
        >>> network = SegmentationNetwork(num_classes=21, backbone="test_efficientnet", head_channels=8).eval()
        >>> low, high, logits = network(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))
        >>> low.shape, high.shape, logits.shape
        (torch.Size([1, 16, 32, 48]), torch.Size([1, 8, 4, 6]), torch.Size([1, 21, 4, 6]))
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        head: str = "largefov",
        output_stride: int = 16,
        head_channels: int = 512,
        dilation: int = 12,
        decoder_options: dict[str, Any] | None = None,
        freeze_norm: bool = True,
        frozen_layers: Sequence[str] = (),
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        conv_head = head == "largefov"  # smp's decoders want the encoder's own features
        pyramid = head not in ("largefov", "deeplabv3")  # which read the deepest features alone
        self.backbone = Backbone(backbone, output_stride, freeze_norm, frozen_layers, checkpointing, conv_head, pyramid)
        self._head_options = (head, head_channels, dilation, decoder_options or {})
        self.head = self.new_head()

    @property
    def low_channels(self) -> int:
        """Channels of e_l."""
        return next(filter(None, self.backbone.channels))

    @property
    def high_channels(self) -> int:
        """Channels of e_h."""
        return self.head.high_channels

    def low(self, features: Sequence[Tensor]) -> Tensor:
        """Choose e_l among the backbone's features: the shallowest that has channels."""
        return next(level for level in features if level.shape[1])

    def new_head(self) -> "LargeFOVHead | DecoderHead":
        """Build another, freshly initialised head of the same design (the sub branch of the dynamic stage)."""
        head, channels, dilation, options = self._head_options
        if head == "largefov":
            return LargeFOVHead(self.backbone.channels, self.num_classes, channels, dilation)
        if self.backbone.name == "resnet38":
            raise InputError(f"the backbone resnet38 has the head 'largefov' only, found {head!r}.")
        return DecoderHead(self.backbone.channels, self.num_classes, head, self.backbone.output_stride, options)

    def generate_model_card(self, license: str = "unknown", **values: Any) -> ModelCard:  # noqa: ANN401
        """Write the model card; `model_card_kwargs` of `save_pretrained` and `push_to_hub` are its arguments.

        Args:
            license: the weights' licence as the hub calls it, such as "apache-2.0" or "cc-by-nc-4.0".
            **values: `record`, text on how the network was trained; `ssdd_lightning.folders.card.run_record` writes one
                from a checkpoint.
        """
        info = self._hub_mixin_info
        data = ModelCardData(**{**vars(info.model_card_data), "license": license})
        values = {"title": f"{self.backbone.name}, {self.num_classes} classes", "record": "", **values}
        return ModelCard.from_template(data, template_str=CARD, paper_url=info.paper_url, **values)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the weights; a file of safetensors holds contiguous tensors only, and ours are channels-last."""
        weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(weights, save_directory / "model.safetensors", metadata={"format": "pt"})

    def forward(self, image: Tensor) -> SegmentationOutput:
        """Segment.

        Args:
            image: B x 3 x H x W uint8 RGB, or float of the same range.

        Returns:
            Features and logits at their own strides.
        """
        features = self.backbone(image)
        high, logits = self.head(features)
        return SegmentationOutput(self.low(features), high, logits)


class LargeFOVHead(nn.Module):
    """The paper's head (5.1): two 3x3 convolutions with a large dilation on the deepest features.

    Args:
        channels: channels of the backbone's features, the deepest last.
        num_classes: C, background included.
        high_channels: channels of e_h.
        dilation: dilation of both convolutions.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, high_channels: int = 512, dilation: int = 12) -> None:
        super().__init__()
        self.high_channels = high_channels
        self.features = ConvNormAct(channels[-1], high_channels, kernel_size=3, dilation=dilation)
        last = nn.Conv2d(high_channels, num_classes, 3, dilation=dilation)
        nn.init.normal_(last.weight, std=0.01)
        self.classifier = nn.Sequential(ReflectionPad(dilation), last)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Turn the backbone's features into (e_h, logits)."""
        high = self.features(features[-1])
        return high, self.classifier(high)


class DecoderHead(nn.Module):
    """A decoder of segmentation-models-pytorch; its output is e_h.

    Args:
        channels: channels of the backbone's five features, the deepest last.
        num_classes: C, background included.
        architecture: smp's name, for example "fpn", "unet" or "deeplabv3plus".
        output_stride: stride of the backbone's deepest features.
        options: further arguments of smp's model.
    """

    def __init__(
        self, channels: Sequence[int], num_classes: int, architecture: str, output_stride: int, options: dict[str, Any]
    ) -> None:
        super().__init__()
        if architecture not in _DECODERS:
            raise InputError(
                f"unknown segmentation head {architecture!r}: expected 'largefov' or one of the decoders "
                f"{', '.join(_DECODERS)}."
            )
        strided = {"encoder_output_stride": output_stride} if architecture.startswith("deeplab") else {}
        if (output_stride == 32) == bool(strided):
            needed = "8 or 16" if strided else "32"
            raise InputError(f"the decoder {architecture!r} needs output_stride {needed}, found {output_stride}.")
        try:
            model = smp.create_model(
                architecture, _encoder_of(channels), encoder_weights=None, classes=num_classes, **strided, **options
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"smp's {architecture!r} does not take decoder_options {options}: {error}.") from error
        self.decoder = model.decoder
        _speed_up(self.decoder)
        self.classifier = model.segmentation_head[0]
        self.high_channels: int = self.classifier.in_channels

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Turn the backbone's features into (e_h, logits)."""
        batch, _, height, width = features[0].shape
        # smp's decoders want the image first; none reads its values, U-Net and SegFormer its size
        image = features[0].new_empty(batch, 0, 2 * height, 2 * width)
        with fast_convolutions(image):
            high = self.decoder([image, *features])
            return high, self.classifier(high)


class _Channels(nn.Module):
    """What smp's models ask their encoder for, and no more: the decoder is built for its channels."""

    def __init__(self, channels: Sequence[int], depth: int, output_stride: int) -> None:
        super().__init__()
        self.out_channels = [3, *channels][: depth + 1]
        self.output_stride = output_stride

    def set_in_channels(self, in_channels: int, pretrained: bool) -> None: ...

    def make_dilated(self, output_stride: int) -> None: ...


def _speed_up(decoder: nn.Module) -> None:
    """Put layers that compute the same but for rounding, in less time, in the place of smp's."""
    for module in list(decoder.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, MergeBlock) and layer.policy == "add":
                setattr(module, name, Sum())
            elif type(layer) is nn.GroupNorm:
                setattr(module, name, GroupNorm(layer.num_groups, layer.num_channels, layer.eps, layer.affine))


def _encoder_of(channels: Sequence[int]) -> str:
    """Enter an encoder of these channels into smp's list, as it asks of new ones, and return its name."""
    name = f"channels {'-'.join(map(str, channels))}"
    smp.encoders.encoders[name] = {"encoder": _Channels, "params": {"channels": channels}, "pretrained_settings": {}}
    return name
