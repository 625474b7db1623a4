"""One part of scaling.py in a process of its own: `scaling_parts.py PART FOLDER` prints seconds and peak memory."""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ssdd_lightning.data.classes import VOC
from ssdd_lightning.data.labels import read_label_file
from ssdd_lightning.data.splits import read_list
from ssdd_lightning.storage.images import find_images
from ssdd_lightning.storage.ledger import Item, Items, Ledger, Recipe
from ssdd_lightning.storage.score_maps import mask_path


def measured(part: str, folder: Path) -> dict[str, float]:
    """Processor seconds of a part, and the peak memory of this process."""
    start = time.process_time()
    kept = PARTS[part](folder) if part in PARTS else None
    seconds = time.process_time() - start
    found = {"seconds": seconds, "MB": peak_memory()}
    del kept
    return found


def peak_memory() -> float:
    """Peak memory of this program in MB; `ru_maxrss` of Linux also counts its parent's from before it began."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def ledger(folder: Path) -> Ledger:
    """The ledger of a mask for each photo."""
    names = read_list(folder / "list.txt")
    items = Items(names, lambda n: Item((folder / "photos" / f"{n}.png",), (mask_path(folder / "masks", n),)))
    return Ledger(folder / "masks", "predict", Recipe({"scales": [1.0]}), items)


def first_run(folder: Path) -> Ledger:
    """All that a ledger does while every image is made; the making costs nothing here."""
    made = ledger(folder)
    made.make(lambda names: names, progress=False)
    return made


def finished_run(folder: Path) -> Ledger:
    """Find out that nothing is left to do."""
    made = ledger(folder)
    if not made.finished:
        sys.exit("the ledger of the first run is not finished")
    return made


PARTS: dict[str, Callable[[Path], object]] = {
    "list": lambda folder: read_list(folder / "list.txt"),
    "labels.json": lambda folder: read_label_file(folder / "labels.json", VOC),
    "labels.csv": lambda folder: read_label_file(folder / "labels.csv", VOC),
    "labels.npy": lambda folder: read_label_file(folder / "labels.npy", VOC),
    "folder of photos": lambda folder: find_images(folder / "photos"),
    "ledger, first run": first_run,
    "ledger, finished run": finished_run,
}


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], Path(sys.argv[2]))))
