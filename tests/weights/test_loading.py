from pathlib import Path

import pytest
import torch
from torch import nn

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn import Backbone, ClassificationNetwork, SegmentationNetwork
from ssdd_lightning.weights import LoadReport, load_weights
from ssdd_lightning.weights.backbone import load_backbone_weights
from ssdd_lightning.weights.loading import load_tensors
from tests.helpers import mxnet
from tests.helpers.files import Trap
from tests.helpers.weights import meta

# loading into a network without memory says what fits, and copies nothing
pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta")


@pytest.fixture(scope="module")
def classifier() -> ClassificationNetwork:
    """PSA's classifier, with memory for its tensors but nothing in them."""
    return meta(ClassificationNetwork, 21, "resnet38", output_stride=8).to_empty(device="cpu")


def emptied(module: ClassificationNetwork) -> ClassificationNetwork:
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.fill_(0)
    return module


def test_psas_file_loads_into_the_classification_network_as_it_is(
    classifier: ClassificationNetwork, res38_cls: Path, psa_weights: dict[str, torch.Tensor]
) -> None:
    report = load_weights(emptied(classifier), res38_cls)
    assert (report.skipped, report.missing) == ({}, [])
    assert len(report.loaded) == len(psa_weights) + 1
    own = classifier.backbone.encoder.state_dict()
    assert all((own[name] == value.flatten()[0]).all() for name, value in psa_weights.items())
    assert (classifier.classifier.weight == 0.25).all()


def test_psas_file_loads_into_the_backbone(
    classifier: ClassificationNetwork, res38_cls: Path, psa_weights: dict[str, torch.Tensor]
) -> None:
    report = load_backbone_weights(emptied(classifier).backbone, str(res38_cls))
    assert report.skipped == {"network.classifier.weight": "unknown name"}
    assert str(report).startswith(f"{res38_cls}: {len(psa_weights)} loaded, 1 skipped, 0 missing\n  skipped network.cl")
    own = classifier.backbone.encoder.state_dict()
    assert all((own[name] == value.flatten()[0]).all() for name, value in psa_weights.items())


def test_mxnets_file_loads_into_the_backbone(
    classifier: ClassificationNetwork, psa_shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    path = tmp_path / "rna-a1_cls1000_ep-0001.params"
    shapes = {mxnet.name(name): shape for name, shape in psa_shapes.items()}
    mxnet.sparse(path, {**shapes, "arg:linear1000_weight": (1000, 4096), "arg:linear1000_bias": (1000,)}, 3)
    report = load_backbone_weights(emptied(classifier).backbone, str(path))
    assert len(report.loaded) == len(shapes)
    assert list(report.skipped) == ["arg:linear1000_weight", "arg:linear1000_bias"]
    own = classifier.backbone.encoder.state_dict()
    assert all(own[name].flatten()[0] == 3 for name in psa_shapes)
    assert own["b4_3.conv_branch2a.weight"].flatten()[1] == 0


def test_a_classifier_of_other_classes_is_skipped_with_its_reason(res38_cls: Path) -> None:
    network = meta(ClassificationNetwork, 7, "resnet38", output_stride=8)
    report = load_weights(network, res38_cls)
    assert report.skipped == {"classifier.weight": "shape 20 x 4096 x 1 x 1, expected 6 x 4096 x 1 x 1"}
    assert report.missing == ["classifier.weight"]


def test_a_head_that_the_file_lacks_is_missing(res38_cls: Path) -> None:
    report = load_weights(meta(SegmentationNetwork, 21, "resnet38", output_stride=8), res38_cls)
    assert report.skipped == {"classifier.weight": "unknown name"}
    assert set(report.missing) == {
        *(f"head.features.{k}" for k in ("1.weight", "2.weight", "2.bias", "2.running_mean", "2.running_var")),
        *("head.classifier.1.weight", "head.classifier.1.bias"),
    }
    assert "  missing head.features.1.weight" in str(report).splitlines()


@pytest.mark.parametrize(
    ("name", "change", "count"),
    [("b4_3.conv_branch2a.weight", "gone", 1), ("b7.bn_branch2b2.running_mean", "narrow", 1)],
)
def test_a_backbone_is_loaded_whole_or_not_at_all(
    psa_weights: dict[str, torch.Tensor], tmp_path: Path, name: str, change: str, count: int
) -> None:
    weights = {k: v for k, v in psa_weights.items() if k != name}
    if change == "narrow":
        weights[name] = torch.ones(3)
    torch.save(weights, tmp_path / "part.pth")
    message = rf"part\.pth do not fit .*: {count} of its \d+ tensors are missing or of another shape.*{name}"
    with pytest.raises(InputError, match=message):
        load_backbone_weights(meta(Backbone, "resnet38", 8), str(tmp_path / "part.pth"))
    with pytest.raises(InputError, match=message):
        load_weights(meta(ClassificationNetwork, 21, "resnet38", output_stride=8), tmp_path / "part.pth")


def test_weights_of_another_architecture_are_refused(res38_cls: Path) -> None:
    with pytest.raises(InputError, match=r"res38_cls\.pth do not fit the backbone resnet18: 100 of its 120 tensors"):
        load_backbone_weights(Backbone("resnet18"), str(res38_cls))


def test_nothing_changes_when_loading_fails() -> None:
    layer = nn.Linear(2, 2)
    before = layer.weight.clone()
    with pytest.raises(InputError, match="do not fit the layer: 1 of its 2 tensors"):
        load_tensors(layer, {"weight": torch.ones(2, 2)}, "a file", "the layer")
    assert torch.equal(layer.weight, before)


def test_irns_file_loads_into_resnet50(tmp_path: Path) -> None:
    own = meta(Backbone, "resnet50").model.state_dict()
    tensors = {f"resnet50.{k}": torch.tensor(0.5).expand(v.shape) for k, v in own.items() if v.ndim}
    alias = {"stage1.0.weight": tensors["resnet50.conv1.weight"]}
    torch.save({**tensors, "classifier.weight": torch.tensor(0.25).expand(20, 2048, 1, 1), **alias}, tmp_path / "i.pth")
    network = meta(ClassificationNetwork, 21, "resnet50")
    report = load_weights(network, tmp_path / "i.pth")
    assert report.missing == []
    assert report.skipped == {"stage1.0.weight": "unknown name"}
    assert "classifier.weight" in report.loaded


def test_a_report_names_everything() -> None:
    report = LoadReport("a.pth", ["x", "y"], {"z": "unknown name"}, ["w"])
    assert str(report) == "a.pth: 2 loaded, 1 skipped, 1 missing\n  skipped z: unknown name\n  missing w"


def test_a_report_does_not_list_a_whole_network() -> None:
    report = LoadReport("a.pth", [], {f"copy.{i}": "unknown name" for i in range(640)}, [])
    assert str(report).splitlines()[1].endswith("copy.8, copy.9 and 630 more: unknown name")


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"conv1a.weight": Trap(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"evil\.pth is not a readable.*it asks for posix\.mkdir.*do not trust it"):
        load_backbone_weights(meta(Backbone, "resnet38", 8), str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


def test_tensors_under_keys_that_are_no_names_are_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "numbers.pth"
    torch.save({1: torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"numbers\.pth holds no state dict"):
        load_weights(nn.Linear(1, 1), str(path))
