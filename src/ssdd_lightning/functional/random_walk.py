"""PSA's random walk (Ahn & Kwak, CVPR 2018): class scores spread along pixel affinities.

The transition matrix T of an h x w map has (hw)^2 entries, but only a radius' worth of them are not zero. Nothing here
is ever dense: T is applied to the scores, in compressed rows. And it is not applied once a step: T is similar to a
symmetric matrix, with real eigenvalues in [-1, 1], where the power x^n equals a Chebyshev series whose terms beyond a
few sqrt(n) are smaller than the rounding of the numbers. 256 steps take 90 products in float32.
"""

import math
import warnings
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ssdd_lightning.errors import InputError
from ssdd_lightning.functional.affinity import half_plane_offsets


@torch.no_grad()
def random_walk(cam: Tensor, affinity: Tensor, beta: float = 8.0, steps: int = 256, radius: int = 5) -> Tensor:
    """Spread scores by a random walk: cam @ T^steps (PSA, Eq. 10 and 11).

    W is affinity^beta, elementwise, symmetric, with ones on its diagonal; T is W with columns summing to one, so every
    result is a weighted mean of scores. There is no gradient.

    Args:
        cam: B x C x H x W float, any scores, or C x H x W for one image.
        affinity: B x P x H x W float in [0, 1], see `pair_affinity`, or P x H x W; entries of invalid pairs are never
            read.
        beta: exponent > 0; a larger one makes the walk more selective.
        steps: length of the walk, 0 or more (2^8 in PSA).
        radius: of the pairs, see `half_plane_offsets`.

    Returns:
        Scores of cam's shape, in the wider type of both, at least float32. They equal those of the dense formula up to
        rounding: some 1e-13 in float64, and in float32, like the dense formula in float32 itself, up to 1e-4 where
        affinities are so small that the walk hardly moves.

    Raises:
        InputError: for shapes that do not fit, or an option out of range.

    Examples:
        >>> cam = torch.tensor([[[1.0, 0.0, 0.0]]])
        >>> affinity = torch.zeros(4, 1, 3)
        >>> affinity[0, 0, 0] = 1  # the first two pixels belong together, the third stands alone
        >>> random_walk(cam, affinity, radius=2)
        tensor([[[0.5000, 0.5000, 0.0000]]])
    """
    if cam.ndim == 3 and affinity.ndim == 3:
        return random_walk(cam[None], affinity[None], beta, steps, radius)[0]
    _check(cam, affinity, beta, steps, radius)
    dtype = torch.promote_types(torch.promote_types(cam.dtype, affinity.dtype), torch.float32)
    batch, classes, height, width = cam.shape
    with torch.autocast(cam.device.type, enabled=False):
        matrix = transition_matrix(affinity.to(dtype).pow(beta), radius)
        walked = _power(matrix, cam.to(dtype).permute(0, 2, 3, 1).reshape(-1, classes), steps)
    return walked.view(batch, height, width, classes).permute(0, 3, 1, 2).contiguous()


def transition_matrix(weights: Tensor, radius: int = 5) -> Tensor:
    """Build the transposed T of a whole batch: W with rows summing to one, block-diagonal, in compressed rows.

    Args:
        weights: B x P x H x W float >= 0, W above the diagonal, laid out as affinities are.
        radius: see `half_plane_offsets`.

    Returns:
        BN x BN sparse CSR float, N = HW.

    Examples:
        >>> weights = torch.zeros(1, 4, 1, 3)
        >>> weights[0, 0, 0, 0] = 1  # the first two pixels belong together, the third stands alone
        >>> transition_matrix(weights, radius=2).to_dense()
        tensor([[0.5000, 0.5000, 0.0000],
                [0.5000, 0.5000, 0.0000],
                [0.0000, 0.0000, 1.0000]])
    """
    batch, _, height, width = weights.shape
    counts, columns, source = _stencil(height, width, radius, weights.device)
    # one more channel for the diagonal
    values = torch.cat((weights, torch.ones_like(weights[:, :1])), 1).flatten(1).index_select(1, source).flatten()
    index = torch.int32 if values.numel() < 2**31 else torch.int64
    first = torch.arange(batch, device=weights.device, dtype=index)[:, None] * (height * width)
    starts = F.pad(counts.repeat(batch).cumsum(0), (1, 0)).to(index)
    columns = (columns + first).flatten()
    ones = weights.new_ones(batch * height * width, 1)
    sums = _compressed_rows(starts, columns, values) @ ones
    values /= sums[:, 0].repeat_interleave(counts.repeat(batch), output_size=len(values))
    return _compressed_rows(starts, columns, values)


