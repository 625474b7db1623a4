"""Everything that can be wrong with one image: its photo, its masks, its labels."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.data.labels import Labels, read_annotations
from ssdd_lightning.errors import InputError, listed
from ssdd_lightning.storage.decoding import reason
from ssdd_lightning.storage.masks import odd_colours, opened_image, read_image, read_mask
from ssdd_lightning.storage.score_maps import mask_path

Found = list[tuple[str, str]]
"""Pairs of check and entry, see `report.CHECKS`."""


@dataclass(frozen=True)
class Patient:
    """One image.

    Args:
        name: Image name.
        truths: Folders that should hold its mask.
        any_truth: One of all folders of masks is enough.
        labelled: Whether it needs labels.
    """

    name: str
    truths: frozenset[str]
    any_truth: bool
    labelled: bool


@dataclass(frozen=True)
class Examination:
    """What is known about all images.

    Args:
        devkit: Folder that holds JPEGImages.
        truths: Names of the folders of masks in it.
        table: The dataset's classes.
        labels: Labels of a file by image, None for an image whose labels are wrong; no mapping: Annotations are read.
        annotated: Whether there are labels at all.
    """

    devkit: Path
    truths: tuple[str, ...]
    table: ClassTable
    labels: Mapping[str, Labels | None] | None
    annotated: bool

    def examine(self, patient: Patient) -> tuple[str, Found, int]:
        """Read everything of an image.

        Returns:
            Digest of its photo ("" without one), what is wrong, and how many of its masks are grey.
        """
        digest, size, found = self._photo(patient.name)
        labels, more = self._labels(patient)
        found += more
        present = [folder for folder in self.truths if mask_path(self.devkit / folder, patient.name).is_file()]
        missing = patient.truths.difference(present)
        if missing:
            found += [("mask missing", f"{folder}/{patient.name}.png") for folder in sorted(missing)]
        elif patient.any_truth and self.truths and not present:
            found.append(("mask missing", f"{'|'.join(self.truths)}/{patient.name}.png"))
        grey = 0
        for folder in present:
            problems, is_grey = self._mask(folder, patient.name, size, labels)
            found += problems
            grey += is_grey
        return digest, found, grey

    def _photo(self, name: str) -> tuple[str, tuple[int, int] | None, Found]:
        path = self.devkit / "JPEGImages" / f"{name}.jpg"
        if not path.is_file():
            return "", None, [("image missing", f"JPEGImages/{name}.jpg")]
        try:
            height, width, _ = read_image(path).shape
        except InputError as error:
            return "", None, [("image unreadable", f"JPEGImages/{name}.jpg: {_reason(error)}")]
        return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest(), (height, width), []

    def _labels(self, patient: Patient) -> tuple[Labels | None, Found]:
        name = patient.name
        if not self.annotated:
            return None, []
        if self.labels is not None:
            labels = self.labels.get(name, ())
            if labels is None:
                return None, []  # wrong, which was noted when the file was read
        elif (self.devkit / "Annotations" / f"{name}.xml").is_file():
            try:
                labels = read_annotations(self.devkit / "Annotations", [name], self.table)[name]
            except InputError as error:
                return None, [("label wrong", str(error))]
        else:
            labels = None
        return labels or None, [("label missing", name)] if patient.labelled and not labels else []

    def _mask(self, folder: str, name: str, size: tuple[int, int] | None, labels: Labels | None) -> tuple[Found, bool]:
        path, what = mask_path(self.devkit / folder, name), f"{folder}/{name}.png"
        try:
            mask = read_mask(path)
        except InputError as error:
            return [("mask unreadable", f"{what}: {_reason(error)}")], False
        found: Found = []
        if size is not None and mask.shape != size:
            found.append(("mask size", f"{what}: {mask.shape[1]} x {mask.shape[0]}, photo {size[1]} x {size[0]}"))
        values: list[int] = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
        strange = [value for value in values if value >= len(self.table.names) and value != IGNORE]
        if strange:
            found.append(("mask values", f"{what}: {listed(strange)}"))
        unlabelled = [value for value in values if 0 < value < len(self.table.names) and value not in (labels or ())]
        if labels is not None and unlabelled:
            names = ", ".join(self.table.names[value] for value in unlabelled)
            found.append(("label of mask", f"{what}: {names}"))
        with opened_image(path, "mask", "write it again", ["PNG"]) as image:
            odd = odd_colours(image, values) if image.mode == "P" else []
            grey = image.mode == "L"
        if odd:
            found.append(("mask palette", f"{what}: colour of {listed(odd)}"))
        return found, grey


def _reason(error: InputError) -> str:
    return reason(error.__cause__ or error)
