"""Scoring folders of predictions against folders of ground truth masks, on all cores and in constant memory."""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.errors import InputError, check_folder, check_size, listed
from ssdd_lightning.evaluation.scorecard import Scorecard
from ssdd_lightning.metrics.background import BackgroundCurves, foreground_counts
from ssdd_lightning.metrics.boundary import boundary_counts, trimap_counts
from ssdd_lightning.metrics.confusion import best_of_both, joint_histogram
from ssdd_lightning.storage.listing import predicted_names
from ssdd_lightning.storage.masks import read_mask
from ssdd_lightning.storage.progress import Progress
from ssdd_lightning.storage.score_maps import SUFFIX, map_path, mask_path, read_map
from ssdd_lightning.storage.team import ALONE, Team
from ssdd_lightning.storage.threads import cores

CHUNK = 16  # images per task: about 10 ms of work against some 0.1 ms to hand it to another process
Mask = npt.NDArray[np.uint8]
Counts = dict[str, npt.NDArray[np.int64]]
NO_SPLIT = "no split was given: every prediction found was scored, and images without a prediction cannot be known"


def evaluate_folders(
    predictions: Path,
    truth: Path,
    names: Sequence[str] | None = None,
    class_names: Mapping[int, str] | None = None,
    advice: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    boundary: bool = False,
    curves: bool = False,
    team: Team = ALONE,
) -> Scorecard:
    """Score a folder of masks or score maps.

    A prediction is `<name>.png` (an indexed mask, 255 = no label) or, where there is no such file,
    `<name>.map.png` (score maps, of which the largest channel counts).

    Args:
        predictions: Folder of predictions, by the dataset's own class indices.
        truth: Folder of ground truth masks `<name>.png`; pixels with 255 are not counted.
        names: Images of the split. None scores every prediction found, and the scorecard says so.
        class_names: Name of every class by its index, background included. None: those of PASCAL VOC.
        advice: A second folder of predictions. Its scores and those of the oracle merge (the better
            of the two in each pixel) become the scorecard's companions "advice" and "oracle".
        workers: Number of processes; None: one per core, fewer for few images, one if processes cannot fork.
        progress: Whether to show a bar.
        boundary: Also measure the boundary IoU and the mIoU in bands around ground truth contours, of all three.
        curves: Measure the mIoU by background too, which needs score maps in `predictions`.
        team: The processes that share the images; all of them return the scores of all images.

    Returns:
        The scorecard of `predictions`.

    Raises:
        InputError: A folder or file is missing or damaged, holds colours or an unknown class, or sizes differ.
    """
    table = dict(enumerate(VOC_CLASSES)) if class_names is None else dict(class_names)
    if not table or min(table) < 0 or max(table) >= IGNORE:
        raise InputError(f"class indices must lie in 0..{IGNORE - 1}, found {sorted(table)}.")
    folders = [predictions, truth] if advice is None else [predictions, truth, advice]
    for folder in folders:
        check_folder(folder, remedy="expected a folder of PNG masks or score maps")
    job = _Job(predictions, truth, advice, tuple(sorted(table)), boundary, curves)
    scored = list(names) if names is not None else predicted_names(predictions)
    _check_complete(job, scored)
    mine = team.share(scored)
    counts = _pooled(job, mine, _workers(workers, len(mine), team), progress and not team.rank, team)
    total: Counts = {}
    for part in team.gather({what: numbers.tolist() for what, numbers in counts.items()}):
        _add(total, {what: np.array(numbers) for what, numbers in part.items()})
    cards = [_card(total, number, table, len(scored)) for number in range(len(total["confusion"]))]
    companions = dict(zip(("advice", "oracle"), cards[1:], strict=False))
    known = None if not curves else BackgroundCurves(total["foreground"], total["confusion"][0].sum(axis=1))
    return replace(cards[0], companions=companions, notes=() if names is not None else (NO_SPLIT,), curves=known)


def _card(total: Counts, number: int, class_names: Mapping[int, str], images: int) -> Scorecard:
    parts = {key: total[key][number] for key in ("boundary", "trimap") if key in total}
    return Scorecard(total["confusion"][number], class_names, images, **parts)


def read_prediction(folder: Path, name: str) -> npt.NDArray[np.uint8]:
    """Read a prediction as a mask: `<name>.png`, or else the arg max of `<name>.map.png`.

    Returns:
        H x W uint8 by the dataset's own class indices, 255 = no label.

    Raises:
        InputError: Neither file can be read.
    """
    mask = mask_path(folder, name)
    if mask.is_file():
        return read_mask(mask)
    indices, scores = read_map(map_path(folder, name))
    return np.array(indices, dtype=np.uint8)[scores.argmax(axis=0)]


