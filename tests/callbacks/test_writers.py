from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer

from ssdd_lightning.callbacks.writers import PredictionWriter, write_difference
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.masks import read_mask
from ssdd_lightning.storage.score_maps import map_path, read_map
from tests.helpers import tiny

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
MASK = torch.tensor([[0, 1, 2], [255, 2, 1]])
SCORES = torch.tensor([[[0.0, 0.25, 1.0]], [[1.0, 0.5, 0.0]]])
DIFFERENCE = torch.tensor([[0.0, 0.5, 1.0]])


def everything(batch: dict[str, torch.Tensor | list[str]]) -> dict[str, Any]:
    count = len(batch["name"])
    return {
        "name": batch["name"],
        "mask": [MASK] * count,
        "map": [SCORES.double()] * count,
        "map_classes": [torch.tensor([0, 2])] * count,
        "d_knowledge": [DIFFERENCE] * count,
        "d_advice": [1 - DIFFERENCE.bfloat16()] * count,
    }


@pytest.mark.parametrize("command", ["predict", "test"])
def test_writes_everything_with_dataset_indices(
    command: str, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = make_trainer(PredictionWriter(tmp_path / "out"))
    getattr(trainer, command)(tiny.Stage(everything), datamodule=tiny.Data())
    for name in ("n0", "n1", "n2", "n3"):
        assert read_mask(tmp_path / "out" / f"{name}.png").tolist() == [[0, 8, 12], [255, 12, 8]]
        classes, scores = read_map(map_path(tmp_path / "out", name))
        assert classes == [0, 12]
        np.testing.assert_allclose(scores, SCORES, atol=0.004)
        assert np.array(Image.open(tmp_path / "out" / "d_knowledge" / f"{name}.png")).tolist() == [[0, 128, 255]]
        assert np.array(Image.open(tmp_path / "out" / "d_advice" / f"{name}.png")).tolist() == [[255, 128, 0]]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 16


def test_masks_only(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    stage = tiny.Stage(lambda batch: {"name": batch["name"], "mask": [MASK] * 2})
    make_trainer(PredictionWriter(tmp_path / "out")).predict(stage, datamodule=tiny.Data())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "n0.png",
        "n1.png",
        "n2.png",
        "n3.png",
    ]


def test_a_test_that_returns_no_masks_writes_none(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    stage = tiny.Stage(lambda batch: torch.zeros(()))
    make_trainer(PredictionWriter(tmp_path / "out")).test(stage, datamodule=tiny.Data())
    assert not list((tmp_path / "out").iterdir())


def change(**entries: Any) -> Callable[..., Any]:
    return lambda batch: everything(batch) | entries


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda batch: torch.zeros(()), "predict_step should return a dict .* found Tensor"),
        (lambda batch: {"name": batch["name"]}, r"found a dict with \['name'\]"),
        (change(mask=[MASK]), "2 names but 1 of 'mask'"),
        (change(d_advice=[]), "2 names but 0 of 'd_advice'"),
        (change(mask=[MASK + 1] * 2), "holds the value 3, but the data module has 3 classes"),
        (change(mask=[MASK - 1] * 2), "holds the value -1"),
        (change(d_knowledge=[DIFFERENCE / 0] * 2), "n0.png: expected differences in"),
    ],
)
def test_refuses_what_it_cannot_write(
    answer: Callable[..., Any], sentence: str, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence):
        make_trainer(PredictionWriter(tmp_path / "out")).predict(tiny.Stage(answer), datamodule=tiny.Data())


def test_needs_a_data_module(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="class_indices"):
        make_trainer(PredictionWriter(tmp_path / "out")).predict(tiny.Stage(everything), tiny.Data().loader())
    assert not (tmp_path / "out").exists()


def test_output_folder_that_is_a_file(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("here already")
    with pytest.raises(InputError, match=r"cannot create the folder .*out"):
        make_trainer(PredictionWriter(tmp_path / "out")).predict(tiny.Stage(everything), datamodule=tiny.Data())


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.1])
def test_differences_out_of_range(value: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected differences in \[0, 1\]"):
        write_difference(tmp_path / "d.png", np.array([[0.5, value]]))
    assert not (tmp_path / "d.png").exists()
