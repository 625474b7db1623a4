"""The filter of one kernel on the CPU: splat on the lattice's points, blur along its axes, slice back.

The parts are inlined into loops over pixels: those of `mean_field_cpu`, which filters with two kernels at
once, and those of `pairwise_cpu`, which filters with any.
"""

import numpy as np

from ssdd_lightning.crf.jit import compiled, inlined
from ssdd_lightning.crf.lattice_cpu import CPULattice, Floats, Indices
from ssdd_lightning.crf.simd import add, load, multiply, multiply_add, store

_u = np.uint64
Vector = tuple[np.float32, ...]
Kernel = tuple[Indices, Floats, Floats, Indices, np.float32, tuple[int, ...]]
"""Points, weights before and after the blur, neighbours, compatibility, and d+1 items: the compiler knows how many."""


def kernel_of(lattice: CPULattice, compat: float) -> Kernel:
    """A lattice and its weight as compiled code takes them."""
    corners = (0,) * lattice.points.shape[1]
    weights = lattice.splat_weights, lattice.slice_weights
    return lattice.points, *weights, lattice.neighbours, np.float32(compat), corners


def vectors_for(classes: int) -> tuple[Vector, int]:
    """A vector of zeros as long as the vectors that hold the classes, and the length of a row of them."""
    width = 4 if classes <= 4 else 8
    return (np.float32(0),) * width, -(-classes // width) * width


@inlined
def slice_at(
    grid: Floats,
    kernel: Kernel,
    pixel: int,
    block: int,
    stride: int,
    start: Vector,
    zeros: Vector,
) -> Vector:
    """Add the lattice's value at a pixel to start."""
    points, weights = kernel[0][pixel], kernel[2][pixel]
    for corner in range(_u(len(kernel[5]))):
        at = _u(points[corner]) * _u(stride) + block
        start = multiply_add(start, load(grid, at, zeros), weights[corner])
    return start


@inlined
def splat_at(
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
    for corner in range(_u(len(kernel[5]))):
        at = _u(points[corner]) * _u(stride) + block
        store(grid, at, multiply_add(load(grid, at, zeros), values, weights[corner]))


@compiled
def empty_grids(neighbours: Indices, stride: int) -> tuple[Floats, Floats]:
    """Two lattices of vectors; the point after the last stays 0 and stands for every missing neighbour."""
    size = (neighbours.shape[1] + 1) * stride
    return np.zeros(size, np.float32), np.zeros(size, np.float32)


@compiled
def blur(
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
