import argparse
import json
import subprocess
import sys

import numpy as np
import pytest

from ssdd_lightning.data.masks import write_mask
from ssdd_lightning.errors import InputError
from ssdd_lightning.evaluation.command import add_arguments, read_classes, run


@pytest.fixture
def folders(tmp_path):
    write_mask(tmp_path / "p" / "a.png", np.uint8([[0, 8, 8, 255]]))
    write_mask(tmp_path / "t" / "a.png", np.uint8([[0, 8, 0, 8]]))
    return ["--predictions", str(tmp_path / "p"), "--truth", str(tmp_path / "t")]


def call(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(list(words)))


def test_prints_a_table_and_writes_json(folders, tmp_path, capsys):
    (tmp_path / "split.txt").write_text("a\n")
    target = tmp_path / "new" / "scores.json"
    assert call(*folders, "--split", str(tmp_path / "split.txt"), "--json", str(target)) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["background", "50.00"] in rows
    assert ["cat", "33.33"] in rows
    assert ["mIoU", "41.67"] in rows
    assert ["coverage", "75.00"] in rows
    assert json.loads(target.read_text())["coverage"] == 0.75


def test_advice_and_classes(folders, tmp_path, capsys):
    (tmp_path / "names.json").write_text('{"0": "sky", "8": "kite"}')
    call(*folders, "--advice", str(tmp_path / "t"), "--classes", str(tmp_path / "names.json"))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["class", "knowledge", "advice", "oracle"]
    assert ["kite", "33.33", "100.00", "100.00"] in rows


def test_bad_input_writes_nothing(folders, tmp_path):
    (tmp_path / "split.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match="lacks 1 of 2 images: b"):
        call(*folders, "--split", str(tmp_path / "split.txt"), "--json", str(tmp_path / "scores.json"))
    assert not (tmp_path / "scores.json").exists()


def test_class_names_one_a_line(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("background\npotted plant\n")
    assert read_classes(path) == {0: "background", 1: "potted plant"}


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b'{"cat": 1}', b"{"])
def test_unreadable_class_lists(content, tmp_path):
    path = tmp_path / "names"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read class list .*names"):
        read_classes(path)


def test_starts_without_torch():
    heavy = "torch", "pytorch_lightning", "torchmetrics", "cv2", "albumentations", "matplotlib"
    code = f"import sys, ssdd_lightning.evaluation.command; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
