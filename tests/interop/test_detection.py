from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.interop.detection import detect_format, find_sources
from ssdd_lightning.storage.masks import write_mask
from ssdd_lightning.storage.score_maps import write_map

MAP = np.full((2, 3), 0.25, np.float32)
KINDS: dict[str, list[Any]] = {
    "psa-cam": [{0: MAP, 3: MAP}, {7: MAP}],
    "psa-aff": [{0: MAP, 3: 1 - MAP}, {0: 1 - MAP, 7: MAP}],
    "irn": [{"keys": np.array([1]), "cam": MAP[None]}],
    "arrays": [np.zeros((21, 2, 3)), np.zeros((21, 3, 3))],
}


def write(folder: Path, contents: list[Any]) -> None:
    for number, content in enumerate(contents):
        np.save(folder / f"{number}.npy", content, allow_pickle=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_tell_their_format(tmp_path: Path, kind: str) -> None:
    write(tmp_path, KINDS[kind])
    assert detect_format(tmp_path) == kind


def test_a_class_0_alone_is_no_background(tmp_path: Path) -> None:
    write(tmp_path, [{0: MAP, 3: MAP}, {0: MAP}])
    assert detect_format(tmp_path) == "psa-cam"


def test_masks_are_told_from_our_own_maps(tmp_path: Path) -> None:
    write_map(tmp_path / "a.map.png", [0, 1], np.zeros((2, 3, 4)))
    with pytest.raises(InputError, match=r"holds no \.png files to read as masks"):
        detect_format(tmp_path)
    write_mask(tmp_path / "b.png", np.zeros((3, 4), int))
    assert detect_format(tmp_path) == "masks"
    assert find_sources(tmp_path, "masks") == {"b": tmp_path / "b.png"}


def test_dicts_that_all_have_a_class_0_may_be_either(tmp_path: Path) -> None:
    write(tmp_path, [{0: MAP, 3: MAP}, {0: MAP, 7: MAP}])
    with pytest.raises(InputError, match="`--from psa-aff` or `--from psa-cam`"):
        detect_format(tmp_path)


def test_mixtures_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [KINDS["psa-cam"][0], KINDS["arrays"][0]])
    with pytest.raises(InputError, match="mixes the formats arrays, psa"):
        detect_format(tmp_path)
    write_mask(tmp_path / "b.png", np.zeros((3, 4), int))
    with pytest.raises(InputError, match=r"holds both \.png and \.npy files"):
        detect_format(tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, KINDS["irn"])
    np.savez(tmp_path / "0.npz", a=MAP)
    with pytest.raises(InputError, match=r"both 0\.npy and 0\.npz"):
        find_sources(tmp_path, "irn")
    with pytest.raises(InputError, match="nowhere does not exist"):
        find_sources(tmp_path / "nowhere", "irn")


@pytest.mark.parametrize(
    ("content", "message"),
    [({"cat": np.ones((3, 4))}, "'cat' is no class index"), ({2.0: np.ones((3, 4))}, r"2\.0 is no class index")],
)
def test_keys_that_are_no_class_indices_are_named(tmp_path: Path, content: Any, message: str) -> None:
    write(tmp_path, [content])
    with pytest.raises(InputError, match=rf"0\.npy: {message}"):
        detect_format(tmp_path)


def test_an_empty_dict_is_no_format(tmp_path: Path) -> None:
    write(tmp_path, [{}])
    with pytest.raises(InputError, match=r"0\.npy holds an empty dict"):
        detect_format(tmp_path)


def test_scores_beside_another_array_are_chosen_by_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", prob=np.ones((2, 3, 4)), mask=np.ones((3, 4)))
    assert detect_format(tmp_path) == "arrays"
