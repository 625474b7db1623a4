"""Your own photos: plain folders, any file names, any number of classes, no ground truth masks required."""

from pathlib import Path

from torch.utils.data import DataLoader

from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.data.classes import ClassTable, class_table
from ssdd_lightning.data.datamodule import WeakDataModule
from ssdd_lightning.data.dataset import Sample
from ssdd_lightning.data.labels import table_of_labels
from ssdd_lightning.data.layout import PhotoFolder
from ssdd_lightning.data.splits import Splits
from ssdd_lightning.errors import InputError


class FolderDataModule(WeakDataModule):
    """Photos of a plain folder with image-level labels from a file; ground truth masks are used for scoring only.

    Args:
        images: Folder of .jpg, .jpeg, .bmp or .png photos of any names.
        labels: File of image-level labels: .csv, .json or .npy.
        class_names: File of the names, one per line, background first, or JSON of index -> name; or the number of
            classes. None takes them from the labels: see `table_of_labels`.
        classes: Names of the classes to learn: images stay whose labels name only these, and at least one.
            None learns all.
        splits: Text files that name the images to train on, to validate (if there is ground truth), to test and
            to predict, one per line; None takes all that are labelled.
        knowledge: Folder of knowledge for training and prediction, <name>.map.png or <name>.png.
        advice: Folder of advice for training and prediction, <name>.map.png or <name>.png.
        maps: Folder of score maps that reach prediction as scores, <name>.map.png (for the affinity stage).
        truth: Folder of ground truth masks <name>.png, for scoring only.
        augmentation: Resize, crop, flip and colour jitter of training images.
        batch_size: Training images per batch.
        num_workers: Loader processes; 0 loads in the main process.

    Attributes:
        eval_batch_size: Most whole images of one size that are evaluated or predicted together, 1.
    """

    def __init__(
        self,
        images: Path | str,
        labels: Path | str,
        class_names: Path | str | None = None,
        classes: list[str] | None = None,
        splits: Splits = Splits(),
        knowledge: Path | str | None = None,
        advice: Path | str | None = None,
        maps: Path | str | None = None,
        truth: Path | str | None = None,
        augmentation: Augmentation = Augmentation(),
        batch_size: int = 16,
        num_workers: int = 2,
    ) -> None:
        table = table_of_labels(Path(labels)) if class_names is None else class_table(class_names)
        super().__init__(
            PhotoFolder(Path(images), Path(labels), None if truth is None else Path(truth)),
            table if classes is None else ClassTable.select(table.names, classes),
            splits,
            {"knowledge": knowledge, "advice": advice, "maps": maps},
            augmentation,
            batch_size,
            num_workers,
        )

    def setup(self, stage: str | None = None) -> None:
        """Find all files; see `WeakDataModule.setup`.

        Raises:
            InputError: Something is missing, such as the ground truth that scoring needs.
        """
        if self.location.masks is None and (stage == "test" or (stage == "validate" and not self.validates)):
            raise InputError("scoring needs ground truth: give a folder of masks with `truth`.")
        super().setup(stage)

    @property
    def validates(self) -> bool:
        """Whether there is something to validate: ground truth, or held out photos and a stage that needs none."""
        stage = None if self.trainer is None else self.trainer.lightning_module
        held_out = self.splits.val is not None and not getattr(stage, "needs_truth", True)
        return self.location.masks is not None or held_out

    def val_dataloader(self) -> DataLoader[Sample] | list[Sample]:  # type: ignore[override]
        """Whole images, with their ground truth if there is any; empty where a fit skips validation."""
        return super().val_dataloader() if self.validates else []
