import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.data.classes import VOC_CLASSES, ClassTable
from ssdd_lightning.data.labels import read_annotations, read_label_file
from ssdd_lightning.errors import InputError

VOC = ClassTable.select(VOC_CLASSES, None)
SMALL = ClassTable.select(["background", "cat", "dining table"], None)


def vector(*indices: int, length: int = 20) -> np.ndarray:
    value = np.zeros(length, dtype=np.float32)
    value[[index - 1 for index in indices]] = 1
    return value


def test_npy_with_text_and_integer_names(tmp_path: Path) -> None:
    path = tmp_path / "cls_labels.npy"
    content: Any = {"2007_000032": vector(1, 15), np.int32(2007000033): vector(8), 7: vector(20)}
    np.save(path, content)
    assert read_label_file(path, VOC) == {"2007_000032": (1, 15), "2007_000033": (8,), "7": (20,)}


@pytest.mark.parametrize(
    "value", [vector(1, length=80), np.full(20, 0.5), np.full(20, np.nan), "cat", np.ones((1, 20)), None]
)
def test_npy_of_another_dataset_is_refused(tmp_path: Path, value: object) -> None:
    np.save(tmp_path / "l.npy", {"a": value})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"l\.npy, image a: expected 20 values 0 or 1"):
        read_label_file(tmp_path / "l.npy", VOC)


def test_npy_without_dict_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", np.zeros((3, 20)))
    with pytest.raises(InputError, match=r"l\.npy holds a ndarray, expected a dict"):
        read_label_file(tmp_path / "l.npy", VOC)


def test_csv_and_json_agree(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("name,labels\na.jpg,cat;dining table\nb, 2 1\nc,\n")
    (tmp_path / "l.json").write_text(json.dumps({"a": ["cat", "dining table"], "b": [2, "1"], "c": []}))
    expected = {"a": (1, 2), "b": (1, 2), "c": ()}
    assert read_label_file(tmp_path / "l.csv", SMALL) == expected
    assert read_label_file(tmp_path / "l.json", SMALL) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", "a,cat\n", "header line"),
        ("l.csv", "", "header line"),
        ("l.csv", "name,labels\na,cat,dog\n", "two columns"),
        ("l.csv", "name,labels\na,horse\n", "names the class 'horse', expected one of cat"),
        ("l.csv", "name,labels\na,3\n", "index 1..2"),
        (
            "l.csv",
            "name,labels\na.jpg,cat\nb,dog\na,dog\n",
            "names image a 2 times; give all labels of an image in one",
        ),
        ("l.json", '{"x/a.jpg": ["cat"], "y/a.jpg": ["dog"]}', "names image a 2 times"),
        ("l.json", '{"a": ["cat"], "a": ["dog"]}', "names image a 2 times"),
        ("l.json", '{"a": {"cat": 1}}', "list of labels"),
        ("l.json", "{", "expected JSON"),
        ("l.json", "[1]", "one JSON object"),
        ("l.json", '{"a": "cat"}', "list of labels"),
        ("l.json", '{"a": [1.5]}', "names the class 1.5"),
        ("l.json", '{"a": [0]}', "names the class 0"),
        ("l.json", '{"a": [true]}', "names the class True"),
        ("l.txt", "", "expected a .npy, .csv or .json file"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_label_file(tmp_path / name, SMALL)
    assert name in str(caught.value)


def test_blanks_around_the_commas_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("name,labels\n a.jpg , cat\n")
    assert read_label_file(tmp_path / "l.csv", SMALL) == {"a": (1,)}


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv does not exist"):
        read_label_file(tmp_path / "gone.csv", VOC)


def test_annotations_count_objects_and_not_their_parts(devkit: Path) -> None:
    names = ["c_both", "d_bus"]
    assert read_annotations(devkit / "Annotations", names, VOC) == {"c_both": (8, 12), "d_bus": (6,)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation><object>", "cannot read annotation"),
        ("<annotation><object><name>unicorn</name></object></annotation>", "names the class 'unicorn'"),
        (
            '<!DOCTYPE a [<!ENTITY b "cat">]><a><object><name>&b;</name></object></a>',
            "cannot read annotation",
        ),
    ],
)
def test_bad_annotations_are_refused_by_name(devkit: Path, content: str, message: str) -> None:
    (devkit / "Annotations" / "a_cat.xml").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_annotations(devkit / "Annotations", ["a_cat"], VOC)
    assert "a_cat.xml" in str(caught.value)


def test_missing_annotations_are_refused(devkit: Path) -> None:
    with pytest.raises(InputError, match=r"e\.xml does not exist"):
        read_annotations(devkit / "Annotations", ["e"], VOC)
    with pytest.raises(InputError, match=r"give a label file"):
        read_annotations(devkit / "nowhere", ["e"], VOC)
