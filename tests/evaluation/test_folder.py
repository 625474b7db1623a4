import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.errors import InputError
from ssdd_lightning.evaluation.folder import evaluate_folders, read_prediction
from ssdd_lightning.evaluation.table import scores_table
from ssdd_lightning.metrics.confusion import best_of_both, confusion_matrix
from ssdd_lightning.storage.listing import predicted_names
from ssdd_lightning.storage.masks import read_mask, write_mask
from ssdd_lightning.storage.score_maps import map_path, write_map

NAMES = ["a", "b", "c", "d"]


def masks(seed: int, sizes: Sequence[tuple[int, int]] = ((13, 9), (8, 8), (5, 20), (11, 7))) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.choice([0, 8, 12, 255], size=size).astype(np.uint8) for size in sizes]


def write(folder: Path, content: list[np.ndarray], names: list[str] = NAMES) -> Path:
    for name, mask in zip(names, content, strict=True):
        write_mask(folder / f"{name}.png", mask)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "predictions", masks(1)), write(tmp_path / "truth", masks(2))


def pooled(predictions: list[np.ndarray], truth: list[np.ndarray]) -> np.ndarray:
    return np.sum([confusion_matrix(p, t, 21) for p, t in zip(predictions, truth, strict=True)], axis=0)


@pytest.mark.parametrize("workers", [1, 2])
def test_pools_over_the_split(folders: tuple[Path, Path], workers: int, capfd: pytest.CaptureFixture[str]) -> None:
    card = evaluate_folders(*folders, names=NAMES, workers=workers, progress=False)
    assert card.confusion.tolist() == pooled(masks(1), masks(2)).tolist()
    assert card.images == 4
    assert card.notes == ()
    assert capfd.readouterr().err == ""


def test_many_chunks_in_many_processes(tmp_path: Path) -> None:
    names = [f"{index:03}" for index in range(70)]
    sizes = [(6, 5)] * 70
    predictions = write(tmp_path / "p", masks(3, sizes), names)
    truth = write(tmp_path / "t", masks(4, sizes), names)
    card = evaluate_folders(predictions, truth, names, workers=3, progress=False)
    assert card.confusion.tolist() == pooled(masks(3, sizes), masks(4, sizes)).tolist()


def test_a_split_scores_its_own_images_only(folders: tuple[Path, Path]) -> None:
    card = evaluate_folders(*folders, names=["b", "d"], progress=False)
    assert card.confusion.tolist() == pooled(masks(1)[1::2], masks(2)[1::2]).tolist()


def test_without_a_split_the_card_says_so(folders: tuple[Path, Path]) -> None:
    card = evaluate_folders(*folders, progress=False)
    assert card.images == 4
    assert "no split" in scores_table(card)


