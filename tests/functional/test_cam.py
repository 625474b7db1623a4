import pytest
import torch

from ssdd_lightning.functional import cam_background, normalize_cam, propagate_cam, sum_cams


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
