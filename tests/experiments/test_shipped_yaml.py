"""Every shipped YAML is run through the command line on the tiny devkit, and `ssdd run` goes through all stages."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ssdd_lightning import nn
from ssdd_lightning.cli import main
from ssdd_lightning.data.maps import map_path, write_map
from ssdd_lightning.data.masks import read_mask
from ssdd_lightning.errors import InputError

REPOSITORY = Path(__file__).parents[2]
EXPERIMENTS = REPOSITORY / "experiments"
SMALL = {
    "trainer.max_epochs": 1,
    "trainer.limit_train_batches": 1,
    "trainer.limit_val_batches": 1,
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",
    "trainer.enable_progress_bar": "false",
    "data.crop_size": 32,
    "data.resize": "[32,48]",
    "data.batch_size": 2,
    "data.num_workers": 0,
    "data.classes": "[cat,cow,dog,sheep]",
    "model.init_args.backbone_weights": "null",
    "model.init_args.network.init_args.backbone": "test_efficientnet",
    "model.init_args.network.init_args.frozen_layers": "[]",
}


def words(options):
    return [f"--{key}={value}" for key, value in options.items()]


@pytest.fixture
def guides(tiny_devkit, tmp_path):
    """Knowledge maps for the training images: the label's own square of confidence."""
    folder = tmp_path / "knowledge"
    voc = tiny_devkit / "VOCdevkit" / "VOC2012"
    for name in (voc / "ImageSets" / "Segmentation" / "trainaug.txt").read_text().split():
        truth = read_mask(voc / "SegmentationClass" / f"{name}.png")
        classes = sorted({0} | (set(np.unique(truth).tolist()) - {255}))
        scores = np.full((len(classes), *truth.shape), 0.2, np.float32)
        scores[0] += 0.3
        scores[1:, 16:48, 16:48] += 0.5
        write_map(map_path(folder, name), classes, scores)
    return folder


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_fits_on_the_tiny_devkit(path, tiny_devkit, guides, tmp_path):
    stage = yaml.safe_load(path.read_text())["model"]["class_path"]
    options = {**SMALL, "data.root": tiny_devkit, "trainer.default_root_dir": tmp_path / "run"}
    if not stage.endswith("ClassificationModule"):
        options["data.knowledge"] = guides
    if stage.endswith(("StaticRefinementModule", "AffinityModule")):
        options["data.advice"] = guides
    main(["fit", f"--config={path}", *words(options)])
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_its_own_network_exists(path):
    """The test above trains a tiny backbone; this one builds the YAML's, without memory for its tensors."""
    options = yaml.safe_load(path.read_text())["model"]["init_args"]["network"]
    with torch.device("meta"):
        build = getattr(nn, options["class_path"].rpartition(".")[2])
        network = build(**({} if build is nn.AffinityNet else {"num_classes": 21}), **options["init_args"])
    if path.parent.name == "voc2012":
        assert network.backbone.channels == [128, 256, 512, 1024, 4096]
        assert not any(p.requires_grad for p in network.backbone.encoder.conv1a.parameters())
        norms = [m for m in network.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert not any(norm.training or norm.weight.requires_grad for norm in norms)


def run_words(experiment, devkit, out):
    """A whole run of the smallest networks, one step of training each."""
    small = {k: v for k, v in SMALL.items() if k != "model.init_args.backbone_weights"}
    sets = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    # weights of the tiny test network are on no hub that a test may ask: the classifier starts from nothing
    command = ["run", str(experiment), f"--root={devkit}", f"--out={out}", *sets]
    return [*command, "--classifier_weights=null", "--pictures=2"]


def test_run_goes_through_all_stages_once(tiny_devkit, tmp_path, capsys):
    command = run_words(EXPERIMENTS / "quickstart", tiny_devkit, tmp_path)
    assert main(command) == 0
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["what"] for row in rows] == [
        "knowledge K",
        "advice A",
        "static refinement m_D0",
        "oracle merge of K and A",
        "baseline on seeds",
        "dynamic model",
    ]
    assert all(0 <= row["miou"] <= 1 and row["coverage"] == 1 for row in rows)
    oracle = rows[3]["miou"]
    assert oracle >= max(rows[0]["miou"], rows[1]["miou"], rows[2]["miou"])
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2
    seeds = tmp_path / "static" / "predictions"
    before = {path: path.stat().st_mtime_ns for path in seeds.glob("*.png")}
    capsys.readouterr()
    assert main(command) == 0
    assert "==" not in capsys.readouterr().out, "a finished step ran again"
    assert before == {path: path.stat().st_mtime_ns for path in seeds.glob("*.png")}


def test_run_with_an_affinity_stage_refines_its_random_walk(tiny_devkit, tmp_path):
    experiment, out = tmp_path / "experiment", tmp_path / "out"
    shutil.copytree(EXPERIMENTS / "quickstart", experiment)
    shutil.copy(EXPERIMENTS / "voc2012_animals" / "affinity.yaml", experiment)
    command = [*run_words(experiment, tiny_devkit, out), "--baselines"]
    assert main([*command, "--knowledge=random_walk"]) == 0
    rows = {row["what"]: row for row in json.loads((out / "results.json").read_text())}
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
        config = yaml.safe_load((out / "static" / "lightning_logs" / "version_0" / "config.yaml").read_text())
        assert config["data"][key] == str(out / folder)
    low, high = (json.loads((out / "affinity" / f / "crf.json").read_text()) for f in ("low", "high"))
    assert (low["background_alpha"], high["background_alpha"]) == (4, 32)
    with pytest.raises(InputError, match="holds a run with --knowledge random_walk"):
        main(command)


def test_a_random_walk_needs_the_affinity_stage(tiny_devkit, tmp_path):
    with pytest.raises(InputError, match=r"lacks affinity\.yaml"):
        main([*run_words(EXPERIMENTS / "quickstart", tiny_devkit, tmp_path), "--knowledge=random_walk"])
    assert not (tmp_path / "steps").exists()
