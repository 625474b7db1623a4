from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.masks import VOC_PALETTE, opened_photo, read_image, read_mask, read_pixels, write_mask
from tests.helpers.files import write_photo


def test_palette_is_the_devkits() -> None:
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    assert {index: tuple(VOC_PALETTE[index].tolist()) for index in known} == known
    assert len({tuple(colour) for colour in VOC_PALETTE.tolist()}) == 256


def test_every_value_survives_with_the_palette(tmp_path: Path) -> None:
    mask = np.arange(256, dtype=np.int64).reshape(8, 32)
    write_mask(tmp_path / "m.png", mask)
    assert read_mask(tmp_path / "m.png").dtype == np.uint8
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), mask)
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image.convert("RGB")), VOC_PALETTE[mask])


def test_grey_and_few_bit_palette_masks_are_indices(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 3], [2, 0, 1]], dtype=np.uint8)
    Image.fromarray(mask).save(tmp_path / "grey.png")
    indexed = Image.fromarray(mask)
    indexed.putpalette(VOC_PALETTE[:4].tobytes())
    indexed.save(tmp_path / "two_bits.png", bits=2)
    for name in ("grey.png", "two_bits.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), mask)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "1", "I;16"])
def test_colour_masks_are_refused_by_name(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 3)).save(tmp_path / "colour.png")
    with pytest.raises(InputError, match=r"colour\.png has mode .*convert colours"):
        read_mask(tmp_path / "colour.png")


def test_damaged_masks_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    write_mask(path, np.random.default_rng(0).integers(0, 256, (64, 64)))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:20], b"", b"no image"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"cannot read mask .*m\.png"):
            read_mask(path)
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        read_mask(tmp_path / "gone.png")
    with pytest.raises(InputError, match="cannot read mask"):
        read_mask(tmp_path)
    Image.new("L", (4, 4)).save(tmp_path / "lossy.png", format="JPEG")
    with pytest.raises(InputError, match="expected an indexed PNG"):
        read_mask(tmp_path / "lossy.png")


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((2, 2, 3), int),
        np.zeros((2, 2)),
        np.full((2, 2), 256),
        np.full((2, 2), -1),
        np.zeros((0, 4), int),
    ],
)
def test_what_is_no_mask_is_not_written(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"cannot write mask .*m\.png"):
        write_mask(tmp_path / "m.png", mask)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_photos_come_as_rgb(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (5, 4)).save(tmp_path / "p.jpg")
    photo = read_image(tmp_path / "p.jpg")
    assert (photo.shape, photo.dtype) == ((4, 5, 3), np.dtype(np.uint8))


def test_damaged_photos_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "p.jpg"
    write_photo(path, (64, 64))
    whole = path.read_bytes()
    for content in (whole[:-600], b"no image"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"cannot read image .*p\.jpg"):
            read_image(path)
    with pytest.raises(InputError, match=r"gone\.jpg does not exist"):
        read_image(tmp_path / "gone.jpg")


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "jpg"), ("L", "jpg"), ("CMYK", "jpg"), ("RGB", "png"), ("P", "png")]
)
@pytest.mark.parametrize("reduction", [2, 4, 16])
def test_a_photo_is_read_at_a_smaller_size(tmp_path: Path, mode: str, suffix: str, reduction: int) -> None:
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)).resize((101, 67))
    path = tmp_path / f"x.{suffix}"
    smooth.convert(mode).save(path)
    whole = read_image(path)[: 67 // reduction * reduction, : 101 // reduction * reduction].astype(float)
    blocks = whole.reshape(67 // reduction, reduction, 101 // reduction, reduction, 3)
    with opened_photo(path) as photo:
        pixels = read_pixels(photo, reduction)
        decoded = photo.size
    assert pixels.shape == (67 // reduction, 101 // reduction, 3)
    wrong = np.abs(pixels - blocks.mean((1, 3)))
    assert (wrong.mean() < 2) if suffix == "jpg" else (wrong.max() < 1)
    if suffix == "jpg":
        assert decoded == (-(-101 // min(reduction, 8)), -(-67 // min(reduction, 8)))
