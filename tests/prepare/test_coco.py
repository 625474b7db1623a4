import json
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ssdd_lightning.cli.main import main
from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.data.coco import COCODataModule
from ssdd_lightning.doctor.examine import examine
from ssdd_lightning.errors import InputError
from ssdd_lightning.prepare import coco as module
from ssdd_lightning.prepare.coco import PreparedCoco, prepare_coco
from ssdd_lightning.prepare.coco_masks import Photo, decode, draw_mask, read_split
from ssdd_lightning.prepare.download import Obtaining, Remote, md5_of
from ssdd_lightning.storage.masks import read_mask, write_mask
from tests.helpers.server import FileServer

pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `coco`)")

SIZE = (24, 36)  # of conftest's photos
CAT, DOG = 17, 18


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(mask: np.ndarray) -> dict[str, list[int]]:
    """COCO's uncompressed run lengths, written without the code under test."""
    flat = np.concatenate([[0], mask.T.ravel().astype(int), [0]])
    edges = np.flatnonzero(np.diff(flat)).tolist()
    counts = np.diff([0, *edges, mask.size]).tolist()
    return {"size": list(mask.shape), "counts": counts}


def crowd_mask() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[:, 30:] = True
    return mask


CONTENT: dict[str, dict[int, list[tuple[int, Any, int]]]] = {
    "train": {
        1: [(CAT, box(2, 2, 20, 20), 0), (DOG, box(4, 4, 8, 8), 0), (CAT, runs(crowd_mask()), 1)],
        2: [],
        3: [(DOG, runs(crowd_mask()), 1)],
    },
    "val": {1: [(DOG, [*box(0, 0, 4, 4), *box(10, 10, 14, 14)], 0)]},
}


def file_name(split: str, number: int) -> str:
    return f"COCO_{split}2014_{number:012d}.jpg"


def annotations(split: str, **changes: Any) -> dict[str, list[dict[str, Any]]]:
    entries = [
        {"id": n, "image_id": number, "category_id": category, "segmentation": shape, "iscrowd": crowd}
        for n, (number, category, shape, crowd) in enumerate(
            (number, *entry) for number, shown in CONTENT[split].items() for entry in shown
        )
    ]
    images = [{"id": n, "file_name": file_name(split, n), "height": SIZE[0], "width": SIZE[1]} for n in CONTENT[split]]
    categories = [{"id": DOG, "name": "dog"}, {"id": 3, "name": "traffic light"}, {"id": CAT, "name": "cat"}]
    return {"images": images, "annotations": entries, "categories": categories, **changes}


@pytest.fixture
def source(tmp_path: Path, make: SimpleNamespace) -> Path:
    """COCO's files, unpacked."""
    folder = tmp_path / "coco"
    (folder / "annotations").mkdir(parents=True)
    for split in CONTENT:
        (folder / f"{split}2014").mkdir()
        write_annotations(folder, split)
        for number in CONTENT[split]:
            (folder / f"{split}2014" / file_name(split, number)).write_bytes(make.jpeg(number))
    return folder


def write_annotations(folder: Path, split: str, **changes: Any) -> None:
    path = folder / "annotations" / f"instances_{split}2014.json"
    path.write_text(json.dumps(annotations(split, **changes)))


def pack(source: Path, out: Path) -> Path:
    """Pack what the folder holds as COCO's three archives."""
    out.mkdir()
    names = {"train2014": "train2014", "val2014": "val2014", "annotations": "annotations_trainval2014"}
    for folder, name in names.items():
        with zipfile.ZipFile(out / f"{name}.zip", "w") as archive:
            for path in sorted((source / folder).iterdir()):
                archive.write(path, f"{folder}/{path.name}")
    return out


def prepare(tmp_path: Path, source: Path, **options: Any) -> PreparedCoco:
    obtaining = Obtaining(tmp_path / "out" / "downloads", **{"checksum": False, "progress": False, **options})
    return prepare_coco(tmp_path / "out", obtaining, source, num_workers=2)


