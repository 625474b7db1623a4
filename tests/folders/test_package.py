"""A packaged network is loaded by what its users load it with, and gives what the original gives, for any size."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssdd_lightning.cli.main import main
from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.errors import InputError
from ssdd_lightning.folders.card import run_record
from ssdd_lightning.folders.package import package
from ssdd_lightning.folders.segment_checkpoint import load_stage
from ssdd_lightning.nn import SegmentationNetwork
from ssdd_lightning.stages import SegmentationModule
from tests.helpers.networks import Segmenter
from tests.helpers.transformers import cut_down

SIZES = [(1, 3, 64, 96), (2, 3, 71, 133), (1, 3, 40, 200), (3, 3, 208, 320)]


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, size, generator=generator, dtype=torch.uint8) for size in SIZES]


def as_torch(path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    extra = {"classes.json": ""}
    return torch.export.load(path, extra_files=extra).module(), json.loads(extra["classes.json"])


def as_onnx(path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path))
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    return lambda image: torch.from_numpy(session.run(["probabilities"], {"image": image.numpy()})[0]), classes


def check_same(packaged: Callable[[Tensor], Tensor], stage: SegmentationModule) -> None:
    with torch.no_grad():
        for image in images():
            np.testing.assert_allclose(packaged(image), stage(image), atol=1e-5)


READERS: dict[str, Any] = {"pt2": as_torch, "onnx": as_onnx}


def skip_without_onnx(form: str) -> None:
    if form == "onnx":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name, reason=f"{name} is not installed (extra `export`)")


@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_probabilities_of_images_of_any_size(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    skip_without_onnx(form)
    out = tmp_path / f"network.{form}"
    assert main(["package", str(checkpoint), f"--to={form}", f"--out={out}"]) == 0
    said = re.search(r"probabilities differ by at most ([\d.e-]+)\.", capsys.readouterr().out)
    assert said
    assert float(said[1]) < 1e-5
    stage, table = load_stage(checkpoint, torch.device("cpu"))
    packaged, classes = READERS[form](out)
    assert classes == {str(i): name for i, name in zip(table.indices, table.selected_names, strict=True)}
    with torch.no_grad():
        for image in images():
            torch.testing.assert_close(packaged(image), stage(image), atol=1e-5, rtol=0)


def test_a_folder_for_the_hub_with_a_card_from_the_run(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hub"
    assert main(["package", str(checkpoint), "--to=safetensors", f"--out={out}", "--license=cc-by-nc-4.0"]) == 0
    assert "its logits differ by at most 0." in capsys.readouterr().out
    stage, table = load_stage(checkpoint, torch.device("cpu"))
    network = SegmentationNetwork.from_pretrained(out).eval()
    with torch.no_grad():
        for image in images():
            torch.testing.assert_close(network(image)[-1], stage.network(image)[-1])
    card = (out / "README.md").read_text()
    assert "license: cc-by-nc-4.0" in card
    fit = json.loads((checkpoint.parent.parent / "fit.json").read_text())
    for text in (
        "SegmentationModule",
        f"Fingerprint of the training images: `{fit['inputs']['the training images']}`",
        f"Fingerprint of the image-level labels: `{fit['inputs']['the image-level labels']}`",
        f"0 background, {table.indices[1]} {table.selected_names[1]}",
    ):
        assert text in card
    kept = SegmentationModule(table.num_classes, network, backbone_weights=None).hparams["network"]
    assert kept["init_args"]["backbone"] == "test_efficientnet"


def test_the_card_tells_the_score_of_a_test_of_this_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    from ssdd_lightning.storage.fingerprints import fingerprint

    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    moved = run / "checkpoints" / "last.ckpt"
    moved.write_bytes(checkpoint.read_bytes())
    assert "None is recorded." in run_record(moved)
    entry: dict[str, Any] = {
        "finished": True,
        "inputs": {"the checkpoint": fingerprint(moved)},
        "settings": {"protocol": {"scales": [1.0]}, "note": "image-level labels were not used"},
        "results": {"scores": {"test/miou": 0.61951}},
    }
    (run / "test").mkdir()
    (run / "test" / "test.json").write_text(json.dumps(entry))
    assert "| test/miou | 0.6195 |" in run_record(moved)
    entry["inputs"]["the checkpoint"] = "of another one"
    (run / "test" / "test.json").write_text(json.dumps(entry))
    assert "0.6195" not in run_record(moved)


TABLE = ClassTable.select(("background", "cat", "dog"), None)


def test_a_network_of_another_project_is_exported_too(tmp_path: Path) -> None:
    stage = SegmentationModule(3, Segmenter, backbone_weights=None).eval()
    assert package(stage, TABLE, "pt2", tmp_path / "own.pt2", {}) < 1e-5
    with pytest.raises(InputError, match=r"a Segmenter cannot be written as safetensors.*PyTorchModelHubMixin"):
        package(stage, TABLE, "safetensors", tmp_path / "own", {})
    assert [path.name for path in tmp_path.iterdir()] == ["own.pt2"]


class Fickle(Segmenter):
    """Branches on what the image shows."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(image if image.float().mean() > 100 else 255 - image)


