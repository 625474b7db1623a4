"""Files that tests write, spoil and compare."""

import io
import os
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssdd_lightning.storage.masks import VOC_PALETTE


def noise(size: tuple[int, int], seed: int | np.random.Generator = 0) -> np.ndarray:
    """A random photo of H x W, H x W x 3 uint8."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def write_photo(path: Path, size: tuple[int, int], seed: int | np.random.Generator = 0) -> None:
    Image.fromarray(noise(size, seed)).save(path)


def encode(mask: np.ndarray, palette: np.ndarray = VOC_PALETTE, mode: str = "P") -> bytes:
    """A mask as the bytes of a PNG."""
    image = Image.fromarray(mask.astype(np.uint8))
    if mode == "P":
        image.putpalette(np.ascontiguousarray(palette).tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def contents(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """Path below the folder -> content of the file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern) if path.is_file()}


def times(folder: Path, pattern: str = "*") -> dict[str, int]:
    """Path below the folder -> when it was last written, in nanoseconds."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob(pattern) if path.is_file()}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_tar(path: Path, files: Mapping[str, bytes], mode: Any = "w", extra: Iterable[tarfile.TarInfo] = ()) -> Path:
    """Write a tar archive; `extra` are members without content."""
    with tarfile.open(path, mode) as archive:
        for member in extra:
            archive.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


class Trap:
    """Whoever unpickles it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.folder),)
