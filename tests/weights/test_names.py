import pytest
import torch

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn.resnet38 import ResNet38
from ssdd_lightning.weights.names import BACKBONE, published_names, stage_names
from tests.helpers import mxnet


def one(name: str) -> str:
    return next(iter(stage_names({name: torch.zeros(1)})))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("arg:conv1a_weight", "conv1a.weight"),
        ("arg:res2a_branch1_weight", "b2.conv_branch1.weight"),
        ("arg:res2b1_branch2a_weight", "b2_1.conv_branch2a.weight"),
        ("arg:res4b3_branch2a_weight", "b4_3.conv_branch2a.weight"),
        ("arg:bn4b3_branch2a_gamma", "b4_3.bn_branch2a.weight"),
        ("arg:bn4b3_branch2a_beta", "b4_3.bn_branch2a.bias"),
        ("aux:bn4b3_branch2a_moving_mean", "b4_3.bn_branch2a.running_mean"),
        ("aux:bn5a_branch2b1_moving_var", "b5.bn_branch2b1.running_var"),
        ("res6a_branch2b2_weight", "b6.conv_branch2b2.weight"),
        ("arg:bn7a_branch2b2_gamma", "b7.bn_branch2b2.weight"),
        ("arg:bn7_gamma", "bn7.weight"),
        ("bn7_moving_var", "bn7.running_var"),
        ("module.b4_3.conv_branch2a.weight", "b4_3.conv_branch2a.weight"),
        ("module.encoder.b7.bn_branch2b2.bias", "b7.bn_branch2b2.bias"),
        ("encoder.conv1a.weight", "conv1a.weight"),
    ],
)
def test_names_of_resnet38(theirs: str, ours: str) -> None:
    assert one(theirs) == BACKBONE + ours


@pytest.mark.parametrize(
    "name",
    [
        "arg:linear1000_weight",
        "arg:res4b3_branch2a_momentum",
        "arg:res9a_branch2a_weight",
        "f8_6.weight",
        "layer1.0.conv1.weight",
        "classifier.weight",
        "network.backbone.encoder.model.conv1.weight",
        "b8.conv.weight",
    ],
)
def test_other_names_stay(name: str) -> None:
    assert one(name) == name


def test_psas_classifier_and_affinity_layers() -> None:
    assert one("fc8.weight") == "network.classifier.weight"
    for layer in ("f8_3", "f8_4", "f8_5", "f9"):
        assert one(f"module.{layer}.weight") == f"network.{layer}.weight"


def test_all_of_mxnets_names_become_psas(psa_shapes: dict[str, tuple[int, ...]]) -> None:
    names = [mxnet.name(name) for name in psa_shapes]
    assert {"arg:res4b3_branch2a_weight", "aux:bn4b3_branch2a_moving_mean", "arg:bn7_gamma"} <= set(names)
    assert [one(name) for name in names] == [BACKBONE + name for name in psa_shapes]


def test_irns_resnet50() -> None:
    names = ("resnet50.conv1.weight", "resnet50.layer4.2.bn3.bias", "classifier.weight", "stage1.0.weight")
    assert list(stage_names({name: torch.zeros(1) for name in names})) == [
        "network.backbone.encoder.model.conv1.weight",
        "network.backbone.encoder.model.layer4.2.bn3.bias",
        "network.classifier.weight",
        "stage1.0.weight",
    ]


def test_published_names_undo_ours() -> None:
    with torch.device("meta"):
        psa = {**ResNet38().state_dict(), "fc8.weight": torch.empty(20, 4096, 1, 1), "f9.weight": torch.empty(2)}
    assert list(published_names(stage_names(psa))) == list(psa)


def test_published_names_leave_other_backbones_alone() -> None:
    weights = {"network.backbone.encoder.model.conv1.weight": torch.ones(1), "network.classifier.weight": torch.ones(2)}
    assert published_names(weights) == weights


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match=r"several of the file's tensors are what a stage calls .*bn7\.weight"):
        stage_names({"arg:bn7_gamma": torch.ones(1), "aux:bn7_gamma": torch.zeros(1)})
    with pytest.raises(InputError, match="several"):
        stage_names({"module.x": torch.ones(1), "x": torch.zeros(1)})
