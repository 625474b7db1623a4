from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.interop.export_folder import export_folder
from ssdd_lightning.interop.import_folder import ImportOptions, import_folder
from ssdd_lightning.storage.masks import VOC_PALETTE, read_mask
from ssdd_lightning.storage.score_maps import map_path, read_map
from tests.helpers.files import Trap

LEVEL = 0.004  # what 8 bits keep of a score


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a file a photo and return the folder."""

    def save(contents: dict[str, Any], folder: str = "source") -> Path:
        (tmp_path / folder).mkdir(exist_ok=True)
        for name, content in contents.items():
            np.save(tmp_path / folder / f"{name}.npy", content, allow_pickle=True)
        return tmp_path / folder

    return save


def run(source: Path, photos: Path, **options: Any) -> tuple[Path, int]:
    out = photos.parent / "out"
    written = import_folder(source, photos, out, ImportOptions(**options), num_workers=2, progress=False)
    return out, written


def check(out: Path, scores: dict[str, dict[int, np.ndarray]], alpha: float = 4.0) -> None:
    for name, cams in scores.items():
        classes, maps = read_map(map_path(out, name))
        assert classes == [0, *cams]
        np.testing.assert_allclose(maps[1:], list(cams.values()), atol=LEVEL)
        np.testing.assert_allclose(maps[0], (1 - np.max(list(cams.values()), 0)) ** alpha, atol=LEVEL)


def test_activation_maps_of_psa(
    photos: Path, scores: dict[str, dict[int, np.ndarray]], write: Callable[..., Path]
) -> None:
    source = write({name: {index - 1: cam for index, cam in cams.items()} for name, cams in scores.items()})
    out, written = run(source, photos, alpha=8.0)
    assert written == 3
    check(out, scores, alpha=8.0)


def test_activation_maps_of_irn(
    photos: Path, scores: dict[str, dict[int, np.ndarray]], write: Callable[..., Path]
) -> None:
    contents = {
        name: {"keys": torch.tensor(list(cams)) - 1, "cam": torch.zeros(9), "high_res": np.stack(list(cams.values()))}
        for name, cams in scores.items()
    }
    check(run(write(contents), photos)[0], scores)


def test_affinity_maps_of_psa_and_the_array_of_the_ssdd_repository(
    photos: Path, scores: dict[str, dict[int, np.ndarray]], write: Callable[..., Path], tmp_path: Path
) -> None:
    full = {name: np.stack([1 - max(cams.values(), key=np.max), *cams.values()]) for name, cams in scores.items()}
    dicts = {name: dict(zip([0, *scores[name]], maps, strict=True)) for name, maps in full.items()}
    for contents, folder in ((dicts, "dicts"), (full, "arrays")):
        out = tmp_path / f"out_{folder}"
        options = ImportOptions(format="psa-aff", labels=tmp_path / "labels.json")
        import_folder(write(contents, folder), photos, out, options, progress=False)
        for name, maps in full.items():
            classes, found = read_map(map_path(out, name))
            assert classes == [0, *scores[name]]
            np.testing.assert_allclose(found, maps, atol=LEVEL)


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_logits_of_another_resolution(
    photos: Path, scores: dict[str, dict[int, np.ndarray]], tmp_path: Path, suffix: str
) -> None:
    (tmp_path / "source").mkdir()
    for name, cams in scores.items():
        height, width = next(iter(cams.values())).shape
        logits = np.full((1, 21, -(-height // 4), -(-width // 4)), -2.0, np.float32)
        logits[:, 8] = 3
        path = tmp_path / "source" / f"{name}{suffix}"
        np.savez(path, logits=logits) if suffix == ".npz" else torch.save({"logits": torch.from_numpy(logits)}, path)
    with pytest.raises(InputError, match=r"found -2 to 3; if they are logits, add `--logits`"):
        run(tmp_path / "source", photos)
    out, written = run(tmp_path / "source", photos, logits=True, labels=tmp_path / "labels.json")
    assert written == 3
    classes, maps = read_map(map_path(out, "a.b.c"))
    assert (classes, maps.shape) == ([0, 8, 12], (3, 31, 20))
    np.testing.assert_allclose(maps[1], 1 / (1 + 2 * np.exp(-5)), atol=LEVEL)


def test_masks_indexed_and_painted(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    masks = {"my cat": np.full((24, 36), 8), "été": np.full((24, 36), 255)}
    for name, mask in masks.items():
        Image.fromarray(VOC_PALETTE[mask]).save(tmp_path / "source" / f"{name}.png")
    out, _ = run(tmp_path / "source", photos)
    for name, mask in masks.items():
        np.testing.assert_array_equal(read_mask(out / f"{name}.png"), mask)


def test_masks_of_another_size_or_dataset_are_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    path = tmp_path / "source" / "my cat.png"
    Image.fromarray(np.zeros((24, 35), np.uint8)).save(path)
    with pytest.raises(InputError, match=r"my cat\.png is 35 x 24 pixels, its image .*my cat\.jpg is 36 x 24"):
        run(tmp_path / "source", photos)
    Image.fromarray(np.full((24, 36), 30, np.uint8)).save(path)
    with pytest.raises(InputError, match="holds the value 30"):
        run(tmp_path / "source", photos)
    assert run(tmp_path / "source", photos, classes="31")[1] == 1


def test_goes_on_where_it_stopped(
    photos: Path,
    scores: dict[str, dict[int, np.ndarray]],
    write: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write({name: {index - 1: cam for index, cam in cams.items()} for name, cams in scores.items()})
    out, _ = run(source, photos)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.map.png")}
    map_path(out, "my cat").unlink()
    assert run(source, photos)[1] == 1
    assert run(source, photos)[1] == 0
    assert map_path(out, "été").stat().st_mtime_ns == kept[map_path(out, "été")]
    assert run(source, photos, alpha=2.0)[1] == len(scores)
    assert "because alpha was 4.0 and is 2.0." in capsys.readouterr().out


def test_a_failed_import_may_be_repeated_with_other_options(photos: Path, write: Callable[..., Path]) -> None:
    source = write({"my cat": np.full((21, 24, 36), 3.0)})
    with pytest.raises(InputError, match="`--logits`"):
        run(source, photos)
    assert run(source, photos, logits=True)[1] == 1


def test_hidden_code_is_refused_and_never_run(photos: Path, write: Callable[..., Path], tmp_path: Path) -> None:
    source = write({"my cat": {7: Trap(tmp_path / "trap")}})
    for kind in (None, "psa-cam", "irn", "arrays"):
        with pytest.raises(InputError, match=r"my cat\.npy: the pickle asks for \w+\.mkdir"):
            run(source, photos, format=kind)
    assert not (tmp_path / "trap").exists()
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize(
    ("contents", "options", "message"),
    [
        ({"nobody": 0, "nobody 2": 0, "my cat": 0}, {}, r"2 of 3 files have no image in .*: nobody, nobody 2;"),
        ({"my cat": {7: np.zeros((36, 24))}}, {"format": "psa-cam"}, "the scores are 24 x 36, the image 36 x 24"),
        ({"my cat": {30: np.zeros((24, 36))}}, {"format": "psa-cam"}, "30 is no class index"),
        ({"my cat": {7: np.full((24, 36), np.nan)}}, {"format": "psa-cam"}, "NaN"),
        ({"my cat": 0}, {"format": "coco"}, "unknown format 'coco'"),
        ({"my cat": 0}, {"channels": "some"}, "unknown meaning of channels 'some'"),
        ({"my cat": 0}, {"alpha": 0.0}, "alpha: expected an exponent above 0"),
    ],
)
def test_bad_input_is_a_clear_sentence(
    photos: Path, write: Callable[..., Path], contents: dict[str, Any], options: dict[str, float | str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        run(write(contents), photos, **{"format": "arrays", **options})
    assert "\n" not in str(caught.value)


def test_labels_must_name_every_file(
    photos: Path, scores: dict[str, dict[int, np.ndarray]], write: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "few.json").write_text('{"my cat": ["cat"]}')
    source = write({name: {index - 1: cam for index, cam in cams.items()} for name, cams in scores.items()})
    with pytest.raises(InputError, match=r"2 of 3 files have no label in .*few\.json"):
        run(source, photos, labels=tmp_path / "few.json")


@pytest.mark.parametrize("kind", ["psa-cam", "psa-aff", "irn"])
def test_what_is_exported_comes_back(
    photos: Path, scores: dict[str, dict[int, np.ndarray]], write: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    source = write({name: {index - 1: cam for index, cam in cams.items()} for name, cams in scores.items()})
    out, _ = run(source, photos)
    assert export_folder(out, tmp_path / "files", kind, progress=False) == 3
    assert export_folder(out, tmp_path / "files", kind, progress=False) == 0
    back = tmp_path / "back"
    import_folder(tmp_path / "files", photos, back, ImportOptions(format=kind), progress=False)
    for name in scores:
        classes, maps = read_map(map_path(out, name))
        again, found = read_map(map_path(back, name))
        assert classes == again
        np.testing.assert_array_equal(found[1:], maps[1:])
        np.testing.assert_allclose(found[0], maps[0], atol=2 * LEVEL)


def test_the_commands(
    photos: Path,
    scores: dict[str, dict[int, np.ndarray]],
    write: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write({name: {index - 1: cam for index, cam in cams.items()} for name, cams in scores.items()})
    words = [f"--images={photos}", f"--out={tmp_path / 'out'}", f"--labels={tmp_path / 'labels.json'}"]
    assert main(["import", str(source), "--from=psa-cam", *words, "--alpha=2", "--num_workers=1"]) == 0
    assert "3 files written." in capsys.readouterr().out
    check(tmp_path / "out", scores, alpha=2.0)
    assert main(["export", str(tmp_path / "out"), "--to=irn", f"--out={tmp_path / 'irn'}"]) == 0
    assert len(list((tmp_path / "irn").glob("*.npy"))) == 3


def test_photos_are_never_written_over(photos: Path, write: Callable[..., Path]) -> None:
    source = write({"my cat": {0: np.zeros((24, 36))}})
    with pytest.raises(InputError, match=r"would write into .*, which is one of its inputs"):
        main(["import", str(source), f"--images={photos}", f"--out={photos}"])
