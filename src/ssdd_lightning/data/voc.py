"""PASCAL VOC 2012."""

from pathlib import Path

from ssdd_lightning.data.classes import VOC_CLASSES, ClassTable
from ssdd_lightning.data.devkit import DevkitDataModule
from ssdd_lightning.data.transforms import TrainTransform


class VOCDataModule(DevkitDataModule):
    """Photos of PASCAL VOC 2012 with image-level labels; ground-truth masks reach scoring only.

    Args:
        root: Folder that holds VOCdevkit/VOC2012 or VOC2012, or VOC2012 itself.
        train_split: Split to train on: a name in ImageSets/Segmentation or the path of a .txt list.
        val_split: Split to validate on.
        test_split: Split to test on.
        predict_split: Split to predict.
        labels: File of image-level labels: cls_labels.npy, .csv or .json; none reads Annotations/*.xml.
        classes: Names of the classes to learn: images stay whose labels name only these, and at least one.
            The network has one output for each and one for background. None learns all.
        knowledge: Folder of knowledge for training and prediction, <name>.map.png or <name>.png.
        advice: Folder of advice for training and prediction, <name>.map.png or <name>.png.
        maps: Folder of score maps for prediction alone, <name>.map.png, handed on as scores (affinity stage).
        truth: Folder of ground-truth masks inside VOC2012 (SegmentationClassAug for SBD's), for scoring only.
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
        train_split: str = "trainaug",
        val_split: str = "val",
        test_split: str = "val",
        predict_split: str = "trainaug",
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
        super().__init__(
            table=ClassTable.select(VOC_CLASSES, classes),
            root=root,
            labels=labels,
            truth=truth,
            splits={"train": train_split, "val": val_split, "test": test_split, "predict": predict_split},
            guides={"knowledge": knowledge, "advice": advice},
            train_transform=TrainTransform(crop_size, resize, keep_aspect, flip, color_jitter),
            batch_size=batch_size,
            num_workers=num_workers,
            maps=maps,
        )
