"""Folders that appear under their name only when they are complete."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssdd_lightning.data.files import atomic_write, unwritable, write_text
from ssdd_lightning.errors import InputError

STAMP = "prepare.json"


@contextmanager
def whole_folder(target: Path, source: Path) -> Iterator[Path]:
    """Fill a folder `<target>.part`, which gets its name when the block ends without an error.

    What an interrupted run left there is kept for the next one, unless that has another source or any file of the
    source changed; files that it had not finished are removed.

    Args:
        target: The folder to make.
        source: What it is made from; kept in it as `prepare.json`.

    Yields:
        The folder to fill.

    Raises:
        InputError: The folder cannot be made, or a folder of that name exists that nobody stamped.
    """
    part = target.with_name(f"{target.name}.part")
    origin = json.dumps({"source": str(source.resolve()), "state": _state(source, target)})
    stamp = part / STAMP
    if part.exists() and not stamp.is_file() and any(part.iterdir()):
        raise InputError(f"{part} is in the way; it was not made by this command: move it elsewhere")
    if stamp.is_file() and stamp.read_text() != origin:
        shutil.rmtree(part)
    write_text(stamp, origin)
    yield part
    for leftover in part.rglob(".*.tmp"):  # of writing that was killed
        leftover.unlink()
    try:
        os.replace(part, target)  # noqa: PTH105 - in one step
    except OSError as error:
        raise unwritable(target, error) from error


def _state(source: Path, target: Path) -> str:
    """Digest of the sizes and times of a file, or of all files of a folder; not of the target, should it lie there."""
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    made = f"{target.resolve()}"
    digest = hashlib.sha256()
    for path in files:
        if str(path.resolve()).startswith((f"{made}/", f"{made}.part/")):
            continue
        stat = path.stat()
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def place(source: Path, target: Path) -> None:
    """Let a file appear in a second folder: as a hard link, or as a copy where the file system has none.

    Raises:
        InputError: The target cannot be written.
    """
    if target.is_file():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise unwritable(target, error) from error
        with source.open("rb") as stream, atomic_write(target) as copy:
            while chunk := stream.read(1 << 20):
                copy.write(chunk)
