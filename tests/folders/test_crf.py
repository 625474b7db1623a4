import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssdd_lightning.crf import CRFOptions
from ssdd_lightning.crf.inference import dense_crf
from ssdd_lightning.errors import InputError
from ssdd_lightning.folders.crf import CRFJob
from ssdd_lightning.storage.masks import read_mask
from ssdd_lightning.storage.score_maps import map_path, read_map, write_map
from tests.helpers.files import write_photo


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Five images of differing sizes (one a .png) with maps of differing classes."""
    images, maps = tmp_path / "images", tmp_path / "maps"
    images.mkdir()
    generator = np.random.default_rng(0)
    for i in range(5):
        height, width = 20 + i, 31 - i
        write_photo(images / f"im{i}.{'png' if i == 4 else 'jpg'}", (height, width), generator)
        classes = [0, 8, 12][: 2 + i % 2]
        scores = generator.random((len(classes), height, width))
        scores[:, :3, :3] = 0  # undecided
        write_map(map_path(maps, f"im{i}"), classes, scores)
    return images, maps, tmp_path / "out"


def refine(
    folders: tuple[Path, Path, Path], num_workers: int | None = None, preset: str = "psa", **options: Any
) -> int:
    return CRFJob(*folders, **{"crf": CRFOptions(preset), **options}).run(num_workers, progress=False)


def test_writes_the_crf_of_every_map(folders: tuple[Path, Path, Path]) -> None:
    images, maps, out = folders
    assert refine(folders, preset="mctformer", iterations=3, write="both", num_workers=3) == 5
    for i in range(5):
        classes, scores = read_map(map_path(maps, f"im{i}"))
        scores = scores / np.maximum(scores.sum(0), 1e-12)
        scores[:, :3, :3] = 1 / len(classes)
        image = np.array(Image.open(next(images.glob(f"im{i}.*"))))
        expected = dense_crf(
            torch.from_numpy(image).permute(2, 0, 1)[None],
            torch.from_numpy(scores.astype(np.float32))[None],
            iterations=3,
            preset="mctformer",
        )[0].numpy()
        found_classes, found = read_map(map_path(out, f"im{i}"))
        assert found_classes == classes
        assert np.abs(found - expected).max() < 0.005
        assert (read_mask(out / f"im{i}.png") == np.array(classes)[expected.argmax(0)]).all()


@pytest.mark.parametrize(("write", "suffix"), [("maps", ".map.png"), ("masks", ".png")])
def test_writes_what_is_asked_for_only(folders: tuple[Path, Path, Path], write: str, suffix: str) -> None:
    refine(folders, write=write)
    assert {p.name for p in folders[2].iterdir()} == {f"im{i}{suffix}" for i in range(5)} | {
        "crf.json",
        "crf.items.jsonl",
    }


def crf_input(path: Path, alpha: float) -> np.ndarray:
    """What the CRF should see of a map for a background exponent: foreground as stored, normalised."""
    classes, scores = read_map(path)
    foreground = scores[1:] if classes[0] == 0 else scores
    scores = np.concatenate(((1 - foreground.max(0, keepdims=True)) ** alpha, foreground))
    return scores / np.maximum(scores.sum(0), 1e-12)


@pytest.mark.parametrize("alpha", [4.0, 32.0])
def test_background_can_be_scored_anew(folders: tuple[Path, Path, Path], alpha: float) -> None:
    images, maps, out = folders
    write_map(map_path(maps, "im0"), [8, 12], np.random.default_rng(1).random((2, 20, 31)))  # no background at all
    refine(folders, background_alpha=alpha, iterations=2)
    for i in range(5):
        classes, found = read_map(map_path(out, f"im{i}"))
        assert classes == ([0, 8, 12] if i % 2 or not i else [0, 8])
        image = np.array(Image.open(next(images.glob(f"im{i}.*"))))
        expected = dense_crf(
            torch.from_numpy(image).permute(2, 0, 1)[None],
            torch.from_numpy(crf_input(map_path(maps, f"im{i}"), alpha).astype(np.float32))[None],
            iterations=2,
        )[0].numpy()
        assert np.abs(found - expected).max() < 0.005
    assert json.loads((out / "crf.json").read_text())["settings"]["background_alpha"] == alpha


def test_background_exponents_are_not_mixed(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    refine(folders, background_alpha=4)
    assert refine(folders, background_alpha=4) == 0
    assert refine(folders, background_alpha=32) == 5
    assert "because background_alpha was 4 and is 32." in capsys.readouterr().out


def test_background_cannot_be_scored_without_a_class(folders: tuple[Path, Path, Path]) -> None:
    write_map(map_path(folders[1], "im3"), [0], np.full((1, 23, 28), 0.5))
    with pytest.raises(InputError, match=r"im3\.map\.png holds only background"):
        refine(folders, background_alpha=4)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_a_wrong_background_exponent_is_refused(folders: tuple[Path, Path, Path], alpha: float) -> None:
    with pytest.raises(InputError, match="exponent must be more than 0"):
        refine(folders, background_alpha=alpha)
    assert not folders[2].exists()


def test_goes_on_where_it_stopped(folders: tuple[Path, Path, Path]) -> None:
    out = folders[2]
    refine(folders)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.map.png")}
    map_path(out, "im1").unlink()
    map_path(out, "im2").write_bytes(map_path(out, "im2").read_bytes()[:100])  # cut off
    write_map(map_path(folders[1], "im3"), [0, 8], np.full((2, 23, 28), 0.5))  # another map
    assert refine(folders) == 3
    assert refine(folders) == 0
    for name in ("im0", "im4"):
        assert map_path(out, name).stat().st_mtime_ns == kept[map_path(out, name)]


def test_another_setting_makes_all_anew_and_says_so(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    refine(folders, preset="psa")
    assert refine(folders, crf=CRFOptions("deeplab", 3, 3, 80, 13, 10)) == 0
    assert capsys.readouterr().out == f"crf: finished in {folders[2]}, nothing to do.\n"
    assert refine(folders, preset="dupl") == 5
    assert "crf: redone in " in capsys.readouterr().out
    assert refine(folders, preset="dupl", iterations=3) == 5
    assert capsys.readouterr().out.endswith("because iterations was 10 and is 3.\n")


def test_missing_image_is_found_before_any_work(folders: tuple[Path, Path, Path]) -> None:
    (folders[0] / "im3.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 5 score maps have no image: .*im3.jpg does not exist"):
        refine(folders)
    assert not folders[2].exists()


def test_map_of_another_size_is_named(folders: tuple[Path, Path, Path]) -> None:
    write_map(map_path(folders[1], "im2"), [0, 1], np.full((2, 5, 6), 0.5))
    with pytest.raises(InputError, match=r"im2.map.png is 6 x 5 pixels, its image .*im2.jpg is 29 x 22"):
        refine(folders, num_workers=1)
    assert not map_path(folders[2], "im2").exists()


@pytest.mark.parametrize("kind", ["image", "map"])
def test_damaged_file_is_named_and_leaves_nothing_half_written(folders: tuple[Path, Path, Path], kind: str) -> None:
    path = folders[0] / "im1.jpg" if kind == "image" else map_path(folders[1], "im1")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=path.name):
        refine(folders)
    assert not [p for p in folders[2].iterdir() if p.suffix == ".tmp"]


def test_bad_folders_and_options(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    images, maps, out = folders
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        ((images, tmp_path / "no", out), "folder of score maps .*no does not exist"),
        ((tmp_path / "no", maps, out), "folder of images .*no does not exist"),
        ((images, tmp_path / "empty", out), "holds no score maps"),
        ((images, maps, maps), "overwrite its own input"),
    ]:
        with pytest.raises(InputError, match=message):
            CRFJob(*arguments).run()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"write": "png"}, "choose one of maps, masks, both"),
        ({"num_workers": 0}, "must be 1 or more"),
        ({"device": "cray"}, "cannot run on device 'cray'"),
        ({"iterations": -1}, "iterations"),
        ({"preset": "x"}, "unknown CRF preset"),
    ]
    for options, message in wrong:
        with pytest.raises(InputError, match=message):
            refine(folders, **options)
    assert not out.exists()
