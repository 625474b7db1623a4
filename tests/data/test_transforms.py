from typing import Any

import numpy as np
import pytest

from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.data.transforms import PAD_COLOUR, PlainTransform, SmallTransform, TrainTransform
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.masks import VOC_PALETTE

PRESENT = np.array([0, 2, 5], dtype=np.uint8)  # network indices of the maps' channels
STILL = (0.0, 0.0, 0.0, 0.0)


def make(
    crop_size: int = 64,
    resize: tuple[int, int] | None = None,
    keep_aspect: bool = True,
    flip: bool = True,
    color_jitter: tuple[float, float, float, float] = STILL,
) -> TrainTransform:
    return TrainTransform(Augmentation(crop_size, resize, keep_aspect, flip, color_jitter))


def blocks(height: int = 120, width: int = 160, cell: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture of coloured squares with the mask and the one-hot maps that say the same."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 3, (height // cell, width // cell))
    channel = coarse.repeat(cell, 0).repeat(cell, 1)
    mask = PRESENT[channel]
    maps = np.eye(3, dtype=np.float32)[channel]
    return VOC_PALETTE[mask], mask, maps


def inside(mask: np.ndarray) -> np.ndarray:
    """Pixels whose 9 x 9 neighbourhood lies in the crop and has one value."""
    framed = np.pad(mask, 4, constant_values=254)
    windows = np.lib.stride_tricks.sliding_window_view(framed, (9, 9))
    return (windows == mask[..., None, None]).all(axis=(2, 3))


@pytest.mark.parametrize("resize", [None, (80, 300)])
@pytest.mark.parametrize("keep_aspect", [True, False])
@pytest.mark.parametrize("crop_size", [64, 200])
def test_image_mask_and_maps_stay_aligned(resize: tuple[int, int] | None, keep_aspect: bool, crop_size: int) -> None:
    image, mask, maps = blocks()
    transform = make(crop_size, resize, keep_aspect)
    for seed in range(8):
        view = transform(image, {"knowledge": mask, "advice": maps}, PRESENT, seed)
        knowledge, advice = view["knowledge"], view["advice"]
        assert knowledge.shape == advice.shape == view["image"].shape[:2] == (crop_size, crop_size)
        np.testing.assert_array_equal(knowledge == 255, advice == 255)
        assert (knowledge == advice).mean() > 0.96  # nearest and bilinear part at the edges only
        sure = inside(knowledge) & (knowledge != 255)
        np.testing.assert_array_equal(view["image_raw"][sure], VOC_PALETTE[knowledge[sure]])
        assert sure.sum() > 200


def test_a_large_photo_is_reduced_first_and_stays_aligned() -> None:
    """Sizes that no power of two divides; one axis shrinks more than twice after the reduction."""
    image, mask, maps = blocks(967 // 80 * 80 + 80, 1283 // 80 * 80 + 80, 80)
    image, mask, maps = image[:967, :1283], mask[:967, :1283], maps[:967, :1283]
    for keep_aspect in (True, False):
        transform = make(64, (100, 300), keep_aspect)
        for seed in range(8):
            window = transform.draw(967, 1283, seed)
            assert window.reduction in {2, 4, 8}
            view = transform(image, {"knowledge": mask, "advice": maps}, PRESENT, seed)
            assert (view["knowledge"] == view["advice"]).mean() > 0.9
            sure = inside(view["knowledge"])
            np.testing.assert_array_equal(view["image_raw"][sure], VOC_PALETTE[view["knowledge"][sure]])
            assert sure.sum() > 100


def test_masks_are_not_shifted_against_maps() -> None:
    image, mask, maps = blocks()
    view = make(150, (150, 150), flip=False)(image, {"knowledge": mask, "advice": maps}, PRESENT, 0)
    differ = view["knowledge"] != view["advice"]
    assert differ.mean() < 0.015  # 0.027 with OpenCV's plain nearest


def test_small_images_lie_anywhere_and_padding_is_known() -> None:
    image, mask, maps = blocks(40, 60)
    transform = make(100, color_jitter=(0.3, 0.3, 0.3, 0.1))
    corners = set()
    for seed in range(30):
        view = transform(image, {"knowledge": mask, "advice": maps}, PRESENT, seed)
        padding = view["knowledge"] == 255
        assert padding.sum() == 100 * 100 - 40 * 60
        np.testing.assert_array_equal(padding, view["advice"] == 255)
        np.testing.assert_array_equal(padding, view["valid"] == 0)
        for key in ("image", "image_raw"):
            assert (view[key][padding] == PAD_COLOUR).all()
        corners.add((int(padding.all(axis=1).argmin()), int(padding.all(axis=0).argmin())))
    assert len(corners) > 20


def test_only_the_image_is_jittered() -> None:
    image, mask, _ = blocks()
    view = make(color_jitter=(0.3, 0.3, 0.3, 0.1))(image, {"knowledge": mask}, PRESENT, 0)
    assert (view["image"] != view["image_raw"]).any()
    sure = inside(view["knowledge"])
    np.testing.assert_array_equal(view["image_raw"][sure], VOC_PALETTE[view["knowledge"][sure]])


def test_maps_are_decided_after_the_warp() -> None:
    """Stripes of two classes of which one wins on average: argmax before the warp would keep stripes."""
    maps = np.zeros((64, 64, 3), dtype=np.float32)
    maps[..., 0] = 0.45
    maps[:, 0::2, 1] = 0.44
    maps[:, 1::2, 1] = 1.0
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    view = make(32, (32, 32), flip=False)(image, {"knowledge": maps}, PRESENT, 0)
    assert (view["knowledge"] == 2).all()


@pytest.mark.parametrize("side", [50, 90])
@pytest.mark.parametrize("channels", [2, 5, 9])
def test_maps_may_have_any_number_of_channels(channels: int, side: int) -> None:
    maps = np.zeros((50, 70, channels), dtype=np.float32)
    for channel in range(channels):
        maps[:, 7 * channel :, channel] = 1 + channel  # columns of 7 pixels, the last channel to the edge
    present = np.arange(channels, dtype=np.uint8)
    image = np.zeros((50, 70, 3), dtype=np.uint8)
    view = make(90, (side, side), flip=False)(image, {"knowledge": maps}, present, 0)
    row = view["knowledge"][45] if side == 90 else view["knowledge"].min(axis=0)
    assert set(row.tolist()) - {255} == set(range(channels))
    assert (np.diff(row[row != 255].astype(int)) >= 0).all()


def test_longest_sides_fill_the_range_and_keep_the_shape() -> None:
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    mask = np.zeros((100, 200), dtype=np.uint8)
    sizes = []
    for seed in range(60):
        seen = make(64, (40, 44))(image, {"knowledge": mask}, PRESENT, seed)["knowledge"] == 0
        sizes.append((int(seen.any(axis=0).sum()), int(seen.any(axis=1).sum())))
    assert {width for width, _ in sizes} == set(range(40, 45))
    assert all(height == round(width / 2) for width, height in sizes)
    square = make(64, (40, 44), keep_aspect=False)(image, {"knowledge": mask}, PRESENT, 0)["knowledge"] == 0
    assert square.any(axis=0).sum() == square.any(axis=1).sum()


def test_draws_are_repeated_by_their_seeds_and_independent_of_each_other() -> None:
    down, across = np.mgrid[0:100, 0:100].astype(np.uint8) * 2
    image = np.stack([across, down, down], axis=2)
    transform = make(20)

    def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        views = np.stack([transform(image, {}, PRESENT, seed)["image_raw"] for seed in range(400)]).astype(int)
        flipped = views[:, 0, 0, 0] > views[:, 0, -1, 0]
        left = views[..., 0].min(axis=(1, 2))
        return flipped, np.where(flipped, 198 - 38 - left, left), views[..., 1].min(axis=(1, 2))

    flipped, left, top = draw()
    assert 0.4 < flipped.mean() < 0.6
    assert min(len(set(left.tolist())), len(set(top.tolist()))) > 60
    # one number for both would move flip and window together
    assert np.abs(np.corrcoef([flipped, left, top]) - np.eye(3)).max() < 0.2
    assert all(np.array_equal(one, two) for one, two in zip((flipped, left, top), draw(), strict=True))


def test_evaluation_leaves_everything_at_its_size() -> None:
    image, mask, maps = blocks()
    view = PlainTransform()(image, {"knowledge": mask, "advice": maps}, PRESENT, 0)
    np.testing.assert_array_equal(view["image"], image)
    np.testing.assert_array_equal(view["image_raw"], image)
    np.testing.assert_array_equal(view["knowledge"], mask)
    np.testing.assert_array_equal(view["advice"], mask)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"crop_size": 0}, "crop_size"),
        ({"resize": (512, 448)}, "resize"),
        ({"resize": (0, 448)}, "resize"),
        ({"color_jitter": (0.3, 0.3)}, "color_jitter"),
        ({"color_jitter": (0.3, -0.3, 0, 0)}, "color_jitter"),
        ({"color_jitter": (0.3, 0.3, 0, 0.6)}, "color_jitter"),
    ],
)
def test_bad_options_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**option)


def test_a_large_photo_is_made_small_to_be_looked_at() -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 40:] = 200
    mask = np.where(np.arange(80) < 40, 1, 255).astype(np.uint8)[None].repeat(40, 0)
    present = np.array([0, 1], np.uint8)
    view = SmallTransform(20)(image, {"knowledge": mask}, present)
    assert {key: array.shape[:2] for key, array in view.items()} == dict.fromkeys(view, (10, 20))
    assert (view["knowledge"] == np.where(np.arange(20) < 10, 1, 255)).all()
    assert view["valid"].all()
    np.testing.assert_array_equal(view["image"][:, [0, -1], 0], [[0, 200]] * 10)
    assert SmallTransform(80)(image, {}, present)["image"].shape == image.shape
