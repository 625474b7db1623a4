"""Fingerprints of files, computed from their bytes; a file whose size and time are known is not read again."""

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path

from ssdd_lightning.errors import InputError

_TABLE = "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, time INTEGER, digest TEXT)"


def fingerprints(paths: Sequence[Path]) -> list[str]:
    """Fingerprint files by their bytes; those whose size and time were seen before are not read again.

    What was seen is kept in the user's cache folder (`XDG_CACHE_HOME`); without one, every file is read.

    Args:
        paths: The files.

    Returns:
        32 hexadecimal digits each, the same wherever a file lies and whenever it was written.

    Raises:
        InputError: A file cannot be read.
    """
    states = [_state(path) for path in paths]
    with closing(_open_cache()) as cache:
        known = [_look_up(cache, path, state) for path, state in zip(paths, states, strict=True)]
        found = [digest or _digest(path) for digest, path in zip(known, paths, strict=True)]
        new = [
            (str(path.absolute()), *state, digest)
            for path, state, digest, old in zip(paths, states, found, known, strict=True)
            if old is None
        ]
        with suppress(sqlite3.Error), cache:
            cache.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", new)
    return found


def fingerprint(path: Path) -> str:
    """Fingerprint one file; see `fingerprints`."""
    return fingerprints([path])[0]


def digest_of(parts: Iterable[str]) -> str:
    """Digest texts, such as names and fingerprints, to 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}); check the path.") from error
    return stat.st_size, stat.st_mtime_ns


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}); check the path.") from error


def _open_cache() -> sqlite3.Connection:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssdd_lightning"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        cache = sqlite3.connect(folder / "fingerprints.sqlite", timeout=10)
        # no waiting for the disk after every image: a cache that a power cut damages only costs reading the files
        cache.execute("PRAGMA synchronous = OFF")
        cache.execute(_TABLE)
    except (OSError, sqlite3.Error):  # read-only, damaged, ...: the cache only saves time
        cache = sqlite3.connect(":memory:")
        cache.execute(_TABLE)
    return cache


def _look_up(cache: sqlite3.Connection, path: Path, state: tuple[int, int]) -> str | None:
    try:
        row = cache.execute("SELECT size, time, digest FROM files WHERE path = ?", (str(path.absolute()),)).fetchone()
    except (sqlite3.Error, UnicodeEncodeError):
        return None
    return str(row[2]) if row is not None and tuple(row[:2]) == state else None
