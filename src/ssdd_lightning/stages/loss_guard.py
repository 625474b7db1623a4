"""What a fit does when a loss is not finite or has diverged."""

import re
from typing import TYPE_CHECKING

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from ssdd_lightning.errors import InputError

if TYPE_CHECKING:
    from ssdd_lightning.stages.base import Stage

DIVERGED = 1e4
"""A loss above this has diverged: the stages' losses are means of cross entropies, and begin below 20."""


def allowed_skips(on_nan: str) -> int:
    """Read how many training steps may be skipped.

    Args:
        on_nan: "stop", or "skip:N".

    Raises:
        InputError: It is neither.

    Example:
        >>> allowed_skips("skip:5")
        5
    """
    found = re.fullmatch(r"skip:([1-9]\d{0,8})", str(on_nan))
    if found is None and on_nan != "stop":
        raise InputError(f"on_nan: expected stop, or skip:N with N at least 1, found {on_nan!r}.")
    return int(found[1]) if found else 0


class LossGuard:
    """Stops a fit before a bad loss reaches the weights, or skips the step: one that is NaN, infinite, or has diverged.

    In a skipped step no weight changes, nor the state of the optimizer, nor the running statistics of normalisation;
    with accumulated gradients it is the whole step.

    Attributes:
        on_nan: "stop", or "skip:N" to skip up to N steps of a fit, and stop at the next.
        skipped: Batches skipped so far; a checkpoint keeps it.
        largest: A loss above this has diverged.
    """

    def __init__(self) -> None:
        self.on_nan = "stop"
        self.skipped = 0
        self.largest = DIVERGED
        self._skip = False
        self._buffers: dict[str, Tensor] = {}

    def begin(self, stage: "Stage") -> None:
        """Remember what a forward pass changes, if a step may be skipped."""
        if allowed_skips(self.on_nan):
            self._buffers = {name: buffer.clone() for name, buffer in stage.named_buffers()}

    def check(self, stage: "Stage", loss: Tensor, names: list[str]) -> None:
        """Decide what becomes of a step; all processes decide the same.

        Args:
            stage: What is trained.
            loss: Of the step, scaled as the trainer's precision has it.
            names: Images of the step.

        Raises:
            InputError: The loss of this process or of another one is bad, and no more steps may be skipped.
        """
        scaler = getattr(stage.trainer.precision_plugin, "scaler", None)
        loss = loss.detach() / (scaler.get_scale() if scaler is not None else 1.0)
        good = bool(loss.abs() <= self.largest)  # false for NaN
        if stage.trainer.strategy.reduce_boolean_decision(good, all=True):
            return
        found = [None if good else (float(loss), names)]
        if stage.trainer.world_size > 1:
            found = [None] * stage.trainer.world_size
            torch.distributed.all_gather_object(found, None if good else (float(loss), names))
        bad = [part for part in found if part is not None]
        trainer = stage.trainer
        what = (
            f"{type(stage).__name__}: the loss of step {trainer.global_step} (epoch {trainer.current_epoch}) "
            f"{_what_is_wrong(bad[0][0])}, on the images {', '.join(name for _, part in bad for name in part)}"
        )
        allowed = allowed_skips(self.on_nan)
        if self.skipped < allowed:
            self.skipped += 1
            self._skip = True
            rank_zero_warn(f"{what}; the step is skipped, {self.skipped} of {allowed} that may be.")
            return
        spent = f" All {allowed} steps that may be skipped were." if allowed else ""
        raise InputError(
            f"{what}; {stage.kept_checkpoint()}.{spent} Lower the learning rate, or look at these images and their "
            "masks."
        )

    def spoil(self, stage: "Stage") -> None:
        """Take back what the forward pass of a skipped step did, and mark its gradients, also those that follow."""
        if not self._skip:
            return
        for name, buffer in stage.named_buffers():
            buffer.copy_(self._buffers.get(name, buffer))  # one that this step made has no earlier value
        for parameter in stage.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(torch.nan)  # whatever is accumulated; the scaler of fp16 then skips the step

    def drop(self, stage: "Stage") -> None:
        """Leave the optimizer of a skipped step nothing to do."""
        if self._skip and getattr(stage.trainer.precision_plugin, "scaler", None) is None:
            stage.zero_grad()
        self._skip = False


def _what_is_wrong(loss: float) -> str:
    if loss != loss:
        return "is NaN"
    return f"has diverged ({loss:.3g})" if abs(loss) < float("inf") else "is not finite"
