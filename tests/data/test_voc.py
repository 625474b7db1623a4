import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.data.layout import find_devkit
from ssdd_lightning.data.splits import Splits
from ssdd_lightning.data.voc import VOCDataModule
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.score_maps import write_map


def test_the_devkit_is_found_at_three_depths(devkit: Path) -> None:
    assert find_devkit(devkit) == find_devkit(devkit.parent) == find_devkit(devkit.parent.parent) == devkit
    with pytest.raises(InputError, match=r"root .*nowhere should hold .* the folder does not exist"):
        find_devkit(devkit / "nowhere")
    with pytest.raises(InputError, match="found none of them"):
        find_devkit(devkit / "Annotations")


def test_classes_are_known_without_touching_the_disk() -> None:
    data = VOCDataModule("/nowhere", classes=["dog", "cat"])
    assert (data.num_classes, data.class_indices) == (3, [0, 8, 12])
    assert data.class_names == ["background", "cat", "dog"]
    assert VOCDataModule("/nowhere").class_indices == list(range(21))


def test_ground_truth_is_absent_in_training_and_prediction(devkit: Path) -> None:
    """Weak supervision: a mask of ground truth may reach scoring, and nothing else."""
    write_map(devkit / "K" / "a_cat.map.png", [0, 8], np.ones((2, 40, 60)))
    data = VOCDataModule(
        devkit, classes=["cat"], knowledge=devkit / "K", augmentation=Augmentation(32), batch_size=1, num_workers=0
    )
    data.setup()
    expected = {"image", "image_raw", "image_labels", "knowledge", "name"}
    assert set(next(iter(data.predict_dataloader()))) == expected
    assert set(next(iter(data.train_dataloader()))) == {*expected, "valid"}
    for phase in ("train", "predict"):
        assert all(record.mask is None for record in data.datasets[phase].records)
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert set(next(iter(loader))) == {"image", "image_raw", "image_labels", "mask", "name"}


def test_training_never_opens_ground_truth(devkit: Path) -> None:
    for path in (devkit / "SegmentationClass").iterdir():
        path.write_bytes(b"not to be read")
    data = VOCDataModule(devkit, augmentation=Augmentation(32), batch_size=4, num_workers=0)
    data.setup("fit")
    data.setup("predict")
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 32, 32)
    assert len(list(data.predict_dataloader())) == 4


def test_classes_keep_images_that_show_only_them(devkit: Path) -> None:
    data = VOCDataModule(devkit, classes=["cat", "dog"], num_workers=0)
    data.setup("validate")
    batches = list(data.val_dataloader())
    assert [batch["name"] for batch in batches] == [["a_cat"], ["b_dog"], ["c_both"]]
    assert [batch["image_labels"][0].tolist() for batch in batches] == [
        [True, True, False],
        [True, False, True],
        [True, True, True],
    ]
    assert batches[1]["mask"].unique().tolist() == [0, 2, 255]


def test_labels_come_from_annotations_or_a_file(devkit: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("name,labels\na_cat,cat\nb_dog,dog\nc_both,12 8\nd_bus,bus\n")
    found = []
    for labels in (None, tmp_path / "labels.csv"):
        data = VOCDataModule(devkit, labels=labels, num_workers=0)
        data.setup("predict")
        found.append([record.labels for record in data.datasets["predict"].records])
    assert found[0] == found[1] == [(8,), (12,), (8, 12), (6,)]


def test_a_split_may_be_a_list_file(devkit: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("/JPEGImages/d_bus.jpg /SegmentationClass/d_bus.png\n")
    data = VOCDataModule(devkit, splits=Splits(val=str(tmp_path / "mine.txt")), num_workers=0)
    data.setup("validate")
    assert [batch["name"] for batch in data.val_dataloader()] == [["d_bus"]]


def _break_image(devkit: Path, tmp_path: Path) -> tuple[dict[str, Any], str]:
    (devkit / "JPEGImages" / "b_dog.jpg").unlink()
    return {}, r"image .*b_dog\.jpg does not exist \(1 of 4 are missing\)"


def _break_truth(devkit: Path, tmp_path: Path) -> tuple[dict[str, Any], str]:
    message = r"folder of ground truth masks .*SegmentationClassAug does not exist; .*`truth`"
    return {"truth": "SegmentationClassAug"}, message


def _break_split(devkit: Path, tmp_path: Path) -> tuple[dict[str, Any], str]:
    return {"splits": Splits(val="valid")}, r"valid\.txt does not exist; .* holds: trainaug, val"


def _break_label_file(devkit: Path, tmp_path: Path) -> tuple[dict[str, Any], str]:
    (tmp_path / "l.csv").write_text("name,labels\na_cat,cat\n")
    return {"labels": tmp_path / "l.csv"}, r"l\.csv does not name image b_dog \(3 of 4 are missing\)"


def _break_annotation(devkit: Path, tmp_path: Path) -> tuple[dict[str, Any], str]:
    (devkit / "Annotations" / "d_bus.xml").unlink()
    return {}, r"d_bus\.xml does not exist"


def _break_label(devkit: Path, tmp_path: Path) -> tuple[dict[str, Any], str]:
    (devkit / "Annotations" / "d_bus.xml").write_text("<annotation></annotation>")
    return {}, r"d_bus\.jpg has no label in .*Annotations"


@pytest.mark.parametrize(
    "breakage", [_break_image, _break_truth, _break_split, _break_label_file, _break_annotation, _break_label]
)
def test_what_is_missing_is_named(
    devkit: Path, tmp_path: Path, breakage: Callable[[Path, Path], tuple[dict[str, Any], str]]
) -> None:
    options, message = breakage(devkit, tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        VOCDataModule(devkit, num_workers=0, **options).setup("validate")
    assert "\n" not in str(caught.value)


def test_the_command_line_knows_every_option(devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(VOCDataModule, "data")
    options = ["--data.root", str(devkit), "--data.classes", "[cat, dog]", "--data.augmentation.resize", "[30, 40]"]
    config = parser.parse_args(options)
    data = getattr(parser, "instantiate", parser.instantiate_classes)(config).data  # the older name
    assert (data.num_classes, data.train_transform.__class__.__name__) == (3, "TrainTransform")
    again = ArgumentParser(exit_on_error=False)
    again.add_class_arguments(VOCDataModule, "data")
    assert again.parse_string(parser.dump(config)).data.augmentation.resize == (30, 40)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for option in inspect.signature(VOCDataModule).parameters:
        assert re.search(rf"--data\.{option} \S.*?[A-Z][a-z]+ ", text), option
    assert "Folder of ground truth masks inside VOC2012" in text


@pytest.mark.real
def test_real_photos(voc_animals: Path) -> None:
    animals = ["cat", "cow", "dog", "horse", "person", "sheep"]
    data = VOCDataModule(
        voc_animals,
        labels=voc_animals / "cls_labels.npy",
        classes=animals,
        truth="SegmentationClassAug",
        augmentation=Augmentation(256, (256, 320)),
        batch_size=8,
        num_workers=0,
    )
    data.setup("fit")
    assert data.class_indices == [0, 8, 10, 12, 13, 15, 17]
    assert {phase: len(dataset) for phase, dataset in data.datasets.items()} == {"train": 1300, "val": 200}
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (8, 3, 256, 256)
    assert "mask" not in batch
    for index in range(0, 200, 20):
        sample: dict[str, Any] = data.datasets["val"][index]
        shown = {value for value in sample["mask"].unique().tolist() if value != 255}
        assert shown <= set(torch.nonzero(sample["image_labels"]).flatten().tolist())
