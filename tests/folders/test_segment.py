"""`ssdd segment` as a user runs it."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssdd_lightning.cli.main import main
from ssdd_lightning.data.classes import VOC
from ssdd_lightning.errors import InputError
from ssdd_lightning.folders import segment as segmenting
from ssdd_lightning.folders.segment import SegmentJob
from ssdd_lightning.folders.segment_checkpoint import load_stage
from ssdd_lightning.pipeline.lightning import run_command
from ssdd_lightning.stages.segmentation import SegmentationStage
from ssdd_lightning.storage.masks import VOC_PALETTE, read_image, read_mask, write_mask


@pytest.fixture
def photos(tiny_devkit: Path, tmp_path: Path) -> Path:
    """Four photos of the devkit, one of another size."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted((tiny_devkit / "VOCdevkit" / "VOC2012" / "JPEGImages").glob("2007_*"))[:4]:
        Image.open(path).save(folder / f"{path.stem}.png")
    Image.open(path).resize((90, 50)).save(folder / f"{path.stem}.png")
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """How many images were segmented."""
    seen: list[torch.Size] = []
    original = SegmentationStage.segment
    monkeypatch.setattr(
        SegmentationStage,
        "segment",
        lambda self, image, *rest: seen.append(image.shape) or original(self, image, *rest),
    )
    return seen


@pytest.fixture
def segment(checkpoint: Path, tmp_path: Path) -> Callable[..., int]:
    def run(*words: object, ckpt: Path = checkpoint) -> int:
        return main(["segment", str(ckpt), *map(str, words), "--out", str(tmp_path / "out"), "--device", "cpu"])

    return run


