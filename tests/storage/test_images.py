from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.images import find_images, image_size


def test_photos_of_any_name_are_found(tmp_path: Path) -> None:
    names = ["my cat.jpg", "a.b.c.JPEG", "été.png", "plain.bmp"]
    for name in [*names, ".hidden.jpg", "notes.txt"]:
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    assert {name: path.name for name, path in find_images(tmp_path).items()} == {
        "a.b.c": "a.b.c.JPEG",
        "my cat": "my cat.jpg",
        "plain": "plain.bmp",
        "été": "été.png",
    }


def test_a_mask_beside_its_photo_is_no_photo(tmp_path: Path) -> None:
    for name in ("x.png", "x.jpg"):
        (tmp_path / name).touch()
    assert find_images(tmp_path) == {"x": tmp_path / "x.jpg"}


def test_missing_folders_and_empty_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no images; expected \.jpg"):
        find_images(tmp_path)


def test_size_comes_without_decoding(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((5, 9, 3), np.uint8)).save(tmp_path / "x.png")
    assert image_size(tmp_path / "x.png") == (5, 9)
    (tmp_path / "y.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cannot read image .*y\.png"):
        image_size(tmp_path / "y.png")
