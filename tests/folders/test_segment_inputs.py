from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdd_lightning.errors import InputError
from ssdd_lightning.folders.segment_inputs import find_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a/1.jpg", "a/2.PNG", "a/b/3.jpeg", "c/4 [x].jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no photo")
    return tmp_path


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (["a"], ["1", "2"]),
        (["a/1.jpg"], ["1"]),
        (["a/*"], ["1", "2"]),
        (["a/**/*.jp*g"], ["1", "3"]),
        (["c/4 [x].jpg"], ["4 [x]"]),
        (["c", "a/b", "a/b/3.jpeg"], ["3", "4 [x]"]),
    ],
)
def test_files_folders_and_patterns(photos: Path, inputs: list[str], names: list[str]) -> None:
    found = find_photos([str(photos / text) for text in inputs])
    assert list(found) == names
    assert all(path.stem == name and path.is_file() for name, path in found.items())


@pytest.mark.parametrize("text", ["nowhere", "a/*.txt", "a/[", "a/b/none*.jpg"])
def test_nothing_found(photos: Path, text: str) -> None:
    with pytest.raises(InputError, match="found no photo at"):
        find_photos([str(photos / text)])


def test_two_photos_of_one_name(photos: Path) -> None:
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(photos / "c" / "1.jpg")
    with pytest.raises(InputError, match=r"a/1\.jpg and .*c/1\.jpg would both be written as 1\.png"):
        find_photos([str(photos / "a"), str(photos / "c")])
