"""Vision transformers of timm as encoders: plain ones, whose maps all have one stride, and hierarchical ones."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import timm
import torch
from timm.layers import LayerNorm2d, resample_abs_pos_embed
from timm.models import is_model_in_modules
from timm.models.hiera import Hiera, Reroll, Unroll
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn.layers import exporting, resize_up
from ssdd_lightning.nn.ssdd import resize_logits

PLAIN = {"vision_transformer", "vision_transformer_hybrid", "deit", "eva"}
"""Timm's modules of plain transformers: ViT, DINOv2, CLIP, SigLIP, DeiT; EVA02, DINOv3 with rotary positions."""
SWIN = {"swin_transformer", "swin_transformer_v2"}
WINDOWED = SWIN | {"hieradet_sam2"}
HIERARCHICAL = WINDOWED | {"hiera"}
_LEVELS = 4
_DEEPEST = 32


def transformer(name: str, output_stride: int) -> "PlainTransformer | HierarchicalTransformer | None":
    """Build the encoder if timm's model is a transformer of a family known here; None otherwise.

    Args:
        name: timm's name.
        output_stride: 8, 16 or 32, stride of the deepest map of a hierarchical one.
    """
    if is_model_in_modules(name, PLAIN):
        return PlainTransformer(name)
    return HierarchicalTransformer(name, output_stride) if is_model_in_modules(name, HIERARCHICAL) else None


