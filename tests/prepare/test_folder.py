import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ssdd_lightning.cli.main import main
from ssdd_lightning.data.folder import FolderDataModule
from ssdd_lightning.data.splits import Splits
from ssdd_lightning.errors import InputError
from ssdd_lightning.prepare import folder
from ssdd_lightning.prepare.folder import FolderOptions, PreparedFolder, find_classes, prepare_folder, split_names
from ssdd_lightning.storage.masks import read_image, write_mask
from tests.helpers.files import times, truncate, write_photo

FILES = ("my cat.jpg", "a.b.c.JPEG", "été.bmp", "x 1.png", "2007_1.jpg", "-.jpg")
LABELS = {
    "my cat.jpg": ["owl"],
    "a.b.c": ["owl", "kea"],
    "été": ["kea"],
    "x 1": ["great auk"],
    "2007_1": ["owl"],
    "-": ["owl", "great auk"],
}
SIZE = (30, 40)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six photos of odd names; `labels.json` beside them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for file in FILES:
        write_photo(folder / file, SIZE, rng)
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    return folder


def prepare(photos: Path, **options: Any) -> PreparedFolder:
    options = {"images": photos, "labels": photos.parent / "labels.json", "out": photos.parent / "out", **options}
    return prepare_folder(FolderOptions(**options), num_workers=2, progress=False)


def module(made: PreparedFolder) -> FolderDataModule:
    content = yaml.safe_load(made.config.read_text())
    assert content["dataset"] == "folder"
    return FolderDataModule(
        **{**content["data"], "splits": Splits(**content["data"]["splits"])}, batch_size=2, num_workers=0
    )


def test_what_is_written_is_what_the_data_module_takes(photos: Path) -> None:
    made = prepare(photos, val=0.3)
    assert made.classes.names == ("background", "great auk", "kea", "owl")
    data = module(made)
    assert data.class_names == ["background", "great auk", "kea", "owl"]
    data.setup("fit")
    data.setup("predict")
    names = {record.name for record in data.datasets["train"].records}
    assert names == set(made.train) == {record.name for record in data.datasets["predict"].records}
    assert len(made.val) == 2
    assert names | set(made.val) == {file.rpartition(".")[0] for file in FILES}
    assert data.val_dataloader() == []
    labels = {record.name: record.labels for phase in ("train", "val") for record in data.datasets[phase].records}
    assert labels["a.b.c"] == (2, 3)
    assert labels["my cat"] == (3,)


def test_relative_paths_work_from_everywhere(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos.parent)
    assert main(["prepare", "folder", "photos", "--labels=labels.json", "--out=out", "--val=0"]) == 0
    text = capsys.readouterr().out
    assert "Add --config out/data.yaml to the command of every stage." in text
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["class", "train", "val"]
    assert ["owl", "4", "0"] in rows
    assert ["photos", "6", "0"] in rows
    monkeypatch.chdir("/")
    content = yaml.safe_load((photos.parent / "out" / "data.yaml").read_text())["data"]
    data = FolderDataModule(**{**content, "splits": Splits(**content["splits"])})
    data.setup("fit")
    assert len(data.datasets["train"]) == 6


def test_truth_scores_only_what_has_it(photos: Path) -> None:
    truth = photos.parent / "truth"
    for name in ("my cat", "2007_1", "été"):
        write_mask(truth / f"{name}.png", np.full(SIZE, 3))
    made = prepare(photos, truth=truth, val=0.5)
    assert set(made.val) <= {"my cat", "2007_1", "été"}
    assert len(made.val) == 3
    data = module(made)
    data.setup("validate")
    assert [torch.as_tensor(batch["mask"]).unique().tolist() for batch in data.val_dataloader()] == [[3]] * 3


def test_twice_is_once_and_another_seed_is_another_split(photos: Path) -> None:
    made = prepare(photos, val=0.5)
    before = times(photos.parent / "out")
    assert prepare(photos, val=0.5).val == made.val
    assert before == times(photos.parent / "out")
    assert len({tuple(prepare(photos, val=0.5, seed=seed).val) for seed in range(6)}) > 1


