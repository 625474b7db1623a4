"""The folders of VOC."""

from pathlib import Path

from ssdd_lightning.errors import InputError


def find_devkit(root: Path) -> Path:
    """Find the folder that holds JPEGImages and ImageSets.

    Args:
        root: That folder itself, or one that holds it as `VOC2012` or `VOCdevkit/VOC2012`.

    Raises:
        InputError: There is none.
    """
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "JPEGImages").is_dir():
            return folder
    found = "the folder does not exist" if not root.is_dir() else "found none of them"
    raise InputError(
        f"root {root} should hold JPEGImages, VOC2012/JPEGImages or VOCdevkit/VOC2012/JPEGImages, {found}; "
        "unpack VOCtrainval_11-May-2012.tar there or correct `root`."
    )
