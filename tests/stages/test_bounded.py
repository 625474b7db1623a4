"""A checkpoint cannot ask for a network that fills the memory."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ssdd_lightning import SegmentationModule
from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.folders.segment_checkpoint import load_stage
from ssdd_lightning.stages.bounded import bounded_by
from ssdd_lightning.stages.hyperparameters import plain_hyperparameters
from tests.helpers.networks import Segmenter
from tests.helpers.stages import SEGMENTATION, write_stage

OWN = "tests.stages.test_bounded.Frozen"
LARGE = {"head_channels": 10**6}
TOLD = r"large\.ckpt holds [\d,]+ bytes, but its hyper-parameters ask for a network of far more \(a Conv2d with a "


def write_checkpoint(path: Path, network: dict[str, Any], **changed: Any) -> Path:
    """A checkpoint of small weights whose hyper-parameters ask for another network."""
    stage = SegmentationModule(3, Segmenter, backbone_weights=None)
    kept = plain_hyperparameters(SegmentationModule, dict(stage.hparams)) | {"network": network, **changed}
    content = {"state_dict": stage.state_dict(), "hyper_parameters": kept, "callbacks": {}, "loops": {}}
    torch.save({**content, "pytorch-lightning_version": "2.5.0"}, path)
    return path


@pytest.mark.parametrize("changed", [{"num_classes": 10**7}, {}])
def test_a_network_of_far_more_parameters_is_not_built(
    tmp_path: Path, tiny_devkit: Path, changed: dict[str, Any]
) -> None:
    options: Any = SEGMENTATION["init_args"]
    network = {**SEGMENTATION, "init_args": {**options, **({} if changed else LARGE)}}
    path = write_checkpoint(tmp_path / "large.ckpt", network, **changed)
    with pytest.raises(InputError, match=TOLD):
        load_stage(path, torch.device("cpu"))
    with pytest.raises(InputError, match=TOLD):
        SegmentationModule.load_from_checkpoint(path)
    config = write_stage(tmp_path / "s.yaml", "SegmentationModule", tmp_path, {"root": tiny_devkit})
    told = r"does not fit this" if changed else TOLD  # the number of classes comes from the data
    with pytest.raises(InputError, match=told):
        main(["test", f"--config={config}", f"--ckpt_path={path}"])


def test_a_network_of_many_small_layers_is_not_built(tmp_path: Path) -> None:
    path = write_checkpoint(
        tmp_path / "large.ckpt", {"class_path": "tests.stages.test_bounded.Deep", "init_args": {"layers": 10**9}}
    )
    with pytest.raises(InputError, match=r"far more \(a Linear with a (weight|bias)"):
        load_stage(path, torch.device("cpu"))


def test_names_of_the_same_numbers_count_once(tmp_path: Path) -> None:
    options: Any = SEGMENTATION["init_args"]
    path = write_checkpoint(tmp_path / "large.ckpt", {**SEGMENTATION, "init_args": {**options, **LARGE}})
    content = torch.load(path, weights_only=True)
    shared = torch.zeros(100_000)
    content["state_dict"] |= {f"more{number}": shared for number in range(5_000)}
    torch.save(content, path)
    with pytest.raises(InputError, match=TOLD):
        SegmentationModule.load_from_checkpoint(path)


def test_lazy_layers_are_built() -> None:
    with bounded_by({}, "a checkpoint"):
        torch.nn.LazyConv2d(4, 1)(torch.zeros(1, 3, 8, 8))


class Deep(Segmenter):
    """As many layers as one likes."""

    def __init__(self, num_classes: int, layers: int) -> None:
        super().__init__(num_classes)
        for number in range(layers):
            self.add_module(str(number), torch.nn.Linear(1, 1))


def test_sparse_tensors_are_passed_over() -> None:
    with bounded_by({"a": torch.eye(4).to_sparse()}, "a checkpoint"):
        torch.nn.Linear(4, 4)


def test_a_network_that_the_configuration_names_may_leave_parts_out(tmp_path: Path, tiny_devkit: Path) -> None:
    network = {"class_path": OWN}
    path = write_checkpoint(tmp_path / "own.ckpt", network)
    with pytest.raises(InputError, match=r"far more \(a Linear with a weight"):
        SegmentationModule.load_from_checkpoint(path)
    data = {"root": tiny_devkit, "classes": ["cat", "dog"]}
    config = write_stage(tmp_path / "s.yaml", "SegmentationModule", tmp_path, data)
    with pytest.raises(InputError, match=r"frozen\.weight should be \(10500, 10500\), found missing"):
        main(
            ["test", f"--config={config}", f"--ckpt_path={path}", f"--model.init_args.network={network['class_path']}"]
        )


class Frozen(Segmenter):
    """Has many parameters that its checkpoints leave out."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.frozen = torch.nn.utils.skip_init(torch.nn.Linear, 10_500, 10_500, bias=False)
