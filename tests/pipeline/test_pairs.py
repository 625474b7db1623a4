from pathlib import Path

import numpy as np
import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.pairs import complete_names, shown_labels
from ssdd_lightning.storage.masks import write_mask
from ssdd_lightning.storage.score_maps import map_path, write_map

GUIDES = ["knowledge", "advice"]


def test_images_that_no_guide_names_are_left_out_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    parts = {"image": {"a", "b", "c"}, "knowledge": {"a", "b"}, "advice": {"b", "a"}, "label": {"a", "b", "d"}}
    assert complete_names(parts, GUIDES, skip_missing=False) == ["a", "b"]
    assert capsys.readouterr().out == ""


def test_what_is_missing_is_listed_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    many = {f"n{number}" for number in range(7)}
    parts = {"image": {"a", *many}, "knowledge": {"a", "b"}, "advice": {"a", *many}}
    message = (
        r"8 of 9 images are incomplete: 1 without image \(b\); 7 without knowledge \(n0, n1, n2, n3, n4, \.\.\.\); "
        r"1 without advice \(b\)"
    )
    with pytest.raises(InputError, match=message + r".*`--skip-missing`"):
        complete_names(parts, GUIDES, skip_missing=False)
    assert complete_names(parts, GUIDES, skip_missing=True) == ["a"]
    assert "8 of 9 images are incomplete" in capsys.readouterr().out


@pytest.mark.parametrize("skip", [True, False])
def test_folders_that_share_nothing_are_refused_always(skip: bool) -> None:
    parts = {"image": {"a", "b"}, "knowledge": {"a"}, "advice": {"b"}}
    with pytest.raises(InputError, match="none is left; check that the folders belong together"):
        complete_names(parts, GUIDES, skip_missing=skip)


def test_labels_by_what_masks_and_maps_show(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.png", np.array([[0, 3, 255], [7, 3, 0]]))
    scores = np.zeros((3, 1, 2))
    scores[0] = 0.5
    scores[2, 0, 1] = 0.9  # class 5 is never the largest
    write_map(map_path(tmp_path, "map"), [0, 5, 6], scores)
    write_mask(tmp_path / "nothing.png", np.zeros((2, 2), int))
    found = shown_labels(tmp_path, ["mask", "map", "nothing"], progress=False)
    assert found == {"mask": (3, 7), "map": (6,), "nothing": ()}
