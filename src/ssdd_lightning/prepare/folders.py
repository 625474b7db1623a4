"""Folders that appear under their name only when they are complete."""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.files import atomic_write, remove_leftovers, rename_over, unwritable
from ssdd_lightning.storage.fingerprints import digest_of, fingerprints
from ssdd_lightning.storage.ledger import Ledger, Recipe

NAME = "prepare"
Read = Mapping[str, Sequence[Path]]
"""What a folder is made from: what a user calls it -> files that are unpacked or converted, not those that `place` puts
there."""


def is_made(target: Path, read: Read) -> bool:
    """Whether a folder is there and needs not be made anew; one that has no entry is somebody's own.

    Args:
        target: The folder.
        read: What it would be made from now; empty if that is not at hand, which makes nothing anew.

    Raises:
        InputError: Its entry is damaged.
    """
    return target.is_dir() and not (_stale(target, read) if read else None)


@contextmanager
def whole_folder(target: Path, read: Read) -> Iterator[Path]:
    """Fill a folder `<target>.part`, which gets its name when the block ends without an error.

    Its entry in the ledger lies in it. What an interrupted run left there is kept for the next one, unless it was made
    from something else; files that it had not finished are removed. A target that is made anew is put aside as
    `<target>.replaced-1`.

    Args:
        target: The folder to make.
        read: What it is made from.

    Yields:
        The folder to fill.

    Raises:
        InputError: The folder cannot be made, its entry is damaged, or a folder of that name exists that has none.
    """
    part = target.with_name(f"{target.name}.part")
    ledger = Ledger(part, NAME, _recipe(read))
    if part.exists() and ledger.earlier is None and _is_foreign(part):
        raise InputError(f"{part} is in the way; it was not made by this command: move it elsewhere.")
    if ledger.difference:
        shutil.rmtree(part)
    stale = _stale(target, read)
    if stale:
        print(f"{NAME}: redone in {target}, because {stale}.", flush=True)
    with ledger.working():
        yield part
        remove_leftovers(part, below=True)
        ledger.close()
    if target.exists():
        aside = next(p for n in count(1) if not (p := target.with_name(f"{target.name}.replaced-{n}")).exists())
        rename_over(target, aside)
        print(f"{NAME}: the folder of before is kept as {aside}.", flush=True)
    rename_over(part, target)


def place(source: Path, target: Path) -> None:
    """Let a file appear in a second folder: as a hard link, or as a copy where the file system has none.

    A target of another size or time than the file is replaced.

    Raises:
        InputError: The target cannot be written.
    """
    stat = source.stat()
    if target.is_file():
        if (target.stat().st_size, target.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return
        target.unlink()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise unwritable(target, error) from error
        with source.open("rb") as stream, atomic_write(target) as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
            copy.flush()
            os.utime(copy.name, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _recipe(read: Read) -> Recipe:
    digests = {what: zip(paths, fingerprints(paths), strict=True) for what, paths in read.items()}
    return Recipe(inputs={what: digest_of(f"{p.name} {d}" for p, d in pairs) for what, pairs in digests.items()})


def _stale(target: Path, read: Read) -> str | None:
    """What a folder was made from that is otherwise now; None if nothing is, or it has no entry."""
    return Ledger(target, NAME, _recipe(read)).difference


def _is_foreign(part: Path) -> bool:
    """Whether a folder without entry holds more than what an earlier start may have left: nothing, or half an entry."""
    return not part.is_dir() or any(not path.name.endswith(".tmp") for path in part.iterdir())
