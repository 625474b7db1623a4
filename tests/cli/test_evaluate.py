import argparse
import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdd_lightning.cli.evaluate import add_arguments, run
from ssdd_lightning.data.classes import read_classes
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.masks import write_mask
from ssdd_lightning.storage.score_maps import map_path, write_map
from tests.helpers.processes import python


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    write_mask(tmp_path / "p" / "a.png", np.array([[0, 8, 8, 255]], np.uint8))
    write_mask(tmp_path / "t" / "a.png", np.array([[0, 8, 0, 8]], np.uint8))
    return ["--predictions", str(tmp_path / "p"), "--truth", str(tmp_path / "t")]


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(list(words)))


def test_prints_a_table_and_writes_json(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "split.txt").write_text("a\n")
    target = tmp_path / "new" / "scores.json"
    assert call(*folders, "--split", str(tmp_path / "split.txt"), "--json", str(target)) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["background", "50.00", "100.00", "50.00", "0.00", "50.00"] in rows
    assert ["cat", "33.33", "50.00", "50.00", "33.33", "33.33"] in rows
    assert ["mIoU,", "means", "41.67", "75.00", "50.00", "16.67", "41.67"] in rows
    assert ["coverage", "75.00"] in rows
    assert json.loads(target.read_text())["coverage"] == 0.75


def test_advice_and_classes(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "names.json").write_text('{"0": "sky", "8": "kite"}')
    call(*folders, "--advice", str(tmp_path / "t"), "--classes", str(tmp_path / "names.json"))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["class", "knowledge", "advice", "oracle"]
    assert ["kite", "33.33", "100.00", "100.00"] in rows


def test_all_measures_into_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = np.random.default_rng(0).random((3, 20, 30))
    write_map(map_path(tmp_path / "p", "a"), [0, 8, 12], scores)
    write_mask(tmp_path / "t" / "a.png", scores.argmax(axis=0) * 4 + (scores.argmax(axis=0) > 0) * 4)
    files = {kind: tmp_path / f"scores.{kind}" for kind in ("json", "csv", "png")}
    words = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    words += ["--predictions", str(tmp_path / "p"), "--truth", str(tmp_path / "t"), "--boundary", "--curves"]
    assert call(*words) == 0
    text = capsys.readouterr().out
    assert "boundary" in text.splitlines()[0]
    assert "bands around ground truth contours: 1 px" in text
    assert "best background: constant" in text
    content = json.loads(files["json"].read_text(), parse_constant=pytest.fail)
    best = content["background"]["constant"]["best"]
    assert [best["value"], best["miou"]] in content["background"]["constant"]["curve"]
    assert len(list(csv.DictReader(files["csv"].open()))) == 22
    with Image.open(files["png"]) as picture:
        assert picture.size[0] == 1280
        assert len(picture.getcolors(1000)) > 10


def test_names_with_spaces_in_a_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("truth", "predictions"):
        for name in ("my cat", "my dog"):
            write_mask(tmp_path / folder / f"{name}.png", np.array([[0, 8]]))
    (tmp_path / "split.txt").write_text("my cat\n")
    words = [f"--predictions={tmp_path / 'predictions'}", f"--truth={tmp_path / 'truth'}"]
    assert call(*words, f"--split={tmp_path / 'split.txt'}") == 0
    assert "1 images, 2 pixels" in capsys.readouterr().out


def test_curves_need_maps(folders: list[str]) -> None:
    with pytest.raises(InputError, match=r"no a\.map\.png \(1 of 1 are missing\)"):
        call(*folders, "--curves")


def test_bad_input_writes_nothing(folders: list[str], tmp_path: Path) -> None:
    (tmp_path / "split.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match="lacks 1 of 2 images: b"):
        call(*folders, "--split", str(tmp_path / "split.txt"), "--json", str(tmp_path / "scores.json"))
    assert not (tmp_path / "scores.json").exists()


def test_class_names_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("background\npotted plant\n")
    assert read_classes(path) == {0: "background", 1: "potted plant"}


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b'{"cat": 1}', b"{"])
def test_unreadable_class_lists(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "names"
    if content is not None:
        path.write_bytes(content)
    problem = "class list .*names does not exist" if content is None else "cannot read class list .*names"
    with pytest.raises(InputError, match=problem):
        read_classes(path)


def test_starts_without_torch() -> None:
    heavy = "torch", "pytorch_lightning", "torchmetrics", "cv2", "albumentations", "matplotlib"
    code = f"import sys, ssdd_lightning.cli.evaluate; print([m for m in {heavy} if m in sys.modules])"
    assert python(code).strip() == "[]"
