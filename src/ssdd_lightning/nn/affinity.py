"""AffinityNet (PSA, CVPR 2018): which neighbouring pixels show the same thing, from three levels of a backbone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssdd_lightning.functional.affinity import half_plane_offsets, pair_affinity
from ssdd_lightning.nn.backbones import Backbone
from ssdd_lightning.nn.cpu import fast_convolutions
from ssdd_lightning.nn.layers import next_multiple
from ssdd_lightning.nn.ssdd import resize_logits

WIDTHS = (64, 128, 256)
"""Channels of the three levels after their 1x1 convolutions, the deepest last."""


class AffinityNet(nn.Module):
    """Affinities of pixel pairs from the three deepest feature maps of a backbone.

    1x1 convolutions to 64, 128 and 256 channels, concatenation, a 1x1 convolution to 448, ELU throughout; the layers
    have the names of PSA's published weights. Levels of another stride are resized, bilinearly.

    Args:
        backbone: "resnet38" (PSA's) or timm's name of the encoder.
        output_stride: 8, 16 or 32, of the backbone.
        freeze_norm: keep the backbone's batch normalisation in eval mode with a frozen affine part, as PSA does.
        stride: affinities stand at 1/stride of the input (8 in PSA).
        radius: pairs are less than this many such pixels apart (5 in PSA: 34 pairs a pixel).
        frozen_layers: names of the backbone's layers that are not trained (PSA: conv1a, b2, b2_1 and b2_2).
        checkpointing: save memory in training by computing the backbone's activations again.

    Examples:
        >>> network = AffinityNet("test_efficientnet").eval()  # timm's smallest encoder
        >>> network(torch.zeros(1, 3, 64, 96, dtype=torch.uint8)).shape  # 34 pairs a pixel, at stride 8
        torch.Size([1, 34, 8, 12])
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        output_stride: int = 8,
        freeze_norm: bool = True,
        stride: int = 8,
        radius: int = 5,
        frozen_layers: Sequence[str] = (),
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        half_plane_offsets(radius)  # complains of a bad one now
        self.backbone = Backbone(backbone, output_stride, freeze_norm, frozen_layers, checkpointing)
        self.stride = stride
        self.radius = radius
        level_3, level_4, level_5 = self.backbone.channels[-3:]
        self.f8_3 = nn.Conv2d(level_3, WIDTHS[0], 1, bias=False)
        self.f8_4 = nn.Conv2d(level_4, WIDTHS[1], 1, bias=False)
        self.f8_5 = nn.Conv2d(level_5, WIDTHS[2], 1, bias=False)
        self.f9 = nn.Conv2d(sum(WIDTHS), sum(WIDTHS), 1, bias=False)
        for layer in (self.f8_3, self.f8_4, self.f8_5):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.xavier_uniform_(self.f9.weight, gain=4)  # the mean over 448 channels would start near 0 otherwise

    def size(self, image: Tensor) -> tuple[int, int]:
        """Size of the affinities of an image B x 3 x H x W: ceil(H / stride) x ceil(W / stride)."""
        height, width = (next_multiple(side, self.stride) // self.stride for side in image.shape[-2:])
        return height, width

    def features(self, image: Tensor) -> Tensor:
        """Compute what the affinities compare.

        Args:
            image: B x 3 x H x W uint8 RGB, or float of the same range.

        Returns:
            B x 448 x h x w float, see `size`.
        """
        layers = (self.f8_3, self.f8_4, self.f8_5)
        levels, size = self.backbone(image)[-3:], self.size(image)
        with fast_convolutions(image):
            levels = [F.elu(layer(level)) for layer, level in zip(layers, levels, strict=True)]
            return F.elu(self.f9(torch.cat([resize_logits(level, size) for level in levels], 1)))

    def forward(self, image: Tensor) -> Tensor:
        """Affinity of every pair: B x P x h x w float in [0, 1], see `ssdd_lightning.functional.pair_affinity`."""
        return pair_affinity(self.features(image), self.radius)
