"""What a training can be watched by: the SSDD modules, the labels, learning rates, time, scores of every class."""

import logging
import math
from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ssdd_lightning.callbacks.stopwatch import Stopwatch
from ssdd_lightning.callbacks.tables import send_tables
from ssdd_lightning.metrics.difference import (
    DetectionShares,
    Watched,
    agreement_counts,
    detection_counts,
    detection_shares,
    entropy_sum,
)
from ssdd_lightning.nn.ssdd import resize_mask
from ssdd_lightning.stages.base import Batch

WATCHED_SCORES = ("val/miou", "val/mean_ap")
"""Scores of a validation whose best value is kept."""
log = logging.getLogger(__name__)


class Watch(Callback):
    """Logs what the stages leave to be watched, for every logger and with the same names in every stage.

    Counts are added up on the device. Every `log_every_n_steps` steps, and at the end of an epoch, they are pooled over
    the processes and logged:

    - `ssdd0/...` of the static stage, `ssdd1/...` and `ssdd2/...` of the dynamic one: `bad_samples`, `advice_taken`,
      `differences`, `advice_background`, and for `d_K` and `d_A` accuracy, AUC and means; see `DetectionShares`;
    - `agreement/D0_D1`, `agreement/D0_D2`, `agreement/D1_D2`: shares of the pixels;
    - `entropy` of the class probabilities, in nats;
    - `lr/backbone`, `lr/new`;
    - `time/data`, `time/networks`, `time/crf`: seconds per step;
    - after each validation `best/val/miou` or `best/val/mean_ap`, and tables of the classes and of the confusion.

    At the end of an epoch it warns if an SSDD module did not learn or decide anything.
    """

    def __init__(self) -> None:
        self._window: dict[str, Tensor] = {}
        self._epoch: dict[str, Tensor] = {}
        self._watch = Stopwatch()
        self._best: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """The best scores so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from them."""
        self._best = {str(name): float(value) for name, value in state_dict["best"].items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the CRF from now on."""
        self._watch.attach(pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._watch.resume()

    def on_train_batch_start(self, *_: object) -> None:
        """The data are there."""
        self._watch.begin()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Add the step's counts; log them if Lightning logs this step."""
        self._watch.end()
        stage: Any = pl_module
        watched, stage.watched = stage.watched, Watched()  # its tensors are not needed any longer
        for name, counts in step_counts(watched, batch).items():
            self._window[name] = self._window[name] + counts if name in self._window else counts
        every, loop = trainer.log_every_n_steps, trainer.fit_loop  # type: ignore[attr-defined]
        if every and (loop.epoch_loop._batches_that_stepped + 1) % every == 0 and not loop._should_accumulate():
            pl_module.log_dict(self._pooled(trainer))
        self._watch.resume()  # the counting above is no waiting for data

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the steps since the last logged one, the losses of the last step too; warn if something is wrong."""
        if self._watch.steps:
            rest = {name: value for name, value in trainer.logged_metrics.items() if name.startswith("train/")}
            pl_module.log_dict({**rest, **self._pooled(trainer)})
        if trainer.is_global_zero:
            for sentence in sorted(self._troubles()):
                log.warning("%s, epoch %d: %s", type(pl_module).__name__, trainer.current_epoch, sentence)
        self._epoch.clear()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the module as it was."""
        self._watch.detach()

    def on_exception(self, *_: object) -> None:
        """Likewise."""
        self._watch.detach()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the best score so far, and the tables."""
        if trainer.sanity_checking:
            return
        send_tables(trainer, pl_module, "val")
        scores = trainer.callback_metrics
        found = {name: float(scores[name]) for name in WATCHED_SCORES if name in scores}
        better = {name: v for name, v in found.items() if v > self._best.get(name, -math.inf)}
        self._best |= better
        if trainer.state.fn == "fit" and found:
            step = trainer.fit_loop.epoch_loop._batches_that_stepped
            for logger in trainer.loggers:
                logger.log_metrics({f"best/{name}": self._best[name] for name in found if name in self._best}, step)
        self._watch.resume()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the tables."""
        send_tables(trainer, pl_module, "test")

    def _pooled(self, trainer: Trainer) -> dict[str, float]:
        """What the steps since the last call say, over all processes; every process must ask for it."""
        counts = dict(self._window)
        if counts and trainer.world_size > 1:
            flat = trainer.strategy.reduce(torch.cat([part.double() for part in counts.values()]), reduce_op="sum")
            sizes = [len(part) for part in counts.values()]
            counts = dict(zip(counts, flat.split(sizes), strict=True))
        counts = {name: part.cpu().double() for name, part in counts.items()}
        for name, part in counts.items():
            self._epoch[name] = self._epoch[name] + part if name in self._epoch else part
        self._window.clear()
        values = {f"time/{name}": value for name, value in self._watch.seconds().items()}
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        values |= {f"lr/{group.get('name', number)}": float(group["lr"]) for number, group in enumerate(groups)}
        for name, part in counts.items():
            if len(part) == 2:
                values[name] = float(part[0] / part[1])
            else:
                values |= {f"{name}/{key}": value for key, value in detection_shares(part).values.items()}
        return {name: value for name, value in values.items() if not math.isnan(value)}

    def _troubles(self) -> Iterator[str]:
        """What went wrong in the epoch, in a sentence each."""
        for name, counts in self._epoch.items():
            if len(counts) > 2:
                yield from troubles(name, detection_shares(counts))


def step_counts(watched: Watched, batch: Batch) -> dict[str, Tensor]:
    """Count what a step left to be watched.

    Args:
        watched: See there.
        batch: What the step was made of.

    Returns:
        Name -> 1-D tensor, to be added up; two numbers are a part and a whole.
    """
    counts = {name: detection_counts(detection) for name, detection in watched.modules.items()}
    names = list(watched.masks)
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            counts[f"agreement/{one}_{other}"] = agreement_counts(watched.masks[one], watched.masks[other])
    if watched.logits is not None:
        size = watched.logits.shape[-2:]
        valid = resize_mask(batch["valid"].long(), (size[0], size[1])).bool()
        counts["entropy"] = entropy_sum(watched.logits, valid)
    return counts


def troubles(name: str, shares: DetectionShares) -> Iterator[str]:
    """Say what an SSDD module did not do in an epoch.

    Args:
        name: ssdd0, ssdd1 or ssdd2.
        shares: Of the whole epoch.
    """
    loss = f"L_diff{name[-1]}"
    if shares.bad == shares.images:
        yield (
            f"all {shares.images} images were bad samples of {name}, so {loss} was 0 and its DD-Net learnt nothing; "
            "look at the advice, which loses most of a class, or lower biases.failed_ratio."
        )
    if not shares.differences:
        yield f"knowledge and advice of {name} never differ, so there is nothing to detect; look at both of them."
    elif shares.taken == shares.differences:
        yield (
            f"{name} took the advice wherever it differs from the knowledge, so it decides nothing yet; if this lasts, "
            "lower biases.dd_bias or train its DD-Net for longer."
        )
    elif not shares.taken:
        yield (
            f"{name} refused the advice wherever it differs from the knowledge, so it decides nothing yet; if this "
            "lasts, raise biases.dd_bias or train its DD-Net for longer."
        )
