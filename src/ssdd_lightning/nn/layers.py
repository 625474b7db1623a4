"""Small layers shared by the networks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch normalisation and, if wanted, ReLU.

    A kernel larger than 1 is padded by reflection, as in the paper's segmentation head and DD-Net.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: side of the kernel, odd.
        dilation: dilation of the kernel.
        activation: end with a ReLU.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1, activation: bool = True
    ) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, dilation=dilation, bias=False)
        layers: list[nn.Module] = [ReflectionPad(dilation * (kernel_size // 2))] if kernel_size > 1 else []
        layers += [conv, nn.BatchNorm2d(out_channels)]
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if activation else []))
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")


class ReflectionPad(nn.Module):
    """Reflection padding that falls back to repeating the edge where the map is smaller than the padding.

    Args:
        padding: pixels on each side.
    """

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """Pad B x C x H x W on all four sides."""
        if exporting():
            return self._by_index(x)
        mode = "reflect" if min(x.shape[-2:]) > self.padding else "replicate"
        return F.pad(x, (self.padding,) * 4, mode=mode)

    def _by_index(self, x: Tensor) -> Tensor:
        """The same for a program whose sizes are not known yet: no branch depends on them."""
        shorter = torch.full((), torch.sym_min(x.shape[-2], x.shape[-1]), device=x.device)
        for axis in (2, 3):
            last = x.shape[axis] - 1
            place = torch.arange(-self.padding, x.shape[axis] + self.padding, device=x.device)
            mirrored = last - (last - place.abs()).abs()
            x = x.index_select(axis, torch.where(shorter > self.padding, mirrored, place).clamp(0, last))
        return x


class MaskEmbedding(nn.Module):
    """A 1x1 convolution on the one-hot mask, done as what it is: a table look-up.

    The one-hot vector of 255 (ignore) is all zeros, so those pixels get zeros.

    Args:
        num_classes: C.
        channels: channels out.
    """

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, num_classes, 1, 1))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def forward(self, mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Embed a mask B x H x W long into B x channels x H x W of a dtype."""
        num_classes = self.weight.shape[1]
        table = F.pad(self.weight.flatten(1).T, (0, 0, 0, 1)).to(dtype)
        return F.embedding(mask.clamp(max=num_classes), table).permute(0, 3, 1, 2)


class GroupNorm(nn.GroupNorm):
    """Group normalisation that learns plane by plane on a CPU: with channels last, torch's backward pass is slow."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise B x C x ...; the memory layout stays."""
        last = input.dim() == 4 and not input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last)
        if not (last and input.device.type == "cpu" and torch.is_grad_enabled()) or exporting():
            return super().forward(input)
        return super().forward(input.contiguous()).contiguous(memory_format=torch.channels_last)


class Sum(nn.Module):
    """Adds the levels of a pyramid.

    The sum of a stack, as smp has it, takes many times as long on a CPU, and the layers after it get another memory
    layout.
    """

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Add tensors of one size."""
        total = levels[0]
        for level in levels[1:]:
            total = total + level
        return total


def resize_up(image: Tensor, multiple: int) -> Tensor:
    """Resize an image B x C x H x W float, bilinearly, so that both sides are the next multiple of a number."""
    size = [next_multiple(side, multiple) for side in image.shape[-2:]]
    if not exporting() and size == list(image.shape[-2:]):
        return image
    return F.interpolate(image, size, mode="bilinear", align_corners=False)


def next_multiple(side: int, multiple: int) -> int:
    """Round a side up; not by the usual -(-side // multiple), because ONNX rounds quotients towards zero."""
    return (side + multiple - 1) // multiple * multiple


def exporting() -> bool:
    """Whether a program for images of any size is being made, in which no branch may depend on a size."""
    return bool(getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)())
