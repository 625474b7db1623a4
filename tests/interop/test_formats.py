from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.interop.formats import Context, read_array, read_irn, read_psa_aff, read_psa_cam

PATH = Path("f.npy")
MAP = np.arange(6, dtype=np.float32).reshape(2, 3)


def context(
    labels: tuple[int, ...] | None = None, channels: str | None = None, key: str | None = None, num_classes: int = 21
) -> Context:
    return Context(PATH, num_classes, labels, channels, key)


def test_psa_counts_foreground_from_0_in_cams_and_background_as_0_elsewhere() -> None:
    cam = read_psa_cam({np.int64(11): 2 * MAP, 7: MAP}, context())
    assert cam.class_indices == [12, 8]
    np.testing.assert_array_equal(cam.values, [2 * MAP, MAP])
    assert read_psa_aff({0: MAP, 8: MAP}, context()).class_indices == [0, 8]


def test_the_ssdd_repository_writes_background_and_present_classes_as_an_array() -> None:
    found = read_psa_aff(np.stack([MAP] * 3), context(labels=(8, 12)))
    assert found.class_indices == [0, 8, 12]
    with pytest.raises(InputError, match=r"f\.npy: present channels .*`--labels`"):
        read_psa_aff(np.stack([MAP] * 3), context())
    with pytest.raises(InputError, match=r"has 3 channels, which fits no meaning.*2 \(present\)"):
        read_psa_aff(np.stack([MAP] * 3), context(labels=(8,)))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"cam": 2, "high_res": 1}, 1),
        ({"cam": 2}, 2),
        ({"attn_highres": 3}, 3),
        ({"high_res": 1, "attn_highres": 3}, 1),
    ],
)
def test_irn_and_clip_es(scores: dict[str, int], expected: int) -> None:
    content = {"keys": np.array([7, 11]), **{key: np.stack([MAP * factor] * 2) for key, factor in scores.items()}}
    found = read_irn(content, context())
    assert found.class_indices == [8, 12]
    np.testing.assert_array_equal(found.values[1], expected * MAP)
    assert read_irn(content, context(key=next(iter(scores)))).values[0, 0, 1] == next(iter(scores.values()))


@pytest.mark.parametrize(
    ("count", "labels", "channels", "expected"),
    [
        (6, None, None, [0, 1, 2, 3, 4, 5]),
        (5, None, None, [1, 2, 3, 4, 5]),
        (5, (1, 3), None, [1, 2, 3, 4, 5]),
        (3, (1, 3), None, [0, 1, 3]),
        (2, (1, 3), None, [1, 3]),
        (6, (1, 2, 3, 4, 5), None, [0, 1, 2, 3, 4, 5]),
        (5, (1, 2, 3, 5), "present", [0, 1, 2, 3, 5]),
        (5, (1, 2, 3, 5), "foreground", [1, 2, 3, 4, 5]),
    ],
)
def test_what_channels_of_a_plain_array_are(
    count: int, labels: tuple[int, ...] | None, channels: str | None, expected: list[int]
) -> None:
    values = np.zeros((1, count, 2, 3))
    found = read_array(values, context(labels, channels, num_classes=6))
    assert found.class_indices == expected
    assert found.values.shape == (count, 2, 3)


def test_channels_that_may_mean_two_things_are_refused() -> None:
    with pytest.raises(InputError, match=r"f\.npy has 5 channels, which fits several meanings.*`--channels`"):
        read_array(np.zeros((5, 2, 3)), context((1, 2, 3, 5), num_classes=6))


@pytest.mark.parametrize("key", [20, -1, "cat", 1.5, True, None])
def test_keys_that_are_no_class_indices_are_refused(key: float | str | None) -> None:
    with pytest.raises(InputError, match=r"f\.npy: .* is no class index; expected 0\.\.19"):
        read_psa_cam({3: MAP, key: MAP}, context())


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_psa_cam, {"keys": MAP}, "'keys' is no class index"),
        (read_psa_cam, np.zeros((2, 3, 4)), r"expected PSA's dict.*found an array of shape \(2, 3, 4\)"),
        (read_psa_cam, {}, "a dict with nothing"),
        (read_psa_cam, {1: MAP, 2: MAP[:, :2]}, r"one size, found the shapes \[\(2, 2\), \(2, 3\)\]"),
        (read_psa_cam, {1: MAP[:0]}, r"one size, found the shapes \[\(0, 3\)\]"),
        (read_psa_cam, {1: [[1, 2], [3]]}, "expected arrays of numbers, found list"),
        (read_irn, {"keys": [[1], [2, 3]], "cam": MAP[None]}, "expected arrays of numbers, found list"),
        (read_psa_aff, {21: MAP}, r"21 is no class index; expected 0\.\.20"),
        (read_irn, {7: MAP}, "expected IRN's dict .* found a dict with 7"),
        (read_irn, {"keys": np.array([3])}, "expected one array"),
        (read_irn, {"keys": np.array([20]), "cam": MAP[None]}, "20 is no class index"),
        (read_irn, {"keys": np.array([2, 3]), "cam": MAP[None]}, "names 2 classes, but there are 1 channels"),
        (read_array, MAP, r"expected scores C x H x W, found the shape \(2, 3\)"),
        (read_array, np.zeros((7, 2, 3)), r"7 channels, which fits no meaning; expected 21 \(all\), 20 \(foreground\)"),
    ],
)
def test_what_is_no_file_of_the_format_is_described(
    read: Callable[..., Any], content: np.ndarray | dict[int | str, np.ndarray | list[list[int]]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(content, context())
