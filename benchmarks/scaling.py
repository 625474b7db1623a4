"""Cost over the number of images, of pixels and of classes, and the memory of lists, label tables and ledgers.

    python benchmarks/scaling.py --plot scaling.png
    python benchmarks/scaling.py --images 1000 10000 100000 1000000   # long: minutes, and 1,000,000 empty files

Lists, label files and a folder of that many images are made first. Each part then runs in a process of its own, whose
peak memory is compared with that of a process which only imports the same. Seconds are of the processor. `growth` is
the cost of an image (a pixel, a class) over that in the row before: 1 is linear.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from machine import report
from scaling_parts import PARTS
from tables import Row

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.crf import DenseCRF
from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.data.transforms import TrainTransform
from ssdd_lightning.functional.losses import segmentation_loss
from ssdd_lightning.functional.refinement import failed_classes, ssdd_merge
from ssdd_lightning.metrics.confusion import confusion_matrix
from ssdd_lightning.storage.score_maps import read_map, write_map


def main() -> None:
    """Measure, print the table, write the JSON."""
    options = arguments()
    torch.set_num_threads(1)
    rows = [
        row
        for part in (by_images(options.images), by_pixels(options.sides), by_classes(options.classes))
        for row in part
    ]
    report("cost by images, pixels and classes", rows, options)
    if options.plot:
        plot(rows, options.plot)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--sides", type=int, nargs="+", default=[125, 250, 500], help="of photos, in pixels")
    parser.add_argument("--classes", type=int, nargs="+", default=[7, 21, 81, 255], help="all of them present")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--plot", type=Path, help="file for the picture of cost against number")
    return parser.parse_args()


def by_images(counts: list[int]) -> list[Row]:
    """Each part for each number of images."""
    costs: dict[str, list[tuple[int, float, float]]] = {}
    for count in counts:
        with TemporaryDirectory() as folder:
            make_files(Path(folder), count)
            idle = run_part("nothing", folder)["MB"]
            for part in PARTS:
                found = run_part(part, folder)
                costs.setdefault(part, []).append((count, found["seconds"], found["MB"] - idle))
    return [
        {**row, "MB": round(memory, 1)}
        for part, values in costs.items()
        for row, (_, _, memory) in zip(
            growth(part, "images", [(count, seconds) for count, seconds, _ in values]), values, strict=True
        )
    ]


def make_files(folder: Path, count: int) -> None:
    """A list, label files of every kind, and empty photos and masks."""
    names = [f"2007_{number:07d}" for number in range(count)]
    (folder / "list.txt").write_text("\n".join(names))
    (folder / "labels.json").write_text(json.dumps({name: ["cat", "person"] for name in names}))
    (folder / "labels.csv").write_text("name,labels\n" + "\n".join(f"{name},8 15" for name in names))
    vector = np.zeros(20, np.float32)
    vector[[7, 14]] = 1
    np.save(folder / "labels.npy", {name: vector for name in names}, allow_pickle=True)  # type: ignore[arg-type]
    for kind in ("photos", "masks"):
        (folder / kind).mkdir()
        for name in names:
            (folder / kind / f"{name}.png").touch()


def run_part(part: str, folder: str) -> dict[str, float]:
    """Run a part in a new process."""
    command = [sys.executable, str(Path(__file__).with_name("scaling_parts.py")), part, folder]
    environment = os.environ | {"XDG_CACHE_HOME": folder}  # the ledger's fingerprints
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def by_pixels(sides: list[int]) -> list[Row]:
    """Work on one photo of each size, with 21 classes of which it shows three."""
    rows = []
    for name, work in works(21).items():
        costs = [(side * side * 3 // 4, best(work(side))) for side in sides]
        rows += growth(name, "pixels", costs)
    return rows


def by_classes(numbers: list[int]) -> list[Row]:
    """Work on one photo of 250 pixels with each number of classes, all present."""
    rows = []
    for name in works(numbers[0]):
        costs = [(classes, best(works(classes, classes)[name](250))) for classes in numbers]
        rows += growth(name, "classes", costs)
    return rows


def works(classes: int, shown: int = 3) -> dict[str, Callable[[int], Callable[[], object]]]:
    """Name -> what makes the work on a photo with a longest side."""

    def drawn(side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        generator, size = torch.Generator().manual_seed(0), (side * 3 // 4, side)
        coarse = torch.rand(1, classes + 3, 7, 9, generator=generator)
        fine = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0.001, 1)
        labels = torch.zeros(1, classes, dtype=torch.bool)
        labels[:, :shown] = True
        scores = fine[:, 3:] * labels[:, :, None, None]
        scores = scores / scores.sum(1, keepdim=True)
        return (255 * fine[:, :3]).byte(), scores, labels, scores.argmax(1)

    def crf(side: int) -> Callable[[], object]:
        image, scores, labels, _ = drawn(side)
        refine = DenseCRF(iterations=3)
        return lambda: refine(image, scores, labels)

    def merge(side: int) -> Callable[[], object]:
        _, scores, labels, mask = drawn(side)
        logits, other = scores.log().clamp(-9).requires_grad_(), mask.roll(5, 2)
        maps = scores[:, 0], scores[:, 1]

        def step() -> None:
            failed_classes(mask, other, labels)
            segmentation_loss(logits, ssdd_merge(mask, other, *maps, labels)).backward()

        return step

    def scored(side: int) -> Callable[[], object]:
        mask = drawn(side)[3][0].numpy().astype(np.uint8)
        mask[0, 0] = IGNORE
        return lambda: confusion_matrix(mask, mask, classes)

    def stored(side: int) -> Callable[[], object]:
        scores = drawn(side)[1][0, : min(classes, shown)].numpy()

        def step() -> None:
            with TemporaryDirectory() as folder:
                path = Path(folder) / "x.map.png"
                write_map(path, range(len(scores)), scores)
                read_map(path)

        return step

    def crop(side: int) -> Callable[[], object]:
        image, scores, _, mask = drawn(side)
        pixels = np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())
        guides = {"knowledge": mask[0].numpy().astype(np.uint8), "advice": scores[0, :shown].permute(1, 2, 0).numpy()}
        transform = TrainTransform(Augmentation(side, (side, side)))
        return lambda: transform(pixels, guides, np.arange(shown, dtype=np.uint8), 0)

    return {
        "dense CRF": crf,
        "merge and loss": merge,
        "confusion": scored,
        "score maps, write and read": stored,
        "crop": crop,
    }


def best(work: Callable[[], object], rounds: int = 4) -> float:
    """Least processor seconds of this thread; the first round compiles."""
    seconds = []
    for _ in range(rounds):
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return min(seconds[1:])


def growth(name: str, unit: str, costs: list[tuple[int, float]]) -> list[Row]:
    """Rows of one kind of work: seconds, cost of a unit, and its growth."""
    rows: list[Row] = []
    for number, (count, seconds) in enumerate(costs):
        row = {"work": name, "over": unit, "number": count, "seconds": round(seconds, 5)}
        row["µs each"] = round(1e6 * seconds / count, 3)
        before = costs[number - 1] if number else None
        row["growth"] = "" if before is None else round(seconds / count / (before[1] / before[0]), 2)
        rows.append(row)
    return rows


def plot(rows: list[Row], path: Path) -> None:
    """Seconds against images, pixels and classes, both axes logarithmic; a dotted line is linear."""
    from matplotlib.figure import Figure

    units = list(dict.fromkeys(row["over"] for row in rows))
    figure = Figure(figsize=(13, 5.4), layout="constrained")
    for axis, unit in zip(figure.subplots(1, len(units)), units, strict=True):
        chosen = [row for row in rows if row["over"] == unit]
        for work in dict.fromkeys(row["work"] for row in chosen):
            line = [(row["number"], row["seconds"]) for row in chosen if row["work"] == work]
            axis.loglog(*zip(*line, strict=True), "o-", label=work)
        numbers = sorted({row["number"] for row in chosen})
        least = min(row["seconds"] for row in chosen if row["seconds"])
        axis.loglog(numbers, [least * number / numbers[0] for number in numbers], ":", color="grey", label="linear")
        axis.set(xlabel=unit, ylabel="processor seconds")
        axis.set_xticks(numbers, [f"{number:,}" for number in numbers])
        axis.minorticks_off()
        axis.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
