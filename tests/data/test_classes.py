from pathlib import Path

import pytest

from ssdd_lightning.data.classes import VOC_CLASSES, ClassTable, class_table
from ssdd_lightning.errors import InputError


def test_voc_has_its_places() -> None:
    assert len(VOC_CLASSES) == 21
    assert [VOC_CLASSES[index] for index in (0, 1, 8, 15, 20)] == [
        "background",
        "aeroplane",
        "cat",
        "person",
        "tvmonitor",
    ]
    assert list(VOC_CLASSES[1:]) == sorted(VOC_CLASSES[1:])


def test_a_choice_is_sorted_by_dataset_index() -> None:
    table = ClassTable.select(VOC_CLASSES, ["dog", "cat"])
    assert table.indices == (0, 8, 12)
    assert table.num_classes == 3
    assert table.selected_names == ["background", "cat", "dog"]
    lookup = table.to_network()
    assert [lookup[value] for value in (0, 8, 12, 15, 255)] == [0, 1, 2, 255, 255]


def test_no_choice_is_all() -> None:
    table = ClassTable.select(["background", "x", "y"], None)
    assert table.indices == (0, 1, 2)
    assert table.to_network().tolist() == [0, 1, 2] + [255] * 253


@pytest.mark.parametrize(
    ("wanted", "message"),
    [(["cta"], "'cta'"), (["background"], "background"), (["cat", "cat"], "different"), ([], "one")],
)
def test_a_bad_choice_is_refused(wanted: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassTable.select(VOC_CLASSES, wanted)


def test_labels_are_found_by_name_and_index() -> None:
    table = ClassTable.select(VOC_CLASSES, ["cat"])
    assert [table.find(entry) for entry in ("dog", " dog ", "12", 12)] == [12] * 4
    assert [table.find(entry) for entry in ("background", 0, 21, -1, "x", "")] == [None] * 6


def test_own_classes_by_file_or_number(tmp_path: Path) -> None:
    assert class_table("3").names == ("background", "class 1", "class 2")
    (tmp_path / "names.txt").write_text("background\nauk\nkea\n")
    assert class_table(tmp_path / "names.txt").selected_names == ["background", "auk", "kea"]
    (tmp_path / "sparse.json").write_text('{"0": "background", "4": "kea"}')
    sparse = class_table(tmp_path / "sparse.json")
    assert (len(sparse.names), sparse.indices, sparse.names[4]) == (5, (0, 4), "kea")


@pytest.mark.parametrize(
    "content", ["background", "background\nx\nx", '{"0": "b", "255": "x"}', '{"-1": "x"}', "1", ""]
)
def test_wrong_class_lists_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "names.txt").write_text(content)
    with pytest.raises(InputError, match="at least one class more"):
        class_table(tmp_path / "names.txt")


@pytest.mark.parametrize("number", ["0", "1", "256"])
def test_wrong_numbers_of_classes_are_refused(number: str) -> None:
    with pytest.raises(InputError, match=f"expected 2 to 255 classes, background included, found {number}"):
        class_table(number)
