import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.masks import VOC_PALETTE
from ssdd_lightning.synthetic.devkit import write_synthetic_devkit
from tests.helpers.files import contents, times

TINY: dict[str, Any] = {"num_train": 12, "num_val": 4, "image_size": 64}


def names(folder: Path, split: str) -> list[str]:
    return (folder / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()


def mask_of(folder: Path, name: str) -> np.ndarray:
    with Image.open(folder / "SegmentationClass" / f"{name}.png") as image:
        return np.array(image)


def annotation_of(folder: Path, name: str) -> ElementTree.Element:
    return ElementTree.parse(folder / "Annotations" / f"{name}.xml").getroot()


def foreground(mask: np.ndarray) -> set[int]:
    return set(np.unique(mask).tolist()) - {0, 255}


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_devkit(tmp_path_factory.mktemp("voc"), num_train=40, num_val=16)


def test_layout_is_complete(devkit: Path) -> None:
    assert devkit.parts[-2:] == ("VOCdevkit", "VOC2012")
    train, val = names(devkit, "train"), names(devkit, "val")
    assert names(devkit, "trainaug") == train
    assert (train[0], val[0], len(train), len(val)) == ("2007_000001", "2008_000001", 40, 16)
    for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png"), ("Annotations", "xml")):
        assert {path.name for path in (devkit / folder).iterdir()} == {f"{name}.{suffix}" for name in train + val}


def test_images_masks_and_annotations_agree_in_size(devkit: Path) -> None:
    sizes = set()
    for name in names(devkit, "train"):
        with Image.open(devkit / "JPEGImages" / f"{name}.jpg") as image:
            assert image.mode == "RGB"
            width, height = image.size
        assert mask_of(devkit, name).shape == (height, width)
        size = annotation_of(devkit, name).find("size")
        assert [size.findtext(key) for key in ("width", "height", "depth")] == [str(width), str(height), "3"]
        assert 112 <= height <= 144 <= width <= 192
        sizes.add((height, width))
    assert len(sizes) > 10


def test_masks_are_indexed_with_the_voc_palette(devkit: Path) -> None:
    with Image.open(devkit / "SegmentationClass" / "2007_000001.png") as image:
        assert image.mode == "P"
        palette = np.array(image.getpalette()).reshape(-1, 3)
        used = np.unique(np.array(image))
    np.testing.assert_array_equal(palette[used], VOC_PALETTE[used])


def test_annotations_name_the_classes_visible_in_the_mask(devkit: Path) -> None:
    for name in names(devkit, "train") + names(devkit, "val"):
        mask = mask_of(devkit, name)
        objects = annotation_of(devkit, name).findall("object")
        labels = {VOC_CLASSES.index(item.findtext("name")) for item in objects}
        assert labels == foreground(mask)
        assert all(np.count_nonzero(mask == label) >= 16 for label in labels)


def test_boxes_contain_the_class(devkit: Path) -> None:
    for name in names(devkit, "train"):
        mask = mask_of(devkit, name)
        covered = {label: np.zeros(mask.shape, bool) for label in foreground(mask)}
        for item in annotation_of(devkit, name).findall("object"):
            box = item.find("bndbox")
            x0, y0, x1, y1 = (int(box.findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax"))
            assert 1 <= x0 <= x1 <= mask.shape[1]
            assert 1 <= y0 <= y1 <= mask.shape[0]
            covered[VOC_CLASSES.index(item.findtext("name"))][y0 - 1 : y1, x0 - 1 : x1] = True
        assert all(covered[label][mask == label].all() for label in covered)


def test_every_class_is_in_every_split_and_scenes_vary(devkit: Path) -> None:
    wanted = {VOC_CLASSES.index(name) for name in ("cat", "cow", "dog", "sheep")}
    for split in ("train", "val"):
        shown = [foreground(mask_of(devkit, name)) for name in names(devkit, split)]
        assert set.union(*shown) == wanted
        assert {len(labels) for labels in shown} == {1, 2}
    counts = {len(annotation_of(devkit, name).findall("object")) for name in names(devkit, "train")}
    assert counts == {1, 2, 3}


def test_void_is_a_thin_line_around_the_animals(devkit: Path) -> None:
    shares = []
    for name in names(devkit, "train"):
        mask = mask_of(devkit, name)
        inside = (mask > 0) & (mask < 255)
        assert (mask == 255).any()
        shares.append((np.mean(mask == 255), np.mean(inside)))
    void, inside = np.mean(shares, axis=0)
    assert 0.005 < void < 0.06
    assert 0.1 < inside < 0.4


def test_same_seed_same_bytes_other_seed_other_pictures(tmp_path: Path) -> None:
    first = contents(write_synthetic_devkit(tmp_path / "a", **TINY))
    assert first == contents(write_synthetic_devkit(tmp_path / "b", **TINY))
    other = contents(write_synthetic_devkit(tmp_path / "c", **TINY, seed=1))
    assert first.keys() == other.keys()
    drawn = [path for path in first if path.endswith((".jpg", ".png"))]
    assert len(drawn) == 32
    assert not any(first[path] == other[path] for path in drawn)


def test_more_images_leave_the_first_ones_alone(tmp_path: Path) -> None:
    few = contents(write_synthetic_devkit(tmp_path / "a", num_train=4, num_val=4, image_size=64))
    many = contents(write_synthetic_devkit(tmp_path / "b", **TINY))
    pictures = [path for path in few if not path.startswith("ImageSets")]
    assert pictures
    assert all(few[path] == many[path] for path in pictures)
    assert contents(write_synthetic_devkit(tmp_path / "a", **TINY)) == many


def test_second_run_touches_nothing_and_a_torn_one_is_completed(tmp_path: Path) -> None:
    folder = write_synthetic_devkit(tmp_path, **TINY)
    before = times(folder)
    write_synthetic_devkit(tmp_path, **TINY)
    assert times(folder) == before
    content = contents(folder)
    (folder / "JPEGImages" / "2007_000003.jpg").unlink()
    (folder / "Annotations" / "2008_000002.xml").unlink()
    (folder / "ImageSets" / "Segmentation" / "val.txt").unlink()
    write_synthetic_devkit(tmp_path, **TINY)
    assert contents(folder) == content


def test_test_split_has_images_only(tmp_path: Path) -> None:
    folder = write_synthetic_devkit(tmp_path, num_train=1, num_val=0, num_test=2, image_size=64)
    assert names(folder, "test") == ["2009_000001", "2009_000002"]
    assert not (folder / "ImageSets" / "Segmentation" / "val.txt").exists()
    assert len(list((folder / "JPEGImages").iterdir())) == 3
    assert [path.stem for path in (folder / "SegmentationClass").iterdir()] == ["2007_000001"]
    assert [path.stem for path in (folder / "Annotations").iterdir()] == ["2007_000001"]


def test_eighty_classes(tmp_path: Path) -> None:
    kinds = [f"kind {n}" for n in range(1, 81)]
    folder = write_synthetic_devkit(tmp_path, num_train=80, num_val=80, classes=kinds, image_size=64)
    for split in ("train", "val"):
        shown = set.union(*(foreground(mask_of(folder, name)) for name in names(folder, split)))
        assert shown == set(range(1, 81))


def test_other_names_are_counted_from_one(tmp_path: Path) -> None:
    folder = write_synthetic_devkit(tmp_path, num_train=4, num_val=2, classes=["zebra", "cat"], image_size=64)
    assert foreground(mask_of(folder, "2008_000001")) >= {1}
    assert annotation_of(folder, "2008_000001").find("object/name").text in {"zebra", "cat"}
    assert set.union(*(foreground(mask_of(folder, name)) for name in names(folder, "train"))) == {1, 2}


def test_tiny_devkit_is_quick(tmp_path: Path) -> None:
    start = time.process_time()
    write_synthetic_devkit(tmp_path, **TINY)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_train": 0}, "training image"),
        ({"num_val": -1}, "negative"),
        ({"classes": []}, "classes"),
        ({"classes": "cat"}, "classes"),
        ({"classes": ["cat", "cat"]}, "classes"),
        ({"classes": [str(n) for n in range(255)]}, "classes"),
        ({"image_size": 8}, "image_size"),
        ({"image_size": ((64, 48), (64, 64))}, "image_size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_synthetic_devkit(tmp_path, **{**TINY, **arguments})
    assert not list(tmp_path.iterdir())


def test_other_devkits_are_left_alone(tmp_path: Path) -> None:
    folder = write_synthetic_devkit(tmp_path / "ours", num_train=1, num_val=0, image_size=64)
    content = contents(folder)
    with pytest.raises(InputError, match="other settings"):
        write_synthetic_devkit(tmp_path / "ours", num_train=1, num_val=0, image_size=64, seed=1)
    assert contents(folder) == content
    real = tmp_path / "real" / "VOCdevkit" / "VOC2012" / "JPEGImages"
    real.mkdir(parents=True)
    with pytest.raises(InputError, match="other files"):
        write_synthetic_devkit(tmp_path / "real", **TINY)
    assert not list(real.iterdir())
