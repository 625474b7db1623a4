"""Weakly-supervised semantic segmentation by self-supervised difference detection (SSDD, ICCV 2019)."""

from ssdd_lightning._lazy import attach

__version__ = "0.1.0"

# on first use, so that `ssdd evaluate` starts without torch and DD-Net without timm
__getattr__, __dir__, __all__ = attach(__name__, __file__)
