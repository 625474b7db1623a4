"""Features of the CRF's kernels on the lattice's scale, and how a lattice point becomes one 64-bit number.

A point of the lattice in d dimensions has d+1 whole coordinates that sum to 0 and all leave the same
remainder by d+1, its colour; the last follows from the others. Its key is (sum of q_i * stride_i) * (d+1) +
colour, where q_i counts the i-th coordinate in units of d+1 from the smallest value an image can reach.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssdd_lightning.errors import InputError

Pair = tuple[float, float]
Triple = tuple[float, float, float]
_MARGIN = 3  # rounding, the way back to the plane, and the neighbours move a coordinate by one unit each


@dataclass(frozen=True)
class Features:
    """Scaled features by column, row and colour level, in the single precision and order of pydensecrf.

    Args:
        columns: W, first feature of the pixels in each column.
        rows: H, second feature of the pixels in each row.
        palette: (d-2) x 256, feature of each level of the colour channels; no row for the smoothness kernel.
    """

    columns: npt.NDArray[np.float32]
    rows: npt.NDArray[np.float32]
    palette: npt.NDArray[np.float32]

    @property
    def corners(self) -> int:
        """Number of points around a pixel, d+1."""
        return 3 + len(self.palette)

    def packing(self, images: int = 1) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
        """Smallest q and stride of each of the first d coordinates, and how far two images' sums are apart.

        Raises:
            InputError: So many points do not fit in 64 bits.
        """
        reach = np.array([table[-1] for table in (self.columns, self.rows, *self.palette)])
        return packing(np.zeros_like(reach), reach, images)

    def values(self, colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Features of an image's pixels, row by row.

        Args:
            colours: (d-2) x P, levels of the colour channels.

        Returns:
            d x P.
        """
        height, width = len(self.rows), len(self.columns)
        colour = [table[channel] for table, channel in zip(self.palette, colours, strict=True)]
        return np.stack([np.tile(self.columns, height), np.repeat(self.rows, width), *colour])


def packing(
    lowest: npt.NDArray[np.float32], highest: npt.NDArray[np.float32], images: int = 1
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """How the points that features can reach are packed.

    Args:
        lowest: d, smallest of each scaled feature, at most 0: the padding of pydensecrf is 0.
        highest: d, largest, at least 0.
        images: How many images share the numbers.

    Returns:
        Smallest q and stride of each of the first d coordinates, and how far two images' sums are apart.

    Raises:
        InputError: So many points do not fit in 64 bits.
    """
    corners = len(highest) + 1
    low, strides, apart = [], [], 1
    for i in range(corners - 1):
        own = (i * float(lowest[i - 1]), i * float(highest[i - 1])) if i else (0.0, 0.0)
        smallest = math.floor((sum(map(float, lowest[i:])) - own[1]) / corners) - _MARGIN
        largest = math.ceil((sum(map(float, highest[i:])) - own[0]) / corners) + _MARGIN
        low.append(smallest)
        strides.append(apart)
        apart *= largest - smallest + 1
    if apart * images * corners**corners >= 2**63:
        reach = ", ".join(f"{float(value):.3g}" for value in highest - lowest)
        raise InputError(
            f"the CRF's widths are too small: the {corners - 1} features of {images} image(s) reach {reach} on the "
            "lattice's scale, and its points do not fit in 64 bits; use larger widths or fewer features."
        )
    return np.array(low, np.int64), np.array(strides, np.int64), apart


def scaled(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Features on the lattice's scale; d x P, any d."""
    return features * np.array(_scales(len(features)), np.float32)[:, None]


def spatial_features(height: int, width: int, sxy: Pair) -> Features:
    """Features of the smoothness kernel: position, its widths along x and y in pixels."""
    return _features(height, width, sxy, ())


def bilateral_features(height: int, width: int, sxy: Pair, srgb: Triple) -> Features:
    """Features of the appearance kernel: position and colour, its widths in grey values."""
    return _features(height, width, sxy, srgb)


def _features(height: int, width: int, sxy: Pair, srgb: tuple[float, ...]) -> Features:
    across, down, *colour = _scales(2 + len(srgb))
    levels = np.arange(256, dtype=np.float32)
    palette = [levels / np.float32(own) * scale for own, scale in zip(srgb, colour, strict=True)]
    return Features(
        np.arange(width, dtype=np.float32) / np.float32(sxy[0]) * across,
        np.arange(height, dtype=np.float32) / np.float32(sxy[1]) * down,
        np.array(palette, np.float32).reshape(len(srgb), 256),
    )


def _scales(dimensions: int) -> list[np.float32]:
    spread = np.float32(math.sqrt(2 / 3) * (dimensions + 1))
    return [np.float32(float(spread) / math.sqrt((i + 1) * (i + 2))) for i in range(dimensions)]
