"""What a training is watched by: a dynamic stage on true masks, with every logger but W&B."""

import csv
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from ssdd_lightning.callbacks.stopwatch import Stopwatch
from ssdd_lightning.callbacks.watch import Watch, troubles
from ssdd_lightning.crf import DenseCRF
from ssdd_lightning.metrics.difference import DetectionShares
from ssdd_lightning.pipeline.lightning import run_command
from tests.helpers.stages import write_stage

WATCHED = {
    "ssdd1/bad_samples",
    "ssdd1/differences",
    "ssdd1/advice_background",
    "ssdd2/bad_samples",
    "ssdd2/advice_taken",
    "ssdd2/d_K/accuracy_difference",
    "ssdd2/d_K/accuracy_agreement",
    "ssdd2/d_A/auc",
    "ssdd2/d_A/mean_difference",
    "ssdd2/d_A/mean_agreement",
    "agreement/D0_D1",
    "agreement/D0_D2",
    "agreement/D1_D2",
    "lr/backbone",
    "lr/new",
    "time/data",
    "time/networks",
    "time/crf",
    "entropy",
    "train/loss",
    "train/diff1",
}
VALIDATED = {"val/miou", "val/iou/background", "best/val/miou"}


def fit(folder: Path, devkit: Path, *words: object, loggers: Sequence[str] = (), **init_args: Any) -> Any:
    """Two steps of the dynamic stage an epoch, with the ground truth as its seeds."""
    voc = devkit / "VOCdevkit" / "VOC2012"
    data = {"root": devkit, "classes": ["cat", "cow", "dog", "sheep"], "knowledge": voc / "SegmentationClass"}
    data |= {"augmentation": {"crop_size": 32}, "batch_size": 6}
    wanted = [{"class_path": name, "init_args": {"save_dir": str(folder), "name": name}} for name in loggers]
    trainer = {"logger": wanted or False, "limit_val_batches": 2}
    path = write_stage(folder / "dynamic.yaml", "DynamicRefinementModule", folder, data, trainer=trainer, **init_args)
    return run_command(["fit", f"--config={path}", *map(str, words)]).trainer


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as stream:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def watched(tiny_devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of two steps: fewer than `log_every_n_steps`."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    folder = tmp_path_factory.mktemp("watched")
    pictures = ["--trainer.callbacks+=ssdd_lightning.callbacks.RefinementPictures"]
    fit(folder, tiny_devkit, "--trainer.max_epochs=2", *pictures, loggers=("CSVLogger", "TensorBoardLogger"))
    return folder


def test_a_run_shorter_than_the_interval_logs_everything(watched: Path) -> None:
    found = rows(watched / "CSVLogger" / "version_0")
    assert {key for row in found for key in row} >= WATCHED | VALIDATED
    assert [int(row["step"]) for row in found if "train/loss" in row] == [1, 3]
    assert [int(row["step"]) for row in found if "ssdd2/bad_samples" in row] == [1, 3]
    assert [int(row["step"]) for row in found if "best/val/miou" in row] == [1, 3]
    scores = [float(row["val/miou"]) for row in found if "val/miou" in row]
    assert [float(row["best/val/miou"]) for row in found if "best/val/miou" in row] == [scores[0], max(scores)]
    last = next(row for row in reversed(found) if "time/crf" in row)
    assert all(float(last[f"time/{part}"]) > 0 for part in ("data", "networks", "crf"))
    assert float(last["time/networks"]) > float(last["time/crf"]) / 10


def test_tensorboard_has_the_same_scalars(watched: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(watched / "TensorBoardLogger" / "version_0")).Reload()
    names = {key for row in rows(watched / "CSVLogger" / "version_0") for key in row} - {"step"}
    assert names - set(events.Tags()["scalars"]) == set()
    assert sorted(events.Tags()["images"]) == ["pictures/train", "pictures/val"]
    tables = [name for name in events.Tags()["tensors"] if name.startswith("tables/")]
    assert sorted(tables) == ["tables/val_classes/text_summary", "tables/val_confusion/text_summary"]


def test_tables_and_pictures_lie_beside_the_csv_file(watched: Path) -> None:
    folder = watched / "CSVLogger" / "version_0"
    assert len(list((folder / "pictures").glob("*.png"))) == 4
    with (folder / "tables" / "epoch_001_val_classes.csv").open() as stream:
        classes = list(csv.DictReader(stream))
    assert [row["class"] for row in classes] == ["background", "cat", "cow", "dog", "sheep"]
    last = [row for row in rows(folder) if "val/iou/background" in row][-1]
    assert float(classes[0]["iou"]) == pytest.approx(float(last["val/iou/background"]), rel=1e-5)
    with (folder / "tables" / "epoch_001_val_confusion.csv").open() as stream:
        confusion = list(csv.reader(stream))
    assert confusion[0] == ["truth", "background", "cat", "cow", "dog", "sheep", "ignored (255)"]
    assert [sum(map(int, row[1:])) for row in confusion[1:]] == [int(row["pixels"]) for row in classes]


def test_the_configuration_holds_each_option_once_and_the_data(watched: Path) -> None:
    config = yaml.safe_load((watched / "CSVLogger" / "version_0" / "hparams.yaml").read_text())
    assert set(config) == {
        *("stage", "seed_everything", "model", "data", "trainer", "dataset", "threads", "ssdd_lightning", "git"),
    }
    assert config["stage"] == "dynamic"
    assert config["trainer"]["max_epochs"] == 2
    assert not {"logger", "callbacks", "fast_dev_run"} & set(config["trainer"])
    dataset = config["dataset"]
    assert dataset["name"] == "voc"
    assert dataset["classes"] == ["background", "cat", "cow", "dog", "sheep"]
    assert {phase: counts["all"] for phase, counts in dataset["images"].items()} == {"train": 12, "val": 4}
    assert sum(dataset["images"]["train"][name] for name in dataset["classes"][1:]) >= 12
    assert len(dataset["fingerprint"]) == 32


def test_only_bad_samples_are_reported(
    tiny_devkit: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both difference losses are exactly 0 then; a run that says nothing of it looks like one that learns."""
    ssdd = {"class_path": "ssdd_lightning.SSDD", "init_args": {"width": 8, "biases": {"failed_ratio": 1e9}}}
    with caplog.at_level(logging.WARNING, "ssdd_lightning"):
        trainer = fit(tmp_path, tiny_devkit, ssdd=ssdd)
    said = [record.message for record in caplog.records if record.name.startswith("ssdd_lightning")]
    for number in (1, 2):
        assert float(trainer.callback_metrics[f"train/diff{number}"]) == 0
        assert float(trainer.callback_metrics[f"ssdd{number}/bad_samples"]) == 1
        wanted = (
            f"DynamicRefinementModule, epoch 0: all 12 images were bad samples of ssdd{number}, so L_diff{number} was 0"
        )
        assert any(sentence.startswith(wanted) for sentence in said), said


def shares(images: int = 4, bad: int = 0, differences: int = 9, taken: int = 5) -> DetectionShares:
    return DetectionShares(images, bad, differences, taken, {})


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (shares(bad=4), "all 4 images were bad samples of ssdd0, so L_diff0 was 0"),
        (shares(taken=9), "ssdd0 took the advice wherever"),
        (shares(taken=0), "ssdd0 refused the advice wherever"),
        (shares(differences=0, taken=0), "knowledge and advice of ssdd0 never differ"),
    ],
)
def test_each_trouble_is_one_sentence(found: DetectionShares, wanted: str) -> None:
    (sentence,) = troubles("ssdd0", found)
    assert sentence.startswith(wanted)
    assert sentence.endswith(".")


def test_a_training_that_learns_is_not_warned_of() -> None:
    assert list(troubles("ssdd0", shares(bad=3))) == []


def test_counts_are_pooled_over_the_steps_of_the_interval(tiny_devkit: Path, tmp_path: Path) -> None:
    """Six steps an epoch, logged every four: the last two steps are logged at the end of the epoch."""
    words = ("--trainer.log_every_n_steps=4", "--data.batch_size=2")
    fit(tmp_path, tiny_devkit, *words, loggers=["CSVLogger"])
    found = rows(tmp_path / "CSVLogger" / "version_0")
    assert [int(row["step"]) for row in found if "agreement/D0_D1" in row] == [3, 5]
    assert [int(row["step"]) for row in found if "train/loss" in row] == [3, 5]


def test_counts_are_pooled_over_processes() -> None:
    """`reduce` stands for a second process that counted as much."""
    watch = Watch()
    watch._window = {"agreement/D0_D1": torch.tensor([2, 5]), "entropy": torch.tensor([3.0, 4.0])}
    doubled = SimpleNamespace(reduce=lambda tensor, reduce_op: tensor + torch.tensor([4, 5, 1, 4]))
    trainer: Any = SimpleNamespace(world_size=2, strategy=doubled, optimizers=[])
    values = watch._pooled(trainer)
    assert values["agreement/D0_D1"] == 0.6
    assert values["entropy"] == 0.5
    assert watch._window == {}
    assert watch._epoch["agreement/D0_D1"].tolist() == [6, 10]


def test_the_best_score_outlives_a_checkpoint() -> None:
    watch, other = Watch(), Watch()
    watch._best = {"val/miou": 0.5}
    other.load_state_dict(watch.state_dict())
    assert other._best == {"val/miou": 0.5}


def test_the_time_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    crf = DenseCRF(iterations=1)
    crf.forward = lambda image: now.__setitem__(0, now[0] + 2)  # type: ignore[assignment]
    watch = Stopwatch()
    watch.attach(torch.nn.Sequential(crf))
    for _ in range(2):
        watch.resume()
        now[0] += 3
        watch.begin()
        crf(torch.zeros(1))
        now[0] += 5
        watch.end()
        now[0] += 100
    assert watch.seconds() == {"data": 3, "networks": 5, "crf": 2}
    assert watch.seconds() == {"data": 0, "networks": 0, "crf": 0}
    watch.detach()
    crf(torch.zeros(1))
    assert watch.seconds()["crf"] == 0
