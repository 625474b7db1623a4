"""Which files of a folder are meant, and in which format they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssdd_lightning.errors import InputError, check_folder
from ssdd_lightning.interop.containers import ARRAY_SUFFIXES, load_arrays
from ssdd_lightning.interop.formats import READERS
from ssdd_lightning.storage.ledger import asked_for
from ssdd_lightning.storage.score_maps import is_map

MASKS = "masks"
FORMATS = (*READERS, MASKS)
"""What `import_folder` reads."""
_LOOKED_AT = 20


def find_sources(folder: Path, kind: str) -> dict[str, Path]:
    """Find the files of one format.

    Args:
        folder: The folder; files below it and hidden ones are left out.
        kind: One of `FORMATS`.

    Returns:
        Image name -> file, by name.

    Raises:
        InputError: There is none, or two of one name.
    """
    check_folder(folder)
    suffixes = (".png",) if kind == MASKS else ARRAY_SUFFIXES
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in suffixes or path.name[0] == "." or is_map(path):
            continue
        if path.stem in found:
            raise InputError(f"{folder} holds both {found[path.stem].name} and {path.name}; keep one of them.")
        found[path.stem] = path
    if not found:
        raise InputError(f"folder {folder} holds no {', '.join(suffixes)} files to read as {kind}; check `--from`.")
    return {name: found[name] for name in asked_for(folder, sorted(found))}


def detect_format(folder: Path) -> str:
    """Tell a folder's format from its files, the first few of them opened.

    Raises:
        InputError: The folder is missing, or its files could be of several formats.
    """
    suffixes = {path.suffix for path in folder.iterdir() if not is_map(path)} if folder.is_dir() else set()
    arrays = suffixes.intersection(ARRAY_SUFFIXES)
    if arrays and ".png" in suffixes:
        raise InputError(f"{folder} holds both .png and {', '.join(sorted(arrays))} files; choose with `--from`.")
    if not arrays:
        return MASKS if find_sources(folder, MASKS) else ""
    paths = list(find_sources(folder, "arrays").values())[:_LOOKED_AT]
    contents = {path: load_arrays(path) for path in paths}
    kinds = {_kind(content, path) for path, content in contents.items()}
    if len(kinds) > 1:
        raise InputError(f"{folder} mixes the formats {', '.join(sorted(kinds))}; choose with `--from`.")
    return _which_psa(folder, contents) if kinds == {"psa"} else kinds.pop()


def _kind(content: Any, path: Path) -> str:  # noqa: ANN401
    if not isinstance(content, dict):
        return "arrays"
    if "keys" in content:
        return "irn"
    if not content:
        raise InputError(f"{path} holds an empty dict; expected class index -> score map, or arrays by name.")
    indices = [key for key in content if isinstance(key, (int, np.integer))]
    if len(indices) == len(content):
        return "psa"
    if indices or all(np.ndim(values) == 2 for values in content.values()):
        odd = next(key for key in content if not isinstance(key, (int, np.integer)))
        raise InputError(f"{path}: {odd!r} is no class index; expected a dict of class index -> H x W array.")
    return "arrays"


def _which_psa(folder: Path, contents: Mapping[Path, Mapping[int, Any]]) -> str:
    """Both kinds are dicts of class -> map; background, which only one has, is 0, but so is the other's first class."""
    if any(0 not in content or len(content) == 1 for content in contents.values()):
        return "psa-cam"  # background is in every file, and never alone
    try:
        sums = [np.sum([np.asarray(values) for values in content.values()], axis=0) for content in contents.values()]
    except ValueError as error:
        raise InputError(
            f"the dicts in {folder} hold arrays of several sizes or no arrays at all ({error})."
        ) from error
    if all(np.allclose(total, 1, atol=1e-2) for total in sums):
        return "psa-aff"
    raise InputError(
        f"the dicts in {folder} all have a class 0, which is background in PSA's out_aff and the first foreground "
        "class in its out_cam; choose with `--from psa-aff` or `--from psa-cam`."
    )
