import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.callbacks import panels
from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from tests.helpers.stages import write_stage
from tests.report.conftest import Folders


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    rows, original = [], panels.panel
    monkeypatch.setattr(panels, "panel", lambda given, *rest: rows.extend(given) or original(given, *rest))
    return rows


def words(three: Folders, *more: object) -> list[str]:
    named = [f"--{key}={three.root / key}" for key in ("truth", "knowledge", "advice")]
    folders = [f"--predictions={three.root / 'predictions'}", f"--images={three.root / 'photos'}", *named]
    return ["report", *folders, "--figure", str(three.root / "figure.png"), *map(str, more)]


def test_named_photos_in_their_order_with_everything_that_there_is(three: Folders, drawn: list[Any]) -> None:
    assert main(words(three, "--photos", "c", "a")) == 0
    columns = ["image", "knowledge", "d_knowledge", "d_advice", "advice", "prediction", "truth"]
    assert [list(row) for row in drawn] == [columns, columns]
    assert (three.root / "figure.png").stat().st_size > 1000
    assert [int((row["prediction"] == 8).sum()) for row in drawn] == [30 * 10, 30 * 18], "c, then a"
    assert 0 <= drawn[0]["d_advice"].min() < drawn[0]["d_advice"].max() <= 1
    assert not (three.root / "report").exists()


def test_by_chance_those_that_have_most_and_always_the_same(folders: Folders, drawn: list[Any]) -> None:
    for number in range(9):
        folders.add(f"p{number}", truth=number % 2 == 0, right=number / 20)
    for _ in range(2):
        assert main(words(folders)) == 0
    assert len(drawn) == 8
    assert all("truth" in row for row in drawn)
    for first, again in zip(drawn[:4], drawn[4:], strict=True):
        np.testing.assert_array_equal(first["image"], again["image"])


def test_unknown_photos_and_photos_without_a_figure(three: Folders) -> None:
    with pytest.raises(InputError, match=r"no photo 'x' with a mask in this run; it has a, b, c"):
        main(words(three, "--photos", "x"))
    given = [word for word in words(three, "--out", three.out, "--photos", "a") if "figure" not in word]
    with pytest.raises(InputError, match="give the figure's file with --figure, too"):
        main(given)


def test_the_model_of_a_run_segments_the_photos_that_it_is_not_tested_on(
    tiny_devkit: Path, tmp_path: Path, drawn: list[Any]
) -> None:
    voc = tiny_devkit / "VOCdevkit" / "VOC2012"
    names = (voc / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    for folder in ("knowledge", "advice", "static/predictions"):
        (tmp_path / "run" / folder).mkdir(parents=True)
        for name in names:
            shutil.copy(voc / "SegmentationClass" / f"{name}.png", tmp_path / "run" / folder)
    data = {"root": tiny_devkit, "knowledge": voc / "SegmentationClass", "augmentation": {"crop_size": 32}}
    config = write_stage(tmp_path / "d.yaml", "DynamicRefinementModule", tmp_path / "run" / "dynamic", data)
    for command in ("fit", "test"):
        assert main([command, f"--config={config}"]) == 0
    figure = tmp_path / "figure.png"
    assert main(["report", str(tmp_path / "run"), f"--figure={figure}", "--photos", names[0], names[5]]) == 0
    assert [row["prediction"].shape for row in drawn] == [(64, 64)] * 2
    made = sorted(path.stem for path in (tmp_path / "run" / "dynamic" / "figure").glob("*.png"))
    assert made == sorted([names[0], names[5]])
