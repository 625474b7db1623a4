"""The configuration of a fit as a logger should show it, and what it was run with."""

import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ssdd_lightning.callbacks.bookkeeping import TRAINER_SETTINGS
from ssdd_lightning.callbacks.wandb_run import STAGES
from ssdd_lightning.data.datamodule import WeakDataModule
from ssdd_lightning.data.summary import describe

_TRAINER = (*TRAINER_SETTINGS, "accelerator", "devices", "num_nodes", "strategy", "check_val_every_n_epoch")
"""Options of the trainer that say something of the training."""


def told_config(config: Mapping[str, Any], stage: str, data: WeakDataModule) -> dict[str, Any]:
    """What a logger is told: each option once, nothing that Lightning added, and the data.

    Args:
        config: The configuration of `ssdd fit` as plain values.
        stage: Name of the stage's class.
        data: Set up for the fit.
    """
    trainer = {key: config["trainer"][key] for key in _TRAINER if config["trainer"].get(key) is not None}
    return {
        "stage": STAGES.get(stage, stage),
        "seed_everything": config.get("seed_everything"),
        "model": config["model"],
        "data": config["data"],
        "trainer": trainer,
        "dataset": {"name": config.get("dataset"), **describe(data)},
        "threads": torch.get_num_threads(),  # sums round differently with another number
        "ssdd_lightning": version("ssdd-lightning"),
        "git": git_revision(Path.cwd()),
    }


def git_revision(folder: Path) -> str | None:
    """Revision of the git repository that a folder lies in, with "-dirty" if it was changed; None without one."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
