from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.advice import MAPPINGS, make_advice, unary_of
from ssdd_lightning.storage.masks import write_mask
from ssdd_lightning.storage.score_maps import map_path, read_map, write_map


def test_a_hard_mask_becomes_soft(tmp_path: Path) -> None:
    write_mask(tmp_path / "x.png", np.array([[0, 8, 12, 255, 3]]))
    unary = unary_of(tmp_path / "x.png", (8, 12))
    assert unary.dtype == np.float32
    np.testing.assert_allclose(unary[:, 0, 0], [0.7, 0.15, 0.15], rtol=1e-6)
    np.testing.assert_allclose(unary[:, 0, 2], [0.15, 0.15, 0.7], rtol=1e-6)
    np.testing.assert_allclose(unary[:, 0, 3:], 1 / 3, rtol=1e-6)  # ignored, and an absent class
    np.testing.assert_allclose(unary.sum(0), 1, rtol=1e-6)


def test_maps_keep_the_labelled_channels(tmp_path: Path) -> None:
    path = map_path(tmp_path, "x")
    write_map(path, [0, 8, 12], np.array([0.0, 0.25, 1.0])[:, None, None] * np.ones((3, 2, 2)))
    np.testing.assert_allclose(unary_of(path, (12,))[:, 0, 0], [0, 1])
    with pytest.raises(InputError, match=r"x\.map\.png lacks the classes \[3\]"):
        unary_of(path, (3, 8))


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_the_mapping_snaps_to_the_edges_of_the_photo(tmp_path: Path, mapping: str) -> None:
    photo = np.zeros((32, 48, 3), np.uint8)
    photo[:, 20:] = 230
    mask = np.zeros((32, 48), int)
    mask[:, 24:] = 8  # four columns too late
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo).save(tmp_path / "photos" / "my cat.png")
    write_mask(tmp_path / "K" / "my cat.png", mask)
    write_mask(tmp_path / "K" / "not asked for.png", mask)
    make_advice(mapping, tmp_path / "photos", tmp_path / "K", {"my cat": (8,)}, tmp_path / "A", "cpu")
    assert [path.name for path in (tmp_path / "A").glob("*.png")] == ["my cat.map.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["A", "K", "photos"]
    classes, scores = read_map(map_path(tmp_path / "A", "my cat"))
    assert classes == [0, 8]
    np.testing.assert_array_equal(scores.argmax(0), photo[..., 0] > 0)


def test_a_mask_of_another_size_than_its_photo_is_named(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (48, 32)).save(tmp_path / "photos" / "x.png")
    write_mask(tmp_path / "K" / "x.png", np.zeros((32, 40), int))
    with pytest.raises(InputError, match=r"K/x\.png is 40 x 32 pixels, its image .*photos/x\.png is 48 x 32"):
        make_advice("crf", tmp_path / "photos", tmp_path / "K", {"x": (8,)}, tmp_path / "A", "cpu")
