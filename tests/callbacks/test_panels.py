from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssdd_lightning.callbacks.panels import heat, overlay, panel, write_panel
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.masks import LIGHT_PALETTE


def row(height: int = 60, width: int = 80, mask: tuple[int, int] = (15, 20), **entries: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    masks = {key: rng.choice([0, 8, 255], size=mask) for key in ("knowledge", "advice", "refined", "truth")}
    maps = {key: rng.random(mask) for key in ("d_knowledge", "d_advice")}
    return {"image": np.full((height, width, 3), (200, 100, 50), np.uint8)} | masks | maps | entries


def test_overlay_tints_classes_dims_background_and_hatches_ignored_pixels() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 20:40] = 8
    mask[:, 40:] = 255
    drawn = overlay(image, mask).astype(int)
    assert drawn[10, 30].tolist() == np.rint(35 + 0.65 * LIGHT_PALETTE[8]).tolist()
    assert drawn[10, 5].tolist() == [80, 80, 80]
    assert (drawn[10, [19, 39]] == 255).all()  # outlines
    ignored = np.unique(drawn[:-1, 45:-1])
    assert len(ignored) == 2
    assert ignored.min() > 150


def test_all_colours_differ_as_those_of_voc_do() -> None:
    assert len(np.unique(LIGHT_PALETTE, axis=0)) == 256
    assert LIGHT_PALETTE[0].tolist() == [0, 0, 0]


def test_heat_grows_from_dark_to_light() -> None:
    colours = heat(np.array([0, 0.5, 1, -3, 3, np.nan])).astype(int)
    assert colours[:3].sum(axis=1).tolist() == sorted(colours[:3].sum(axis=1))
    assert colours[3].tolist() == colours[5].tolist() == colours[0].tolist()
    assert colours[4].tolist() == colours[2].tolist()


def test_panel_has_a_column_for_each_kind_and_a_row_for_each_image() -> None:
    one, two = panel([row()], width=100), panel([row(), row()], width=100)
    assert one.dtype == np.uint8
    assert one.shape[1] == 7 * 106 + 6
    assert two.shape[0] - one.shape[0] == 75 + 6
    for column in range(7):  # something drawn in every column
        assert (two[60:90, 6 + column * 106 : 100 + column * 106] != 255).any()


def test_columns_nobody_has_are_left_out_and_gaps_stay_empty() -> None:
    short = {"image": row()["image"], "knowledge": row()["knowledge"]}
    assert panel([short], width=100).shape[1] == 2 * 106 + 6
    mixed = panel([row(), short], width=100)
    assert mixed.shape[1] == 7 * 106 + 6


def test_sizes_and_shapes_may_differ() -> None:
    wide, tall = row(40, 200), row(300, 30, mask=(75, 7))
    assert panel([wide, tall], width=100).shape[1] == 7 * 106 + 6


def test_the_legend_names_what_is_shown() -> None:
    known, unknown = panel([row()], {8: "cat"}), panel([row()])
    assert known.shape == unknown.shape
    assert (known[:-30] == unknown[:-30]).all()
    assert (known[-30:] != unknown[-30:]).any()


def test_a_long_legend_takes_more_lines() -> None:
    many = np.arange(240, dtype=np.uint8).reshape(15, 16)
    assert panel([row(knowledge=many)]).shape[0] > panel([row()]).shape[0] + 100


@pytest.mark.parametrize("rows", [[], [{"knowledge": np.zeros((2, 2))}]])
def test_needs_images(rows: list[dict[str, np.ndarray]]) -> None:
    with pytest.raises(InputError, match="needs at least one row, and an image"):
        panel(rows)


def test_writes_png(tmp_path: Path) -> None:
    write_panel(tmp_path / "new" / "panel.png", [row()], {8: "cat"})
    assert (np.array(Image.open(tmp_path / "new" / "panel.png")) == panel([row()], {8: "cat"})).all()
