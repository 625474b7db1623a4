"""Every shipped YAML is run through the command line on the tiny devkit, and `ssdd run` goes through all stages."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from ssdd_lightning import nn
from ssdd_lightning.cli.main import main
from ssdd_lightning.data.classes import VOC, VOC_CLASSES
from ssdd_lightning.data.labels import read_annotations
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.config import read_config
from ssdd_lightning.prepare.folder import FolderOptions, prepare_folder
from ssdd_lightning.prepare.voc import label_csv
from ssdd_lightning.storage.masks import read_mask
from ssdd_lightning.storage.score_maps import map_path, write_map
from tests.helpers.files import times
from tests.helpers.stages import SMALL, TABLE
from tests.helpers.transformers import cut_down

REPOSITORY = Path(__file__).parents[2]
EXPERIMENTS = REPOSITORY / "experiments"
SHARED = ("common", "segmentation", "sweep")
STAGES = sorted(path for path in EXPERIMENTS.glob("*/*.yaml") if path.stem not in SHARED)
QUICK = {
    **SMALL,
    "trainer.limit_train_batches": 1,
    "trainer.precision": "32-true",
    "data.batch_size": 2,
    "model.init_args.backbone_weights": "null",
    "model.init_args.network.init_args.frozen_layers": "[]",
}


def words(options: Mapping[str, object]) -> list[str]:
    return [f"--{key}={value}" for key, value in options.items()]


Datasets = dict[str | None, tuple[dict[str, Any], Path]]
CLASSES = {"data.classes": "[cat,cow,dog,sheep]"}


def write_guides(folder: Path, masks: Iterable[Path]) -> Path:
    """Knowledge maps for images with true masks: the label's own square of confidence."""
    for path in masks:
        truth = read_mask(path)
        classes = sorted({0} | (set(np.unique(truth).tolist()) - {255}))
        scores = np.full((len(classes), *truth.shape), 0.2, np.float32)
        scores[0] += 0.3
        scores[1:, 16:48, 16:48] += 0.5
        write_map(map_path(folder, path.stem), classes, scores)
    return folder


