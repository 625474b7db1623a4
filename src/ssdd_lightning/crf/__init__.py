"""Dense CRF: the pure function, the module, the permutohedral lattice, its backends and the published presets.

Names are resolved on first use: the command line reads the presets without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssdd_lightning.crf.inference import dense_crf
    from ssdd_lightning.crf.module import DenseCRF
    from ssdd_lightning.crf.settings import PRESETS, CRFOptions, CRFSettings

__all__ = ["PRESETS", "CRFOptions", "CRFSettings", "DenseCRF", "dense_crf"]

_HOMES = {"DenseCRF": "module", "dense_crf": "inference"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute may be anything
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'settings')}"), name)
