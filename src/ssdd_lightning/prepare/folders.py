"""Folders that appear under their name only when they are complete."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.files import atomic_write, is_current, remove_leftovers, unwritable, write_text
from ssdd_lightning.storage.fingerprints import digest_of

STAMP = "prepare.json"


@contextmanager
def whole_folder(target: Path, source: Path, read: Iterable[Path]) -> Iterator[Path]:
    """Fill a folder `<target>.part`, which gets its name when the block ends without an error.

    What an interrupted run left there is kept for the next one, unless that has another source or a file changed that
    it was made from; files that it had not finished are removed.

    Args:
        target: The folder to make.
        source: Its source; kept in it as `prepare.json`.
        read: Files that are unpacked or converted, in the same order each time; not those that `place` puts there.

    Yields:
        The folder to fill.

    Raises:
        InputError: The folder cannot be made, or an unstamped folder of that name exists.
    """
    part = target.with_name(f"{target.name}.part")
    origin = json.dumps({"source": str(source.resolve()), "state": state_of(read)})
    stamp = part / STAMP
    if part.exists() and not stamp.is_file() and _is_foreign(part):
        raise InputError(f"{part} is in the way, and this command did not make it; move it elsewhere.")
    if stamp.is_file() and stamp.read_text() != origin:
        shutil.rmtree(part)
    write_text(stamp, origin)
    yield part
    remove_leftovers(part)
    try:
        os.replace(part, target)  # noqa: PTH105 - in one step
    except OSError as error:
        raise unwritable(target, error) from error


def _is_foreign(part: Path) -> bool:
    """Whether an unstamped folder holds more than what an earlier start may have left: nothing, or half a stamp."""
    return not part.is_dir() or any(not path.name.endswith(".tmp") for path in part.iterdir())


def place(source: Path, target: Path) -> None:
    """Let a file appear in a second folder: as a hard link, or as a copy where the file system has none.

    A target of another size, or older than the file, is replaced.

    Raises:
        InputError: The target cannot be written.
    """
    if target.is_file():
        same_size = target.stat().st_size == source.stat().st_size
        if target.samefile(source) or (same_size and is_current(target, source)):
            return
        target.unlink()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise unwritable(target, error) from error
        with source.open("rb") as stream, atomic_write(target) as copy:
            while chunk := stream.read(1 << 20):
                copy.write(chunk)


def state_of(files: Iterable[Path]) -> str:
    """Digest of names, sizes and times of archives, which are too large to be read for it."""
    states = ((path.name, path.stat()) for path in files)
    return digest_of(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in states)
