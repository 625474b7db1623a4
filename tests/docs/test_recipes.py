"""Every command and program of the pages on recipes and on advice runs, on a tiny devkit in the field's layout."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssdd_lightning.cli.main import main
from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.storage.masks import read_mask, write_mask
from ssdd_lightning.storage.score_maps import map_path, read_map, write_map
from tests.helpers.processes import python
from tests.helpers.stages import SMALL, SMALL_RUN

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
PAGES = {name: (HOWTO / f"{name}.md").read_text() for name in ("recipes", "advice", "crf")}
REFINE = ["--backbone=test_efficientnet", "--weights=none", "--epochs=1", "--batch_size=4", "--crop_size=32"]
STAGE = {**SMALL, "data.batch_size": 6, "data.classes": "[cat,cow,dog,sheep]", "trainer.logger": "false"}
STAGE |= {"model.init_args.network.init_args.frozen_layers": "[]", "trainer.precision": "32-true"}
STAGE |= {"trainer.callbacks": "null", "model.init_args.backbone_weights": "null"}
RUN = {**SMALL_RUN, "model.init_args.network.init_args.frozen_layers": "[]"}
QUICK = {
    "refine": [*REFINE, "--num_workers=0", "--device=cpu"],
    "fit": [f"--{key}={value}" for key, value in STAGE.items()],
    "predict": [f"--{key}={value}" for key, value in STAGE.items() if key != "trainer.max_epochs"],
    "run": ["--dry-run", *(word for key, value in RUN.items() for word in ("--set", f"{key}={value}"))],
}
"""What makes a command of the pages quick, by its name."""
CHECKS = {
    "Labels that SSDD refines in your own training step": "assert loss.isfinite() and merged.mask.shape == (2, 32, 32)",
    "Use only the merge": "assert ((merged == knowledge) | (merged == advice)).all()",
    "Pixel-adaptive refinement": "assert torch.allclose(refined.sum(1), torch.ones(2, 60, 80), atol=1e-4)",
    "In place of pydensecrf": "assert refined.shape == (21, 60, 80) and abs(refined.sum(0) - 1).max() < 1e-4",
    "Use the CRF in your own project": "assert refined.shape == (2, 21, 375, 500)",
}


def sections(page: str) -> dict[str, str]:
    _, *parts = re.split(r"^#+ (.+)$", page, flags=re.MULTILINE)
    return {title: text for title, text in zip(parts[::2], parts[1::2], strict=True)}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(text: str) -> list[list[str]]:
    lines = "\n".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.strip()]


@pytest.fixture
def field(tiny_devkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the devkit, the field's label file, and the output of PSA, IRN, CLIP-ES and WeCLIP."""
    shutil.copytree(tiny_devkit / "VOCdevkit", tmp_path / "VOCdevkit")
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    labels = {}
    for folder in ("psa/out_aff", "irn/result/cam", "clip_es/output"):
        (tmp_path / folder).mkdir(parents=True)
    for path in sorted((voc / "SegmentationClass").glob("*.png")):
        truth, name = read_mask(path), path.stem
        shown = [index for index in np.unique(truth).tolist() if index not in (0, 255)]
        labels[name] = np.isin(np.arange(1, 21), shown).astype(np.float32)
        if name not in (voc / "ImageSets" / "Segmentation" / "trainaug.txt").read_text().split():
            continue
        scores = np.stack([np.roll(truth == index, 4, axis=1) * 0.6 + 0.2 for index in (0, *shown)]).astype(np.float32)
        save(tmp_path / "psa/out_aff" / f"{name}.npy", dict(zip((0, *shown), scores, strict=True)))
        keys = torch.tensor(shown) - 1
        save(tmp_path / "irn/result/cam" / f"{name}.npy", {"keys": keys, "high_res": scores[1:]})
        save(tmp_path / "clip_es/output" / f"{name}.npy", {"keys": keys.numpy(), "attn_highres": scores[1:, :, ::-1]})
        write_mask(tmp_path / "weclip/pseudo_labels" / f"{name}.png", np.roll(truth, 3, axis=0))
        write_map(map_path(tmp_path / "masks_k", name), [0, *shown], scores)
    save(tmp_path / "cls_labels.npy", labels)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(path: Path, content: Any) -> None:
    np.save(path, content)


def run(text: str) -> None:
    for words in commands(text):
        assert main([*words, *QUICK.get(words[0], [])]) == 0, words


def test_psa_and_irn(field: Path) -> None:
    text = sections(PAGES["recipes"])["Refine the output of PSA or IRN"]
    run(text)
    assert {path.stem for path in (field / "runs/psa/refined").glob("*.png")} == {
        path.name.removesuffix(".map.png") for path in (field / "maps/psa").glob("*.map.png")
    }
    assert len(list((field / "maps/irn").glob("*.map.png"))) == 12
    run(sections(PAGES["recipes"])["Use only the merge"])
    assert len(list((field / "merged").glob("*.png"))) == 12


def test_a_method_on_clip_and_the_evaluation(field: Path) -> None:
    run(sections(PAGES["recipes"])["Refine the masks of a method on CLIP"])
    for path in (field / "runs/clip/refined").glob("*.png"):
        merged, advice = read_mask(path), read_mask(field / "weclip/pseudo_labels" / path.name)
        classes, scores = read_map(map_path(field / "maps/clip_es", path.stem))
        knowledge = np.array(classes)[scores.argmax(0)]
        assert ((merged == advice) | (merged == knowledge)).all()
    run(sections(PAGES["recipes"])["Use only the evaluation"])
    scores = json.loads((field / "scores.json").read_text())
    assert 0 < scores["miou"] < 1
    assert [entry["name"] for entry in scores["classes"]] == list(VOC_CLASSES)


def test_a_retrained_network_gives_the_advice(field: Path) -> None:
    run(sections(PAGES["advice"])["A retrained network's masks"])
    made = {path.stem for path in (field / "runs/retrained/masks").glob("*.png")}
    assert len(made) == 12
    assert {path.stem for path in (field / "runs/refined/refined").glob("*.png")} == made


def test_pixel_adaptive_refinement(field: Path) -> None:
    (field / "maps").symlink_to("masks_k")
    (field / "JPEGImages").symlink_to("VOCdevkit/VOC2012/JPEGImages")
    run(sections(PAGES["advice"])["Pixel-adaptive refinement"])
    assert len(list((field / "refined").glob("*.map.png"))) == 12


PROGRAMS = [
    (title, "\n".join(found))
    for page in PAGES.values()
    for title, text in sections(page).items()
    if (found := blocks(text, "python")) and title in CHECKS
]


def test_every_program_is_known() -> None:
    assert {title for title, _ in PROGRAMS} == set(CHECKS)


@pytest.mark.parametrize(("title", "program"), PROGRAMS, ids=[title for title, _ in PROGRAMS])
def test_a_program_runs_as_it_stands(title: str, program: str) -> None:
    assert len(program.splitlines()) < 35
    python(f"{program}\n{CHECKS[title]}\n")