@pytest.fixture(scope="session")
def datasets(tiny_devkit: Path, tiny_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Datasets:
    """Dataset of a YAML -> options that name its tiny counterpart, and its true masks."""
    voc = tiny_devkit / "VOCdevkit" / "VOC2012"
    out = tmp_path_factory.mktemp("own_photos")
    labels = read_annotations(voc / "Annotations", [path.stem for path in (voc / "JPEGImages").iterdir()], VOC)
    (out / "labels.csv").write_text(label_csv(labels))
    (out / "names.txt").write_text("\n".join(VOC_CLASSES))
    options = FolderOptions(voc / "JPEGImages", out / "labels.csv", out, str(out / "names.txt"))
    prepare_folder(options, progress=False)
    return {
        None: ({"data.root": tiny_devkit, **CLASSES}, voc / "SegmentationClass"),
        "coco": ({"data.root": tiny_coco}, tiny_coco / "SegmentationClass"),
        "folder": ({"config": out / "data.yaml", **CLASSES}, voc / "SegmentationClass"),
    }


@pytest.mark.parametrize("path", STAGES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_fits_on_the_tiny_devkit(path: Path, datasets: Datasets, tmp_path: Path) -> None:
    content = read_config(path)
    stage = content["model"]["class_path"]
    data, masks = datasets[content.get("dataset")]
    options = {**QUICK, **data, "trainer.default_root_dir": tmp_path / "run"}
    guides = write_guides(tmp_path / "knowledge", masks.glob("*.png"))
    if not stage.endswith("ClassificationModule"):
        options["data.knowledge"] = guides
    if stage.endswith(("StaticRefinementModule", "AffinityModule")):
        options["data.advice"] = guides
    for option in {"static_checkpoint", "network_checkpoint"} & content["model"]["init_args"].keys():
        options[f"model.init_args.{option}"] = "null"  # `test_run_goes_through_all_stages_once` has them
    main(["fit", f"--config={path}", *words(options)])
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["num_classes"] == (81 if content.get("dataset") == "coco" else 5)


@pytest.mark.parametrize("path", STAGES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_its_own_network_exists(path: Path) -> None:
    """The test above trains a tiny backbone; this one builds the YAML's, without memory for its tensors."""
    options = read_config(path)["model"]["init_args"]["network"]
    with torch.device("meta"):
        build = getattr(nn, options["class_path"].rpartition(".")[2])
        network = build(**({} if build is nn.AffinityNet else {"num_classes": 21}), **options["init_args"])
    if path.parent.name in ("voc2012", "coco2014"):
        assert network.backbone.channels == [128, 256, 512, 1024, 4096]
        assert not any(p.requires_grad for p in network.backbone.encoder.conv1a.parameters())
        norms = [m for m in network.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert not any(norm.training or norm.weight.requires_grad for norm in norms)


def run_words(experiment: Path, data: Mapping[str, object], out: Path) -> list[str]:
    """A whole run of the smallest networks, one step of training each."""
    small = {**QUICK, **{key: value for key, value in data.items() if key != "data.root"}}
    del small["model.init_args.backbone_weights"]
    sets = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    # weights of the tiny test network are on no hub that a test may ask: the classifier starts from nothing
    command = ["run", str(experiment), f"--root={data['data.root']}", f"--out={out}", *sets]
    return [*command, "--classifier_weights=null", "--pictures=2"]


@pytest.mark.parametrize("experiment", ["quickstart", "coco2014"])
def test_run_goes_through_all_stages_once(
    experiment: str, datasets: Datasets, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, _ = datasets["coco" if experiment == "coco2014" else None]  # 81 classes, and 5
    command = run_words(EXPERIMENTS / experiment, data, tmp_path)
    assert main(command) == 0
    rows = json.loads((tmp_path / "results.json").read_text())
    goes_on = experiment == "quickstart"
    assert [row["what"] for row in rows] == [what for what in TABLE if goes_on or not what.endswith("goes on")]
    assert all(0 <= row["miou"] <= 1 and row["coverage"] == 1 for row in rows)
    oracle = rows[3]["miou"]
    assert oracle >= max(rows[0]["miou"], rows[1]["miou"], rows[2]["miou"])
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2
    seeds = tmp_path / "static" / "predictions"
    before = times(seeds, "*.png")
    capsys.readouterr()
    assert main(command) == 0
    assert "redone" not in capsys.readouterr().out
    assert before == times(seeds, "*.png")


def test_run_with_an_affinity_stage_refines_its_random_walk(
    datasets: Datasets, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment, out = tmp_path / "experiment", tmp_path / "out"
    shutil.copytree(EXPERIMENTS / "quickstart", experiment)
    shutil.copy(EXPERIMENTS / "voc2012_animals" / "affinity.yaml", experiment)
    command = [*run_words(experiment, datasets[None][0], out), "--baselines"]
    assert main([*command, "--knowledge=random_walk"]) == 0
    work = out / "from_random_walk"
    rows = {row["what"]: row for row in json.loads((work / "results.json").read_text())}
    assert list(rows) == [
        "knowledge K",
        "advice A",
        "static refinement m_D0",
        "oracle merge of K and A",
        "activation maps",
        "CRF of activation maps",
        "dynamic model",
    ]
    folders = [out / name for name in ("knowledge", "advice", "random_walk", "random_walk_crf")]
    names = [{path.name for path in folder.glob("*.map.png")} for folder in folders]
    assert len(names[0]) == 12
    assert all(found == names[0] for found in names)
    for key, folder in (("knowledge", "random_walk"), ("advice", "random_walk_crf")):
        config = yaml.safe_load((work / "static" / "lightning_logs" / "version_0" / "config.yaml").read_text())
        assert config["data"][key] == str(out / folder)
    low, high = (json.loads((out / "affinity" / f / "crf.json").read_text()) for f in ("low", "high"))
    assert (low["settings"]["background_alpha"], high["settings"]["background_alpha"]) == (4, 32)
    before = times(out, "*.png")
    capsys.readouterr()
    assert main(command) == 0, "the activation maps are refined in the same folder"
    assert "redone" not in capsys.readouterr().out
    assert before.items() <= times(out, "*.png").items()
    config = yaml.safe_load((out / "static" / "lightning_logs" / "version_0" / "config.yaml").read_text())
    assert config["data"]["knowledge"] == str(out / "knowledge")


@pytest.mark.parametrize("backbone", ["vit_small_patch14_reg4_dinov2", "swin_tiny_patch4_window7_224"])
def test_a_vision_transformer_goes_through_all_stages(
    backbone: str, datasets: Datasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The affinity stage too, with AdamW and layer-wise rates; then photos, at several scales, by `ssdd segment`."""
    cut_down(monkeypatch)
    experiment, out = tmp_path / "experiment", tmp_path / "out"
    shutil.copytree(EXPERIMENTS / "quickstart", experiment)
    shutil.copy(EXPERIMENTS / "voc2012_animals" / "affinity.yaml", experiment)
    settings = {
        "model.init_args.network.init_args.backbone": backbone,
        "model.init_args.optimization.optimizer": "torch.optim.AdamW",
        "model.init_args.optimization.layer_decay": 0.8,
        "model.init_args.optimization.weight_decay_exclude_1d": "true",
    }
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    data = datasets[None][0]
    assert main([*run_words(experiment, data, out), *sets, "--knowledge=random_walk"]) == 0
    assert len(list((out / "random_walk").glob("*.map.png"))) == 12
    checkpoint = out / "from_random_walk" / "dynamic" / "checkpoints" / "last.ckpt"
    names = {group["name"] for group in torch.load(checkpoint)["optimizer_states"][0]["param_groups"]}
    assert {"backbone_layer0", "backbone_layer0_no_decay", "backbone_layer4", "new", "new_no_decay"} <= names
    photos = Path(data["data.root"]) / "VOCdevkit" / "VOC2012" / "JPEGImages"
    scales = ["--scales", "0.7", "1.3", "--flip"]
    assert main(["segment", str(checkpoint), str(photos), f"--out={tmp_path / 'masks'}", *scales]) == 0
    assert len(list((tmp_path / "masks").glob("*.png"))) == 16


def test_a_random_walk_needs_the_affinity_stage(datasets: Datasets, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks affinity\.yaml"):
        main([*run_words(EXPERIMENTS / "quickstart", datasets[None][0], tmp_path), "--knowledge=random_walk"])
    assert not (tmp_path / "classification").exists()


def test_photos_of_ones_own_go_through_all_stages_without_truth(
    datasets: Datasets, tiny_devkit: Path, tmp_path: Path
) -> None:
    data, _ = datasets["folder"]
    images = tiny_devkit / "VOCdevkit" / "VOC2012" / "JPEGImages"

    def run(command: str, stage: str, *more: object) -> str:
        options = {**QUICK, **data, "trainer.default_root_dir": tmp_path / stage}
        main([command, f"--config={EXPERIMENTS / 'own_photos' / stage}.yaml", *words(options), *map(str, more)])
        return f"--ckpt_path={tmp_path / stage / 'checkpoints' / 'last.ckpt'}"

    knowledge, advice, seeds, masks = (tmp_path / name for name in ("knowledge", "advice", "seeds", "masks"))
    run("predict", "classification", run("fit", "classification"), f"--output.output_dir={knowledge}")
    main(["crf", f"--images={images}", f"--maps={knowledge}", f"--out={advice}", "--num_workers=1"])

    low, high, walk = (tmp_path / "affinity" / name for name in ("low", "high", "walk"))
    for out, alpha in ((low, 4), (high, 32)):
        main(["crf", f"--images={images}", f"--maps={knowledge}", f"--out={out}", f"--background_alpha={alpha}"])
    weak = (f"--data.knowledge={low}", f"--data.advice={high}", f"--data.maps={knowledge}")
    run("predict", "affinity", run("fit", "affinity", *weak), *weak, f"--output.output_dir={walk}")
    assert {path.name for path in walk.glob("*.map.png")} == {path.name for path in knowledge.glob("*.map.png")}

    guides = (f"--data.knowledge={knowledge}", f"--data.advice={advice}")
    run("predict", "static", run("fit", "static", *guides), *guides, f"--output.output_dir={seeds}")
    guide = f"--data.knowledge={seeds}"
    for stage in ("baseline", "dynamic"):
        unseen = yaml.safe_load(data["config"].read_text())["data"]["splits"]["val"]
        words_of_howto = (
            f"--data.splits.predict={unseen}",
            "--data.knowledge=null",
            f"--output.output_dir={masks / stage}",
        )
        starts = [f"--model.init_args.static_checkpoint={tmp_path / 'static' / 'checkpoints' / 'last.ckpt'}"]
        if stage == "dynamic":
            starts += [f"--model.init_args.network_checkpoint={tmp_path / 'baseline' / 'checkpoints' / 'last.ckpt'}"]
        run("predict", stage, run("fit", stage, guide, *starts), *words_of_howto)
        written = {path.stem for path in (masks / stage).glob("*.png")}
        assert written == set(Path(unseen).read_text().split())
        assert not written & {path.stem for path in seeds.glob("*.png")}
        assert written
