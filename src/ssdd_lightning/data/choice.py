"""Which data module a command line or a YAML file asks for: `dataset: coco`, `--dataset folder`; VOC's if none."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ssdd_lightning.errors import InputError

if TYPE_CHECKING:
    from ssdd_lightning.data.datamodule import WeakDataModule

DATASETS = {
    "voc": ("ssdd_lightning.data.voc", "VOCDataModule"),
    "coco": ("ssdd_lightning.data.coco", "COCODataModule"),
    "folder": ("ssdd_lightning.data.folder", "FolderDataModule"),
}
"""Name -> module and class."""
OPTION = "--dataset"
_CONFIGS = ("--config", "-c")


def data_module_class(name: str) -> "type[WeakDataModule]":
    """Import a data module by the name of its dataset.

    Raises:
        InputError: There is none of that name.
    """
    if name not in DATASETS:
        raise InputError(f"dataset: expected one of {', '.join(DATASETS)}, found {name!r}")
    module, cls = DATASETS[name]
    found: type[WeakDataModule] = getattr(importlib.import_module(module), cls)
    return found


def dataset_name(cls: object) -> str | None:
    """Name of a data module class's dataset; None for a class of the user's own."""
    return next((name for name, (_, own) in DATASETS.items() if getattr(cls, "__name__", "") == own), None)


def chosen_dataset(words: Sequence[str]) -> str:
    """Find the dataset in the options of a stage command: the last `--dataset`, else the last YAML that names one.

    Args:
        words: Options; files that cannot be read name no dataset here, `check_config_files` refuses them.
    """
    files = [dataset_of(path) for path in config_files(words)]
    return ["voc", *(name for name in files if name), *_values(words, OPTION)][-1]


def config_files(words: Sequence[str]) -> list[Path]:
    """YAML files that the options of a stage command name, in their order."""
    return [Path(path) for path in _values(words, *_CONFIGS)]


def dataset_of(path: Path) -> str | None:
    """Name of the dataset in a YAML file; None if it names none or cannot be read."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return str(content["dataset"]) if isinstance(content, dict) and content.get("dataset") else None


def _values(words: Sequence[str], *options: str) -> list[str]:
    """Values of options in either spelling, `--option value` and `--option=value`."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    return [
        word.partition("=")[2] if "=" in word else following
        for word, following in pairs
        if word.partition("=")[0] in options
    ]
