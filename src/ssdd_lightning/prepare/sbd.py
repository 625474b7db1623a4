"""SBD, the Semantic Boundaries Dataset (Hariharan et al., ICCV 2011): class masks of 11,355 images of VOC."""

import io
import json
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.archives import tar_files
from ssdd_lightning.storage.decoding import reason
from ssdd_lightning.storage.masks import MOST_PIXELS

LARGEST_MAT = 1 << 20
"""Bytes that a .mat file may hold; they hold some ten thousand, and what they hold is compressed once more."""
LONGEST = 60
"""Seconds that one file may take; it takes a few thousandths."""
_NAME = re.compile(r"\d{4}_\d{6}")


def sbd_files(source: Path, progress: bool = True) -> Iterator[tuple[str, bytes]]:
    """Read the class annotations and the lists of SBD.

    Args:
        source: `benchmark.tgz`, or a folder that holds `benchmark_RELEASE/dataset`, `dataset` or `cls`.
        progress: Whether to show a bar.

    Yields:
        `2008_000002.mat`, `train.txt` or `val.txt`, and content.

    Raises:
        InputError: It is damaged or not SBD.
    """
    if source.is_file():
        for path, content in tar_files(source, _is_wanted, LARGEST_MAT, progress):
            yield path.name, content
        return
    folder = find_sbd(source)
    for file in (*sorted((folder / "cls").glob("*.mat")), folder / "train.txt", folder / "val.txt"):
        if file.is_file() and _is_wanted(PurePosixPath("dataset", *file.relative_to(folder).parts)):
            yield file.name, file.read_bytes()


def find_sbd(root: Path) -> Path:
    """Find the folder that holds `cls`.

    Raises:
        InputError: There is none.
    """
    for folder in (root, root / "dataset", root / "benchmark_RELEASE" / "dataset"):
        if (folder / "cls").is_dir():
            return folder
    raise InputError(
        f"folder {root} should hold benchmark_RELEASE/dataset/cls, found none; unpack benchmark.tgz there."
    )


def read_mat(content: bytes, where: str) -> npt.NDArray[np.uint8]:
    """Read the mask in a file of SBD's folder `cls`.

    Args:
        content: The .mat file.
        where: Its name, for messages.

    Returns:
        H x W uint8, VOC's class indices.

    Raises:
        InputError: The file is damaged, or lacks GTcls.Segmentation, or holds other values.
    """
    try:
        mask = _PROCESS.read(content)
    except InputError as error:
        raise InputError(
            f"cannot read {where} of SBD ({str(error).rstrip('.')}); expected a .mat file with GTcls.Segmentation; get "
            "SBD again."
        ) from error
    if mask.ndim != 2 or mask.dtype != np.uint8 or mask.size == 0 or mask.max() >= len(VOC_CLASSES):
        raise InputError(
            f"{where} of SBD: expected H x W class indices 0..{len(VOC_CLASSES) - 1} in GTcls.Segmentation, found "
            f"shape {mask.shape} of {mask.dtype} with values up to {mask.max(initial=0)}; get SBD again."
        )
    return mask


class _MatProcess:
    """A process that reads .mat files for this one, because crafted ones crash scipy's reader; restarted if they do."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._connection: Connection | None = None
        self._process: BaseProcess | None = None

    def read(self, content: bytes) -> npt.NDArray[Any]:
        """Read `GTcls.Segmentation` of a file; H x W of any number type.

        Raises:
            InputError: scipy cannot read it, or crashed, or found no end.
        """
        with self._lock:
            try:
                connection = self._connection or self._start()
                connection.send_bytes(content)
                if not connection.poll(LONGEST):
                    raise TimeoutError
                answer = connection.recv_bytes()
            except (OSError, EOFError) as error:
                self._stop()
                took = f"scipy needed more than {LONGEST} seconds"
                what = took if isinstance(error, TimeoutError) else "scipy's reader crashed on it"
                raise InputError(f"{what}; do not trust it.") from error
        head, _, values = answer.partition(b"\n")
        kind, *told = json.loads(head)
        if kind is None:
            raise InputError(str(told[0]))
        return np.frombuffer(values, kind).reshape(told)

    def _start(self) -> Connection:
        context = get_context("spawn")  # a fork would inherit the locks of other threads
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()  # so that either side sees the end of the other
        ours.recv_bytes()  # scipy is imported
        self._connection, self._process = ours, process
        return ours

    def _stop(self) -> None:
        if self._process is not None and self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
        self._connection = self._process = None


def _serve(connection: Connection) -> None:
    """Answer every file with a line of JSON, [type, height, width] or [null, reason], and the values."""
    from scipy.io import loadmat

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides
    with suppress(EOFError, OSError):
        connection.send_bytes(b"ready")
        while True:
            content = io.BytesIO(connection.recv_bytes())
            try:
                mask = np.asarray(loadmat(content, variable_names=["GTcls"])["GTcls"]["Segmentation"].item())
                if mask.dtype.kind not in "biuf":
                    raise ValueError(f"Segmentation is of {mask.dtype}")
                if mask.nbytes > MOST_PIXELS:  # so much is not sent, which takes its memory four times
                    raise ValueError(f"Segmentation holds {mask.nbytes} bytes")
                answer = json.dumps([mask.dtype.str, *mask.shape]).encode() + b"\n" + mask.tobytes()
            except Exception as error:  # scipy promises nothing about what it raises on damaged files
                answer = json.dumps([None, f"{type(error).__name__}: {reason(error)}"]).encode()
            connection.send_bytes(answer)


_PROCESS = _MatProcess()


def _is_wanted(path: PurePosixPath) -> bool:
    if path.parts[-3:-1] == ("dataset", "cls"):
        return path.suffix == ".mat" and _NAME.fullmatch(path.stem) is not None
    return path.parts[-2:-1] == ("dataset",) and path.name in ("train.txt", "val.txt")