@dataclass(frozen=True)
class _Job:
    """Everything that a worker needs; small, because it is sent with every chunk."""

    predictions: Path
    truth: Path
    advice: Path | None
    class_indices: tuple[int, ...]
    boundary: bool
    curves: bool

    @property
    def size(self) -> int:
        """C: one more than the highest class index."""
        return self.class_indices[-1] + 1

    def score(self, names: Sequence[str]) -> Counts:
        """Counts of some images, added up.

        Returns:
            "confusion", N x C x (C+1); N is 1, or 3 with advice: predictions, advice and oracle. With `boundary`
            also "boundary", N x 3 x C, and "trimap", N x K x C x (C+1); with `curves` "foreground", 2 x C x 256.
        """
        total: Counts = {}
        for name in names:
            _add(total, self._score_one(name))
        return total

    def _score_one(self, name: str) -> Counts:
        truth = read_mask(mask_path(self.truth, name))
        masks = [self._read(self.predictions, name, truth)]
        if self.advice is not None:
            masks.append(self._read(self.advice, name, truth))
            masks.append(best_of_both(masks[0], masks[1], truth))
        counts = {"confusion": self._confusions(name, masks, truth)}
        if self.boundary:
            counts["boundary"] = np.stack([boundary_counts(mask, truth, self.size) for mask in masks])
            counts["trimap"] = np.stack([trimap_counts(mask, truth, self.size) for mask in masks])
        if self.curves:
            counts["foreground"] = self._foreground(name, truth)
        return counts

    def _confusions(self, name: str, masks: Sequence[Mask], truth: Mask) -> npt.NDArray[np.int64]:
        pairs = np.stack([joint_histogram(mask, truth) for mask in masks])
        self._check_values(pairs[0].sum(axis=1), mask_path(self.truth, name))
        for mask_pairs, folder in zip(pairs, (self.predictions, self.advice), strict=False):
            if folder is not None:
                self._check_values(mask_pairs.sum(axis=0), prediction_path(folder, name))
        return pairs[:, : self.size, [*range(self.size), IGNORE]]

    def _foreground(self, name: str, truth: Mask) -> npt.NDArray[np.int64]:
        path = map_path(self.predictions, name)
        class_names, scores = read_map(path)
        self._check_size(scores[0].shape, path, name, truth)
        self._check_values(np.bincount(class_names), path)
        return foreground_counts(class_names, scores, truth, self.size)

    def _read(self, folder: Path, name: str, truth: Mask) -> Mask:
        mask = read_prediction(folder, name)
        self._check_size(mask.shape, prediction_path(folder, name), name, truth)
        return mask

    def _check_size(self, size: tuple[int, ...], path: Path, name: str, truth: Mask) -> None:
        remedy = "predictions must have the size of the ground truth mask"
        check_size(size, truth.shape, str(path), str(mask_path(self.truth, name)), remedy)

    def _check_values(self, counts: npt.NDArray[np.int64], path: Path) -> None:
        strange = [value for value in np.flatnonzero(counts) if value not in (*self.class_indices, IGNORE)]
        if strange:
            raise InputError(
                f"{path} holds the value {strange[0]}, which is neither one of the {len(self.class_indices)} classes "
                f"nor {IGNORE}; use the dataset's own class indices or name the classes."
            )


def prediction_path(folder: Path, name: str) -> Path:
    """Path of an image's mask, or of its score maps if there is no mask."""
    mask = mask_path(folder, name)
    return mask if mask.is_file() else map_path(folder, name)


def _add(total: Counts, counts: Counts) -> None:
    for what, numbers in counts.items():
        total[what] = total[what] + numbers if what in total else numbers


def _check_complete(job: _Job, names: Sequence[str]) -> None:
    if not names:
        raise InputError("the split names no image; nothing can be scored.")
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise InputError(f"the split names {twice} more than once; every image is scored once.")
    for folder in (job.predictions, job.truth, job.advice):
        if folder is None:
            continue
        missing = [name for name in names if not prediction_path(folder, name).is_file()]
        if missing:
            raise InputError(
                f"folder {folder} lacks {len(missing)} of {len(names)} images: {listed(missing)}; write them or name "
                "the split with --split."
            )
    masks = [name for name in names if not map_path(job.predictions, name).is_file()] if job.curves else []
    if masks:
        raise InputError(
            f"the curves need score maps, but folder {job.predictions} has no {masks[0]}{SUFFIX} ({len(masks)} of "
            f"{len(names)} are missing); leave the curves out for masks."
        )


def _workers(wanted: int | None, images: int, team: Team) -> int:
    if wanted is not None:
        return max(wanted, 1)
    if "fork" not in multiprocessing.get_all_start_methods():
        return 1  # spawning imports the user's script again, which breaks a script without a main guard
    return min(cores(team), 1 + images // (4 * CHUNK))


def _pooled(job: _Job, names: Sequence[str], workers: int, progress: bool, team: Team) -> Counts:
    total: Counts = {}
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    with Progress(total=len(names), desc="evaluate", unit="image", shown=progress) as bar:
        for counts, images in _scored(job, chunks, workers):
            _add(total, counts)
            bar.update(images)
            team.check()
    return total


def _scored(job: _Job, chunks: Sequence[Sequence[str]], workers: int) -> Iterator[tuple[Counts, int]]:
    if workers == 1:
        yield from ((job.score(chunk), len(chunk)) for chunk in chunks)
        return
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else None)
    # map drops each result once it is taken: constant memory
    with ProcessPoolExecutor(workers, context, _end_with_parent) as pool:
        yield from zip(pool.map(job.score, chunks), map(len, chunks), strict=True)


def _end_with_parent() -> None:
    """End this process when its parent is killed; it would wait for work for ever, and keep what it inherited."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        """Wait for the parent."""
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
