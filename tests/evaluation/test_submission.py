"""Archives for the VOC server: built, taken apart by other means, and broken in every way."""

import errno
import gzip
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.evaluation.submission import Expected, SubmissionError, build_submission, check_submission
from ssdd_lightning.storage.masks import VOC_PALETTE, write_mask
from ssdd_lightning.storage.score_maps import map_path, write_map
from tests.helpers.files import encode, write_photo, write_tar

SIZES = {"2008_000001": (20, 30), "2008_000002": (30, 20), "2008_000003": (25, 25)}
FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A devkit of three test images, and `predictions` beside it."""
    devkit = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "ImageSets/Segmentation"):
        (devkit / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
        write_photo(devkit / "JPEGImages" / f"{name}.jpg", size, rng)
        write_mask(tmp_path / "predictions" / f"{name}.png", rng.integers(0, 21, size))
    (devkit / "ImageSets/Segmentation/test.txt").write_text("\n".join(SIZES))
    return tmp_path


@pytest.fixture
def expected(root: Path) -> Expected:
    return Expected.of(root)


def build(root: Path, expected: Expected, **options: Any) -> Path:
    out = root / "results.tgz"
    build_submission(root / "predictions", expected, out, progress=False, **options)
    return out


def unpacked(path: Path) -> dict[str, bytes]:
    """Name -> content, by the standard library."""
    with tarfile.open(path, "r:gz") as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def problems(path: Path, expected: Expected) -> list[str]:
    with pytest.raises(SubmissionError) as caught:
        check_submission(path, expected, progress=False)
    return list(caught.value.problems)


def test_what_is_built(root: Path, expected: Expected) -> None:
    files = unpacked(build(root, expected, num_workers=2))
    assert list(files) == [f"{FOLDER}/{name}.png" for name in sorted(SIZES)]
    for name, size in SIZES.items():
        with Image.open(io.BytesIO(files[f"{FOLDER}/{name}.png"])) as image:
            assert (image.mode, image.size) == ("P", size[::-1])
            assert image.getpalette() == VOC_PALETTE.ravel().tolist()
            with Image.open(root / "predictions" / f"{name}.png") as given:
                np.testing.assert_array_equal(np.array(image), np.array(given))
    assert check_submission(root / "results.tgz", expected, progress=False) == "comp6"


def test_the_same_predictions_give_the_same_bytes(root: Path, expected: Expected) -> None:
    first = build(root, expected, num_workers=1).read_bytes()
    for path in (root / "predictions").iterdir():
        path.touch()
    assert build(root, expected, num_workers=3).read_bytes() == first
    assert int.from_bytes(first[4:8], "little") == 0  # gzip's time


def test_comp5(root: Path, expected: Expected) -> None:
    out = build(root, expected, competition="comp5")
    assert {name.split("/")[3] for name in unpacked(out)} == {"comp5_test_cls"}
    assert check_submission(out, expected, progress=False) == "comp5"


def test_score_maps_and_grey_masks_are_packed_as_masks(root: Path, expected: Expected) -> None:
    one, two, _ = SIZES
    (root / "predictions" / f"{one}.png").unlink()
    scores = np.zeros((2, *SIZES[one]))
    scores[1] = 0.9
    write_map(map_path(root / "predictions", one), [0, 12], scores)
    Image.fromarray(np.full(SIZES[two], 5, np.uint8)).save(root / "predictions" / f"{two}.png")
    out = build(root, expected)
    assert check_submission(out, expected, progress=False) == "comp6"
    masks = [np.array(Image.open(io.BytesIO(unpacked(out)[f"{FOLDER}/{name}.png"]))) for name in (one, two)]
    assert [np.unique(mask).tolist() for mask in masks] == [[12], [5]]


def test_predictions_the_server_would_refuse_are_listed_and_not_write_tar(root: Path, expected: Expected) -> None:
    one, two, three = SIZES
    write_mask(root / "predictions" / f"{one}.png", np.full((20, 29), 255))
    (root / "predictions" / f"{two}.png").unlink()
    Image.new("RGB", (25, 25)).save(root / "predictions" / f"{three}.png")
    with pytest.raises(SubmissionError) as caught:
        build(root, expected)
    found = caught.value.problems
    assert found[:2] == (
        f"{one}.png is 29 x 20 pixels, its image 30 x 20",
        f"{one}.png holds the value 255, expected 0..20",
    )
    assert f"{two}.map.png" in found[2]
    assert "has mode RGB" in found[3]
    assert len(found) == 4
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in root.iterdir()) == ["VOCdevkit", "predictions"]


def test_a_refused_build_keeps_the_archive_before_it(root: Path, expected: Expected) -> None:
    before = build(root, expected).read_bytes()
    (root / "predictions" / "2008_000001.png").unlink()
    with pytest.raises(SubmissionError):
        build(root, expected)
    assert (root / "results.tgz").read_bytes() == before


@pytest.fixture
def files(root: Path, expected: Expected) -> dict[str, bytes]:
    """Entries of a right archive, to spoil."""
    return unpacked(build(root, expected))


def test_a_repacked_archive_is_right(root: Path, expected: Expected, files: dict[str, bytes]) -> None:
    folder = tarfile.TarInfo("./results")
    folder.type = tarfile.DIRTYPE
    path = write_tar(root / "x.tgz", {f"./{name}": content for name, content in files.items()}, "w:gz", [folder])
    assert check_submission(path, expected, progress=False) == "comp6"


FIRST = f"{FOLDER}/2008_000001.png"
BROKEN = {
    "grey": (encode(np.zeros((20, 30)), mode="L"), "2008_000001.png has mode L, expected an indexed PNG (mode P)"),
    "colours": (encode(np.zeros((20, 30, 3)), mode="RGB"), "has mode RGB"),
    "palette": (encode(np.full((20, 30), 3), VOC_PALETTE[::-1]), "paints class 3 in another colour"),
    "short palette": (encode(np.full((20, 30), 9), VOC_PALETTE[:5]), "paints class 9 in another colour"),
    "ignore": (encode(np.full((20, 30), 255)), "holds the value 255, expected 0..20"),
    "values": (encode(np.full((20, 30), 21)), "holds the value 21, expected 0..20"),
    "size": (encode(np.zeros((30, 20))), "2008_000001.png is 20 x 30 pixels, its image 30 x 20"),
    "truncated": (encode(np.arange(600).reshape(20, 30) % 21)[:-40], "cannot be read"),
    "no PNG": (b"GIF89a", "cannot be read"),
    "empty": (b"", "cannot be read"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_one_bad_mask(root: Path, expected: Expected, files: dict[str, bytes], case: str) -> None:
    content, message = BROKEN[case]
    (found,) = problems(write_tar(root / "x.tgz", {**files, FIRST: content}, "w:gz"), expected)
    assert message in found
    assert "2008_000001.png" in found


@pytest.mark.parametrize(
    "name",
    [
        "2008_000009.png",
        "/etc/passwd",
        "../evil.png",
        f"{FOLDER}/../../evil.png",
        f"{FOLDER}/sub/2008_000001.png",
        f"{FOLDER}/2008_000001.jpg",
        "results/VOC2012/Segmentation/comp6_val_cls/2008_000001.png",
        "__MACOSX/results/x.png",
    ],
)
def test_strange_entries(root: Path, expected: Expected, files: dict[str, bytes], name: str) -> None:
    assert problems(write_tar(root / "x.tgz", {**files, name: b"x"}, "w:gz"), expected) == [
        f"entry {name!r} is no file {FOLDER}/<name>.png"
    ]


def test_links(root: Path, expected: Expected, files: dict[str, bytes]) -> None:
    link = tarfile.TarInfo(FIRST)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    del files[FIRST]
    assert problems(write_tar(root / "x.tgz", files, "w:gz", [link]), expected) == [
        f"entry {FIRST!r} is no file {FOLDER}/<name>.png",
        "1 of 3 images are missing: 2008_000001",
    ]


def test_incomplete_double_and_foreign(root: Path, expected: Expected, files: dict[str, bytes]) -> None:
    path = write_tar(
        root / "x.tgz", {FIRST: files[FIRST], f"./{FIRST}": files[FIRST], f"{FOLDER}/2011_1.png": b""}, "w:gz"
    )
    assert problems(path, expected) == [
        "2008_000001.png is there twice",
        "2011_1.png is not in the split",
        "2 of 3 images are missing: 2008_000002, 2008_000003",
    ]


def test_two_competitions(root: Path, expected: Expected, files: dict[str, bytes]) -> None:
    files[FIRST.replace("comp6", "comp5")] = files.pop(FIRST)
    found = problems(write_tar(root / "x.tgz", files, "w:gz"), expected)
    assert found == ["it holds the competitions comp5 and comp6, expected one"]


def test_an_entry_that_claims_2_to_the_80_bytes_ends_at_once(root: Path, expected: Expected) -> None:
    member = tarfile.TarInfo(f"{FOLDER}/2008_000001.png")
    member.size = 1 << 80
    path = root / "results.tgz"
    path.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT)))
    with pytest.raises(SubmissionError, match=r"an entry claims 1208925819614629174706176 bytes"):
        check_submission(path, expected, progress=False)


def test_a_bomb_stays_write_tar(root: Path, expected: Expected, files: dict[str, bytes]) -> None:
    path = write_tar(root / "x.tgz", {**files, FIRST: bytes(20 << 20)}, "w:gz")
    assert problems(path, expected) == [f"2008_000001.png holds {20 << 20} bytes, which no mask does"]


@pytest.mark.parametrize("spoil", ["truncate", "end", "check sum", "garbage", "plain tar", "text", "empty"])
def test_no_archive(root: Path, expected: Expected, files: dict[str, bytes], spoil: str) -> None:
    path = write_tar(root / "x.tgz", files, "w" if spoil == "plain tar" else "w:gz")
    if spoil == "truncate":
        path.write_bytes(path.read_bytes()[:-60])
    elif spoil == "end":
        path.write_bytes(path.read_bytes()[:-4])
    elif spoil == "check sum":
        content = path.read_bytes()
        path.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
    elif spoil == "garbage":
        path.write_bytes(path.read_bytes() + b"garbage")
    elif spoil != "plain tar":
        path.write_bytes(b"hello" if spoil == "text" else b"")
    assert any("it is truncated, damaged or no gzip-compressed tar" in found for found in problems(path, expected))


def test_the_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = root / "results.tgz"
    base = ["submit", f"--root={root}"]
    assert main([*base, f"--predictions={root / 'predictions'}", f"--out={out}"]) == 0
    assert main([*base, f"--check={out}"]) == 0
    assert "results.tgz is right: 3 masks for comp6" in capsys.readouterr().out
    write_mask(root / "predictions" / "2008_000001.png", np.full((20, 30), 255))
    bad = root / "bad.tgz"
    assert main([*base, f"--predictions={root / 'predictions'}", f"--out={bad}"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "2008_000001.png holds the value 255, expected 0..20.",
        "Problems: 1. Nothing was written.",
    ]
    assert not bad.exists()
    out.write_bytes(out.read_bytes()[:100])
    assert main([*base, f"--check={out}"]) == 1


@pytest.mark.parametrize("words", [[], ["--predictions=x"], ["--predictions=x", "--out=y.tgz", "--check=z"]])
def test_either_build_or_check(root: Path, words: list[str]) -> None:
    with pytest.raises(InputError, match="expected either --predictions and --out"):
        main(["submit", f"--root={root}", *words])


def test_what_is_missing_is_named(root: Path, expected: Expected) -> None:
    with pytest.raises(InputError, match=r"expected an archive at .*none\.tgz, found nothing"):
        check_submission(root / "none.tgz", expected)
    with pytest.raises(InputError, match=r"takes \.tgz archives, found .*x\.zip"):
        build_submission(root / "predictions", expected, root / "x.zip")
    (root / "VOCdevkit/VOC2012/JPEGImages/2008_000002.jpg").unlink()
    with pytest.raises(InputError, match=r"lacks 1 of 3 photos of test, such as 2008_000002\.jpg; unpack VOC2012test"):
        Expected.of(root)
    shutil.rmtree(root / "VOCdevkit/VOC2012/ImageSets")
    with pytest.raises(InputError, match=r"test\.txt does not exist"):
        Expected.of(root)


def test_predictions_that_do_not_exist_are_one_sentence(root: Path, expected: Expected) -> None:
    with pytest.raises(InputError, match=r"expected a folder of predictions at .*nowhere, found none") as caught:
        build_submission(root / "nowhere", expected, root / "x.tgz", progress=False)
    assert not isinstance(caught.value, SubmissionError)


def test_a_full_disk_leaves_no_archive(root: Path, expected: Expected, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ssdd_lightning.storage.files.os.replace", full)
    with pytest.raises(InputError, match=r"cannot write .*results\.tgz: No space left"):
        build(root, expected)
    assert sorted(path.name for path in root.iterdir()) == ["VOCdevkit", "predictions"]
