"""COCO 2014, as `ssdd prepare coco` lays it out."""

from pathlib import Path

from ssdd_lightning.data.classes import class_table
from ssdd_lightning.data.devkit import DevkitDataModule
from ssdd_lightning.errors import InputError


class COCODataModule(DevkitDataModule):
    """Photos of COCO 2014 with image-level labels; ground truth masks are used for scoring only.

    Args:
        root: The folder COCO2014, with JPEGImages, SegmentationClass, ImageSets, labels.json and classes.txt.
        splits: Which images are trained on (train), validated (val), tested (val) and predicted (train).
        labels: File of image-level labels: .npy, .csv or .json; none takes labels.json of the folder.
        classes: Names of the classes to learn: images stay whose labels name only these, and at least one.
            The network has one output for each and one for background. None learns all.
        knowledge: Folder of knowledge for training and prediction, <name>.map.png or <name>.png.
        advice: Folder of advice for training and prediction, <name>.map.png or <name>.png.
        maps: Folder of score maps that reach prediction as scores, <name>.map.png (for the affinity stage).
        truth: Folder of ground truth masks inside COCO2014, for scoring only.
        augmentation: Resize, crop, flip and colour jitter of training images.
        batch_size: Training images per batch.
        num_workers: Loader processes; 0 loads in the main process.
        eval_batch_size: Most whole images of one size that are evaluated or predicted together. With 1 a mask does not
            depend, by a rounding, on which images a batch holds, as in a run that is resumed or has more processes.
    """

    dataset = "coco"
    label_file = "labels.json"

    @staticmethod
    def all_classes(root: Path) -> tuple[str, ...]:
        """Names in classes.txt."""
        names = root / "classes.txt"
        if not names.is_file():
            raise InputError(
                f"root {root} should be a folder COCO2014 with classes.txt; make it with `ssdd prepare coco`."
            )
        return class_table(names).names
