"""The public names; `ssdd_lightning._lazy` imports them from here on first use."""

from ssdd_lightning.nn.affinity import AffinityNet
from ssdd_lightning.nn.backbones import Backbone
from ssdd_lightning.nn.classification import ClassificationNetwork
from ssdd_lightning.nn.ddnet import DDNet
from ssdd_lightning.nn.par import PAR
from ssdd_lightning.nn.protocols import AffinityLike, ClassificationLike, SegmentationLike, SegmentationOutput
from ssdd_lightning.nn.segmentation import SegmentationNetwork
from ssdd_lightning.nn.ssdd import SSDD, SSDDOutput

__all__ = [
    "PAR",
    "SSDD",
    "AffinityLike",
    "AffinityNet",
    "Backbone",
    "ClassificationLike",
    "ClassificationNetwork",
    "DDNet",
    "SSDDOutput",
    "SegmentationLike",
    "SegmentationNetwork",
    "SegmentationOutput",
]
