"""Reading weight files of any kind into tensors under a stage's own names."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.safe_torch import load_torch
from ssdd_lightning.weights.mxnet import read_params
from ssdd_lightning.weights.names import stage_names


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of weights.

    Args:
        path: a checkpoint of a stage, a state dict (`.pth`) of this package, timm, PSA, IRN or SSDD, or MXNet's
            `.params`.

    Returns:
        Tensors by the names that they have in a stage's state dict (`network.backbone.encoder.conv1a.weight`); those
        of no known project keep their names.

    Raises:
        InputError: if the file is missing, truncated, or no file of weights.
    """
    return stage_names(published_weights(path))


def published_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of weights by the names in it; else as `read_weights`."""
    path = Path(path)
    if path.suffix == ".params":
        return {name: torch.from_numpy(array) for name, array in read_params(path).items()}
    return state_dict_of(path)


def state_dict_of(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file of torch by their own names; code in the file is not run.

    Args:
        path: a state dict, or a checkpoint of Lightning that holds one.

    Raises:
        InputError: if the file is missing, truncated, or holds no state dict.
    """
    if not path.is_file():
        raise InputError(
            f"expected a file of weights at {path}, found none; give 'imagenet', 'offline' or an existing file."
        )
    try:
        content: Any = load_torch(path)
    except InputError as error:
        raise InputError(f"{path} is not a readable file of torch weights: {error}") from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if (
        not isinstance(weights, dict)
        or not weights
        or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items())
    ):
        raise InputError(f"{path} holds no state dict; expected a checkpoint or tensors by name.")
    return weights
