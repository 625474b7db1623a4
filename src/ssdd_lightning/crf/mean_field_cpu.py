"""Mean field of the dense CRF on the CPU: one image per thread, one sweep over its pixels per iteration.

A sweep reads both kernels' blurred lattices at a pixel, takes the softmax, and adds the new probabilities to
the next lattices at once, so the probabilities of an iteration never travel through memory.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssdd_lightning.crf.filter_cpu import Kernel, Vector, blur, empty_grids, kernel_of, slice_at, splat_at, vectors_for
from ssdd_lightning.crf.jit import compiled, inlined
from ssdd_lightning.crf.lattice_cpu import Floats, bilateral_lattice, spatial_lattice
from ssdd_lightning.crf.settings import SMALLEST_PROBABILITY, CRFSettings
from ssdd_lightning.crf.simd import add, exponential, highest, larger, load, multiply, store, subtract, total

_SMALLEST = np.float32(SMALLEST_PROBABILITY)
_TILE = 256  # pixels whose classes fit in the first cache while planes turn into rows
_u = np.uint64


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
    zeros, stride = vectors_for(len(chosen))
    unary = _clip(scores.reshape(scores.shape[0], -1), chosen, stride)
    near, wide, grey = settings.gaussian_sxy, settings.bilateral_sxy, settings.bilateral_srgb
    spatial = spatial_lattice(height, width, (near, near))
    bilateral = bilateral_lattice(image, (wide, wide), (grey, grey, grey))
    refined = np.zeros(scores.shape, np.float32)
    _mean_field(
        unary,
        kernel_of(spatial, settings.gaussian_compat),
        kernel_of(bilateral, settings.bilateral_compat),
        chosen,
        iterations,
        zeros,
        refined.reshape(scores.shape[0], -1),
    )
    return refined


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
    near, near_spare = empty_grids(spatial[3], stride)
    wide, wide_spare = empty_grids(bilateral[3], stride)
    for iteration in range(iterations + 1):
        if iteration > 0:
            near, near_spare = blur(near, near_spare, spatial[3], stride, spatial[4], zeros)
            wide, wide_spare = blur(wide, wide_spare, bilateral[3], stride, bilateral[4], zeros)
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
            splat_at(next_near, spatial, pixel, block, len(row), values, zeros)
            splat_at(next_wide, bilateral, pixel, block, len(row), values, zeros)


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
        pull = slice_at(near, spatial, pixel, block, len(row), zeros, zeros)
        pull = slice_at(wide, bilateral, pixel, block, len(row), pull, zeros)
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
