"""Pairwise potentials one by one, with any label compatibility: what pydensecrf's interface asks for.

Rows are P x stride float32, the labels of a pixel side by side, filled up with zeros to whole vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssdd_lightning.crf.filter_cpu import (
    Kernel,
    Vector,
    blur,
    empty_grids,
    kernel_of,
    slice_at,
    splat_at,
    vectors_for,
)
from ssdd_lightning.crf.jit import compiled
from ssdd_lightning.crf.lattice_cpu import CPULattice, Floats
from ssdd_lightning.crf.simd import add, exponential, highest, larger, less, load, multiply, store, subtract, total

_u = np.uint64
_FAR = np.float32(1e30)
_DEEPEST = np.float32(70)
"""Exponentials below e^-70 are cut off: times a weight they could fall out of the normal numbers, which is slow."""


@dataclass(frozen=True)
class Pairwise:
    """One pairwise potential.

    Args:
        lattice: The lattice under the kernel's features.
        compat: Energies of label pairs: a symmetric C x C matrix, or a number w for -w on the diagonal and 0
            elsewhere (Potts).
    """

    lattice: CPULattice
    compat: float | Floats

    def subtract_from(self, exponents: Floats, shares: Floats, labels: int) -> None:
        """Subtract the energy of each label under the given probabilities from the exponents; rows both."""
        zeros, stride = vectors_for(labels)
        kernel = kernel_of(self.lattice, self.compat if isinstance(self.compat, float) else -1.0)
        grid, spare = empty_grids(kernel[3], stride)
        _splat_all(shares, kernel, grid, zeros)
        grid, spare = blur(grid, spare, kernel[3], stride, kernel[4], zeros)
        if not isinstance(self.compat, float):  # the filter is linear, so labels may mix on the lattice's few points
            points = grid.reshape(-1, stride)[:, :labels]
            points[:] = points @ self.compat
        _slice_all(grid, kernel, exponents, zeros)


def step(exponents: Floats, pairwise: Sequence[Pairwise], shares: Floats, labels: int) -> Floats:
    """One step of mean field.

    Args:
        exponents: Minus the unary energies; rows.
        pairwise: The pairwise potentials.
        shares: Probabilities so far; rows.
        labels: C.

    Returns:
        The next probabilities; rows.
    """
    result = exponents.copy()
    for potential in pairwise:
        potential.subtract_from(result, shares, labels)
    normalise(result, labels)
    return result


def energy(exponents: Floats, pairwise: Sequence[Pairwise], shares: Floats, labels: int) -> float:
    """What mean field makes small: negative entropy, unary energy and pairwise energy of probabilities.

    Arguments as those of `step`.
    """
    summed = np.zeros_like(exponents)
    for potential in pairwise:
        potential.subtract_from(summed, shares, labels)
    own = shares[:, :labels].astype(np.float64)
    return float((own * (np.log(own.clip(min=1e-20)) - exponents[:, :labels] - summed[:, :labels])).sum())


def normalise(rows: Floats, labels: int) -> None:
    """Softmax over the labels in place; what is below e^-70 of the largest becomes 0."""
    zeros, stride = vectors_for(labels)
    _softmax(rows, np.where(np.arange(stride) < labels, 0, -_FAR).astype(np.float32), zeros)


@compiled
def _splat_all(shares: Floats, kernel: Kernel, grid: Floats, zeros: Vector) -> None:
    stride = shares.shape[1]
    for pixel in range(_u(len(shares))):
        own = shares[pixel]
        for block in range(_u(0), _u(stride), _u(len(zeros))):
            splat_at(grid, kernel, pixel, block, stride, load(own, block, zeros), zeros)


@compiled
def _slice_all(grid: Floats, kernel: Kernel, exponents: Floats, zeros: Vector) -> None:
    stride = exponents.shape[1]
    for pixel in range(_u(len(exponents))):
        own = exponents[pixel]
        for block in range(_u(0), _u(stride), _u(len(zeros))):
            store(own, block, slice_at(grid, kernel, pixel, block, stride, load(own, block, zeros), zeros))


@compiled
def _softmax(rows: Floats, hidden: Floats, zeros: Vector) -> None:
    """`hidden` is 0 for labels and far below them for what fills up the vectors, which goes out as 0."""
    for pixel in range(_u(len(rows))):
        own = rows[pixel]
        peaks, whole = subtract(zeros, _FAR), zeros
        for block in range(_u(0), _u(len(hidden)), _u(len(zeros))):
            peaks = larger(peaks, add(load(own, block, zeros), load(hidden, block, zeros)))
        peak = highest(peaks)
        for block in range(_u(0), _u(len(hidden)), _u(len(zeros))):
            fall = subtract(add(load(own, block, zeros), load(hidden, block, zeros)), peak)
            values = multiply(exponential(fall), less(multiply(fall, np.float32(-1)), _DEEPEST))
            whole = add(whole, values)
            store(own, block, values)
        scale = np.float32(1) / total(whole)
        for block in range(_u(0), _u(len(hidden)), _u(len(zeros))):
            store(own, block, multiply(load(own, block, zeros), scale))
