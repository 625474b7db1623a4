"""Names of the images in a folder of score maps or masks."""

from pathlib import Path

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.ledger import asked_for
from ssdd_lightning.storage.score_maps import SUFFIX


def map_names(folder: Path, say: bool = True) -> list[str]:
    """Names of the images with score maps in a folder, sorted, without leftovers of earlier runs; see `asked_for`.

    Args:
        folder: The folder.
        say: Whether to say how many are left out.

    Raises:
        InputError: There is none.
    """
    names = {path.name.removesuffix(SUFFIX) for path in folder.glob(f"[!.]*{SUFFIX}")}
    return _some(folder, names, say, f"no score maps; expected <name>{SUFFIX} files")


def predicted_names(folder: Path, say: bool = True) -> list[str]:
    """Names of the images with a mask or score maps in a folder, otherwise like `map_names`."""
    names = {path.name.removesuffix(SUFFIX).removesuffix(".png") for path in folder.glob("[!.]*.png")}
    return _some(folder, names, say, "no PNG masks and no score maps; expected <name>.png files")


def _some(folder: Path, names: set[str], say: bool, expected: str) -> list[str]:
    found = asked_for(folder, sorted(names), say)
    if not found:
        raise InputError(f"folder {folder} holds {expected}.")
    return found
