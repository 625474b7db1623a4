"""Mean field of the dense CRF on the CPU: one image per thread, one sweep over its pixels per iteration.

A sweep reads both kernels' blurred lattices at a pixel, takes the softmax, and adds the new probabilities to
the next lattices at once, so the probabilities of an iteration never travel through memory.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssdd_lightning.crf.cache import BoundedCache
from ssdd_lightning.crf.jit import compiled, inlined
from ssdd_lightning.crf.lattice_cpu import CPULattice, Floats, Indices, bilateral_lattice, spatial_lattice
from ssdd_lightning.crf.settings import SMALLEST_PROBABILITY, CRFSettings
from ssdd_lightning.crf.simd import (
    add,
    exponential,
    highest,
    larger,
    load,
    multiply,
    multiply_add,
    store,
    subtract,
    total,
)

_spatial_lattices: BoundedCache[CPULattice] = BoundedCache(64 * 2**20)
_SMALLEST = np.float32(SMALLEST_PROBABILITY)
_TILE = 256  # pixels whose classes fit in the first cache while planes turn into rows
_u = np.uint64
Vector = tuple[np.float32, ...]
Kernel = tuple[Indices, Floats, Indices, np.float32, tuple[int, ...]]
"""Points, weights, neighbours, compatibility, and a tuple of d+1 items whose length the compiler knows."""


def refine_cpu(
    images: list[Tensor], probabilities: list[Tensor], present: Tensor, settings: CRFSettings, iterations: int
) -> list[Tensor]:
    """Mean field of the dense CRF over a batch, on as many cores as torch may use.

    Args and returns as in `ssdd_lightning.crf.lattice.refine_lattice`, for tensors on the CPU.
    """

    def refine(index: int) -> Tensor:
        chosen = present[index].nonzero()[:, 0].numpy()
        image = images[index].contiguous().numpy()
        scores = probabilities[index].float().contiguous().numpy()
        return torch.from_numpy(_refine(image, scores, chosen, settings, iterations))

    workers = min(len(images), torch.get_num_threads())
    if workers == 1:
        return [refine(index) for index in range(len(images))]
    with ThreadPoolExecutor(workers) as pool:  # made for each call: a pool would not survive a fork
        return list(pool.map(refine, range(len(images))))


def _refine(
    image: npt.NDArray[np.uint8],
    scores: Floats,
    chosen: npt.NDArray[np.int64],
    settings: CRFSettings,
    iterations: int,
) -> Floats:
    _, height, width = image.shape
    width_of_vector = 4 if len(chosen) <= 4 else 8
    zeros = (np.float32(0),) * width_of_vector
    stride = -(-len(chosen) // width_of_vector) * width_of_vector
    unary = _clip(scores.reshape(scores.shape[0], -1), chosen, stride)
    spatial = _spatial_lattices.get(
        (height, width, settings.gaussian_sxy),
        lambda: spatial_lattice(height, width, settings.gaussian_sxy),
    )
    bilateral = bilateral_lattice(image, settings.bilateral_sxy, settings.bilateral_srgb)
    refined = np.zeros(scores.shape, np.float32)
    _mean_field(
        unary,
        _kernel(spatial, settings.gaussian_compat),
        _kernel(bilateral, settings.bilateral_compat),
        chosen,
        iterations,
        zeros,
        refined.reshape(scores.shape[0], -1),
    )
    return refined


def _kernel(lattice: CPULattice, compat: float) -> Kernel:
    corners = (0,) * lattice.points.shape[1]
    return lattice.points, lattice.weights, lattice.neighbours, np.float32(compat), corners


@compiled
def _clip(scores: Floats, chosen: npt.NDArray[np.int64], stride: int) -> Floats:
    """Clipped probabilities of the chosen classes, P x stride, filled up with zeros that take no part."""
    unary = np.zeros((scores.shape[1], stride), np.float32)
    for start in range(0, scores.shape[1], _TILE):
        for i in range(len(chosen)):
            for pixel in range(start, min(start + _TILE, scores.shape[1])):
                unary[pixel, i] = min(max(scores[chosen[i], pixel], _SMALLEST), np.float32(1))
    return unary


@compiled
def _mean_field(
    unary: Floats,
    spatial: Kernel,
    bilateral: Kernel,
    chosen: npt.NDArray[np.int64],
    iterations: int,
    zeros: Vector,
    refined: Floats,
) -> None:
    """All iterations of one image; `unary` is P x stride, `refined` C x P."""
    stride = unary.shape[1]
    near, near_spare = _grids(spatial[2], stride)
    wide, wide_spare = _grids(bilateral[2], stride)
    for iteration in range(iterations + 1):
        if iteration > 0:
            near, near_spare = _blur(near, near_spare, spatial[2], stride, spatial[3], zeros)
            wide, wide_spare = _blur(wide, wide_spare, bilateral[2], stride, bilateral[3], zeros)
        near_spare[:] = 0
        wide_spare[:] = 0
        if iteration == iterations:
            _read(unary, near, wide, spatial, bilateral, chosen, zeros, refined)
        else:
            _sweep(unary, near, wide, near_spare, wide_spare, spatial, bilateral, zeros)
        near, near_spare = near_spare, near
        wide, wide_spare = wide_spare, wide


@compiled
def _sweep(
    unary: Floats,
    near: Floats,
    wide: Floats,
    next_near: Floats,
    next_wide: Floats,
    spatial: Kernel,
    bilateral: Kernel,
    zeros: Vector,
) -> None:
    """One iteration: read the blurred lattices, take the softmax, splat on the next lattices."""
    row = np.zeros(unary.shape[1], np.float32)
    for pixel in range(_u(len(unary))):
        scale = _update(unary, near, wide, spatial, bilateral, pixel, row, zeros)
        for block in range(_u(0), _u(len(row)), _u(len(zeros))):
            values = multiply(load(row, block, zeros), scale)
            _splat(next_near, spatial, pixel, block, len(row), values, zeros)
            _splat(next_wide, bilateral, pixel, block, len(row), values, zeros)


@compiled
def _read(
    unary: Floats,
    near: Floats,
    wide: Floats,
    spatial: Kernel,
    bilateral: Kernel,
    chosen: npt.NDArray[np.int64],
    zeros: Vector,
    refined: Floats,
) -> None:
    """The last iteration: the probabilities go to the planes of their classes."""
    row = np.zeros(unary.shape[1], np.float32)
    for pixel in range(_u(len(unary))):
        scale = _update(unary, near, wide, spatial, bilateral, pixel, row, zeros)
        for i in range(len(chosen)):
            refined[chosen[i], pixel] = row[i] * scale


@inlined
def _update(
    unary: Floats,
    near: Floats,
    wide: Floats,
    spatial: Kernel,
    bilateral: Kernel,
    pixel: int,
    row: Floats,
    zeros: Vector,
) -> np.float32:
    """Put unary * exp(pull - largest pull) of one pixel into row; returns what makes its sum one."""
    peaks = zeros  # compatibilities and probabilities are never negative, nor is the pull
    for block in range(_u(0), _u(len(row)), _u(len(zeros))):
        pull = _slice(near, spatial, pixel, block, len(row), zeros, zeros)
        pull = _slice(wide, bilateral, pixel, block, len(row), pull, zeros)
        peaks = larger(peaks, pull)
        store(row, block, pull)
    peak, whole = highest(peaks), zeros
    own = unary[pixel]
    for block in range(_u(0), _u(len(row)), _u(len(zeros))):
        risen = exponential(subtract(load(row, block, zeros), peak))
        values = multiply(risen, load(own, block, zeros))
        whole = add(whole, values)
        store(row, block, values)
    return np.float32(1) / total(whole)


@inlined
def _slice(
    grid: Floats,
    kernel: Kernel,
    pixel: int,
    block: int,
    stride: int,
    start: Vector,
    zeros: Vector,
) -> Vector:
    """Add the lattice's value at a pixel to start."""
    points, weights = kernel[0][pixel], kernel[1][pixel]
    for corner in range(_u(len(kernel[4]))):
        at = _u(points[corner]) * _u(stride) + block
        start = multiply_add(start, load(grid, at, zeros), weights[corner])
    return start