def _compressed_rows(starts: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    size = len(starts) - 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        return torch.sparse_csr_tensor(starts, columns, values, (size, size), check_invariants=False)


@lru_cache(maxsize=8)  # photos come in few sizes
def _stencil(height: int, width: int, radius: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Find the entries of W, row by row, columns ascending.

    Returns:
        Three int32 vectors: entries in each of the N rows, and each entry's column and place in the (P + 1) x N table
        of `transition_matrix`.
    """
    half = half_plane_offsets(radius)
    offsets = torch.tensor([(-dy, -dx) for dy, dx in reversed(half)] + [(0, 0), *half], device=device).int()
    channel = torch.tensor([*reversed(range(len(half))), len(half), *range(len(half))], device=device).int()
    y = torch.arange(height, device=device)[:, None] + offsets[:, 0]
    x = torch.arange(width, device=device)[:, None] + offsets[:, 1]
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))
    entry = inside.flatten().nonzero()[:, 0].int()
    rows = entry // len(offsets)
    which = entry.remainder_(len(offsets))  # in place here and below: these vectors are as large as the matrix
    columns = (offsets[:, 0] * width + offsets[:, 1]).index_select(0, which).add_(rows)
    # a pair's weight stands at its first pixel in reading order
    source = channel.index_select(0, which).mul_(height * width).add_(rows.minimum(columns))
    return inside.sum(2, dtype=torch.int32).flatten(), columns, source


def _power(matrix: Tensor, vectors: Tensor, exponent: int) -> Tensor:
    """Apply a power of a matrix with real eigenvalues in [-1, 1] to the columns of N x C vectors."""
    coefficients = chebyshev_power(exponent, torch.finfo(vectors.dtype).eps / 10)
    before, current = vectors, vectors
    total = coefficients[0] * vectors
    for degree, coefficient in enumerate(coefficients[1:], 1):
        if degree == 1:
            current = matrix @ vectors
        else:
            before, current = current, torch.addmm(before, matrix, current, beta=-1, alpha=2)
        if coefficient:
            total.add_(current, alpha=coefficient)
    return total


@lru_cache
def chebyshev_power(exponent: int, tolerance: float) -> tuple[float, ...]:
    """Expand x^exponent on [-1, 1] into Chebyshev polynomials.

    The coefficients of x^n are those of n coin flips, so all beyond some 6 sqrt(n) are negligible.

    Args:
        exponent: n, 0 or more.
        tolerance: largest error of the shortened series on [-1, 1], before its sum is made 1 again, as at x = 1: that
            the scores of a constant map do not change is then kept exactly.

    Returns:
        Coefficients of T_0, T_1, ...; every second is 0.

    Examples:
        >>> chebyshev_power(2, tolerance=1e-6)  # x^2 = T_0 / 2 + T_2 / 2, with T_2 = 2 x^2 - 1
        (0.5, 0.0, 0.5)
    """
    terms = [0.0] * (exponent + 1)
    for degree in range(exponent % 2, exponent + 1, 2):
        terms[degree] = math.comb(exponent, (exponent - degree) // 2) * (2 if degree else 1) / 2**exponent
    dropped = 0.0
    while dropped + terms[-1] <= tolerance:
        dropped += terms.pop()
    total = math.fsum(terms)
    return tuple(term / total for term in terms)


def _check(cam: Tensor, affinity: Tensor, beta: float, steps: int, radius: int) -> None:
    pairs = len(half_plane_offsets(radius))
    if cam.ndim != 4 or affinity.shape != (len(cam), pairs, *cam.shape[2:]):
        raise InputError(
            f"expected scores B x C x H x W and affinities B x {pairs} x H x W of one size, found "
            f"{' x '.join(map(str, cam.shape))} and {' x '.join(map(str, affinity.shape))}; pool the scores to the "
            "affinities' size, and give `radius` if it is not 5."
        )
    if not (cam.is_floating_point() and affinity.is_floating_point()):
        raise InputError(f"expected scores and affinities as floats, found {cam.dtype} and {affinity.dtype}.")
    if not beta > 0 or steps < 0:
        raise InputError(f"expected beta > 0 and steps >= 0 for the random walk, found {beta} and {steps}.")
