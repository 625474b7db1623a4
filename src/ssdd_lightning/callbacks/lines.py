"""Progress of a training where there is no terminal, or one that is shared."""

import sys
import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class EpochLines(Callback):
    """Write one line an epoch: its number, its time, and the scalars that a progress bar would show.

    Args:
        each_batch: Also write a line that the next one replaces, after each batch.
    """

    def __init__(self, each_batch: bool = False) -> None:
        self.each_batch = each_batch
        self.begun = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time: a fit that continues in the middle of an epoch does not start that epoch again."""
        self.begun = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time."""
        self.begun = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - as Lightning has it
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Say how far the epoch is."""
        self._say(trainer, f"{_epoch(trainer)}, step", batch_idx + 1, trainer.num_training_batches)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Say how far the validation is."""
        self._say(trainer, "validation", batch_idx + 1, trainer.num_val_batches)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Say how far the test is."""
        self._say(trainer, "test", batch_idx + 1, trainer.num_test_batches)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Say how far the prediction is."""
        self._say(trainer, "predict", batch_idx + 1, trainer.num_predict_batches)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the line; the epoch's validation is over by then."""
        if trainer.is_global_zero:
            seconds = time.monotonic() - self.begun
            print(f"{_epoch(trainer)}: {seconds:.0f} s; {_scalars(trainer)}", file=sys.stderr, flush=True)

    def _say(self, trainer: Trainer, what: str, done: int, total: Any) -> None:  # noqa: ANN401
        if self.each_batch and trainer.is_global_zero:
            of = sum(total) if isinstance(total, list) else total
            print(f"\r{what} {done} of {of}; {_scalars(trainer)}", end="", file=sys.stderr, flush=True)


def _epoch(trainer: Trainer) -> str:
    of = "" if trainer.max_epochs in (None, -1) else f" of {trainer.max_epochs}"
    return f"epoch {trainer.current_epoch + 1}{of}"


def _scalars(trainer: Trainer) -> str:
    return ", ".join(f"{name} {float(value):.4g}" for name, value in trainer.progress_bar_metrics.items())
