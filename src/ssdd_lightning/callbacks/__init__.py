"""Lightning callbacks: predictions to disk, pictures to any logger, signals that end a run."""

from ssdd_lightning.callbacks.interruption import Interruption
from ssdd_lightning.callbacks.pictures import RefinementPictures
from ssdd_lightning.callbacks.writers import PredictionWriter

__all__ = ["Interruption", "PredictionWriter", "RefinementPictures"]
