"""Dense CRF: the permutohedral lattice, mean field, its backends, and the published presets.

Names are resolved on first use: `ssdd_lightning.functional` imports from this package, and this package's
module imports the pure function from there.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssdd_lightning.crf.folder import refine_folder
    from ssdd_lightning.crf.module import DenseCRF
    from ssdd_lightning.crf.settings import PRESETS, CRFOptions, CRFSettings

__all__ = ["PRESETS", "CRFOptions", "CRFSettings", "DenseCRF", "refine_folder"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute may be anything
    from importlib import import_module

    homes = {
        "DenseCRF": "module",
        "PRESETS": "settings",
        "CRFOptions": "settings",
        "CRFSettings": "settings",
        "refine_folder": "folder",
    }
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{homes[name]}"), name)
