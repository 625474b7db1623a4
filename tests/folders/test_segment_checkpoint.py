import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssdd_lightning.errors import InputError
from ssdd_lightning.folders.device import find_device
from ssdd_lightning.folders.segment_checkpoint import change_protocol, load_stage
from tests.helpers.files import Trap

CPU = torch.device("cpu")


def test_a_checkpoint_knows_its_classes(checkpoint: Path) -> None:
    stage, classes = load_stage(checkpoint, CPU)
    assert classes.indices == (0, 8, 12)
    assert classes.selected_names == ["background", "cat", "dog"]
    assert len(classes.names) == 21
    assert not stage.training
    assert stage.protocol() == {"scales": [0.5, 1.0], "flip": True, "crf": None}


def test_an_old_checkpoint_needs_to_be_told(old_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name them with --classes"):
        load_stage(old_checkpoint, CPU)
    names = tmp_path / "names.json"
    names.write_text('{"0": "background", "8": "cat", "12": "dog"}')
    assert load_stage(old_checkpoint, CPU, str(names))[1].indices == (0, 8, 12)
    assert load_stage(old_checkpoint, CPU, "3")[1].indices == (0, 1, 2)
    with pytest.raises(InputError, match=r"names 4 classes, .*has 3 outputs"):
        load_stage(old_checkpoint, CPU, "4")


def test_other_classes_than_the_checkpoints_are_refused(checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"has 3 outputs for \['background', 'cat', 'dog'\]"):
        load_stage(checkpoint, CPU, "3")


def test_a_classifier_is_refused(trained: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="ClassificationModule, which makes no masks"):
        load_stage(trained["ClassificationModule"], CPU)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"no checkpoint"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(pickle.dumps(Trap(path.with_name("ran")))),
        lambda path: torch.save({"state_dict": {}, "hyper_parameters": Trap(path.with_name("ran"))}, path),
        lambda path: torch.save({"weights": torch.zeros(2)}, path),
    ],
)
def test_something_else_is_refused_in_one_sentence(write: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    write(path)
    with pytest.raises(InputError, match=r"cannot load .*x\.ckpt"):
        load_stage(path, CPU)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InputError, match="found no file"):
        load_stage(tmp_path / "none.ckpt", CPU)


def test_the_protocol_can_be_changed(checkpoint: Path) -> None:
    stage, _ = load_stage(checkpoint, CPU)
    change_protocol(stage, [0.75], False, True)
    protocol = stage.protocol()
    assert (protocol["scales"], protocol["flip"]) == ([0.75], False)
    assert (protocol["crf"]["bilateral_sxy"], protocol["crf"]["bilateral_srgb"]) == (20, 13)
    assert protocol["crf"]["iterations"] == 10
    change_protocol(stage, None, None, None)
    assert stage.protocol() == protocol
    change_protocol(stage, None, None, False)
    assert stage.protocol()["crf"] is None
    change_protocol(stage, None, None, None, "deeplab")
    protocol = stage.protocol()
    assert (protocol["crf"]["bilateral_sxy"], protocol["crf"]["bilateral_compat"]) == (67, 4)
    assert protocol["crf"]["iterations"] == 10
    with pytest.raises(InputError, match="'psa' and no CRF were asked for"):
        change_protocol(stage, None, None, False, "psa")


@pytest.mark.parametrize("scales", [[0.0], [-1.0], [], [float("nan")], [1.0, float("inf")]])
def test_impossible_scales(checkpoint: Path, scales: list[float]) -> None:
    with pytest.raises(InputError, match="scales must be numbers above 0"):
        change_protocol(load_stage(checkpoint, CPU)[0], scales, None, None)


def test_devices() -> None:
    assert find_device("cpu") == CPU
    with pytest.raises(InputError, match="'warp'"):
        find_device("warp")
