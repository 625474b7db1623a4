import importlib
import math
import warnings
from typing import Any

import pytest
import torch

from ssdd_lightning.errors import InputError
from ssdd_lightning.functional import pair_affinity, random_walk

module = importlib.import_module("ssdd_lightning.functional.random_walk")  # the package's name is the function
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))


def dense(cam: torch.Tensor, affinity: torch.Tensor, beta: float = 8.0, steps: int = 256) -> torch.Tensor:
    """The formula as printed, of one image: every pair of pixels in one matrix, and that to the power of the steps."""
    height, width = cam.shape[1:]
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    half = [(dy, dx) for dy in range(5) for dx in range(-4, 5) if dy * dy + dx * dx < 25 and (dy > 0 or dx > 0)]
    weights = torch.eye(height * width, dtype=cam.dtype)
    for k, (dy, dx) in enumerate(half):
        near = (y[None] - y[:, None] == dy) & (x[None] - x[:, None] == dx)
        first, second = near.nonzero().T
        weights[first, second] = weights[second, first] = affinity[k].flatten()[first] ** beta
    transition = weights / weights.sum(0, keepdim=True)
    return (cam.flatten(1) @ torch.linalg.matrix_power(transition, steps)).view_as(cam)


def scene(
    height: int, width: int, spread: float = 0.3, channels: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores, one channel of them almost empty, and affinities of random features."""
    generator = torch.Generator().manual_seed(seed)
    cam = torch.rand(channels, height, width, generator=generator, dtype=torch.float64)
    cam[-1] *= cam[-1] > 0.9
    features = spread * torch.randn(1, 6, height, width, generator=generator, dtype=torch.float64)
    return cam.to(dtype), pair_affinity(features)[0].to(dtype)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest relative error of any entry."""
    return ((found - expected).abs() / expected.abs().clamp(min=1e-30)).max().item()


@pytest.mark.parity
@pytest.mark.parametrize("spread", [0.1, 0.5, 1.5])
@pytest.mark.parametrize(("height", "width"), [(40, 40), (23, 37), (37, 5), (3, 2), (1, 9), (1, 1)])
def test_equals_the_dense_formula(height: int, width: int, spread: float) -> None:
    cam, affinity = scene(height, width, spread)
    found = random_walk(cam, affinity)
    assert found.dtype == torch.float64
    assert relative(found, dense(cam, affinity)) < 1e-9


@pytest.mark.parity
def test_float32_is_as_close_as_the_dense_formula_in_float32() -> None:
    cam, affinity = scene(23, 37)
    exact = dense(cam, affinity)
    found = random_walk(cam.float(), affinity.float())
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 1e-5 * exact.max()


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 7, 64, 255, 1024])
def test_any_number_of_steps(steps: int) -> None:
    cam, affinity = scene(9, 7)
    assert relative(random_walk(cam, affinity, steps=steps), dense(cam, affinity, steps=steps)) < 1e-9


@pytest.mark.parametrize("beta", [0.5, 1.0, 20.0])
def test_any_exponent(beta: float) -> None:
    cam, affinity = scene(9, 7)
    assert relative(random_walk(cam, affinity, beta), dense(cam, affinity, beta)) < 1e-9


def test_a_batch_is_its_images() -> None:
    pairs = [scene(8, 11, seed=seed) for seed in range(3)]
    cam, affinity = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    found = random_walk(cam, affinity)
    assert found.shape == cam.shape
    assert found.is_contiguous()
    for one, (c, a) in zip(found, pairs, strict=True):
        torch.testing.assert_close(one, random_walk(c, a))
    torch.testing.assert_close(random_walk(cam[:, :1], affinity), found[:, :1])


@pytest.mark.parametrize("value", [1.0, 1e9, math.nan])
def test_invalid_pairs_are_never_read(value: float) -> None:
    cam, affinity = scene(9, 7)
    expected = random_walk(cam, affinity)
    poisoned = torch.where(affinity == 0, value, affinity)
    assert (poisoned != affinity).any()
    assert torch.equal(random_walk(cam, poisoned), expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-4), (torch.float64, 1e-11)])
def test_every_result_is_a_weighted_mean_of_scores(dtype: torch.dtype, tolerance: float) -> None:
    cam, affinity = scene(20, 30, spread=1.0, dtype=dtype)
    cam[0] = 0.7
    walked = random_walk(cam, affinity)
    torch.testing.assert_close(walked[0], cam[0], rtol=tolerance, atol=0)  # a constant stays
    assert walked.min() > -tolerance
    assert walked.max() < cam.max() + tolerance