def test_what_cannot_be_exported_is_said_in_a_sentence(tmp_path: Path) -> None:
    stage = SegmentationModule(3, Fickle, backbone_weights=None).eval()
    with pytest.raises(InputError, match="the Fickle cannot be exported for images of any size"):
        package(stage, TABLE, "pt2", tmp_path / "own.pt2", {})


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"model.onnx exists; choose another name"):
        package(SegmentationModule(3, Segmenter, backbone_weights=None), TABLE, "onnx", tmp_path / "model.onnx", {})


@pytest.mark.parametrize(
    "network",
    [
        partial(SegmentationNetwork, backbone="resnet18", head="fpn", output_stride=32),
        partial(SegmentationNetwork, backbone="test_efficientnet", head="unet", output_stride=32),
        partial(SegmentationNetwork, backbone="test_efficientnet", head="deeplabv3plus", output_stride=16),
        partial(SegmentationNetwork, backbone="tf_mobilenetv3_small_minimal_100", head="fpn", output_stride=32),
        partial(SegmentationNetwork, backbone="tf_mobilenetv3_small_minimal_100", output_stride=8, head_channels=8),
        partial(SegmentationNetwork, backbone="resnet18", dilation=2, head_channels=8),
        partial(SegmentationNetwork, backbone="test_vit", dilation=2, head_channels=8),
    ],
)
def test_programs_of_our_heads_take_any_size(network: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    stage = SegmentationModule(3, network, backbone_weights=None).eval()
    assert package(stage, TABLE, "pt2", tmp_path / "model.pt2", {}) < 1e-5
    check_same(as_torch(tmp_path / "model.pt2")[0], stage)


def test_hiera_in_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_onnx("onnx")
    cut_down(monkeypatch)
    torch.manual_seed(0)
    network = SegmentationNetwork(3, "hiera_small_abswin_256", dilation=2, head_channels=8)
    stage = SegmentationModule(3, network, backbone_weights=None).eval()
    assert package(stage, TABLE, "onnx", tmp_path / "model.onnx", {}) < 1e-5
    check_same(as_onnx(tmp_path / "model.onnx")[0], stage)
    assert all(layer.fused_attn for layer in network.modules() if hasattr(layer, "fused_attn"))


class Unknown(Segmenter):
    """Uses an operator that ONNX does not have."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low, high, logits = super().forward(image)
        return low, high, torch.special.bessel_j0(logits)


def test_what_onnx_does_not_know_is_said_in_a_sentence(tmp_path: Path) -> None:
    skip_without_onnx("onnx")
    stage = SegmentationModule(3, Unknown, backbone_weights=None).eval()
    with pytest.raises(InputError, match="the Unknown cannot be exported"):
        package(stage, TABLE, "onnx", tmp_path / "own.onnx", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backbone", ["hieradet_small", "swin_tiny_patch4_window7_224"])
def test_of_windows_another_way_is_named(backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_down(monkeypatch)
    network = SegmentationNetwork(3, backbone, dilation=2, head_channels=8)
    stage = SegmentationModule(3, network, backbone_weights=None).eval()
    with pytest.raises(
        InputError, match=r"SAM 2 cannot be exported .* take a backbone such as .* or write safetensors"
    ):
        package(stage, TABLE, "pt2", tmp_path / "model.pt2", {})
    assert list(tmp_path.iterdir()) == []
