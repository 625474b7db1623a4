from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate

from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.data.classes import VOC_CLASSES, ClassTable
from ssdd_lightning.data.dataset import FolderDataset, Record, check_exist, select_records
from ssdd_lightning.data.sampling import Draw, seed_for
from ssdd_lightning.data.transforms import PlainTransform, TrainTransform
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.masks import read_image, read_mask, write_mask
from ssdd_lightning.storage.score_maps import write_map

SIZE = (40, 60)
PETS = ClassTable.select(VOC_CLASSES, ["cat", "dog"])
ALL = ClassTable.select(VOC_CLASSES, None)


@pytest.fixture
def record(devkit: Path) -> Record:
    return Record("c_both", devkit / "JPEGImages" / "c_both.jpg", (8, 12))


def test_a_sample_has_the_documented_tensors(devkit: Path, record: Record) -> None:
    write_map(devkit / "K" / "c_both.map.png", [0, 8, 12], np.full((3, *SIZE), 0.5))
    full = replace(
        record,
        mask=devkit / "SegmentationClass" / "c_both.png",
        guides={
            "knowledge": devkit / "K" / "c_both.map.png",
            "advice": devkit / "SegmentationClass" / "c_both.png",
        },
    )
    sample: dict[str, Any] = FolderDataset([full], PETS, PlainTransform())[0]
    for key in ("image", "image_raw"):
        assert (sample[key].shape, sample[key].dtype) == ((3, *SIZE), torch.uint8)
    for key in ("knowledge", "advice", "mask"):
        assert (sample[key].shape, sample[key].dtype) == (SIZE, torch.long)
    assert sample["image_labels"].tolist() == [True, True, True]
    assert sample["name"] == "c_both"
    expected = torch.from_numpy(PETS.to_network()[read_mask(full.mask)].astype(np.int64))
    assert torch.equal(sample["mask"], expected)
    assert sample["mask"].unique().tolist() == [0, 1, 2, 255]


def test_maps_are_handed_on_as_scores(devkit: Path, record: Record) -> None:
    stored = np.random.default_rng(0).random((3, *SIZE))
    write_map(devkit / "M" / "c_both.map.png", [0, 8, 12], stored)
    sample: dict[str, Any] = FolderDataset(
        [replace(record, maps=devkit / "M" / "c_both.map.png")], PETS, PlainTransform()
    )[0]
    assert sample["maps"].dtype == torch.float32
    np.testing.assert_allclose(sample["maps"], stored, atol=4e-3)


def test_parts_that_a_record_lacks_are_absent_and_samples_collate(record: Record) -> None:
    dataset = FolderDataset([record, record], PETS, TrainTransform(Augmentation(32, color_jitter=(0.1, 0.1, 0.1, 0.1))))
    batch = default_collate([dataset[0], dataset[1]])
    assert set(batch) == {"image", "image_raw", "image_labels", "valid", "name"}
    assert (batch["valid"].shape, batch["valid"].dtype) == ((2, 32, 32), torch.bool)
    assert batch["image"].shape == (2, 3, 32, 32)
    assert batch["image_labels"].shape == (2, 3)
    assert batch["name"] == ["c_both", "c_both"]


def test_truth_of_other_classes_is_ignored(devkit: Path, record: Record) -> None:
    truth = replace(record, mask=devkit / "SegmentationClass" / "d_bus.png")
    sample: dict[str, Any] = FolderDataset([truth], PETS, PlainTransform())[0]
    mask = sample["mask"]
    assert mask.unique().tolist() == [0, 255]
    assert (mask[8:30, 6:28] == 255).all()


@pytest.mark.parametrize("part", ["mask", "knowledge"])
def test_a_mask_of_another_size_is_refused_by_name(devkit: Path, record: Record, part: str) -> None:
    path = devkit / "small.png"
    write_mask(path, np.zeros((40, 59), dtype=np.uint8))
    broken = replace(record, mask=path) if part == "mask" else replace(record, guides={part: path})
    with pytest.raises(InputError, match=rf"{part} .*small\.png is 59 x 40 pixels, its image .*c_both\.jpg is 60 x 40"):
        FolderDataset([broken], PETS, PlainTransform())[0]


