from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ssdd_lightning.functional import cam_background, normalize_cam, propagate_cam, sum_cams

Maps = npt.NDArray[np.float64]  # images x foreground classes x rows x columns


def summed(cams: list[Maps], height: int, width: int) -> Maps:
    """The sum of maps resized bilinearly, pixel by pixel; the centre of pixel 0 is at 1/2, and edges repeat."""
    images, classes = cams[0].shape[:2]
    total = np.zeros((images, classes, height, width))
    for image, cls, row, column in np.ndindex(total.shape):
        for cam in cams:
            h, w = cam.shape[2:]
            y = min(max((row + 0.5) * h / height - 0.5, 0), h - 1)
            x = min(max((column + 0.5) * w / width - 0.5, 0), w - 1)
            for i in range(h):
                for j in range(w):
                    share = max(1 - abs(y - i), 0) * max(1 - abs(x - j), 0)
                    total[image, cls, row, column] += share * cam[image, cls, i, j]
    return total


def normalized(cam: Maps, present: list[list[bool]]) -> Maps:
    normal = np.zeros_like(cam)
    for image, cls, row, column in np.ndindex(cam.shape):
        if present[image][cls + 1]:
            largest = max(float(score) for score in cam[image, cls].ravel())
            normal[image, cls, row, column] = cam[image, cls, row, column] / max(largest, 1e-5)
    return normal


def background_of(normal: Maps, alpha: float) -> Maps:
    images, classes, height, width = normal.shape
    background = np.zeros((images, 1, height, width))
    for image, _, row, column in np.ndindex(background.shape):
        largest = max(float(normal[image, cls, row, column]) for cls in range(classes))
        background[image, 0, row, column] = (1 - largest) ** alpha
    return background


def test_cams_equal_the_formulas_written_out() -> None:
    """Sum, normalisation and background in float64, pixel by pixel."""
    draw = np.random.default_rng(0)
    cams = [draw.random((3, 4, *size)) * 9 for size in ((4, 5), (6, 8), (11, 9), (1, 2))]
    for cam in cams:
        cam[0, 1] *= 50  # absent, and would be the largest
        cam[1, 2] = 0  # present, and never fires
        cam[2, 3] *= 1e-7  # present, and hardly fires: not blown up to one
    present = [[True, True, False, True, True], [True, False, True, True, False], [True, True, True, False, True]]
    total = summed(cams, 6, 8)
    assert 0 < total[2, 3].max() < 1e-5
    found = sum_cams([torch.from_numpy(cam) for cam in cams], (6, 8))
    torch.testing.assert_close(found, torch.from_numpy(total).float(), rtol=1e-5, atol=0)

    normal = normalized(total, present)
    assert [normal[0, 1].max(), normal[1, 2].max(), normal[1, 1].max()] == [0, 0, 1]
    exact = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-15)
    labels = torch.tensor(present)
    exact(normalize_cam(torch.from_numpy(total), labels), torch.from_numpy(normal))
    torch.testing.assert_close(normalize_cam(found, labels), torch.from_numpy(normal).float(), rtol=1e-5, atol=0)
    for alpha in (0.5, 4, 24):
        expected = torch.from_numpy(background_of(normal, alpha))
        exact(cam_background(torch.from_numpy(normal), alpha), expected)


def test_normalize_cam_on_a_hand_computed_case() -> None:
    cam = torch.tensor([[[[1.0, 4.0]], [[6.0, 3.0]], [[5.0, 5.0]]], [[[2.0, 0.0]], [[7.0, 7.0]], [[0.0, 0.0]]]])
    present = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 1]], dtype=torch.bool)
    expected = [
        [[[0.25, 1.0]], [[1.0, 0.5]], [[0.0, 0.0]]],
        # the absent class is zero, and so is a present class that never fires
        [[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]],
    ]
    torch.testing.assert_close(normalize_cam(cam, present), torch.tensor(expected))


def test_normalize_cam_stays_in_range_and_reaches_one() -> None:
    cam = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)) * 40
    normal = normalize_cam(cam, torch.ones(2, 4, dtype=torch.bool))
    assert normal.min() >= 0
    assert torch.equal(normal.amax((2, 3)), torch.ones(2, 3))


def test_sum_cams_of_one_size_is_the_plain_sum() -> None:
    a, b = torch.rand(2, 1, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sum_cams([a, b], (4, 5)), a + b)


def test_sum_cams_resizes_bilinearly() -> None:
    small = torch.tensor([[[[0.0, 4.0]]]])  # pixel centres at 1/4 and 3/4 of the width
    large = torch.tensor([[[[1.0, 1.0, 1.0, 1.0]]]])
    torch.testing.assert_close(sum_cams([small, large], (1, 4)), torch.tensor([[[[1.0, 2.0, 4.0, 5.0]]]]))


def test_sum_cams_gives_float32_from_half_precision() -> None:
    assert sum_cams([torch.ones(1, 1, 2, 2).half()], (4, 4)).dtype == torch.float32


@pytest.mark.parametrize(("alpha", "expected"), [(1, [0.75, 0.5, 0.0, 1.0]), (2, [0.5625, 0.25, 0.0, 1.0])])
def test_cam_background_on_a_hand_computed_case(alpha: int, expected: list[float]) -> None:
    cam = torch.tensor([[[[0.25, 0.1, 1.0, 0.0]], [[0.0, 0.5, 0.3, 0.0]]]])
    background = cam_background(cam, alpha)
    assert background.shape == (1, 1, 1, 4)
    torch.testing.assert_close(background.flatten(), torch.tensor(expected))


def test_a_larger_exponent_makes_less_background() -> None:
    cam = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    low, high = cam_background(cam, 4), cam_background(cam, 24)
    assert (high <= low).all()
    assert high.sum() < low.sum()


def test_spreading_is_a_weighted_mean_of_all_patches() -> None:
    generator = torch.Generator().manual_seed(0)
    cam = torch.rand(2, 3, 2, 4, generator=generator, dtype=torch.float64)
    attention = torch.rand(2, 8, 8, generator=generator, dtype=torch.float64)
    attention /= attention.sum(2, keepdim=True)
    spread = propagate_cam(cam, attention)
    for image in range(2):
        for cls in range(3):
            for patch in range(8):
                shares = [
                    (attention[image, patch, other], cam[image, cls, other // 4, other % 4]) for other in range(8)
                ]
                expected = sum(share * score for share, score in shares)
                assert spread[image, cls, patch // 4, patch % 4].item() == pytest.approx(expected.item(), abs=1e-12)
    assert torch.allclose(propagate_cam(torch.ones_like(cam), attention), torch.ones_like(cam))
    assert torch.equal(propagate_cam(cam, torch.eye(8, dtype=torch.float64).expand(2, 8, 8)), cam)
