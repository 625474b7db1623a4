"""The dense CRF on a folder of score maps."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from ssdd_lightning.crf.inference import check_run, dense_crf
from ssdd_lightning.crf.settings import CRFOptions
from ssdd_lightning.folders.maps import MapsJob


@dataclass(frozen=True)
class CRFJob(MapsJob):
    """A dense CRF to run on every score map of a folder.

    Args:
        crf: Widths and weights; the other arguments are those of `MapsJob`.

    Raises:
        InputError: An option is unknown or out of range.
    """

    crf: CRFOptions = CRFOptions()
    command: ClassVar[str] = "crf"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_run(self.iterations, "lattice")

    def settings(self) -> Mapping[str, Any]:
        """See `MapsJob`."""
        return asdict(self.crf.settings)

    def refine(self, image: Tensor, probabilities: Tensor) -> Tensor:
        """See `MapsJob`."""
        return dense_crf(image, probabilities, iterations=self.iterations, settings=self.crf.settings)
