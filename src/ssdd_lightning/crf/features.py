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
        reach = [float(table[-1]) for table in (self.columns, self.rows, *self.palette)]
        low, strides, apart = [], [], 1
        for i in range(len(reach)):
            smallest = math.floor(-i * reach[i - 1] / self.corners) - _MARGIN
            largest = math.ceil(sum(reach[i:]) / self.corners) + _MARGIN
            low.append(smallest)
            strides.append(apart)
            apart *= largest - smallest + 1
        if apart * images * self.corners**self.corners >= 2**63:
            raise InputError(
                f"the CRF's widths are too small for {images} image(s) of {len(self.columns)} x "
                f"{len(self.rows)} pixels; use larger widths."
            )
        return np.array(low, np.int64), np.array(strides, np.int64), apart


def spatial_features(height: int, width: int, sxy: float) -> Features:
    """Features of the smoothness kernel: position."""
    return _features(height, width, sxy, 0, 1.0)


def bilateral_features(height: int, width: int, sxy: float, srgb: float) -> Features:
    """Features of the appearance kernel: position and colour."""
    return _features(height, width, sxy, 3, srgb)


def _features(height: int, width: int, sxy: float, channels: int, srgb: float) -> Features:
    dimensions = 2 + channels
    spread = np.float32(math.sqrt(2 / 3) * (dimensions + 1))
    scales = [np.float32(float(spread) / math.sqrt((i + 1) * (i + 2))) for i in range(dimensions)]
    levels = np.arange(256, dtype=np.float32) / np.float32(srgb)
    return Features(
        np.arange(width, dtype=np.float32) / np.float32(sxy) * scales[0],
        np.arange(height, dtype=np.float32) / np.float32(sxy) * scales[1],
        np.array([levels * scale for scale in scales[2:]], np.float32).reshape(channels, 256),
    )
