"""The data module of each dataset, by the name that a YAML file or the command line gives it."""

import importlib
from typing import TYPE_CHECKING

from ssdd_lightning.errors import InputError

if TYPE_CHECKING:
    from ssdd_lightning.data.datamodule import WeakDataModule

DATASETS = {
    "voc": ("ssdd_lightning.data.voc", "VOCDataModule"),
    "coco": ("ssdd_lightning.data.coco", "COCODataModule"),
    "folder": ("ssdd_lightning.data.folder", "FolderDataModule"),
}
"""Name -> module and class."""
DEVKITS = {"voc": ("trainaug", "val"), "coco": ("train", "val")}
"""Datasets in VOC's layout -> their own splits: of training and prediction, of validation and test."""
OPTION = "--dataset"


def data_module_path(name: str) -> str:
    """Import path of a data module by the name of its dataset.

    Raises:
        InputError: There is none of that name.
    """
    if name not in DATASETS:
        raise InputError(f"dataset: expected one of {', '.join(DATASETS)}, found {name!r}.")
    return ".".join(DATASETS[name])


def data_module_class(name: str) -> "type[WeakDataModule]":
    """Import a data module by the name of its dataset; see `data_module_path`."""
    module, _, cls = data_module_path(name).rpartition(".")
    found: type[WeakDataModule] = getattr(importlib.import_module(module), cls)
    return found


def dataset_name(cls: object) -> str | None:
    """Name of a data module class's dataset; None for a class of the user's own."""
    return next((name for name, (_, own) in DATASETS.items() if getattr(cls, "__name__", "") == own), None)
