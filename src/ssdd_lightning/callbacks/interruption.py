"""SIGTERM and SIGINT end a run between two batches, with a status that says so."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from ssdd_lightning.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption(Callback):
    """Ends the batch in work when SIGINT or SIGTERM comes, then raises `Interrupted`; a second signal raises at once.

    Lightning itself ends a fit that receives SIGTERM as if it were finished, and does not hear it in a prediction. In
    training with several processes all of them stop after the same batch, whichever received the signal.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._in_batch = False
        self._process = os.getpid()
        self._alone = True

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over; Lightning took them just before and gives them back at the end."""
        if threading.current_thread() is threading.main_thread():
            self._process, self._alone = os.getpid(), trainer.world_size == 1
            for signum in SIGNALS:
                signal.signal(signum, self._receive)

    on_train_start = on_sanity_check_start
    on_validation_start = on_sanity_check_start
    on_test_start = on_sanity_check_start
    on_predict_start = on_sanity_check_start

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader's worker: its parent decides when it ends
            if signum == signal.SIGTERM:
                os._exit(128 + signum)
            return
        again, self._signum = self._signum is not None, signum
        if again or (self._alone and not self._in_batch):
            raise Interrupted(signum)

    def on_train_batch_start(self, *_: object) -> None:
        """Let the batch end before anything else."""
        self._in_batch = True

    def on_validation_batch_start(self, *_: object) -> None:
        """Let the batch end before anything else."""
        self._in_batch = True

    on_test_batch_start = on_validation_batch_start  # type: ignore[assignment]
    on_predict_batch_start = on_validation_batch_start  # type: ignore[assignment]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Stop if any process received a signal."""
        self._in_batch = False
        signum = self._signum or 0
        if trainer.world_size > 1:
            signum = int(trainer.strategy.reduce(torch.tensor(signum, device=pl_module.device), reduce_op="max"))
        if signum:
            raise Interrupted(signum, _how_to_go_on(trainer))

    def on_validation_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Stop if this process received a signal; the processes have different numbers of images here."""
        self._in_batch = False
        if self._signum:
            kill = getattr(trainer.strategy.launcher, "kill", None)
            if kill is not None:
                kill(self._signum)
            raise Interrupted(self._signum, _how_to_go_on(trainer))

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]
    on_predict_batch_end = on_validation_batch_end  # type: ignore[assignment]


def _how_to_go_on(trainer: Trainer) -> str:
    if not trainer.training and not trainer.validating:
        return "Run the same command again to go on."
    checkpoint = getattr(trainer.checkpoint_callback, "best_model_path", "")
    if not checkpoint or not Path(checkpoint).is_file():
        return "No epoch was finished yet: the same command starts anew."
    return f"The last epoch that was finished is kept; add --ckpt_path {checkpoint} to go on from there."
