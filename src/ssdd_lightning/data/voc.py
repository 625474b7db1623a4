"""PASCAL VOC 2012."""

from pathlib import Path

from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.data.devkit import DevkitDataModule


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
        batch_size: Training images per batch.
        num_workers: Loader processes; 0 loads in the main process.
        eval_batch_size: Most whole images of one size that are evaluated or predicted together. With 1 a mask does not
            depend, by a rounding, on which images a batch holds, as in a run that is resumed or has more processes.
    """

    dataset = "voc"

    @staticmethod
    def all_classes(root: Path) -> tuple[str, ...]:
        """Names of VOC's classes."""
        return VOC_CLASSES
