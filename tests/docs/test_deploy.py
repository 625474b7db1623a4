"""The example for onnxruntime runs as it stands, on a packaged network."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.nn import SegmentationNetwork
from ssdd_lightning.stages import SegmentationModule

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "deploy.md"


def test_the_example_segments_a_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed (extra `export`)")
    from ssdd_lightning.folders.package import package

    block = next(text for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "onnxr" in text)
    assert len(block.splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = SegmentationNetwork(3, "test_efficientnet", head_channels=8)
    stage = SegmentationModule(3, network, backbone_weights=None).eval()
    table = ClassTable.select(("background", "cat", "cow", "dog"), ["cat", "dog"])
    package(stage, table, "onnx", tmp_path / "voc.onnx", {})
    photo = np.random.default_rng(0).integers(0, 256, (61, 90, 3), dtype=np.uint8)
    Image.fromarray(photo).save("photo.png")
    exec(block.replace("photo.jpg", "photo.png"), {})
    with torch.no_grad():
        expected = stage(torch.from_numpy(photo).permute(2, 0, 1)[None])[0].argmax(0).numpy()
    assert (np.asarray(Image.open("mask.png")) == np.array(table.indices)[expected]).mean() > 0.999
    assert "'dog': " in capsys.readouterr().out