def test_a_folder(
    segment: Callable[..., int], photos: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(photos) == 0
    assert "Image-level labels were not used." in capsys.readouterr().out
    stage, _ = load_stage(checkpoint, torch.device("cpu"))
    shown = set()
    for path in photos.iterdir():
        image = read_image(path)
        mask = read_mask(tmp_path / "out" / path.name)
        expected = stage.segment(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
        np.testing.assert_array_equal(mask, np.array([0, 8, 12])[expected])
        shown |= set(np.unique(mask).tolist())
        with Image.open(tmp_path / "out" / path.name) as written:
            assert written.getpalette() == VOC_PALETTE.ravel().tolist()
    assert shown == {0, 8, 12}
    assert not (tmp_path / "out" / "overlays").exists()


def test_the_same_masks_as_the_test_of_the_dataset(
    trained: dict[str, Path], segment: Callable[..., int], tiny_devkit: Path, tmp_path: Path
) -> None:
    config, ckpt = trained["config of SegmentationModule"], trained["SegmentationModule"]
    run_command(["test", f"--config={config}", f"--ckpt_path={ckpt}", f"--trainer.default_root_dir={tmp_path / 'run'}"])
    segment(tiny_devkit / "VOCdevkit" / "VOC2012" / "JPEGImages")
    masks = sorted((tmp_path / "run" / "test").glob("*.png"))
    assert masks
    for path in masks:
        np.testing.assert_array_equal(read_mask(path), read_mask(tmp_path / "out" / path.name))


def test_labels_restrict_the_classes_and_the_record_says_so(
    segment: Callable[..., int], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(path.stem for path in photos.iterdir())
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({name: ["dog"] if name != names[0] else [] for name in names}))
    segment(photos, "--labels", labels)
    assert f"Image-level labels were used: only the classes that {labels} names" in capsys.readouterr().out
    assert not read_mask(tmp_path / "out" / f"{names[0]}.png").any()
    assert all(set(np.unique(read_mask(tmp_path / "out" / f"{name}.png"))) <= {0, 12} for name in names)
    record = json.loads((tmp_path / "out" / "segment.json").read_text())
    settings = record["settings"]
    assert settings["image_labels"] is True
    assert list(record["inputs"]) == ["the checkpoint"]
    assert (settings["scales"], settings["flip"], settings["crf"]) == ([0.5, 1.0], True, None)
    assert settings["classes"] == {"0": "background", "8": "cat", "12": "dog"}


def test_labels_that_the_network_did_not_learn_are_counted(
    segment: Callable[..., int], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(path.stem for path in photos.iterdir())
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({name: ["dog"] if name != names[0] else ["sheep"] for name in names}))
    segment(photos, "--labels", labels)
    assert f"1 photos, such as {names[0]}, have labels that this network did not learn" in capsys.readouterr().out


def test_a_label_vector_of_the_whole_dataset_is_understood(
    segment: Callable[..., int], photos: Path, tmp_path: Path
) -> None:
    vectors: Any = {path.stem: np.eye(20)[11] for path in photos.iterdir()}
    np.save(tmp_path / "labels.npy", vectors)
    segment(photos, "--labels", tmp_path / "labels.npy")
    assert all(set(np.unique(read_mask(path))) <= {0, 12} for path in (tmp_path / "out").glob("*.png"))


def test_resumes(
    segment: Callable[..., int],
    photos: Path,
    tmp_path: Path,
    calls: list[torch.Size],
    capsys: pytest.CaptureFixture[str],
) -> None:
    segment(photos)
    assert len(calls) == 4
    masks = sorted((tmp_path / "out").glob("*.png"))
    masks[0].unlink()
    masks[1].write_bytes(masks[1].read_bytes()[:60])
    photo = photos / masks[2].name
    Image.fromarray(255 - read_image(photo)).save(photo)
    segment(photos)
    assert len(calls) == 4 + 3
    assert "holds 4 masks" in capsys.readouterr().out.splitlines()[-2]
    assert (tmp_path / "out" / "segment.json").is_file()


def test_another_setting_makes_all_masks_anew_and_says_so(
    segment: Callable[..., int],
    photos: Path,
    tmp_path: Path,
    calls: list[torch.Size],
    capsys: pytest.CaptureFixture[str],
) -> None:
    segment(photos)
    for words, reason in (
        (["--scales", "1"], "scales was [0.5, 1.0] and is [1.0]"),
        (["--scales", "1", "--max_side", "40"], "max_side was null and is 40"),
    ):
        calls.clear()
        segment(photos, *words)
        assert len(calls) == 4
        said = [line for line in capsys.readouterr().out.splitlines() if "redone" in line]
        assert said == [f"segment: redone in {tmp_path / 'out'}, because {reason}."]


def test_other_labels_of_one_photo_make_its_mask_anew(
    segment: Callable[..., int], photos: Path, tmp_path: Path, calls: list[torch.Size]
) -> None:
    names = sorted(path.stem for path in photos.iterdir())
    labels = tmp_path / "labels.json"
    for shown in ("dog", "cat"):
        labels.write_text(json.dumps({name: ["dog"] for name in names} | {names[0]: [shown]}))
        segment(photos, "--labels", labels)
    assert len(calls) == 4 + 1


def test_overlays_can_be_added_without_the_network(
    segment: Callable[..., int], photos: Path, tmp_path: Path, calls: list[torch.Size]
) -> None:
    segment(photos)
    segment(photos, "--overlays")
    assert len(calls) == 4
    for path in photos.iterdir():
        with Image.open(path) as photo, Image.open(tmp_path / "out" / "overlays" / f"{path.stem}.jpg") as drawn:
            assert photo.size == drawn.size


def test_overlays_follow_their_masks_and_photos(
    segment: Callable[..., int], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segment(photos, "--overlays")
    before = {path.stem: path.stat().st_mtime_ns for path in (tmp_path / "out" / "overlays").glob("*.jpg")}
    segment(photos, "--overlays")
    assert f"overlays: finished in {tmp_path / 'out' / 'overlays'}, nothing to do." in capsys.readouterr().out
    names = sorted(before)
    Image.fromarray(255 - read_image(photos / f"{names[0]}.png")).save(photos / f"{names[0]}.png")
    (tmp_path / "out" / "overlays" / f"{names[1]}.jpg").write_bytes(b"half")
    segment(photos, "--overlays")
    after = {path.stem: path.stat().st_mtime_ns for path in (tmp_path / "out" / "overlays").glob("*.jpg")}
    assert [name for name in names if before[name] != after[name]] == names[:2]
    assert f"overlays: 2 made again in {tmp_path / 'out' / 'overlays'}" in capsys.readouterr().out


def test_protocol_and_size_of_large_photos(
    segment: Callable[..., int], photos: Path, tmp_path: Path, calls: list[torch.Size]
) -> None:
    segment(photos, "--scales", "1", "--no-flip", "--crf", "--max_side", "40")
    assert {max(shape) for shape in calls} == {40}
    for path in photos.iterdir():
        assert read_mask(tmp_path / "out" / path.name).shape == read_image(path).shape[:2]
    record = json.loads((tmp_path / "out" / "segment.json").read_text())
    settings = record["settings"]
    assert (settings["scales"], settings["flip"], settings["max_side"]) == ([1.0], False, 40)
    assert settings["crf"]["bilateral_sxy"] == 20


def test_crf_of_a_preset(segment: Callable[..., int], photos: Path, tmp_path: Path) -> None:
    segment(photos, "--scales", "1", "--crf_preset", "deeplab")
    record = json.loads((tmp_path / "out" / "segment.json").read_text())
    crf = record["settings"]["crf"]
    assert (crf["bilateral_sxy"], crf["bilateral_srgb"]) == (67, 3)


def test_bad_input(segment: Callable[..., int], photos: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("name,labels\nnobody,cat\n")
    with pytest.raises(InputError, match=r"does not name .* \(4 of 4 photos are missing\)"):
        segment(photos, "--labels", labels)
    with pytest.raises(InputError, match="max_side must be 1 or more"):
        segment(photos, "--max_side", "0")
    (photos / "broken.jpg").write_bytes(b"no photo")
    with pytest.raises(InputError, match=r"cannot read image .*broken\.jpg"):
        segment(photos)


def test_masks_never_overwrite_photos(checkpoint: Path, photos: Path) -> None:
    before = {path: path.read_bytes() for path in photos.iterdir()}
    with pytest.raises(InputError, match="would be written among the photos"):
        main(["segment", str(checkpoint), str(photos), "--out", str(photos)])
    assert before == {path: path.read_bytes() for path in photos.iterdir()}


def test_masks_of_another_origin_are_neither_kept_nor_overwritten(
    segment: Callable[..., int], photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "out" / next(photos.iterdir()).name
    write_mask(path, np.full((3, 3), 8))
    with pytest.raises(InputError, match="exists and was not written by this command"):
        segment(photos)
    assert (read_mask(path) == 8).all()


def test_huge_photos_are_segmented_only_when_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    stage, _ = load_stage(checkpoint, torch.device("cpu"))
    Image.new("L", (8192, 4100)).save(tmp_path / "a.png")
    job = SegmentJob(stage, VOC, tmp_path / "out")
    with pytest.raises(InputError, match=r"a\.png has 8192 x 4100 pixels.*give --max_side, such as 2000, or 8192"):
        job.run({"a": tmp_path / "a.png"}, {}, {}, progress=False)
    asked = SegmentJob(stage, VOC, tmp_path / "out", max_side=8192)
    assert asked._photo(tmp_path / "a.png").shape == (4100, 8192, 3)


def test_small_photos_have_a_core_each_and_large_ones_all(
    segment: Callable[..., int], photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    threads: dict[tuple[int, ...], set[int]] = {}
    original = SegmentationStage.segment

    def noting(self: SegmentationStage, image: torch.Tensor, *rest: Any) -> torch.Tensor:
        threads.setdefault(tuple(image.shape[2:]), set()).add(torch.get_num_threads())
        return original(self, image, *rest)

    monkeypatch.setattr(SegmentationStage, "segment", noting)
    sizes = {path.name: read_image(path).shape[:2] for path in photos.iterdir()}
    largest = max(sizes.values(), key=np.prod)
    monkeypatch.setattr(segmenting, "ONE_CORE", 3 * int(np.prod(largest)) - 1)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert segment(photos) == 0
        assert torch.get_num_threads() == 3
        assert threads == {size: {3 if size == largest else 1} for size in sizes.values()}
        threads.clear()
        first = sorted(photos.iterdir())[-1]
        assert segment(first, "--scales", 1) == 0  # one photo alone
        assert threads == {sizes[first.name]: {3}}
    finally:
        torch.set_num_threads(before)
    assert len(list((tmp_path / "out").glob("*.png"))) == len(sizes)


def test_a_network_that_keeps_something_is_not_shared_by_threads(
    checkpoint: Path, photos: Path, tmp_path: Path, two_threads: None
) -> None:
    stage, table = load_stage(checkpoint, torch.device("cpu"))
    threads = []
    stage.network.backbone.register_forward_hook(
        lambda *_: threads.append((threading.current_thread() is threading.main_thread(), torch.get_num_threads()))
    )
    SegmentJob(stage, table, tmp_path / "out").run({path.stem: path for path in photos.iterdir()}, {}, {}, False)
    assert set(threads) == {(True, 2)}
