"""`pydensecrf.densecrf` on our lattice: the same classes, arguments and numbers (to 1e-4), without a compiler.

Where pydensecrf takes C-ordered float32 only, any array of numbers will do. Results are plain arrays.
"""

import math
from collections.abc import Sequence
from enum import IntEnum
from operator import index
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from ssdd_lightning.crf.filter_cpu import vectors_for
from ssdd_lightning.crf.lattice_cpu import CPULattice, Normalization, bilateral_lattice, point_lattice, spatial_lattice
from ssdd_lightning.crf.pairwise_cpu import Pairwise, energy, normalise, step
from ssdd_lightning.errors import InputError

NormalizationType = Normalization
NO_NORMALIZATION = Normalization.NO_NORMALIZATION
NORMALIZE_BEFORE = Normalization.NORMALIZE_BEFORE
NORMALIZE_AFTER = Normalization.NORMALIZE_AFTER
NORMALIZE_SYMMETRIC = Normalization.NORMALIZE_SYMMETRIC

Floats = npt.NDArray[np.float32]
Compatibility = float | npt.ArrayLike


class KernelType(IntEnum):
    """What a training could learn of a kernel. Inference is the same for all three, here as in pydensecrf.

    Examples:
        >>> KernelType.DIAG_KERNEL == DIAG_KERNEL == 1
        True
    """

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


CONST_KERNEL = KernelType.CONST_KERNEL
DIAG_KERNEL = KernelType.DIAG_KERNEL
FULL_KERNEL = KernelType.FULL_KERNEL


