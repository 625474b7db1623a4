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


def counts(right: int) -> Any:
    """Five photos of two classes."""
    return np.tile(np.array([[right, 100 - right, 0], [100 - right, right, 0]]), (5, 1, 1))


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
    found = model.of_all(photos, truth, ([0.0], [0.0, 0.5]), names)
    masks = np.concatenate([read_mask(truth / f"{name}.png").ravel() for name in names])
    shares = np.array([(masks == index).sum() for index in (0, 8, 12)])
    np.testing.assert_allclose(model.shares[0, :, 0, 0], np.log(shares / shares.sum() + 0.01), rtol=1e-5)

    def counted(name: str) -> Any:
        image = torch.from_numpy(read_image(photos / f"{name}.jpg")).permute(2, 0, 1)[None]
        mask = np.array((0, 8, 12), np.uint8)[stage.segment(image)[0].numpy()]
        return confusion_matrix(mask, read_mask(truth / f"{name}.png"), 21)

    for number, (scales, flip, crf) in enumerate((([1.0, 0.5], True, True), ([1.0], False, False))):
        lean.change_protocol(stage, scales, flip, crf)
        np.testing.assert_array_equal(found[number][0.0], [counted(name) for name in names])
    with torch.no_grad():
        last.bias += 0.5 * model.shares[0, :, 0, 0]
    np.testing.assert_array_equal(found[1][0.5], [counted(name) for name in names])
    assert not np.array_equal(found[1][0.5], found[1][0.0])


def test_a_tuned_row_has_the_lean_that_was_chosen_elsewhere(lean: Any) -> None:
    by_lean = {"plain": (50, 60, 55, 70, 65), "dynamic": (50, 60, 75, 70, 65)}
    seeds = {name: [dict(zip(lean.LEANS, map(counts, right), strict=True))] * 2 for name, right in by_lean.items()}
    scored = {(name, number): found for name, found in seeds.items() for number in (0, 1)}
    chosen = {("plain", 0): 0.25, ("plain", 1): -0.25, ("dynamic", 0): 0.0, ("dynamic", 1): 0.0}
    rows = lean.table(["plain", "dynamic"], chosen, scored)
    iou = {right: 100 * right / (200 - right) for right in range(50, 80)}
    assert [row["protocol"] for row in rows] == [
        f"{iou[55]:.2f} ± 0.00",
        f"{iou[70]:.2f} ± 0.00 (0.25)",
        f"{iou[75]:.2f} ± 0.00",
        f"{iou[75]:.2f} ± 0.00 (0)",
    ]
    assert rows[1]["no CRF, one scale"].endswith("(-0.25)")
    gain = f"{iou[75] - iou[70]:+.2f}"
    assert rows[1]["protocol, dynamic over it"] == f"{gain} ({gain} to {gain})"
    assert rows[0]["protocol, background"] == "50.0 %"
    assert "protocol, dynamic over it" not in rows[2]
