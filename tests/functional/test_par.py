import math
from typing import Any

import numpy as np
import pytest
import torch

from ssdd_lightning.errors import InputError
from ssdd_lightning.functional import pixel_adaptive_refinement
from ssdd_lightning.functional.par import DILATIONS
from ssdd_lightning.nn import PAR


def oracle(image: np.ndarray, shares: np.ndarray, iterations: int, dilations: tuple[int, ...]) -> np.ndarray:
    """Naive loops in double precision over one image, 3 x H x W, and C x H x W shares that sum to one."""
    _, height, width = image.shape
    steps = [(y * d, x * d) for d in dilations for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]
    distances = [math.hypot(*step) for step in steps]
    spread = np.std(distances, ddof=1)
    position = np.exp([-((distance / spread / 0.3) ** 2) for distance in distances])
    position /= position.sum()
    weights = np.zeros((height, width, len(steps)))
    places = {}
    for y in range(height):
        for x in range(width):
            at = [(min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)) for dy, dx in steps]
            places[y, x] = at
            exponents = np.zeros(len(steps))
            for channel in range(3):
                values = [float(image[channel, i, j]) for i, j in at]
                deviation = np.std(values, ddof=1) + 1e-8
                for n, value in enumerate(values):
                    exponents[n] -= ((value - float(image[channel, y, x])) / deviation / 0.3) ** 2 / 3
            colour = np.exp(exponents - exponents.max())
            weights[y, x] = (colour / colour.sum() + 0.01 * position) / 1.01
    shares = shares.astype(np.float64)
    for _ in range(iterations):
        result = np.zeros_like(shares)
        for (y, x), at in places.items():
            for n, (i, j) in enumerate(at):
                result[:, y, x] += weights[y, x, n] * shares[:, i, j]
        shares = result
    return shares


def scene(batch: int = 2, classes: int = 3, height: int = 9, width: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)
    image[:, :, : height // 2] //= 4
    return image, torch.rand(batch, classes, height, width, generator=generator).softmax(1)


@pytest.mark.parity
@pytest.mark.parametrize("dilations", [(1,), (1, 2, 4), DILATIONS])
@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_equals_naive_loops(iterations: int, dilations: tuple[int, ...]) -> None:
    """Neighbours beyond the border are the nearest pixels, also where the image is smaller than the dilation."""
    image, shares = scene()
    refined = pixel_adaptive_refinement(image, shares, None, iterations, dilations)
    for own, given, found in zip(image, shares, refined, strict=True):
        expected = oracle(own.numpy(), given.numpy(), iterations, dilations)
        assert np.abs(found.numpy() - expected).max() < 1e-5


def test_probabilities_stay_probabilities() -> None:
    image, shares = scene()
    refined = pixel_adaptive_refinement(image, 7 * shares)
    assert refined.dtype == torch.float32
    assert refined.min() >= 0
    assert torch.allclose(refined.sum(1), torch.ones(2, 9, 11), atol=1e-5)
    assert torch.allclose(refined, pixel_adaptive_refinement(image, shares), atol=1e-6)


def test_a_flat_image_averages_and_an_edge_stops() -> None:
    shares = torch.zeros(1, 2, 8, 8)
    shares[:, 0, :, :4], shares[:, 1, :, 4:] = 1, 1
    flat = torch.full((1, 3, 8, 8), 90, dtype=torch.uint8)
    edge = flat.clone()
    edge[..., 4:] = 200
    across = pixel_adaptive_refinement(flat, shares, iterations=5, dilations=(1, 2))
    along = pixel_adaptive_refinement(edge, shares, iterations=5, dilations=(1, 2))
    assert across[0, 1, 4, 3] > 0.3
    assert along[0, 1, 4, 3] < 0.15


def test_absent_classes_take_no_part() -> None:
    image, shares = scene(classes=4)
    present = torch.tensor([[True, False, True, True], [True, True, False, False]])
    refined = pixel_adaptive_refinement(image, shares, present)
    assert refined[~present].abs().max() == 0
    alone = pixel_adaptive_refinement(image[:1], shares[:1, [0, 2, 3]])
    assert torch.allclose(refined[0, [0, 2, 3]], alone[0], atol=1e-6)


def test_where_nothing_is_known_the_present_classes_are_equal() -> None:
    image, shares = scene(batch=1)
    present = torch.tensor([[True, False, True]])
    refined = pixel_adaptive_refinement(image, torch.zeros_like(shares), present)
    assert torch.allclose(refined[0, :, 4, 4], torch.tensor([0.5, 0.0, 0.5]), atol=1e-6)


def test_images_of_a_batch_do_not_mix() -> None:
    image, shares = scene(batch=3)
    whole = pixel_adaptive_refinement(image, shares)
    for i in range(3):
        assert torch.allclose(whole[i], pixel_adaptive_refinement(image[i : i + 1], shares[i : i + 1])[0], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_takes_any_float_and_leaves_its_input_alone(dtype: torch.dtype) -> None:
    image, shares = scene()
    given = shares.to(dtype).requires_grad_()
    refined = pixel_adaptive_refinement(image, given)
    assert refined.dtype == torch.float32
    assert not refined.requires_grad
    assert torch.equal(given.detach(), shares.to(dtype))


def test_the_module_keeps_its_settings() -> None:
    image, shares = scene()
    mapping = PAR(iterations=3, dilations=(1, 2))
    expected = pixel_adaptive_refinement(image, shares, iterations=3, dilations=(1, 2))
    assert torch.equal(mapping(image, shares), expected)
    assert not list(mapping.parameters())
    assert str(mapping) == "PAR(iterations=3, dilations=(1, 2))"
    assert torch.equal(PAR()(image, shares), pixel_adaptive_refinement(image, shares))


BAD: dict[str, dict[str, Any]] = {
    "image must be B x 3 x H x W uint8": {"image": torch.zeros(2, 3, 9, 11)},
    "images' number and size": {"probabilities": torch.zeros(2, 3, 9, 10)},
    "must be B x C x H x W floats": {"probabilities": torch.zeros(2, 3, 9, 11, dtype=torch.long)},
    "found -1 and": {"iterations": -1},
    r"dilations of 1 or more; found 10 and \(\)": {"dilations": ()},
    "2 x 3 bool": {"present": torch.ones(2, 4, dtype=torch.bool)},
    "at least one present class; found an image with none": {"present": torch.zeros(2, 3, dtype=torch.bool)},
    r"must be B x C x H x W floats of .*; found \(2, 0, 9, 11\)": {"probabilities": torch.zeros(2, 0, 9, 11)},
    **{
        f"must be finite and 0 or more; found {found}": {"probabilities": torch.full((2, 3, 9, 11), value)}
        for found, value in (("nan to nan", math.nan), ("inf to inf", math.inf), ("-0.1 to -0.1", -0.1))
    },
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_gets_one_sentence(message: str) -> None:
    image, shares = scene()
    with pytest.raises(InputError, match=message):
        pixel_adaptive_refinement(**{"image": image, "probabilities": shares, **BAD[message]})
