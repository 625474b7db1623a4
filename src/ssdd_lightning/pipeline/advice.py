"""Advice from knowledge alone: a mapping function of score maps, or of masks that are softened first."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssdd_lightning.data.guides import find_guide
from ssdd_lightning.data.labels import Labels
from ssdd_lightning.errors import InputError, check_size
from ssdd_lightning.folders.crf import CRFJob
from ssdd_lightning.folders.maps import MapsJob
from ssdd_lightning.folders.par import PARJob
from ssdd_lightning.storage.images import find_images, image_size
from ssdd_lightning.storage.ledger import Item, Items, Ledger, Recipe
from ssdd_lightning.storage.masks import read_mask
from ssdd_lightning.storage.score_maps import is_map, map_path, read_map, write_map
from ssdd_lightning.storage.threads import with_bar

CONFIDENCE = 0.7
"""Probability that a hard mask's own label gets; the image's other classes share the rest."""


MAPPINGS: dict[str, type[MapsJob]] = {"crf": CRFJob, "par": PARJob}
"""Mapping functions by name: dense CRF (preset psa) and pixel-adaptive refinement, 10 iterations each."""


def make_advice(
    mapping: str, images: Path, knowledge: Path, labels: Mapping[str, Labels], out: Path, device: str
) -> None:
    """Refine every knowledge mask or map with a mapping function; finished images are skipped.

    Args:
        mapping: One of `MAPPINGS`.
        images: Folder of photos.
        knowledge: Folder of masks or maps.
        labels: Image name -> dataset indices of its foreground classes; only these and background take part.
        out: Folder for the score maps. The inputs of the mapping function stay beside it until all images are done.
        device: Where the CRF runs.

    Raises:
        InputError: A file is missing or damaged, differs in size from its image, or lacks a labelled class.
    """
    unary, photos = out.with_name(f"{out.name}_unary"), find_images(images)
    sources = {name: find_guide(knowledge, name, "knowledge") for name in labels}
    items = Items(sources, lambda name: Item((photos[name], sources[name]), (map_path(out, name),), str(labels[name])))
    ledger = Ledger(out, "advice", Recipe({"confidence": CONFIDENCE, "mapping": mapping}), items)

    def write(name: str) -> None:
        """Write one image's maps."""
        source, target = sources[name], map_path(unary, name)
        scores = unary_of(source, labels[name])
        other = f"its image {photos[name]}"
        check_size(scores.shape[1:], image_size(photos[name]), f"knowledge {source}", other)
        write_map(target, [0, *labels[name]], scores)

    def make(pending: list[str]) -> Iterator[str]:
        """Write the unaries of all images; the mapping's own ledger then decides which of them to refine."""
        shutil.rmtree(unary, ignore_errors=True)
        for _ in with_bar(write, labels, "unary"):
            pass
        MAPPINGS[mapping](images, unary, out, device=device).run()
        yield from pending
        shutil.rmtree(unary)

    ledger.make(make, progress=False)


def unary_of(path: Path, labels: Labels) -> npt.NDArray[np.float32]:
    """Turn a mask or score maps into probabilities of background and the image's classes.

    Args:
        path: Mask or maps.
        labels: Dataset indices of the image's foreground classes.

    Returns:
        n x H x W float32. Score maps keep their channels. A mask gives `CONFIDENCE` to its label and shares the rest
        among the other classes; where it holds 255 or an absent class, all are equal.

    Raises:
        InputError: Maps lack a labelled class.
    """
    present = [0, *labels]
    if is_map(path):
        class_indices, scores = read_map(path)
        lacking = [index for index in present if index not in class_indices]
        if lacking:
            raise InputError(f"score map {path} lacks the classes {lacking}, with which its image is labelled.")
        return scores[[class_indices.index(index) for index in present]]
    mask = read_mask(path)
    known = np.isin(mask, present)
    own = mask[None] == np.array(present, dtype=np.uint8)[:, None, None]
    soft = np.where(own, CONFIDENCE, (1 - CONFIDENCE) / (len(present) - 1))
    return np.where(known, soft, 1 / len(present)).astype(np.float32)
