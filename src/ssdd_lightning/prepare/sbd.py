"""SBD, the Semantic Boundaries Dataset (Hariharan et al., ICCV 2011): class masks of 11,355 images of VOC."""

import io
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.archives import tar_files

LARGEST_MAT = 1 << 20
"""Bytes that a .mat file may hold; they hold some ten thousand, and what they hold is compressed once more."""
_NAME = re.compile(r"\d{4}_\d{6}")


def sbd_files(source: Path, progress: bool = True) -> Iterator[tuple[str, bytes]]:
    """Read the class annotations and the lists of SBD.

    Args:
        source: `benchmark.tgz`, or a folder that holds `benchmark_RELEASE/dataset`, `dataset` or `cls`.
        progress: Whether to show a bar.

    Yields:
        `2008_000002.mat`, `train.txt` or `val.txt`, and content.

    Raises:
        InputError: It is damaged or not SBD.
    """
    if source.is_file():
        for path, content in tar_files(source, _is_wanted, LARGEST_MAT, progress):
            yield path.name, content
        return
    folder = find_sbd(source)
    for file in (*sorted((folder / "cls").glob("*.mat")), folder / "train.txt", folder / "val.txt"):
        if file.is_file() and _is_wanted(PurePosixPath("dataset", *file.relative_to(folder).parts)):
            yield file.name, file.read_bytes()


def find_sbd(root: Path) -> Path:
    """Find the folder that holds `cls`.

    Raises:
        InputError: There is none.
    """
    for folder in (root, root / "dataset", root / "benchmark_RELEASE" / "dataset"):
        if (folder / "cls").is_dir():
            return folder
    raise InputError(
        f"folder {root} should hold benchmark_RELEASE/dataset/cls, found none; unpack benchmark.tgz there."
    )


def read_mat(content: bytes, where: str) -> npt.NDArray[np.uint8]:
    """Read the mask in a file of SBD's folder `cls`.

    Args:
        content: The .mat file.
        where: Its name, for messages.

    Returns:
        H x W uint8, VOC's class indices.

    Raises:
        InputError: The file is damaged, or lacks GTcls.Segmentation, or holds other values.
    """
    from scipy.io import loadmat

    try:
        found = loadmat(io.BytesIO(content), variable_names=["GTcls"])["GTcls"]["Segmentation"].item()
    except Exception as error:  # scipy promises nothing about what it raises on damaged files
        raise InputError(
            f"cannot read {where} of SBD ({type(error).__name__}: {error}); expected a .mat file with "
            "GTcls.Segmentation; get SBD again."
        ) from error
    mask = np.asarray(found)
    if mask.ndim != 2 or mask.dtype != np.uint8 or mask.size == 0 or mask.max() >= len(VOC_CLASSES):
        raise InputError(
            f"{where} of SBD: expected H x W class indices 0..{len(VOC_CLASSES) - 1} in GTcls.Segmentation, found "
            f"shape {mask.shape} of {mask.dtype} with values up to {mask.max(initial=0)}; get SBD again."
        )
    return mask


def _is_wanted(path: PurePosixPath) -> bool:
    if path.parts[-3:-1] == ("dataset", "cls"):
        return path.suffix == ".mat" and _NAME.fullmatch(path.stem) is not None
    return path.parts[-2:-1] == ("dataset",) and path.name in ("train.txt", "val.txt")
