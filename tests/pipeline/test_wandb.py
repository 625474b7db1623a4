"""W&B without an account: what `ssdd run` and `ssdd fit` with nothing but the logger's name leave on disk."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytorch_lightning.loggers import WandbLogger

from ssdd_lightning.callbacks.wandb_run import settle
from ssdd_lightning.cli.main import main
from ssdd_lightning.data.choice import data_module_class
from ssdd_lightning.pipeline.lightning import run_command
from tests.helpers.stages import SMALL_RUN, write_stage
from tests.helpers.wandb_runs import OfflineRun, offline_runs

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
STAGES = ("classification", "static", "baseline_seeds", "baseline_longer", "dynamic")
VARIABLES = ("PROJECT", "DIR", "NAME", "RUN_GROUP", "JOB_TYPE", "RUN_ID", "SWEEP_ID")


@pytest.fixture(scope="module", autouse=True)
def no_settings_of_ones_own(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """No account, no variables, and caches that go with the test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(f"WANDB_{name}", raising=False)
        for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
            patch.setenv(f"WANDB_{name}", str(tmp_path_factory.mktemp("wandb")))
        patch.setenv("WANDB_SILENT", "true")
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        yield


def run_words(devkit: Path, out: Path, **more: object) -> list[str]:
    sets = {**SMALL_RUN, "trainer.check_val_every_n_epoch": 1, **{k.replace("__", "."): v for k, v in more.items()}}
    del sets["trainer.callbacks"]
    words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    command = ["run", str(EXPERIMENTS / "quickstart"), f"--root={devkit}", f"--out={out}", "--pictures=1"]
    return [*command, "--classifier_weights=null", *words]


