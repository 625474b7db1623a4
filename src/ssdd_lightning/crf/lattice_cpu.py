"""Building the permutohedral lattice of one image on the CPU.

The arithmetic is that of `lattice_tensor`, step for step in single precision, because a pixel on the border
of two simplices must fall on pydensecrf's side. What differs is the book-keeping: one hash look-up a pixel
finds its simplex, and only a new simplex looks up its d+1 points.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from ssdd_lightning.crf.cache import BoundedCache
from ssdd_lightning.crf.features import Pair, Triple, bilateral_features, packing, scaled, spatial_features
from ssdd_lightning.crf.jit import compiled, inlined
from ssdd_lightning.crf.simplex import LANES, enclose, point_keys, simplex_key

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.uint32]
Keys = npt.NDArray[np.int64]
_EMPTY = np.int64(-1)
_u = np.uint64
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Normalization(IntEnum):
    """Where a filtered value is divided by the filtered ones, under the names and numbers of pydensecrf."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


@dataclass(frozen=True)
class CPULattice:
    """The lattice under P pixels, d+1 points around each.

    Args:
        points: P x (d+1), number of each point, 0..M-1.
        splat_weights: P x (d+1), barycentric weights times the part of the normalisation before the blur.
        slice_weights: P x (d+1), the same with the part after it; symmetric: the same array.
        neighbours: (d+1) x M x 2, both neighbours along each axis; M where there is none.
    """

    points: Indices
    splat_weights: Floats
    slice_weights: Floats
    neighbours: Indices

    @property
    def nbytes(self) -> int:
        """Memory held."""
        parts = (self.points, self.splat_weights, self.slice_weights, self.neighbours)
        return sum({id(part): part.nbytes for part in parts}.values())


_spatial_lattices: BoundedCache[CPULattice] = BoundedCache(64 * 2**20)


def spatial_lattice(
    height: int, width: int, sxy: Pair, normalization: Normalization = Normalization.NORMALIZE_SYMMETRIC
) -> CPULattice:
    """Lattice of the smoothness kernel; depends on the image's size alone, so it is kept."""

    def make() -> CPULattice:
        features = spatial_features(height, width, sxy)
        low, strides, _ = features.packing()
        return _lattice(features.values(np.zeros((0, height * width), np.uint8)), low, strides, normalization)

    return _spatial_lattices.get((height, width, sxy, normalization), make)


def bilateral_lattice(
    image: npt.NDArray[np.uint8],
    sxy: Pair,
    srgb: Triple,
    normalization: Normalization = Normalization.NORMALIZE_SYMMETRIC,
) -> CPULattice:
    """Lattice of the appearance kernel of a 3 x H x W image."""
    _, height, width = image.shape
    features = bilateral_features(height, width, sxy, srgb)
    low, strides, _ = features.packing()
    return _lattice(features.values(image.reshape(3, -1)), low, strides, normalization)


def point_lattice(features: Floats, normalization: Normalization) -> CPULattice:
    """Lattice of any features: d x P, each already divided by its width."""
    values = scaled(features)
    low, strides, _ = packing(values.min(1).clip(max=0), values.max(1).clip(min=0))
    return _lattice(values, low, strides, normalization)


def _lattice(values: Floats, low: Keys, strides: Keys, normalization: Normalization) -> CPULattice:
    """Lattice of scaled features, d x P."""
    axes, zeros = (0,) * (len(values) + 1), (np.float32(0),) * LANES
    simplices, weights = _enclose_all(values, low, strides, axes, zeros)
    simplex_of, distinct, _, _ = _numbered(simplices)
    point_of, keys, slots, numbers = _numbered(_point_keys(distinct, strides, axes))
    neighbours = _link(keys, slots, numbers, strides, axes)
    points = _around(simplex_of, point_of, len(weights), axes)
    return CPULattice(points, *_normalised(points, weights, neighbours, axes, normalization), neighbours)


def _normalised(
    points: Indices, weights: Floats, neighbours: Indices, axes: tuple[int, ...], normalization: Normalization
) -> tuple[Floats, Floats]:
    """The weights before and after the blur."""
    if normalization == Normalization.NO_NORMALIZATION:
        return weights, weights
    density = _filtered_ones(points, weights, neighbours, axes) + np.float32(1e-20)
    if normalization == Normalization.NORMALIZE_SYMMETRIC:
        weights *= (np.float32(1) / np.sqrt(density))[:, None]
        return weights, weights
    divided: Floats = weights * (np.float32(1) / density)[:, None]
    return (divided, weights) if normalization == Normalization.NORMALIZE_BEFORE else (weights, divided)


@compiled
def _enclose_all(
    values: Floats, low: Keys, strides: Keys, axes: tuple[int, ...], zeros: tuple[np.float32, ...]
) -> tuple[Keys, Floats]:
    """Every pixel's simplex as a key, and its barycentric weights.

    Pydensecrf pads to four pixels with zero features, and the points around them conduct the blur: the keys
    go on to that length, the weights do not.
    """
    corners, pixels, lanes = len(axes), values.shape[1], len(zeros)
    keys = np.empty(pixels + -pixels % 4, np.int64)
    weights = np.empty((pixels, corners), np.float32)
    features, elevated = np.zeros(corners * lanes, np.float32), np.zeros(corners * lanes, np.float32)
    nearest, rank = np.zeros(corners * lanes, np.float32), np.zeros(corners * lanes, np.float32)
    parts = np.zeros(corners * lanes, np.float32)
    for start in range(0, len(keys), lanes):
        for axis in range(corners - 1):
            for lane in range(lanes):
                inside = start + lane < pixels
                features[axis * lanes + lane] = values[axis, start + lane] if inside else np.float32(0)
        enclose(features, elevated, nearest, rank, parts, axes, zeros)
        for lane in range(min(lanes, len(keys) - start)):
            keys[start + lane] = simplex_key(nearest, rank, lane, low, strides, axes, zeros)
        for lane in range(min(lanes, pixels - start)):
            for corner in range(corners):
                weights[start + lane, corner] = parts[corner * lanes + lane]
    return keys, weights


