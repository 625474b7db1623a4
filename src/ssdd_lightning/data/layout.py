"""Where a dataset lies: a devkit in VOC's layout, or a plain folder of photos."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.data.labels import Labels, read_annotations, read_label_file
from ssdd_lightning.data.splits import find_list, read_list, read_names
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.images import find_images

TRUTH = "SegmentationClass"
"""Folder of a devkit's ground truth."""


@dataclass(frozen=True)
class Devkit:
    """A dataset in VOC's layout.

    Args:
        root: See `find_devkit`.
        labels: File of image-level labels; None reads Annotations/*.xml.
        truth: Folder of ground truth masks inside the devkit.
    """

    root: Path
    labels: Path | None = None
    truth: str = TRUTH

    @cached_property
    def folder(self) -> Path:
        """The devkit itself; an InputError if there is none."""
        return find_devkit(self.root)

    @property
    def images(self) -> Path:
        """Folder of photos."""
        return self.folder / "JPEGImages"

    @property
    def annotations(self) -> Path:
        """Folder of VOC's XML files."""
        return self.folder / "Annotations"

    @property
    def masks(self) -> Path:
        """Folder of ground truth."""
        return self.folder / self.truth

    @property
    def lists(self) -> Path:
        """Folder of the lists of its splits."""
        return self.folder / "ImageSets" / "Segmentation"

    def names(self, split: str) -> list[str]:
        """Read the images of a split: a name in `lists`, or the path of a .txt list."""
        return read_list(find_list(split, self.lists))

    def photos(self, names: Sequence[str]) -> list[Path]:
        """Paths of photos, whether they are there or not."""
        return [self.images / f"{name}.jpg" for name in names]

    def files(self, split: str) -> list[Path]:
        """Every file that a stage may read for a split, whether it is there or not."""
        try:
            names = self.names(split)
        except InputError:
            return []  # whoever needs it says so
        found = [find_list(split, self.lists), self.folder / "labels.json"]  # of datasets that bring their labels so
        found += [path for name in names for path in (self.annotations / f"{name}.xml", self.masks / f"{name}.png")]
        return found + self.photos(names)


@dataclass(frozen=True)
class PhotoFolder:
    """A plain folder of photos with a file of labels.

    Args:
        images: The folder; see `find_images`.
        labels: File of image-level labels.
        masks: Folder of ground truth masks, if there are any.
    """

    images: Path
    labels: Path
    masks: Path | None = None

    def names(self, split: str) -> list[str] | None:
        """Read a list of images; None, which stands for all with a label, if `split` is empty."""
        return read_names(Path(split)) if split else None

    def photos(self, names: Sequence[str]) -> list[Path]:
        """Paths of photos, whether they are there or not."""
        found = find_images(self.images)
        return [found.get(name, self.images / f"{name}.jpg") for name in names]

    def files(self, split: str) -> list[Path]:
        """Every file that a stage may read for a split."""
        masks = [] if self.masks is None else sorted(self.masks.glob("*.png"))
        return [*([Path(split)] if split else []), *find_images(self.images).values(), *masks]


Location = Devkit | PhotoFolder


def labels_of(location: Location, split: str, table: ClassTable) -> tuple[dict[str, Labels], str]:
    """Read the labels of a split's images.

    Returns:
        Image name -> labels, in the order of the list, and where the labels come from.

    Raises:
        InputError: The list or the labels cannot be read, or do not name the same images.
    """
    names, path = location.names(split), location.labels
    if path is None:
        assert isinstance(location, Devkit)
        return read_annotations(location.annotations, names or (), table), str(location.annotations)
    labels = read_label_file(path, table)
    missing = [name for name in names or () if name not in labels]
    if missing:
        raise InputError(
            f"label file {path} does not name image {missing[0]} ({len(missing)} of {len(names or ())} are missing); "
            f"add them, remove them from {split}, or choose another split."
        )
    return labels if names is None else {name: labels[name] for name in names}, str(path)


def find_devkit(root: Path) -> Path:
    """Find the folder `VOC2012`: the root itself, or in it, or in its VOCdevkit.

    Raises:
        InputError: None of these holds JPEGImages.
    """
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "JPEGImages").is_dir():
            return folder
    found = "the folder does not exist" if not root.is_dir() else "found none of them"
    raise InputError(
        f"root {root} should hold JPEGImages, VOC2012/JPEGImages or VOCdevkit/VOC2012/JPEGImages, {found}; "
        "unpack VOCtrainval_11-May-2012.tar there or correct `root`."
    )
