"""Plain torch modules: backbones, classifiers, segmentation, affinities, DD-Net, SSDD and PAR. No Lightning here."""

from ssdd_lightning._lazy import attach

# on first use: only the backbones need timm and segmentation-models-pytorch
__getattr__, __dir__, __all__ = attach(__name__, __file__)
