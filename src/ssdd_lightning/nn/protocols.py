"""What the stages need of a network: any `nn.Module` with these members will do; there is no base class."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from typing_extensions import get_protocol_members

from ssdd_lightning.errors import InputError

_TRIAL = 64, 96
"""Height and width of the image on which a network is tried."""


class SegmentationOutput(NamedTuple):
    """What a segmentation network yields.

    Attributes:
        low: e_l, B x C_l x H/2 x W/2 float, features before the second pooling; of stride 4 with a backbone that
            begins there.
        high: e_h, B x C_h x h x w float, features before the last layer of the head.
        logits: B x C x h x w float.

    Examples:
        >>> logits = torch.tensor([[[[2.0, 0.0]], [[1.0, 3.0]]]])
        >>> output = SegmentationOutput(low=torch.zeros(1, 4, 4, 8), high=torch.zeros(1, 8, 1, 2), logits=logits)
        >>> output.logits.argmax(1)
        tensor([[[0, 1]]])
    """

    low: Tensor
    high: Tensor
    logits: Tensor


class SegmentationLike(Protocol):
    """A segmentation network. Images come as B x 3 x H x W uint8 RGB, or float of the same range (0 to 255).

    Examples:
        >>> class Small(nn.Module):
        ...     low_channels, high_channels = 8, 16
        ...     def __init__(self, num_classes: int) -> None:
        ...         super().__init__()
        ...         self.num_classes = num_classes
        ...         self.backbone = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, stride=2, padding=1))
        ...         self.head = self.new_head()
        ...     def new_head(self) -> nn.Module:
        ...         return SmallHead(self.num_classes)
        ...     def low(self, features: Tensor) -> Tensor:
        ...         return features
        ...     def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ...         features = self.backbone(image.float())
        ...         return self.low(features), *self.head(features)
        >>> class SmallHead(nn.Module):
        ...     def __init__(self, num_classes: int) -> None:
        ...         super().__init__()
        ...         self.features = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU())
        ...         self.classifier = nn.Conv2d(16, num_classes, 1)
        ...     def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        ...         high = self.features(features)
        ...         return high, self.classifier(high)
        >>> network: SegmentationLike = Small(num_classes=3)
        >>> low, high, logits = network(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))
        >>> low.shape, high.shape, logits.shape
        (torch.Size([1, 8, 32, 48]), torch.Size([1, 16, 16, 24]), torch.Size([1, 3, 16, 24]))
    """

    @property
    def low_channels(self) -> int:
        """Channels of e_l."""

    @property
    def high_channels(self) -> int:
        """Channels of e_h."""

    @property
    def backbone(self) -> nn.Module:
        """Image in, features out, of whatever type `low` and `head` take; learns at the lower rate."""

    @property
    def head(self) -> nn.Module:
        """Features in, (e_h, logits) out: B x high_channels x h x w and B x C x h x w float."""

    def new_head(self) -> nn.Module:
        """Build another head of the same design with fresh weights: the sub branch of the dynamic stage."""

    def low(self, features: Any) -> Tensor:  # noqa: ANN401
        """Choose e_l among the features: B x low_channels x h' x w' float, of stride 2 or 4."""

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Segment: e_l, e_h and logits, each at its own stride."""


class ClassificationLike(Protocol):
    """A classifier that yields class activation maps. Images come as B x 3 x H x W uint8 RGB, or float (0 to 255).

    Examples:
        >>> from ssdd_lightning.nn import ClassificationNetwork
        >>> network: ClassificationLike = ClassificationNetwork(num_classes=3, backbone="test_efficientnet")
        >>> network(torch.zeros(1, 3, 64, 96, dtype=torch.uint8)).shape
        torch.Size([1, 2])
    """

    @property
    def backbone(self) -> nn.Module:
        """The part that learns at the lower rate."""

    def activation_maps(self, image: Tensor) -> Tensor:
        """B x (C-1) x h x w float >= 0, one map per foreground class."""

    def __call__(self, image: Tensor) -> Tensor:
        """Logits B x (C-1) of the foreground classes."""


class AffinityLike(Protocol):
    """A network of pixel affinities. Images come as B x 3 x H x W uint8 RGB, or float (0 to 255).

    Examples:
        >>> from ssdd_lightning.nn import AffinityNet
        >>> network: AffinityLike = AffinityNet("test_efficientnet").eval()
        >>> image = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
        >>> network(image).shape, network.size(image)
        (torch.Size([1, 34, 8, 12]), (8, 12))
    """

    @property
    def backbone(self) -> nn.Module:
        """The part that learns at the lower rate."""

    @property
    def radius(self) -> int:
        """Pairs are less than this many positions apart."""

    def size(self, image: Tensor) -> tuple[int, int]:
        """Size (h, w) of the affinities of an image."""

    def __call__(self, image: Tensor) -> Tensor:
        """B x P x h x w float in [0, 1], one for each of `ssdd_lightning.functional.half_plane_offsets(radius)`."""


def built(network: Callable[..., nn.Module], kind: type, *arguments: object) -> nn.Module:
    """Build a network for a stage, or take one that is built.

    Args:
        network: what builds it, or itself.
        kind: the protocol that it must follow.
        *arguments: what its builder is called with.

    Raises:
        InputError: it lacks members of the protocol; the message names them.
    """
    network = network if isinstance(network, nn.Module) else network(*arguments)
    missing = sorted(name for name in get_protocol_members(kind) if not hasattr(network, name))
    if missing:
        raise InputError(
            f"{type(network).__name__} cannot be the network of this stage: expected what "
            f"ssdd_lightning.nn.{kind.__name__} lists, found no {', '.join(missing)}; add the missing members."
        )
    return network


@torch.no_grad()
def try_segmentation(network: SegmentationLike, num_classes: int) -> None:
    """Segment one small black image in eval mode, and compare the outputs with what the network says of itself.

    Args:
        network: a module; its mode and its statistics stay as they are.
        num_classes: C, background included.

    Raises:
        InputError: an output is not B x channels x h x w with the channels it should have.
    """
    module = network if isinstance(network, nn.Module) else nn.Module()
    modes: Mapping[nn.Module, bool] = {part: part.training for part in module.modules()}
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    try:
        module.eval()
        found = network(torch.zeros(1, 3, *_TRIAL, dtype=torch.uint8, device=device))
    finally:
        for part, mode in modes.items():
            part.training = mode
    expected = {"e_l": network.low_channels, "e_h": network.high_channels, "logits": num_classes}
    shapes = [tuple(getattr(output, "shape", ())) for output in found]
    right = len(shapes) == len(expected)
    for shape, channels in zip(shapes, expected.values(), strict=False):
        right = right and len(shape) == 4 and shape[:2] == (1, channels)
    if not right:
        wanted = ", ".join(f"{name} 1 x {channels} x h x w" for name, channels in expected.items())
        raise InputError(
            f"{type(network).__name__} should turn an image 1 x 3 x {_TRIAL[0]} x {_TRIAL[1]} into {wanted}; "
            f"found {', '.join(' x '.join(map(str, shape)) or 'no tensor' for shape in shapes)}."
        )
