"""Archives for PASCAL VOC's evaluation server: building and checking them.

The server wants `results/VOC2012/Segmentation/comp6_test_cls/<name>.png` for every image of the split: mode P with the
VOC palette, values 0..20, the image's own size, packed as .tgz. comp5 is for training on VOC's own data alone.
"""

import gzip
import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.data.layout import Devkit
from ssdd_lightning.errors import InputError, listed
from ssdd_lightning.evaluation.folder import read_prediction
from ssdd_lightning.storage.archives import Unpacked, open_tar
from ssdd_lightning.storage.decoding import decoding, reason
from ssdd_lightning.storage.files import atomic_write
from ssdd_lightning.storage.images import image_size
from ssdd_lightning.storage.masks import VOC_PALETTE, odd_colours
from ssdd_lightning.storage.progress import Progress
from ssdd_lightning.storage.threads import cores, in_threads, with_bar

COMPETITIONS = ("comp6", "comp5")
FOLDER = "results/VOC2012/Segmentation/{}_test_cls"
LARGEST = 16 << 20
"""Bytes that a mask in an archive may hold; VOC's own hold some ten thousand."""
SHOWN = 5
_ENTRY = re.compile(r"results/VOC2012/Segmentation/(comp[56])_test_cls/([^/]+)\.png")


class SubmissionError(InputError):
    """What is wrong with a submission.

    Args:
        path: The archive.
        problems: One sentence each, without its full stop.
    """

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        super().__init__(f"the server would refuse {path}: {'; '.join(problems[:SHOWN])}{more}.")
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Expected:
    """What an archive must hold.

    Args:
        images: Folder of the photos.
        names: Images of the split.
    """

    images: Path
    names: tuple[str, ...]

    @classmethod
    def of(cls, root: Path, split: str = "test") -> "Expected":
        """Read a split of a devkit.

        Raises:
            InputError: The devkit, the list or a photo is missing.
        """
        devkit = Devkit(root)
        names, images = devkit.names(split), devkit.images
        missing = [path.stem for path in devkit.photos(names) if not path.is_file()]
        if missing:
            raise InputError(
                f"{images} lacks {len(missing)} of {len(names)} photos of {split}, such as {missing[0]}.jpg; unpack "
                "VOC2012test.tar there."
            )
        return cls(images, tuple(names))

    def problems(self, name: str, mask: npt.NDArray[np.uint8]) -> list[str]:
        """What is wrong with a decoded mask: size and values."""
        found = []
        size = image_size(self.images / f"{name}.jpg")
        if mask.shape != size:
            found.append(f"{name}.png is {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[1]} x {size[0]}")
        strange = [value for value in np.unique(mask).tolist() if value >= len(VOC_CLASSES)]
        if strange:
            found.append(f"{name}.png holds the value {strange[-1]}, expected 0..{len(VOC_CLASSES) - 1}")
        return found


