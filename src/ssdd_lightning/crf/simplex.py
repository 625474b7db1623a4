"""Which simplex of the permutohedral lattice a feature lies in, eight pixels at once (Adams et al., 2010).

Arrays hold corner after corner, each the vector of the eight pixels: corners * LANES float32. `axes` is a
tuple of d+1 items and `zeros` a vector of zeros: their lengths are known to the compiler.
"""

import numpy as np
import numpy.typing as npt

from ssdd_lightning.crf.jit import inlined
from ssdd_lightning.crf.simd import add, larger, less, load, multiply, rounded, smaller, store, subtract

Floats = npt.NDArray[np.float32]
Keys = npt.NDArray[np.int64]
Axes = tuple[int, ...]
Vector = tuple[np.float32, ...]
LANES = 8
_u = np.uint64


@inlined
def enclose(
    features: Floats,
    elevated: Floats,
    nearest: Floats,
    rank: Floats,
    weights: Floats,
    axes: Axes,
    zeros: Vector,
) -> None:
    """Nearest 0-coloured point (in units of d+1), ranks and barycentric weights of scaled features."""
    corners, lanes = len(axes), len(zeros)
    inverse = np.float32(1) / np.float32(corners)
    _elevate(features, elevated, axes, zeros)
    excess = zeros
    for i in range(corners):
        near = rounded(multiply(load(elevated, _u(i * lanes), zeros), inverse))
        excess = add(excess, near)
        store(nearest, _u(i * lanes), near)
        own = subtract(load(elevated, _u(i * lanes), zeros), multiply(near, np.float32(corners)))
        store(weights, _u(i * lanes), own)
        store(rank, _u(i * lanes), zeros)
    _rank(weights, rank, axes, zeros)
    for i in range(corners):  # back to the plane where the coordinates sum to 0
        place = add(load(rank, _u(i * lanes), zeros), excess)
        wrap = subtract(less(place, np.float32(0)), less(multiply(place, np.float32(-1)), np.float32(1 - corners)))
        store(rank, _u(i * lanes), add(place, multiply(wrap, np.float32(corners))))
        near = add(load(nearest, _u(i * lanes), zeros), wrap)
        store(nearest, _u(i * lanes), near)
        own = subtract(load(elevated, _u(i * lanes), zeros), multiply(near, np.float32(corners)))
        store(weights, _u(i * lanes), multiply(own, inverse))
    _weigh(weights, axes, zeros)


@inlined
def _elevate(features: Floats, elevated: Floats, axes: Axes, zeros: Vector) -> None:
    corners, lanes = len(axes), len(zeros)
    so_far = zeros
    for i in range(corners - 1, 0, -1):
        own = load(features, _u((i - 1) * lanes), zeros)
        store(elevated, _u(i * lanes), subtract(so_far, multiply(own, np.float32(i))))
        so_far = add(so_far, own)
    store(elevated, _u(0), so_far)


@inlined
def _rank(rest: Floats, rank: Floats, axes: Axes, zeros: Vector) -> None:
    """Add to each coordinate's rank how many others are larger; of equal ones the first counts as larger."""
    corners, lanes = len(axes), len(zeros)
    for i in range(corners - 1):
        own, place = load(rest, _u(i * lanes), zeros), load(rank, _u(i * lanes), zeros)
        for j in range(i + 1, corners):
            below = less(own, load(rest, _u(j * lanes), zeros))
            place = add(place, below)
            other = load(rank, _u(j * lanes), zeros)
            store(rank, _u(j * lanes), subtract(add(other, np.float32(1)), below))
        store(rank, _u(i * lanes), place)


@inlined
def _weigh(parts: Floats, axes: Axes, zeros: Vector) -> None:
    """Barycentric weights from the coordinates' distances: sort ascending, take differences."""
    corners, lanes = len(axes), len(zeros)
    for turn in range(corners):
        for i in range(turn % 2, corners - 1, 2):
            a, b = load(parts, _u(i * lanes), zeros), load(parts, _u((i + 1) * lanes), zeros)
            store(parts, _u(i * lanes), smaller(a, b))
            store(parts, _u((i + 1) * lanes), larger(a, b))
    before = load(parts, _u(0), zeros)
    last = load(parts, _u((corners - 1) * lanes), zeros)
    store(parts, _u(0), add(before, add(multiply(last, np.float32(-1)), np.float32(1))))
    for i in range(1, corners):
        own = load(parts, _u(i * lanes), zeros)
        store(parts, _u(i * lanes), subtract(own, before))
        before = own


@inlined
def simplex_key(
    nearest: Floats, rank: Floats, lane: int, low: Keys, strides: Keys, axes: Axes, zeros: Vector
) -> np.int64:
    """One number for the simplex of one pixel: its nearest 0-coloured point and the order of the ranks."""
    corners, lanes = len(axes), len(zeros)
    key, order = np.int64(0), np.float32(0)
    for i in range(corners - 1):
        key += (np.int64(nearest[i * lanes + lane]) - low[i]) * strides[i]
        order = order * np.float32(corners) + rank[i * lanes + lane]
    return key * corners ** (corners - 1) + np.int64(order)


@inlined
def point_keys(simplex: np.int64, strides: Keys, by_rank: Keys, keys: Keys, at: int, axes: Axes) -> None:
    """Write one number for each point of a simplex to keys[at:]; `by_rank` is room for d+1 numbers.

    All coordinates of the point of colour c leave the remainder c by d+1. Going up a colour adds 1 to each,
    save the one of highest rank so far unmoved, which falls by d.
    """
    corners, order = len(axes), simplex
    for rank in range(corners):
        by_rank[rank] = 0
    for i in range(corners - 2, -1, -1):
        by_rank[order % corners] = strides[i]
        order //= corners
    for colour in range(corners):
        if colour > 0:
            order -= by_rank[corners - colour]
        keys[at + colour] = order * corners + colour
