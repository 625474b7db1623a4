"""Dense CRF: agreement with pydensecrf and speed beside it, in one run on real photos.

    python benchmarks/crf.py --photos VOCdevkit/VOC2012/JPEGImages --json crf.json --plot crf.png
    python benchmarks/crf.py   # the table of the device alone, on drawn photos: the GPU, or a core if there is none

Every timing of ours is taken next to one of pydensecrf on the same photo, on one core; the table gives
medians over the photos and the median of their ratios. All but the table of the device needs the extra
`pydensecrf`.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import NOT_MEASURED, report
from tables import Row, print_table
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from ssdd_lightning.crf.inference import dense_crf
from ssdd_lightning.storage.masks import read_image

SMALL = [(classes, iterations) for classes in (2, 3, 5, 21) for iterations in (3, 10)]
LARGE = [(3, 10), (21, 10)]
ON_DEVICE = (((112, 112), 3, 3, 8, None), ((112, 112), 21, 3, 8, 4), ((375, 500), 21, 10, 1, 15))
"""Size, labels, iterations, images, and the milliseconds that a GPU is to stay under."""
DROP_IN = "ssdd_lightning.crf.pydensecrf"


def main() -> None:
    """Measure, print the table, write the JSON and the plot."""
    options = arguments()
    torch.set_num_threads(1)
    if options.photos is None:
        images = [[drawn(i, size) for i in range(number)] for size, _, _, number, _ in ON_DEVICE]
        report("dense CRF on the device", on_device(images, options.timed), options)
        return
    photos = sorted(options.photos.glob("*.jpg"))[: options.count]
    if not photos:
        raise SystemExit(f"no .jpg in {options.photos}")
    tables = {
        "machine": machine(len(photos)),
        "agreement": agreement(photos),
        "speed": speed(photos[:: max(len(photos) // options.timed, 1)]),
        "drop-in": drop_in(photos[:: max(len(photos) // options.timed, 1)]),
        "cores": cores(photos),
        "growth": growth(photos[0]),
        "memory": memory(photos[0]),
        "device": on_device(
            [[photo(path, size) for path in (photos * number)[:number]] for size, _, _, number, _ in ON_DEVICE],
            options.timed,
        ),
    }
    for name, rows in tables.items():
        print_table(name, rows)
    if options.json:
        options.json.write_text(json.dumps(tables, indent=2) + "\n")
    if options.plot:
        plot(tables["growth"], tables["memory"], options.plot)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of .jpg photos")
    parser.add_argument("--count", type=int, default=200, help="photos of the agreement (default: 200)")
    parser.add_argument(
        "--timed", type=int, default=20, help="of these, photos that are timed, and calls on the device (default: 20)"
    )
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--plot", type=Path, help="file for the picture of cost against pixels and labels")
    options = parser.parse_args()
    if options.plot and options.photos is None:
        parser.error("--plot: expected --photos too")
    return options


def machine(photos: int) -> list[Row]:
    """What the numbers were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    row = {"photos": photos, "cores": os.cpu_count(), "processor": platform.machine(), "gpu": device}
    return [{**row, "python": platform.python_version(), "torch": torch.__version__}]


def photo(path: Path, size: tuple[int, int] | None = None) -> Tensor:
    """3 x H x W uint8, at its own size or resized to height x width."""
    image = torch.from_numpy(read_image(path)).permute(2, 0, 1).contiguous()
    if size is None:
        return image
    return interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0].round().to(torch.uint8)


