"""The record beside predictions: what made them, which of them are finished, and how they scored."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from ssdd_lightning.callbacks.indices import dataset_indices
from ssdd_lightning.data.classes import IGNORE
from ssdd_lightning.data.dataset import Record
from ssdd_lightning.data.files import atomic_write
from ssdd_lightning.data.maps import is_map, map_path, mask_path, read_map
from ssdd_lightning.data.masks import read_mask
from ssdd_lightning.data.stamp import fingerprint
from ssdd_lightning.errors import InputError

LABELS_USED = {
    "test": "image-level labels were not used: every class of the network could be predicted",
    "predict": "image-level labels were used: only an image's own classes could be predicted",
}


@runtime_checkable
class Resumable(Protocol):
    """A stage that leaves out what an earlier run finished, and can say under which settings it works."""

    earlier: "RunRecord | None"

    def protocol(self) -> dict[str, Any]:
        """Settings of `test` and `predict` as plain values."""
        ...


class RunRecord:
    """One command's files in a folder, and `<command>.json`, which says what made them.

    A file counts as finished if the record names the same checkpoint (by its bytes), settings, classes and inputs, and
    the file can be read to the end and is neither older than the record's first file nor than the image and guides that
    it was made of. So an interrupted run goes on where it stopped, and a run of anything else starts anew.

    Args:
        folder: Folder of the files.
        command: "test" or "predict".
        made_by: What decides the files, as plain values; see `describe`. Without a checkpoint nothing is ever finished.
        records: The images, by name.
        indices: Dataset index of each network output.
    """

    def __init__(
        self,
        folder: Path,
        command: str,
        made_by: Mapping[str, Any],
        records: Mapping[str, Record],
        indices: Sequence[int],
    ) -> None:
        self.folder = folder
        self.path = folder / f"{command}.json"
        self.command = command
        self.made_by = json.loads(json.dumps(made_by, default=str))
        self.records = records
        self.to_network = np.full(256, IGNORE, dtype=np.int64)
        self.to_network[list(indices)] = np.arange(len(indices))
        self.reused = 0
        self.files, self.started = self._earlier()

    def has(self, name: str) -> bool:
        """Whether all files of an image were finished by an earlier run."""
        if not self.files:
            return False
        record = self.records.get(name)
        sources = [] if record is None else [record.image, *record.guides.values()]
        newest = max([self.started, *(path.stat().st_mtime_ns for path in sources)])
        done = all(_is_whole(product_path(self.folder, what, name), newest) for what in self.files)
        self.reused += done
        return done

    def mask(self, name: str) -> Tensor:
        """A finished mask, H x W long in network indices."""
        return torch.from_numpy(self.to_network[read_mask(mask_path(self.folder, name))])

    def begin(self, files: Iterable[str]) -> None:
        """Say what the files are made by, before the first one is written.

        Args:
            files: What is written of each image: mask, map, d_knowledge, d_advice.
        """
        wanted = sorted(files)
        if self.files == wanted:
            return
        self.files = None
        self._write()  # twice: the time that counts is that of the folder's own clock
        self.files, self.started = wanted, self.path.stat().st_mtime_ns
        self._write()

    def finish(self, scores: Mapping[str, float]) -> None:
        """Add what is known at the end.

        Args:
            scores: Scores of a test by their names.
        """
        self._write({"images": len(self.records), "finished_earlier": self.reused, "scores": dict(scores)})

    def _write(self, results: Mapping[str, Any] | None = None) -> None:
        content = {
            "image_labels": self.command == "predict",
            "note": LABELS_USED[self.command],
            "made_by": self.made_by,
            "files": self.files or [],
            "started_ns": self.started,
            **(results or {}),
        }
        with atomic_write(self.path) as stream:
            stream.write(json.dumps(content, indent=2).encode())

    def _earlier(self) -> tuple[list[str] | None, int]:
        try:
            content = json.loads(self.path.read_text())
            if self.made_by["checkpoint"] is not None and content["made_by"] == self.made_by:
                return [str(what) for what in content["files"]], int(content["started_ns"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # there is none, or it is damaged: everything is made anew
        return None, 0


def describe(trainer: Trainer, stage: LightningModule, command: str, records: Mapping[str, Record]) -> dict[str, Any]:
    """Everything that decides what a command writes."""
    data: Any = getattr(trainer, "datamodule", None)
    checkpoint = trainer.ckpt_path
    labels = getattr(data, "labels", None) if command == "predict" else None
    return {
        "command": command,
        "stage": type(stage).__name__,
        "checkpoint": fingerprint(Path(checkpoint)) if checkpoint and Path(checkpoint).is_file() else None,
        "protocol": stage.protocol() if isinstance(stage, Resumable) else {},
        "settings": dict(stage.hparams),
        "precision": trainer.precision,
        "classes": [int(index) for index in data.class_indices],
        "labels": fingerprint(labels) if isinstance(labels, Path) else None,
        "guides": sorted({str(path.parent) for record in records.values() for path in record.guides.values()}),
    }


def open_record(trainer: Trainer, stage: LightningModule, command: str, folder: Path) -> RunRecord:
    """The record of a command that starts; the stage gets to know what is finished."""
    dataset_indices(trainer)
    data: Any = getattr(trainer, "datamodule", None)
    dataset = getattr(data, "datasets", {}).get(command)
    records = {} if dataset is None else {record.name: record for record in dataset.records}
    record = RunRecord(folder, command, describe(trainer, stage, command, records), records, data.class_indices)
    if isinstance(stage, Resumable):
        stage.earlier = record
    return record


def product_path(folder: Path, what: str, name: str) -> Path:
    """Where a product of an image lies: its mask, map, or one of its difference maps."""
    if what == "map":
        return map_path(folder, name)
    return mask_path(folder if what == "mask" else folder / what, name)


def _is_whole(path: Path, newest: int) -> bool:
    """Whether a file is not older than a time and can be read to the end."""
    try:
        if path.stat().st_mtime_ns < newest:
            return False
        if is_map(path):
            read_map(path)
        else:
            read_mask(path)
    except (OSError, InputError):
        return False
    return True
