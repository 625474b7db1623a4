import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.photos import GivenData, find_photos
from ssdd_lightning.pipeline.run import Pipeline, RunOptions
from ssdd_lightning.storage.masks import read_image, read_mask, write_mask
from tests.helpers.stages import SMALL_RUN

SETS = [word for key, value in SMALL_RUN.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture
def photos(tiny_devkit: Path, tmp_path: Path) -> Path:
    """Eight photos with labels in a plain folder, and masks of two of them beside it."""
    devkit = tiny_devkit / "VOCdevkit" / "VOC2012"
    names = (devkit / "ImageSets" / "Segmentation" / "trainaug.txt").read_text().split()[:8]
    folder, lines = tmp_path / "photos", ["name,labels"]
    for folder_name in ("photos", "masks"):
        (tmp_path / folder_name).mkdir()
    shown = {8: "cat", 10: "cow", 12: "dog", 17: "sheep"}
    for number, name in enumerate(names):
        shutil.copy(devkit / "JPEGImages" / f"{name}.jpg", folder / f"photo {number}.jpg")
        mask = read_mask(devkit / "SegmentationClass" / f"{name}.png")
        labels = sorted({shown[value] for value in mask.ravel().tolist() if value in shown})
        lines.append(f"photo {number}.jpg,{';'.join(labels)};")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def words(photos: Path) -> list[str]:
    common = [f"--out={photos.parent / 'out'}", "--pictures=2", "--classifier_weights=null", "--baselines", *SETS]
    return ["run", "own_photos", *common]


def test_two_commands_from_photos_to_masks(photos: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    prepared, out = photos.parent / "prepared", photos.parent / "out"
    assert (
        main(["prepare", "folder", str(photos), f"--labels={photos.parent / 'labels.csv'}", f"--out={prepared}"]) == 0
    )
    command = [*words, f"--config={prepared / 'data.yaml'}"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "There is no ground truth, so nothing was scored." in said
    assert "mIoU" not in said
    masks = out / "dynamic" / "masks"
    assert f"{masks} holds the masks of the photos." in said
    assert sorted(path.stem for path in masks.glob("*.png")) == sorted(path.stem for path in photos.iterdir())
    mask = read_mask(masks / "photo 3.png")
    assert mask.shape == read_image(photos / "photo 3.jpg").shape[:2]
    assert set(mask.ravel().tolist()) <= {0, 1, 2, 3, 4}
    assert len(list((out / "pictures").glob("*.png"))) == 2
    assert not (out / "dynamic" / "test").exists()
    assert main(command) == 0
    assert "run: finished in" in capsys.readouterr().out
    (photos / "photo 3.jpg").write_bytes((photos / "photo 4.jpg").read_bytes())
    assert main([*command, "--dry-run"]) == 0
    assert "classification: made again, because the training images changed" in capsys.readouterr().out


def test_one_command_from_photos_to_masks(photos: Path, words: list[str]) -> None:
    given = [f"--images={photos}", f"--labels={photos.parent / 'labels.csv'}", "--until=knowledge"]
    with pytest.raises(InputError, match="--dry-run: the photos were not prepared yet in"):
        main([*words, *given, "--dry-run"])
    assert main([*words, *given]) == 0
    assert len(list((photos.parent / "out" / "knowledge").glob("*.map.png"))) == 7, "one photo is held out"
    assert not (photos.parent / "out" / "advice").exists()
    assert main([*words, *given, "--dry-run"]) == 0
    with pytest.raises(InputError, match="--images goes with --labels, and without --root"):
        main([*words, given[0]])


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("folder", {"root": Path("devkit")}, "give --images and --labels"),
        ("folder", {}, "expected --images and --labels for photos of your own"),
        ("voc", {}, "should hold JPEGImages"),
    ],
)
def test_data_that_does_not_fit(dataset: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        find_photos({"root": str(tmp_path)} if dataset == "voc" else {}, dataset, GivenData(**options))


def test_ground_truth_of_some_photos_scores_those(photos: Path) -> None:
    shutil.copy(photos / "photo 1.jpg", photos.parent / "masks" / "photo 1.png")
    own = {"data.images": str(photos), "data.labels": str(photos.parent / "labels.csv")}
    data = GivenData(truth=str(photos.parent / "masks"))
    options = RunOptions(Path("own_photos"), out=photos.parent / "out", data=data, settings=own)
    pipeline = Pipeline(options)
    assert pipeline.photos.scored(["photo 0", "photo 1"]) == ["photo 1"]
    assert "dynamic/test" in [step.name for step in pipeline.steps]
    assert "dynamic/masks" not in [step.name for step in pipeline.steps]


def test_ground_truth_that_would_not_be_used_is_refused(photos: Path, words: list[str]) -> None:
    for name in range(2, 8):
        (photos / f"photo {name}.jpg").unlink()
    lines = (photos.parent / "labels.csv").read_text().splitlines()[:3]
    (photos.parent / "labels.csv").write_text("\n".join(lines))
    height, width = read_image(photos / "photo 1.jpg").shape[:2]
    write_mask(photos.parent / "masks" / "photo 1.png", np.zeros((height, width), np.uint8))
    given = [f"--images={photos}", f"--labels={photos.parent / 'labels.csv'}", f"--truth={photos.parent / 'masks'}"]
    with pytest.raises(InputError, match="--truth: expected photos to spare for scoring, found none among 2"):
        main([*words, *given])
