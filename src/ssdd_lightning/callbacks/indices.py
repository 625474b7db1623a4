"""From the indices of a network's outputs to the indices of the dataset."""

import numpy as np
import numpy.typing as npt
from pytorch_lightning import Trainer

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.errors import InputError


def dataset_indices(trainer: Trainer) -> npt.NDArray[np.uint8]:
    """Look-up table from network index to dataset index, as the data module says.

    Returns:
        256 uint8; 255 stays 255, and indices that no output of the network has become 255.

    Raises:
        InputError: The trainer runs without a data module that knows `class_indices`.
    """
    indices = getattr(getattr(trainer, "datamodule", None), "class_indices", None)
    if indices is None:
        raise InputError(
            "the dataset's own class indices are unknown; run the trainer with a data module that has "
            "`class_indices` (such as VOCDataModule) instead of bare data loaders."
        )
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[: len(indices)] = list(indices)
    return table


def to_dataset(values: npt.NDArray[np.integer], table: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Translate network indices to dataset indices.

    Args:
        values: Integers of any shape, network indices or 255.
        table: See `dataset_indices`.

    Returns:
        uint8 of the same shape.

    Raises:
        InputError: A value is no output of the network; the data module and the network disagree.
    """
    known = np.flatnonzero(table != IGNORE)
    strange = values[((values < 0) | (values >= len(known))) & (values != IGNORE)]
    if strange.size:
        raise InputError(
            f"a prediction holds the value {strange[0]}, but the data module has {len(known)} classes; "
            "train and predict with the same `classes`."
        )
    return table[values]
