from pathlib import Path

import numpy as np
import pytest

from ssdd_lightning.data.classes import VOC_CLASSES, ClassTable
from ssdd_lightning.data.guides import find_guide, guide_to_mask, read_guides, read_scores
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.masks import write_mask
from ssdd_lightning.storage.score_maps import map_path, mask_path, write_map

PETS = ClassTable.select(VOC_CLASSES, ["cat", "dog"])


def test_a_mask_comes_in_network_indices_and_absent_classes_are_ignored(tmp_path: Path) -> None:
    write_mask(tmp_path / "x.png", np.array([[0, 8, 12, 15, 255]]))
    guides = read_guides({"knowledge": tmp_path / "x.png"}, PETS, [12])
    assert guides["knowledge"].tolist() == [[0, 255, 2, 255, 255]]


def test_maps_keep_present_channels_only(tmp_path: Path) -> None:
    scores = np.stack([np.full((2, 3), value) for value in (0.1, 0.9, 0.4, 0.8)])
    write_map(tmp_path / "x.map.png", [0, 8, 12, 15], scores)
    guide = read_guides({"advice": tmp_path / "x.map.png"}, PETS, [12])["advice"]
    assert guide.shape == (2, 3, 2)
    np.testing.assert_allclose(guide[0, 0], [0.1, 0.4], atol=4e-3)
    mask = guide_to_mask(guide, PETS.to_network()[[0, 12]])
    assert (mask == 2).all()
    assert mask.dtype == np.uint8


def test_maps_and_masks_may_meet(tmp_path: Path) -> None:
    write_map(tmp_path / "x.map.png", [0, 8], np.ones((2, 2, 2)))
    write_mask(tmp_path / "y.png", np.zeros((2, 2), int))
    guides = read_guides({"knowledge": tmp_path / "x.map.png", "advice": tmp_path / "y.png"}, PETS, [8])
    assert (guides["knowledge"].ndim, guides["advice"].ndim) == (3, 2)


def test_knowledge_and_advice_of_two_origins_may_hold_other_classes_than_the_labelled_ones(tmp_path: Path) -> None:
    write_map(tmp_path / "k.map.png", [0, 8], np.ones((2, 2, 2)))
    write_map(tmp_path / "a.map.png", [0, 8, 12], np.ones((3, 2, 2)))
    guides = read_guides({"knowledge": tmp_path / "k.map.png", "advice": tmp_path / "a.map.png"}, PETS, [8])
    assert guides["knowledge"].shape == guides["advice"].shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([8, 12], "lacks background"),
        ([0, 8], "lacks dog"),
        ([0, 8, 12, 21], "holds class 21, the dataset has 0..20"),
    ],
)
def test_maps_with_wrong_classes_are_refused(tmp_path: Path, classes: list[int], message: str) -> None:
    write_map(tmp_path / "k.map.png", classes, np.ones((len(classes), 2, 2)))
    with pytest.raises(InputError, match=rf"k\.map\.png .*{message}"):
        read_guides({"knowledge": tmp_path / "k.map.png"}, PETS, [8, 12])


def test_masks_with_values_out_of_range_are_refused(tmp_path: Path) -> None:
    write_mask(tmp_path / "k.png", np.array([[0, 8, 21, 254]]))
    with pytest.raises(InputError, match=r"k\.png holds the value 21, expected class indices 0\.\.20 or 255"):
        read_guides({"knowledge": tmp_path / "k.png"}, PETS, [8])


def test_files_are_found_and_ambiguity_is_refused(tmp_path: Path) -> None:
    write_mask(mask_path(tmp_path, "m"), np.zeros((2, 2), int))
    write_map(map_path(tmp_path, "p"), [0], np.ones((1, 2, 2)))
    assert find_guide(tmp_path, "m", "advice").name == "m.png"
    assert find_guide(tmp_path, "p", "advice").name == "p.map.png"
    write_mask(mask_path(tmp_path, "p"), np.zeros((2, 2), int))
    with pytest.raises(InputError, match=r"advice: both .*p\.map\.png and p\.png exist"):
        find_guide(tmp_path, "p", "advice")


def test_scores_have_a_channel_for_every_network_output(tmp_path: Path) -> None:
    stored = np.stack([np.full((2, 3), value) for value in (0.1, 0.9, 0.4, 0.8)])
    write_map(tmp_path / "x.map.png", [0, 8, 12, 15], stored)
    scores = read_scores(tmp_path / "x.map.png", PETS, [12])
    assert scores.shape == (3, 2, 3)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[:, 0, 0], [0.1, 0, 0.4], atol=4e-3)


def test_scores_without_a_present_class_are_refused(tmp_path: Path) -> None:
    write_map(tmp_path / "x.map.png", [0, 8], np.ones((2, 2, 2)))
    with pytest.raises(InputError, match=r"x\.map\.png holds the classes \[0, 8\] and lacks dog"):
        read_scores(tmp_path / "x.map.png", PETS, [8, 12])
