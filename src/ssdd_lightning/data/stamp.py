"""A folder of results knows the settings that made it."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ssdd_lightning.data.files import atomic_write
from ssdd_lightning.errors import InputError

_DIGEST = re.compile(r"[0-9a-f]{64}")


def claim(path: Path, settings: Mapping[str, Any], what: str, free: bool = False) -> None:
    """Keep the settings beside the results, or refuse to mix results of two settings.

    Args:
        path: JSON file in the folder of results.
        settings: Plain values, as JSON gives them back.
        what: What the folder holds, for the message: "a CRF".
        free: There are no results yet: other settings are replaced.

    Raises:
        InputError: The file holds other settings.
    """
    if free or not path.exists():
        with atomic_write(path) as stream:
            stream.write(json.dumps(settings, indent=2).encode())
        return
    try:
        kept = json.loads(path.read_text())
    except ValueError:
        kept = None
    if kept != settings:
        raise InputError(f"{path} says that this folder holds {what} of other settings{_difference(kept, settings)}.")


def _difference(kept: object, settings: Mapping[str, Any]) -> str:
    """The first setting that differs, and what to do."""
    there = kept if isinstance(kept, dict) else {}
    differing = [key for key in {**there, **settings} if there.get(key) != settings.get(key)]
    if not there or not differing:
        return "; choose another folder"
    key = differing[0]
    if _DIGEST.fullmatch(str(settings.get(key))):
        return f": {key} changed since; choose another folder"
    return f" ({key} was {there.get(key)!r}, is {settings.get(key)!r}); choose another folder, or the same settings"


def state_of(files: Iterable[Path]) -> str:
    """Digest of names, sizes and times of files, 64 hexadecimal digits: it changes when one of them does."""
    digest = hashlib.sha256()
    for path in files:
        stat = path.stat()
        digest.update(f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def fingerprint(path: Path) -> dict[str, str]:
    """Name of a file and the SHA-256 of its bytes, as `sha256sum` prints it: the same wherever the file lies.

    Raises:
        InputError: The file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}); check the path") from error
    return {"file": path.name, "sha256": digest.hexdigest()}
