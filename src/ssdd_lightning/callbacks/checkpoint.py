"""Checkpoints of a run: at the end of each epoch, and every few minutes in between."""

import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_info

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.files import atomic_write, keep_aside, remove_leftovers
from ssdd_lightning.storage.safe_torch import check_sums, load_torch

LAST = "last"
"""Name of the checkpoint that a run continues from, without its suffix."""


def before(path: Path) -> Path:
    """Where the checkpoint is kept that was written before the one with this name."""
    return path.with_name(f"{path.stem}-before{path.suffix}")


def whole_checkpoint(path: Path) -> Path | None:
    """Find the checkpoint to continue from: the last one, or the one before if the last is damaged or gone.

    Args:
        path: Where the last one should be.

    Returns:
        Its path, or that of the one before it; None if neither was ever written.

    Raises:
        InputError: Neither can be read.
    """
    damage: InputError | None = None
    for candidate in (path, before(path)):
        if not candidate.is_file():
            continue
        try:
            load_torch(candidate, mmap=True)
        except InputError as error:
            damage = damage or InputError(f"cannot read the checkpoint {candidate}: {error}")
            continue
        if candidate != path:
            reason = "is gone" if damage is None else f"cannot be read ({damage})"
            rank_zero_info(f"{path} {reason}; the one before it, {candidate}, takes its place.")
        return candidate
    if damage is not None:
        raise damage
    return None


def put_back(path: Path) -> Path:
    """Let the checkpoint before take the name of the last one; a damaged one is kept as `damaged.ckpt`."""
    if path.is_file():
        path.replace(path.with_name(f"damaged{path.suffix}"))
    keep_aside(before(path), path)
    return path


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their place and then renames them, and keeps the one before.

    Lightning's own writes them to the system's temporary folder; where that is another file system, the last step is a
    copy, and a process that is killed meanwhile leaves half a checkpoint in place of a whole one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:  # noqa: ANN401
        """Write a checkpoint; see `atomic_write`.

        Raises:
            InputError: It cannot be written, or reads back otherwise. The checkpoint that was there stays.
        """
        path = Path(path)
        remove_leftovers(path.parent)
        with atomic_write(path, durable=True) as stream:
            try:
                torch.save(checkpoint, stream)
            except RuntimeError as error:  # from torch's writer of archives, which hides what the disk said
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise
            check_sums(stream)
            if path.is_file():
                keep_aside(path, before(path))


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which also writes `last.ckpt` every few minutes in the middle of an epoch.

    A fit that is resumed from such a checkpoint continues with the next batch and ends with the weights of an
    uninterrupted one.

    Args:
        every_n_minutes: Minutes between two checkpoints within an epoch; 0 writes one after every step, null writes
            none.
        **options: As for ModelCheckpoint.
    """

    def __init__(self, every_n_minutes: float | None = 10.0, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self.every_n_minutes = every_n_minutes
        self._written = time.monotonic()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take care that no checkpoint is ever half written, unless the strategy writes its own way."""
        super().setup(trainer, pl_module, stage)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpointIO()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and a new epoch if the checkpoint was written at the last batch of one.

        Lightning takes the next epoch for the rest of the finished one. It would neither count it nor call the
        callbacks for it, and a fit resumed like this twice would be an epoch too long.
        """
        super().on_train_start(trainer, pl_module)
        self._written = time.monotonic()
        loop: Any = trainer.fit_loop
        epochs = loop.epoch_progress.current
        if getattr(loop, "restarted_mid_epoch", False) and epochs.processed == epochs.started:
            loop.reset_restart_stage()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - as Lightning has it
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Write a checkpoint if it is time; the first process has the clock."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.every_n_minutes is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        due = time.monotonic() - self._written >= 60 * self.every_n_minutes
        accumulating = trainer.fit_loop._should_accumulate()
        if trainer.strategy.broadcast(due) and not accumulating:
            self.write(trainer)

    def write(self, trainer: Trainer) -> None:
        """Write `last.ckpt` now; every process must ask for it."""
        assert self.dirpath is not None  # set by `setup`
        trainer.save_checkpoint(Path(self.dirpath) / f"{LAST}{self.FILE_EXTENSION}")
        self._written = time.monotonic()