def scores(classes: int, height: int, width: int, seed: int) -> Tensor:
    """Regions of some 16 pixels with soft borders: C x H x W probabilities."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, -(-height // 16), -(-width // 16), generator=generator)
    return interpolate(2 * coarse, (height, width), mode="bicubic").softmax(1)[0]


def noise(index: int, size: tuple[int, int], classes: int) -> tuple[Tensor, Tensor]:
    """Image and probabilities without any structure."""
    generator = torch.Generator().manual_seed(index)
    image = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
    return image, torch.rand(classes, *size, generator=generator).softmax(0)


def agreement(photos: list[Path]) -> list[Row]:
    """Largest difference and share of equal labels, over all photos and on noise."""
    rows = []
    settings = [((112, 112), *pair) for pair in SMALL] + [(None, *pair) for pair in LARGE]
    for size, classes, iterations in settings:
        cases = (
            (image, scores(classes, *image.shape[1:], i))
            for i, image in enumerate(photo(path, size) for path in photos)
        )
        rows.append(compare(cases, len(photos), "photos", size, classes, iterations))
    for size in ((112, 112), (375, 500)):
        cases = (noise(i, size, 5) for i in range(5))
        rows.append(compare(cases, 5, "noise", size, 5, 10))
    return rows


def compare(cases: Any, count: int, what: str, size: tuple[int, int] | None, classes: int, iterations: int) -> Row:
    """One row of the agreement."""
    worst, equal, pixels = 0.0, 0, 0
    for image, probabilities in tqdm(cases, f"{what} {size} {classes} {iterations}", count, leave=False):
        batch = image[None], probabilities[None], None, iterations
        ours, theirs = dense_crf(*batch), dense_crf(*batch, backend="pydensecrf")
        worst = max(worst, float((ours - theirs).abs().max()))
        equal += int((ours.argmax(1) == theirs.argmax(1)).sum())
        pixels += theirs[:, 0].numel()
    row = {"input": what, "number": count, "size": name(size), "labels": classes, "iterations": iterations}
    return {**row, "max difference": worst, "same label %": 100 * equal / pixels}


def name(size: tuple[int, int] | None) -> str:
    """Size for the table."""
    return "own" if size is None else f"{size[1]}x{size[0]}"


def best(function: Callable[[], Any], repeats: int) -> float:
    """Shortest time in ms; what is longer was disturbed."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def speed(photos: list[Path]) -> list[Row]:
    """Time on one core beside pydensecrf's."""
    rows = []
    for size, classes, iterations in [((112, 112), *p) for p in SMALL] + [((375, 500), *p) for p in LARGE]:
        ours, theirs = [], []
        for i, path in enumerate(tqdm(photos, f"speed {size} {classes} {iterations}", leave=False)):
            batch = photo(path, size)[None], scores(classes, *size, i)[None], None, iterations
            dense_crf(*batch)
            pairs = [(best(lambda: dense_crf(*batch), 1), best(lambda: peer(*batch), 1)) for _ in range(3)]  # noqa: B023
            ours.append(min(pair[0] for pair in pairs))
            theirs.append(min(pair[1] for pair in pairs))
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        row = {"size": name(size), "labels": classes, "iterations": iterations, "photos": len(photos)}
        medians = {"ms": statistics.median(ours), "pydensecrf ms": statistics.median(theirs)}
        rows.append({**row, **medians, "times faster": ratio})
    return rows


def peer(*batch: Any) -> Tensor:
    """The same by pydensecrf."""
    return dense_crf(*batch, backend="pydensecrf")


def drop_in(photos: list[Path]) -> list[Row]:
    """The calls of PSA's crf_inference to our drop-in and to pydensecrf, in turns: processor time on one core."""
    rows = []
    for size, classes, iterations in [((112, 112), *p) for p in SMALL[::3]] + [((375, 500), *p) for p in LARGE]:
        ours, theirs, worst = [], [], 0.0
        for i, path in enumerate(tqdm(photos, f"drop-in {size} {classes} {iterations}", leave=False)):
            call = photo(path, size).permute(1, 2, 0).numpy(), scores(classes, *size, i).numpy(), iterations
            pairs = [[as_psa(package, *call) for package in (DROP_IN, "pydensecrf")] for _ in range(3)]
            ours.append(min(pair[0][0] for pair in pairs))
            theirs.append(min(pair[1][0] for pair in pairs))
            worst = max(worst, float(np.abs(pairs[0][0][1] - pairs[0][1][1]).max()))
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        row = {"size": name(size), "labels": classes, "iterations": iterations, "photos": len(photos)}
        medians = {"ms": 1e3 * statistics.median(ours), "pydensecrf ms": 1e3 * statistics.median(theirs)}
        rows.append({**row, **medians, "times faster": ratio, "max difference": worst})
    return rows


def as_psa(package: str, image: np.ndarray, shares: np.ndarray, iterations: int) -> tuple[float, np.ndarray]:
    """Processor time and result of the calls."""
    dcrf, utils = (importlib.import_module(f"{package}.{part}") for part in ("densecrf", "utils"))
    labels, height, width = shares.shape
    start = time.process_time()
    crf = dcrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(shares)))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=np.ascontiguousarray(image), compat=10)
    result = np.array(crf.inference(iterations)).reshape(labels, height, width)
    return time.process_time() - start, result


def cores(photos: list[Path]) -> list[Row]:
    """A batch of 16 on one core and on all."""
    rows = []
    for size, classes, iterations in (((112, 112), 3, 3), ((375, 500), 21, 10)):
        images = torch.stack([photo(path, size) for path in (photos * 16)[:16]])
        probabilities = torch.stack([scores(classes, *size, i) for i in range(16)])
        times = {}
        for threads in (1, os.cpu_count() or 1):
            torch.set_num_threads(threads)
            times[threads] = best(lambda: dense_crf(images, probabilities, None, iterations), 4)  # noqa: B023
        torch.set_num_threads(1)
        one, all_cores = times.values() if len(times) > 1 else (*times.values(),) * 2
        row = {"size": name(size), "labels": classes, "iterations": iterations, "images": 16}
        rows.append({**row, "1 core ms": one, f"{max(times)} cores ms": all_cores, "scaling": one / all_cores})
    return rows


