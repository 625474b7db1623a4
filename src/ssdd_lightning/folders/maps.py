"""A mapping function over a folder of score maps: all cores or a GPU, constant memory, resumable."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssdd_lightning.errors import InputError, check_folder, check_size
from ssdd_lightning.folders.device import find_device
from ssdd_lightning.functional.cam import cam_background
from ssdd_lightning.storage.images import IMAGE_SUFFIXES, find_images
from ssdd_lightning.storage.ledger import Item, Items, Ledger, Recipe
from ssdd_lightning.storage.listing import map_names
from ssdd_lightning.storage.lock import locked
from ssdd_lightning.storage.masks import read_image, write_mask
from ssdd_lightning.storage.score_maps import map_path, mask_path, read_map, write_map
from ssdd_lightning.storage.team import ALONE, Team
from ssdd_lightning.storage.threads import cores

WRITES = ("maps", "masks", "both")


@dataclass(frozen=True)
class MapsJob(ABC):
    """A mapping function to run on every score map of a folder; its subclasses say which.

    The channels of a score map are divided by their sum first; a pixel where all are 0 counts as undecided (all equal).

    Args:
        images: Folder of `<name>.jpg`, `.jpeg`, `.bmp` or `.png`.
        maps: Folder of `<name>.map.png`, see `ssdd_lightning.storage.score_maps`.
        out: Folder for the results, created if need be; not the folder of the maps.
        iterations: Steps of the mapping function.
        write: maps (`<name>.map.png`), masks (`<name>.png`, the most probable class) or both.
        device: Where it runs: cpu, cuda, cuda:1, ...
        background_alpha: Replace the background's score by (1 - largest class score) ** background_alpha; None keeps
            the maps' own.

    Raises:
        InputError: An option is unknown or out of range.
    """

    images: Path
    maps: Path
    out: Path
    iterations: int = 10
    write: str = "maps"
    device: str = "cpu"
    background_alpha: float | None = None
    command: ClassVar[str]
    """Name of the command, and of the entry in the ledger."""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What decides the mapping function besides its iterations."""

    @abstractmethod
    def refine(self, image: Tensor, probabilities: Tensor) -> Tensor:
        """Apply the mapping function.

        Args:
            image: 1 x 3 x H x W uint8 RGB.
            probabilities: 1 x C x H x W float, summing to one.

        Returns:
            1 x C x H x W float.
        """

    def __post_init__(self) -> None:
        if self.write not in WRITES:
            raise InputError(f"unknown kind of output {self.write!r}; choose one of {', '.join(WRITES)}.")
        if self.background_alpha is not None and not self.background_alpha > 0:
            raise InputError(f"the background's exponent must be more than 0; found {self.background_alpha}.")

    def ledger(self, say: bool = False, rank: int = 0) -> Ledger:
        """The job's ledger.

        Args:
            say: Whether to say how many maps are left out, see `asked_for`.
            rank: Number of this process, see `Ledger`.

        Raises:
            InputError: A folder or an image is missing.
        """
        check_folder(self.maps, "folder of score maps")
        if self.out.resolve() == self.maps.resolve():
            raise InputError(
                f"`ssdd {self.command}` would overwrite its own input in {self.maps}; choose another output folder."
            )
        names = map_names(self.maps, say)
        images = _image_paths(self.images, names)
        chosen = {"iterations": self.iterations, "background_alpha": self.background_alpha, "write": self.write}
        paths = {"maps": [map_path], "masks": [mask_path], "both": [map_path, mask_path]}[self.write]

        def item(name: str) -> Item:
            """The inputs and outputs of one image."""
            sources = map_path(self.maps, name), images[name]
            return Item(sources, tuple(path_of(self.out, name) for path_of in paths))

        return Ledger(self.out, self.command, Recipe({**self.settings(), **chosen}), Items(names, item), rank)

    def run(self, num_workers: int | None = None, progress: bool = True, keep: bool = False, team: Team = ALONE) -> int:
        """Refine what is not finished; an interrupted run continues where it stopped.

        Args:
            num_workers: Threads, one image each; None means one per core.
            progress: Whether to show a bar.
            keep: Accept finished score maps even if their inputs changed.
            team: The processes that share the images.

        Returns:
            How many score maps this call refined.

        Raises:
            InputError: A folder, map or image is missing or damaged, sizes differ, or another run works in `out`.
        """
        if num_workers is not None and num_workers < 1:
            raise InputError(f"the number of workers must be 1 or more; found {num_workers}.")
        find_device(self.device)
        workers = num_workers or cores(team)
        self.ledger()  # fails before a folder is created
        with locked(self.out, team.rank):
            ledger = self.ledger(say=team.rank == 0, rank=team.rank)
            if keep:
                ledger.accept()

            def refine(name: str) -> None:
                _refine(self, name, ledger.items[name].sources)

            return ledger.make_each(refine, workers, progress, team)


def _image_paths(images: Path, names: list[str]) -> dict[str, Path]:
    """Path of every name's image; fails before hours of work, not after."""
    found = find_images(images)
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} score maps have no image: {images / missing[0]}{IMAGE_SUFFIXES[0]} "
            f"does not exist (nor {', '.join(IMAGE_SUFFIXES[1:])}); check the image folder."
        )
    return found


def _refine(job: MapsJob, name: str, sources: tuple[Path, ...]) -> None:
    """Refine the score maps of one image; return its name."""
    source, photo = sources
    class_indices, scores = read_map(source)
    image = read_image(photo)
    check_size(scores.shape[1:], image.shape, f"score map {source}", f"its image {photo}")
    if job.background_alpha is not None:
        class_indices, scores = _with_background(class_indices, scores, job.background_alpha, source)
    refined = job.refine(
        torch.from_numpy(image).permute(2, 0, 1)[None].to(job.device),
        torch.from_numpy(_normalised(scores))[None].to(job.device),
    )[0]
    _write(job, name, class_indices, refined.cpu().numpy())


def _with_background(
    class_indices: list[int], scores: npt.NDArray[np.float32], alpha: float, source: Path
) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Score maps with a background computed from the classes' scores, inserted in front if there was none."""
    foreground = scores[class_indices[0] == 0 :]
    if not len(foreground):
        raise InputError(f"score map {source} holds only background, so there is no class score to compute it from.")
    background = cam_background(torch.from_numpy(foreground)[None], alpha)[0].numpy()
    return [0, *class_indices[class_indices[0] == 0 :]], np.concatenate((background, foreground))


def _normalised(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Channels that sum to one; all equal where every channel is 0."""
    total = scores.sum(0, keepdims=True)
    return np.where(total > 0, scores / np.where(total > 0, total, 1), 1 / scores.shape[0]).astype(np.float32)


def _write(job: MapsJob, name: str, class_indices: list[int], refined: npt.NDArray[np.float32]) -> None:
    if job.write in ("maps", "both"):
        write_map(map_path(job.out, name), class_indices, refined.clip(0, 1))
    if job.write in ("masks", "both"):
        write_mask(mask_path(job.out, name), np.array(class_indices)[refined.argmax(0)])
