from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.evaluation.folder import evaluate_folders
from ssdd_lightning.metrics.background import ALPHAS, BackgroundCurves, best_point, foreground_counts
from ssdd_lightning.storage.masks import write_mask
from ssdd_lightning.storage.score_maps import map_path, read_map, write_map

CLASSES = {0: "background", 3: "a", 8: "b", 12: "c"}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Maps of different classes, one without background and one of background alone, and truth that fits a little."""
    rng = np.random.default_rng(0)
    for name, classes in {"a": [0, 3, 8], "b": [8, 12], "c": [0], "d": [0, 12]}.items():
        scores = rng.random((len(classes), 13, 17)) ** 2
        scores[:, :3] = 0  # levels of exactly 0 and 1
        scores[-1, 3] = 1
        write_map(map_path(tmp_path / "maps", name), classes, scores)
        truth = np.array(classes)[scores.argmax(axis=0)]
        truth = np.where(rng.random(truth.shape) < 0.4, rng.choice([0, 3, 8, 255], truth.shape), truth)
        write_mask(tmp_path / "truth" / f"{name}.png", truth)
    return tmp_path / "maps", tmp_path / "truth"


def score_with(folders: tuple[Path, Path], tmp_path: Path, background: Callable[..., Any]) -> float:
    """The slow way: give every map its background, write masks, score them."""
    maps, truth = folders
    for name in "abcd":
        classes, scores = read_map(map_path(maps, name))
        foreground = {index: scores[i].astype(float) for i, index in enumerate(classes) if index}
        best = np.max([np.zeros(scores.shape[1:]), *foreground.values()], axis=0)
        channels = np.stack([background(best), *foreground.values()])
        write_mask(tmp_path / "masks" / f"{name}.png", np.array([0, *foreground])[channels.argmax(axis=0)])
    return evaluate_folders(tmp_path / "masks", truth, [*"abcd"], CLASSES, progress=False).miou


@pytest.fixture
def curves(folders: tuple[Path, Path]) -> BackgroundCurves:
    return evaluate_folders(*folders, [*"abcd"], CLASSES, progress=False, curves=True).curves


@pytest.mark.parametrize("value", [0.0, 0.005, 0.1234, 0.37, 0.62, 0.999, 1.0])
def test_constant_background(
    folders: tuple[Path, Path], tmp_path: Path, curves: BackgroundCurves, value: float
) -> None:
    expected = score_with(folders, tmp_path, lambda best: np.full_like(best, value))
    assert curves.constant([value])[value] == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.5, 1, 4, 16, 64])
def test_alpha_background(folders: tuple[Path, Path], tmp_path: Path, curves: BackgroundCurves, alpha: float) -> None:
    expected = score_with(folders, tmp_path, lambda best: (1 - best) ** alpha)
    assert curves.alpha([alpha])[alpha] == pytest.approx(expected)


def test_the_curves_are_no_lines(curves: BackgroundCurves) -> None:
    assert len({round(miou, 4) for miou in curves.constant().values()}) > 50
    assert len({round(miou, 4) for miou in curves.alpha().values()}) == len(ALPHAS)
    value, miou = best_point(curves.constant())
    assert miou == max(curves.constant().values())
    assert 0 < value < 1


def test_nothing_scored_has_no_best_point() -> None:
    curves = BackgroundCurves(np.zeros((2, 3, 256), np.int64), np.zeros(3, np.int64))
    assert curves.to_dict()["constant"]["best"]["miou"] is None


def test_ignored_pixels_are_not_counted() -> None:
    counts = foreground_counts([0, 1], np.ones((2, 4, 4), np.float32), np.full((4, 4), 255, np.uint8), 2)
    assert counts.sum() == 0
