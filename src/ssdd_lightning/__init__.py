"""Weakly-supervised semantic segmentation by self-supervised difference detection (SSDD, ICCV 2019)."""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "AffinityModule": "stages",
    "ClassificationModule": "stages",
    "StaticRefinementModule": "stages",
    "DynamicRefinementModule": "stages",
    "SegmentationModule": "stages",
    "VOCDataModule": "data.voc",
    "COCODataModule": "data.coco",
    "FolderDataModule": "data.folder",
    "DDNet": "nn",
    "SSDD": "nn",
    "SegmentationNetwork": "nn",
    "ClassificationNetwork": "nn",
    "AffinityNet": "nn",
    "DenseCRF": "crf",
    "InputError": "errors",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import a public name on first use, so that `ssdd evaluate` starts without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
