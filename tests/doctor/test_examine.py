"""The doctor on a healthy devkit, on deliberately broken ones, and on real photos."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ssdd_lightning.cli.main import main
from ssdd_lightning.doctor.examine import examine
from ssdd_lightning.doctor.report import CHECKS, Report
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.masks import VOC_PALETTE, read_mask, write_mask
from tests.helpers.files import truncate

T1, T2, T3, V1, V2 = "2007_000001", "2007_000002", "2007_000003", "2008_000001", "2008_000002"


@pytest.fixture
def devkit(tiny_devkit: Path, tmp_path: Path) -> Path:
    """A devkit of one's own to break: 12 training and 4 validation images, lists train, trainaug and val."""
    shutil.copytree(tiny_devkit, tmp_path / "root")
    return tmp_path / "root" / "VOCdevkit" / "VOC2012"


def diagnose(devkit: Path, **options: Any) -> Report:
    return examine(devkit, **{"subset": True, "num_workers": 2, "progress": False, **options})


def mask_path(devkit: Path, name: str) -> Path:
    return devkit / "SegmentationClass" / f"{name}.png"


def list_path(devkit: Path, split: str) -> Path:
    return devkit / "ImageSets" / "Segmentation" / f"{split}.txt"


def test_a_healthy_devkit(devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = diagnose(devkit)
    assert report.findings == {}
    assert report.splits == {"train": 12, "val": 4, "trainaug": 12}
    assert main(["doctor", str(devkit), "--subset"]) == 0
    text = capsys.readouterr().out
    assert "nothing is wrong" in text
    assert "labels: " + str(devkit / "Annotations") in text


def test_sizes_of_splits(devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(devkit)]) == 1
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines()]
    assert ["split", "images", "official"] in rows
    assert ["train", "12", "1464"] in rows
    assert ["count", "3", *CHECKS["count"].split()] in rows
    assert "train: 12 images, officially 1464" in text
    assert "val: 4 images, officially 1449" in text
    assert "trainaug: 12 images, officially 10582" in text


def crop(devkit: Path) -> None:
    write_mask(mask_path(devkit, T1), read_mask(mask_path(devkit, T1))[:-3])


def recolour(devkit: Path) -> None:
    """Save the mask as an image program does: with a palette of the colours that occur, in another order."""
    mask = read_mask(mask_path(devkit, T1))
    image = Image.fromarray(mask)
    image.putpalette(VOC_PALETTE[::-1].tobytes())
    image.save(mask_path(devkit, T1))


def paint(devkit: Path) -> None:
    Image.fromarray(VOC_PALETTE[read_mask(mask_path(devkit, T1))]).save(mask_path(devkit, T1))


def strange(devkit: Path) -> None:
    mask = read_mask(mask_path(devkit, T1))
    mask[:2] = 77
    mask[2:4] = 254
    write_mask(mask_path(devkit, T1), mask)


def unlabelled_class(devkit: Path) -> None:
    mask = read_mask(mask_path(devkit, T1))
    mask[:4] = 20
    write_mask(mask_path(devkit, T1), mask)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def annotate(devkit: Path, content: str) -> None:
    (devkit / "Annotations" / f"{T1}.xml").write_text(content)


