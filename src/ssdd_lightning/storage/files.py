"""Writing files atomically, so that no reader sees half of one."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ssdd_lightning.errors import InputError

_TARGET_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}


@contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """Open a binary file that appears under its name only when the block ends without an error.

    The bytes go to a hidden temporary file in the same folder (created with its parents if need be), which
    then replaces `path` in one step. If the block raises, the temporary file is removed and `path` stays as
    it was.

    Args:
        path: The file to write. An existing file is replaced.
        durable: Wait until the bytes are on the disk before the file gets its name, so that not even a power cut
            leaves half of it; for files that took hours.

    Yields:
        The temporary file, open for writing, reading and seeking.

    Raises:
        InputError: The folder cannot be created or written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = temporary.open("x+b")  # not tempfile: its files are readable by their owner only
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        with stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        rename_over(temporary, path)
        if durable:
            _sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _TARGET_ERRORS:
            raise unwritable(path, error) from error
        raise


def keep_aside(path: Path, other: Path) -> None:
    """Give a file a second name in the same folder, in one step; what had that name before is replaced.

    A later `atomic_write` to the first name leaves the second one as it is.
    """
    temporary = other.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        try:
            temporary.hardlink_to(path)
        except OSError:  # a file system without hard links
            shutil.copy2(path, temporary)
        rename_over(temporary, other)
    except OSError as error:
        raise unwritable(other, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # such as Windows, where folders cannot be opened
        return
    with suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)


def remove_leftovers(folder: Path, below: bool = False) -> None:
    """Remove the temporary files of `atomic_write` that a killed run left in a folder, or also in its subfolders."""
    for path in (folder.rglob if below else folder.glob)(f".{'[0-9a-f]' * 32}.tmp"):
        path.unlink()


def rename_over(path: Path, target: Path) -> None:
    """Rename a file or folder in one step, over a file that is there; an InputError if that cannot be."""
    try:
        os.replace(path, target)  # noqa: PTH105 - the name of the system call says what is promised
    except OSError as error:
        raise unwritable(target, error) from error


def unwritable(path: Path, error: OSError) -> InputError:
    """Say in one sentence why a file cannot be written."""
    return InputError(f"cannot write {path}: {error.strerror or error}; choose a folder that is writable and has room.")


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8, whole or not at all; a file that already holds this text is left alone."""
    if not holds(path, text):
        with atomic_write(path) as stream:
            stream.write(text.encode())


def holds(path: Path, text: str) -> bool:
    """Whether a file exists and holds exactly this text in UTF-8."""
    return path.is_file() and path.read_bytes() == text.encode()
