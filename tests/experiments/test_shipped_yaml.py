"""Every shipped YAML is run through the command line on the tiny devkit, and `ssdd run` goes through all stages."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ssdd_lightning import nn
from ssdd_lightning.cli import main
from ssdd_lightning.data.maps import map_path, write_map
from ssdd_lightning.data.masks import read_mask

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
    if stage.endswith("StaticRefinementModule"):
        options["data.advice"] = guides
    main(["fit", f"--config={path}", *words(options)])
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_its_own_network_exists(path):
    """The test above trains a tiny backbone; this one builds the YAML's, without memory for its tensors."""
    options = yaml.safe_load(path.read_text())["model"]["init_args"]["network"]
    with torch.device("meta"):
        network = getattr(nn, options["class_path"].rpartition(".")[2])(21, **options["init_args"])
    if path.parent.name == "voc2012":
        assert network.backbone.channels == [128, 256, 512, 1024, 4096]
        assert not any(p.requires_grad for p in network.backbone.encoder.conv1a.parameters())
        norms = [m for m in network.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert not any(norm.training or norm.weight.requires_grad for norm in norms)


def test_run_goes_through_all_stages_once(tiny_devkit, tmp_path, capsys):
    small = {k: v for k, v in SMALL.items() if k != "model.init_args.backbone_weights"}
    sets = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    # weights of the tiny test network are on no hub that a test may ask: the classifier starts from nothing
    command = ["run", str(EXPERIMENTS / "quickstart"), f"--root={tiny_devkit}", f"--out={tmp_path}", *sets]
    command += ["--classifier_weights=null", "--pictures=2"]
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
