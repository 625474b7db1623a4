"""Pixel-adaptive refinement on a folder of score maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ssdd_lightning.errors import InputError
from ssdd_lightning.folders.maps import MapsJob
from ssdd_lightning.functional.par import DILATIONS, pixel_adaptive_refinement


@dataclass(frozen=True)
class PARJob(MapsJob):
    """Pixel-adaptive refinement to run on every score map of a folder.

    Args:
        dilations: Distances of the neighbours in pixels; the other arguments are those of `MapsJob`.

    Raises:
        InputError: An option is unknown or out of range.
    """

    dilations: tuple[int, ...] = DILATIONS
    command: ClassVar[str] = "par"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 0 or not self.dilations or min(self.dilations) < 1:
            raise InputError(
                f"PAR needs 0 or more iterations and dilations of 1 or more; found {self.iterations} and "
                f"{list(self.dilations)}."
            )

    def settings(self) -> Mapping[str, Any]:
        """See `MapsJob`."""
        return {"dilations": list(self.dilations)}

    def refine(self, image: Tensor, probabilities: Tensor) -> Tensor:
        """See `MapsJob`."""
        return pixel_adaptive_refinement(image, probabilities, None, self.iterations, self.dilations)