def test_maps_are_scored_by_their_largest_channel(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth", masks(2)[:1], ["a"])
    scores = np.random.default_rng(0).random((3, 13, 9))
    write_map(map_path(tmp_path / "maps", "a"), [0, 8, 12], scores)
    card = evaluate_folders(tmp_path / "maps", truth, ["a"], progress=False)
    expected = np.array([0, 8, 12], np.uint8)[scores.argmax(axis=0)]
    assert np.mean(read_prediction(tmp_path / "maps", "a") == expected) > 0.95  # ties after 8-bit rounding
    assert card.confusion.sum() == (masks(2)[0] != 255).sum()
    assert predicted_names(tmp_path / "maps") == ["a"]


def test_a_mask_goes_before_maps_of_the_same_name(tmp_path: Path) -> None:
    write(tmp_path, [np.full((2, 2), 5, np.uint8)], ["a"])
    write_map(map_path(tmp_path, "a"), [0, 8], np.ones((2, 2, 2)))
    assert (read_prediction(tmp_path, "a") == 5).all()
    assert predicted_names(tmp_path) == ["a"]


def test_advice_adds_its_scores_and_the_oracle(folders: tuple[Path, Path], tmp_path: Path) -> None:
    advice = write(tmp_path / "advice", masks(5))
    card = evaluate_folders(*folders, names=NAMES, advice=advice, progress=False)
    knowledge, other, truth = masks(1), masks(5), masks(2)
    merged = [best_of_both(k, a, t) for k, a, t in zip(knowledge, other, truth, strict=True)]
    assert card.confusion.tolist() == pooled(knowledge, truth).tolist()
    assert card.companions["advice"].confusion.tolist() == pooled(other, truth).tolist()
    assert card.companions["oracle"].confusion.tolist() == pooled(merged, truth).tolist()
    assert card.companions["oracle"].miou > max(card.miou, card.companions["advice"].miou)


def test_own_classes(folders: tuple[Path, Path]) -> None:
    card = evaluate_folders(*folders, names=NAMES, class_names={0: "sky", 8: "kite", 12: "bird"}, progress=False)
    assert card.confusion.shape == (13, 14)
    assert card.absent == []


@pytest.mark.parametrize("workers", [1, 2])
def test_values_outside_the_classes_name_the_file(folders: tuple[Path, Path], workers: int) -> None:
    write(folders[1], [np.zeros((13, 9), np.uint8)], ["a"])
    classes = {0: "sky", 8: "kite"}
    with pytest.raises(InputError, match=r"predictions/a\.png holds the value 12"):
        evaluate_folders(*folders, names=["a"], class_names=classes, workers=workers, progress=False)


def test_missing_predictions_are_counted_and_named(folders: tuple[Path, Path]) -> None:
    names = [*NAMES, *"efghij"]
    with pytest.raises(InputError, match=r"predictions lacks 6 of 10 images: e, f, g, h, i, \.\.\.;"):
        evaluate_folders(*folders, names=names, progress=False)


def test_missing_truth(folders: tuple[Path, Path]) -> None:
    (folders[1] / "c.png").unlink()
    with pytest.raises(InputError, match="truth lacks 1 of 4 images: c;"):
        evaluate_folders(*folders, progress=False)


def test_another_size_names_both_files(folders: tuple[Path, Path]) -> None:
    write(folders[0], [np.zeros((9, 13), np.uint8)], ["a"])
    with pytest.raises(InputError, match=r"predictions/a\.png is 13 x 9 .*truth/a\.png is 9 x 13"):
        evaluate_folders(*folders, names=NAMES, progress=False)


def test_colours_are_refused(folders: tuple[Path, Path]) -> None:
    Image.new("RGB", (9, 13)).save(folders[0] / "a.png")
    with pytest.raises(InputError, match=r"predictions/a\.png has mode RGB"):
        evaluate_folders(*folders, names=NAMES, workers=2, progress=False)


def test_a_truncated_file_is_named(folders: tuple[Path, Path]) -> None:
    path = folders[1] / "b.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"truth/b\.png"):
        evaluate_folders(*folders, names=NAMES, progress=False)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"names": []}, "names no image"),
        ({"names": ["a", "b", "a"]}, "names a more than once"),
        ({"class_names": {255: "x"}}, "class indices"),
        ({"class_names": {}}, "class indices"),
    ],
)
def test_impossible_requests(folders: tuple[Path, Path], options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        evaluate_folders(*folders, **options, progress=False)


def test_missing_and_empty_folders(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        evaluate_folders(tmp_path / "nowhere", folders[1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no PNG"):
        evaluate_folders(tmp_path / "empty", folders[1])


@pytest.mark.real
@pytest.mark.parity
def test_agrees_with_torchmetrics_on_real_masks(voc_animals: Path, tmp_path: Path) -> None:
    truth = voc_animals / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    names = sorted(path.stem for path in truth.glob("*.png"))[:60]
    judge = MulticlassJaccardIndex(len(VOC_CLASSES), average="none", ignore_index=255)
    for name in names:
        true = read_mask(truth / f"{name}.png")
        shifted = np.roll(true, (9, -14), axis=(0, 1))
        shifted[shifted == 255] = 0  # torchmetrics takes no 255 in a prediction
        write_mask(tmp_path / f"{name}.png", shifted)
        judge.update(torch.from_numpy(shifted).long()[None], torch.from_numpy(true).long()[None])
    card = evaluate_folders(tmp_path, truth, names, progress=False)
    present = [index for index, name in enumerate(VOC_CLASSES) if name not in card.absent]
    assert len(present) >= 3
    np.testing.assert_allclose(card.iou[present], judge.compute()[present], rtol=1e-6)
    assert card.coverage == 1


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended may still be in the table of processes."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_end_with_a_killed_command(folders: tuple[Path, Path], tmp_path: Path) -> None:
    code = f"""
import os, time
from pathlib import Path
from ssdd_lightning.evaluation import folder
folder.CHUNK = 1
def wait(job, name):
    Path({str(tmp_path)!r}, f"{{os.getpid()}}.pid").touch()
    time.sleep(600)
folder._Job._score_one = wait
folder.evaluate_folders(Path({str(folders[0])!r}), Path({str(folders[1])!r}), workers=2)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        until = time.monotonic() + 60
        while len(list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < until:
            time.sleep(0.1)
        workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
        assert len(workers) == 2
        assert all(map(alive, workers))
        parent.kill()
    until = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(alive, workers))
