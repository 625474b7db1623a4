"""COCO 2014, as `ssdd prepare coco` lays it out."""

from pathlib import Path

from ssdd_lightning.data.classes import ClassTable, class_table
from ssdd_lightning.data.devkit import DevkitDataModule
from ssdd_lightning.data.transforms import TrainTransform
from ssdd_lightning.errors import InputError


class COCODataModule(DevkitDataModule):
    """Photos of COCO 2014 with image-level labels; ground-truth masks reach scoring only.

    Args:
        root: The folder COCO2014, with JPEGImages, SegmentationClass, ImageSets, labels.json and classes.txt.
        train_split: Split to train on: a name in ImageSets/Segmentation or the path of a .txt list.
        val_split: Split to validate on.
        test_split: Split to test on.
        predict_split: Split to predict.
        labels: File of image-level labels: .npy, .csv or .json; none takes labels.json of the folder.
        classes: Names of the classes to learn: images stay whose labels name only these, and at least one.
            The network has one output for each and one for background. None learns all.
        knowledge: Folder of knowledge for training and prediction, <name>.map.png or <name>.png.
        advice: Folder of advice for training and prediction, <name>.map.png or <name>.png.
        maps: Folder of score maps that reach prediction as scores, <name>.map.png (for the affinity stage).
        truth: Folder of ground-truth masks inside COCO2014, for scoring only.
        resize: Smallest and largest longest side of training images in pixels; none keeps their size.
        keep_aspect: Keep the aspect ratio in that; false makes squares, as the authors' code does.
        crop_size: Side of the training crop in pixels.
        flip: Mirror half of the training images.
        color_jitter: Strengths of brightness, contrast, saturation and hue jitter of training images.
        batch_size: Training images a batch; evaluation and prediction take whole images, one a batch.
        num_workers: Loader processes; 0 loads in the main process.
    """

    def __init__(
        self,
        root: Path | str,
        train_split: str = "train",
        val_split: str = "val",
        test_split: str = "val",
        predict_split: str = "train",
        labels: Path | str | None = None,
        classes: list[str] | None = None,
        knowledge: Path | str | None = None,
        advice: Path | str | None = None,
        maps: Path | str | None = None,
        truth: str = "SegmentationClass",
        resize: tuple[int, int] | None = None,
        keep_aspect: bool = True,
        crop_size: int = 448,
        flip: bool = True,
        color_jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1),
        batch_size: int = 16,
        num_workers: int = 2,
    ) -> None:
        names = Path(root) / "classes.txt"
        if not names.is_file():
            raise InputError(
                f"root {root} should be a folder COCO2014 with classes.txt; make it with `ssdd prepare coco`"
            )
        super().__init__(
            table=ClassTable.select(class_table(names).names, classes),
            root=root,
            labels=labels or Path(root) / "labels.json",
            truth=truth,
            splits={"train": train_split, "val": val_split, "test": test_split, "predict": predict_split},
            guides={"knowledge": knowledge, "advice": advice},
            train_transform=TrainTransform(crop_size, resize, keep_aspect, flip, color_jitter),
            batch_size=batch_size,
            num_workers=num_workers,
            maps=maps,
        )
