import cv2
import numpy as np
import pytest

from ssdd_lightning.synthetic.scene import Scene, render_scene


def foreground(scene: Scene) -> set[int]:
    return set(np.unique(scene.mask).tolist()) - {0, 255}


def drawn(seed: int, label: int, height: int = 120, width: int = 160) -> Scene:
    return render_scene(np.random.default_rng(seed), height, width, primary=label, labels=[label])


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (120, 160)])
def test_primary_class_is_always_visible(size: tuple[int, int]) -> None:
    for number in range(40):
        scene = render_scene(np.random.default_rng(number), *size, primary=12, labels=[8, 12])
        assert 12 in foreground(scene)
        assert {box.label for box in scene.boxes} == foreground(scene)


def test_a_class_is_told_by_the_pattern_of_its_head_alone() -> None:
    """From the same random numbers, two classes with the same ears differ in a part of the animals alone."""
    shares = []
    for seed in range(30):
        first, second = drawn(seed, 6), drawn(seed, 7)
        animals = first.mask != 0
        np.testing.assert_array_equal(animals, second.mask != 0)
        changed = (first.image != second.image).any(axis=2)
        assert not changed[cv2.dilate(animals.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0].any()
        if not any(box.truncated for box in first.boxes):
            shares.append(changed.sum() / animals.sum())
    assert len(shares) > 5
    assert 0.1 < np.mean(shares) < 0.5


def test_ninety_classes_have_different_heads() -> None:
    assert len({drawn(3, label).image.tobytes() for label in range(1, 91)}) == 90


def test_void_is_wider_in_large_images() -> None:
    def line_pixels_per_row(height: int, width: int) -> float:
        return sum(np.count_nonzero(drawn(seed, 1, height, width).mask == 255) for seed in range(10)) / height

    assert line_pixels_per_row(375, 500) > 1.3 * line_pixels_per_row(120, 160)
