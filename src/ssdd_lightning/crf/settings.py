"""Widths and weights of the dense CRF's two kernels: the published presets and their checked overrides."""

import math
from dataclasses import asdict, dataclass, replace

from ssdd_lightning.errors import InputError

SMALLEST_PROBABILITY = 1e-5
"""Probabilities are clipped here before the logarithm, as pydensecrf's `unary_from_softmax` does."""


@dataclass(frozen=True)
class CRFSettings:
    """Widths and weights of both kernels, in the words of pydensecrf.

    Args:
        gaussian_sxy: Width of the smoothness kernel in pixels.
        gaussian_compat: Weight (Potts) of the smoothness kernel.
        bilateral_sxy: Spatial width of the appearance kernel in pixels.
        bilateral_srgb: Colour width of the appearance kernel in grey values (0..255).
        bilateral_compat: Weight (Potts) of the appearance kernel.

    Raises:
        InputError: A width is not a positive finite number or a weight is negative or not finite.

    Examples:
        >>> PRESETS["deeplab"]
        CRFSettings(gaussian_sxy=1, gaussian_compat=3, bilateral_sxy=67, bilateral_srgb=3, bilateral_compat=4)
        >>> PRESETS["deeplab"] == CRFSettings(1, 3, 67, 3, 4)
        True
    """

    gaussian_sxy: float
    gaussian_compat: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_compat: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            smallest = "0 or more" if name.endswith("compat") else "more than 0"
            good = value >= 0 if name.endswith("compat") else value > 0
            if not (good and math.isfinite(value)):
                raise InputError(f"CRF setting {name} must be a finite number, {smallest}; found {value}.")


PRESETS = {
    "psa": CRFSettings(3, 3, 80, 13, 10),  # PSA and SSDD
    "deeplab": CRFSettings(1, 3, 67, 3, 4),  # deeplab-pytorch
    "dupl": CRFSettings(1, 1, 121, 5, 4),
    "mctformer": CRFSettings(4, 3, 83, 5, 3),
}
"""What the field publishes, by name."""


@dataclass(frozen=True)
class CRFOptions:
    """The choice of a CRF: a preset, and values in place of its own.

    Args:
        preset: Published widths and weights: psa (PSA and SSDD), deeplab, dupl or mctformer.
        gaussian_sxy: Width of the smoothness kernel in pixels; None keeps the preset's, here and below.
        gaussian_compat: Weight (Potts) of the smoothness kernel.
        bilateral_sxy: Spatial width of the appearance kernel in pixels.
        bilateral_srgb: Colour width of the appearance kernel in grey values (0..255).
        bilateral_compat: Weight (Potts) of the appearance kernel.

    Raises:
        InputError: The preset is unknown, or a value is out of range.

    Examples:
        >>> CRFOptions("psa", bilateral_sxy=40).settings
        CRFSettings(gaussian_sxy=3, gaussian_compat=3, bilateral_sxy=40, bilateral_srgb=13, bilateral_compat=10)
    """

    preset: str = "psa"
    gaussian_sxy: float | None = None
    gaussian_compat: float | None = None
    bilateral_sxy: float | None = None
    bilateral_srgb: float | None = None
    bilateral_compat: float | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(f"unknown CRF preset {self.preset!r}; choose one of {', '.join(PRESETS)}.")
        _ = self.settings  # refuses what is out of range

    @property
    def settings(self) -> CRFSettings:
        """Widths and weights as they are in force."""
        own = {name: value for name, value in asdict(self).items() if name != "preset" and value is not None}
        return replace(PRESETS[self.preset], **own)

    def weighted(self, factor: float) -> "CRFOptions":
        """The same widths with both weights multiplied.

        Examples:
            >>> CRFOptions("psa").weighted(0.5).settings
            CRFSettings(gaussian_sxy=3, gaussian_compat=1.5, bilateral_sxy=80, bilateral_srgb=13, bilateral_compat=5.0)
        """
        weights = {name: factor * getattr(self.settings, name) for name in ("gaussian_compat", "bilateral_compat")}
        return replace(self, **weights)