@inlined
def _splat(
    grid: Floats,
    kernel: Kernel,
    pixel: int,
    block: int,
    stride: int,
    values: Vector,
    zeros: Vector,
) -> None:
    """Add a pixel's values to the lattice points around it."""
    points, weights = kernel[0][pixel], kernel[1][pixel]
    for corner in range(_u(len(kernel[4]))):
        at = _u(points[corner]) * _u(stride) + block
        store(grid, at, multiply_add(load(grid, at, zeros), values, weights[corner]))


@compiled
def _grids(neighbours: Indices, stride: int) -> tuple[Floats, Floats]:
    """Two lattices of vectors; the point after the last stays 0 and stands for every missing neighbour."""
    size = (neighbours.shape[1] + 1) * stride
    return np.zeros(size, np.float32), np.zeros(size, np.float32)


@compiled
def _blur(
    grid: Floats, spare: Floats, neighbours: Indices, stride: int, compat: np.float32, zeros: Vector
) -> tuple[Floats, Floats]:
    """Blur by 0.5, 1, 0.5 along each axis in turn, times the kernel's weight; returns the result first."""
    corners, half = neighbours.shape[0], np.float32(0.5)
    for axis in range(corners):
        last = axis == corners - 1
        factor = compat * np.float32(1 / (1 + 2.0 ** (1 - corners))) if last else np.float32(1)
        own = _u(0)
        for point in range(_u(neighbours.shape[1])):
            before = _u(neighbours[axis, point, 0]) * _u(stride)
            after = _u(neighbours[axis, point, 1]) * _u(stride)
            for block in range(_u(0), _u(stride), _u(len(zeros))):
                around = add(load(grid, before + block, zeros), load(grid, after + block, zeros))
                value = multiply_add(load(grid, own + block, zeros), around, half)
                store(spare, own + block, multiply(value, factor))
            own += _u(stride)
        grid, spare = spare, grid
    return grid, spare
