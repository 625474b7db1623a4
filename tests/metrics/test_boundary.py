import numpy as np
import pytest
from scipy import ndimage

from ssdd_lightning.metrics.boundary import (
    boundary_counts,
    boundary_depth,
    boundary_iou,
    near_other_value,
    trimap_counts,
)
from ssdd_lightning.metrics.confusion import confusion_matrix


def blobs(
    seed: int, shape: tuple[int, int] = (61, 83), values: tuple[int, ...] = (0, 1, 2, 255), smooth: float = 3.0
) -> np.ndarray:
    """A mask of smooth regions, as masks of photos are."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), smooth) for _ in values]
    return np.array(values, np.uint8)[np.argmax(fields, axis=0)]


def region(mask: np.ndarray, depth: int) -> np.ndarray:
    """The paper's construction for one binary mask: pad by background, erode `depth` times, subtract."""
    eroded = ndimage.binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=depth)[1:-1, 1:-1]
    return mask & ~eroded


@pytest.mark.parity
@pytest.mark.parametrize("shape", [(61, 83), (150, 40), (4, 200), (1, 1), (500, 375)])
def test_boundary_counts_agree_with_erosion_class_by_class(shape: tuple[int, int]) -> None:
    prediction, truth = blobs(1, shape), blobs(2, shape)
    depth = max(1, round(0.02 * (shape[0] ** 2 + shape[1] ** 2) ** 0.5))
    counts = boundary_counts(prediction, truth, 4)
    for index in range(4):
        true = region(truth == index, depth)
        predicted = region((prediction == index) & (truth != 255), depth)
        assert counts[:, index].tolist() == [(true & predicted).sum(), true.sum(), predicted.sum()]


def test_depth_of_a_voc_photo() -> None:
    assert boundary_depth(375, 500) == 12
    assert boundary_depth(10, 10) == 1


def test_boundary_iou_of_a_moved_square() -> None:
    truth = np.zeros((50, 50), np.uint8)  # depth 1
    truth[10:20, 10:20] = 1
    prediction = np.roll(truth, 1, axis=1)
    both, frame = 2 * 9, 36  # the long sides overlap but for one pixel; of the short ones only their ends
    iou = boundary_iou(boundary_counts(prediction, truth, 3))
    assert iou[1] == pytest.approx(both / (2 * frame - both))
    assert np.isnan(iou[2])


def test_a_prediction_that_is_right_where_it_is_scored_reaches_one() -> None:
    truth = blobs(3)
    filled = np.where(truth == 255, 1, truth).astype(np.uint8)
    np.testing.assert_array_equal(boundary_iou(boundary_counts(filled, truth, 3)), np.ones(3))


def test_boundary_iou_falls_where_only_the_contour_is_wrong() -> None:
    truth = blobs(4, (200, 200), values=(0, 1), smooth=12)
    wrong = ndimage.binary_dilation(truth == 1, iterations=4).astype(np.uint8)
    iou = boundary_iou(boundary_counts(wrong, truth, 2))
    hits = (wrong == 1) & (truth == 1)
    assert iou[1] < 0.65 * hits.sum() / ((wrong == 1) | (truth == 1)).sum()


@pytest.mark.parity
@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 40, 100])
def test_near_other_value_is_the_chessboard_distance(width: int) -> None:
    mask = blobs(5)
    distance = np.zeros(mask.shape)
    for value in np.unique(mask):
        inside = mask == value
        distance[inside] = ndimage.distance_transform_cdt(inside, "chessboard")[inside]
    np.testing.assert_array_equal(near_other_value(mask, width), distance <= width)


def test_nothing_is_near_in_a_mask_of_one_value() -> None:
    assert not near_other_value(np.full((5, 7), 3, np.uint8), 30).any()


@pytest.mark.parity
def test_trimap_is_the_confusion_of_the_pixels_in_the_band() -> None:
    prediction, truth = blobs(6), blobs(7)
    widths = (1, 3, 10, 200)
    counts = trimap_counts(prediction, truth, 3, widths)
    for width, confusion in zip(widths, counts, strict=True):
        outside = np.ones(truth.shape, bool)
        for value in np.unique(truth):
            inside = truth == value
            outside[inside] = (ndimage.distance_transform_cdt(inside, "chessboard") > width)[inside]
        band = np.where(outside, 255, truth).astype(np.uint8)
        assert confusion.tolist() == confusion_matrix(prediction, band, 3).tolist()
    assert counts[-1].tolist() == confusion_matrix(prediction, truth, 3).tolist()
    assert counts[0].sum() < counts[1].sum() < counts[2].sum()


def test_the_band_begins_where_the_ignored_ring_ends() -> None:
    truth = np.zeros((1, 20), np.uint8)
    truth[0, 8:12] = 255
    truth[0, 12:] = 1
    counts = trimap_counts(truth, truth, 2, (1, 2))
    assert counts[0].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert counts[1].tolist() == [[2, 0, 0], [0, 2, 0]]
