"""One run at a time in a folder."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssdd_lightning.errors import InputError

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder; a lock whose process is gone is taken over.

    Args:
        folder: The folder, created if need be.

    Raises:
        InputError: Another process works there, or the folder cannot be written to.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _take(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror or error}); choose a folder that is writable and has room."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


def _take(path: Path) -> None:
    own = {"host": socket.gethostname(), "process": os.getpid()}
    for _ in range(3):
        try:
            with path.open("x", encoding="utf-8") as stream:
                json.dump(own, stream)
            return
        except FileExistsError:
            owner = _owner(path)
            if owner is None or _is_gone(owner):
                with suppress(FileNotFoundError):
                    path.unlink()
                continue
            raise InputError(
                f"another run works in {path.parent} (process {owner['process']} on {owner['host']}); wait for it, or "
                f"remove {path} if there is none."
            ) from None
    raise InputError(f"cannot hold {path}: other runs keep taking it; choose another folder.")


def _owner(path: Path) -> dict[str, object] | None:
    """Who holds the lock; None where a killed process left half of it."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return {"host": str(owner["host"]), "process": int(owner["process"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_gone(owner: dict[str, object]) -> bool:
    if owner["host"] != socket.gethostname():
        return False
    process = int(str(owner["process"]))
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
