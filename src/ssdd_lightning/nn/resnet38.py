"""ResNet-38, the paper's network: wide, pre-activation, output stride 8 (Wu, Shen and van den Hengel 2016; PSA, 2018).

Its parts carry the names of PSA's published weights (`b4_3.conv_branch2a.weight`), so `res38_cls.pth` loads as it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class ResNet38(nn.Module):
    """Seven stages of full pre-activation blocks; stages 5, 6 and 7 are dilated by 2, 4 and 4 instead of strided.

    Args:
        checkpointing: while training keep each block's input only and compute the block again in the backward pass:
            less memory for the time of one more forward pass. The result is the same.

    Attributes:
        channels: channels of the feature maps that `forward` returns.
    """

    channels = (128, 256, 512, 1024, 4096)

    def __init__(self, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.conv1a = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self._add_stage("b2", 3, 64, (128, 128), stride=2)
        self._add_stage("b3", 3, 128, (256, 256), stride=2)
        self._add_stage("b4", 6, 256, (512, 512), stride=2)
        self._add_stage("b5", 3, 512, (512, 1024), dilation=2)
        self.b6 = ResidualBlock(1024, (512, 1024, 2048), dilations=(1, 4, 1), dropout=0.3)
        self.b7 = ResidualBlock(2048, (1024, 2048, 4096), dilations=(1, 4, 1), dropout=0.5)
        self.bn7 = nn.BatchNorm2d(4096)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute five feature maps.

        Args:
            image: B x 3 x H x W float RGB, divided by 255 and normalised with ImageNet's mean and deviation.

        Returns:
            - e_l, B x 128 x H/2 x W/2: batch norm and ReLU at the entry of b3;
            - conv3, B x 256 x H/4 x W/4: the same at the entry of b4;
            - conv4, B x 512 x H/8 x W/8: the same at the entry of b5;
            - conv5, B x 1024 x H/8 x W/8: the same at the entry of b6;
            - conv6, B x 4096 x H/8 x W/8: bn7 and ReLU after the last block.
            Sides are rounded up.
        """
        x = self.conv1a(image)
        features = []
        for name, block in self.named_children():
            if isinstance(block, ResidualBlock):
                x, entry = self._run(block, x)
                features += [entry] if name in ("b3", "b4", "b5", "b6") else []
        return (*features, F.relu(self.bn7(x), inplace=True))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switch activation checkpointing (timm's name for it)."""
        self.checkpointing = enable

    def group_matcher(self, coarse: bool = True) -> dict[str, str]:
        """Say which parameters are of which stage (timm's name for it); the last norm belongs to the last stage."""
        return {"stem": "^conv1a", "blocks": r"^bn?(\d)"}

    def _run(self, block: "ResidualBlock", x: Tensor) -> tuple[Tensor, Tensor]:
        if not (self.checkpointing and self.training):
            output: tuple[Tensor, Tensor] = block(x)
            return output

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _running_averages_kept(block)

        output = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
        return output

    def _add_stage(
        self, name: str, depth: int, in_channels: int, channels: tuple[int, int], stride: int = 1, dilation: int = 1
    ) -> None:
        """Add blocks `name`, `name_1`, ...; the first changes the shape, and its first convolution is not dilated."""
        self.add_module(name, ResidualBlock(in_channels, channels, stride, (1, dilation)))
        for i in range(1, depth):
            self.add_module(f"{name}_{i}", ResidualBlock(channels[-1], channels, dilations=(dilation, dilation)))


class ResidualBlock(nn.Module):
    """Batch norm, ReLU and convolution, two or three times, added to the input or to a projection of it.

    Args:
        in_channels: channels in.
        channels: channels after each convolution: two of 3x3, or three of 1x1, 3x3 and 1x1.
        stride: of the first convolution and of the projection.
        dilations: of each convolution.
        dropout: probability of dropping a channel before every convolution but the first.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        stride: int = 1,
        dilations: Sequence[int] = (1, 1),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        kernels = (3, 3) if len(channels) == 2 else (1, 3, 1)
        self.branches = [f"branch2{part}" for part in ("a", "b1", "b2")[: len(channels)]]
        for i, (before, after) in enumerate(pairwise((in_channels, *channels))):
            padding = dilations[i] * (kernels[i] // 2)
            conv = nn.Conv2d(before, after, kernels[i], 1 if i else stride, padding, dilations[i], bias=False)
            self.add_module(f"bn_{self.branches[i]}", nn.BatchNorm2d(before))
            self.add_module(f"conv_{self.branches[i]}", conv)
        self.dropout = nn.Dropout2d(dropout)
        self.projects = stride > 1 or in_channels != channels[-1]
        if self.projects:
            self.conv_branch1 = nn.Conv2d(in_channels, channels[-1], 1, stride, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the block.

        Args:
            x: B x in_channels x H x W float.

        Returns:
            The block's output, and its input after batch norm and ReLU.
        """
        entry = y = self._activate(x, self.branches[0])
        shortcut = self.conv_branch1(entry) if self.projects else x
        for i, branch in enumerate(self.branches):
            if i:
                y = self.dropout(self._activate(y, branch))
            y = self.get_submodule(f"conv_{branch}")(y)
        return shortcut + y, entry

    def _activate(self, x: Tensor, branch: str) -> Tensor:
        return F.relu(self.get_submodule(f"bn_{branch}")(x), inplace=True)


@contextmanager
def _running_averages_kept(block: nn.Module) -> Iterator[None]:
    """Compute a block a second time without moving the running averages of its batch norm a second time."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
