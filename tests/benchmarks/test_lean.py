import importlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.metrics.confusion import confusion_matrix
from ssdd_lightning.nn.segmentation import SegmentationNetwork
from ssdd_lightning.stages.segmentation import SegmentationModule
from ssdd_lightning.storage.masks import read_image, read_mask

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def lean(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("lean")


def test_no_lean_is_the_model_and_a_lean_adds_the_log_of_shares(
    lean: Any, tiny_devkit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = partial(SegmentationNetwork, backbone="test_efficientnet", head_channels=8, output_stride=32)
    stage = SegmentationModule(3, network, backbone_weights=None).eval()
    monkeypatch.setattr(
        lean, "load_stage", lambda *_, **__: (stage, ClassTable(("background", "cat", "dog"), (0, 8, 12)))
    )
    folder = tiny_devkit / "VOCdevkit" / "VOC2012"
    photos, truth = folder / "JPEGImages", folder / "SegmentationClass"
    names = sorted(path.stem for path in truth.glob("*.png"))[:4]
    model = lean.Model(Path("last.ckpt"), truth, [*names, "no mask"], [1.0, 0.5])
    last = stage.get_submodule("network.head.classifier.1")
    assert isinstance(last, torch.nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():  # between the classes, so that a lean decides
        last.weight.mul_(0.01)
        last.bias.copy_(-0.25 * model.shares[0, :, 0, 0])
    found = model.of_all(photos, truth, names)
    none, half = (lean.LEANS.index(value) for value in (0.0, 0.5))
    masks = np.concatenate([read_mask(truth / f"{name}.png").ravel() for name in names])
    shares = np.array([(masks == index).sum() for index in (0, 8, 12)])
    np.testing.assert_allclose(model.shares[0, :, 0, 0], np.log(shares / shares.sum() + 0.01), rtol=1e-5)

    def counted(name: str) -> Any:
        image = torch.from_numpy(read_image(photos / f"{name}.jpg")).permute(2, 0, 1)[None]
        mask = np.array((0, 8, 12), np.uint8)[stage.segment(image)[0].numpy()]
        return confusion_matrix(mask, read_mask(truth / f"{name}.png"), 21)

    for number, (scales, flip, crf) in enumerate((([1.0, 0.5], True, True), ([1.0], False, False))):
        lean.change_protocol(stage, scales, flip, crf)
        np.testing.assert_array_equal(found[number, none], [counted(name) for name in names])
    with torch.no_grad():
        last.bias += 0.5 * model.shares[0, :, 0, 0]
    np.testing.assert_array_equal(found[1, half], [counted(name) for name in names])
    assert not np.array_equal(found[1, half], found[1, none])


PROTOCOLS = "protocol", "no CRF, one scale"
BOTH = (60, 60, 60, 50, 55, 70, 65, 60, 60)
"""Right pixels of the first three photos by lean, ..."""
LAST = (60, 60, 65, 70, 55, 50, 60, 60, 60)
"""and of the last two."""


def iou(right: float) -> float:
    return 100 * right / (200 - right)


def counts(photos: tuple[tuple[int, ...], ...]) -> Any:
    """Leans x photos x C x (C + 1) of two classes."""
    right = np.array(photos).T[..., None, None]
    return np.concatenate(
        [np.concatenate([right, 100 - right, 0 * right], 3), np.concatenate([100 - right, right, 0 * right], 3)], 2
    )


def test_a_tuned_row_has_the_lean_that_is_best_on_the_others(lean: Any) -> None:
    plain = counts((BOTH,) * 3 + (LAST,) * 2)
    dynamic = counts((BOTH,) * 3 + ((75,) * 9,) * 2)
    found = {
        (name, title): [made] * 2 for name, made in (("plain", plain), ("dynamic", dynamic)) for title in PROTOCOLS
    }
    rows = lean.table(["plain", "dynamic"], found, lean.folds_of(3, 2))
    assert [row["protocol"] for row in rows] == [
        f"{iou(55):.2f} ± 0.00",
        f"{iou(50):.2f} ± 0.00 (0.25)",
        f"{iou(75):.2f} ± 0.00",
        f"{iou(75):.2f} ± 0.00 (0.25)",
    ]
    gain, without = (f"{iou(75) - iou(right):+.2f}" for right in (50, 55))
    assert rows[0]["protocol, dynamic over it"] == f"{without} ({without} to {without})"
    assert rows[1]["protocol, dynamic over it"] == f"{gain} ({gain} to {gain})"
    assert rows[1]["protocol, dynamic without one over it"] == f"{gain} ({gain} to {gain})"
    assert rows[0]["protocol, background"] == "50.0 %"
    assert "protocol, dynamic over it" not in rows[2]
    assert rows[0]["protocol, by lean"] == ", ".join(f"{iou(right):.2f}" for right in LAST)
    assert rows[1]["protocol, others by lean"] == ", ".join(f"{iou(right):.2f}" for right in BOTH)


def test_without_others_each_half_has_the_lean_that_is_best_on_the_other(lean: Any) -> None:
    by_lean = (LAST, BOTH, LAST, BOTH, LAST)
    folds = lean.folds_of(0, 5)
    assert sorted(photo for fold in folds for photo in fold.scored) == list(range(5))
    assert not any(set(fold.scored) & set(fold.others) for fold in folds)
    found = {("plain", title): [counts(by_lean)] for title in PROTOCOLS}
    rows = lean.table(["plain"], found, folds)
    right = (3 * LAST[lean.LEANS.index(0.25)] + 2 * BOTH[lean.LEANS.index(-0.25)]) / 5
    assert rows[1]["protocol"] == f"{iou(right):.2f} (0.25, -0.25)"


def test_the_picture_has_a_line_a_model(lean: Any, tmp_path: Path) -> None:
    found = {("plain", title): [counts((BOTH, LAST))] for title in PROTOCOLS}
    lean.plot(["plain"], found, lean.folds_of(0, 2), tmp_path / "lean.png")
    assert read_image(tmp_path / "lean.png").std() > 0