def test_maps_of_another_size_are_refused_by_name(devkit: Path, record: Record) -> None:
    write_map(devkit / "small.map.png", [0, 8, 12], np.ones((3, 40, 59)))
    with pytest.raises(
        InputError, match=r"map .*small\.map\.png is 59 x 40 pixels, its image .*c_both\.jpg is 60 x 40"
    ):
        FolderDataset([replace(record, maps=devkit / "small.map.png")], PETS, PlainTransform())[0]


def test_truth_out_of_range_is_refused_by_name(devkit: Path, record: Record) -> None:
    write_mask(devkit / "bad.png", np.full(SIZE, 21))
    with pytest.raises(InputError, match=r"bad\.png holds the value 21"):
        FolderDataset([replace(record, mask=devkit / "bad.png")], PETS, PlainTransform())[0]


def test_a_truncated_photo_is_refused_by_name(devkit: Path, record: Record) -> None:
    record.image.write_bytes(record.image.read_bytes()[:900])
    with pytest.raises(InputError, match=r"cannot read image .*c_both\.jpg"):
        FolderDataset([record], PETS, PlainTransform())[0]


def test_chosen_classes_choose_images(record: Record) -> None:
    records = [replace(record, labels=labels) for labels in ((8,), (8, 12), (8, 15), (15,))]
    assert [kept.labels for kept in select_records(records, PETS, "x")] == [(8,), (8, 12)]
    assert select_records(records, ALL, "x") == records
    with pytest.raises(InputError, match="none of 2 images shows only cat, dog by x"):
        select_records(records[2:], PETS, "x")


@pytest.mark.parametrize("table", [PETS, ALL])
def test_an_image_without_label_is_no_image_of_other_classes(record: Record, table: ClassTable) -> None:
    records = [replace(record, labels=labels) for labels in ((8,), ())]
    with pytest.raises(InputError, match=r"c_both\.jpg has no label in x; label it"):
        select_records(records, table, "x")


def test_missing_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(InputError, match=r"map .*b does not exist \(2 of 3 are missing\); write it"):
        check_exist([tmp_path / "a", tmp_path / "b", tmp_path / "c"], "map", "write it")


def test_a_large_photo_is_decoded_small_and_its_guides_stay_aligned(devkit: Path) -> None:
    height, width = 301, 403
    cells = np.random.default_rng(0).integers(0, 2, (8, 11)).repeat(40, 0).repeat(40, 1)[:height, :width]
    mask = np.array([0, 8], np.uint8)[cells]
    photo, guides = devkit / "large.jpg", {"knowledge": devkit / "large.png", "advice": devkit / "large.map.png"}
    Image.fromarray(np.where(cells[..., None], (200, 40, 40), (30, 60, 220)).astype(np.uint8)).save(photo, quality=95)
    write_mask(guides["knowledge"], mask)
    write_map(guides["advice"], [0, 8], np.eye(2)[cells].transpose(2, 0, 1))
    transform = TrainTransform(Augmentation(48, (60, 90)))
    assert transform.draw(height, width, 0).reduction == 4
    dataset = FolderDataset([Record("large", photo, (8,), guides=guides)], PETS, transform)
    for epoch in range(10):
        sample: dict[str, Any] = dataset[Draw(0, epoch)]
        red = (sample["image_raw"][0] > 115).long()
        for key in guides:
            differ = (sample[key] != red) & sample["valid"]
            assert sample["valid"].sum() > 1000
            assert differ.sum() / sample["valid"].sum() < 0.08  # pixels at the edges of the cells
        whole = transform(
            read_image(photo), {"knowledge": mask // 8}, np.array([0, 1], np.uint8), seed_for(0, epoch, 0)
        )
        assert torch.equal(sample["knowledge"], torch.from_numpy(whole["knowledge"]).long())
        distance = sample["image_raw"].permute(1, 2, 0).numpy().astype(int) - whole["image_raw"]
        assert np.abs(distance).mean() < 3


def test_a_transform_of_ones_own_gets_the_whole_photo(devkit: Path, record: Record) -> None:
    seen = []

    class Own(TrainTransform):
        def __call__(self, image: Any, guides: Any, present: Any, seed: int) -> Any:
            seen.append(image.shape)
            return super().__call__(image, guides, present, seed)

    FolderDataset([record], PETS, Own(Augmentation(8, (10, 10))))[0]
    assert seen == [(*SIZE, 3)]
