"""One run at a time in a folder."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssdd_lightning.errors import InputError

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder. The system gives the lock back when the process ends, however it ends.

    The file `.lock` stays where it is; it names the last process that held the folder.

    Args:
        folder: The folder, created if need be.

    Raises:
        InputError: Another process works there, or the folder cannot be written to.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror or error}); choose a folder that is writable and has room."
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another run works in {folder}{_owner(path)}; wait for it, or end it.") from None
        stream.truncate(0)
        json.dump({"host": socket.gethostname(), "process": os.getpid()}, stream)
        stream.flush()
        yield


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f" (process {int(owner['process'])} on {owner['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
