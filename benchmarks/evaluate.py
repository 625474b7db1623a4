"""Time and memory of `ssdd evaluate` beside torchmetrics, on as many masks of VOC's size as VOC's val has.

    python benchmarks/evaluate.py --json evaluate.json
    python benchmarks/evaluate.py --masks 200 --repeats 1   # for a first idea

Masks of smooth regions with VOC's ring of 255 are written to a temporary folder. Each row then reads the same PNG files
and pools the IoU of 21 classes, in a process of its own; imports are not timed, starting worker processes is. Rows take
turns, and the best of the repeats counts. torchmetrics' MulticlassJaccardIndex gets every help: masks read by loader
processes on all cores, and its checks of the input switched off. The exit status is 1 if `ssdd evaluate` is slower than
the fastest row of torchmetrics, if it needs more memory for more masks, or if the two disagree on the mIoU.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.evaluation.folder import evaluate_folders
from ssdd_lightning.storage.masks import read_mask, write_mask
from ssdd_lightning.storage.threads import cores

SIZE = 375, 500
OURS = "ssdd evaluate"
FURTHER = "ssdd evaluate --boundary"
ROWS = (OURS, "torchmetrics, one process", "torchmetrics, loader", "torchmetrics, loader, unchecked", FURTHER)
ROOM = 16.0  # MiB that the peak may grow from a quarter of the masks to all of them


def main() -> int:
    """Measure all rows, print the table, write the JSON; 1 if a promise is missed."""
    options = arguments()
    if options.row is not None:
        print(json.dumps(measure(options.row, options.folder, options.masks)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        write_masks(Path(folder), options.masks)
        small = run_row(OURS, folder, max(1, options.masks // 4))
        runs = [{row: run_row(row, folder, options.masks) for row in ROWS} for _ in range(options.repeats)]
    best = {row: min((run[row] for run in runs), key=lambda result: result["seconds"]) for row in ROWS}
    return report(best, small, options)


def report(best: dict[str, dict[str, float]], small: dict[str, float], options: argparse.Namespace) -> int:
    """Print the table and what was missed."""
    print(
        f"{options.masks} masks of {SIZE[1]} x {SIZE[0]}, {cores()} cores, {platform.machine()}, "
        f"best of {options.repeats}"
    )
    print("| | seconds | masks a second | mIoU | peak MiB |")
    print("| --- | --- | --- | --- | --- |")
    for row, result in best.items():
        rate = options.masks / result["seconds"]
        print(f"| {row} | {result['seconds']:.2f} | {rate:.0f} | {100 * result['miou']:.4f} | {result['peak']:.0f} |")
    rivals = [result for row, result in best.items() if row not in (OURS, FURTHER)]
    growth = best[OURS]["peak"] - small["peak"]
    misses = {
        "slower than torchmetrics": best[OURS]["seconds"] > min(result["seconds"] for result in rivals),
        f"the peak grew by {growth:.0f} MiB from a quarter of the masks to all": growth > ROOM,
        "another mIoU than torchmetrics": max(abs(result["miou"] - best[OURS]["miou"]) for result in rivals) > 1e-5,
    }
    print(f"peak for a quarter of the masks: {small['peak']:.0f} MiB")
    for miss in (sentence for sentence, missed in misses.items() if missed):
        print(f"MISSED: {miss}")
    if options.json:
        content = {
            "masks": options.masks,
            "cores": cores(),
            "rows": best,
            "quarter": small,
            "missed": any(misses.values()),
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return int(any(misses.values()))


def arguments() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=1449)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def write_masks(folder: Path, count: int) -> None:
    """Write `count` pairs of masks from a seed: few classes an image, curved contours, VOC's ring in the truth."""
    rng = np.random.default_rng(0)
    for number in range(count):
        present = [0, *rng.choice(np.arange(1, len(VOC_CLASSES)), size=rng.integers(1, 4), replace=False)]
        fields = np.stack([smooth_field(rng) for _ in present])
        fields[0] += 0.5
        truth = np.array(present, np.uint8)[fields.argmax(axis=0)]
        prediction = np.array(present, np.uint8)[
            (fields + 0.3 * np.stack([smooth_field(rng) for _ in present])).argmax(axis=0)
        ]
        write_mask(folder / "predictions" / f"{number:05}.png", prediction)
        write_mask(folder / "truth" / f"{number:05}.png", np.where(ring(truth), IGNORE, truth))


def smooth_field(rng: np.random.Generator) -> np.ndarray:
    """A few random waves, SIZE, of variance about 1."""
    y, x = np.ogrid[: SIZE[0], : SIZE[1]]
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.normal(0, 1, (4, 3)) * (0.02, 0.02, 3)]
    return np.sum(waves, axis=0) / np.sqrt(2)


def ring(mask: np.ndarray) -> np.ndarray:
    """Pixels within two of a contour."""
    edge = np.zeros(mask.shape, bool)
    for shift in (-2, -1, 1, 2):
        edge |= (mask != np.roll(mask, shift, 0)) | (mask != np.roll(mask, shift, 1))
    return edge


def run_row(row: str, folder: str, masks: int) -> dict[str, float]:
    """Measure one row in a fresh process."""
    words = [sys.executable, __file__, "--row", row, "--folder", folder, "--masks", str(masks)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(row: str, folder: Path, masks: int) -> dict[str, float]:
    """Seconds, mIoU, and the peak of the memory of the largest process in MiB."""
    names = [f"{number:05}" for number in range(masks)]
    if row in (OURS, FURTHER):
        start = time.perf_counter()
        card = evaluate_folders(
            folder / "predictions", folder / "truth", names, progress=False, boundary=row == FURTHER
        )
        miou = card.miou
        seconds = time.perf_counter() - start
    else:
        miou, seconds = torchmetrics_row(row, folder, names)
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"seconds": seconds, "miou": miou, "peak": max(peaks)}


def torchmetrics_row(row: str, folder: Path, names: list[str]) -> tuple[float, float]:
    """The mIoU of torchmetrics and its seconds."""
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchmetrics.classification import MulticlassJaccardIndex

    class Pairs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
        def __len__(self) -> int:
            return len(names)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            files = (folder / what / f"{names[index]}.png" for what in ("predictions", "truth"))
            prediction, truth = (torch.from_numpy(read_mask(path)) for path in files)
            return prediction, truth

    start = time.perf_counter()
    metric = MulticlassJaccardIndex(len(VOC_CLASSES), ignore_index=IGNORE, validate_args="unchecked" not in row)
    loader = DataLoader(Pairs(), batch_size=8, num_workers=cores() if "loader" in row else 0)
    for prediction, truth in loader:
        metric.update(prediction.long(), truth.long())
    miou = float(metric.compute())
    return miou, time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
