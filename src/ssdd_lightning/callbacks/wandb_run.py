"""One W&B run for each stage of a pipeline: its name, its group, and the id by which it is continued."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger

from ssdd_lightning.storage.files import write_text
from ssdd_lightning.storage.fingerprints import digest_of

PROJECT = "ssdd"
ID_FILE = "wandb_id.txt"
"""File in a stage's folder that holds the id of its run."""
STAGES = {
    "ClassificationModule": "classification",
    "AffinityModule": "affinity",
    "StaticRefinementModule": "static",
    "SegmentationModule": "baseline",
    "DynamicRefinementModule": "dynamic",
}
"""Class of a stage -> what `job_type` says of it, the name of its YAML."""
_OPEN: dict[str, tuple[str, tuple[str | None, ...]]] = {
    "project": ("WANDB_PROJECT", (None, "lightning_logs")),
    "dir": ("WANDB_DIR", (None, ".")),
    "name": ("WANDB_NAME", (None,)),
    "group": ("WANDB_RUN_GROUP", (None,)),
    "job_type": ("WANDB_JOB_TYPE", (None,)),
}
"""What a user may leave open -> its environment variable, and the values of Lightning that mean so."""


def settle(logger: WandbLogger, root: Path, stage: str) -> None:
    """Fill in what the user left open: project, folder, group, type and name of the run.

    Args:
        logger: Not begun yet.
        root: The stage's own folder, in the folder of its pipeline.
        stage: Name of its class.
    """
    home = root.resolve()
    pipeline = home.parents[1] if home.parent.name.startswith("from_") else home.parent  # see `Pipeline.refined`
    own = {
        "project": PROJECT,
        "dir": str(root),
        "group": f"{pipeline.name}-{digest_of([str(pipeline)])[:4]}",  # runs of the same name in other places
        "job_type": STAGES.get(stage, stage),
        "name": f"{pipeline.name}/{home.relative_to(pipeline)}",
    }
    chosen: dict[str, Any] = logger._wandb_init
    for key, (variable, unset) in _OPEN.items():
        if chosen.get(key) in unset:
            chosen[key] = os.environ.get(variable) or own[key]
    if chosen.get("anonymous", ...) is None:
        del chosen["anonymous"]  # W&B warns of the option even so
    logger._project, logger._name, logger._save_dir = chosen["project"], chosen["name"], chosen["dir"]
    Path(logger._save_dir).mkdir(parents=True, exist_ok=True)  # else W&B takes the system's temporary folder


def go_on(logger: WandbLogger, root: Path) -> None:
    """Continue the run of an earlier fit in the same folder, if there was one and the user names no other."""
    path = root / ID_FILE
    given = logger._wandb_init.get("id") or os.environ.get("WANDB_RUN_ID") or os.environ.get("WANDB_SWEEP_ID")
    if path.is_file() and not given:
        logger._id = logger._wandb_init["id"] = path.read_text().strip()


class RememberRun(Callback):
    """Notes the id of the run in the stage's folder when a fit begins."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it; the run has begun by now."""
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and trainer.is_global_zero and logger.version:
                write_text(Path(trainer.default_root_dir) / ID_FILE, f"{logger.version}\n")


@contextmanager
def own_run() -> Iterator[None]:
    """End the run that begins within the block, so that the next command of this process gets one of its own."""
    before = _current()
    status = 1
    try:
        yield
        status = 0
    finally:
        run = _current()
        if run is not None and run is not before:
            run.finish(exit_code=status)


def _current() -> Any:  # noqa: ANN401 - wandb's Run; wandb is loaded by the logger alone
    return getattr(sys.modules.get("wandb"), "run", None)