@compiled
def _point_keys(simplices: Keys, strides: Keys, axes: tuple[int, ...]) -> Keys:
    """Keys of the d+1 points of each simplex, one after the other."""
    corners = len(axes)
    keys, by_rank = np.empty(len(simplices) * corners, np.int64), np.empty(corners, np.int64)
    for simplex in range(len(simplices)):
        point_keys(simplices[simplex], strides, by_rank, keys, simplex * corners, axes)
    return keys


@compiled
def _numbered(keys: Keys) -> tuple[Indices, Keys, Keys, Indices]:
    """Number equal keys alike, in order of appearance.

    Returns:
        The number of each key, the distinct keys, and their hash table: the key in each slot, and its number.
    """
    numbers, distinct, count, done = np.empty(len(keys), np.uint32), np.empty(1024, np.int64), 0, 0
    while True:
        slots, values = _hash_table(distinct[:count], 4 * len(distinct))
        done, count = _number(keys, numbers, done, distinct, count, slots, values)
        if done == len(keys):
            return numbers, distinct[:count].copy(), slots, values
        distinct = np.concatenate((distinct, np.empty_like(distinct)))


@compiled
def _number(
    keys: Keys, numbers: Indices, done: int, distinct: Keys, count: int, slots: Keys, values: Indices
) -> tuple[int, int]:
    """Number keys[done:] until all are or no room for a new one is left; returns how far it came."""
    for i in range(_u(done), _u(len(keys))):
        slot = _find(slots, keys[i])
        if slots[slot] != keys[i]:
            if count == len(distinct):
                return int(i), count
            distinct[count] = keys[i]
            slots[slot] = keys[i]
            values[slot] = count
            count += 1
        numbers[i] = values[slot]
    return len(keys), count


@compiled
def _hash_table(keys: Keys, size: int) -> tuple[Keys, Indices]:
    """A table with open addressing that holds the keys; the size is a power of two."""
    slots, values = np.full(size, _EMPTY, np.int64), np.zeros(size, np.uint32)
    for i in range(len(keys)):
        slot = _find(slots, keys[i])
        slots[slot] = keys[i]
        values[slot] = i
    return slots, values


@inlined
def _find(slots: Keys, key: np.int64) -> np.uint64:
    """Slot that holds a key, or the empty slot where it belongs."""
    mask = np.uint64(len(slots) - 1)
    mixed = np.uint64(key) * _GOLDEN
    slot = (mixed ^ (mixed >> np.uint64(32))) & mask
    while slots[slot] != key and slots[slot] != _EMPTY:
        slot = (slot + np.uint64(1)) & mask
    return slot


@compiled
def _link(keys: Keys, slots: Keys, values: Indices, strides: Keys, axes: tuple[int, ...]) -> Indices:
    """Both neighbours of a point along every axis: one coordinate moves by d, the others by 1 against it."""
    size, corners = len(keys), len(axes)
    neighbours = np.full((corners, size, 2), np.uint32(size), np.uint32)
    borrow = corners - strides.sum() * corners
    for point in range(size):
        start = keys[point] - 1 + (borrow if keys[point] % corners == 0 else 0)
        for axis in range(corners):
            slot = _find(slots, start + (strides[axis] * corners if axis < corners - 1 else 0))
            if slots[slot] != _EMPTY:
                neighbours[axis, point, 0] = values[slot]
                neighbours[axis, values[slot], 1] = point
    return neighbours


@compiled
def _around(simplex_of: Indices, point_of: Indices, pixels: int, axes: tuple[int, ...]) -> Indices:
    """Points of every pixel from those of its simplex; P x (d+1)."""
    corners = len(axes)
    points = np.empty((pixels, corners), np.uint32)
    for pixel in range(_u(pixels)):
        first = _u(simplex_of[pixel]) * _u(corners)
        for corner in range(_u(corners)):
            points[pixel, corner] = point_of[first + corner]
    return points


@compiled
def _filtered_ones(points: Indices, weights: Floats, neighbours: Indices, axes: tuple[int, ...]) -> Floats:
    """What the plain filter makes of ones; P."""
    pixels, corners, size = len(points), len(axes), neighbours.shape[1]
    grid, blurred = np.zeros(size + 1, np.float32), np.zeros(size + 1, np.float32)
    for pixel in range(pixels):
        for corner in range(corners):
            grid[points[pixel, corner]] += weights[pixel, corner]
    for axis in range(corners):
        for point in range(size):
            around = grid[neighbours[axis, point, 0]] + grid[neighbours[axis, point, 1]]
            blurred[point] = grid[point] + np.float32(0.5) * around
        grid, blurred = blurred, grid
    scale = np.float32(1 / (1 + 2.0 ** (1 - corners)))
    density = np.zeros(pixels, np.float32)
    for pixel in range(pixels):
        for corner in range(corners):
            density[pixel] += weights[pixel, corner] * grid[points[pixel, corner]]
        density[pixel] *= scale
    return density
