"""The public names; `ssdd_lightning._lazy` imports them from here on first use."""

from ssdd_lightning.crf import DenseCRF
from ssdd_lightning.data.coco import COCODataModule
from ssdd_lightning.data.folder import FolderDataModule
from ssdd_lightning.data.voc import VOCDataModule
from ssdd_lightning.errors import InputError
from ssdd_lightning.nn import SSDD, AffinityNet, ClassificationNetwork, DDNet, SegmentationNetwork
from ssdd_lightning.stages import (
    AffinityModule,
    ClassificationModule,
    DynamicRefinementModule,
    SegmentationModule,
    StaticRefinementModule,
)

__all__ = [
    "SSDD",
    "AffinityModule",
    "AffinityNet",
    "COCODataModule",
    "ClassificationModule",
    "ClassificationNetwork",
    "DDNet",
    "DenseCRF",
    "DynamicRefinementModule",
    "FolderDataModule",
    "InputError",
    "SegmentationModule",
    "SegmentationNetwork",
    "StaticRefinementModule",
    "VOCDataModule",
]

__version__: str
