"""The command line: every stage through `main([...])` on the tiny devkit, and what the documentation promises of it."""

import functools
import json
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import RichProgressBar, TQDMProgressBar

import ssdd_lightning
from ssdd_lightning.cli.main import FILE_COMMANDS, STAGE_COMMANDS, entry_point, main
from ssdd_lightning.errors import InputError
from ssdd_lightning.folders.merge import MergeFolders
from ssdd_lightning.pipeline import lightning
from ssdd_lightning.pipeline.config import StageConfig
from ssdd_lightning.pipeline.lightning import build_stage, run_command
from ssdd_lightning.storage.masks import read_mask
from ssdd_lightning.storage.score_maps import read_map
from tests.helpers.files import Trap, contents
from tests.helpers.processes import Forked, stopped
from tests.helpers.stages import BACKBONE, write_stage
from tests.helpers.weights import equal

MODULES = {
    "classification": "ClassificationModule",
    "static": "StaticRefinementModule",
    "segmentation": "SegmentationModule",
    "dynamic": "DynamicRefinementModule",
}
SCORED = ("static", "segmentation", "dynamic")
CAT, DOG = 8, 12


class Flow:
    """The stages' YAML files and everything that a run of them leaves in one folder."""

    def __init__(self, root: Path, out: Path) -> None:
        self.root, self.out = root, out
        self.devkit = root / "VOCdevkit" / "VOC2012"
        self.guides = {"static": ("knowledge", "advice"), "segmentation": ("seeds",), "dynamic": ("seeds",)}
        self.folders = {
            "knowledge": out / "classification" / "predictions",
            "advice": out / "advice",
            "seeds": out / "static" / "predictions",
        }

    def checkpoint(self, stage: str) -> Path:
        return self.out / stage / "checkpoints" / "last.ckpt"

    def config(self, stage: str) -> Path:
        """Write the YAML file of a stage; return its path."""
        weights = None if stage == "classification" else str(self.checkpoint("classification"))
        guides = dict(zip(("knowledge", "advice"), self.guides.get(stage, ()), strict=False))
        data = {
            "root": self.root,
            "classes": ["cat", "dog"],
            "augmentation": {"crop_size": 64},
            "batch_size": 2,
            **{key: self.folders[folder] for key, folder in guides.items()},
        }
        path = self.out / f"{stage}.yaml"
        return write_stage(path, MODULES[stage], self.out / stage, data, backbone_weights=weights)

    def words(self, command: str, stage: str, *more: object, trained: bool = False) -> list[str]:
        ckpt_path = [f"--ckpt_path={self.checkpoint(stage)}"] if trained else []
        return [command, f"--config={self.config(stage)}", *ckpt_path, *map(str, more)]

    def run(self, command: str, stage: str, *more: object, trained: bool = False) -> Any:
        return run_command(self.words(command, stage, *more, trained=trained))


@pytest.fixture(scope="module")
def flow(tiny_devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Flow:
    """The whole path, once: classification -> knowledge -> advice -> static -> seeds -> segmentation, dynamic."""
    flow = Flow(tiny_devkit, tmp_path_factory.mktemp("flow"))
    for stage in ("classification", "static"):
        assert main(flow.words("fit", stage)) == 0
        assert main(flow.words("predict", stage, trained=True)) == 0
        if stage == "classification":
            images, maps = flow.devkit / "JPEGImages", flow.folders["knowledge"]
            out = flow.folders["advice"]
            assert main(["crf", f"--images={images}", f"--maps={maps}", f"--out={out}", "--num_workers=1"]) == 0
    for stage in ("segmentation", "dynamic"):
        assert main(flow.words("fit", stage)) == 0
    return flow


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)["state_dict"]


