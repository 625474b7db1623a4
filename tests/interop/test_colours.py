from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdd_lightning.errors import InputError
from ssdd_lightning.interop.colours import read_any_mask
from ssdd_lightning.storage.masks import VOC_PALETTE, write_mask

MASK = np.array([[0, 8, 12], [255, 20, 254]], dtype=np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_of_the_palette_become_indices(tmp_path: Path, mode: str) -> None:
    Image.fromarray(VOC_PALETTE[MASK]).convert(mode).save(tmp_path / "x.png")
    assert read_any_mask(tmp_path / "x.png").tolist() == MASK.tolist()


def test_every_index_survives_its_colour(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(VOC_PALETTE[every]).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_any_mask(tmp_path / "x.png"), every)


def test_indices_stay_with_any_palette_of_their_own(tmp_path: Path) -> None:
    write_mask(tmp_path / "voc.png", MASK)
    Image.fromarray(MASK).save(tmp_path / "grey.png")
    own = Image.fromarray(MASK)
    own.putpalette([7, 77, 177] * 256)
    own.save(tmp_path / "own.png")
    for name in ("voc", "grey", "own"):
        assert read_any_mask(tmp_path / f"{name}.png").tolist() == MASK.tolist(), name


def test_a_palette_that_a_tool_has_re_ordered_is_refused(tmp_path: Path) -> None:
    shrunk = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    shrunk.putpalette(VOC_PALETTE[[0, 8, 12]].tobytes())
    shrunk.save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"x\.png gives the value 1 the VOC colour of 8"):
        read_any_mask(tmp_path / "x.png")


def test_other_colours_and_damage_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    with pytest.raises(InputError, match="does not exist"):
        read_any_mask(path)
    Image.fromarray(np.full((2, 2, 3), 255, np.uint8)).save(path)
    with pytest.raises(InputError, match=r"x\.png holds the colour \(255, 255, 255\).*100\.0%"):
        read_any_mask(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"cannot read mask .*x\.png"):
        read_any_mask(path)