def test_an_interrupted_second_run_leaves_no_options_behind(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepare(photos, val=0.5)
    real = os.replace

    def fail(source: Path, target: Path) -> None:
        if str(target).endswith("train.txt"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr("ssdd_lightning.storage.files.os.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare(photos, val=0.2)
    assert not made.config.exists()


def test_a_change_is_said_and_a_finished_folder_is_not_read_again(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photos.parent / "out"
    prepare(photos, val=0.5)
    assert capsys.readouterr().out == ""
    checked = []
    monkeypatch.setattr(folder, "read_image", lambda path: checked.append(path) or read_image(path))
    prepare(photos, val=0.5)
    assert capsys.readouterr().out == f"prepare: finished in {out}, nothing to do.\n"
    assert not checked
    for change, reason in (
        ({"val": 0.2}, "val was 0.5 and is 0.2"),
        ({"val": 0.2, "seed": 3}, "seed was 0 and is 3"),
    ):
        made = prepare(photos, **change)
        assert capsys.readouterr().out == f"prepare: redone in {out}, because {reason}.\n"
        assert made.val == (out / "val.txt").read_text().splitlines()
    relabel(photos, été=["owl"])
    prepare(photos, **change)
    assert "because the labels changed." in capsys.readouterr().out
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(photos / "my cat.jpg")
    prepare(photos, **change)
    assert "because the photos changed." in capsys.readouterr().out
    (out / "train.txt").write_text("half")
    prepare(photos, **change)
    assert "prepare: 1 made again in " in capsys.readouterr().out
    assert (out / "train.txt").read_text() != "half"


def test_a_folder_that_moved_is_finished_and_its_options_name_where_it_is(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(photos)
    moved = (photos.parent / "out").rename(photos.parent / "elsewhere")
    made = prepare(photos, out=moved)
    assert "nothing to do" in capsys.readouterr().out
    assert yaml.safe_load(made.config.read_text())["data"]["labels"] == str(moved / "labels.json")


def test_a_damaged_entry_is_a_sentence(photos: Path) -> None:
    prepare(photos)
    (photos.parent / "out" / "prepare.json").write_text("{}")
    with pytest.raises(InputError, match=r"expected an entry of the ledger .*prepare\.json.*; remove it"):
        prepare(photos)


def test_every_class_keeps_a_photo_to_train_on() -> None:
    labels = {f"n{i}": (1,) if i < 18 else (2,) for i in range(20)}
    for seed in range(20):
        train, val = split_names(labels, 0.5, seed)
        assert len(val) == 10
        assert {index for name in train for index in labels[name]} == {1, 2}
        assert sorted([*train, *val]) == sorted(labels)
    assert split_names({"a": (1,), "b": (2,)}, 0.9, 0) == (["a", "b"], [])


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("name,labels\na,zebra yak\nb,yak\n", ("background", "yak", "zebra")),
        ("name,labels\na,great auk;yak\n", ("background", "great auk", "yak")),
        ("name,labels\na,2 5\n", ("background", *(f"class {n}" for n in range(1, 6)))),
    ],
)
def test_classes_by_the_labels(tmp_path: Path, content: str, names: Any) -> None:
    (tmp_path / "labels.csv").write_text(content)
    assert find_classes(tmp_path / "labels.csv").names == names


def test_as_many_classes_as_anybody_wants(photos: Path) -> None:
    labels = {name: [f"species {n}", f"species {n + 100:03d}"] for n, name in enumerate(LABELS)}
    (photos.parent / "labels.json").write_text(json.dumps(labels))
    (photos.parent / "names.txt").write_text(
        "\n".join(["background", *(f"species {n}" for n in range(6)), *(f"species {n:03d}" for n in range(100, 200))])
    )
    made = prepare(photos, classes=str(photos.parent / "names.txt"), val=0)
    assert module(made).num_classes == 107


def test_a_csv_with_spaces_and_accents(photos: Path) -> None:
    lines = [f"{name},{';'.join(shown)}{';' if len(shown) == 1 else ''}" for name, shown in LABELS.items()]
    (photos.parent / "labels.csv").write_text("\n".join(["name,labels", *lines]))
    made = prepare(photos, labels=photos.parent / "labels.csv")
    assert made.classes.names == ("background", "great auk", "kea", "owl")


def test_more_classes_than_a_mask_tells_apart(photos: Path) -> None:
    labels = {name: [f"species {n}" for n in range(100 * k, 100 * k + 100)] for k, name in enumerate(LABELS)}
    (photos.parent / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(InputError, match=r"at most 255 classes, background included, found \d01"):
        prepare(photos)


def test_subfolders_with_photos_are_named(photos: Path) -> None:
    (photos / "more").mkdir()
    (photos / "empty").mkdir()
    assert prepare(photos).unread == []
    (photos / "more" / "z.jpg").write_bytes((photos / "my cat.jpg").read_bytes())
    assert prepare(photos).unread == ["more"]


def test_photos_that_viewers_turn_are_named(photos: Path) -> None:
    turned = Image.new("RGB", (24, 12))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(photos / "my cat.jpg", exif=exif)
    assert prepare(photos).turned == ["my cat"]


@pytest.mark.parametrize("label", ["cat\ndog", ""])
def test_labels_that_a_list_of_classes_cannot_hold(photos: Path, label: str) -> None:
    relabel(photos, été=[label])
    with pytest.raises(InputError, match="expected printable names of classes"):
        prepare(photos)


def relabel(photos: Path, **changes: Any) -> None:
    (photos.parent / "labels.json").write_text(json.dumps({**LABELS, **changes}))


BROKEN = {
    "half a photo": (
        lambda p: truncate(p / "my cat.jpg"),
        r"1 of 6 photos or masks are wrong; the first: .*my cat\.jpg",
    ),
    "no photo": (lambda p: (p / "my cat.jpg").unlink(), r"1 labels without photo \(my cat\) in .*`--skip-missing`"),
    "no label": (lambda p: relabel(p, été=[]), r"1 photos without label \(été\)"),
    "names and indices": (lambda p: relabel(p, été=[3]), "mixes names with indices, such as 'great auk' and '3'"),
    "two of a name": (
        lambda p: (p / "my cat.JPEG").write_bytes((p / "my cat.jpg").read_bytes()),
        "belong to two photos",
    ),
    "a space": (lambda p: (p / "my cat.jpg").rename(p / " my cat.jpg"), "begins or ends with a space"),
    "a line break": (lambda p: (p / "my cat.jpg").rename(p / "my\ncat.jpg"), "holds a line break"),
    "no labels": (lambda p: (p.parent / "labels.json").unlink(), r"labels\.json does not exist"),
    "broken labels": (lambda p: (p.parent / "labels.json").write_text("{"), r"cannot read label file .*labels\.json"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_input_writes_nothing(photos: Path, case: str) -> None:
    spoil, message = BROKEN[case]
    spoil(photos)
    with pytest.raises(InputError, match=message):
        prepare(photos)
    assert not (photos.parent / "out").exists()


def test_skip_missing(photos: Path) -> None:
    (photos / "my cat.jpg").unlink()
    relabel(photos, été=[])
    made = prepare(photos, skip_missing=True, val=0)
    assert made.left_out == ["my cat", "été"]
    assert len(made.train) == 4


@pytest.mark.parametrize(
    ("mask", "message"),
    [(np.zeros((30, 41)), r"is 41 x 30 pixels, its photo is 40 x 30"), (np.full(SIZE, 9), "holds the value 9")],
)
def test_wrong_truth(photos: Path, mask: np.ndarray, message: str) -> None:
    write_mask(photos.parent / "truth" / "my cat.png", mask.astype(int))
    with pytest.raises(InputError, match=message):
        prepare(photos, truth=photos.parent / "truth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": 1.0}, "val: expected a share"),
        ({"truth": "nowhere"}, "folder of ground truth masks .*nowhere does not exist"),
        ({"truth": "photos"}, "holds a ground truth mask .* for none"),
        ({"classes": "2"}, "names the class 'owl', expected one of class 1"),
    ],
)
def test_wrong_options(photos: Path, options: dict[str, Any], message: str) -> None:
    if "truth" in options:
        (photos / "x 1.png").unlink()
        (photos / "x 1.jpg").write_bytes((photos / "my cat.jpg").read_bytes())
        options = {"truth": photos.parent / options["truth"]}
    with pytest.raises(InputError, match=message):
        prepare(photos, **options)


def test_an_unwritable_target(photos: Path) -> None:
    (photos.parent / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot write"):
        prepare(photos)
