"""Reading files from untrusted archives: nothing is extracted; the bytes of wanted files are returned.

The caller chooses the path to write to, so links and devices cannot lead anywhere. A wanted file that is a link or a
device is refused, and so is any archive with an entry that points outside its folder.
"""

import bz2
import gzip
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.decoding import decoding
from ssdd_lightning.storage.progress import Progress

Wanted = Callable[[PurePosixPath], bool]
LARGEST_ENTRY = 1 << 40
LARGEST_NOTE = 1 << 10
"""Bytes of an entry of a tar archive, wanted or not, and of one that says something about the next."""
MOST_NOTES = 100_000
"""Entries of the latter kind in one archive; the largest that is wanted here holds 30,000 files."""
_NOTES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
LARGEST = 64 << 20
"""Bytes that a wanted file may hold; the largest photo of VOC and COCO has less than one million."""
LARGEST_RATIO = 200
MANY_BYTES = 256 << 20
"""So many times its size a compressed archive may hold once it holds many bytes; photos and masks hardly shrink."""


def tar_files(
    path: Path, wanted: Wanted, largest: int = LARGEST, progress: bool = True
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Read the wanted files of a tar archive, compressed or not, in one pass and constant memory.

    Args:
        path: The archive.
        wanted: Whether to read the file of this name.
        largest: Bytes that a wanted file may hold.
        progress: Whether to show a bar.

    Yields:
        Name in the archive, without a leading `./`, and content.

    Raises:
        InputError: The archive is missing, truncated, damaged, or dangerous.
    """
    with _reporting(path):
        shown: dict[str, Any] = {"desc": path.name, "shown": progress, "delay": 1, "leave": False}
        total = path.stat().st_size
        with path.open("rb") as raw, Progress.wrapattr(raw, "read", total, **shown) as stream:
            yield from _tar_files(_unpacked(cast(IO[bytes], stream), raw.peek(6), total), path, wanted, largest)


def zip_files(
    path: Path, wanted: Wanted, largest: int = LARGEST, progress: bool = True
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Read the wanted files of a zip archive; see `tar_files`."""
    with _reporting(path), zipfile.ZipFile(path) as archive:
        for entry in Progress(archive.infolist(), path.name, unit="file", shown=progress, delay=1, leave=False):
            name = safe_name(entry.filename, path)
            if not entry.is_dir() and wanted(name):
                _check_size(name, entry.file_size, largest, path)
                _check_ratio(entry.file_size, entry.compress_size, f"archive {path}: {name}")
                yield name, archive.read(entry)


def safe_name(name: str, path: Path) -> PurePosixPath:
    """Parse the name of an entry.

    Raises:
        InputError: It is absolute or leads out of the folder that the archive would be unpacked in.
    """
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
        raise InputError(f"archive {path} holds an entry {name!r} outside its own folder; do not trust this file.")
    return pure


@contextmanager
def open_tar(stream: IO[bytes]) -> Iterator[tarfile.TarFile]:
    """Open an untrusted tar archive, to go through its entries once.

    Args:
        stream: The archive, decompressed.

    Raises:
        tarfile.ReadError: on the way, at an entry that is damaged or claims more bytes than follow it.
    """
    with tarfile.open(fileobj=cast(IO[bytes], _Ending(stream)), mode="r|", tarinfo=_Entry) as archive:
        yield archive


class _Ending:
    """A stream that stops endless reading past its end: tarfile skips what an entry claims, block by block."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self._ended = 0

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes."""
        content = self.stream.read(size)
        self._ended = 0 if content else self._ended + 1
        if self._ended > 2:  # the end is reached once, or twice if the closing zeros are missing
            raise tarfile.ReadError("an entry claims more bytes than follow it")
        return content


class _Entry(tarfile.TarInfo):
    """An entry of a tar archive; tarfile itself takes a damaged or truncated one for the end of the archive.

    Notes, entries that describe other entries, must be short and few: tarfile needs quadratic time for long pax notes,
    and recurses once for each of several in a row. Sparse files are refused: tarfile does not check their maps.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Entry":
        """Read the next entry."""
        try:
            entry: _Entry = super().fromtarfile(archive)
            return entry
        except (IndexError, ValueError, OverflowError, RecursionError) as error:
            raise tarfile.ReadError(f"an entry is damaged: {type(error).__name__}") from error

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _NOTES:
            notes = getattr(archive, "ssdd_notes", 0) + 1
            archive.ssdd_notes = notes  # type: ignore[attr-defined]
            if notes > MOST_NOTES:
                raise tarfile.ReadError(f"more than {MOST_NOTES} entries say something about others")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        if member.issparse():
            raise tarfile.ReadError("an entry is a sparse file")
        return member

    def _refuse_sparse(self, *_: object) -> tarfile.TarInfo:
        raise tarfile.ReadError("an entry is a sparse file")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Entry":
        """Parse a header; refuse a damaged one, and one that claims more bytes than any entry has."""
        try:
            entry = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf.strip(b"\0"):
                raise tarfile.ReadError(f"an entry is damaged: {error}") from error
            raise  # zeros, or nothing: the end
        if not 0 <= entry.size <= LARGEST_ENTRY or (entry.type in _NOTES and entry.size > LARGEST_NOTE):
            raise tarfile.ReadError(f"an entry claims {entry.size} bytes")
        return entry


def _tar_files(stream: IO[bytes], path: Path, wanted: Wanted, largest: int) -> Iterator[tuple[PurePosixPath, bytes]]:
    with open_tar(stream) as archive:
        for member in archive:
            name = safe_name(member.name, path)
            if member.isdir() or not wanted(name):
                continue
            if not member.isreg():
                raise InputError(f"archive {path} holds {member.name} as a link or device; do not trust this file.")
            _check_size(name, member.size, largest, path)
            content = archive.extractfile(member)
            yield name, b"" if content is None else content.read()
    _read_on(stream)


def _unpacked(stream: IO[bytes], magic: bytes, size: int) -> IO[bytes]:
    """Decompress outside tarfile, which stops at the archive's end, before the checksum of the compressed file."""
    for begin, module in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ\0", lzma)):
        if magic.startswith(begin):
            return cast(IO[bytes], Unpacked(cast(IO[bytes], module.open(stream)), size))
    return stream


class Unpacked:
    """A stream of what a compressed file holds, which ends with an error where it claims to hold too much.

    Args:
        stream: The decompressed stream.
        size: Bytes of the compressed file.
    """

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._size = size
        self._read = 0

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes; without a size, all."""
        parts = []
        while size:
            part = self._stream.read(1 << 20 if size < 0 else min(size, 1 << 20))
            self._read += len(part)
            _check_ratio(self._read, self._size, "it")
            parts.append(part)
            size = size if size < 0 else size - len(part)
            if not part:
                break
        return b"".join(parts)


def _read_on(stream: IO[bytes]) -> None:
    """Read to the end, so that the checksum is verified."""
    try:
        while stream.read(1 << 20):
            pass
    except gzip.BadGzipFile as error:
        if not str(error).startswith("Not a gzipped file"):  # gzip too ignores what follows the compressed data
            raise


def _check_ratio(size: int, packed: int, what: str) -> None:
    if size > max(MANY_BYTES, LARGEST_RATIO * packed):
        raise InputError(
            f"{what} unpacks {packed} bytes to {size} or more, which no archive of photos does; do not trust it."
        )


def _check_size(name: PurePosixPath, size: int, largest: int, path: Path) -> None:
    if size > largest:
        raise InputError(f"archive {path}: {name} holds {size} bytes, expected at most {largest}; do not trust it.")


def _reporting(path: Path) -> AbstractContextManager[None]:
    remedy = "it is truncated, damaged or not an archive; copy or download it again"
    return decoding(f"archive {path}", remedy)
