"""Plain folders: odd file names, classes of one's own, labels without VOC."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.data.folder import FolderDataModule
from ssdd_lightning.data.labels import table_of_labels
from ssdd_lightning.data.splits import Splits, read_names
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.masks import write_mask
from tests.helpers.files import write_photo

LABELS = {"my cat.jpg": [1], "a.b.c": [1, 3], "été": ["kea"]}
FILES = ("my cat.jpg", "a.b.c.jpeg", "été.bmp")
SIZE = (40, 60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photos of odd names, labels of three classes, knowledge and truth."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for file in FILES:
        write_photo(tmp_path / "photos" / file, SIZE, rng)
        name = file.rpartition(".")[0]
        write_mask(tmp_path / "K" / f"{name}.png", np.full(SIZE, 1))
        write_mask(tmp_path / "truth" / f"{name}.png", np.full(SIZE, 3))
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    (tmp_path / "names.txt").write_text("background\nauk\nowl\nkea\n")
    return tmp_path


def module(folder: Path, **options: Any) -> FolderDataModule:
    options = {
        "class_names": folder / "names.txt",
        "augmentation": Augmentation(32),
        "batch_size": 3,
        "num_workers": 0,
        **options,
    }
    return FolderDataModule(folder / "photos", folder / "labels.json", **options)


def test_any_names_and_any_classes(folder: Path) -> None:
    data = module(folder, knowledge=folder / "K")
    assert (data.class_names, data.class_indices) == (["background", "auk", "owl", "kea"], [0, 1, 2, 3])
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (3, 3, 32, 32)
    assert set(batch["name"]) == {"my cat", "a.b.c", "été"}
    assert "mask" not in batch
    data.setup("predict")
    labels = {batch["name"][0]: batch["image_labels"][0].tolist() for batch in data.predict_dataloader()}
    assert labels == {
        "my cat": [True, True, False, False],
        "a.b.c": [True, True, False, True],
        "été": [True, False, False, True],
    }


def test_a_choice_of_classes_keeps_the_images_that_show_only_them(folder: Path) -> None:
    data = module(folder, classes=["kea"], truth=folder / "truth")
    data.setup("validate")
    (batch,) = data.val_dataloader()
    assert batch["name"] == ["été"]
    assert batch["mask"].unique().tolist() == [1]
    assert data.class_indices == [0, 3]


def test_splits_name_images_with_spaces(folder: Path) -> None:
    (folder / "few.txt").write_bytes("my cat\r\nété\n".encode())
    data = module(folder, splits=Splits(predict=folder / "few.txt"))
    data.setup("predict")
    assert [record.name for record in data.datasets["predict"].records] == ["my cat", "été"]
    assert read_names(folder / "few.txt") == ["my cat", "été"]


def test_without_truth_a_fit_has_no_validation_and_scoring_is_refused(folder: Path) -> None:
    data = module(folder)
    data.setup("fit")
    assert data.val_dataloader() == []
    with pytest.raises(InputError, match="`truth`"):
        data.setup("validate")


def test_held_out_photos_without_truth_are_validated_where_labels_suffice(folder: Path) -> None:
    (folder / "held_out.txt").write_text("a.b.c\n")
    data = module(folder, splits=Splits(val=folder / "held_out.txt"))
    trainer: Any = SimpleNamespace(lightning_module=SimpleNamespace(needs_truth=False))
    data.trainer = trainer
    data.setup("validate")
    (batch,) = data.val_dataloader()
    assert batch["name"] == ["a.b.c"]
    assert "mask" not in batch
    everything = module(folder)
    everything.trainer = trainer
    everything.setup("fit")
    assert everything.val_dataloader() == [], "photos that are trained on are not held out"
    trainer.lightning_module.needs_truth = True
    assert data.val_dataloader() == []


@pytest.mark.parametrize(
    ("suffix", "content", "names"),
    [
        (".csv", "name,labels\nx,cat dog\n", VOC_CLASSES),
        (".json", '{"x": [2, 5]}', ("background", *(f"class {i}" for i in range(1, 6)))),
    ],
)
def test_classes_by_the_labels_alone(tmp_path: Path, suffix: str, content: str, names: tuple[str, ...]) -> None:
    path = tmp_path / f"labels{suffix}"
    path.write_text(content)
    assert table_of_labels(path).names == names


@pytest.mark.parametrize(("length", "last"), [(20, "tvmonitor"), (80, "class 80")])
def test_classes_by_label_vectors(tmp_path: Path, length: int, last: str) -> None:
    np.save(tmp_path / "labels.npy", {"x": np.eye(length, dtype=np.float32)[0]})  # type: ignore[arg-type]
    table = table_of_labels(tmp_path / "labels.npy")
    assert (table.num_classes, table.names[-1]) == (length + 1, last)


def test_names_that_nobody_knows_need_their_list(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("name,labels\nx,zebra\n")
    with pytest.raises(InputError, match=r"'zebra'.*`class_names`, `--classes`"):
        table_of_labels(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "photos" / "my cat.jpg").unlink(), r"my cat\.jpg does not exist \(1 of 1 are missing\)"),
        (lambda f: (f / "few.txt").write_text("my cat\nnobody\n"), "does not name image nobody"),
        (lambda f: (f / "few.txt").write_text("\n"), "is empty"),
        (lambda f: (f / "few.txt").unlink(), "split list .* does not exist"),
    ],
)
def test_what_is_missing_is_named(folder: Path, spoil: Callable[..., Any], message: str) -> None:
    (folder / "few.txt").write_text("my cat\n")
    spoil(folder)
    with pytest.raises(InputError, match=message):
        module(folder, splits=Splits(predict=folder / "few.txt")).setup("predict")


def test_another_mistake_in_the_labels_is_not_blamed_on_their_names(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("name,labels\nx,cat\nx,dog\n")
    with pytest.raises(InputError, match="names image x 2 times") as caught:
        table_of_labels(tmp_path / "labels.csv")
    assert "class_names" not in str(caught.value)


@pytest.mark.parametrize("index", [0, 255])
def test_an_index_that_no_class_can_have(tmp_path: Path, index: int) -> None:
    (tmp_path / "labels.json").write_text(json.dumps({"x": [1, index]}))
    with pytest.raises(InputError, match=rf"labels\.json names the class {index}, expected indices 1\.\.254"):
        table_of_labels(tmp_path / "labels.json")
