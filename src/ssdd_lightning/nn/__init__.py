"""Plain torch modules: backbones, segmentation and classification networks, DD-Net and SSDD. No Lightning here."""

from ssdd_lightning.nn.backbones import Backbone
from ssdd_lightning.nn.classification import ClassificationNetwork
from ssdd_lightning.nn.ddnet import DDNet
from ssdd_lightning.nn.segmentation import SegmentationNetwork, SegmentationOutput
from ssdd_lightning.nn.ssdd import SSDD, SSDDOutput

__all__ = [
    "SSDD",
    "Backbone",
    "ClassificationNetwork",
    "DDNet",
    "SSDDOutput",
    "SegmentationNetwork",
    "SegmentationOutput",
]
