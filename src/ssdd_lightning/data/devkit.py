"""Datasets in VOC's layout: photos, masks and lists of splits in a devkit, labels in a file or in annotations."""

from pathlib import Path

from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.data.datamodule import WeakDataModule
from ssdd_lightning.data.dataset import Record, Transform
from ssdd_lightning.data.labels import Labels, read_annotations, read_label_file
from ssdd_lightning.data.layout import find_devkit
from ssdd_lightning.data.splits import Splits, find_list, read_list
from ssdd_lightning.errors import InputError


class DevkitDataModule(WeakDataModule):
    """Photos of a devkit; ground truth masks are used for scoring only.

    Args:
        table: The dataset's classes and the network's choice of them.
        root: See `find_devkit`.
        labels: File of image-level labels; None reads Annotations/*.xml.
        truth: Folder of ground truth masks inside the devkit.
        splits: Names in ImageSets/Segmentation or paths of .txt lists.
        guides: `knowledge` and `advice` -> folder, or None.
        train_transform: Augmentation of training samples.
        batch_size: Training images per batch.
        num_workers: Loader processes; 0 loads in the main process.
        maps: Folder of score maps for prediction; None for none.
    """

    def __init__(
        self,
        table: ClassTable,
        root: Path | str,
        labels: Path | str | None,
        truth: str,
        splits: Splits,
        guides: dict[str, Path | str | None],
        train_transform: Transform,
        batch_size: int,
        num_workers: int,
        maps: Path | str | None = None,
    ) -> None:
        super().__init__(
            table=table,
            splits=splits,
            guides={key: Path(folder) for key, folder in guides.items() if folder is not None},
            train_transform=train_transform,
            batch_size=batch_size,
            num_workers=num_workers,
            maps=None if maps is None else Path(maps),
        )
        self.root = Path(root)
        self.labels = None if labels is None else Path(labels)
        self.truth = truth

    def find_records(self, split: str, truth: bool) -> tuple[list[Record], str]:
        """Find the images of a split; see `WeakDataModule.find_records`."""
        devkit = find_devkit(self.root)
        names = read_list(find_list(split, devkit / "ImageSets" / "Segmentation"))
        labels, source = self._read_labels(devkit, names)
        folder = devkit / self.truth
        if truth and not folder.is_dir():
            raise InputError(f"folder of ground truth masks {folder} does not exist; name another one with `truth`.")
        records = [
            Record(
                name=name,
                image=devkit / "JPEGImages" / f"{name}.jpg",
                labels=labels[name],
                mask=folder / f"{name}.png" if truth else None,
            )
            for name in names
        ]
        return records, source

    def _read_labels(self, devkit: Path, names: list[str]) -> tuple[dict[str, Labels], str]:
        if self.labels is None:
            folder = devkit / "Annotations"
            return read_annotations(folder, names, self.table), str(folder)
        labels = read_label_file(self.labels, self.table)
        missing = [name for name in names if name not in labels]
        if missing:
            raise InputError(
                f"label file {self.labels} does not name image {missing[0]} ({len(missing)} of {len(names)} "
                "are missing); add them or choose another split."
            )
        return labels, str(self.labels)
