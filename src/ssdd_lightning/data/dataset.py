"""A torch dataset over files: what every dataset, VOC or other, becomes once its files are found."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.data.guides import Guide, check_values, read_guides, read_scores
from ssdd_lightning.data.labels import Labels
from ssdd_lightning.data.sampling import Draw, seed_for
from ssdd_lightning.data.transforms import TrainTransform, View
from ssdd_lightning.errors import InputError, check_size
from ssdd_lightning.storage.masks import opened_photo, read_mask, read_pixels

Sample = dict[str, Tensor | str]


class Transform(Protocol):
    """What turns an image and its guides into a view: `TrainTransform` or `PlainTransform`."""

    def __call__(
        self, image: npt.NDArray[np.uint8], guides: dict[str, Guide], present: npt.NDArray[np.uint8], seed: int
    ) -> View:
        """Return the view; see `TrainTransform`."""
        ...


@dataclass(frozen=True)
class Record:
    """Where the parts of one image lie.

    Args:
        name: Image name, unique in its split.
        image: The photo.
        labels: Dataset indices of its foreground classes, ascending.
        mask: Ground truth, for scoring only; None in training and prediction.
        guides: `knowledge` and `advice` -> file of maps or mask.
        maps: Score maps to be handed on as they are, in prediction only.
    """

    name: str
    image: Path
    labels: Labels
    mask: Path | None = None
    guides: dict[str, Path] = field(default_factory=dict)
    maps: Path | None = None


class FolderDataset(Dataset[Sample]):
    """Images with image-level labels, and truth or guides where the records name them.

    A sample holds `image` and `image_raw` (3 x H x W uint8 RGB: augmented, and the same without colour
    jitter), `image_labels` (C bool, background true), `name`, and if the record has them `knowledge`,
    `advice` and `mask` (H x W long in network indices, 255 ignore or padding). Training samples have `valid`
    too (H x W bool, false on padding). A record with `maps` adds them as C x H x W float in [0, 1]; they are not
    transformed.

    Args:
        records: One entry per image.
        table: The dataset's classes and the network's choice of them.
        transform: Makes the view.
    """

    def __init__(self, records: Sequence[Record], table: ClassTable, transform: Transform) -> None:
        self.records = list(records)
        self.table = table
        self.transform = transform
        self.seed = 0
        """Seed of the run; with epoch and index it decides the augmentation."""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: int | Draw) -> Sample:
        """Read and transform one image.

        Args:
            draw: Position of the image, or with the epoch that it is drawn in (otherwise 0).

        Raises:
            InputError: A file is unreadable, of another size than the image, or holds wrong classes.
        """
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # each worker is one process; OpenCV's threads would fight over the cores
        index, epoch = draw if isinstance(draw, tuple) else (draw, 0)
        record = self.records[index]
        present = self.table.to_network()[[0, *record.labels]]
        view, size = self._read_view(record, present, seed_for(self.seed, epoch, index))
        sample: Sample = {key: _to_tensor(array) for key, array in view.items() if key != "valid"}
        if "valid" in view:
            sample["valid"] = torch.from_numpy(view["valid"].astype(bool))
        if record.mask is not None:
            sample["mask"] = self._read_truth(record.mask, size, record)
        if record.maps is not None:
            scores = read_scores(record.maps, self.table, record.labels)
            check_size(scores.shape[1:], size, f"map {record.maps}", f"its image {record.image}")
            sample["maps"] = torch.from_numpy(scores)
        return {**sample, "image_labels": self._label_vector(present), "name": record.name}

    def _read_view(self, record: Record, present: npt.NDArray[np.uint8], seed: int) -> tuple[View, tuple[int, int]]:
        """The view of an image, and the height and width of the whole image."""
        transform, window = self.transform, None
        with opened_photo(record.image) as photo:
            size = photo.height, photo.width
            if type(transform) is TrainTransform:  # a transform of one's own takes whole images
                window = transform.draw(*size, seed)
            image = read_pixels(photo, 1 if window is None else window.reduction)
        guides = read_guides(record.guides, self.table, record.labels)
        for key, guide in guides.items():
            check_size(guide.shape, size, f"{key} {record.guides[key]}", f"its image {record.image}")
        if type(transform) is TrainTransform and window is not None:
            return transform.cut(image, guides, present, window), size
        return transform(image, guides, present, seed), size

    def _read_truth(self, path: Path, size: tuple[int, int], record: Record) -> Tensor:
        mask = read_mask(path)
        check_size(mask.shape, size, f"mask {path}", f"its image {record.image}")
        check_values(mask, path, self.table)
        return _to_tensor(self.table.to_network()[mask])

    def _label_vector(self, present: npt.NDArray[np.uint8]) -> Tensor:
        vector = np.zeros(self.table.num_classes, bool)
        vector[present] = True
        return torch.from_numpy(vector)


def select_records(records: Sequence[Record], table: ClassTable, source: str) -> list[Record]:
    """Keep the images that a network for the selected classes can learn from.

    Args:
        records: All images of a split.
        table: With a choice of classes, images stay whose labels name only chosen classes, and at least one.
        source: Where the labels come from, for the message.

    Raises:
        InputError: An image has no label, or no image is left.
    """
    empty = next((record for record in records if not record.labels), None)
    if empty is not None:
        raise InputError(f"image {empty.image} has no label in {source}; label it or remove it from the split's list.")
    chosen = set(table.indices)
    kept = [record for record in records if chosen.issuperset(record.labels)]
    if not kept:
        raise InputError(
            f"none of {len(records)} images shows only {', '.join(table.selected_names[1:])} by {source}; "
            "choose other `classes` or another split."
        )
    return kept


def check_exist(paths: Sequence[Path], what: str, remedy: str) -> None:
    """Raise an InputError that names the first missing file and counts all of them."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(f"{what} {missing[0]} does not exist ({len(missing)} of {len(paths)} are missing); {remedy}.")


def _to_tensor(array: npt.NDArray[np.uint8]) -> Tensor:
    if array.ndim == 3:
        planes = np.empty((array.shape[2], *array.shape[:2]), array.dtype)
        cv2.split(array, list(planes))  # a third of the time of a transposed copy
        return torch.from_numpy(planes)
    return torch.from_numpy(array.astype(np.int64))
