"""The two lattices, compiled and tensor, against each other and against what a lattice must be."""

import numpy as np
import pytest
import torch

from ssdd_lightning.crf import lattice_cpu, lattice_tensor, mean_field_cpu
from ssdd_lightning.crf.cache import BoundedCache
from ssdd_lightning.crf.features import Features, bilateral_features, spatial_features
from ssdd_lightning.crf.lattice_cpu import Normalization, bilateral_lattice, point_lattice, spatial_lattice
from ssdd_lightning.crf.settings import PRESETS


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (40, 30)])
def test_weights_are_barycentric(size: tuple[int, int]) -> None:
    lattice = spatial_lattice(*size, (3.0, 3.0))
    other = lattice_tensor._spatial_lattice(*size, 3.0, torch.device("cpu"))
    assert other.weights.min() >= -1e-6
    assert torch.allclose(other.weights.sum(1), torch.ones(size[0] * size[1]))
    assert np.allclose(lattice.splat_weights, (other.weights * other.norm).numpy(), atol=1e-5)


@pytest.mark.parametrize("srgb", [3.0, 13.0, 80.0])
def test_both_find_the_same_points_and_neighbours(srgb: float) -> None:
    image = noise(17, 23)
    compiled = bilateral_lattice(image, (20.0, 20.0), (srgb, srgb, srgb))
    settings = PRESETS["psa"].__class__(3, 3, 20.0, srgb, 10)
    tensor = lattice_tensor._bilateral_lattice([torch.from_numpy(image)], settings)
    mine, theirs = compiled.points.astype(np.int64), tensor.points.numpy()
    size = compiled.neighbours.shape[1]
    assert size == tensor.neighbours.shape[2]
    renamed = np.full(size + 1, -1)
    renamed[mine] = theirs
    renamed[size] = size
    padding = renamed < 0  # points of the padded pixel only
    assert padding.sum() <= 6
    for axis in range(6):
        moved = np.full((size + 1, 2), size)
        moved[renamed[:size]] = renamed[compiled.neighbours[axis]]
        expected = tensor.neighbours[axis].T.numpy()
        known = renamed[:size][~padding[:size]]
        same = (moved[known] == expected[known]) | (moved[known] < 0)
        assert same.all()


def test_neighbours_point_at_each_other() -> None:
    neighbours = bilateral_lattice(noise(20, 20), (5.0, 5.0), (20.0, 20.0, 20.0)).neighbours
    size = neighbours.shape[1]
    linked = 0
    for axis in range(6):
        ahead, behind = neighbours[axis].T
        there = ahead < size
        linked += there.sum()
        assert (behind[ahead[there]] == np.flatnonzero(there)).all()
        assert there.sum() == (behind < size).sum()
    assert linked > size


def test_a_photo_touches_few_points() -> None:
    """Smooth content shares lattice points: that is why the filter is fast."""
    y, x = np.mgrid[:112, :112]
    image = np.stack([x, y, x + y]).astype(np.uint8)
    assert bilateral_lattice(image, (80.0, 80.0), (13.0, 13.0, 13.0)).neighbours.shape[1] < 3000


def test_many_points_make_the_table_grow() -> None:
    image = noise(150, 150)
    lattice = bilateral_lattice(image, (1.0, 1.0), (1.0, 1.0, 1.0))
    assert lattice.neighbours.shape[1] > 100_000
    assert lattice.points.max() == lattice.neighbours.shape[1] - 1


def test_keys_of_images_do_not_overlap() -> None:
    low, strides, apart = bilateral_features(30, 40, (80.0, 80.0), (13.0, 13.0, 13.0)).packing(3)
    assert (low < 0).all()
    assert (np.diff(strides) > 0).all()
    assert apart > strides[-1]
    assert spatial_features(30, 40, (3.0, 3.0)).corners == 3


def test_the_spatial_lattice_is_made_once_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(height: int, width: int, sxy: tuple[float, float]) -> Features:
        made.append((height, width, sxy))
        return spatial_features(height, width, sxy)

    monkeypatch.setattr(lattice_cpu, "spatial_features", counted)
    monkeypatch.setattr(lattice_cpu, "_spatial_lattices", BoundedCache(2**20))
    scores = torch.full((2, 6, 7), 0.5)
    present = torch.ones(1, 2, dtype=torch.bool)
    for size in ((6, 7), (6, 7), (7, 6), (6, 7)):
        image = torch.from_numpy(noise(*size))
        mean_field_cpu.refine_cpu([image], [scores.reshape(2, *size)], present, PRESETS["psa"], 1)
    assert made == [(6, 7, (3, 3)), (7, 6, (3, 3))]


def test_any_features_give_the_lattice_of_the_same_pixels() -> None:
    """Position and colour as d x P features, moved below zero: a lattice of the same weights and links."""
    image = noise(9, 8)
    known = bilateral_lattice(image, (20.0, 30.0), (13.0, 14.0, 15.0))
    y, x = np.mgrid[:9, :8].astype(np.float32)
    features = np.stack([x / 20, y / 30, *(image[i] / np.float32(13 + i) for i in range(3))]).reshape(5, -1)
    found = point_lattice(features, Normalization.NORMALIZE_SYMMETRIC)
    assert (found.points == known.points).all()
    assert (found.neighbours == known.neighbours).all()
    assert np.abs(found.splat_weights - known.splat_weights).max() < 1e-5


def test_where_the_normalisation_goes() -> None:
    features = np.random.default_rng(0).random((3, 50)).astype(np.float32) * 4 - 2
    none, before, after, symmetric = (point_lattice(features, Normalization(i)) for i in range(4))
    density = (before.splat_weights / none.splat_weights)[:, 0] ** -1
    assert (before.slice_weights == none.slice_weights).all()
    assert (after.splat_weights == none.splat_weights).all()
    assert np.allclose(after.slice_weights, before.splat_weights)
    assert symmetric.splat_weights is symmetric.slice_weights
    assert np.allclose(symmetric.splat_weights, none.splat_weights / np.sqrt(density)[:, None], rtol=1e-5)