def check(made: PreparedCoco) -> None:
    assert (made.splits, made.num_classes, made.left_out) == ({"train": 1, "val": 1}, 4, {"train": 2, "val": 0})
    devkit = made.devkit
    assert (devkit / "classes.txt").read_text().split("\n") == ["background", "traffic light", "cat", "dog", ""]
    assert json.loads((devkit / "labels.json").read_text()) == {
        "COCO_train2014_000000000001": [2, 3],
        "COCO_val2014_000000000001": [3],
    }
    assert json.loads((devkit / "left_out.json").read_text())["train"] == {
        "without annotation": ["COCO_train2014_000000000002"],
        "crowds alone": ["COCO_train2014_000000000003"],
    }
    masks = devkit / "SegmentationClass"
    expected = np.zeros(SIZE, np.uint8)
    expected[2:20, 2:20] = 2
    expected[4:8, 4:8] = 3
    expected[:, 30:] = 255
    np.testing.assert_array_equal(read_mask(masks / "COCO_train2014_000000000001.png"), expected)
    expected[:] = 0
    expected[:4, :4] = expected[10:14, 10:14] = 3
    np.testing.assert_array_equal(read_mask(masks / "COCO_val2014_000000000001.png"), expected)
    assert sorted(path.name for path in (devkit / "JPEGImages").iterdir()) == [
        file_name("train", 1),
        file_name("val", 1),
    ]


def test_from_folders(source: Path, tmp_path: Path) -> None:
    check(prepare(tmp_path, source))
    assert not list((tmp_path / "out").glob("*.part"))


def test_from_archives(source: Path, tmp_path: Path) -> None:
    packed = pack(source, tmp_path / "zips")
    made = prepare(tmp_path, packed)
    check(made)
    for path in packed.iterdir():
        path.unlink()
    check(prepare(tmp_path, packed))  # it is there already


def test_download(
    source: Path,
    tmp_path: Path,
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pack(source, server.folder / "zips")

    def local(remote: Remote) -> Remote:
        path = server.folder / "zips" / remote.name
        return Remote(remote.name, f"{server.url}/zips/{remote.name}", md5_of(path, progress=False))

    monkeypatch.setattr(module, "PARTS", tuple(map(local, module.PARTS)))
    with pytest.raises(InputError, match=r"annotations_trainval2014\.zip is needed: give it with `--coco`"):
        main(["prepare", "coco", f"--out={tmp_path / 'out'}"])
    assert main(["prepare", "coco", f"--out={tmp_path / 'out'}", "--download"]) == 0
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines()]
    assert ["train", "1", "82081", "2"] in rows
    assert f"{tmp_path / 'out' / 'COCO2014' / 'left_out.json'} lists the images without an object" in text
    assert "4 classes" in text


