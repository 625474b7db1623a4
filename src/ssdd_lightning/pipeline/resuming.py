"""Checkpoints that a command continues from, checked before Lightning takes over what is in them."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch.optim.lr_scheduler import LRScheduler

from ssdd_lightning.callbacks.checkpoint import before
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.decoding import decoding, reason
from ssdd_lightning.storage.safe_torch import load_torch

_OF_THE_MACHINE = (MemoryError, torch.OutOfMemoryError, getattr(torch, "AcceleratorError", MemoryError))


def check_checkpoint(path: Path, resumed: bool) -> dict[str, Any]:
    """Read a checkpoint and check its parts.

    Args:
        path: The checkpoint.
        resumed: Whether a fit continues from it, which takes the state of a training.

    Returns:
        Its content; tensors stay on the disk.

    Raises:
        InputError: It is no checkpoint, or damaged, or lacks that state.
    """
    try:
        content = load_torch(path, mmap=True)
    except InputError as error:
        kept = before(path)
        way = f" Remove it and repeat `ssdd fit`, which continues from {kept}." if kept.is_file() else ""
        raise InputError(f"cannot read the checkpoint {path}: {error}{way}") from error
    states = content.get("optimizer_states", []) if isinstance(content, dict) else None
    whole = isinstance(states, list) and all(isinstance(o, dict) and isinstance(o.get("state"), dict) for o in states)
    if not whole or not all(isinstance(content.get(part, {}), dict) for part in ("state_dict", "callbacks", "loops")):
        raise InputError(f"{path} is no checkpoint, or a damaged one; expected a file that `ssdd fit` wrote.")
    if "state_dict" not in content:
        raise InputError(f"{path} is no checkpoint; expected a file that `ssdd fit` or `ssdd convert-weights` wrote.")
    if resumed and "optimizer_states" not in content:
        raise InputError(
            f"{path} holds weights, but no training state to continue from; give it as backbone_weights of the model."
        )
    return dict(content)


@contextmanager
def restoring() -> Iterator[None]:
    """Say in a sentence what Lightning stumbles over while it restores a checkpoint.

    Raises:
        InputError: It did.
    """
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:
        codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
        names = [code.co_name for code in codes if Path(code.co_filename).stem == "checkpoint_connector"]
        if any("restore" in name or "resume" in name for name in names):
            raise _misfit("the checkpoint", reason(error)) from error
        raise


@contextmanager
def resuming(trainer: Trainer, path: Path) -> Iterator[None]:
    """Say in a sentence that the training state in a checkpoint is not that of this fit.

    Lightning and torch restore whatever values they find, and stumble over them in the first step.

    Args:
        trainer: Before its fit.
        path: The checkpoint that the fit continues from.

    Raises:
        InputError: A value of the loops, the optimizer or the schedule is of another kind than theirs.
    """
    source = f"the checkpoint {path}"
    content = check_checkpoint(path, resumed=True)
    with decoding(source, "expected a file that `ssdd fit` wrote"):
        start = int(content.get("global_step", 0))
    if not _same_kinds(trainer.fit_loop.state_dict(), content.get("loops", {}).get("fit_loop", {})):
        raise _misfit(source, "its counts of steps and epochs are no numbers")
    schedules = content.get("lr_schedulers", [])
    if not isinstance(schedules, list) or any(_replaces_methods(schedule) for schedule in schedules):
        raise _misfit(source, "it holds no state of a schedule")
    try:
        yield
    except Exception as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        first = trainer.global_step <= start + 1 and not isinstance(error, _OF_THE_MACHINE)
        if first and str(frame.f_globals.get("__name__")).startswith("torch.optim."):
            raise _misfit(source, reason(error)) from error
        raise


def _misfit(source: str, why: str) -> InputError:
    return InputError(
        f"{source} does not fit this run, or is damaged ({why}); use one that `ssdd fit` wrote with these options."
    )


def _same_kinds(ours: object, found: object) -> bool:
    """Whether numbers stand where numbers do, and mappings where mappings do; names of one side alone are passed."""
    if isinstance(ours, Mapping):
        return isinstance(found, Mapping) and all(
            _same_kinds(ours[name], found[name]) for name in ours.keys() & found.keys()
        )
    return not isinstance(ours, int) or isinstance(found, int)


def _replaces_methods(schedule: object) -> bool:
    """Whether a schedule, whose attributes the values become, would lose a method."""
    return isinstance(schedule, dict) and any(callable(getattr(LRScheduler, str(key), None)) for key in schedule)
