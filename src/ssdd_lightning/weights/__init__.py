"""Weight files: MXNet's container, the names of published checkpoints, and loading with a report."""

from ssdd_lightning.weights.backbone import load_backbone_weights
from ssdd_lightning.weights.loading import LoadReport, load_weights
from ssdd_lightning.weights.mxnet import read_params
from ssdd_lightning.weights.reading import read_weights

__all__ = ["LoadReport", "load_backbone_weights", "load_weights", "read_params", "read_weights"]
