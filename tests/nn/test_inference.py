from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ssdd_lightning.nn.inference import multi_scale_probabilities, scaled_views

SCALES = (0.5, 1.0, 1.5)


def image(height: int = 12, width: int = 17) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def logits_of() -> Callable[..., Any]:
    """A small network whose answer depends on left and right; stride 2."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1))

    @torch.no_grad()
    def run(x: torch.Tensor) -> torch.Tensor:
        return network(x / 64)

    return run


def test_probabilities_sum_to_one_at_the_images_size(logits_of: Callable[..., Any]) -> None:
    probabilities = multi_scale_probabilities(logits_of, image(), SCALES, flip=True)
    assert probabilities.shape == (2, 4, 12, 17)
    assert probabilities.min() >= 0
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, 12, 17))


def test_one_scale_without_flip_is_the_softmax() -> None:
    logits = torch.randn(2, 4, 12, 17, generator=torch.Generator().manual_seed(0))
    seen = []
    probabilities = multi_scale_probabilities(lambda x: seen.append(x) or logits, image())
    assert torch.equal(probabilities, logits.softmax(1))
    assert len(seen) == 1
    assert torch.equal(seen[0], image().float())


def test_flipping_the_image_flips_the_probabilities(logits_of: Callable[..., Any]) -> None:
    probabilities = multi_scale_probabilities(logits_of, image(), SCALES, flip=True)
    mirrored = multi_scale_probabilities(logits_of, image().flip(-1), SCALES, flip=True)
    torch.testing.assert_close(mirrored.flip(-1), probabilities)
    # the test network itself has a side, so this would not hold without flips
    plain = multi_scale_probabilities(logits_of, image(), SCALES)
    other = multi_scale_probabilities(logits_of, image().flip(-1), SCALES).flip(-1)
    assert (plain - other).abs().max() > 1e-3


def test_probabilities_are_the_mean_over_the_views(logits_of: Callable[..., Any]) -> None:
    together = multi_scale_probabilities(logits_of, image(), SCALES)
    alone = [multi_scale_probabilities(logits_of, image(), (scale,)) for scale in SCALES]
    torch.testing.assert_close(together, torch.stack(alone).mean(0))
    assert (alone[0] - alone[2]).abs().max() > 1e-3


def test_views_have_the_scaled_sizes_and_keep_the_range() -> None:
    views = scaled_views(image(), SCALES, flip=True)
    assert [tuple(view.shape) for view in views] == [(4, 3, 6, 8), (4, 3, 12, 17), (4, 3, 18, 26)]
    for view in views:
        plain, mirrored = view.chunk(2)
        assert torch.equal(plain.flip(-1), mirrored)
        assert plain.min() >= 0
        assert 1 < plain.max() <= 255


def test_a_tiny_scale_leaves_one_pixel() -> None:
    (view,) = scaled_views(image(4, 4), (0.01,), flip=False)
    assert view.shape == (2, 3, 1, 1)
