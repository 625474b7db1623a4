"""Finding the photos that a user names: files, folders and patterns."""

import glob
from collections.abc import Sequence
from pathlib import Path

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.images import IMAGE_SUFFIXES, find_images
from ssdd_lightning.storage.names import check_name


def find_photos(inputs: Sequence[str]) -> dict[str, Path]:
    """Find photos by files, folders and patterns.

    Args:
        inputs: Each an image file, a folder (its photos, without subfolders) or a pattern such as `trip/**/*.jpg`.

    Returns:
        Image name (the file's, without its last suffix) -> file, by name.

    Raises:
        InputError: An input matches no photo, or two photos share a name.
    """
    found: dict[str, Path] = {}
    for text in inputs:
        for path in _matches(text):
            other = found.setdefault(check_name(path.stem, path.parent), path)
            if other.resolve() != path.resolve():
                raise InputError(
                    f"{other} and {path} would both be written as {path.stem}.png; segment them into different folders."
                )
    return dict(sorted(found.items()))


def _matches(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        return list(find_images(path).values())
    if path.is_file():  # before patterns: a file's name may hold brackets
        return [path]
    files = [Path(name) for name in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 - pathlib's cannot begin at a root
    photos = [file for file in files if file.is_file() and file.suffix.lower() in IMAGE_SUFFIXES]
    if not photos:
        raise InputError(
            f"found no photo at {text}; expected an image, a folder of {', '.join(IMAGE_SUFFIXES)} files or a pattern."
        )
    return photos