def test_the_published_checksums_are_asked_for(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected 0a379cfc70b0e71301e0f377548639bd of annotations_trainval2014"):
        prepare(tmp_path, pack(source, tmp_path / "zips"), checksum=True)


def test_the_stages_and_the_doctor_read_it(tiny_coco: Path) -> None:
    data = COCODataModule(tiny_coco, augmentation=Augmentation(32), batch_size=4, num_workers=0)
    assert data.num_classes == 81
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image_labels"].shape == (4, 81)
    assert batch["image_labels"][:, 0].all()
    assert "mask" not in batch
    batch = next(iter(data.val_dataloader()))
    shown = torch.unique(batch["mask"])
    animals = [data.class_names.index(name) for name in ("cat", "dog", "sheep", "cow")]
    assert set(shown.tolist()) <= {0, *animals}
    assert shown.max() > 0
    assert examine(tiny_coco, subset=True, progress=False).healthy
    assert examine(tiny_coco, progress=False).findings["count"][0] == "train: 12 images, officially 82081"


def test_a_choice_of_classes(tiny_coco: Path) -> None:
    data = COCODataModule(
        tiny_coco, classes=["sheep", "cat"], augmentation=Augmentation(32), batch_size=2, num_workers=0
    )
    assert data.class_names == ["background", "cat", "sheep"]
    data.setup("validate")
    labels = json.loads((tiny_coco / "labels.json").read_text())
    for record in data.datasets["val"].records:
        assert set(record.labels) == set(labels[record.name]) <= set(data.class_indices)


def test_a_folder_that_nobody_prepared(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"should be a folder COCO2014 with classes\.txt; make it with"):
        COCODataModule(tmp_path)


def entry(**changes: Any) -> dict[str, list[dict[str, Any]]]:
    return {"annotations": [{**annotations("train")["annotations"][0], **changes}]}


HUGE = [[0, 0, 1e9, 0, 1e9, 1e9]]
BROKEN = {
    "not JSON": (lambda f: (f / "annotations/instances_train2014.json").write_text("<html>"), "cannot read .*JSON"),
    "other JSON": (lambda f: (f / "annotations/instances_train2014.json").write_text("[]"), "TypeError"),
    "no annotations": (lambda f: (f / "annotations/instances_val2014.json").unlink(), r"lacks instances_val2014\.json"),
    "unknown image": (lambda f: write_annotations(f, "train", **entry(image_id=99)), "KeyError: 99"),
    "unknown category": (lambda f: write_annotations(f, "train", **entry(category_id=99)), "KeyError: 99"),
    "no categories": (lambda f: write_annotations(f, "train", categories=[], annotations=[]), "holds 0 categories"),
    "other categories": (
        lambda f: write_annotations(f, "val", categories=[{"id": DOG, "name": "dog"}]),
        "have different categories",
    ),
    "path traversal": (
        lambda f: write_annotations(
            f, "train", images=[{"id": 1, "file_name": "../../evil.jpg", "height": 24, "width": 36}], annotations=[]
        ),
        r"instances_train2014\.json: expected the name of a \.jpg file, found '\.\./\.\./evil\.jpg'",
    ),
    "another size": (
        lambda f: write_annotations(
            f, "train", images=[{"id": 1, "file_name": file_name("train", 1), "height": 24, "width": 37}], **entry()
        ),
        "is 36 x 24 pixels, the size in its annotation is 37 x 24",
    ),
    "polygon to the moon": (
        lambda f: write_annotations(f, "train", **entry(segmentation=HUGE)),
        "far out of the image",
    ),
    "polygon of NaN": (
        lambda f: write_annotations(f, "train", **entry(segmentation=[[float("nan")] * 6])),
        "far out of the image",
    ),
    "runs too long": (
        lambda f: write_annotations(f, "train", **entry(segmentation={"size": [24, 36], "counts": [0, 10**9]})),
        "runs of 1000000000 pixels for an image of 36 x 24",
    ),
    "negative runs": (
        lambda f: write_annotations(f, "train", **entry(segmentation={"size": [24, 36], "counts": [900, -36]})),
        "segmentation is damaged",
    ),
    "compressed runs": (
        lambda f: write_annotations(f, "train", **entry(segmentation={"size": [24, 36], "counts": "PPYo0"})),
        "compressed run lengths",
    ),
    "nothing annotated": (lambda f: write_annotations(f, "train", annotations=[]), "annotates no object in any of its"),
    "a file for two images": (
        lambda f: write_annotations(
            f,
            "train",
            images=[{"id": n, "file_name": file_name("train", 1), "height": 24, "width": 36} for n in (1, 2)],
            **entry(),
        ),
        r"gives 1 files to two images each, such as COCO_train2014_\d+1\.jpg",
    ),
    "a category of two lines": (
        lambda f: write_annotations(f, "train", categories=[{"id": 1, "name": "cat\ndog"}]),
        r"expected class names of one line each, found 'cat\\ndog'",
    ),
    "no photo": (lambda f: (f / "train2014" / file_name("train", 1)).unlink(), r"lacks 1 of 1 photos of train"),
    "no folder": (lambda f: (f / "val2014").rename(f / "x"), r"holds neither val2014\.zip nor val2014; complete it"),
    "no photo but text": (lambda f: (f / "val2014" / file_name("val", 1)).write_text("x"), "cannot read image"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_input_leaves_no_dataset(source: Path, tmp_path: Path, case: str) -> None:
    spoil, message = BROKEN[case]
    spoil(source)
    with pytest.raises(InputError, match=message) as caught:
        prepare(tmp_path, source)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "COCO2014").exists()
    assert not list(tmp_path.rglob("evil*"))


def test_path_traversal_in_an_archive(source: Path, tmp_path: Path) -> None:
    packed = pack(source, tmp_path / "zips")
    with zipfile.ZipFile(packed / "train2014.zip", "a") as archive:
        archive.writestr("train2014/../../../evil.jpg", b"x")
    with pytest.raises(InputError, match="outside its own folder"):
        prepare(tmp_path, packed)
    assert not list(tmp_path.rglob("evil*"))


def test_an_interrupted_run_goes_on(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = write_mask

    def interrupted(path: Path, mask: np.ndarray) -> None:
        if "val" in path.name:
            raise KeyboardInterrupt
        real(path, mask)

    monkeypatch.setattr(module, "write_mask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, source)
    kept = tmp_path / "out" / "COCO2014.part" / "SegmentationClass" / "COCO_train2014_000000000001.png"
    before = kept.stat().st_mtime_ns
    assert not (tmp_path / "out" / "COCO2014").exists()
    monkeypatch.setattr(module, "write_mask", real)
    made = prepare(tmp_path, source)
    check(made)
    assert (made.devkit / "SegmentationClass" / kept.name).stat().st_mtime_ns == before


def test_without_pycocotools_the_command_to_install_it_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(InputError, match=r"pip install 'ssdd-lightning\[coco\]'"):
        prepare(tmp_path, source)
    assert not (tmp_path / "out").exists()


def test_categories_count_from_1_by_ascending_id() -> None:
    ids = [90, 1, 13, 11]
    one = {"image_id": 1, "category_id": 1, "segmentation": box(0, 0, 4, 4)}
    image = {"id": 1, "file_name": "x.jpg", "height": 4, "width": 4}
    categories = [{"id": n, "name": f"c{n}"} for n in ids]
    content = {"images": [image], "annotations": [one], "categories": categories}
    assert read_split(json.dumps(content).encode(), "x").names == ("background", "c1", "c11", "c13", "c90")


def test_small_objects_lie_on_large_ones_in_any_order() -> None:
    small, large = (1, box(4, 4, 8, 8)), (2, box(2, 2, 20, 20))
    masks = [draw_mask(Photo("x.jpg", *SIZE, instances)) for instances in ([small, large], [large, small])]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0][4:8, 4:8] == 1).all()


def test_run_lengths_agree_with_pycocotools() -> None:
    from pycocotools import mask as coco

    for seed in range(5):
        mask = np.random.default_rng(seed).random(SIZE) < 0.4
        counted = runs(mask)
        np.testing.assert_array_equal(decode(counted, SIZE, "x"), mask)
        np.testing.assert_array_equal(coco.decode(coco.frPyObjects(counted, *SIZE)).astype(bool), mask)


def test_a_polygon_of_two_corners_is_no_area() -> None:
    assert not decode([[1, 1, 9, 9]], SIZE, "x").any()
    assert decode([[1, 1, 9, 9], *box(0, 0, 2, 2)], SIZE, "x").sum() == 4


def test_all_sources_are_looked_for_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    (source / "val2014").rename(source / "elsewhere")
    with pytest.raises(InputError, match=r"holds neither val2014\.zip nor val2014; complete it"):
        prepare(tmp_path, source)
    assert not list((tmp_path / "out").glob("COCO2014*"))


def test_mended_annotations_are_drawn_again(source: Path, tmp_path: Path) -> None:
    path = source / "annotations" / "instances_train2014.json"
    right = path.read_text()
    expected = {
        p.name: p.read_bytes() for p in (prepare(tmp_path / "a", source).devkit / "SegmentationClass").iterdir()
    }
    wrong = json.loads(right)
    wrong["annotations"][0]["segmentation"] = box(0, 0, 3, 3)
    path.write_text(json.dumps(wrong))
    photo = source / "val2014" / file_name("val", 1)
    content = photo.read_bytes()
    photo.write_text("junk")
    with pytest.raises(InputError, match="cannot read image"):
        prepare(tmp_path / "b", source)
    path.write_text(right)
    photo.unlink()
    photo.write_bytes(content)
    made = prepare(tmp_path / "b", source).devkit
    assert {p.name: p.read_bytes() for p in (made / "SegmentationClass").iterdir()} == expected


def test_other_annotations_make_it_anew_and_the_same_do_not(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = prepare(tmp_path, source)
    stat = (made.devkit / "classes.txt").stat()
    prepare(tmp_path, source)
    assert (made.devkit / "classes.txt").stat().st_ino == stat.st_ino
    assert f"{made.devkit} is there already: --coco {source} is not read" in capsys.readouterr().out
    write_annotations(source, "val", **entry(image_id=1, category_id=CAT))
    assert prepare(tmp_path, source).splits == {"train": 1, "val": 1}
    assert f"prepare: redone in {made.devkit}, because COCO changed." in capsys.readouterr().out
    assert json.loads((made.devkit / "labels.json").read_text())["COCO_val2014_000000000001"] == [2]
    kept = made.devkit.with_name("COCO2014.replaced-1")
    assert json.loads((kept / "labels.json").read_text())["COCO_val2014_000000000001"] == [3]
