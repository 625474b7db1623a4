"""What is left of a command: no memory, process, thread, descriptor or shared memory, killed ones included.

`make leaks` repeats fits in one process for LEAK_MINUTES and prints the slope of its memory.
"""

import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.cli.main import main
from tests.helpers.processes import SLOW
from tests.helpers.stages import write_stage

MINUTES = float(os.environ.get("LEAK_MINUTES", "0"))
SHARED = Path("/dev/shm")
SLOPE = 0.05
"""Megabytes a fit: what 1,000 fits may cost is 50 MB."""


def left() -> dict[str, int]:
    """What this process holds besides memory."""
    gc.collect()
    children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "comm="], capture_output=True, check=False)
    return {
        "threads": threading.active_count(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "children": len([name for name in children.stdout.split() if name != b"ps"]),
        "shared": len(orphaned()),
    }


def orphaned() -> list[str]:
    """Tensors in shared memory whose process is gone; semaphores have no name for longer than a moment."""
    named = [(path.name, re.match(r"torch_(\d+)_", path.name)) for path in SHARED.iterdir()]
    return [name for name, found in named if found and not Path("/proc", found[1]).exists()]


def resident() -> float:
    """Resident memory in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.fixture
def words(tiny_devkit: Path, tmp_path: Path) -> Callable[[int], list[str]]:
    """Words of a fit of one step with two workers, each into a folder of its own."""
    masks = tiny_devkit / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    data: dict[str, Any] = {"root": tiny_devkit, "knowledge": masks, "classes": ["cat", "dog"], "batch_size": 2}
    data["augmentation"] = {"crop_size": 32}

    def make(number: int) -> list[str]:
        out = tmp_path / f"run{number % 3}"
        config = write_stage(
            tmp_path / "stage.yaml", "SegmentationModule", out, data, trainer={"limit_train_batches": 1}
        )
        return ["fit", f"--config={config}", f"--seed_everything={number}", "--data.num_workers=2"]

    return make


def test_fits_leave_nothing(words: Callable[[int], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    held: list[dict[str, int]] = []
    memory: list[float] = []
    end = time.monotonic() + 60 * MINUTES
    while len(held) < 4 or time.monotonic() < end:
        assert main(words(len(held))) == 0
        held.append(left())
        memory.append(resident())
    assert held[1:] == [held[1]] * (len(held) - 1), "the first one may start what stays, such as a pool of threads"
    if MINUTES:
        settled = len(memory) // 3
        slope = float(np.polyfit(np.arange(len(memory) - settled), memory[settled:], 1)[0])
        with capsys.disabled():
            print(f"\n{len(memory)} fits in {MINUTES:.0f} minutes, {memory[settled]:.0f} to {memory[-1]:.0f} MB:")
            print(f"{slope:+.4f} MB a fit; {held[-1]}")
        assert slope < SLOPE


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_an_ended_fit_leaves_nothing(words: Callable[[int], list[str]], signum: signal.Signals) -> None:
    before = set(orphaned())
    command = [sys.executable, "-c", SLOW, *words(0), "--trainer.limit_train_batches=1.0", "--trainer.max_epochs=99"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:
        for line in process.stdout:
            if line == "working\n":
                break
        os.kill(process.pid, signum)
        process.stdout.read()
    deadline = time.monotonic() + 30  # its workers look for it every few seconds
    while group := processes_of(process.pid):
        assert time.monotonic() < deadline, group
        time.sleep(0.2)
    assert set(orphaned()) <= before


def processes_of(group: int) -> list[str]:
    found = subprocess.run(["ps", "-eo", "pgid=,pid=,stat=,args="], capture_output=True, text=True, check=True)
    lines = [line.split(maxsplit=3) for line in found.stdout.splitlines()]
    return [" ".join(line) for line in lines if line[0] == str(group) and not line[2].startswith("Z")]
