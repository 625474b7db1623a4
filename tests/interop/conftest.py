"""Photos of odd names and sizes, and what tests write beside them."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.files import write_photo

SIZES = {"my cat": (24, 36), "a.b.c": (31, 20), "été": (24, 36)}
FILES = {"my cat": "my cat.jpg", "a.b.c": "a.b.c.JPEG", "été": "été.bmp"}
LABELS = {"my cat": (8,), "a.b.c": (8, 12), "été": (12,)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Folder of three photos; `labels.json` with VOC's indices lies beside it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, file in FILES.items():
        write_photo(folder / file, SIZES[name], rng)
    (tmp_path / "labels.json").write_text(json.dumps({name: list(shown) for name, shown in LABELS.items()}))
    return folder


@pytest.fixture
def scores() -> dict[str, dict[int, np.ndarray]]:
    """Image name -> foreground class -> H x W float32 in [0, 1] with maximum 1, like PSA's activation maps."""
    rng = np.random.default_rng(1)
    maps = {name: {index: rng.random(SIZES[name], dtype=np.float32) for index in LABELS[name]} for name in LABELS}
    return {name: {index: cam / cam.max() for index, cam in cams.items()} for name, cams in maps.items()}
