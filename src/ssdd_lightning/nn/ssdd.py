"""The SSDD module: DD-Net on two masks, and the merge of them (Eq. 5)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssdd_lightning.functional.refinement import MergeBiases, failed_classes, ssdd_merge
from ssdd_lightning.nn.ddnet import DDNet
from ssdd_lightning.nn.layers import exporting


class SSDDOutput(NamedTuple):
    """What the SSDD module yields.

    Attributes:
        mask: B x H x W long, the refined mask m_D.
        knowledge_logits: B x 1 x H x W float, logits of d_K.
        advice_logits: B x 1 x H x W float, logits of d_A.
        failed: B x C bool, classes that failed (Eq. 16).

    Examples:
        >>> logits = torch.tensor([[[[0.0, 2.0]]]])
        >>> output = SSDDOutput(torch.tensor([[[0, 1]]]), logits, -logits, failed=torch.tensor([[False, False]]))
        >>> output.knowledge_logits.sigmoid(), output.advice_logits.sigmoid()  # d_K and d_A
        (tensor([[[[0.5000, 0.8808]]]]), tensor([[[[0.5000, 0.1192]]]]))
    """

    mask: Tensor
    knowledge_logits: Tensor
    advice_logits: Tensor
    failed: Tensor


class SSDD(nn.Module):
    """Merge a knowledge and an advice mask by predicted difference (3.2, Eq. 5).

    Args:
        num_classes: C, background included.
        high_channels: channels of e_h.
        low_channels: channels of e_l.
        width: channels inside DD-Net (256 in the paper).
        frozen_norm: DD-Net's normalisation is frozen, as in the authors' code.
        biases: what the merge leans to (Eq. 16 and 17).

    Examples:
        >>> ssdd = SSDD(num_classes=2, high_channels=8, low_channels=4, width=16, biases=MergeBiases(dd_bias=2.0))
        >>> high, low = torch.zeros(1, 8, 1, 2), torch.zeros(1, 4, 4, 8)
        >>> knowledge, advice = torch.tensor([[[1, 1, 0, 0]]]), torch.tensor([[[1, 1, 1, 0]]])
        >>> output = ssdd(high, low, knowledge, advice, image_labels=torch.tensor([[True, True]]))
        >>> output.mask  # d_K - d_A + 2 is above 0: the advice is taken everywhere
        tensor([[[1, 1, 1, 0]]])
    """

    def __init__(
        self,
        num_classes: int,
        high_channels: int = 512,
        low_channels: int = 128,
        width: int = 256,
        frozen_norm: bool = False,
        biases: MergeBiases = MergeBiases(),
    ) -> None:
        super().__init__()
        self.ddnet = DDNet(num_classes, high_channels, low_channels, width, frozen_norm)
        self.biases = biases

    def forward(
        self,
        high: Tensor,
        low: Tensor,
        knowledge: Tensor,
        advice: Tensor,
        image_labels: Tensor,
        size: tuple[int, int] | None = None,
    ) -> SSDDOutput:
        """Detect differences and merge.

        Args:
            high: B x high_channels x h x w float, e_h.
            low: B x low_channels x h' x w' float, e_l.
            knowledge: B x H x W long, 255 = ignore.
            advice: B x H x W long, 255 = ignore.
            image_labels: B x C bool, column 0 (background) true.
            size: resolution at which DD-Net works; by default the masks' own. If it differs, DD-Net sees the masks
                reduced (nearest) and its logits are resized (bilinearly) before the merge at the masks' size.

        Returns:
            The refined mask, both logits at the masks' size, and the failed classes.
        """
        work = size or (knowledge.shape[-2], knowledge.shape[-1])
        features = self.ddnet.image_features(high, low, work)
        knowledge_logits, advice_logits = (
            resize_logits(self.ddnet(features, resize_mask(mask, work)), mask.shape[-2:])
            for mask in (knowledge, advice)
        )
        with torch.no_grad():
            failed = failed_classes(knowledge, advice, image_labels, self.biases.failed_ratio)
            d_knowledge, d_advice = (logits.float().sigmoid()[:, 0] for logits in (knowledge_logits, advice_logits))
            mask = ssdd_merge(knowledge, advice, d_knowledge, d_advice, image_labels, self.biases, failed)
        return SSDDOutput(mask, knowledge_logits, advice_logits, failed)


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a mask B x H x W long to B x *size by nearest neighbour (pixel centres)."""
    if tuple(mask.shape[-2:]) == tuple(size):
        return mask
    return F.interpolate(mask[:, None].float(), size, mode="nearest-exact")[:, 0].long()


def resize_logits(logits: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Resize logits B x C x h x w float to B x C x *size bilinearly."""
    if not exporting() and tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)
