"""A fit that was killed and resumed ends with the weights of one that was not, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from ssdd_lightning import (
    ClassificationModule,
    DynamicRefinementModule,
    SegmentationModule,
    StaticRefinementModule,
    VOCDataModule,
)
from ssdd_lightning.callbacks.checkpoint import RunCheckpoint
from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.nn import ClassificationNetwork
from ssdd_lightning.stages.base import Stage
from ssdd_lightning.storage.masks import read_mask, write_mask
from ssdd_lightning.storage.score_maps import mask_path
from tests.helpers.steps import Build
from tests.helpers.weights import equal

Fit = Callable[..., dict[str, Any]]
BATCH, EPOCHS, STEPS = 3, 3, 4  # 12 images


class Killed(Exception):
    """What a kill looks like inside of the process: the checkpoint before it is all that is left."""


class Kill(Callback):
    """Ends a fit after a number of steps."""

    def __init__(self, after: int, at_the_end: bool = False) -> None:
        self.after, self.at_the_end = after, at_the_end

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.after and not self.at_the_end:
            raise Killed

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the checkpoint of the epoch is written."""
        if trainer.global_step == self.after and self.at_the_end:
            raise Killed


@pytest.fixture(scope="module")
def guides(tiny_devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks for the 12 training images: the truth, which is as good as any here, and the truth moved."""
    folder = tmp_path_factory.mktemp("guides")
    devkit = tiny_devkit / "VOCdevkit" / "VOC2012"
    for name in (devkit / "ImageSets" / "Segmentation" / "train.txt").read_text().split():
        mask = read_mask(devkit / "SegmentationClass" / f"{name}.png")
        write_mask(mask_path(folder / "knowledge", name), mask)
        write_mask(mask_path(folder / "advice", name), mask[:, ::-1].copy())
    return folder


@pytest.fixture
def fit(
    tiny_devkit: Path,
    guides: Path,
    build: Build,
    classifier: Callable[..., ClassificationNetwork],
    tmp_path: Path,
) -> Fit:
    def run(
        stage: type[Any],
        kill: Kill | int | None = None,
        resume: Path | None = None,
        workers: int = 0,
        minutes: float | None = 0,
        epochs: int = EPOCHS,
        batch: int = BATCH,
        **options: Any,
    ) -> dict[str, Any]:
        seed_everything(5, verbose=False)
        if stage is ClassificationModule:
            torch.manual_seed(0)
            module = ClassificationModule(21, classifier, backbone_weights=None)
        else:
            module = build(stage, classes=21)
        module.__dict__.pop("log", None)  # the real one
        module.hparams.clear()  # functools.partial is no plain value
        folders: dict[str, Any] = {"knowledge": guides / "knowledge"} if stage is not ClassificationModule else {}
        if stage is StaticRefinementModule:
            folders["advice"] = guides / "advice"
        data = VOCDataModule(
            tiny_devkit, augmentation=Augmentation(32), batch_size=batch, num_workers=workers, **folders
        )
        names = {"filename": "last", "enable_version_counter": False, "save_on_train_epoch_end": True}
        checkpoint = RunCheckpoint(minutes, dirpath=tmp_path, **names)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=False,
            callbacks=[checkpoint, *([] if kill is None else [kill if isinstance(kill, Kill) else Kill(kill)])],
            enable_progress_bar=False,
            enable_model_summary=False,
            check_val_every_n_epoch=2,
            **options,
        )
        try:
            trainer.fit(module, data, ckpt_path=resume)
        except Killed:
            assert trainer.global_step == getattr(kill, "after", kill)
        return module.state_dict()

    return run


STAGES = [ClassificationModule, SegmentationModule, StaticRefinementModule, DynamicRefinementModule]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kill", [1, STEPS - 1, STEPS, STEPS + 2, 2 * STEPS])
def test_a_killed_fit_ends_as_if_it_had_not_stopped(fit: Fit, tmp_path: Path, stage: type[Stage], kill: int) -> None:
    whole = fit(stage)
    (tmp_path / "last.ckpt").unlink()
    fit(stage, kill=kill)
    resumed = fit(stage, resume=tmp_path / "last.ckpt")
    assert equal(whole, resumed)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == EPOCHS * STEPS


@pytest.mark.parametrize("batch", [BATCH, 12])
@pytest.mark.parametrize("epoch", [1, 2, EPOCHS])
def test_a_fit_that_was_killed_at_the_end_of_an_epoch(fit: Fit, tmp_path: Path, batch: int, epoch: int) -> None:
    """After the last batch, whose checkpoint is there, and before the checkpoint of the epoch."""
    steps = 12 // batch
    whole = fit(SegmentationModule, batch=batch)
    (tmp_path / "last.ckpt").unlink()
    fit(SegmentationModule, kill=Kill(epoch * steps, at_the_end=True), batch=batch)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == epoch * steps
    resumed = fit(SegmentationModule, resume=tmp_path / "last.ckpt", batch=batch)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == EPOCHS * steps
    assert equal(whole, resumed)


@pytest.mark.parametrize("batch", [BATCH, 12])
@pytest.mark.parametrize("at_the_end", [True, False])
def test_a_fit_that_was_killed_again_and_again(fit: Fit, tmp_path: Path, batch: int, at_the_end: bool) -> None:
    """At each end of an epoch, or after each step."""
    steps = 12 // batch
    whole = fit(SegmentationModule, batch=batch)
    (tmp_path / "last.ckpt").unlink()
    resume = None
    for step in range(steps, EPOCHS * steps, steps) if at_the_end else range(1, EPOCHS * steps):
        fit(SegmentationModule, kill=Kill(step, at_the_end), resume=resume, batch=batch)
        resume = tmp_path / "last.ckpt"
        assert torch.load(resume, weights_only=True)["global_step"] == step
    resumed = fit(SegmentationModule, resume=resume, batch=batch)
    assert torch.load(resume, weights_only=True)["global_step"] == EPOCHS * steps
    assert equal(whole, resumed)


def test_a_checkpoint_of_the_last_epoch_alone_is_enough(fit: Fit, tmp_path: Path) -> None:
    whole = fit(SegmentationModule, minutes=None)
    fit(SegmentationModule, minutes=None, kill=STEPS + 2)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == STEPS
    assert equal(whole, fit(SegmentationModule, minutes=None, resume=tmp_path / "last.ckpt"))


def test_accumulated_gradients_are_not_lost(fit: Fit, tmp_path: Path) -> None:
    whole = fit(SegmentationModule, accumulate_grad_batches=2)
    fit(SegmentationModule, accumulate_grad_batches=2, kill=3)
    assert equal(whole, fit(SegmentationModule, accumulate_grad_batches=2, resume=tmp_path / "last.ckpt"))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(fit: Fit, workers: int) -> None:
    alone = fit(SegmentationModule, epochs=2)
    assert equal(alone, fit(SegmentationModule, epochs=2, workers=workers))


def test_no_checkpoint_is_ever_half_written(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the system's temporary folder is another file system, from which files are copied."""

    def across(*_: Any) -> None:
        raise AssertionError("a file was moved")

    monkeypatch.setattr("shutil.move", across)
    left = tmp_path / f".{'0f' * 16}.tmp"
    left.write_bytes(b"of a process that was killed")
    fit(SegmentationModule, epochs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last-before.ckpt", "last.ckpt"]
    steps = [
        torch.load(tmp_path / name, weights_only=True)["global_step"] for name in ("last-before.ckpt", "last.ckpt")
    ]
    assert steps == [STEPS, STEPS]  # after the last batch, and at the end of the epoch


def test_the_clock_decides_when_a_checkpoint_is_due(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    minute = SimpleNamespace(monotonic=lambda: 60.0 * len(steps))
    step = SegmentationModule.training_step

    def count(self: SegmentationModule, batch: Any, batch_idx: int) -> Tensor:
        steps.append(batch_idx)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationModule, "training_step", count)
    monkeypatch.setattr("ssdd_lightning.callbacks.checkpoint.time", minute)
    written = []
    original = RunCheckpoint.write
    spy = lambda self, trainer: written.append(trainer.global_step) or original(self, trainer)  # noqa: E731
    monkeypatch.setattr(RunCheckpoint, "write", spy)
    fit(SegmentationModule, minutes=2, epochs=2)
    assert written == [2, 4, 6, 8]
