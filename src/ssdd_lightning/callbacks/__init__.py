"""Lightning callbacks: predictions to disk, pictures to any logger."""

from ssdd_lightning.callbacks.pictures import RefinementPictures
from ssdd_lightning.callbacks.writers import PredictionWriter

__all__ = ["PredictionWriter", "RefinementPictures"]
