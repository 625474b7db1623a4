import json
from _io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.score_maps import is_map, map_path, mask_path, read_map, write_map


def smooth_maps(height: int = 375, width: int = 500) -> np.ndarray:
    """Two CAM-like maps (blobs, zero elsewhere, from a stride of 16) and a background power."""
    rng = np.random.default_rng(0)
    cams = []
    for _ in range(2):
        cells = np.maximum(rng.standard_normal((max(3, height // 48), max(3, width // 48))), 0)
        coarse = Image.fromarray(cells.astype(np.float32)).resize((width // 16, height // 16), Image.Resampling.BICUBIC)
        cam = np.maximum(np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR)), 0)
        cams.append(cam / cam.max())
    return np.stack([(1 - np.maximum(*cams)) ** 4, *cams])


def test_scores_survive_to_the_promised_precision(tmp_path: Path) -> None:
    scores = smooth_maps(40, 60)
    write_map(tmp_path / "x.map.png", [0, 8, 12], scores)
    classes, back = read_map(tmp_path / "x.map.png")
    assert classes == [0, 8, 12]
    assert back.dtype == np.float32
    assert np.abs(back - scores).max() < 0.004
    small = scores < 1e-2
    assert np.abs(back - scores)[small].max() < 4.1e-4


def test_ends_and_the_smallest_step_are_exact(tmp_path: Path) -> None:
    scores = np.array([[[0.0, 1.0, 1 / 255**2, 0.25 * (254 / 255) ** 2]]])
    write_map(tmp_path / "x.map.png", [3], scores)
    np.testing.assert_allclose(read_map(tmp_path / "x.map.png")[1], scores, rtol=1e-6)


def test_file_is_as_documented(tmp_path: Path) -> None:
    scores = np.zeros((2, 3, 4), dtype=np.float32)
    scores[1, 2, 3] = (51 / 255) ** 2
    write_map(map_path(tmp_path, "img.v2"), [0, 8], scores)
    with Image.open(tmp_path / "img.v2.map.png") as image:
        assert (image.mode, image.size) == ("L", (4, 6))
        assert json.loads(image.info["ssdd-map"]) == {"version": 1, "classes": [0, 8]}
        assert np.array(image)[5, 3] == 51


def test_paths_tell_maps_from_masks(tmp_path: Path) -> None:
    assert is_map(map_path(tmp_path, "2007.1"))
    assert mask_path(tmp_path, "2007.1").name == "2007.1.png"
    assert not is_map(mask_path(tmp_path, "2007.1"))


def test_maps_of_a_voc_photo_are_compact(tmp_path: Path) -> None:
    write_map(tmp_path / "x.map.png", [0, 8, 12], smooth_maps())
    assert (tmp_path / "x.map.png").stat().st_size <= 150_000


@pytest.mark.parametrize(
    ("classes", "scores", "message"),
    [
        ([0, 8], np.full((2, 2, 2), np.nan), "scores in"),
        ([0, 8], np.full((2, 2, 2), 1.01), "scores in"),
        ([0, 8], np.full((2, 2, 2), -0.01), "scores in"),
        ([0, 8], np.zeros((2, 2, 2), int), "floats"),
        ([0, 8], np.zeros((3, 2, 2)), "expected 2 x height x width"),
        ([0], np.zeros((2, 2)), "height x width"),
        ([8, 0], np.zeros((2, 2, 2)), "ascending"),
        ([8, 8], np.zeros((2, 2, 2)), "ascending"),
        ([0, 255], np.zeros((2, 2, 2)), "254"),
        ([], np.zeros((0, 2, 2)), "ascending"),
    ],
)
def test_what_is_no_map_is_not_written(tmp_path: Path, classes: list[int], scores: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_map(tmp_path / "x.map.png", classes, scores)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_half_way_keeps_the_old_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.map.png"
    write_map(path, [0], np.ones((1, 4, 4)))
    before = path.read_bytes()

    def half(self: Image.Image, stream: BufferedWriter, **options: Any) -> None:
        stream.write(b"half")
        raise RuntimeError("power cut")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(RuntimeError, match="power cut"):
        write_map(path, [0], np.zeros((1, 4, 4)))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.map.png"]


def _png(path: Path, chunk: str | None, size: tuple[int, int] = (4, 6)) -> None:
    info = PngInfo()
    if chunk is not None:
        info.add_text("ssdd-map", chunk)
    Image.new("L", size).save(path, pnginfo=info)


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (None, "holds no score maps"),
        ("{", "it is damaged"),
        ("[1]", "it is damaged"),
        ('{"version": 2, "classes": [0]}', "version 2"),
        ('{"version": 1, "classes": [0, "8"]}', "ascending"),
        ('{"version": 1, "classes": {"0": 1}}', "ascending"),
        ('{"version": 1, "classes": [0, 1, 2, 3]}', "stack 4 channels"),
    ],
)
def test_foreign_files_are_refused_by_name(tmp_path: Path, chunk: str | None, message: str) -> None:
    _png(tmp_path / "x.map.png", chunk)
    with pytest.raises(InputError, match=rf"x\.map\.png.*{message}"):
        read_map(tmp_path / "x.map.png")


def test_damaged_and_missing_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.map.png"
    write_map(path, [0, 8, 12], smooth_maps())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cannot read score map .*x\.map\.png"):
        read_map(path)
    with pytest.raises(InputError, match=r"gone\.map\.png does not exist; run the stage"):
        read_map(tmp_path / "gone.map.png")