# --- the stages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", MODULES)
def test_fit_checkpoint_resume(flow: Flow, tmp_path: Path, stage: str) -> None:
    first = torch.load(flow.checkpoint(stage), weights_only=True)
    resumed = flow.run("fit", stage, f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=2", trained=True)
    assert first["epoch"] == 0
    assert first["global_step"] >= 2
    assert resumed.trainer.current_epoch == 2
    assert resumed.trainer.global_step == 2 * first["global_step"]
    second = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert second["epoch"] == 1
    assert not equal(first["state_dict"], second["state_dict"])
    assert all(value.isfinite().all() for value in second["state_dict"].values())


@pytest.mark.parametrize("stage", SCORED)
def test_test_scores_and_writes_masks_of_the_dataset(flow: Flow, tmp_path: Path, stage: str) -> None:
    done = flow.run("test", stage, f"--trainer.default_root_dir={tmp_path}", trained=True)
    assert 0 <= done.trainer.callback_metrics["test/miou"] <= 1
    names = [record.name for record in done.datamodule.datasets["test"].records]
    assert sorted(path.stem for path in (tmp_path / "test").glob("*.png")) == sorted(names)
    for path in (tmp_path / "test").glob("*.png"):
        mask = read_mask(path)
        assert mask.shape == (64, 64)
        assert set(np.unique(mask)) <= {0, CAT, DOG}


def test_classification_is_validated_by_image_labels(flow: Flow, tmp_path: Path) -> None:
    done = flow.run("validate", "classification", f"--trainer.default_root_dir={tmp_path}", trained=True)
    assert 0 <= done.trainer.callback_metrics["val/mean_ap"] <= 1


def labels_of(flow: Flow, names: Iterable[str]) -> dict[str, list[int]]:
    """Dataset indices that the truth of these images shows."""
    masks = {name: read_mask(flow.devkit / "SegmentationClass" / f"{name}.png") for name in names}
    return {name: sorted({0, *np.unique(mask)} - {255}) for name, mask in masks.items()}


def test_maps_carry_the_indices_of_the_dataset(flow: Flow) -> None:
    paths = sorted(flow.folders["knowledge"].glob("*.map.png"))
    shown = labels_of(flow, [path.name.removesuffix(".map.png") for path in paths])
    assert 0 < len(paths) < 12  # only the images that show cats and dogs alone
    assert {label for labels in shown.values() for label in labels} == {0, CAT, DOG}
    for path in paths:
        classes, scores = read_map(path)
        assert classes == shown[path.name.removesuffix(".map.png")]
        assert scores.shape == (len(classes), 64, 64)
        assert read_map(flow.folders["advice"] / path.name)[0] == classes


def test_seed_masks_carry_the_indices_of_the_dataset_and_come_with_differences(flow: Flow) -> None:
    seeds = flow.folders["seeds"]
    paths = sorted(seeds.glob("*.png"))
    assert [path.stem for path in paths] == [p.name[:-8] for p in sorted(flow.folders["knowledge"].glob("*.map.png"))]
    values = {path.stem: set(np.unique(read_mask(path)).tolist()) for path in paths}
    for name, labels in labels_of(flow, values).items():
        assert values[name] <= {*labels, 255}
    for what in ("d_knowledge", "d_advice"):
        assert [path.name for path in sorted((seeds / what).glob("*.png"))] == [path.name for path in paths]


def test_masks_for_retraining_are_restricted_to_the_image_labels(flow: Flow, tmp_path: Path) -> None:
    flow.run("predict", "segmentation", f"--trainer.default_root_dir={tmp_path}", trained=True)
    paths = list((tmp_path / "predictions").glob("*.png"))
    assert len(paths) == len(list(flow.folders["knowledge"].glob("*.map.png")))
    for name, labels in labels_of(flow, [path.stem for path in paths]).items():
        assert set(np.unique(read_mask(tmp_path / "predictions" / f"{name}.png"))) <= set(labels)


def test_predict_keeps_nothing_in_memory(flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning import Trainer

    seen, original = [], Trainer.predict

    @functools.wraps(original)  # jsonargparse reads the signature
    def spy(self: Trainer, *args: Any, **options: Any) -> None:
        seen.append((options["return_predictions"], original(self, *args, **options)))

    monkeypatch.setattr(Trainer, "predict", spy)
    done = flow.run("predict", "classification", f"--trainer.default_root_dir={tmp_path}", trained=True)
    assert seen == [(False, None)]
    assert not done.trainer.predict_loop.predictions
    assert list((tmp_path / "predictions").glob("*.map.png"))


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the images that a network is asked about."""
    seen, original = [], ssdd_lightning.SegmentationModule.segment
    for stage in (ssdd_lightning.SegmentationModule, ssdd_lightning.DynamicRefinementModule):
        monkeypatch.setattr(stage, "segment", lambda self, *images: seen.append(1) or original(self, *images))
    return seen


def test_an_interrupted_test_goes_on_and_scores_everything(flow: Flow, tmp_path: Path, segmented: list[int]) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    whole = flow.run("test", "segmentation", root, trained=True).trainer.callback_metrics["test/miou"]
    masks = sorted((tmp_path / "test").glob("*.png"))
    assert len(segmented) == len(masks) > 1
    before = {path.name: path.read_bytes() for path in masks}
    masks[0].unlink()
    masks[1].write_bytes(masks[1].read_bytes()[:60])
    again = flow.run("test", "segmentation", root, trained=True).trainer.callback_metrics["test/miou"]
    assert len(segmented) == len(masks) + 2
    assert again == whole
    assert before == {path.name: path.read_bytes() for path in masks}
    record = json.loads((tmp_path / "test" / "test.json").read_text())
    assert record["finished"] is True
    assert record["results"]["image_labels"] is False
    assert record["results"]["images"] == len(masks)
    assert record["results"]["finished_earlier"] == len(masks) - 2
    assert record["results"]["scores"]["test/miou"] == pytest.approx(float(whole))
    assert record["settings"]["protocol"] == {"scales": [1.0], "flip": False, "crf": None}
    assert record["settings"]["classes"] == [0, CAT, DOG]
    assert list(record["inputs"]) == ["the checkpoint"]


def test_masks_of_another_checkpoint_are_made_anew(flow: Flow, tmp_path: Path, segmented: list[int]) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    flow.run("test", "segmentation", root, trained=True)
    flow.run("test", "dynamic", root, trained=True)
    masks = list((tmp_path / "test").glob("*.png"))
    assert len(segmented) == 2 * len(masks)
    flow.run("test", "dynamic", root, trained=True)
    assert len(segmented) == 2 * len(masks)


@pytest.mark.parametrize(("stage", "suffix"), [("classification", ".map.png"), ("static", ".png")])
def test_an_interrupted_prediction_goes_on(flow: Flow, tmp_path: Path, stage: str, suffix: str) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    flow.run("predict", stage, root, trained=True)
    files = sorted(path for path in (tmp_path / "predictions").rglob(f"*{suffix}"))
    times = {path: path.stat().st_mtime_ns for path in files}
    files[-1].unlink()
    flow.run("predict", stage, root, trained=True)
    changed = [path for path in files if path.stat().st_mtime_ns != times[path]]
    assert files[-1] in changed
    assert {path.name for path in changed} == {files[-1].name}
    record = json.loads((tmp_path / "predictions" / "predict.json").read_text())
    assert record["results"]["image_labels"] is True
    assert "were used" in record["settings"]["note"]


# --- weights and checkpoints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", SCORED)
def test_a_fresh_fit_starts_from_the_classification_stage(flow: Flow, tmp_path: Path, stage: str) -> None:
    still = ["--model.init_args.optimization.learning_rate=0", f"--trainer.default_root_dir={tmp_path}"]
    model = flow.run("fit", stage, *still).model
    start = weights_of(flow.checkpoint("classification"))
    for name, parameter in model.network.backbone.named_parameters():
        assert torch.equal(parameter, start[f"network.backbone.{name}"])


def test_resume_does_not_load_backbone_weights(flow: Flow, tmp_path: Path) -> None:
    start = shutil.copy(flow.checkpoint("classification"), tmp_path / "start.ckpt")
    options = [f"--model.init_args.backbone_weights={start}", f"--trainer.default_root_dir={tmp_path}"]
    flow.run("fit", "segmentation", *options)
    Path(start).unlink()
    with pytest.raises(InputError, match=r"start\.ckpt"):
        flow.run("fit", "segmentation", *options)
    resume = f"--ckpt_path={tmp_path / 'checkpoints' / 'last.ckpt'}"
    assert flow.run("fit", "segmentation", *options, resume, "--trainer.max_epochs=2").trainer.current_epoch == 2


@pytest.mark.parametrize("stage", MODULES)
def test_load_from_checkpoint_needs_no_networks_and_no_pickle(flow: Flow, stage: str) -> None:
    stored = weights_of(flow.checkpoint(stage))  # weights_only: plain values and tensors, or this raises
    module = getattr(ssdd_lightning, MODULES[stage]).load_from_checkpoint(flow.checkpoint(stage), map_location="cpu")
    assert equal(module.state_dict(), stored)
    assert module.network.num_classes == 3
    assert module.network.backbone.name == BACKBONE


def test_a_checkpoint_decides_its_training_and_the_command_line_its_use(flow: Flow, tmp_path: Path) -> None:
    """Lightning >= 2.5 parses hyper-parameters last, silently, which is right for what belongs to the fit alone."""
    rate = "--model.init_args.optimization.learning_rate=9"
    for flag, found in (
        ("--model.init_args.background_alpha=9", (9.0, [1.0, 0.5, 1.5, 2.0])),
        ("--model.init_args.scales=[2.0]", (4.0, [2.0])),
    ):
        options = [flag, "--data.splits.predict=val", f"--trainer.default_root_dir={tmp_path}"]
        done = flow.run("predict", "classification", *options, rate, trained=True)
        assert (done.model.background_alpha, done.model.scales) == found
        assert done.model.optimization.learning_rate < 9
        assert done.datamodule.splits.predict == "val"
        assert Path(done.trainer.default_root_dir) == tmp_path
    fresh = flow.run("fit", "classification", *options, "--model.init_args.background_alpha=9")
    assert (fresh.model.background_alpha, fresh.model.scales) == (9.0, [2.0])


def test_a_checkpoint_keeps_its_classes_and_refuses_others(flow: Flow, tmp_path: Path) -> None:
    stored = torch.load(flow.checkpoint("segmentation"), weights_only=True)["ssdd_classes"]
    assert stored["indices"] == [0, CAT, DOG]
    assert [stored["names"][index] for index in stored["indices"]] == ["background", "cat", "dog"]
    other = [f"--trainer.default_root_dir={tmp_path}", "--data.classes=[cow,sheep]"]
    with pytest.raises(InputError, match=r"trained on the classes \['background', 'cat', 'dog'\], but the data has"):
        flow.run("test", "segmentation", *other, trained=True)


def test_a_checkpoint_from_before_classes_were_kept_still_works(flow: Flow, tmp_path: Path) -> None:
    content = torch.load(flow.checkpoint("segmentation"), weights_only=True)
    del content["ssdd_classes"]
    torch.save(content, tmp_path / "old.ckpt")
    options = [f"--trainer.default_root_dir={tmp_path}", f"--ckpt_path={tmp_path / 'old.ckpt'}"]
    assert flow.run("test", "segmentation", *options).model.class_table is None


def test_the_class_in_a_checkpoint_wins_too(flow: Flow, tmp_path: Path) -> None:
    options = [f"--trainer.default_root_dir={tmp_path}", f"--ckpt_path={flow.checkpoint('segmentation')}"]
    assert type(flow.run("test", "dynamic", *options).model) is ssdd_lightning.SegmentationModule


# --- the data's part -------------------------------------------------------------------------------------------------


def test_number_of_classes_comes_from_the_data(flow: Flow, tmp_path: Path) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    assert flow.run("fit", "classification", root).model.network.num_classes == 3
    assert flow.run("fit", "classification", root, "--data.classes=null").model.network.num_classes == 21
    ignored = flow.run("fit", "classification", root, "--model.init_args.num_classes=7")
    assert ignored.model.network.num_classes == 3


def test_truth_is_absent_from_training_and_prediction_batches(flow: Flow, tmp_path: Path) -> None:
    data = flow.run("fit", "dynamic", f"--trainer.default_root_dir={tmp_path}").datamodule
    data.setup(None)
    assert "mask" in next(iter(data.val_dataloader()))
    assert "mask" in next(iter(data.test_dataloader()))
    for loader in (data.train_dataloader(), data.predict_dataloader()):
        assert all("mask" not in batch for batch in loader)


def test_training_does_not_change_without_truth(flow: Flow, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(flow.root, root)
    masks = list((root / "VOCdevkit" / "VOC2012" / "SegmentationClass").glob("2007_*.png"))
    assert len(masks) == 12
    for path in masks:
        path.unlink()
    options = [f"--data.root={root}", f"--trainer.default_root_dir={tmp_path}"]
    flow.run("fit", "segmentation", *options)
    assert equal(weights_of(tmp_path / "checkpoints" / "last.ckpt"), weights_of(flow.checkpoint("segmentation")))


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)


def test_a_fit_goes_on_from_the_checkpoint_before_a_damaged_one(
    flow: Flow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = [f"--trainer.default_root_dir={tmp_path}", "--checkpoint.every_n_minutes=0"]
    last = tmp_path / "checkpoints" / "last.ckpt"
    flow.run("fit", "segmentation", *options)
    trained = weights_of(last)
    damaged(last)
    with pytest.raises(
        InputError, match=r"last\.ckpt: damaged: .*Remove it and repeat `ssdd fit`, which continues from"
    ):
        flow.run("test", "segmentation", options[0])
    with caplog.at_level("INFO"):
        flow.run("fit", "segmentation", *options)
    assert "the one before it" in caplog.text
    assert equal(weights_of(last), trained)
    assert (last.parent / "damaged.ckpt").is_file()
    flow.run("test", "segmentation", options[0])


def test_a_fit_never_goes_on_from_the_checkpoint_of_another_one(
    flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [f"--trainer.default_root_dir={tmp_path}", "--checkpoint.every_n_minutes=0"]
    flow.run("fit", "segmentation", *options)
    monkeypatch.setattr(ssdd_lightning.SegmentationModule, "training_step", interrupted)
    with pytest.raises(RuntimeError, match="stopped"):
        flow.run("fit", "segmentation", *options, "--model.init_args.optimization.momentum=0.5")
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["replaced-1.ckpt"]


def interrupted(*_: object) -> None:
    raise RuntimeError("stopped")


# --- the configuration -----------------------------------------------------------------------------------------------


def test_fit_writes_its_configuration_and_test_leaves_it(flow: Flow, tmp_path: Path) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    flow.run("fit", "segmentation", root, "--model.init_args.optimization.momentum=0.125")
    path = tmp_path / "config.yaml"
    written = path.read_text()
    content = yaml.safe_load(written)
    assert content["model"]["init_args"]["optimization"]["momentum"] == 0.125
    assert content["seed_everything"] == 0
    assert not Path("config.yaml").exists()
    ckpt_path = f"--ckpt_path={tmp_path / 'checkpoints' / 'last.ckpt'}"
    for command in ("test", "predict", "validate"):
        flow.run(command, "segmentation", root, ckpt_path, "--trainer.enable_model_summary=true")
    assert path.read_text() == written


def test_the_written_configuration_repeats_the_run(flow: Flow, tmp_path: Path) -> None:
    repeated = ["fit", f"--config={flow.out / 'segmentation' / 'config.yaml'}"]
    run_command([*repeated, f"--trainer.default_root_dir={tmp_path}"])
    assert equal(weights_of(tmp_path / "checkpoints" / "last.ckpt"), weights_of(flow.checkpoint("segmentation")))


def test_the_configuration_goes_to_the_logger_and_its_folder(flow: Flow, tmp_path: Path) -> None:
    logger = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}", "--trainer.logger.name=log"]
    flow.run("fit", "classification", *logger, f"--trainer.default_root_dir={tmp_path}")
    (folder,) = (tmp_path / "log").iterdir()
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["classes"] == ["cat", "dog"]
    assert yaml.safe_load((folder / "hparams.yaml").read_text())["data"]["classes"] == ["cat", "dog"]


# --- what must not happen --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["best_model_path", "last_model_path", "kth_best_model_path"])
@pytest.mark.parametrize(
    "how", ["{}", "local://{}", "file://{}", "simplecache::file://{}", "{out}/checkpoints/../../victim"]
)
def test_a_strangers_checkpoint_deletes_no_folder(flow: Flow, tmp_path: Path, key: str, how: str) -> None:
    out, victim = tmp_path / "run", tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.txt").write_text("years of work")
    content = torch.load(flow.checkpoint("segmentation"), weights_only=True)
    (state,) = [state for name, state in content["callbacks"].items() if name.startswith("RunCheckpoint")]
    state |= {"dirpath": str(out / "checkpoints"), key: how.format(victim, out=out)}
    torch.save(content, tmp_path / "stranger.ckpt")
    more = ("--trainer.max_epochs=2", f"--ckpt_path={tmp_path / 'stranger.ckpt'}")
    flow.run("fit", "segmentation", f"--trainer.default_root_dir={out}", "--checkpoint.save_last=true", *more)
    assert (victim / "thesis.txt").read_text() == "years of work"


def test_a_run_resumed_in_its_own_folder_keeps_its_best_checkpoints(flow: Flow, tmp_path: Path) -> None:
    options = [f"--trainer.default_root_dir={tmp_path}", "--checkpoint.monitor=train/loss", "--checkpoint.save_top_k=2"]
    options += ["--checkpoint.filename={epoch}", "--checkpoint.save_last=true"]
    flow.run("fit", "segmentation", *options)
    last = tmp_path / "checkpoints" / "last.ckpt"
    done = flow.run("fit", "segmentation", *options, "--trainer.max_epochs=2", f"--ckpt_path={last}")
    kept = {Path(path).name for path in done.trainer.checkpoint_callback.best_k_models}
    assert kept == {"epoch=0.ckpt", "epoch=1.ckpt"} == {path.name for path in last.parent.glob("epoch*")}


@pytest.mark.parametrize("name", ["../outside", "{tmp}/outside"])
def test_names_of_a_label_file_lead_nowhere(flow: Flow, tmp_path: Path, name: str) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    photo = next((flow.devkit / "JPEGImages").glob("*.jpg"))
    for path in (photos / "inside.jpg", tmp_path / "outside.jpg"):
        shutil.copy(photo, path)
    vectors: Any = {"inside": np.eye(20)[CAT - 1], name.format(tmp=tmp_path): np.eye(20)[CAT - 1]}
    np.save(tmp_path / "labels.npy", vectors)
    config = yaml.safe_load(flow.config("classification").read_text())
    config["data"] = {"images": str(photos), "labels": str(tmp_path / "labels.npy"), "num_workers": 0}
    config["data"]["classes"] = ["cat", "dog"]
    (tmp_path / "folder.yaml").write_text(yaml.safe_dump({**config, "dataset": "folder"}))
    out = f"--output.output_dir={tmp_path / 'out' / 'maps'}"
    with pytest.raises(InputError, match=r"label file .*labels\.npy: the image name '.*outside' "):
        main(
            ["predict", f"--config={tmp_path / 'folder.yaml'}", f"--ckpt_path={flow.checkpoint('classification')}", out]
        )
    assert not [path for path in tmp_path.rglob("*.png")]


@pytest.mark.parametrize("command", ["test", "predict", "validate"])
def test_without_a_checkpoint_the_last_one_of_the_run_is_meant(
    flow: Flow, tmp_path: Path, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    root = f"--trainer.default_root_dir={out}"
    with pytest.raises(InputError, match=r"expected the checkpoint of a trained stage, found none at .*last\.ckpt"):
        flow.run(command, "segmentation", root)
    assert not out.exists()
    shutil.copytree(flow.out / "segmentation", out)
    with caplog.at_level("INFO"):
        done = flow.run(command, "segmentation", root)
    assert f"The checkpoint is {out / 'checkpoints' / 'last.ckpt'}: SegmentationModule, epoch 1, step" in caplog.text
    assert equal(done.model.state_dict(), weights_of(flow.checkpoint("segmentation")))


def test_random_weights_replace_no_masks(flow: Flow, tmp_path: Path) -> None:
    from pytorch_lightning import Trainer

    from ssdd_lightning.callbacks import PredictionWriter

    done = flow.run("test", "segmentation", f"--trainer.default_root_dir={tmp_path}", trained=True)
    before = contents(tmp_path / "test", "*.png")
    fresh = build_stage(StageConfig((flow.config("segmentation"),))).model
    options: dict[str, Any] = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    trainer = Trainer(default_root_dir=tmp_path, callbacks=[PredictionWriter()], **options)
    with pytest.raises(InputError, match=r"expected a trained SegmentationModule, found random weights"):
        trainer.test(fresh, datamodule=done.datamodule)
    assert contents(tmp_path / "test", "*.png") == before != {}


def test_a_loss_that_is_not_finite_ends_the_fit_and_names_its_images(flow: Flow, tmp_path: Path) -> None:
    options = [f"--trainer.default_root_dir={tmp_path}", "--model.init_args.optimization.new_learning_rate=1e30"]
    message = (
        r"SegmentationModule: the loss of step [12] \(epoch 0\) (is NaN|is not finite|has diverged \(.*\)), "
        r"on the images 2007_\d+, 2007_"
    )
    with pytest.raises(InputError, match=message):
        flow.run("fit", "segmentation", *options, "--trainer.max_epochs=3")
    assert not (tmp_path / "checkpoints").exists()


def test_steps_may_be_skipped(flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ssdd_lightning.SegmentationModule
    original = stage.training_step
    monkeypatch.setattr(
        stage, "training_step", lambda self, *a: original(self, *a) * (float("nan") if self.current_epoch == 1 else 1)
    )
    options = [f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=3"]
    with pytest.raises(InputError, match="is NaN, on the images"):
        flow.run("fit", "segmentation", *options)
    with pytest.warns(UserWarning, match="the step is skipped, 1 of 1000 that may be"):
        done = flow.run("fit", "segmentation", *options, "--on_nan=skip:1000")  # goes on where the first one stopped
    assert done.trainer.current_epoch == 3
    assert done.model.loss_guard.skipped == done.trainer.num_training_batches
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["on_nan"] == "skip:1000"


def test_a_wrong_way_to_go_on_is_a_sentence(flow: Flow) -> None:
    with pytest.raises(InputError, match="on_nan: expected stop, or skip:N with N at least 1, found 'skip'"):
        flow.run("fit", "segmentation", "--on_nan=skip")


def test_the_last_good_checkpoint_stays(flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ssdd_lightning.SegmentationModule
    original = stage.training_step
    monkeypatch.setattr(
        stage, "training_step", lambda self, *a: original(self, *a) * (float("nan") if self.current_epoch else 1)
    )
    with pytest.raises(InputError, match=r"\(epoch 1\) is NaN, .*the last good checkpoint .*last\.ckpt is kept"):
        flow.run("fit", "segmentation", f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=3")
    kept = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 0
    assert all(tensor.isfinite().all() for tensor in kept["state_dict"].values())


def test_weights_that_are_not_finite_are_not_kept(flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step of an epoch is followed by no loss that could tell."""
    stage = ssdd_lightning.SegmentationModule

    def spoil(self: LightningModule) -> None:
        if self.current_epoch == 1:
            next(self.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(stage, "on_train_epoch_end", spoil)
    with pytest.raises(InputError, match="the SegmentationModule being trained holds NaN"):
        flow.run("fit", "segmentation", f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=3")
    assert all(tensor.isfinite().all() for tensor in weights_of(tmp_path / "checkpoints" / "last.ckpt").values())


def diverged(flow: Flow, path: Path, part: str = "state_dict") -> Path:
    """A checkpoint whose training diverged."""
    content = torch.load(flow.checkpoint("static"), weights_only=True)
    tensors = content["state_dict"] if part == "state_dict" else content["optimizer_states"][0]["state"][0]
    tensors[next(key for key in tensors if tensors[key].is_floating_point())].fill_(float("nan"))
    torch.save(content, path)
    return path


READS_A_CHECKPOINT = {
    "test": lambda f, bad: f.words("test", "static", f"--ckpt_path={bad}"),
    "predict": lambda f, bad: f.words("predict", "static", f"--ckpt_path={bad}"),
    "resumed fit": lambda f, bad: f.words("fit", "static", f"--ckpt_path={bad}", "--trainer.max_epochs=2"),
    "backbone": lambda f, bad: f.words("fit", "static", f"--model.init_args.backbone_weights={bad}"),
    "static stage": lambda f, bad: f.words("fit", "dynamic", f"--model.init_args.static_checkpoint={bad}"),
    "segment": lambda f, bad: ["segment", str(bad), str(f.devkit / "JPEGImages"), f"--out={bad.parent / 'masks'}"],
    "convert-weights": lambda f, bad: ["convert-weights", bad, bad.with_name("converted.ckpt"), f"--arch={BACKBONE}"],
}


@pytest.mark.parametrize("case", READS_A_CHECKPOINT)
def test_whatever_reads_a_diverged_checkpoint_refuses_it(flow: Flow, tmp_path: Path, case: str) -> None:
    words = READS_A_CHECKPOINT[case](flow, diverged(flow, tmp_path / "bad.ckpt"))
    root = [] if case in ("segment", "convert-weights") else [f"--trainer.default_root_dir={tmp_path / 'run'}"]
    with pytest.raises(InputError, match=r"bad\.ckpt holds NaN or infinite numbers, the first in "):
        main([str(word) for word in (*words, *root)])
    assert not list(tmp_path.rglob("*.png"))
    assert not (tmp_path / "converted.ckpt").exists()


def test_a_diverged_optimiser_is_refused(flow: Flow, tmp_path: Path) -> None:
    bad = diverged(flow, tmp_path / "bad.ckpt", "optimizer")
    with pytest.raises(InputError, match=r"optimizer 0 of the checkpoint .*bad\.ckpt holds NaN"):
        flow.run("fit", "static", f"--ckpt_path={bad}", f"--trainer.default_root_dir={tmp_path}")


@pytest.mark.parametrize(
    ("command", "signum"),
    [
        ("fit", signal.SIGTERM),
        ("fit", signal.SIGINT),
        ("fit", signal.SIGUSR1),
        ("test", signal.SIGINT),
        ("predict", signal.SIGTERM),
    ],
)
def test_a_signal_ends_a_command_with_its_status_and_a_word_on_how_to_go_on(
    flow: Flow, tmp_path: Path, command: str, signum: signal.Signals
) -> None:
    more = ["--trainer.max_epochs=1000"] if command == "fit" else []
    words = flow.words(
        command, "segmentation", f"--trainer.default_root_dir={tmp_path}", *more, trained=command != "fit"
    )
    status, _, output, said = stopped(words, signum)
    assert status == (130 if signum == signal.SIGINT else 143)
    assert output.count("working") <= 1, "the batch in work was the last one"
    happened = "interrupted" if signum == signal.SIGINT else "terminated"
    assert said == [f"ssdd: {happened}. Run the same command again to continue."]
    if command == "fit":
        kept = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
        assert kept["global_step"] in (1, 2), "the batch in work and what it made are kept"


@pytest.mark.parametrize("command", ["test", "predict"])
def test_a_shorter_list_is_said_and_scored(
    flow: Flow, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    stage, split = ("segmentation", "test") if command == "test" else ("static", "predict")
    listed = flow.devkit / "ImageSets" / "Segmentation" / ("val.txt" if command == "test" else "train.txt")
    out = tmp_path / ("test" if command == "test" else "predictions")

    def go(chosen: Iterable[str]) -> Any:
        (tmp_path / "list.txt").write_text("\n".join(chosen))
        words = [f"--trainer.default_root_dir={tmp_path}", f"--data.splits.{split}={tmp_path / 'list.txt'}"]
        flow.run(command, stage, *words, trained=True)
        return json.loads((out / f"{command}.json").read_text())

    whole = go(listed.read_text().split())
    names = sorted(path.stem for path in out.glob("*.png"))
    fewer = go(names[:-1])
    assert fewer["left_over"] == names[-1:]
    assert fewer["results"]["images"] == len(names) - 1
    assert (out / f"{names[-1]}.png").is_file()
    assert (
        f"{command}: 1 images in {out} are no longer asked for ({names[-1]}): their files stay"
        in capsys.readouterr().out
    )
    if command == "test":
        assert fewer["results"]["scores"] != whole["results"]["scores"]
    else:
        assert MergeFolders(flow.folders["knowledge"], flow.folders["advice"], out).names() == names[:-1]
    again = go(names)
    assert (again["left_over"], again["results"]["scores"]) == ([], whole["results"]["scores"])


SPOILT = """
import os, signal, sys
from torch.utils.data import get_worker_info
from ssdd_lightning.cli.main import entry_point
from ssdd_lightning.data.dataset import FolderDataset
read = FolderDataset.__getitem__
def spoilt(self, draw):
    if get_worker_info() is not None:
        {fault}
        draw = 0
    return read(self, draw)
FolderDataset.__getitem__ = spoilt
entry_point()
"""


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            r"a loader process ended \((Killed|no signal)\): memory or /dev/shm was short",
        ),
        ("os.kill(os.getpid(), signal.SIGBUS)", r"a loader process ended \((Bus error|no signal)\): memory"),
        ("self.records[0].image.unlink(missing_ok=True)", r"image .*\.jpg does not exist; check"),
        ("open(self.records[0].image, 'w').close()", r"cannot read image .*\.jpg \(cannot identify"),
    ],
)
def test_a_worker_that_dies_or_a_photo_that_goes_is_a_sentence(
    flow: Flow, tmp_path: Path, fault: str, sentence: str
) -> None:
    shutil.copytree(flow.root, tmp_path / "devkit")
    options = [f"--trainer.default_root_dir={tmp_path}", f"--data.root={tmp_path / 'devkit'}", "--data.num_workers=1"]
    words = flow.words("fit", "segmentation", *options)
    done = Forked(SPOILT.format(fault=fault), words, one_stream=False)
    _, errors = done.communicate(timeout=120)
    said = errors.splitlines()[-1].replace("\0", "")  # torch ends its own line about a bus error with one
    assert done.returncode == 2, errors
    assert re.match(f"ssdd: error: {sentence}", said), errors
    # torch raises its error wherever the parent is, and Python shows it where nothing may be raised
    assert "Traceback" not in errors or "Exception ignored in" in errors


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_workers_too(flow: Flow, tmp_path: Path, signum: signal.Signals) -> None:
    """As Ctrl-C in a terminal does, and SLURM's SIGTERM, for which torch has a handler of its own in the workers."""
    words = flow.words("fit", "segmentation", f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=1000")
    status, _, _, said = stopped([*words, "--data.num_workers=2"], signum, group=True)
    assert status == (130 if signum == signal.SIGINT else 143)
    assert len(said) == 1
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()


def test_a_fit_that_was_ended_goes_on_by_the_same_command(
    flow: Flow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    options = ["fit", "segmentation", root, "--trainer.max_epochs=4"]
    status, _, _, said = stopped(flow.words(*options), signal.SIGTERM)
    assert (status, said) == (143, ["ssdd: terminated. Run the same command again to continue."])
    with caplog.at_level("INFO"):
        resumed = flow.run(*options)
        assert "fit: continuing from " in caplog.text
        assert flow.run(*options).trainer.global_step == 0
        assert f"fit: {tmp_path} is finished, nothing to do." in caplog.text
    elsewhere = f"--trainer.default_root_dir={tmp_path / 'whole'}"
    whole = flow.run("fit", "segmentation", elsewhere, "--trainer.max_epochs=4")
    assert equal(whole.model.state_dict(), resumed.model.state_dict())
    entry = json.loads((tmp_path / "fit.json").read_text())
    assert entry["results"]["epochs"] == 4


def test_an_explicit_checkpoint_goes_on_whatever_made_it(
    flow: Flow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    flow.run("fit", "segmentation", root)
    last = tmp_path / "checkpoints" / "last.ckpt"
    done = flow.run("fit", "segmentation", root, "--trainer.max_epochs=2", f"--ckpt_path={last}")
    assert done.trainer.current_epoch == 2
    assert "redone" not in capsys.readouterr().out
    assert json.loads((tmp_path / "fit.json").read_text())["settings"]["trainer"]["max_epochs"] == 2


def test_a_fast_run_leaves_a_finished_one_alone(flow: Flow, tmp_path: Path) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    flow.run("fit", "segmentation", root)
    before = contents(tmp_path)
    assert flow.run("fit", "segmentation", root, "--trainer.fast_dev_run=true").trainer.global_step == 1
    after = contents(tmp_path)
    assert before == {path: content for path, content in after.items() if path in before}


def test_a_fit_of_other_settings_is_made_anew_and_says_why(
    flow: Flow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    flow.run("fit", "segmentation", root)
    capsys.readouterr()
    done = flow.run(
        "fit", "segmentation", root, "--model.init_args.optimization.learning_rate=0.01", "--data.num_workers=1"
    )
    assert done.trainer.global_step > 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fit: ")]
    kept = tmp_path / "checkpoints" / "replaced-1.ckpt"
    expected = "because model.init_args.optimization.learning_rate was 0.001 and is 0.01."
    assert said == [f"fit: the earlier checkpoint is kept as {kept}.", f"fit: redone in {tmp_path}, {expected}"]
    assert equal(weights_of(kept), weights_of(flow.checkpoint("segmentation")))


def test_a_checkpoint_that_cannot_be_gone_on_from_changes_nothing(flow: Flow, tmp_path: Path) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    flow.run("fit", "segmentation", root)
    entry = (tmp_path / "fit.json").read_text()
    other = ["--model.init_args.optimization.learning_rate=0.01", f"--ckpt_path={flow.checkpoint('static')}"]
    with pytest.raises(InputError):
        flow.run("fit", "segmentation", root, "--data.classes=[cow,sheep]", *other)
    assert (tmp_path / "fit.json").read_text() == entry
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()


def test_a_damaged_checkpoint_of_the_folder_is_a_sentence(flow: Flow, tmp_path: Path) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    flow.run("fit", "segmentation", root)
    entry = json.loads((tmp_path / "fit.json").read_text())
    (tmp_path / "fit.json").write_text(json.dumps({**entry, "finished": False}))
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"cannot read the checkpoint .*last\.ckpt"):
        flow.run("fit", "segmentation", root)


# --- the command itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    first, commands = capsys.readouterr().out.split("\ncommands:\n")
    listed = [line.split()[0] for line in commands.splitlines() if line.startswith("  ")]
    assert listed == [*STAGE_COMMANDS, *FILE_COMMANDS]
    shown = re.findall(r"ssdd ([\w-]+)", first.partition("first steps:")[2])
    assert len(shown) == 6
    assert {*shown} <= {*listed}, "the first steps are commands"


def test_a_reader_that_has_enough_is_no_error() -> None:
    words = [sys.executable, "-m", "ssdd_lightning"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() in (0, 141)
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ssdd-lightning 0.")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["train"], r"unknown command 'train': did you mean `ssdd fit`\?"),
        (["evalute"], r"did you mean `ssdd evaluate`\?"),
        (["xyzzy"], "expected one of fit, validate"),
    ],
)
def test_a_misspelt_command_is_answered_at_once(words: list[str], answer: str) -> None:
    with pytest.raises(InputError, match=answer):
        main(words)


def test_constructor_docstrings_are_the_help_texts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--model.help=ssdd_lightning.DynamicRefinementModule"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Share of m_D0, beside D1, in what the sub branch learns from (Eq. 14)" in text
    assert "masks, CRF and DD-Nets work at 1/mask_stride of the input" in text


def test_help_of_a_stage_command_tells_about_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["predict", "--help-all"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "--data.classes" in text
    assert "--output.output_dir" in text
    assert "return_predictions" not in text


@pytest.mark.parametrize("command", FILE_COMMANDS)
def test_help_of_the_file_commands(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: ssdd {command}" in capsys.readouterr().out


def as_process(monkeypatch: pytest.MonkeyPatch, words: Sequence[str]) -> object:
    """Run `ssdd WORDS` inside this process; return the exit status."""
    monkeypatch.setattr(sys, "argv", ["ssdd", *words])
    with pytest.raises(SystemExit) as stop:
        entry_point()
    return stop.value.code


def test_the_command_warns_of_nothing_that_a_user_could_not_change(
    flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        words = flow.words("fit", "classification", f"--trainer.default_root_dir={tmp_path}")
        assert as_process(monkeypatch, words) == 0
    found = [str(w.message) for w in caught]
    assert not [text for text in found if "args parameter" in text or "LeafSpec" in text]
    ours = str(Path(ssdd_lightning.__file__).parent)
    assert not [str(w.message) for w in caught if w.filename.startswith(ours)]


WRONG = [
    ("--data.root=nowhere", "root nowhere should hold JPEGImages"),
    ("--data.splits.train=nope", "nope.txt does not exist"),
    ("--data.classes=[cat,unicorn]", "unicorn"),
    ("--data.labels=none.csv", "none.csv does not exist"),
    ("--data.knowledge=nowhere", "nowhere does not exist"),
    ("--model.init_args.backbone_weights=none.pt", "none.pt"),
    ("--model.init_args.network.init_args.head=largefow", "'largefow'"),
    ("--model.init_args.network.init_args.backbone=resnet5", "did you mean resnet50"),
    ("--model.init_args.crf={preset: psb}", "unknown CRF preset 'psb'"),
]


def error_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("ssdd: error: ")]


@pytest.mark.parametrize(("option", "found"), WRONG)
def test_bad_input_is_one_line_and_status_2(
    flow: Flow,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    found: str,
) -> None:
    words = flow.words("fit", "segmentation", f"--trainer.default_root_dir={tmp_path}", option)
    assert as_process(monkeypatch, words) == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert len(error_lines(text)) == 1
    assert found in error_lines(text)[0]
    assert text.splitlines()[-1] == error_lines(text)[0]


def test_bad_input_found_while_training_has_a_line_of_its_own(
    flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(flow.folders["seeds"], tmp_path / "seeds")
    (tmp_path / "seeds" / "2007_000001.png").write_bytes(b"no mask")
    options = [f"--trainer.default_root_dir={tmp_path}", f"--data.knowledge={tmp_path / 'seeds'}"]
    words = flow.words("fit", "segmentation", *options, "--trainer.enable_progress_bar=true")
    assert as_process(monkeypatch, words) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"ssdd: error: cannot read mask {tmp_path / 'seeds' / '2007_000001.png'}")


def test_the_progress_bar_is_tqdms_unless_another_is_chosen(flow: Flow) -> None:
    quiet = StageConfig((flow.config("classification"),))
    shown = quiet.with_settings({"trainer.enable_progress_bar": True})
    rich = [{"class_path": "pytorch_lightning.callbacks.RichProgressBar"}]
    assert type(build_stage(shown).trainer.progress_bar_callback) is TQDMProgressBar
    chosen = shown.with_settings({"trainer.callbacks": rich})
    assert type(build_stage(chosen).trainer.progress_bar_callback) is RichProgressBar
    assert build_stage(quiet).trainer.progress_bar_callback is None


@pytest.mark.parametrize(("times", "precision"), [(6.0, "32-true"), (0.5, "bf16-mixed"), (1.3, "bf16-mixed")])
@pytest.mark.parametrize("asked", ["bf16-mixed", "bf16", "16-mixed"])
def test_bfloat16_is_used_on_processors_that_have_it(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, times: float, precision: str, asked: str
) -> None:
    monkeypatch.setattr(lightning, "bfloat16_slowdown", lambda: times)
    settings = {"trainer.precision": asked, "trainer.accelerator": "cpu"}
    line = build_stage(StageConfig((flow.config("segmentation"),), settings))
    assert line.trainer.precision == precision
    assert line.config.trainer.precision == asked, "so that a run can move to another machine"
    entry = line.ledger("test", flow.checkpoint("segmentation"))
    assert entry.recipe.settings["precision"] == {"bf16": "bf16-mixed"}.get(asked, asked), "nor is it outdated there"


def test_without_a_terminal_there_is_a_line_an_epoch(
    flow: Flow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = flow.words("fit", "segmentation", f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=2")
    main([word for word in words if "enable_progress_bar" not in word] + ["--trainer.enable_progress_bar=null"])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert [line.partition(":")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert all("train/loss" in line and "val/miou" in line for line in lines)


def test_a_checkpoint_of_other_classes_is_bad_input(
    flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--trainer.default_root_dir={tmp_path}", "--data.classes=[cat,cow,dog,sheep]"]
    assert as_process(monkeypatch, flow.words("test", "segmentation", *options, trained=True)) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"ssdd: error: the checkpoint {flow.checkpoint('segmentation')} does not fit")
    assert "use the classes and the network it was trained with" in line
    assert not list(tmp_path.rglob("*.png"))


def test_a_file_without_permission_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", "secret.jpg")

    monkeypatch.setattr("ssdd_lightning.cli.main.main", refuse)
    assert as_process(monkeypatch, ["doctor"]) == 2
    assert capsys.readouterr().err == (
        "ssdd: error: no permission for secret.jpg; change its permissions or name another.\n"
    )


@pytest.mark.parametrize("option", ["--num_workers=0", "--num-workers=0"])
def test_dashes_and_underscores_are_one_spelling(tmp_path: Path, option: str) -> None:
    (tmp_path / "maps").mkdir()
    folders = [f"--{name}={tmp_path / 'maps'}" for name in ("images", "maps")]
    with pytest.raises(InputError, match="the number of workers must be 1 or more; found 0"):
        main(["crf", *folders, f"--out={tmp_path / 'a--b_c'}", option])


def test_unknown_command_is_bad_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert as_process(monkeypatch, ["fitt"]) == 2
    assert capsys.readouterr().err == "ssdd: error: unknown command 'fitt': did you mean `ssdd fit`?\n"


def truncate_a_photo(flow: Flow, tmp_path: Path) -> tuple[list[str], str]:
    """Copy the devkit; cut one training photo in two."""
    root = tmp_path / "truncated"
    shutil.copytree(flow.root, root)
    name = sorted(flow.folders["knowledge"].glob("*.map.png"))[0].name.removesuffix(".map.png")
    photo = root / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{name}.jpg"
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    return [f"--data.root={root}", "--data.num_workers=1"], photo.name


@pytest.mark.parametrize("case", ["root", "worker"])
def test_bad_input_through_the_installed_command(flow: Flow, tmp_path: Path, case: str) -> None:
    options, found = {
        "root": lambda: (["--data.root=nowhere"], "root nowhere should hold JPEGImages"),
        "worker": lambda: truncate_a_photo(flow, tmp_path),
    }[case]()
    command = [str(Path(sys.executable).with_name("ssdd")), *flow.words("fit", "classification", *options)]
    command.append(f"--trainer.default_root_dir={tmp_path / 'run'}")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(error_lines(done.stderr)) == 1
    assert found in error_lines(done.stderr)[0]
    assert done.stderr.splitlines()[-1] == error_lines(done.stderr)[0]
    assert not list(tmp_path.glob("run/**/*.ckpt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda path: b"PK\x03\x04" + bytes(99), "truncated, damaged or not written by torch"),
        (lambda path: {"state_dict": {}, "evil": Trap(path / "ran")}, r"asks for posix\.mkdir.*do not trust it"),
        (lambda path: [1, 2], "is no checkpoint"),
    ],
)
def test_a_checkpoint_that_is_none_is_a_sentence(
    flow: Flow, tmp_path: Path, content: Callable[..., Any], message: str
) -> None:
    made, path = content(tmp_path), tmp_path / "x.ckpt"
    path.write_bytes(made) if isinstance(made, bytes) else torch.save(made, path)
    with pytest.raises(InputError, match=rf"x\.ckpt.*{message}") as caught:
        flow.run("predict", "segmentation", f"--trainer.default_root_dir={tmp_path}", f"--ckpt_path={path}")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_weights_alone_are_no_training_to_go_on_with(flow: Flow, tmp_path: Path) -> None:
    content = torch.load(flow.checkpoint("segmentation"), weights_only=True)
    torch.save({"state_dict": content["state_dict"]}, tmp_path / "weights.ckpt")
    with pytest.raises(InputError, match=r"weights\.ckpt holds weights, but no training state to continue from"):
        flow.run("fit", "segmentation", f"--ckpt_path={tmp_path / 'weights.ckpt'}")


@pytest.mark.parametrize(
    "option",
    ["--seed_everything=99999999999999999999", "--seed_everything=-5", "--trainer.devices=-2", "--trainer.num_nodes=0"],
)
def test_options_that_lightning_stumbles_over(tiny_devkit: Path, tmp_path: Path, option: str) -> None:
    path = write_stage(tmp_path / "s.yaml", "ClassificationModule", tmp_path, {"root": tiny_devkit})
    with pytest.raises(InputError, match=r"seed_everything: expected 0 to|the trainer cannot be built"):
        main(["fit", f"--config={path}", option])
