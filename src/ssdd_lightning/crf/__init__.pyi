"""The public names; `ssdd_lightning._lazy` imports them from here on first use."""

from ssdd_lightning.crf.inference import dense_crf
from ssdd_lightning.crf.module import DenseCRF
from ssdd_lightning.crf.settings import PRESETS, CRFOptions, CRFSettings

__all__ = ["PRESETS", "CRFOptions", "CRFSettings", "DenseCRF", "dense_crf"]
