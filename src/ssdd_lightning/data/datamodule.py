"""What the data modules of all datasets share: splits, guides, loaders."""

import os
import random
import signal
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from itertools import islice, pairwise, repeat
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.data.dataset import FolderDataset, Record, Sample, check_exist, select_records
from ssdd_lightning.data.guides import find_guide
from ssdd_lightning.data.layout import Location, labels_of
from ssdd_lightning.data.sampling import (
    TrainSampler,
    UnrepeatedSampler,
    like_sized,
    run_seed,
    world,
)
from ssdd_lightning.data.splits import Splits
from ssdd_lightning.data.transforms import PlainTransform, SmallTransform, TrainTransform
from ssdd_lightning.errors import STOP_SIGNALS, InputError, check_folder
from ssdd_lightning.storage.images import image_size
from ssdd_lightning.storage.score_maps import map_path, mask_path

LOOK_SIDE = 512
"""Longest side of photos that are only looked at, in pixels: a whole one may not fit beside a training."""
Phase = Literal["train", "val", "test", "predict"]
_PHASES: dict[str | None, tuple[Phase, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
    None: ("train", "val", "test", "predict"),
}


class WeakDataModule(LightningDataModule):
    """Base of the data modules; a dataset adds where it lies, or else how its files are found (`find_records`).

    Ground truth reaches validation and test batches only. Knowledge and advice reach training and prediction
    batches only. Evaluation and prediction go through whole images at their own size.

    Args:
        location: Where photos, lists, labels and ground truth lie.
        table: The dataset's classes and the network's choice of them.
        splits: Split of each phase, as `find_records` understands it.
        guides: `knowledge`, `advice` and `maps`, score maps that reach prediction batches as scores -> folder or None.
        augmentation: Augmentation of training samples.
        batch_size: Training images per batch.
        num_workers: Loader processes; 0 loads in the main process.
        eval_batch_size: Most whole images of one size that are evaluated or predicted together. With 1 a mask does not
            depend, by a rounding, on which images a batch holds, as in a run that is resumed or has more processes.
    """

    def __init__(
        self,
        location: Location,
        table: ClassTable,
        splits: Splits,
        guides: Mapping[str, Path | str | None],
        augmentation: Augmentation,
        batch_size: int,
        num_workers: int,
        eval_batch_size: int = 1,
    ) -> None:
        super().__init__()
        if min(batch_size, eval_batch_size) < 1 or num_workers < 0:
            raise InputError(
                "expected batch_size and eval_batch_size >= 1 and num_workers >= 0, found "
                f"{batch_size}, {eval_batch_size} and {num_workers}."
            )
        self.location = location
        self.table = table
        self.splits = splits
        self.guides = {key: Path(folder) for key, folder in guides.items() if folder is not None}
        self.maps = self.guides.pop("maps", None)
        self.train_transform = augmentation.transform or TrainTransform(augmentation)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.eval_batch_size = eval_batch_size
        self.datasets: dict[Phase, FolderDataset] = {}
        self.seed: int | None = None
        """Seed of the order and augmentation of the training images; None until they are asked for."""
        self._resumed_at = (0, 0)

    @property
    def num_classes(self) -> int:
        """Number of network outputs, background included."""
        return self.table.num_classes

    @property
    def class_indices(self) -> list[int]:
        """Dataset index of each network output: `[0, 8, 12]` for cat and dog of VOC."""
        return list(self.table.indices)

    @property
    def class_names(self) -> list[str]:
        """Name of each network output, background first."""
        return self.table.selected_names

    def find_records(self, split: str, truth: bool) -> tuple[list[Record], str]:
        """Find the images of a split.

        Args:
            split: Name or list file.
            truth: Whether to set each record's `mask`.

        Returns:
            The records, and where their labels come from (for messages).

        Raises:
            InputError: Something is missing.
        """
        labels, source = labels_of(self.location, split, self.table)
        masks = self.location.masks if truth else None
        if masks is not None:
            check_folder(masks, "folder of ground truth masks", "name another one with `truth`")
        photos = self.location.photos(list(labels))
        records = [
            Record(name, photo, shown, None if masks is None else mask_path(masks, name))
            for photo, (name, shown) in zip(photos, labels.items(), strict=True)
        ]
        return records, source

    def to_look_at(self, count: int) -> FolderDataset:
        """Some training photos, the same ones each time: whole, with their guides and their ground truth.

        Those that have ground truth come first. They are for the eye; training batches hold no ground truth.

        Args:
            count: How many at most.
        """
        records, masks = list(self.datasets["train"].records), self.location.masks
        random.Random(0).shuffle(records)
        known = [] if masks is None else records
        found = (replace(record, mask=mask_path(masks, record.name)) for record in known)  # type: ignore[arg-type]
        scored = (record for record in found if record.mask is not None and record.mask.is_file())
        chosen = {record.name: record for record in islice(scored, count)}
        for record in records[:count]:
            if len(chosen) < count:
                chosen.setdefault(record.name, record)
        return FolderDataset(list(chosen.values()), self.table, SmallTransform(LOOK_SIDE))

    def setup(self, stage: str | None = None) -> None:
        """Find all files of the stage's splits and check that they exist.

        Args:
            stage: `fit`, `validate`, `test`, `predict`, or None for all.

        Raises:
            InputError: Something is missing.
        """
        for phase in _PHASES[stage]:
            if phase not in self.datasets:
                self.datasets[phase] = self._build(phase)

    def keep(self, phase: str, names: Collection[str]) -> list[Record]:
        """Leave images out of a phase that was set up, because they are finished.

        Args:
            phase: train, val, test or predict.
            names: What stays.

        Returns:
            What was left out.
        """
        dataset = self._dataset(phase)
        left_out = [record for record in dataset.records if record.name not in names]
        dataset.records = [record for record in dataset.records if record.name in names]
        return left_out

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled augmented crops; an incomplete last batch is dropped, unless it is the only one.

        Order and augmentation are functions of (seed, epoch, image) alone. No number of workers changes them, and a
        resumed fit continues with the next batch.
        """
        dataset = self._dataset("train")
        dataset.seed = self.seed = run_seed() if self.seed is None else self.seed
        epoch, done = self._resumed_at
        sampler = TrainSampler(dataset, self.batch_size, self.seed, epoch, done)
        return self._loader(dataset, sampler, self.batch_size, _stacked)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint stores of the data: the seed, the epoch, and how many of its batches are finished."""
        if self.trainer is None:
            return {}
        loop: Any = self.trainer.fit_loop  # its trackers are typed as their bases
        epoch, done = loop.epoch_progress.current.processed, loop.epoch_loop.batch_progress.current.processed
        if loop.epoch_progress.current.started == epoch:  # between two epochs
            done = 0
        elif done >= self.trainer.num_training_batches:
            epoch, done = epoch + 1, 0
        return {"seed": self.seed, "epoch": epoch, "batches": done, "processes": self.trainer.world_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the checkpoint was written; older checkpoints, which do not say, begin an epoch."""
        if state_dict.get("seed") is not None:
            processes = 1 if self.trainer is None else self.trainer.world_size
            if state_dict["batches"] and state_dict["processes"] != processes:
                raise InputError(
                    f"the checkpoint was written in the middle of an epoch by {state_dict['processes']} processes, but "
                    f"this fit has {processes}; go on with as many (`--trainer.devices`)."
                )
            self.seed = int(state_dict["seed"])
            self._resumed_at = int(state_dict["epoch"]), int(state_dict["batches"])

    def val_dataloader(self) -> DataLoader[Sample]:
        """Whole images with their ground truth."""
        return self._whole_images("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """Whole images with their ground truth."""
        return self._whole_images("test")

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Whole images with knowledge and advice, if folders are given; no ground truth."""
        return self._whole_images("predict")

    def _dataset(self, phase: str) -> FolderDataset:
        """The images of a phase that was set up."""
        if phase not in self.datasets:
            command = {"train": "fit", "val": "validate"}.get(phase, phase)
            raise InputError(
                f"{type(self).__name__} has not looked for its {phase} images; call setup({command!r}) first, or "
                f"let the trainer do it."
            )
        return self.datasets[phase]

    def _build(self, phase: Phase) -> FolderDataset:
        scored = phase in ("val", "test")
        found, source = self.find_records(str(getattr(self.splits, phase) or ""), scored)
        records = select_records(found, self.table, source)
        check_exist([record.image for record in records], "image", "complete the image folder or the list")
        masks = [record.mask for record in records if record.mask is not None]
        check_exist(masks, "mask", "complete the folder, or name another one with `truth`")
        for what, folder in ({} if scored else self.guides).items():
            paths = _guides(records, folder, what)
            records = [replace(r, guides={**r.guides, what: path}) for r, path in zip(records, paths, strict=True)]
        if phase == "predict" and self.maps is not None:
            paths = _guides(records, self.maps, "score map")
            records = [replace(record, maps=path) for record, path in zip(records, paths, strict=True)]
        transform = self.train_transform if phase == "train" else PlainTransform()
        return FolderDataset(records, self.table, transform)

    def _whole_images(self, phase: Phase) -> DataLoader[Sample]:
        """Every image once; those of one size come in batches, which are the items of this loader."""
        dataset = self._dataset(phase)
        most = min(self.eval_batch_size, max(1, len(dataset) // world()[1]))  # each process needs a batch
        sizes = repeat((1, 1), len(dataset)) if most == 1 else (image_size(record.image) for record in dataset.records)
        batches = Batches(dataset, like_sized(sizes, most))
        return self._loader(batches, UnrepeatedSampler(batches), 1, _only)

    def _loader(
        self, dataset: Dataset[Any], sampler: Sampler[Any], batch_size: int, collate: Callable[[list[Any]], Any]
    ) -> DataLoader[Sample]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            collate_fn=collate,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_leave_signals_to_the_parent,
            pin_memory=torch.cuda.is_available(),
        )


class Batches(Dataset[Any]):
    """Batches of a dataset as items, so that a sampler shares out batches.

    Args:
        dataset: The images.
        positions: Those of each batch.
    """

    def __init__(self, dataset: FolderDataset, positions: list[list[int]]) -> None:
        self.dataset = dataset
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, number: int) -> Any:  # noqa: ANN401 - as torch's collate
        """Read the images of a batch."""
        return _stacked([self.dataset[position] for position in self.positions[number]])


def _only(batches: list[Any]) -> Any:  # noqa: ANN401 - as torch's collate
    """The batch that is a loader's only item."""
    (batch,) = batches
    return batch


def _stacked(samples: list[Sample]) -> Any:  # noqa: ANN401 - as torch's
    """Stack samples as torch does, and say it in a sentence if they have several sizes."""
    sizes = {sample["name"]: sample["image"].shape[1:] for sample in samples}  # type: ignore[union-attr]
    if len(set(sizes.values())) > 1:
        (one, size), (other, found) = next((a, b) for a, b in pairwise(sizes.items()) if a[1] != b[1])
        raise InputError(
            f"images of one batch should have one size, found {one} of {size[0]} x {size[1]} pixels and {other} of "
            f"{found[0]} x {found[1]}; let the transform make one size."
        )
    return default_collate(samples)


def _leave_signals_to_the_parent(worker: int) -> None:
    """A terminal's or a batch system's signals reach the workers too; only the parent may end them."""
    for signum in set(STOP_SIGNALS) - {signal.SIGTERM}:
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_the_parent, daemon=True).start()


def _obey_the_parent() -> None:
    """Wait until the parent itself sends SIGTERM, as it does with workers that are left when it ends."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(128 + signal.SIGTERM)


def _guides(records: list[Record], folder: Path, what: str) -> list[Path]:
    """Files that a stage has written of some images: score maps, or masks where these will do."""
    check_folder(folder, f"{what} folder", "run the stage that writes it first")
    if what == "score map":
        found, form = [map_path(folder, record.name) for record in records], "<name>.map.png"
    else:
        found, form = [find_guide(folder, record.name, what) for record in records], "<name>.map.png or <name>.png"
    check_exist(found, what, f"expected {form} of every image in {folder}")
    return found