def growth(path: Path) -> list[Row]:
    """Time against the number of pixels (21 labels) and of labels (375 x 500), 10 iterations, one photo."""
    cases = [(21, side, side) for side in (64, 112, 224, 448, 640)]
    cases += [(classes, 375, 500) for classes in (2, 4, 8, 16, 21, 41, 81)]
    rows = []
    for classes, height, width in tqdm(cases, "growth", leave=False):
        batch = photo(path, (height, width))[None], scores(classes, height, width, 0)[None], None, 10
        mine, theirs = best(lambda: dense_crf(*batch), 3), best(lambda: peer(*batch), 1)  # noqa: B023
        unit = 1e6 * mine / (height * width * classes)
        row = {"size": name((height, width)), "pixels": height * width, "labels": classes}
        rows.append({**row, "ms": mine, "pydensecrf ms": theirs, "ns a pixel and label": unit})
    return rows


MEMORY = """
import sys
from pathlib import Path
import numpy
import torch
from ssdd_lightning.crf.inference import dense_crf

def status(field):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024

torch.set_num_threads(1)
for classes in (2, 9):
    dense_crf(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.full((1, classes, 8, 8), 0.1))
base = status("VmRSS")
image = torch.from_numpy(numpy.load(sys.argv[2]))[None]
scores = torch.rand(1, int(sys.argv[1]), *image.shape[2:])
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
refined = dense_crf(image, scores)
print(base, status("VmHWM"))
"""


def memory(path: Path) -> list[Row]:
    """Peak memory of a fresh process at 500 x 375, and what of it is not torch, numba and the code itself."""
    rows = []
    for what, image in (("photo", photo(path, (375, 500))), ("noise", noise(0, (375, 500), 1)[0])):
        for classes in (21, 81):
            row = {"input": what, "size": "500x375", "labels": classes}
            rows.append({**row, **peak(image, classes)})
    return rows


def peak(image: Tensor, classes: int) -> Row:
    """Numbers of one row; only Linux tells the peak of a part of a process's life."""
    if not Path("/proc/self/clear_refs").exists():
        return {"peak MB": NOT_MEASURED, "with its input, the CRF MB": NOT_MEASURED}
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, image.numpy())
        command = [sys.executable, "-c", MEMORY, str(classes), file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    return {"peak MB": after, "with its input, the CRF MB": after - before}


def drawn(index: int, size: tuple[int, int]) -> Tensor:
    """Smooth colours with grain, which take as many lattice points as a real photo or more; 3 x H x W uint8."""
    generator = torch.Generator().manual_seed(index)
    coarse = 255 * torch.rand(1, 3, 4, 4, generator=generator)
    grain = 2 * torch.randn(1, *size, generator=generator)
    return (interpolate(coarse, size, mode="bicubic")[0] + grain).clamp(0, 255).to(torch.uint8)


def on_device(images: list[list[Tensor]], calls: int) -> list[Row]:
    """Batches on the GPU and their agreement with a core, or on a core if there is no GPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for (size, classes, iterations, number, goal), chosen in zip(ON_DEVICE, images, strict=True):
        image, shares = torch.stack(chosen), torch.stack([scores(classes, *size, i) for i in range(number)])
        batch = image.to(device), shares.to(device), None, iterations
        refined = dense_crf(*batch).cpu()  # the first call compiles and is not timed
        row = {"device": device.type, "size": name(size), "labels": classes, "iterations": iterations, "images": number}
        row |= {"ms a batch": best(lambda: finished(*batch), calls), "goal of a GPU, ms": goal or ""}  # noqa: B023
        row["difference from a core"] = NOT_MEASURED
        if device.type != "cpu":
            row["difference from a core"] = float((refined - dense_crf(image, shares, None, iterations)).abs().max())
        rows.append(row)
    return rows


def finished(*batch: Any) -> None:
    """Run and wait for the device."""
    dense_crf(*batch)
    if batch[0].device.type == "cuda":
        torch.cuda.synchronize()


def plot(rows: list[Row], memory_rows: list[Row], path: Path) -> None:
    """Cost against pixels and against labels, both axes logarithmic, and peak memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    by_size = [row for row in rows if row["size"] != "500x375"]
    by_labels = [row for row in rows if row["size"] == "500x375"]
    for axis, chosen, key, title in (
        (axes[0], by_size, "pixels", "21 labels, 10 iterations"),
        (axes[1], by_labels, "labels", "500x375, 10 iterations"),
    ):
        x = np.array([row[key] for row in chosen])
        for column, label in (("ms", "lattice, 1 core"), ("pydensecrf ms", "pydensecrf")):
            axis.loglog(x, [row[column] for row in chosen], "o-", label=label)
        axis.loglog(x, chosen[-1]["ms"] * x / x[-1], ":", color="grey", label="linear")
        axis.set(xlabel=key, ylabel="ms", title=title)
        axis.set_xticks(x, [f"{value:,}" for value in x], rotation=30)
        axis.minorticks_off()
        axis.legend()
    measured = [row for row in memory_rows if row["peak MB"] != NOT_MEASURED]
    bars = [f"{row['input']},\n{row['labels']} labels" for row in measured]
    for column, label in (("peak MB", "whole process"), ("with its input, the CRF MB", "the CRF and its input")):
        axes[2].bar(bars, [row[column] for row in measured], label=label)
    axes[2].set(ylabel="peak MB", title="memory at 500x375")
    axes[2].legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
