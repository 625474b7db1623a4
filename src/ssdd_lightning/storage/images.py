"""Photos in a plain folder."""

from pathlib import Path

from ssdd_lightning.errors import InputError, check_folder
from ssdd_lightning.storage.masks import opened_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".bmp", ".png")
"""What counts as a photo, in any case; where two share a name the earlier in this list wins, so that masks
`<name>.png` may lie beside photos `<name>.jpg`."""


def find_images(folder: Path) -> dict[str, Path]:
    """Find the photos of a folder, without its subfolders.

    Args:
        folder: Folder of .jpg, .jpeg, .bmp or .png files of any names; hidden files are left out.

    Returns:
        Image name (the file's, without its last suffix) -> file, by name.

    Raises:
        InputError: The folder does not exist or holds none.
    """
    check_folder(folder, "folder of images")
    files = [path for path in folder.iterdir() if _rank(path) < len(IMAGE_SUFFIXES) and path.name[0] != "."]
    if not files:
        raise InputError(f"folder {folder} holds no images; expected {', '.join(IMAGE_SUFFIXES)} files.")
    found = {path.stem: path for path in sorted(files, key=_rank, reverse=True)}
    return dict(sorted(found.items()))


def image_size(path: Path) -> tuple[int, int]:
    """Read an image's (height, width) without its pixels.

    Raises:
        InputError: The file is missing or not an image.
    """
    with opened_image(path, "image", "copy or download it again") as image:
        return image.height, image.width


def _rank(path: Path) -> int:
    suffix = path.suffix.lower()
    return IMAGE_SUFFIXES.index(suffix) if suffix in IMAGE_SUFFIXES else len(IMAGE_SUFFIXES)
