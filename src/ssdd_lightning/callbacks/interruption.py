"""SIGTERM, SIGINT and SIGUSR1 end a run between two batches, with their own exit status."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from ssdd_lightning.callbacks.checkpoint import RunCheckpoint
from ssdd_lightning.errors import STOP_SIGNALS, Interrupted


class Interruption(Callback):
    """Finishes the batch in work after one of `STOP_SIGNALS`, then raises `Interrupted`; a second one raises at once.

    Lightning itself ends a fit that receives SIGTERM as if it were finished, and ignores it in a prediction. Under
    SLURM it answers SIGUSR1 with a checkpoint of its own and queues the job again; here the job's script does that. In
    training with several processes all of them stop after the same batch, whichever received the signal.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        """The signal that came; None if none did."""
        self._in_batch = False
        self._may_leave = True
        self._kill: Callable[[int], None] | None = None

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over; Lightning took them just before and gives them back at the end."""
        if threading.current_thread() is threading.main_thread():
            self._may_leave = trainer.world_size == 1 or not _fits(trainer)
            self._kill = getattr(trainer.strategy.launcher, "kill", None)
            for signum in STOP_SIGNALS:
                signal.signal(signum, self._receive)

    on_train_start = on_sanity_check_start
    on_validation_start = on_sanity_check_start
    on_test_start = on_sanity_check_start
    on_predict_start = on_sanity_check_start

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        again, self.signum = self.signum is not None, signum
        if again or (not self._in_batch and self._may_leave):
            self._tell_children(signum)
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
        signum = self.signum or 0
        if trainer.world_size > 1:
            signum = int(trainer.strategy.reduce(torch.tensor(signum, device=pl_module.device), reduce_op="max"))
        if signum:
            _keep_checkpoint(trainer)
            raise Interrupted(signum, _how_to_go_on(trainer))

    def on_validation_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Stop if this process received a signal; the processes have different numbers of images here."""
        self._in_batch = False
        if self.signum:
            self._tell_children(self.signum)
            raise Interrupted(self.signum, _how_to_go_on(trainer))

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]
    on_predict_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def _tell_children(self, signum: int) -> None:
        """Pass the signal on to the processes that this one started for a distributed run."""
        if self._kill is not None:
            self._kill(signum)


def _fits(trainer: Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING


def _keep_checkpoint(trainer: Trainer) -> None:
    """Save the work up to now; in the middle of accumulated gradients the last checkpoint has to suffice."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, RunCheckpoint) and not trainer.fit_loop._should_accumulate():
            callback.write(trainer)


def _how_to_go_on(trainer: Trainer) -> str:
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    if _fits(trainer) and folder is not None and not (Path(folder) / "last.ckpt").is_file():
        return "No checkpoint was written yet; the same command starts from the beginning."
    return "Run the same command again to continue."
