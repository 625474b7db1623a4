import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.storage.masks import write_mask

NAMES = "abcdef"


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("paired_bootstrap")


def miou(masks: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """From all pixels at once, in percent."""
    predicted, true = np.concatenate(masks).ravel(), np.concatenate(truth).ravel()
    counted = true != 255
    both = [((predicted == i) & counted, (true == i) & counted) for i in range(len(VOC_CLASSES))]
    return float(100 * np.mean([(p & t).sum() / (p | t).sum() for p, t in both if (p | t).any()]))


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_difference_is_the_mean_over_seeds_and_images_are_drawn_alike(
    bootstrap: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seeds: int
) -> None:
    generator = np.random.default_rng(3)

    def drawn(folder: str, values: list[int]) -> list[np.ndarray]:
        masks = [generator.choice(values, (8, 8)).astype(np.uint8) for _ in NAMES]
        (tmp_path / folder).mkdir()
        for name, mask in zip(NAMES, masks, strict=True):
            write_mask(tmp_path / folder / f"{name}.png", mask)
        return masks

    truth = drawn("truth", [0, 0, 8, 12, 255])
    ours = [drawn(f"ours{seed}", [0, 0, 8]) for seed in range(seeds)]
    theirs = [drawn(f"theirs{seed}", [0, 12, 8]) for seed in range(seeds)]
    folders = [[str(tmp_path / f"{side}{seed}") for seed in range(seeds)] for side in ("ours", "theirs")]
    given = ["--masks", *folders[0], "--than", *folders[1], "--truth", str(tmp_path / "truth"), "--draws", "50"]
    monkeypatch.setattr(sys, "argv", ["paired_bootstrap.py", *given])
    bootstrap.main()
    text = capsys.readouterr().out

    def mean(models: list[list[np.ndarray]], images: list[int]) -> float:
        return float(np.mean([miou([m[i] for i in images], [truth[i] for i in images]) for m in models]))

    def gain(images: list[int]) -> float:
        return mean(ours, images) - mean(theirs, images)

    every = list(range(len(NAMES)))
    times = np.random.default_rng(0).multinomial(len(every), np.full(len(every), 1 / len(every)), 50)
    low, high = np.percentile([gain(np.repeat(every, row).tolist()) for row in times], [2.5, 97.5])
    assert text.startswith(
        f"6 images: {mean(ours, every):.2f} against {mean(theirs, every):.2f}, {gain(every):+.2f} "
        f"(95 % interval {low:+.2f} to {high:+.2f}, 50 draws)\n"
    )
    pairs = [(mean([one], every), mean([other], every)) for one, other in zip(ours, theirs, strict=True)]
    shown = "by seed: " + ", ".join(f"{one:.2f} against {other:.2f}" for one, other in pairs)
    assert (shown in text) == (seeds > 1)
