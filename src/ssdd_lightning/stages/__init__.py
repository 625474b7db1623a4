"""LightningModules, one per stage, in pipeline order."""

from ssdd_lightning.stages.affinity import AffinityModule
from ssdd_lightning.stages.base import Stage
from ssdd_lightning.stages.classification import ClassificationModule
from ssdd_lightning.stages.dynamic import DynamicRefinementModule
from ssdd_lightning.stages.segmentation import SegmentationModule
from ssdd_lightning.stages.static import StaticRefinementModule

__all__ = [
    "AffinityModule",
    "ClassificationModule",
    "DynamicRefinementModule",
    "SegmentationModule",
    "Stage",
    "StaticRefinementModule",
]
