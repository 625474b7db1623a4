import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from ssdd_lightning.callbacks import panels
from ssdd_lightning.callbacks.panels import panel
from ssdd_lightning.callbacks.pictures import RefinementPictures
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.lightning import run_command
from tests.helpers import tiny
from tests.helpers.processes import python
from tests.helpers.stages import write_stage
from tests.helpers.wandb_runs import offline_runs
from tests.helpers.weights import equal

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def shown(stage: tiny.Stage) -> dict[str, torch.Tensor]:
    """Knowledge is class 1 in training and class 2 in validation, so that pictures tell which is which."""
    batch = len(stage.batch["image"])
    label = 1 if stage.mode == "train" else 2
    return {
        "image": stage.batch["image"],
        "knowledge": torch.full((batch, 6, 8), label),
        "refined": torch.full((batch, 6, 8), 255),
        "d_knowledge": torch.rand(batch, 6, 8, dtype=torch.bfloat16, requires_grad=True),
    }


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All rows that were drawn."""
    calls = []
    original = panel
    monkeypatch.setattr(panels, "panel", lambda rows, names, *_: calls.append((rows, names)) or original(rows, names))
    return calls


def fit(make_trainer: Callable[..., Trainer], callback: RefinementPictures, **options: Any) -> Trainer:
    trainer = make_trainer(callback, **options)
    trainer.fit(tiny.Stage(shown=shown), datamodule=tiny.Data())
    return trainer


def test_files_without_a_logger(make_trainer: Callable[..., Trainer], tmp_path: Path, drawn: list[Any]) -> None:
    fit(make_trainer, RefinementPictures(), epochs=2)
    files = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert files == [f"epoch_00{epoch}_{phase}.png" for epoch in (0, 1) for phase in ("train", "val")]
    assert Image.open(tmp_path / "pictures" / files[0]).size[0] > 600
    # training first, then validation, each with its own last batch, by the dataset's class indices
    assert [int(rows[0]["knowledge"][0, 0]) for rows, _ in drawn] == [8, 12, 8, 12]
    assert (drawn[0][0][1]["refined"] == 255).all()
    last = tiny.Data().loader().dataset[3]["image"].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(drawn[1][0][1]["image"], last)


def test_how_many_and_how_often(make_trainer: Callable[..., Trainer], tmp_path: Path, drawn: list[Any]) -> None:
    fit(make_trainer, RefinementPictures(num_images=1, every_n_epochs=2), epochs=3)
    assert [len(rows) for rows, _ in drawn] == [1, 1, 1, 1]
    files = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert [name[:9] for name in files] == ["epoch_000", "epoch_000", "epoch_002", "epoch_002"]


def test_csv_logger_gets_files_in_its_own_folder(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    fit(make_trainer, RefinementPictures(), logger=CSVLogger(tmp_path, "logs", "one"))
    assert (tmp_path / "logs" / "one" / "pictures" / "epoch_000_train.png").is_file()


def test_tensorboard(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path, "logs", "one")
    fit(make_trainer, RefinementPictures(), logger=logger, epochs=2)
    events = accumulator.EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    assert sorted(events.Tags()["images"]) == ["pictures/train", "pictures/val"]
    images = events.Images("pictures/train")
    assert [image.step for image in images] == [2, 4]
    assert images[0].width == 4 * 198 + 6
    assert not (tmp_path / "pictures").exists()


def test_wandb_offline(make_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path))
    try:
        fit(
            make_trainer,
            RefinementPictures(),
            logger=WandbLogger(save_dir=tmp_path, offline=True),
            epochs=2,
        )
    finally:
        wandb.finish()
    (run,) = offline_runs(tmp_path)
    shown = [row for row in run.history if "pictures/train/captions" in row]
    assert [row["trainer/global_step"] for row in shown] == [2, 4]
    first = shown[0]
    assert first["pictures/train/captions"] == ["image", "d_K"] * 2
    assert (first["pictures/train/width"], first["pictures/train/height"]) == (32, 24)
    masks = first["pictures/train/all_masks"]
    assert [sorted(mask) if mask else None for mask in masks] == [["knowledge", "refined"], None] * 2
    files = run.folder / "files"
    knowledge, refined = (np.array(Image.open(files / masks[0][key]["path"])) for key in ("knowledge", "refined"))
    assert (knowledge == 8).all(), "the dataset's class indices, at the photo's size"
    assert (refined == 255).all()
    assert knowledge.shape == (24, 32)
    photo = np.array(Image.open(files / first["pictures/train/filenames"][0]))
    np.testing.assert_array_equal(photo, tiny.Data().loader().dataset[2]["image"].permute(1, 2, 0).numpy())
    labels = run.config["_wandb"]["mask/class_labels"]["pictures/train_wandb_delimeter_knowledge"]["value"]
    assert labels["255"] == "ignored (255)"
    assert labels["8"] == "cat"
    assert len([row for row in run.history if "pictures/val/captions" in row]) == 2
    assert not (tmp_path / "pictures").exists()


def test_a_logger_without_pictures_gets_files_beside_one_with(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    fit(make_trainer, RefinementPictures(), logger=[CSVLogger(tmp_path, "a", "b"), TensorBoardLogger(tmp_path, "c")])
    assert (tmp_path / "a" / "b" / "pictures" / "epoch_000_train.png").is_file()


def test_validation_alone(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    make_trainer(RefinementPictures()).validate(tiny.Stage(shown=shown), datamodule=tiny.Data(), verbose=False)
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["epoch_000_val.png"]


def test_a_stage_may_have_nothing_to_show(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    make_trainer(RefinementPictures()).fit(tiny.Stage(), datamodule=tiny.Data())
    assert not (tmp_path / "pictures").exists()


def test_a_stage_without_pictures(make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tiny.Stage, "pictures")
    with pytest.raises(InputError, match=r"^Stage has no pictures\(\)"):
        make_trainer(RefinementPictures()).fit(tiny.Stage(), datamodule=tiny.Data())


def test_unknown_entries(make_trainer: Callable[..., Trainer]) -> None:
    stage = tiny.Stage(shown=lambda stage: {"image": stage.batch["image"], "mask": stage.batch["image"]})
    with pytest.raises(InputError, match="returned 'mask'; expected some of image, knowledge"):
        make_trainer(RefinementPictures()).fit(stage, datamodule=tiny.Data())


@pytest.mark.parametrize("options", [{"num_images": 0}, {"every_n_epochs": 0}])
def test_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        RefinementPictures(**options)


def test_wandb_waits_until_a_logger_asks_for_it() -> None:
    code = "import sys, ssdd_lightning.callbacks.pictures; print('wandb' in sys.modules)"
    assert python(code).strip() == "False"


@pytest.mark.parametrize("stage", ["StaticRefinementModule", "DynamicRefinementModule", "SegmentationModule"])
def test_photos_with_their_ground_truth_are_shown_and_nothing_is_learnt_from_them(
    stage: str, tiny_devkit: Path, tmp_path: Path, drawn: list[Any]
) -> None:
    masks = tiny_devkit / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    data = {"root": tiny_devkit, "knowledge": masks, "advice": masks, "augmentation": {"crop_size": 32}}
    weights = []
    for name, callbacks in (("with", [{"class_path": "ssdd_lightning.callbacks.RefinementPictures"}]), ("without", [])):
        trainer = {"callbacks": callbacks, "logger": False, "limit_val_batches": 0}
        path = write_stage(tmp_path / f"{name}.yaml", stage, tmp_path / name, data, trainer=trainer)
        model = run_command(["fit", f"--config={path}", "--trainer.max_epochs=2"]).model
        assert model.training
        weights.append(model.state_dict())
    assert equal(*weights)
    (first, names), (second, _) = drawn
    assert len(first) == 8
    assert names[8] == "cat"
    for row, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(row["image"], again["image"], "the same photos in each epoch")
        small = row["truth"] if row["knowledge"].shape == row["truth"].shape else row["truth"][2::4, 2::4]
        np.testing.assert_array_equal(small, row["knowledge"], "knowledge is the ground truth here")
        refined = {"advice", "refined", "d_knowledge", "d_advice"} if stage != "SegmentationModule" else set()
        assert set(row) == {"image", "knowledge", "prediction", "truth", *refined}


def test_damaged_ground_truth_costs_a_picture_and_no_training(
    tiny_devkit: Path, tmp_path: Path, drawn: list[Any]
) -> None:
    root = tmp_path / "devkit"
    shutil.copytree(tiny_devkit, root)
    masks = tmp_path / "masks"
    truth = root / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    shutil.copytree(truth, masks)
    train = (truth.parent / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    for name in train:
        (truth / f"{name}.png").write_bytes(b"no picture")
    data = {"root": root, "knowledge": masks, "augmentation": {"crop_size": 32}}
    callbacks = [{"class_path": "ssdd_lightning.callbacks.RefinementPictures"}]
    trainer = {"callbacks": callbacks, "logger": False, "limit_val_batches": 0}
    path = write_stage(tmp_path / "stage.yaml", "SegmentationModule", tmp_path / "out", data, trainer=trainer)
    with pytest.warns(UserWarning, match=r"A photo is left out of the pictures: .*\.png"):
        assert run_command(["fit", f"--config={path}"]).trainer.state.finished
    assert not drawn


def test_every_process_runs_the_network_and_the_first_writes(
    make_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under FSDP a process that does not take part keeps the others waiting."""
    looked = []
    monkeypatch.setattr(RefinementPictures, "_look", lambda *_: looked.append(1) or [])
    monkeypatch.setattr("ssdd_lightning.callbacks.pictures._looks", lambda *_: ())
    trainer = make_trainer()
    monkeypatch.setattr(type(trainer), "is_global_zero", property(lambda _: False))
    RefinementPictures().on_train_epoch_end(trainer, tiny.Stage(shown=shown))
    assert looked
    assert not (tmp_path / "pictures").exists()
