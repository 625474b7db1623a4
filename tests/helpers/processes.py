"""Programs in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Iterable
from typing import NamedTuple


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


class Stopped(NamedTuple):
    """How a command ended: its status, what it printed before and after the signal, and what `ssdd` said of it."""

    status: int
    before: list[str]
    after: str
    said: list[str]


def stopped(words: Iterable[object], signum: int, group: bool = False) -> Stopped:
    """Send a signal to a command in the middle of its work."""
    command = [sys.executable, "-c", SLOW, *map(str, words)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as in this process: more sum in another order
    with subprocess.Popen(
        command, env=one_thread, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        before = []
        for line in process.stdout:
            before.append(line)
            if line == "working\n":
                break
        (os.killpg if group else os.kill)(process.pid, signum)
        after, errors = process.communicate(timeout=60)
    said = [line for line in errors.splitlines() if line.startswith("ssdd: ")]
    return Stopped(process.returncode, before, after, said)
