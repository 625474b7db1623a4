"""Archives: given, already downloaded, or downloaded now, with progress, resume and checksum.

The downloads of torch.hub, torchvision and pooch restart after an interruption, which costs too much for COCO's 20 GB.
"""

import argparse
import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.files import rename_over, unwritable
from ssdd_lightning.storage.progress import Progress

CHUNK = 1 << 16  # what a killed download loses at most
TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class Remote:
    """An archive at its public address.

    Args:
        name: File name.
        url: Address.
        md5: Checksum in hexadecimal digits.
        unpacked: Folder that it is unpacked to, if several archives lie in one place; None stands for that place.
    """

    name: str
    url: str
    md5: str
    unpacked: str = ""


@dataclass(frozen=True)
class Obtaining:
    """Where archives come from.

    Args:
        folder: Where downloads go.
        download: Whether to download what is not given.
        checksum: Whether given archives must have the published checksum; downloaded ones must in any case.
        progress: Whether to show bars.
    """

    folder: Path
    download: bool = False
    checksum: bool = True
    progress: bool = True

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Obtaining":
        """As the options of a command say; downloads go into its output folder."""
        return cls(args.out / "downloads", args.download, args.checksum)

    def available(self, remote: Remote, given: Path | None) -> bool:
        """Whether `obtain` has anything to go by."""
        return given is not None or self.download or self.at_hand(remote, None) is not None

    def at_hand(self, remote: Remote, given: Path | None) -> Path | None:
        """What `obtain` would find without a download; None if it is not there."""
        path = self.folder if given is None else given
        found = [path / remote.name, *([] if given is None else [given / remote.unpacked])]
        return next((path for path in found if path.exists()), None)

    def obtain(self, remote: Remote, given: Path | None, option: str) -> Path:
        """Find an archive, or the folder of an unpacked one.

        Args:
            remote: What is wanted.
            given: The archive, a folder that holds it under its own name, or what was unpacked from it; None if the
                user named nothing. Where several archives lie in one folder, it may lack some.
            option: What the user would have named it with.

        Returns:
            An archive of the right checksum, or the folder.

        Raises:
            InputError: It does not exist, is another file, or cannot be downloaded.
        """
        if given is None:
            return self._obtain_remote(remote, option)
        path = self.at_hand(remote, given)
        if path is None and given.is_dir():
            if self.available(remote, None):
                return self._obtain_remote(remote, option)
            lacking = f"neither {remote.name} nor {remote.unpacked}"
            raise InputError(f"{given} holds {lacking}; complete it, or add `--download`.")
        if path is None:
            raise InputError(f"{option}: {given} does not exist; give {remote.name}, or the folder unpacked from it.")
        if path.is_file() and self.checksum:
            found = md5_of(path, self.progress)
            if found != remote.md5:
                raise InputError(
                    f"{path} has the MD5 {found}, expected {remote.md5} of {remote.name}: it is truncated, damaged or "
                    "a different file; get it again, or accept it with `--no-checksum`."
                )
        return path

    def _obtain_remote(self, remote: Remote, option: str) -> Path:
        path = self.at_hand(remote, None)
        if path is not None:
            return path  # it got this name after its checksum was right
        if not self.download:
            raise InputError(f"{remote.name} is needed: give it with `{option}`, or download it with `--download`.")
        return fetch(remote, self.folder, self.progress)


def md5_of(path: Path, progress: bool = True) -> str:
    """Compute the MD5 of a file in constant memory."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        for chunk in _chunks(stream, f"checksum of {path.name}", path.stat().st_size, progress):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(remote: Remote, folder: Path, progress: bool = True) -> Path:
    """Download a file; an interrupted download continues where it stopped.

    Args:
        remote: What to download.
        folder: Where to put it. Until its checksum is right it is called `<name>.part`.
        progress: Whether to show a bar.

    Returns:
        The file.

    Raises:
        InputError: The server does not answer, stops answering, or sends something else; or the disk is full.
    """
    target, part = folder / remote.name, folder / f"{remote.name}.part"
    if target.is_file():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise unwritable(part, error) from error
    while not _receive(remote.url, part, progress):
        pass
    found = md5_of(part, progress)
    if found != remote.md5:
        part.unlink()
        raise InputError(
            f"what {remote.url} sent has the MD5 {found}, expected {remote.md5}; it was removed; run the same command "
            "again, or get the file elsewhere."
        )
    rename_over(part, target)
    return target


def _receive(url: str, part: Path, progress: bool) -> bool:
    """Receive what is missing.

    Returns:
        Whether the file is complete; false if the connection broke after some progress.
    """
    start = part.stat().st_size
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    done, total, reason = start, None, "the connection broke"
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            resumed = answer.status == http.client.PARTIAL_CONTENT
            done = start if resumed else 0
            length = answer.headers.get("Content-Length")
            total = None if length is None else done + int(length)
            for chunk in _chunks(answer, part.name.removesuffix(".part"), total, progress, done):
                _append(part, chunk, fresh=done == 0)
                done += len(chunk)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return True  # nothing is missing; the checksum will tell
        reason = f"the server answers {error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
    else:
        if total is None or done >= total:
            return True
    if done > start:
        return False
    of = "" if total is None else f" of {total}"
    raise InputError(
        f"download of {url} stopped at {done}{of} bytes ({reason}); run the same command again to continue."
    )


def _append(part: Path, chunk: bytes, fresh: bool) -> None:
    try:
        with part.open("wb" if fresh else "ab", buffering=0) as stream:
            stream.write(chunk)
    except OSError as error:
        raise unwritable(part, error) from error


def _chunks(stream: BinaryIO | Any, what: str, total: int | None, progress: bool, start: int = 0) -> Iterator[bytes]:  # noqa: ANN401
    with Progress(
        desc=what, total=total, initial=start, unit="B", unit_scale=True, shown=progress, delay=1, leave=False
    ) as bar:
        while chunk := stream.read(CHUNK):
            yield chunk
            bar.update(len(chunk))
