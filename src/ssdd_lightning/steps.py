"""Steps of a long run: each is done once, and an interrupted run goes on at the first that was not finished."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from ssdd_lightning.data.files import atomic_write


def run_step(out: Path, name: str, action: Callable[[], object]) -> None:
    """Run a step unless its mark says that it was finished; the mark keeps the seconds it took.

    Args:
        out: Folder of the run; marks are `<out>/steps/<name>.json`.
        name: Name of the step.
        action: What to do.
    """
    mark = out / "steps" / f"{name}.json"
    if mark.exists():
        return
    print(f"== {name}", flush=True)
    start = time.monotonic()
    action()
    with atomic_write(mark) as stream:
        stream.write(json.dumps({"seconds": round(time.monotonic() - start, 1)}).encode())
