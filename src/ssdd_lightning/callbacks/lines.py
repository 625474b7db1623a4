"""Progress of a training where there is no terminal."""

import sys
import time

from pytorch_lightning import Callback, LightningModule, Trainer


class EpochLines(Callback):
    """Write one line an epoch: its number, its time, and the scalars that a progress bar would show."""

    def __init__(self) -> None:
        self.begun = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time."""
        self.begun = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the line; the epoch's validation is over by then."""
        shown = ", ".join(f"{name} {float(value):.4g}" for name, value in trainer.progress_bar_metrics.items())
        of = "" if trainer.max_epochs in (None, -1) else f" of {trainer.max_epochs}"
        if trainer.is_global_zero:
            seconds = time.monotonic() - self.begun
            print(f"epoch {trainer.current_epoch + 1}{of}: {seconds:.0f} s; {shown}", file=sys.stderr, flush=True)
