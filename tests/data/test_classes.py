import pytest

from ssdd_lightning.data.classes import VOC_CLASSES, ClassTable
from ssdd_lightning.errors import InputError


def test_voc_has_its_places():
    assert len(VOC_CLASSES) == 21
    assert [VOC_CLASSES[index] for index in (0, 1, 8, 15, 20)] == [
        "background",
        "aeroplane",
        "cat",
        "person",
        "tvmonitor",
    ]
    assert list(VOC_CLASSES[1:]) == sorted(VOC_CLASSES[1:])


def test_a_choice_is_sorted_by_dataset_index():
    table = ClassTable.select(VOC_CLASSES, ["dog", "cat"])
    assert table.indices == (0, 8, 12)
    assert table.num_classes == 3
    assert table.selected_names == ["background", "cat", "dog"]
    lookup = table.to_network()
    assert [lookup[value] for value in (0, 8, 12, 15, 255)] == [0, 1, 2, 255, 255]


def test_no_choice_is_all():
    table = ClassTable.select(["background", "x", "y"], None)
    assert table.indices == (0, 1, 2)
    assert table.to_network().tolist() == [0, 1, 2] + [255] * 253


@pytest.mark.parametrize(
    ("wanted", "message"),
    [(["cta"], "'cta'"), (["background"], "background"), (["cat", "cat"], "different"), ([], "one")],
)
def test_a_bad_choice_is_refused(wanted, message):
    with pytest.raises(InputError, match=message):
        ClassTable.select(VOC_CLASSES, wanted)


def test_labels_are_found_by_name_and_index():
    table = ClassTable.select(VOC_CLASSES, ["cat"])
    assert [table.find(entry) for entry in ("dog", " dog ", "12", 12)] == [12] * 4
    assert [table.find(entry) for entry in ("background", 0, 21, -1, "x", "")] == [None] * 6
