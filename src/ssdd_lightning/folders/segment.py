"""Photos in, masks out: one on each core, or one by one on a GPU; resumable and in constant memory."""

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ssdd_lightning.callbacks.panels import overlay
from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.data.labels import Labels
from ssdd_lightning.errors import InputError
from ssdd_lightning.folders.cores import is_reentrant, on_cores
from ssdd_lightning.stages.segmentation import SegmentationStage
from ssdd_lightning.storage.images import image_size
from ssdd_lightning.storage.ledger import Item, Items, Ledger, Recipe
from ssdd_lightning.storage.lock import locked
from ssdd_lightning.storage.masks import read_image, read_mask, save_image, write_mask
from ssdd_lightning.storage.score_maps import mask_path
from ssdd_lightning.storage.threads import in_threads

NAME = "segment"
OVERLAYS = "overlays"
LARGEST_WHOLE = 1 << 25
"""Pixels of a photo that is segmented at its own size without being told to; the class probabilities take a hundred
times the photo's memory."""
ONE_CORE = 1 << 26
"""Class probabilities of a photo's largest view up to which it is segmented on one core, beside others: 1.4 million
pixels with 21 classes and a scale of 1.5. A larger one has all cores, and the memory, to itself."""
BESIDE_GPU = 2  # reading and writing a photo takes far less time than segmenting it
Photo = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SegmentJob:
    """What to segment and how.

    Args:
        stage: The network and its protocol, on its device.
        class_table: Which of the dataset's classes its outputs are.
        out: Folder for `<name>.png`, and `overlays/<name>.jpg`.
        labels: Dataset indices of the foreground classes that each image shows; None lets every class be predicted.
        overlays: Also write the photos coloured by their masks.
        max_side: Photos with a longer side are segmented at this size; None segments every photo at its own, and
            refuses those of more than `LARGEST_WHOLE` pixels.

    Raises:
        InputError: `max_side` is not above 0.
    """

    stage: SegmentationStage
    class_table: ClassTable
    out: Path
    labels: Mapping[str, Labels] | None = None
    overlays: bool = False
    max_side: int | None = None

    def __post_init__(self) -> None:
        if self.max_side is not None and self.max_side < 1:
            raise InputError(f"max_side must be 1 or more; found {self.max_side}.")

    def run(
        self, photos: Mapping[str, Path], settings: Mapping[str, Any], inputs: Mapping[str, str], progress: bool = True
    ) -> int:
        """Segment what is not segmented yet; see `ssdd_lightning.storage.ledger`.

        Args:
            photos: Image name -> file.
            settings: What makes the masks, as plain values; kept in `out/segment.json`.
            inputs: Fingerprints of what makes them, by name.
            progress: Whether to show a bar.

        Returns:
            How many masks this call wrote.

        Raises:
            InputError: A photo is damaged or has no label, `out` holds masks from elsewhere or is the photos' own
                folder.
        """
        self._check(photos)

        def item(name: str) -> Item:
            """The input and output of one photo."""
            labels = "" if self.labels is None else str(self.labels[name])
            return Item((photos[name],), (mask_path(self.out, name),), labels)

        with locked(self.out):
            ledger = Ledger(self.out, NAME, Recipe(settings, inputs), Items(photos, item))
            if ledger.earlier is None:
                self._check_free(photos)
            written = ledger.make(lambda names: self._segmented(photos, names), {"masks": len(photos)}, progress)
            if self.overlays:
                self._write_overlays(photos, progress)
        return written

    def _segmented(self, photos: Mapping[str, Path], names: list[str]) -> Iterator[str]:
        """Segment some photos, and yield the name of each."""
        on_cpu = self.stage.device.type == "cpu"
        turn = nullcontext() if on_cpu else threading.Lock()

        def segment(name: str) -> str:
            """Segment one photo."""
            photo, labels = self._photo(photos[name]), None if self.labels is None else self.labels[name]
            with turn:
                mask = self.mask(photo, labels)
            write_mask(mask_path(self.out, name), mask)
            return name

        if not on_cpu:
            yield from in_threads(segment, names, BESIDE_GPU)
            return
        shared = is_reentrant(self.stage)
        large = {name for name in names if not shared or self._is_large(photos[name])}
        yield from on_cores(segment, [name for name in names if name not in large])
        yield from (segment(name) for name in names if name in large)

    def _is_large(self, path: Path) -> bool:
        """Whether a photo has all cores; what is wrong with it is said when it is read."""
        with suppress(InputError):
            largest = max(1.0, *self.stage.testing.scales)
            pixels = math.prod(self._size(*image_size(path)))
            return self.stage.num_classes * pixels * largest**2 > ONE_CORE
        return False

    @torch.no_grad()
    def mask(self, photo: Photo, labels: Labels | None) -> Photo:
        """Segment one photo.

        Args:
            photo: H x W x 3 uint8 RGB.
            labels: Dataset indices of the foreground classes that it shows, or None.

        Returns:
            H x W uint8 in dataset indices.
        """
        indices = self.class_table.indices
        image = torch.from_numpy(self._shrunk(photo)).permute(2, 0, 1)[None].to(self.stage.device)
        present = None if labels is None else torch.tensor([[index in (0, *labels) for index in indices]])
        mask = self.stage.segment(image, None if present is None else present.to(image.device))[0]
        found = np.array(indices, np.uint8)[mask.cpu().numpy()]
        size = photo.shape[1], photo.shape[0]
        return np.asarray(Image.fromarray(found).resize(size, Image.Resampling.NEAREST))

    def _photo(self, path: Path) -> Photo:
        height, width = image_size(path)
        if self.max_side is None and height * width > LARGEST_WHOLE:
            raise InputError(
                f"{path} has {width} x {height} pixels, more than the {LARGEST_WHOLE:,} that are segmented at once "
                f"without being asked for; give --max_side, such as 2000, or {max(height, width)} for the whole photo."
            )
        return read_image(path)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which a photo is segmented."""
        longest = max(height, width)
        if self.max_side is None or longest <= self.max_side:
            return height, width
        return max(1, round(height * self.max_side / longest)), max(1, round(width * self.max_side / longest))

    def _shrunk(self, photo: Photo) -> Photo:
        height, width = self._size(*photo.shape[:2])
        if (height, width) == photo.shape[:2]:
            return photo
        return np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def _check(self, photos: Mapping[str, Path]) -> None:
        inside = next((path for path in photos.values() if path.parent.resolve() == self.out.resolve()), None)
        if inside is not None:
            raise InputError(
                f"the masks would be written among the photos, beside {inside}; choose another folder with --out."
            )
        if self.labels is not None:
            missing = [name for name in photos if name not in self.labels]
            if missing:
                raise InputError(
                    f"the label file does not name {missing[0]} ({len(missing)} of {len(photos)} photos are missing); "
                    "add them, or leave --labels out to let every class be predicted."
                )
            unknown = [name for name in photos if not set(self.class_table.indices).issuperset(self.labels[name])]
            if unknown:
                print(f"{len(unknown)} photos, such as {unknown[0]}, have labels that this network did not learn.")

    def _check_free(self, photos: Mapping[str, Path]) -> None:
        """Refuse a folder of masks from elsewhere, such as ground truth: they must not be overwritten."""
        there = [name for name in photos if mask_path(self.out, name).exists()]
        if there:
            raise InputError(
                f"{mask_path(self.out, there[0])} exists and was not written by this command ({len(there)} of "
                f"{len(photos)} names are taken); choose another folder with --out."
            )

    def _write_overlays(self, photos: Mapping[str, Path], progress: bool) -> None:
        """Write overlays as a product of their own, so that they can be added later without the network."""
        out = self.out / OVERLAYS
        items = Items(photos, lambda name: Item((photos[name], mask_path(self.out, name)), (out / f"{name}.jpg",)))

        def draw(name: str) -> None:
            (photo, mask), (target,) = items[name].sources, items[name].products
            drawn = Image.fromarray(overlay(read_image(photo), read_mask(mask)))
            save_image(target, drawn, format="JPEG", quality=90)

        Ledger(out, OVERLAYS, Recipe(), items).make_each(draw, 1, progress)
