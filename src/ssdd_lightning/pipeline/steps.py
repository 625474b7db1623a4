"""The steps of a pipeline: a command, its product, what that is made from, and the ledger that knows its state."""

import json
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import yaml

from ssdd_lightning.errors import InputError, Interrupted
from ssdd_lightning.pipeline.config import StageConfig
from ssdd_lightning.storage.files import write_text
from ssdd_lightning.storage.ledger import Ledger

if TYPE_CHECKING:
    from ssdd_lightning.folders.maps import MapsJob

Command = Literal["fit", "predict", "test"]


@dataclass(frozen=True)
class Step(ABC):
    """One step.

    Args:
        name: Where its product lies in the run.
        folder: Folder of the product and of its entry in the ledger.
        needs: Names of the steps whose products it is made from.
    """

    name: str
    folder: Path
    needs: tuple[str, ...]
    command: ClassVar[str]

    @property
    def processes(self) -> int:
        """1 if it runs in this process, or more if it starts others."""
        return 1

    @abstractmethod
    def run(self, keep: bool = False) -> None:
        """Do what is not finished.

        Args:
            keep: Accept the product as it is, even if its inputs changed.
        """

    @abstractmethod
    def ledger(self) -> Ledger:
        """The step's ledger; the products it needs must exist."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Its configuration as plain values."""

    @property
    def entry(self) -> Path:
        """Its entry in the ledger."""
        return self.folder / f"{self.command}.json"

    @property
    def made(self) -> bool:
        """Whether a product exists, whatever it was made from."""
        return self.entry.is_file()

    @property
    def seconds(self) -> float:
        """How long the product took, according to its entry in the ledger."""
        return float(json.loads(self.entry.read_text())["seconds"])

    def state(self) -> str:
        """What a run would do, and why."""
        ledger = self.ledger()
        if ledger.earlier is None:
            return "made"
        if ledger.difference:
            return f"made again, because {ledger.difference}"
        if ledger.finished:
            return "finished"
        pending = len(ledger.pending())
        return f"goes on: {pending} of {len(ledger.items)} images" if ledger.items else "goes on"


@dataclass(frozen=True)
class StageStep(Step):
    """`fit`, `predict` or `test` of a stage.

    Args:
        name: See `Step`.
        folder: See `Step`.
        needs: See `Step`.
        command: fit, predict or test.
        config: The stage's YAML and settings.
    """

    command: Command  # type: ignore[misc]
    config: StageConfig

    def run(self, keep: bool = False) -> None:
        """Run the command: in this process, or in new ones if it takes several."""
        from ssdd_lightning.pipeline.lightning import run_stage
        from ssdd_lightning.stages.trusted import is_held

        if self.processes == 1:
            run_stage(self.command, self.config, keep)
            return
        if keep:
            raise InputError("--keep works in one process; leave trainer.devices and trainer.num_nodes at 1.")
        path = self.folder / f"{self.command}.yaml"
        write_text(path, yaml.safe_dump(self.config.content(), sort_keys=False))
        words = [sys.executable, "-m", "ssdd_lightning", self.command, f"--config={path}"]
        words += ["--trusted_classes"] if is_held() else []
        status = subprocess.run(words, check=False).returncode
        if status > 128:
            raise Interrupted(status - 128)
        if status:
            sys.exit(status)  # the command said why

    def ledger(self) -> Ledger:
        """See `Step`."""
        from ssdd_lightning.pipeline.lightning import stage_ledger

        return stage_ledger(self.command, self.config)

    def settings(self) -> dict[str, Any]:
        """See `Step`; the logger changes no product."""
        content = self.config.content()
        return {**content, "trainer": {k: v for k, v in (content.get("trainer") or {}).items() if k != "logger"}}

    @property
    def processes(self) -> int:
        """See `Step`; Lightning starts the others by repeating the command of the first."""
        trainer = self.config.content().get("trainer", {})
        return 1 if trainer.get("devices", 1) in (1, "1") and trainer.get("num_nodes", 1) in (1, "1") else 2


@dataclass(frozen=True)
class MapsStep(Step):
    """A folder of score maps through a mapping function.

    Args:
        name: See `Step`.
        folder: See `Step`.
        needs: See `Step`.
        images: Folder of photos.
        maps: Folder of score maps.
    """

    images: Path
    maps: Path

    def run(self, keep: bool = False) -> None:
        """Refine the folder."""
        self.job().run(keep=keep)

    def ledger(self) -> Ledger:
        """See `Step`."""
        return self.job().ledger()

    @abstractmethod
    def job(self) -> "MapsJob":
        """The work to do; building it loads torch."""


@dataclass(frozen=True)
class CRFStep(MapsStep):
    """A folder of score maps through the dense CRF.

    Args:
        crf: Preset, and values that override it; the other arguments are those of `MapsStep`.
        background_alpha: Recompute the background's scores with this power; None keeps them.
    """

    crf: Mapping[str, Any]
    background_alpha: float | None = None
    command: ClassVar[str] = "crf"

    def settings(self) -> dict[str, Any]:
        """See `Step`."""
        return {"crf": dict(self.crf), "background_alpha": self.background_alpha}

    def job(self) -> "MapsJob":
        """See `MapsStep`."""
        from ssdd_lightning.crf.settings import CRFOptions
        from ssdd_lightning.folders.crf import CRFJob

        crf = CRFOptions(**self.crf)
        return CRFJob(self.images, self.maps, self.folder, crf=crf, background_alpha=self.background_alpha)


@dataclass(frozen=True)
class PARStep(MapsStep):
    """A folder of score maps through pixel-adaptive refinement; arguments as those of `MapsStep`."""

    command: ClassVar[str] = "par"

    def settings(self) -> dict[str, Any]:
        """See `Step`."""
        return {}

    def job(self) -> "MapsJob":
        """See `MapsStep`."""
        from ssdd_lightning.folders.par import PARJob

        return PARJob(self.images, self.maps, self.folder)