class PlainTransformer(nn.Module):
    """A transformer whose tokens are the patches of the image from the first block to the last.

    Class and register tokens take part in the attention and are left out of the maps. Learnt positions are interpolated
    to the grid of the image, rotary ones computed for it. All maps go through the model's last normalisation.

    Args:
        name: timm's name.

    Attributes:
        model: timm's model without its head.
        channels: channels of the maps, 0 at stride 2.
        patch: side of a patch in pixels.

    Examples:
        >>> encoder = PlainTransformer("test_vit").eval()  # timm's smallest, patches of 16 pixels
        >>> [tuple(level.shape[1:]) for level in encoder(torch.zeros(1, 3, 64, 90))]
        [(0, 32, 48), (64, 16, 24), (64, 4, 6), (64, 4, 6), (64, 4, 6)]
    """

    model: Any

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model = timm.create_model(name, num_classes=0, dynamic_img_size=True)
        self.model.attn_pool = None  # what only a pooled token would use must not wait for gradients
        if _learns(self.model.norm):
            self.model.fc_norm = nn.Identity()
        self.patch: int = self.model.feature_info[-1]["reduction"]
        self.channels = [0, *[self.model.num_features] * _LEVELS]
        depth = len(self.model.blocks)
        self._taken = [depth * (level + 1) // _LEVELS - 1 for level in range(_LEVELS)]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the maps of four depths.

        Args:
            image: B x 3 x H x W float, normalised; resized (bilinearly) up to whole patches.

        Returns:
            An empty map of stride 2; e_l of stride 4, the tokens after a quarter of the blocks, resized bilinearly;
            then on the grid of the patches those after half, three quarters and all of the blocks.
        """
        low, *deep = self._maps(image, self._taken)
        size = torch.Size((side + 3) // 4 for side in image.shape[-2:])
        return [_empty(low, [2 * side for side in size]), resize_logits(low, size), *deep]

    def tokens(self, image: Tensor) -> Tensor:
        """Compute the last map alone, B x D x h x w float on the grid of the patches."""
        return self._maps(image, self._taken[-1:])[0]

    def attend(self, image: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
        """Compute the last map and how much each patch attends to each other one.

        Args:
            image: B x 3 x H x W float, normalised.
            blocks: how many of the last blocks are averaged, over their heads too.

        Returns:
            The map B x D x h x w float, and B x hw x hw float, each row a patch's shares of attention to all patches;
            what goes to class and register tokens is left out, and the rows sum to one.
        """
        with _watched(self.attention_layers(blocks)) as seen:
            tokens = self.tokens(image)
        start = self.model.num_prefix_tokens
        among = torch.stack(seen).mean(0)[:, start:, start:]
        return tokens, among / among.sum(-1, keepdim=True)

    def attention_layers(self, blocks: int) -> list[Any]:
        """Attention layers of the last blocks.

        Raises:
            InputError: there are fewer blocks, or they have no attention of the usual design.
        """
        layers = [getattr(block, "attn", block) for block in self.model.blocks][-blocks:]
        if not 0 < blocks <= len(self.model.blocks) or not all(hasattr(layer, "attn_drop") for layer in layers):
            raise InputError(
                f"attention_blocks: expected a number of blocks up to the backbone's {len(self.model.blocks)}, with "
                f"one attention layer each, found {blocks}; 0 leaves the activation maps as they are."
            )
        return layers

    def _maps(self, image: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        whole = resize_up(image, self.patch)
        grid = [side // self.patch for side in whole.shape[-2:]]
        maps = self.model.forward_intermediates(
            whole, indices=list(blocks), output_fmt="NLC", intermediates_only=True, stop_early=True
        )
        norm = self.model.norm if _learns(self.model.norm) else self.model.fc_norm
        return [norm(tokens).transpose(1, 2).unflatten(2, grid) for tokens in maps]


class HierarchicalTransformer(nn.Module):
    """A transformer with maps of stride 4, 8, 16 and 32: Swin, Swin v2, Hiera.

    Window attention cannot be dilated: with a smaller output stride the deeper maps are resized, bilinearly. The
    deepest goes through the model's last normalisation, as before its own classifier.

    Args:
        name: timm's name.
        output_stride: 8, 16 or 32, stride of the deepest map.

    Attributes:
        model: timm's model without its head.
        channels: channels of the maps, 0 at stride 2.
    """

    model: Any

    def __init__(self, name: str, output_stride: int) -> None:
        super().__init__()
        self.output_stride = output_stride
        # windows are shifted on maps of any size, as where Swin segments; by default timm decides it for one size
        swin = is_model_in_modules(name, SWIN)
        self._windowed = is_model_in_modules(name, WINDOWED)
        windows = {"strict_img_size": False, "always_partition": True} if swin else {}
        self.model = timm.create_model(name, num_classes=0, **windows)
        self.channels = [0, *(level["num_chs"] for level in self.model.feature_info)]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the maps.

        Args:
            image: B x 3 x H x W float, normalised; resized (bilinearly) up to multiples of 32.

        Returns:
            An empty map of stride 2, then maps of stride 4, 8, 16 and 32, none above the output stride.

        Raises:
            InputError: Swin or SAM 2's Hiera is being exported.
        """
        if self._windowed and exporting():  # timm pads its windows in a way that no program for any size holds
            raise InputError(
                "Swin and the Hiera of SAM 2 cannot be exported for images of any size; take a backbone such as "
                "hiera_base_abswin_256 or vit_base_patch14_dinov2.lvd142m, or write safetensors."
            )
        whole = resize_up(image, _DEEPEST)
        if isinstance(self.model, Hiera):
            maps = _hiera_maps(self.model, whole)
        else:
            maps = self.model.forward_intermediates(whole, intermediates_only=True)
        norm = self.model.norm if hasattr(self.model, "norm") else self.model.head.norm
        maps[-1] = norm(maps[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        sizes = _sizes(whole.shape[-2:], self.output_stride)
        empty = _empty(maps[0], [side // 2 for side in whole.shape[-2:]])
        return [empty, *(resize_logits(level, size) for level, size in zip(maps, sizes, strict=True))]


class SimplePyramid(nn.Module):
    """Maps of four strides out of the last map of a plain transformer (ViTDet, Li et al., ECCV 2022).

    Stride 4 and 8 are learnt deconvolutions, 16 is the map itself and 32 its maximum. So it is for patches of 16
    pixels; for others the maps are resized, bilinearly. Unlike in ViTDet, both deconvolved maps share the first
    deconvolution, so all parameters learn whichever map a decoder reads, and the convolutions behind the maps are the
    decoder's own.

    Args:
        channels: channels D of the map.
        output_stride: 8, 16 or 32, stride of the deepest map.

    Attributes:
        channels: channels of the maps, 0 at stride 2.
    """

    def __init__(self, channels: int, output_stride: int) -> None:
        super().__init__()
        self.output_stride = output_stride
        self.channels = [0, channels // 4, channels // 2, channels, channels]
        self.up = nn.ConvTranspose2d(channels, channels // 2, 2, 2)
        self.up_again = nn.Sequential(
            LayerNorm2d(channels // 2), nn.GELU(), nn.ConvTranspose2d(channels // 2, channels // 4, 2, 2)
        )

    def forward(self, tokens: Tensor, size: Sequence[int]) -> list[Tensor]:
        """Make the maps.

        Args:
            tokens: B x D x h x w float.
            size: height and width of the image, multiples of the output stride.

        Returns:
            An empty map of stride 2, then maps of stride 4, 8, 16 and 32, none above the output stride.
        """
        twice = self.up(tokens)
        half = F.max_pool2d(tokens, 2, ceil_mode=True) if self.output_stride == _DEEPEST else tokens
        levels = [self.up_again(twice), twice, tokens, half]
        sizes = _sizes(size, self.output_stride)
        maps = [resize_logits(level, target) for level, target in zip(levels, sizes, strict=True)]
        return [_empty(tokens, [side // 2 for side in size]), *maps]


TRANSFORMERS = PlainTransformer, HierarchicalTransformer


def _hiera_maps(model: Any, image: Tensor) -> list[Tensor]:  # noqa: ANN401 - timm's Hiera
    """Compute the maps of Hiera, which timm runs at one size only, at any other: its own layers, new positions."""
    size = tuple(image.shape[-2:])
    schedule = [model.q_stride] * (len(model.stage_ends) - 1)
    reroll = Reroll(size, model.patch_stride, schedule, model.stage_ends, model.q_pool)
    x = model.patch_embed(image) + _hiera_positions(model, [side // 4 for side in size])
    x = Unroll(size, model.patch_stride, schedule)(x)
    maps = []
    for i, block in enumerate(model.blocks):
        x = checkpoint(block, x, use_reentrant=False) if model.grad_checkpointing else block(x)
        if i in model.stage_ends:
            maps.append(reroll(x, i).permute(0, 3, 1, 2))
    return maps


def _hiera_positions(model: Any, grid: list[int]) -> Tensor:  # noqa: ANN401
    if model.pos_embed_win is None:
        return resample_abs_pos_embed(model.pos_embed, grid, model.tokens_spatial_shape, num_prefix_tokens=0)
    window = model.pos_embed_win.tile([side // unit for side, unit in zip(grid, model.mask_unit_size, strict=True)])
    everywhere = F.interpolate(model.pos_embed, grid, mode="bicubic", antialias=True)
    return (everywhere + window).flatten(2).transpose(1, 2)


@contextmanager
def _watched(layers: Sequence[Any]) -> Iterator[list[Tensor]]:
    """Collect the attention of layers while they run, the mean of their heads, B x N x N; fused kernels hold none."""
    seen: list[Tensor] = []
    hooks = [
        layer.attn_drop.register_forward_hook(lambda _, given, __: seen.append(given[0].mean(1))) for layer in layers
    ]
    try:
        with unfused_attention(layers):
            yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def unfused_attention(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let timm's attention layers among some modules multiply and normalise in steps, without a fused kernel."""
    layers: list[Any] = [module for module in modules if hasattr(module, "fused_attn")]
    fused = [layer.fused_attn for layer in layers]
    for layer in layers:
        layer.fused_attn = False
    try:
        yield
    finally:
        for layer, value in zip(layers, fused, strict=True):
            layer.fused_attn = value


def _sizes(image: Sequence[int], output_stride: int) -> list[torch.Size]:
    """Sizes of the maps of an image whose sides are multiples of the output stride."""
    return [torch.Size(side // min(4 * 2**i, output_stride) for side in image) for i in range(_LEVELS)]


def _learns(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _empty(like: Tensor, size: Sequence[int]) -> Tensor:
    return like.new_empty(like.shape[0], 0, *size)