@pytest.fixture(scope="module")
def pipeline(tiny_devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, all of its stages in this process."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    assert main(run_words(tiny_devkit, out, trainer__logger="WandbLogger")) == 0
    return out


@pytest.fixture(scope="module")
def runs(pipeline: Path) -> dict[str, list[OfflineRun]]:
    return {stage: offline_runs(pipeline / stage) for stage in STAGES}


def test_each_stage_is_a_run_of_its_own_in_one_group(pipeline: Path, runs: dict[str, list[OfflineRun]]) -> None:
    assert [len(found) for found in runs.values()] == [1, 1, 2, 2, 2]
    assert len({found[0].run.run_id for found in runs.values()}) == 5
    assert {run.run.project for found in runs.values() for run in found} == {"ssdd"}
    (group,) = {run.run.run_group for found in runs.values() for run in found}
    assert group.startswith("demo-")
    assert [found[0].run.display_name for found in runs.values()] == [f"demo/{stage}" for stage in STAGES]
    assert [found[0].run.job_type for found in runs.values()] == [
        *("classification", "static", "baseline", "baseline", "dynamic")
    ]
    assert {run.exit_code for found in runs.values() for run in found} == {0}
    assert len(offline_runs(pipeline)) == 8, "predict has nothing to log"
    assert not list(Path.cwd().iterdir()), "nothing lies in the current folder"
    assert all((pipeline / stage / "config.yaml").is_file() for stage in STAGES)


def test_a_test_goes_into_the_run_of_its_fit(runs: dict[str, list[OfflineRun]]) -> None:
    for stage in ("baseline_seeds", "dynamic"):
        fit, test = runs[stage]
        assert fit.run.run_id == test.run.run_id
        ((step, score),) = test.values("test/miou")
        assert step == fit.values("train/loss")[-1][0] + 1
        assert test.summary["test/miou"] == score
        assert not fit.values("test/miou")
        assert test.config.keys() <= {"_wandb"}, "the configuration is the fit's"


def test_names_line_up_across_stages(runs: dict[str, list[OfflineRun]]) -> None:
    names = {stage: {key for row in found[0].history for key in row} for stage, found in runs.items()}
    everywhere = {"train/loss", "lr/backbone", "lr/new", "time/data", "time/networks", "time/crf", "epoch"}
    assert all(everywhere <= found for found in names.values())
    assert {"val/mean_ap", "best/val/mean_ap"} <= names["classification"]
    for stage in STAGES[1:]:
        assert {"val/miou", "best/val/miou", "val/iou/background", "entropy"} <= names[stage]
    assert {"ssdd0/bad_samples", "ssdd0/advice_taken", "ssdd0/d_K/auc"} <= names["static"]
    assert {"ssdd1/bad_samples", "ssdd2/d_A/auc", "agreement/D0_D2"} <= names["dynamic"]
    assert not any(name.startswith(("ssdd", "agreement")) for name in names["baseline_seeds"])


def test_best_and_last_are_in_the_summary(runs: dict[str, list[OfflineRun]]) -> None:
    for stage in STAGES[1:]:
        run = runs[stage][0]
        assert run.summary["val/miou"] == run.values("val/miou")[-1][1]
        assert run.summary["best/val/miou"] == max(value for _, value in run.values("val/miou"))


def test_the_configuration_is_the_stages_own(pipeline: Path, runs: dict[str, list[OfflineRun]]) -> None:
    fingerprints = set()
    for stage, (run, *_) in runs.items():
        written = yaml.safe_load((pipeline / stage / "config.yaml").read_text())
        config = {key: value for key, value in run.config.items() if key != "_wandb"}
        assert config["model"] == written["model"]
        assert config["data"] == written["data"]
        assert config["dataset"]["name"] == "voc"
        assert config["dataset"]["classes"] == ["background", "cat", "cow", "dog", "sheep"]
        assert config["dataset"]["images"]["train"]["all"] == 12
        assert config["ssdd_lightning"]
        text = json.dumps(config)
        assert not any(
            internal in text for internal in ("_instantiator", "_class_path", "default_root_dir", "WandbLogger")
        )
        fingerprints.add(config["dataset"]["fingerprint"])
    assert len(fingerprints) == 1


def test_masks_are_overlays_with_names(runs: dict[str, list[OfflineRun]]) -> None:
    run = runs["dynamic"][0]
    train = next(row for row in run.history if "pictures/train/captions" in row)
    assert train["pictures/train/captions"][:3] == ["image", "d_K", "d_A"]
    assert sorted(train["pictures/train/all_masks"][0]) == ["advice", "knowledge", "prediction", "refined", "truth"]
    val = next(row for row in run.history if "pictures/val/captions" in row)
    assert sorted(val["pictures/val/all_masks"][0]) == ["prediction", "truth"]
    labels = run.config["_wandb"]["mask/class_labels"]["pictures/val_wandb_delimeter_truth"]["value"]
    assert labels["8"] == "cat"
    media = [run.folder / "files" / part["path"] for part in val["pictures/val/all_masks"][0].values()]
    assert all(path.is_file() for path in media)


def test_classes_and_confusion_are_tables(runs: dict[str, list[OfflineRun]]) -> None:
    for run, phase in zip(runs["dynamic"], ("val", "test"), strict=True):
        for name in ("classes", "confusion"):
            key = f"tables/{phase}_{name}/path"
            row = next(row for row in run.history if key in row)
            table = json.loads((run.folder / "files" / row[key]).read_text())
            assert [line[0] for line in table["data"]] == ["background", "cat", "cow", "dog", "sheep"]
        assert table["columns"] == ["truth", "background", "cat", "cow", "dog", "sheep", "ignored (255)"]


def test_another_logger_leaves_a_finished_run_alone(
    pipeline: Path, tiny_devkit: Path, runs: dict[str, list[OfflineRun]], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(run_words(tiny_devkit, pipeline, trainer__logger="CSVLogger")) == 0
    assert f"run: finished in {pipeline}, nothing to do." in capsys.readouterr().out


def test_a_resumed_fit_goes_on_and_a_new_one_begins_a_run(tiny_devkit: Path, tmp_path: Path) -> None:
    home = tmp_path / "mine" / "baseline"
    voc = tiny_devkit / "VOCdevkit" / "VOC2012"
    data = {"root": tiny_devkit, "knowledge": voc / "SegmentationClass", "augmentation": {"crop_size": 32}}
    trainer = {"logger": "WandbLogger", "limit_val_batches": 0}
    words = ["fit", f"--config={write_stage(tmp_path / 's.yaml', 'SegmentationModule', home, data, trainer=trainer)}"]
    run_command(words)
    (first,) = offline_runs(home)
    run_command(words)
    assert len(offline_runs(home)) == 1, "the fit is finished"
    last = f"--ckpt_path={home / 'checkpoints' / 'last.ckpt'}"
    run_command([*words, last, "--trainer.max_epochs=2"])
    _, resumed = offline_runs(home)
    assert resumed.run.run_id == first.run.run_id
    assert resumed.values("train/loss")[0][0] > first.values("train/loss")[-1][0]
    options = ["--trainer.logger.group=theirs", "--trainer.logger.name=own", "--trainer.logger.project=other"]
    run_command([*words, "--model.init_args.optimization.learning_rate=0.002", *options])
    new = offline_runs(home)[-1]
    assert new.run.run_id != first.run.run_id
    assert (new.run.run_group, new.run.display_name, new.run.project) == ("theirs", "own", "other")
    assert (home / "wandb_id.txt").read_text().strip() == new.run.run_id


def test_what_the_user_says_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    monkeypatch.setenv("WANDB_DIR", "overruled")
    logger = WandbLogger(project="p", save_dir=tmp_path / "there", job_type="t")
    settle(logger, tmp_path / "runs" / "static", "StaticRefinementModule")
    assert {key: logger._wandb_init.get(key) for key in ("project", "dir", "group", "job_type", "name")} == {
        "project": "p",
        "dir": str(tmp_path / "there"),
        "group": "mine",
        "job_type": "t",
        "name": "runs/static",
    }


def test_stages_of_a_random_walk_are_in_the_group_of_their_pipeline(tmp_path: Path) -> None:
    loggers = [WandbLogger(), WandbLogger(), WandbLogger()]
    homes = (
        tmp_path / "runs" / "affinity",
        tmp_path / "runs" / "from_random_walk" / "static",
        tmp_path / "o" / "runs" / "a",
    )
    for logger, home in zip(loggers, homes, strict=True):
        settle(logger, home, "AffinityModule")
    groups = [logger._wandb_init["group"] for logger in loggers]
    assert groups[0] == groups[1] != groups[2]
    assert loggers[1]._wandb_init["name"] == "runs/from_random_walk/static"


def test_the_sweep_names_real_options() -> None:
    sweep = yaml.safe_load((EXPERIMENTS / "voc2012_animals" / "sweep.yaml").read_text())
    assert [name.rpartition(".")[2] for name in sweep["parameters"]] == ["dd_bias", "class_bias", "alpha"]
    shell, flag, script, *rest = sweep["command"]
    assert (shell, flag, rest) == ("sh", "-c", ["ssdd", "${args}"])
    assert "experiments/voc2012_animals/dynamic.yaml" in script
    from ssdd_lightning.pipeline.config import StageConfig
    from ssdd_lightning.pipeline.lightning import build_stage

    chosen = {name: options["values"][-1] for name, options in sweep["parameters"].items()}
    plain = {"model.init_args.network.init_args.backbone": "test_efficientnet", "trainer.logger": False}
    config = StageConfig((EXPERIMENTS / "voc2012_animals" / "dynamic.yaml",), {**plain, **chosen})
    stage: Any = build_stage(config).model
    assert stage.ssdd1.biases.dd_bias == 0.8
    assert stage.ssdd1.biases.class_bias == stage.ssdd2.biases.class_bias == 1.0
    assert stage.refinement.alpha == 0.75


def test_photos_held_out_without_masks_are_validated_by_their_labels(tiny_devkit: Path, tmp_path: Path) -> None:
    photos = tiny_devkit / "VOCdevkit" / "VOC2012" / "JPEGImages"
    names = sorted(path.stem for path in photos.iterdir())
    (tmp_path / "labels.json").write_text(json.dumps({name: [1 + i % 2] for i, name in enumerate(names)}))
    (tmp_path / "train.txt").write_text("\n".join(names[:-4]))
    (tmp_path / "val.txt").write_text("\n".join(names[-4:]))
    splits = {"train": str(tmp_path / "train.txt"), "val": str(tmp_path / "val.txt")}
    data = {"images": photos, "labels": tmp_path / "labels.json", "class_names": "3", "splits": splits, "batch_size": 4}
    data |= {"augmentation": {"crop_size": 32}}
    path = write_stage(tmp_path / "c.yaml", "ClassificationModule", tmp_path / "c", data, dataset="folder")
    assert data_module_class("folder").__name__ == "FolderDataModule"
    scores = run_command(["fit", f"--config={path}"]).trainer.callback_metrics
    assert 0 <= float(scores["val/mean_ap"]) <= 1
    scores = run_command(["validate", f"--config={path}"]).trainer.callback_metrics
    assert 0 <= float(scores["val/mean_ap"]) <= 1