def build_submission(
    predictions: Path,
    expected: Expected,
    out: Path,
    competition: str = COMPETITIONS[0],
    num_workers: int | None = None,
    progress: bool = True,
) -> None:
    """Pack a folder of predictions; the same predictions give the same bytes.

    Args:
        predictions: Folder of masks `<name>.png` or score maps `<name>.map.png`.
        expected: Split and photos.
        out: The archive, `.tgz`.
        competition: comp6 or comp5.
        num_workers: Threads; None means one per core.
        progress: Whether to show a bar.

    Raises:
        SubmissionError: The predictions are incomplete, of another size, or hold other values. Nothing is written.
        InputError: The archive cannot be written.
    """
    if not out.name.endswith((".tgz", ".tar.gz")):
        raise InputError(f"the server takes .tgz archives, found {out}; choose a name with this suffix.")
    if not predictions.is_dir():
        raise InputError(f"expected a folder of predictions at {predictions}, found none; check the path.")
    problems: list[str] = []

    def encoded(name: str) -> tuple[str, bytes, list[str]]:
        """A mask's name, file content, and what is wrong with it."""
        try:
            mask = read_prediction(predictions, name)
        except InputError as error:
            return name, b"", [str(error).removesuffix(".")]
        found = expected.problems(name, mask)
        return name, b"" if found else _png(mask), found

    done = with_bar(encoded, sorted(expected.names), "submit", num_workers, progress)
    with atomic_write(out) as stream, _deterministic_tar(stream) as archive:
        for name, content, found in done:
            problems += found
            member = tarfile.TarInfo(f"{FOLDER.format(competition)}/{name}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        if problems:
            raise SubmissionError(out, problems)


def check_submission(path: Path, expected: Expected, num_workers: int | None = None, progress: bool = True) -> str:
    """Check any archive as the server would, and more strictly.

    Args:
        path: The archive.
        expected: Split and photos.
        num_workers: Threads; None means one per core.
        progress: Whether to show a bar.

    Returns:
        The competition that it is for.

    Raises:
        SubmissionError: Something is wrong; its `problems` name all of it.
        InputError: There is no such file.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise InputError(f"expected an archive at {path}, found {what}; build it with `--predictions` and `--out`.")
    check = _Check(expected)
    try:
        with (
            decoding(str(path), "it is truncated, damaged or no gzip-compressed tar"),
            gzip.open(path) as stream,
            open_tar(packed := cast(IO[bytes], Unpacked(cast(IO[bytes], stream), path.stat().st_size))) as archive,
        ):
            done = in_threads(
                lambda entry: _mask_problems(expected, *entry), check.masks(archive), num_workers or cores()
            )
            for found in Progress(done, "check", len(expected.names), unit="image", shown=progress):
                check.found += found
            while packed.read(1 << 20):  # tarfile stops at the end of the archive, before gzip's checksum
                pass
    except InputError as error:
        why = reason(error.__cause__ or error)
        check.found.append(f"it is truncated, damaged or no gzip-compressed tar ({why})")
    problems = [*check.found, *check.incomplete()]
    if problems:
        raise SubmissionError(path, problems)
    return next(iter(check.competitions))


@dataclass
class _Check:
    """Goes through the entries of an archive once."""

    expected: Expected
    found: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    competitions: set[str] = field(default_factory=set)

    def masks(self, archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of every mask that belongs there; note the other entries."""
        names = set(self.expected.names)
        for member in archive:
            match = _ENTRY.fullmatch(member.name.removeprefix("./"))
            if member.isdir():
                continue
            if match is None or not member.isreg():
                self.found.append(f"entry {member.name!r} is no file {FOLDER.format('comp6')}/<name>.png")
                continue
            competition, name = match.groups()
            self.competitions.add(competition)
            if name not in names or name in self.seen:
                self.found.append(f"{name}.png is " + ("there twice" if name in self.seen else "not in the split"))
                continue
            self.seen.add(name)
            content = None if member.size > LARGEST else archive.extractfile(member)
            if content is None:
                self.found.append(f"{name}.png holds {member.size} bytes, which no mask does")
                continue
            yield name, content.read()

    def incomplete(self) -> list[str]:
        """What is missing, and whether the archive is for two competitions."""
        missing = [name for name in self.expected.names if name not in self.seen]
        found = []
        if missing:
            count = f"{len(missing)} of {len(self.expected.names)} images are missing"
            found.append(f"{count}: {listed(missing, SHOWN)}")
        if len(self.competitions) > 1:
            found.append(f"it holds the competitions {' and '.join(sorted(self.competitions))}, expected one")
        return found


def _mask_problems(expected: Expected, name: str, content: bytes) -> list[str]:
    try:
        with (
            decoding(f"{name}.png", "it is damaged or no PNG"),
            Image.open(io.BytesIO(content), formats=["PNG"]) as image,
        ):
            if image.mode != "P":
                return [f"{name}.png has mode {image.mode}, expected an indexed PNG (mode P)"]
            height, width = image_size(expected.images / f"{name}.jpg")
            if image.size != (width, height):  # before decoding: a few bytes can claim any size
                return [f"{name}.png is {image.width} x {image.height} pixels, its image {width} x {height}"]
            mask = np.array(image)
            odd = odd_colours(image, np.unique(mask).tolist())
    except InputError as error:
        why = type(error.__cause__ or error).__name__
        return [f"{name}.png cannot be read ({why}); it is damaged or no PNG"]
    found = expected.problems(name, mask)
    return [*found, f"{name}.png paints class {odd[0]} in another colour than VOC's palette"] if odd else found


def _png(mask: npt.NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(mask)
    image.putpalette(VOC_PALETTE.tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@contextmanager
def _deterministic_tar(stream: BinaryIO) -> Iterator[tarfile.TarFile]:
    """Open a .tgz without the time, name and user that tools usually leave in it."""
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        yield archive