class DenseCRF:
    """A fully connected CRF over any variables (Kraehenbuehl and Koltun, 2011), with the interface of pydensecrf.

    Args:
        nvar: Number of variables, such as pixels or voxels.
        nlabels: Number of labels.

    Raises:
        InputError: A number is not whole, or below 1.

    Examples:
        >>> from ssdd_lightning.crf.pydensecrf.utils import unary_from_softmax
        >>> crf = DenseCRF(4, 2)
        >>> crf.setUnaryEnergy(unary_from_softmax(np.array([[0.9, 0.4, 0.3, 0.2], [0.1, 0.6, 0.7, 0.8]])))
        >>> crf.addPairwiseEnergy(np.array([[0.0, 0.0, 9.0, 9.0]]), compat=10)  # two groups, far apart
        >>> np.argmax(crf.inference(5), axis=0)
        array([0, 0, 1, 1])
    """

    def __init__(self, nvar: SupportsIndex, nlabels: SupportsIndex) -> None:
        self._nvar, self._nlabel = _whole(nvar, "the number of variables"), _whole(nlabels, "the number of labels")
        self._exponents = self._rows(np.zeros((self._nlabel, self._nvar), np.float32))
        self._pairwise: list[Pairwise] = []

    def setUnaryEnergy(self, u: npt.ArrayLike, f: npt.ArrayLike | None = None) -> None:
        """Set the unary energies, -log of the probabilities.

        Args:
            u: C x n, copied. Infinity rules a label out.
            f: Not supported.

        Raises:
            InputError: The shape is another, an energy is NaN or minus infinity, or features are given.
        """
        if f is not None:
            raise InputError("logistic unaries (`f`) are not supported; give their energies, u @ f.")
        energies = _numbers(u, "unary energies")
        if np.isnan(energies).any() or np.isneginf(energies).any():
            raise InputError("unary energies must be numbers; found NaN or minus infinity.")
        if energies.shape != (self._nlabel, self._nvar):
            raise InputError(
                f"unary energies must be {self._nlabel} x {self._nvar} (labels x variables); found {energies.shape}."
            )
        self._exponents = self._rows(-energies)

    def addPairwiseEnergy(
        self,
        features: npt.ArrayLike,
        compat: Compatibility,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a pairwise potential with a Gaussian kernel on any features.

        Args:
            features: d x n, each divided by its width; any d whose lattice points fit in 64 bits.
            compat: Potts weight, C energies of equal labels, or C x C energies of label pairs.
            kernel: One of the kernel types.
            normalization: Where the filter is normalised.

        Raises:
            InputError: A shape is another, a value is not finite, or the features reach too far.
        """
        values = _floats(features, "features")
        if values.ndim != 2 or values.shape[1] != self._nvar or not len(values):
            raise InputError(f"features must be d x {self._nvar} (features x variables); found {values.shape}.")
        self._add(point_lattice(values, _chosen(normalization, kernel)), compat)

    def inference(self, niter: SupportsIndex) -> Floats:
        """Run mean field.

        Args:
            niter: Steps, 0 or more.

        Returns:
            C x n probabilities.

        Raises:
            InputError: The number of steps is not whole, or negative.
        """
        rows = self._start()
        for _ in range(_whole(niter, "the number of steps", least=0)):
            rows = step(self._exponents, self._pairwise, rows, self._nlabel)
        return self._columns(rows)

    def startInference(self) -> tuple[Floats, Floats, Floats]:
        """Begin mean field; returns C x n probabilities, and two arrays that `stepInference` takes back unused."""
        return self._columns(self._start()), np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)

    def stepInference(self, Q: Floats, tmp1: Any, tmp2: Any) -> None:  # noqa: ANN401
        """Do one step of mean field, from Q to Q."""
        Q[:] = self._columns(step(self._exponents, self._pairwise, self._rows(self._checked(Q)), self._nlabel))

    def klDivergence(self, Q: npt.ArrayLike) -> float:
        """KL divergence of the probabilities Q from the CRF's, up to its constant log partition function."""
        rows = self._rows(self._checked(Q))
        return energy(self._exponents, self._pairwise, rows, self._nlabel)

    def _add(self, lattice: CPULattice, compat: Compatibility) -> None:
        self._pairwise.append(Pairwise(lattice, _compatibility(compat, self._nlabel)))

    def _start(self) -> Floats:
        rows = self._exponents.copy()
        normalise(rows, self._nlabel)
        return rows

    def _checked(self, shares: npt.ArrayLike) -> Floats:
        values = _numbers(shares, "Q")
        if values.shape != (self._nlabel, self._nvar):
            raise InputError(f"Q must be {self._nlabel} x {self._nvar} (labels x variables); found {values.shape}.")
        return values

    def _rows(self, columns: Floats) -> Floats:
        _, stride = vectors_for(self._nlabel)
        rows = np.zeros((self._nvar, stride), np.float32)
        rows[:, : self._nlabel] = columns.T
        return rows

    def _columns(self, rows: Floats) -> Floats:
        return rows[:, : self._nlabel].T


class DenseCRF2D(DenseCRF):
    """A fully connected CRF over the pixels of an image, row by row, with the interface of pydensecrf.

    Args:
        w: Width in pixels.
        h: Height in pixels.
        nlabels: Number of labels.

    Raises:
        InputError: A number is not whole, or below 1.

    Examples:
        >>> from ssdd_lightning.crf.pydensecrf.utils import unary_from_labels
        >>> image = np.zeros((2, 6, 3), np.uint8)
        >>> image[:, 3:] = 255
        >>> crf = DenseCRF2D(6, 2, 2)
        >>> labels = np.array([[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]])  # one pixel on the wrong side
        >>> crf.setUnaryEnergy(unary_from_labels(labels, 2, gt_prob=0.7, zero_unsure=False))
        >>> crf.addPairwiseGaussian(sxy=3, compat=3)
        >>> crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
        >>> np.argmax(crf.inference(5), axis=0).reshape(2, 6)
        array([[0, 0, 0, 1, 1, 1],
               [0, 0, 0, 1, 1, 1]])
    """

    def __init__(self, w: SupportsIndex, h: SupportsIndex, nlabels: SupportsIndex) -> None:
        self._w, self._h = _whole(w, "the width w"), _whole(h, "the height h")
        super().__init__(self._w * self._h, nlabels)

    def addPairwiseGaussian(
        self,
        sxy: float | Sequence[float],
        compat: Compatibility,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a pairwise potential on position.

        Args:
            sxy: Width in pixels, or widths along x and y.
            compat: As in `addPairwiseEnergy`, as are the other arguments.
            kernel: One of the kernel types.
            normalization: Where the filter is normalised.
        """
        across, down = _widths(sxy, 2, "sxy")
        self._add(spatial_lattice(self._h, self._w, (across, down), _chosen(normalization, kernel)), compat)

    def addPairwiseBilateral(
        self,
        sxy: float | Sequence[float],
        srgb: float | Sequence[float],
        rgbim: npt.NDArray[np.uint8],
        compat: Compatibility,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a pairwise potential on position and colour.

        Args:
            sxy: Width in pixels, or widths along x and y.
            srgb: Width in grey values, or widths in red, green and blue.
            rgbim: H x W x 3 uint8.
            compat: As in `addPairwiseEnergy`, as are the other arguments.
            kernel: One of the kernel types.
            normalization: Where the filter is normalised.
        """
        image = np.asarray(rgbim)
        if image.shape != (self._h, self._w, 3) or image.dtype != np.uint8:
            raise InputError(
                f"rgbim must be {self._h} x {self._w} x 3 uint8; found {image.shape} {image.dtype}. For other images, "
                "add the features of `utils.create_pairwise_bilateral` by addPairwiseEnergy."
            )
        across, down = _widths(sxy, 2, "sxy")
        red, green, blue = _widths(srgb, 3, "srgb")
        planes = np.ascontiguousarray(image.transpose(2, 0, 1))
        chosen = _chosen(normalization, kernel)
        self._add(bilateral_lattice(planes, (across, down), (red, green, blue), chosen), compat)


def _whole(value: SupportsIndex, what: str, least: int = 1) -> int:
    try:
        number = index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise InputError(f"{what} must be a whole number, {least} or more; found {value!r}.")
    return number


def _numbers(array: npt.ArrayLike, what: str) -> Floats:
    try:
        return np.array(array, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be numbers; found {array!r:.60}.") from error


def _floats(array: npt.ArrayLike, what: str) -> Floats:
    values = _numbers(array, what)
    if not np.isfinite(values).all():
        raise InputError(f"{what} must be finite numbers; found NaN or infinity.")
    return values


def _chosen(normalization: int, kernel: int) -> Normalization:
    if kernel not in tuple(KernelType) or normalization not in tuple(Normalization):
        raise InputError(
            f"unknown kernel type {kernel!r} or normalization {normalization!r}; take DIAG_KERNEL, NORMALIZE_SYMMETRIC "
            "or another constant of this module."
        )
    return Normalization(normalization)


def _widths(given: float | Sequence[float], number: int, name: str) -> tuple[float, ...]:
    try:
        values = np.asarray(given, np.float64)
        widths: tuple[float, ...] = tuple(values.tolist()) if values.ndim == 1 else (float(values),) * number
    except (TypeError, ValueError):
        widths = ()
    if len(widths) != number or not all(0 < width < math.inf for width in widths):
        raise InputError(f"{name} must be one or {number} finite numbers above 0; found {given!r}.")
    return widths


def _compatibility(compat: Compatibility, labels: int) -> float | Floats:
    """Potts weight, or the energies of label pairs, C x C and symmetric."""
    values = _floats(compat, "label compatibilities")
    if values.ndim == 0:
        return float(values)
    if values.shape not in ((labels,), (labels, labels)):
        raise InputError(
            f"compat must be a number, {labels} numbers or {labels} x {labels} numbers; found shape {values.shape}."
        )
    pairs: Floats = np.diag(values) if values.ndim == 1 else (values + values.T) / np.float32(2)
    return pairs
