"""No stage knows how many classes there are: everything runs with 4 and with 81 on photos in a plain folder."""

import io
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ssdd_lightning
from ssdd_lightning.cli.main import main
from ssdd_lightning.data.classes import read_classes
from ssdd_lightning.evaluation.folder import evaluate_folders
from ssdd_lightning.evaluation.scorecard import Scorecard
from ssdd_lightning.folders.crf import CRFJob
from ssdd_lightning.pipeline.lightning import run_command
from ssdd_lightning.storage.masks import read_mask, write_mask
from ssdd_lightning.storage.score_maps import read_map
from tests.helpers.stages import write_stage

EXTRA: dict[str, dict[str, Any]] = {"ClassificationModule": {"scales": [1.0]}, "AffinityModule": {"steps": 4}}
SIDE, IMAGES = 48, 6


class Dataset:
    """Photos of a coloured square each, in a plain folder; the labels reach up to the highest class."""

    def __init__(self, root: Path, num_classes: int) -> None:
        self.root, self.num_classes = root, num_classes
        self.names = [f"photo {number}" for number in range(IMAGES)]
        self.labels = {name: 1 + (number * 37) % (num_classes - 1) for number, name in enumerate(self.names)}
        self.labels[self.names[-1]] = num_classes - 1
        rng = np.random.default_rng(num_classes)
        (root / "photos").mkdir()
        for name, label in self.labels.items():
            photo = rng.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
            mask = np.zeros((SIDE, SIDE), np.uint8)
            photo[10:38, 12:40] = rng.integers(100, 255, 3)
            mask[10:38, 12:40] = label
            Image.fromarray(photo).save(root / "photos" / f"{name}.png")
            write_mask(root / "truth" / f"{name}.png", mask)
        kinds = [f"kind {index}" if index else "background" for index in range(num_classes)]
        (root / "names.txt").write_text("\n".join(kinds))
        (root / "labels.csv").write_text(
            "name,labels\n" + "".join(f"{name},{label}\n" for name, label in self.labels.items())
        )

    def run(self, command: str, stage: str, folder: str, **guides: Path) -> Path:
        data = {
            "images": self.root / "photos",
            "labels": self.root / "labels.csv",
            "class_names": self.root / "names.txt",
            "truth": self.root / "truth",
            "augmentation": {"crop_size": SIDE},
            "batch_size": 3,
            **guides,
        }
        path, out = self.root / f"{folder}.yaml", self.root / folder
        write_stage(path, stage, out, data, dataset="folder", **EXTRA.get(stage, {}))
        resume = [] if command == "fit" else [f"--ckpt_path={self.checkpoint(folder)}"]
        done = run_command([command, f"--config={path}", *resume])
        assert done.model.hparams.num_classes == self.num_classes
        return out / ("predictions" if command == "predict" else command)

    def checkpoint(self, folder: str) -> Path:
        return self.root / folder / "checkpoints" / "last.ckpt"

    def score(self, folder: Path) -> Scorecard:
        names = read_classes(self.root / "names.txt")
        return evaluate_folders(folder, self.root / "truth", self.names, names, progress=False, boundary=True)


@pytest.mark.parametrize("num_classes", [4, 81])
def test_all_stages(num_classes: int, tmp_path: Path) -> None:
    data = Dataset(tmp_path, num_classes)
    data.run("fit", "ClassificationModule", "classification")
    knowledge = data.run("predict", "ClassificationModule", "classification")
    for name, label in data.labels.items():
        assert read_map(knowledge / f"{name}.map.png")[0] == [0, label]
    advice = tmp_path / "advice"
    assert CRFJob(tmp_path / "photos", knowledge, advice).run(num_workers=1, progress=False) == IMAGES

    guides = {"knowledge": knowledge, "advice": advice}
    data.run("fit", "AffinityModule", "affinity", **guides)
    walked = data.run("predict", "AffinityModule", "affinity", **guides, maps=knowledge)
    for name, label in data.labels.items():
        assert read_map(walked / f"{name}.map.png")[0] == [0, label]

    data.run("fit", "StaticRefinementModule", "static", **guides)
    seeds = data.run("predict", "StaticRefinementModule", "static", **guides)
    for name, label in data.labels.items():
        assert set(np.unique(read_mask(seeds / f"{name}.png"))) <= {0, label}

    for stage, folder in (("SegmentationModule", "baseline"), ("DynamicRefinementModule", "dynamic")):
        data.run("fit", stage, folder, knowledge=seeds)
        stored = torch.load(data.checkpoint(folder), weights_only=True)
        assert stored["ssdd_classes"]["indices"] == list(range(num_classes))
        assert all(value.isfinite().all() for value in stored["state_dict"].values())
        masks = data.run("test", stage, folder)
        assert data.score(masks).confusion.shape == (num_classes, num_classes + 1)

    names = f"--classes={tmp_path / 'names.txt'}"
    parts = [f"--knowledge={knowledge}", f"--advice={advice}", f"--differences={seeds}"]
    assert main(["sweep", *parts, f"--truth={tmp_path / 'truth'}", names, "--dd_bias", "0", "--class_bias", "0"]) == 0
    photos, out = str(tmp_path / "photos"), tmp_path / "segmented"
    assert main(["segment", str(data.checkpoint("dynamic")), photos, f"--out={out}", "--device=cpu"]) == 0
    for path in sorted((tmp_path / "dynamic" / "test").glob("*.png")):
        np.testing.assert_array_equal(read_mask(path), read_mask(out / path.name))


NO_CLASSES = {
    "background.py": "an exponent of the curve",
    "detection.py": "files looked at",
    "table.py": "names listed",
}
"""Files whose 20 is no number of classes."""


def test_no_source_file_counts_vocs_classes() -> None:
    """VOC's numbers are the length of its list of names, with and without background, wherever they are needed."""
    counted = []
    for path in Path(ssdd_lightning.__file__).parent.rglob("*.py"):
        before = ""
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            count = token.string == "21" or (token.string == "20" and path.name not in NO_CLASSES)
            if count and token.type == tokenize.NUMBER and before not in ("<<", "**"):
                counted.append(f"{path}:{token.start[0]}")
            before = token.string
    assert counted == []
