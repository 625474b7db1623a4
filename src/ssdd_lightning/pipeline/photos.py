"""The photos of a run: a devkit in VOC's layout, or a plain folder of one's own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssdd_lightning.data.choice import DEVKITS
from ssdd_lightning.data.layout import find_devkit
from ssdd_lightning.data.splits import find_list, read_list
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.images import find_images


@dataclass(frozen=True)
class Photos(ABC):
    """Where photos, labels and ground truth of a run lie.

    Args:
        settings: What every stage is told of them.
        images: Folder of photos.
        truth: Folder of ground truth masks, for scoring only; None if there is none.
    """

    settings: Mapping[str, Any]
    images: Path
    truth: Path | None

    @abstractmethod
    def split(self, data: Mapping[str, Any], phase: str) -> str:
        """The images of a phase: name or path of a list; "" for all that are labelled.

        Args:
            data: The section `data` of a stage's configuration.
            phase: train, val, test or predict.
        """

    @abstractmethod
    def files(self, data: Mapping[str, Any], split: str) -> list[Path]:
        """Every file that a stage may read for a split, whether it is there or not; see `split`."""

    def scored(self, names: Sequence[str]) -> list[str]:
        """Those of some images that are to be scored."""
        return [] if self.truth is None else list(names)


@dataclass(frozen=True)
class DevkitPhotos(Photos):
    """Photos of VOC or COCO, or of another dataset in their layout.

    Args:
        settings: As `Photos`, and the two that follow.
        images: See there.
        truth: See there.
        devkit: Folder of the devkit.
        own_splits: The dataset's own splits, see `DEVKITS`.
    """

    devkit: Path
    own_splits: tuple[str, str]

    def split(self, data: Mapping[str, Any], phase: str) -> str:
        """See `Photos`."""
        return str((data.get("splits") or {}).get(phase) or self.own_splits[phase in ("val", "test")])

    def files(self, data: Mapping[str, Any], split: str) -> list[Path]:
        """See `Photos`."""
        try:
            path = find_list(split, self.devkit / "ImageSets" / "Segmentation")
            names = read_list(path)
        except InputError:
            return []  # whoever needs it says so
        masks = self.devkit / str(data.get("truth"))
        found = [path, self.devkit / "labels.json"]  # of datasets that bring their labels so
        for name in names:
            found += [self.images / f"{name}.jpg", self.devkit / "Annotations" / f"{name}.xml", masks / f"{name}.png"]
        return found


@dataclass(frozen=True)
class OwnPhotos(Photos):
    """A plain folder of photos with a file of labels."""

    def split(self, data: Mapping[str, Any], phase: str) -> str:
        """See `Photos`."""
        return str((data.get("splits") or {}).get(phase) or "")

    def files(self, data: Mapping[str, Any], split: str) -> list[Path]:
        """See `Photos`."""
        found = [Path(value) for value in (split, data.get("class_names")) if value]
        masks = [] if self.truth is None else sorted(self.truth.glob("*.png"))
        return [*found, *find_images(self.images).values(), *masks]

    def scored(self, names: Sequence[str]) -> list[str]:
        """Those of some images that have ground truth."""
        return [name for name in super().scored(names) if (Path(str(self.truth)) / f"{name}.png").is_file()]


def find_photos(
    data: Mapping[str, Any],
    dataset: str,
    root: Path | None = None,
    labels: Path | None = None,
    truth: str | None = None,
) -> Photos:
    """Find the photos of a run.

    Args:
        data: The section `data` of an experiment; what it says counts where an option below is None.
        dataset: voc, coco or folder.
        root: Folder that holds a devkit.
        labels: File of image-level labels.
        truth: Ground truth: a folder in the devkit, or the path of one beside photos of one's own.

    Raises:
        InputError: A devkit is given for photos of one's own, nothing says where those lie, or there is no such folder.
    """
    given = {"root": root, "labels": labels, "truth": truth}
    if dataset in DEVKITS:
        root, truth = root or Path(data.get("root") or "."), truth or str(data.get("truth") or "SegmentationClass")
        settings, devkit = _settings({**given, "root": root, "truth": truth}), find_devkit(root)
        return DevkitPhotos(settings, devkit / "JPEGImages", devkit / truth, devkit, DEVKITS[dataset])
    if root is not None:
        raise InputError("--root: this experiment is of photos of your own; give --images and --labels.")
    if not data.get("images") or not (labels or data.get("labels")):
        raise InputError(
            "expected --images and --labels for photos of your own, or --config with the data.yaml of `ssdd prepare "
            "folder`."
        )
    masks = truth or data.get("truth")
    return OwnPhotos(_settings(given), Path(data["images"]), None if masks is None else Path(masks))


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    return {f"data.{key}": str(value) for key, value in given.items() if value is not None}