BOMB = '<!DOCTYPE x [<!ENTITY a "ha">]><annotation><object><name>&a;</name></object></annotation>'
BROKEN = {
    "no photo": (lambda d: (d / f"JPEGImages/{T1}.jpg").unlink(), "image missing", f"JPEGImages/{T1}.jpg"),
    "half a photo": (lambda d: truncate(d / f"JPEGImages/{T1}.jpg"), "image unreadable", "truncated"),
    "no photo but HTML": (
        lambda d: (d / f"JPEGImages/{V1}.jpg").write_text("<html>"),
        "image unreadable",
        "cannot identify",
    ),
    "no mask": (lambda d: mask_path(d, V1).unlink(), "mask missing", f"SegmentationClass/{V1}.png"),
    "half a mask": (lambda d: truncate(mask_path(d, T1)), "mask unreadable", f"SegmentationClass/{T1}.png"),
    "colours": (paint, "mask unreadable", "has mode RGB"),
    "size": (crop, "mask size", f"SegmentationClass/{T1}.png: 64 x 61, photo 64 x 64"),
    "palette": (recolour, "mask palette", "colour of 0, "),
    "values": (strange, "mask values", f"SegmentationClass/{T1}.png: 77, 254"),
    "unlabelled class": (unlabelled_class, "label of mask", f"SegmentationClass/{T1}.png: tvmonitor"),
    "no annotation": (lambda d: (d / f"Annotations/{T1}.xml").unlink(), "label missing", T1),
    "no object": (lambda d: annotate(d, "<annotation></annotation>"), "label missing", T1),
    "unknown class": (
        lambda d: annotate(d, "<annotation><object><name>ox</name></object></annotation>"),
        "label wrong",
        "'ox'",
    ),
    "XML bomb": (lambda d: annotate(d, BOMB), "label wrong", "EntitiesForbidden"),
    "half a list": (lambda d: list_path(d, "val").write_text(""), "list", "is empty"),
    "no list": (lambda d: list_path(d, "val").unlink(), "list", "val.txt does not exist"),
    "a name twice": (lambda d: append(list_path(d, "val"), f"{V1}\n"), "list", f"names {V1} more than once"),
    "a binary list": (lambda d: list_path(d, "val").write_bytes(b"\xff\xfe\x00"), "list", "cannot read split list"),
    "path traversal": (
        lambda d: list_path(d, "val").write_text(f"../../JPEGImages/{V1}.jpg\n{V2}\n"),
        "list",
        "val.txt leads elsewhere: ../../JPEGImages",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_one_thing_broken_is_the_one_thing_found(devkit: Path, case: str) -> None:
    spoil, check, entry = BROKEN[case]
    spoil(devkit)
    report = diagnose(devkit)
    assert list(report.findings) == [check]
    assert len(report.findings[check]) == 1
    assert entry in report.findings[check][0]
    assert not report.healthy


def test_everything_broken_at_once(devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for case in ("half a photo", "values", "path traversal"):
        BROKEN[case][0](devkit)
    mask_path(devkit, T2).unlink()
    path = tmp_path / "report.json"
    assert main(["doctor", str(devkit), "--json", str(path), "--num_workers=1"]) == 1
    found = json.loads(path.read_text())
    assert found["healthy"] is False
    assert list(found["findings"]) == ["list", "count", "image unreadable", "mask missing", "mask values"]
    assert f"{sum(map(len, found['findings'].values()))} findings" in capsys.readouterr().out


def test_an_image_in_two_splits(devkit: Path) -> None:
    append(list_path(devkit, "val"), f"{T1}\n{T2}\n")
    report = diagnose(devkit)
    assert report.findings == {"overlap": [f"{T1}: train, trainaug, val", f"{T2}: train, trainaug, val"]}


def test_a_photo_in_two_splits_under_two_names(devkit: Path) -> None:
    shutil.copy(devkit / "JPEGImages" / f"{T3}.jpg", devkit / "JPEGImages" / f"{V2}.jpg")
    assert diagnose(devkit).findings == {"same photo": [f"{V2}: {T3}"]}


def test_an_image_of_val_in_test(devkit: Path) -> None:
    list_path(devkit, "test").write_text(f"{V1}\n2009_000001\n")
    shutil.copy(devkit / "JPEGImages" / f"{V2}.jpg", devkit / "JPEGImages" / "2009_000001.jpg")
    assert diagnose(devkit).findings == {"overlap": [f"{V1}: test, val"], "same photo": [f"2009_000001: {V2}"]}


def test_trainval_and_lists_of_ones_own_share_images(devkit: Path) -> None:
    names = list_path(devkit, "train").read_text() + list_path(devkit, "val").read_text()
    list_path(devkit, "trainval").write_text(names)
    list_path(devkit, "mine").write_text(f"{T1}\n{V1}\n")
    report = diagnose(devkit)
    assert report.healthy
    assert report.notes[0].startswith(
        "mine is no split of the devkit's own; it shares 1 with train, 1 with val, 2 with"
    )


def test_a_photo_in_a_list_of_ones_own_under_another_name_is_noted(devkit: Path) -> None:
    shutil.copy(devkit / "JPEGImages" / f"{V1}.jpg", devkit / "JPEGImages" / "2009_000001.jpg")
    list_path(devkit, "mine").write_text("2009_000001\n")
    shutil.copy(mask_path(devkit, V1), mask_path(devkit, "2009_000001"))
    shutil.copy(devkit / "Annotations" / f"{V1}.xml", devkit / "Annotations" / "2009_000001.xml")
    assert "shares 1 with val" in diagnose(devkit).notes[0]


def test_trainval_is_train_and_val(devkit: Path) -> None:
    list_path(devkit, "trainval").write_text(list_path(devkit, "train").read_text())
    assert diagnose(devkit).findings == {"list": ["trainval.txt does not hold train and val and nothing else"]}


def test_a_label_file_that_cannot_be_read_is_a_finding(devkit: Path) -> None:
    (devkit / "labels.csv").write_text(f"name,labels\n{T1},cat,dog\n")
    mask_path(devkit, T1).unlink()
    findings = diagnose(devkit).findings
    assert list(findings) == ["mask missing", "label wrong"]
    assert "expected the two columns" in findings["label wrong"][0]


def test_the_default_folder_of_truth_is_missed(devkit: Path) -> None:
    (devkit / "SegmentationClass").rename(devkit / "SegmentationClassAug")
    assert any("no SegmentationClass, on which the stages score" in note for note in diagnose(devkit).notes)


def test_a_wrong_label_does_not_hide_the_others(devkit: Path) -> None:
    rows = [f"{path.stem},cat cow dog sheep" for path in sorted((devkit / "JPEGImages").iterdir())]
    rows[0] = f"{T1},cat zebra"
    rows[1] = f"{T2},"
    (devkit / "labels.csv").write_text("\n".join(["name,labels", *rows]))
    findings = diagnose(devkit).findings
    assert findings["label missing"] == [T2]
    assert len(findings["label wrong"]) == 1
    assert findings["label wrong"][0].startswith(f"{T1}: ")
    assert "'zebra'" in findings["label wrong"][0]


def test_official_sizes_are_those_of_the_dataset_not_of_its_number_of_classes(devkit: Path) -> None:
    (devkit / "classes.txt").write_text("\n".join(["background", *(f"x{n}" for n in range(1, 21))]))
    assert examine(devkit, progress=False).official == {}
    (devkit / "classes.txt").write_text("\n".join(["background", *(f"x{n}" for n in range(1, 81))]))
    assert examine(devkit, progress=False).official == {}


def test_a_label_file(devkit: Path, tmp_path: Path) -> None:
    shown = {path.stem: ["cat", "cow", "dog", "sheep"] for path in (devkit / "JPEGImages").iterdir()}
    shutil.rmtree(devkit / "Annotations")
    report = diagnose(devkit)
    assert (report.healthy, report.labels) == (True, "none")
    assert "no labels were found" in report.notes[0]
    (devkit / "labels.json").write_text(json.dumps(shown))
    assert diagnose(devkit).healthy
    path = tmp_path / "other.json"
    path.write_text(json.dumps({**shown, T1: [], "2011_000001": ["cat"]}))
    findings = diagnose(devkit, labels=path).findings
    assert findings == {"label missing": [T1], "label without photo": ["2011_000001"]}


def test_masks_of_sbd(devkit: Path) -> None:
    augmented = devkit / "SegmentationClassAug"
    shutil.copytree(devkit / "SegmentationClass", augmented)
    train = list_path(devkit, "trainaug").read_text().split()
    list_path(devkit, "train").write_text("\n".join(train[:6]))
    for name in train[6:]:
        mask_path(devkit, name).unlink()  # only SBD has them
    assert diagnose(devkit).healthy
    (augmented / f"{train[6]}.png").unlink()
    (augmented / f"{train[0]}.png").unlink()
    assert diagnose(devkit).findings["mask missing"] == [
        f"SegmentationClassAug/{train[0]}.png",
        f"SegmentationClass|SegmentationClassAug/{train[6]}.png",
    ]
    assert diagnose(devkit, truths=["SegmentationClass"]).healthy


def test_test_images_need_neither_masks_nor_labels(devkit: Path) -> None:
    shutil.copy(devkit / "JPEGImages" / f"{T1}.jpg", devkit / "JPEGImages" / "2009_000001.jpg")
    list_path(devkit, "test").write_text("2009_000001\n")
    assert diagnose(devkit).findings == {"same photo": [f"2009_000001: {T1}"]}


def test_grey_masks_are_noted(devkit: Path) -> None:
    Image.fromarray(read_mask(mask_path(devkit, T1))).save(mask_path(devkit, T1))
    report = diagnose(devkit)
    assert report.healthy
    assert report.notes[-1:] == ("1 masks are grey PNGs: every command reads them, but the VOC server would not",)


def test_classes_of_another_dataset(devkit: Path) -> None:
    assert diagnose(devkit, classes="10").findings.keys() >= {"mask values"}
    (devkit / "classes.txt").write_text("\n".join(["background", *(f"x{n}" for n in range(1, 21))]))
    (devkit / "labels.json").write_text(
        json.dumps({p.stem: [8, 10, 12, 17] for p in (devkit / "JPEGImages").iterdir()})
    )
    assert diagnose(devkit).healthy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truths": ["Masks"]}, r"Masks does not exist; correct `--truth`"),
        ({"labels": "none.csv"}, r"expected a label file at .*none\.csv, found none"),
        ({"classes": "none.txt"}, r"class list none\.txt does not exist"),
    ],
)
def test_bad_options_are_bad_input(devkit: Path, options: dict[str, Any], message: str) -> None:
    options = {key: devkit / value if key == "labels" else value for key, value in options.items()}
    with pytest.raises(InputError, match=message):
        diagnose(devkit, **options)


def test_no_devkit_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="should hold JPEGImages"):
        diagnose(tmp_path)


def test_every_check_can_be_made_to_fail() -> None:
    tested = {check for _, check, _ in BROKEN.values()} | {"overlap", "same photo", "label without photo", "count"}
    assert tested == set(CHECKS)


@pytest.mark.real
def test_real_photos_are_healthy(voc_animals: Path) -> None:
    report = diagnose(voc_animals, labels=voc_animals / "cls_labels.npy", num_workers=None)
    assert report.findings == {}
    assert report.splits == {"train": 370, "val": 200, "trainaug": 1300}
