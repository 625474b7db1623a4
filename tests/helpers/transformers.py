"""Families of vision transformers, cut down by timm's own arguments; names and architecture are the published ones."""

from typing import Any

import pytest
import timm

PLAIN: dict[str, dict[str, Any]] = {
    "test_vit": {"depth": 4},
    "vit_small_patch14_dinov2": {"embed_dim": 32, "depth": 4, "num_heads": 2},
    "vit_small_patch14_reg4_dinov2": {"embed_dim": 32, "depth": 4, "num_heads": 2},
    "vit_small_patch16_dinov3": {"embed_dim": 32, "depth": 4, "num_heads": 2},
    "vit_base_patch16_clip_224": {"embed_dim": 32, "depth": 4, "num_heads": 2},
    "vit_base_patch16_siglip_224": {"embed_dim": 32, "depth": 4, "num_heads": 2},
    "deit_tiny_distilled_patch16_224": {"embed_dim": 32, "depth": 4, "num_heads": 2},
    "deit3_small_patch16_224": {"embed_dim": 32, "depth": 4, "num_heads": 2},
    "eva02_tiny_patch14_224": {"embed_dim": 32, "depth": 4, "num_heads": 2},
}
SWIN = {"embed_dim": 16, "depths": (1, 2, 2, 2), "num_heads": (1, 2, 4, 4)}
HIERA = {"embed_dim": 16, "stages": (1, 1, 2, 1)}
HIERARCHICAL: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224": SWIN,
    "swinv2_tiny_window8_256": SWIN,
    "hiera_tiny_224": HIERA,
    "hiera_small_abswin_256": HIERA,
    "hieradet_small": {**HIERA, "global_att_blocks": (3,)},
}
FAMILIES = [*PLAIN, *HIERARCHICAL]


def cut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `timm.create_model` build the models above with fewer and narrower blocks; all others as they are."""
    create = timm.create_model

    def smaller(name: str, **options: Any) -> Any:
        return create(name, **{**{**PLAIN, **HIERARCHICAL}.get(name.partition(".")[0], {}), **options})

    monkeypatch.setattr(timm, "create_model", smaller)
