"""Programs in processes of their own."""

import atexit
import fcntl
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

FORKS = multiprocessing.get_context("forkserver")
"""Starts processes from one that has loaded what takes seconds to load."""
FORKS.set_forkserver_preload(
    [
        "ssdd_lightning.pipeline.lightning",
        "ssdd_lightning.pipeline.run",
        "ssdd_lightning.pipeline.refine",
        "ssdd_lightning.folders.segment_checkpoint",
        "ssdd_lightning.interop.import_folder",
        "ssdd_lightning.prepare.coco",
    ]
)
SSDD = """
from ssdd_lightning.cli.main import entry_point
entry_point()
"""


def python(code: str, **environment: str) -> str:
    """Run a program, which must end well; return what it printed."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SLOW = """
import time
import ssdd_lightning as package
from ssdd_lightning.cli.main import entry_point
def slow(stage, name):
    step = getattr(stage, name)
    def wrapped(self, *arguments):
        print("working", flush=True)
        time.sleep(0.2)
        return step(self, *arguments)
    setattr(stage, name, wrapped)
for stage in (package.ClassificationModule, package.SegmentationModule):
    for name in ("training_step", "predict_step", "test_step"):
        if hasattr(stage, name):
            slow(stage, name)
entry_point()
"""


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one of pytest-xdist's workers makes; the others wait for it."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder.with_suffix(".made")
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


class Forked:
    """A Python program in a process forked from `FORKS`, in place of `subprocess.Popen` with two pipes or one.

    Args:
        code: The program, as after `python -c`.
        words: Its words.
        variables: Further environment variables.
        one_stream: Whether errors go where the output goes.
        session: Whether it leads a session, so that a signal may go to its group.
    """

    def __init__(
        self,
        code: str,
        words: Iterable[object] = (),
        variables: Mapping[str, object] | None = None,
        one_stream: bool = True,
        session: bool = False,
    ) -> None:
        environment = {**os.environ, **{name: str(value) for name, value in (variables or {}).items()}}
        ends = [FORKS.Pipe(duplex=False) for _ in range(1 if one_stream else 2)]
        streams = [writer for _, writer in ends]
        self._process = FORKS.Process(
            target=_program, args=(code, list(map(str, words)), environment, streams, session)
        )
        self._process.start()
        atexit.register(self._process.kill)  # before multiprocessing waits for it
        self._streams = [os.fdopen(os.dup(reader.fileno()), encoding="utf-8") for reader, _ in ends]
        for end in (end for both in ends for end in both):
            end.close()
        self.stdout = self._streams[0]
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its status, negative after a signal."""
        return self._process.exitcode

    def communicate(self, timeout: float) -> tuple[str, ...]:
        """Wait until it has ended; return what it printed: one text a stream."""
        texts: dict[int, str] = {}
        readers = [  # threads that nothing waits for: what it started may hold its streams open
            threading.Thread(target=lambda i=i, stream=stream: texts.update({i: stream.read()}), daemon=True)
            for i, stream in enumerate(self._streams)
        ]
        end = time.monotonic() + timeout
        for reader in readers:
            reader.start()
        try:
            for reader in readers:
                reader.join(end - time.monotonic())
            self.wait(end - time.monotonic())
            assert len(texts) == len(readers), f"its output is still open after {timeout} s"
        finally:
            self.kill()
            atexit.unregister(self._process.kill)
        return tuple(texts[i] for i in range(len(readers)))

    def wait(self, timeout: float) -> int:
        """Wait until it has ended; return its status."""
        self._process.join(max(0, timeout))
        assert self.returncode is not None, "still at work"
        return self.returncode

    def send_signal(self, signum: int, group: bool = False) -> None:
        """Send a signal to it, or to the group that it leads, unless it has ended."""
        if self.returncode is None:
            (os.killpg if group else os.kill)(self.pid, signum)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        if self.returncode is None:
            self._process.kill()


def _program(
    code: str, words: list[str], environment: dict[str, str], streams: list[Connection], session: bool
) -> None:
    """What a forked process does."""
    import numpy as np
    import torch
    from lightning_fabric.utilities.rank_zero import _get_rank, rank_zero_only

    if session:
        os.setsid()
    os.dup2(streams[0].fileno(), 1)
    os.dup2(streams[-1].fileno(), 2)
    for stream in streams:
        stream.close()
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    if threads := environment.get("OMP_NUM_THREADS"):  # OpenMP has read it before
        torch.set_num_threads(int(threads))
    rank_zero_only.rank = _get_rank() or 0  # type: ignore[attr-defined]  # Lightning has read it before
    np.random.seed()  # forked processes have the state of the first, interpreters one each
    multiprocessing.set_start_method(None, force=True)  # of its own workers: the platform's
    sys.argv = ["-c", *words]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        exec(compile(code, "<string>", "exec"), sys.modules["__main__"].__dict__)
    finally:
        atexit._run_exitfuncs()


class Stopped(NamedTuple):
    """How a command ended: its status, what it printed before and after the signal, and what `ssdd` said of it."""

    status: int
    before: list[str]
    after: str
    said: list[str]


def stopped(words: Iterable[object], signum: int, group: bool = False) -> Stopped:
    """Send a signal to a command in the middle of its work."""
    one_thread = {"OMP_NUM_THREADS": 1}  # as in this process: more sum in another order
    process = Forked(SLOW, words, one_thread, one_stream=False, session=True)
    before = []
    for line in process.stdout:
        before.append(line)
        if line == "working\n":
            break
    process.send_signal(signum, group)
    after, errors = process.communicate(timeout=60)
    said = [line for line in errors.splitlines() if line.startswith("ssdd: ")]
    return Stopped(process.returncode, before, after, said)
