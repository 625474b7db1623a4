"""One run at a time in a folder."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.files import remove_leftovers, unwritable

NAME = ".lock"
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def locked(folder: Path, rank: int = 0) -> Iterator[None]:
    """Lock a folder. The system releases the lock when the process ends, however it ends.

    While it is held, nobody else writes there. Half-written files of killed processes are removed, in the folder and in
    the folders in it, unless somebody works in one of these.

    Args:
        folder: The folder, created if need be.
        rank: Number of this process among those that work there together; process 0 has the lock for all.

    Raises:
        InputError: Another process works there, or the folder cannot be written to.
    """
    if rank:
        yield
        return
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = _take(path)
    except OSError as error:
        raise unwritable(path, error) from error
    with stream:
        try:
            remove_leftovers(folder)
            for part in _free_folders(folder):
                remove_leftovers(part)
            yield
        finally:
            path.unlink(missing_ok=True)


def _free_folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        folders = [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return [path for path in folders if not (path / NAME).exists()]


def _take(path: Path) -> IO[str]:
    while True:
        stream = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            raise InputError(f"another run works in {path.parent}{_owner(path)}; wait for it, or stop it.") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return stream  # a file system without locks: better unguarded than not at all
        if path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat()):
            stream.truncate(0)
            json.dump({"host": socket.gethostname(), "process": os.getpid()}, stream)
            stream.flush()
            return stream
        stream.close()  # whoever held it removed the file in between


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f" (process {int(owner['process'])} on {owner['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
