"""PASCAL VOC 2012."""

from pathlib import Path

from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.data.choice import DEVKITS
from ssdd_lightning.data.classes import VOC_CLASSES, ClassTable
from ssdd_lightning.data.devkit import DevkitDataModule
from ssdd_lightning.data.splits import Splits
from ssdd_lightning.data.transforms import TrainTransform


class VOCDataModule(DevkitDataModule):
    """Photos of PASCAL VOC 2012 with image-level labels; ground truth masks are used for scoring only.

    Args:
        root: Folder that holds VOCdevkit/VOC2012 or VOC2012, or VOC2012 itself.
        splits: Which images are trained on (trainaug), validated (val), tested (val) and predicted (trainaug).
        labels: File of image-level labels: cls_labels.npy, .csv or .json; none reads Annotations/*.xml.
        classes: Names of the classes to learn: images stay whose labels name only these, and at least one.
            The network has one output for each and one for background. None learns all.
        knowledge: Folder of knowledge for training and prediction, <name>.map.png or <name>.png.
        advice: Folder of advice for training and prediction, <name>.map.png or <name>.png.
        maps: Folder of score maps for prediction alone, <name>.map.png, handed on as scores (affinity stage).
        truth: Folder of ground truth masks inside VOC2012 (SegmentationClassAug for SBD's), for scoring only.
        augmentation: Resize, crop, flip and colour jitter of training images.
        batch_size: Training images per batch; evaluation and prediction take whole images, one per batch.
        num_workers: Loader processes; 0 loads in the main process.
    """

    def __init__(
        self,
        root: Path | str,
        splits: Splits = Splits(),
        labels: Path | str | None = None,
        classes: list[str] | None = None,
        knowledge: Path | str | None = None,
        advice: Path | str | None = None,
        maps: Path | str | None = None,
        truth: str = "SegmentationClass",
        augmentation: Augmentation = Augmentation(),
        batch_size: int = 16,
        num_workers: int = 2,
    ) -> None:
        super().__init__(
            table=ClassTable.select(VOC_CLASSES, classes),
            root=root,
            labels=labels,
            truth=truth,
            splits=splits.or_else(*DEVKITS["voc"]),
            guides={"knowledge": knowledge, "advice": advice},
            train_transform=TrainTransform(augmentation),
            batch_size=batch_size,
            num_workers=num_workers,
            maps=maps,
        )
