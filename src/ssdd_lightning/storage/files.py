"""Writing files atomically, so that no reader sees half of one."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ssdd_lightning.errors import InputError

_TARGET_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file that appears under its name only when the block ends without an error.

    The bytes go to a hidden temporary file in the same folder (created with its parents if need be), which
    then replaces `path` in one step. If the block raises, the temporary file is removed and `path` stays as
    it was.

    Args:
        path: The file to write. An existing file is replaced.

    Yields:
        The temporary file, open for writing and seeking.

    Raises:
        InputError: The folder cannot be created or written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = temporary.open("xb")  # not tempfile: its files are readable by their owner only
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        with stream:
            yield stream
        rename_over(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _TARGET_ERRORS:
            raise unwritable(path, error) from error
        raise


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
