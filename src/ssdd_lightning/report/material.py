"""What a report shows: folders of masks and difference maps, their photos and ground truth, and how they were made."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ssdd_lightning.data.classes import VOC_CLASSES, read_classes
from ssdd_lightning.data.splits import read_list
from ssdd_lightning.errors import InputError, check_folder
from ssdd_lightning.evaluation.folder import prediction_path
from ssdd_lightning.report.curves import Curve
from ssdd_lightning.storage.images import find_images
from ssdd_lightning.storage.listing import predicted_names
from ssdd_lightning.storage.score_maps import SUFFIX, mask_path

KNOWLEDGE, ADVICE, REFINED, PREDICTION, ORACLE = "knowledge", "advice", "refined", "prediction", "oracle"
DIFFERENCES = {"d_knowledge": "difference d_K", "d_advice": "difference d_A"}
"""Difference maps by the name of their folder, and their titles."""


@dataclass(frozen=True)
class Masks:
    """One folder of masks or score maps, which is one row of the table.

    Args:
        key: What programs call it, in letters, digits and _.
        title: What people call it.
        folder: Where `<name>.png` or `<name>.map.png` lie.
        split: What its images are called; "" for all that are there.
        listed: Names of that split; None for all that are there.
        seconds: How long the making took; None if that is not known.
    """

    key: str
    title: str
    folder: Path
    split: str = ""
    listed: Collection[str] | None = None
    seconds: float | None = None

    @cached_property
    def names(self) -> list[str]:
        """Images of the split that have a mask or score maps, sorted; none if the folder is empty."""
        if not any(self.folder.glob("[!.]*.png")):
            return []
        there = predicted_names(self.folder, say=False)
        return there if self.listed is None else [name for name in there if name in self.listed]


@dataclass(frozen=True)
class Material:
    """Everything that one report is made from.

    Args:
        title: What the page is called.
        images: Folder of photos.
        masks: Folders of masks, in the order of the making.
        differences: Folder that holds `d_knowledge` and `d_advice`, if there is one.
        truth: Folder of ground truth masks, for scoring and for show; None without.
        class_names: Name of each class by its index in masks.
        facts: What was run and on what, as pairs of words and values.
        steps: What was done: rows with `name`, `command`, `state`, `started`, `seconds`, `settings`.
        curves: Values that were logged during training.
        notes: Sentences that the reader should know.
    """

    title: str
    images: Path
    masks: tuple[Masks, ...]
    differences: Path | None = None
    truth: Path | None = None
    class_names: Mapping[int, str] = field(default_factory=lambda: dict(enumerate(VOC_CLASSES)))
    facts: tuple[tuple[str, str], ...] = ()
    steps: tuple[Mapping[str, Any], ...] = ()
    curves: tuple[Curve, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def photos(self) -> dict[str, Path]:
        """Photos of the images that have a mask, by name.

        Raises:
            InputError: There are masks, and a photo for none of them.
        """
        there = find_images(self.images)
        wanted = sorted({name for masks in self.masks for name in masks.names})
        found = {name: there[name] for name in wanted if name in there}
        if wanted and not found:
            raise InputError(
                f"folder {self.images} holds a photo of none of the {len(wanted)} masks, such as {wanted[0]}; name the "
                "folder of their photos with --images."
            )
        return found

    @cached_property
    def without_photo(self) -> int:
        """How many images have a mask and no photo."""
        return len({name for masks in self.masks for name in masks.names} - set(self.photos))

    def layers(self, name: str) -> dict[str, Path]:
        """Files of an image that become pictures, by the keys of their layers: masks, difference maps, `truth`."""
        found = {
            masks.key: prediction_path(masks.folder, name) for masks in self.masks if name in self._members[masks.key]
        }
        if self.differences is not None:
            maps = {key: mask_path(self.differences / key, name) for key in DIFFERENCES}
            found |= {key: path for key, path in maps.items() if path.is_file()}
        if self.truth is not None and mask_path(self.truth, name).is_file():
            found["truth"] = mask_path(self.truth, name)
        return found

    @cached_property
    def _members(self) -> dict[str, set[str]]:
        return {masks.key: set(masks.names) for masks in self.masks}

    @property
    def changing(self) -> str | None:
        """Key of the masks that are compared with the knowledge: the refined ones, or else the predictions."""
        keys = [masks.key for masks in self.masks]
        return next((key for key in (REFINED, PREDICTION) if key in keys and KNOWLEDGE in keys), None)


@dataclass(frozen=True)
class FolderOptions:
    """Folders that the user names; see `Material` and `Masks`.

    Args:
        images: Folder of photos.
        truth: Folder of ground truth masks.
        knowledge: Folder of masks or score maps that were refined.
        advice: The second such folder.
        split: File that lists the images to show.
        classes: File of class names.
    """

    images: Path | None = None
    truth: Path | None = None
    knowledge: Path | None = None
    advice: Path | None = None
    split: Path | None = None
    classes: Path | None = None

    def listed(self) -> frozenset[str] | None:
        """Names in the user's list, if there is one."""
        if self.split is None:
            return None
        images = {} if self.images is None else find_images(self.images)
        return frozenset(read_list(self.split, images.__contains__ if images else None))

    def class_names(self) -> dict[int, str]:
        """The user's classes, or else VOC's."""
        return dict(enumerate(VOC_CLASSES)) if self.classes is None else read_classes(self.classes)


def folder_material(predictions: Path, options: FolderOptions) -> Material:
    """What a report of single folders shows.

    Difference maps are those in the folder of the predictions.

    Raises:
        InputError: The folder of photos is not given, or a folder does not exist.
    """
    if options.images is None:
        raise InputError("a report of --predictions shows their photos; name the folder of photos with --images.")
    given = {KNOWLEDGE: options.knowledge, ADVICE: options.advice, PREDICTION: predictions}
    titles = {KNOWLEDGE: "knowledge K", ADVICE: "advice A", PREDICTION: "prediction"}
    check_folders([*given.values(), options.truth])
    split = "" if options.split is None else options.split.stem
    listed = options.listed()
    masks = [Masks(key, titles[key], folder, split, listed) for key, folder in given.items() if folder is not None]
    predicted_names(predictions)  # says what it expected if there is nothing
    named = {"predictions": predictions, "photos": options.images, "ground truth": options.truth}
    named |= {"knowledge": options.knowledge, "advice": options.advice, "list": options.split}
    return Material(
        predictions.resolve().name,
        options.images,
        tuple(masks),
        predictions if any((predictions / key).is_dir() for key in DIFFERENCES) else None,
        options.truth,
        options.class_names(),
        tuple((what, str(path)) for what, path in named.items() if path is not None),
    )


def check_folders(folders: Sequence[Path | None]) -> None:
    """Refuse folders that do not exist."""
    for folder in folders:
        if folder is not None:
            check_folder(folder, remedy=f"expected <name>.png masks or <name>{SUFFIX}")
