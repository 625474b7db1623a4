"""DD-Net, the difference detection network (Fig. 2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssdd_lightning.nn.cpu import fast_convolutions
from ssdd_lightning.nn.layers import ConvNormAct, MaskEmbedding


class DDNet(nn.Module):
    """Predict from an image's features and one mask where a mapping function would change this mask.

    The features are detached: the difference loss trains DD-Net alone (3.1).

    Args:
        num_classes: C, background included.
        high_channels: channels of e_h (512 in the paper).
        low_channels: channels of e_l (128 in the paper).
        width: channels inside (256 in the paper).
        frozen_norm: keep all batch normalisation in eval mode with a frozen affine part, as in the authors' code; in
            a fresh DD-Net this makes it the identity.

    Examples:
        >>> ddnet = DDNet(num_classes=3, high_channels=8, low_channels=4, width=16)
        >>> features = ddnet.image_features(high=torch.zeros(1, 8, 4, 4), low=torch.zeros(1, 4, 16, 16))
        >>> knowledge = torch.zeros(1, 8, 8, dtype=torch.long)
        >>> ddnet(features, knowledge).sigmoid().shape  # d_K
        torch.Size([1, 1, 8, 8])
    """

    def __init__(
        self,
        num_classes: int,
        high_channels: int = 512,
        low_channels: int = 128,
        width: int = 256,
        frozen_norm: bool = False,
    ) -> None:
        super().__init__()
        self.frozen_norm = frozen_norm
        self.image = ConvNormAct(high_channels + low_channels, width, kernel_size=3)
        self.mask = nn.Sequential(MaskEmbedding(num_classes, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.residual = nn.Sequential(
            ConvNormAct(2 * width, width),
            ConvNormAct(width, width, kernel_size=3),
            ConvNormAct(width, width, activation=False),
        )
        self.shortcut = ConvNormAct(2 * width, width, activation=False)
        self.predict = nn.Conv2d(width, 1, 1, bias=False)
        if frozen_norm:
            for norm in self._norms():
                norm.requires_grad_(False)
        self.to(memory_format=torch.channels_last)
        self.train()

    def image_features(self, high: Tensor, low: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Compute the part that depends on the image only, once for both masks.

        Args:
            high: B x high_channels x h x w float, e_h; resized bilinearly.
            low: B x low_channels x H/2 x W/2 float, e_l; average-pooled.
            size: (H, W) of the masks; by default half of e_l's, a quarter of the image.

        Returns:
            B x width x H x W float.
        """
        if size is None:
            size = (low.shape[-2] // 2, low.shape[-1] // 2)
        high = F.interpolate(high.detach(), size, mode="bilinear", align_corners=False)
        low = F.adaptive_avg_pool2d(low.detach(), size)
        features: Tensor = self.image(torch.cat((high, low), 1))
        return features

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Predict the difference.

        Args:
            features: B x width x H x W float, from `image_features`.
            mask: B x H x W long, 255 = ignore (its one-hot vector is all zeros).

        Returns:
            B x 1 x H x W float, logits of the probability that the two masks differ here.
        """
        embedding, *others = self.mask
        embedded = embedding(mask, features.dtype)
        for layer in others:
            embedded = layer(embedded)
        x = torch.cat((features, embedded), 1)
        with fast_convolutions(x):
            logits: Tensor = self.predict(F.relu(self.residual(x) + self.shortcut(x)))
        return logits

    def train(self, mode: bool = True) -> "DDNet":
        """Switch the mode; frozen normalisation stays in eval mode."""
        super().train(mode)
        if self.frozen_norm:
            for norm in self._norms():
                norm.eval()
        return self

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
