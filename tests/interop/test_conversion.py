from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.interop.conversion import Conversion, convert
from ssdd_lightning.interop.formats import Scores

PATH = Path("f.npy")


def run(
    classes: list[int],
    values: np.ndarray,
    size: tuple[int, int] | None = None,
    labels: tuple[int, ...] | None = None,
    **how: Any,
) -> tuple[list[int], np.ndarray]:
    values = np.asarray(values)
    return convert(Scores(classes, values), size or values.shape[1:], labels, Conversion(**how), PATH)


def test_background_is_made_where_it_is_missing() -> None:
    cams = np.random.default_rng(0).random((2, 4, 5)).astype(np.float32)
    classes, maps = run([12, 8], cams, alpha=3.0)
    assert classes == [0, 8, 12]
    np.testing.assert_allclose(maps[0], (1 - cams.max(0)) ** 3, atol=1e-6)
    np.testing.assert_array_equal(maps[1:], cams[::-1])


def test_probabilities_with_background_stay_as_they_are() -> None:
    given = np.random.default_rng(0).random((3, 4, 5)).astype(np.float16)
    classes, maps = run([0, 8, 12], given, alpha=3.0)
    assert (classes, maps.dtype) == ([0, 8, 12], np.dtype(np.float32))
    np.testing.assert_array_equal(maps, given.astype(np.float32))


def test_logits_become_probabilities_of_the_labelled_classes() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (4, 4, 5))
    classes, maps = run([0, 1, 2, 3], logits, labels=(1, 3), logits=True)
    expected = np.exp(logits[[0, 1, 3]]) / np.exp(logits[[0, 1, 3]]).sum(0)
    assert classes == [0, 1, 3]
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    with pytest.raises(InputError, match="logits without a background channel"):
        run([1, 2, 3, 4], logits, logits=True)


@pytest.mark.parametrize("found", [(12, 16), (47, 63), (96, 125), (48, 64)])
def test_any_resolution_of_the_same_aspect_is_resized(found: tuple[int, int]) -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, found[1], dtype=np.float32), found)
    _, maps = run([0, 1], np.stack([1 - ramp, ramp]), size=(48, 63))
    assert maps.shape == (2, 48, 63)
    np.testing.assert_allclose(maps[1], np.broadcast_to(np.linspace(0, 1, 63), (48, 63)), atol=0.06)
    np.testing.assert_allclose(maps.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("found", [(63, 48), (12, 12), (48, 80)])
def test_another_aspect_is_refused_or_stretched(found: tuple[int, int]) -> None:
    values = np.zeros((2, *found))
    with pytest.raises(InputError, match=rf"f\.npy: the scores are {found[1]} x {found[0]}, the image 63 x 48"):
        run([0, 1], values, size=(48, 63))
    assert run([0, 1], values, size=(48, 63), stretch=True)[1].shape == (2, 48, 63)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.01, r"expected scores in \[0, 1\], found 0 to 1.01; if they are logits, add `--logits`"),
        (-3.0, r"found -3 to 0"),
        (np.nan, "holds NaN or infinite values"),
        (np.inf, "holds NaN or infinite values"),
    ],
)
def test_values_out_of_range_are_refused(value: float, message: str) -> None:
    values = np.zeros((2, 3, 4))
    values[1, 2, 3] = value
    with pytest.raises(InputError, match=rf"f\.npy.*{message}"):
        run([0, 1], values)


def test_half_precision_may_round_beyond_1() -> None:
    assert run([0, 1], np.full((2, 3, 4), 1.0005))[1].max() == 1


@pytest.mark.parametrize(
    ("classes", "labels", "values", "message"),
    [
        ([0, 8], (8, 12), np.zeros((2, 3, 4)), r"holds the classes \[0, 8\] and lacks \[12\]"),
        ([8, 8], None, np.zeros((2, 3, 4)), "names a class twice"),
        ([8], (), np.zeros((1, 3, 4)), "without any labelled class"),
        ([0], None, np.full((1, 3, 4), "a"), "expected numbers, found <U1"),
    ],
)
def test_what_does_not_fit_the_labels_is_refused(
    classes: list[int], labels: tuple[int, ...] | None, values: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(classes, values, labels=labels)


def test_probabilities_are_no_logits() -> None:
    values = np.stack([np.full((3, 4), 0.25), np.full((3, 4), 0.75)])
    with pytest.raises(InputError, match=r"holds probabilities, which add up to 1, not logits; leave out `--logits`"):
        run([0, 1], values, logits=True)
    assert run([0, 1], values + 0.5, logits=True)[1].max() < 0.75
