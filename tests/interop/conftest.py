"""Photos of odd names and sizes, and what tests write beside them."""

import json

import numpy as np
import pytest
from PIL import Image

SIZES = {"my cat": (24, 36), "a.b.c": (31, 20), "été": (24, 36)}
FILES = {"my cat": "my cat.jpg", "a.b.c": "a.b.c.JPEG", "été": "été.bmp"}
LABELS = {"my cat": (8,), "a.b.c": (8, 12), "été": (12,)}


@pytest.fixture
def photos(tmp_path):
    """Folder of three photos; `labels.json` with VOC's indices lies beside it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, file in FILES.items():
        Image.fromarray(rng.integers(0, 256, (*SIZES[name], 3), dtype=np.uint8)).save(folder / file)
    (tmp_path / "labels.json").write_text(json.dumps({name: list(shown) for name, shown in LABELS.items()}))
    return folder


@pytest.fixture
def scores():
    """Image name -> foreground class -> H x W float32 in [0, 1] with maximum 1, like PSA's activation maps."""
    rng = np.random.default_rng(1)
    maps = {name: {index: rng.random(SIZES[name], dtype=np.float32) for index in LABELS[name]} for name in LABELS}
    return {name: {index: cam / cam.max() for index, cam in cams.items()} for name, cams in maps.items()}
