"""PASCAL VOC 2012: its folders, its labels, and the data module over them."""

from pathlib import Path

from ssdd_lightning.data.classes import VOC_CLASSES, ClassTable
from ssdd_lightning.data.datamodule import WeakDataModule
from ssdd_lightning.data.dataset import Record
from ssdd_lightning.data.labels import Labels, read_annotations, read_label_file
from ssdd_lightning.data.splits import find_list, read_list
from ssdd_lightning.data.transforms import TrainTransform
from ssdd_lightning.errors import InputError


def find_devkit(root: Path) -> Path:
    """Find the folder that holds JPEGImages and ImageSets.

    Args:
        root: That folder itself, or one that holds it as `VOC2012` or `VOCdevkit/VOC2012`.

    Raises:
        InputError: There is none.
    """
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "JPEGImages").is_dir():
            return folder
    found = "the folder does not exist" if not root.is_dir() else "found none of them"
    raise InputError(
        f"root {root} should hold JPEGImages, VOC2012/JPEGImages or VOCdevkit/VOC2012/JPEGImages, {found}; "
        "unpack VOCtrainval_11-May-2012.tar there or correct `root`"
    )


class VOCDataModule(WeakDataModule):
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
        folders = {"knowledge": knowledge, "advice": advice}
        super().__init__(
            table=ClassTable.select(VOC_CLASSES, classes),
            splits={"train": train_split, "val": val_split, "test": test_split, "predict": predict_split},
            guides={key: Path(folder) for key, folder in folders.items() if folder is not None},
            train_transform=TrainTransform(crop_size, resize, keep_aspect, flip, color_jitter),
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
            raise InputError(f"truth folder {folder} does not exist; name another one with `truth`")
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
                "are missing); add them or choose another split"
            )
        return labels, str(self.labels)