def test_scores_do_not_cross_a_border_of_affinity_zero() -> None:
    features = torch.zeros(1, 1, 8, 12)
    features[..., 6:] = 1e3
    cam = torch.zeros(1, 8, 12)
    cam[0, :, 2] = 1
    walked = random_walk(cam, pair_affinity(features)[0])
    assert walked[0, :, 6:].abs().max() < 1e-6
    assert walked[0, :, :6].std() < 1e-3
    assert walked[0, :, :6].min() > 0.1


def test_half_precision_and_autocast_give_the_result_of_float32() -> None:
    cam, affinity = scene(10, 10, dtype=torch.float32)
    expected = random_walk(cam, affinity)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(random_walk(cam, affinity), expected)
    found = random_walk(cam.bfloat16(), affinity)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, random_walk(cam.bfloat16().float(), affinity))


def test_runs_in_inference_mode_and_after_it() -> None:
    cam, affinity = scene(6, 13)
    module._stencil.cache_clear()
    with torch.inference_mode():
        inside = random_walk(cam, affinity).clone()
    assert torch.equal(inside, random_walk(cam, affinity.requires_grad_()))


def test_no_gradient_no_warning_no_change_of_the_input() -> None:
    cam, affinity = scene(6, 6)
    cam.requires_grad_()
    kept = affinity.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not random_walk(cam, affinity).requires_grad
    assert torch.equal(kept, affinity)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_on_every_device(device: str) -> None:
    cam, affinity = scene(23, 37)
    found = random_walk(cam.to(device), affinity.to(device))
    assert found.device.type == device
    assert relative(found.cpu(), dense(cam, affinity)) < 1e-9


@pytest.mark.parametrize("steps", [0, 1, 5, 256, 1000])
def test_the_series_is_the_power(steps: int) -> None:
    coefficients = module.chebyshev_power(steps, 1e-12)
    angle = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    series = sum(c * torch.cos(k * angle) for k, c in enumerate(coefficients))
    torch.testing.assert_close(series * torch.ones_like(angle), angle.cos() ** steps, rtol=0, atol=1e-11)


def test_the_series_is_much_shorter_than_the_walk() -> None:
    assert len(module.chebyshev_power(256, torch.finfo(torch.float32).eps / 10)) == 91
    assert sum(module.chebyshev_power(256, 1e-3)) == pytest.approx(1, abs=1e-15)


def test_nothing_is_dense() -> None:
    cam, affinity = scene(30, 30)
    matrix = module.transition_matrix(affinity[None])
    assert matrix.layout == torch.sparse_csr
    assert len(matrix.values()) <= 69 * 900
    torch.testing.assert_close(matrix @ torch.ones(900, 1, dtype=cam.dtype), torch.ones(900, 1, dtype=cam.dtype))


WRONG = [
    ((3, 4, 5), (33, 4, 5), {}, "B x 34 x H x W"),
    ((3, 4, 5), (34, 5, 4), {}, "found 1 x 3 x 4 x 5 and 1 x 34 x 5 x 4; pool the scores"),
    ((2, 3, 4, 5), (1, 34, 4, 5), {}, "found 2 x 3 x 4 x 5 and 1 x 34"),
    ((3, 4, 5), (1, 34, 4, 5), {}, "found 3 x 4 x 5 and 1 x 34"),
    ((3, 4, 5), (34, 4, 5), {"radius": 3}, "B x 12 x H x W"),
    ((3, 4, 5), (34, 4, 5), {"beta": 0.0}, "beta > 0 and steps >= 0 .* found 0.0 and 256"),
    ((3, 4, 5), (34, 4, 5), {"steps": -1}, "found 8.0 and -1"),
]


@pytest.mark.parametrize(("cam", "affinity", "options", "message"), WRONG)
def test_bad_input_is_refused(
    cam: tuple[int, ...], affinity: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        random_walk(torch.zeros(cam), torch.zeros(affinity), **options)


def test_integers_are_refused() -> None:
    with pytest.raises(InputError, match=r"floats, found torch\.uint8"):
        random_walk(torch.zeros(1, 4, 4, dtype=torch.uint8), torch.zeros(34, 4, 4))
