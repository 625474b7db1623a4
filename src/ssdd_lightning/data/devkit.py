"""Datasets in VOC's layout: photos, masks and lists of splits in a devkit, labels in a file or in annotations."""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.data.choice import DEVKITS
from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.data.datamodule import WeakDataModule
from ssdd_lightning.data.layout import TRUTH, Devkit
from ssdd_lightning.data.splits import Splits


class DevkitDataModule(WeakDataModule):
    """Photos of a devkit; ground truth masks are used for scoring only.

    Args:
        root: See `find_devkit`.
        splits: Names in ImageSets/Segmentation or paths of .txt lists.
        labels: File of image-level labels; None takes what the dataset itself has.
        classes: Names of the classes to learn; None learns all.
        knowledge: Folder of knowledge for training and prediction.
        advice: Folder of advice for training and prediction.
        maps: Folder of score maps for prediction.
        truth: Folder of ground truth masks inside the devkit.
        augmentation: Augmentation of training samples.
        batch_size: Training images per batch.
        num_workers: Loader processes; 0 loads in the main process.
    """

    dataset: ClassVar[str]
    """Its name, see `DATASETS`."""
    label_file: ClassVar[str | None] = None
    """File of labels in its root, if it has one."""

    def __init__(
        self,
        root: Path | str,
        splits: Splits = Splits(),
        labels: Path | str | None = None,
        classes: list[str] | None = None,
        knowledge: Path | str | None = None,
        advice: Path | str | None = None,
        maps: Path | str | None = None,
        truth: str = TRUTH,
        augmentation: Augmentation = Augmentation(),
        batch_size: int = 16,
        num_workers: int = 2,
        eval_batch_size: int = 1,
    ) -> None:
        table = ClassTable.select(self.all_classes(Path(root)), classes)
        own = None if self.label_file is None else Path(root) / self.label_file
        super().__init__(
            Devkit(Path(root), own if labels is None else Path(labels), truth),
            table,
            splits.or_else(*DEVKITS[self.dataset]),
            {"knowledge": knowledge, "advice": advice, "maps": maps},
            augmentation,
            batch_size,
            num_workers,
            eval_batch_size,
        )

    @staticmethod
    @abstractmethod
    def all_classes(root: Path) -> tuple[str, ...]:
        """Names of the dataset's classes, background first."""
