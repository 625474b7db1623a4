"""Random walk: sparse Chebyshev steps beside the dense squaring, in one run.

    python benchmarks/random_walk.py --json random_walk.json

The dense side is what PSA's code does: an N x N float32 transition matrix, squared eight times, then applied to the
scores. Both sides start from the same affinities, build their own matrix, and run on the same number of threads, in
turns. Exits with status 1 if at 56 x 56 and 4 channels ours is not 50 times faster in a tenth of the memory, or in
float64 further than 1e-5 from the dense result.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tables import Row, print_table
from torch import Tensor
from torch.nn.functional import interpolate

from ssdd_lightning.functional.affinity import half_plane_offsets, pair_affinity
from ssdd_lightning.functional.random_walk import _stencil, random_walk

CHANNELS = 4
SIDES = (28, 40, 56, 80, 112, 128)
FASTER, SMALLER, CLOSE = 50, 10, 1e-5
NOT_MEASURED = "not measured"


def main() -> None:
    """Measure, print the tables, write the JSON, and say whether the aims were met."""
    options = arguments()
    if "run" in options:
        print(peak_of(*options.run))
        return
    torch.set_num_threads(options.threads)
    report = {"machine": machine(options.threads), "agreement": agreement(), "56x56": contest(options.repeats)}
    report["growth"] = growth(options.dense_seconds, report["56x56"][1])
    report["aims"] = aims(report)
    for name, rows in report.items():
        print_table(name, rows)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(0 if all(row["met"] for row in report["aims"]) else 1)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides (default: 1)")
    parser.add_argument("--repeats", type=int, default=5, help="turns at 56 x 56 (default: 5)")
    parser.add_argument(
        "--dense_seconds", type=float, default=90, help="longest dense run of the growth table (default: 90)"
    )
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--run", nargs=3, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser.parse_args()


def machine(threads: int) -> list[Row]:
    """What the numbers were measured on."""
    row = {"processor": platform.machine(), "cores": os.cpu_count(), "threads": threads, "load": os.getloadavg()[0]}
    return [{**row, "python": platform.python_version(), "torch": torch.__version__}]


def scene(side: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Scores C x H x W and affinities P x H x W of regions of some ten pixels with borders between them."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 8, -(-side // 10), -(-side // 10), generator=generator)
    features = 3 * interpolate(coarse, (side, side), mode="bicubic").tanh()
    noise = 0.02 * torch.randn(features.shape, generator=generator)
    cam = interpolate(torch.rand(1, CHANNELS, 4, 4, generator=generator), (side, side), mode="bilinear")
    return cam[0].to(dtype), pair_affinity(features + noise)[0].to(dtype)


def sparse_walk(cam: Tensor, affinity: Tensor) -> Tensor:
    """Ours, as for an image of a size that was not seen before: what it keeps of a size is thrown away."""
    _stencil.cache_clear()
    return random_walk(cam, affinity)


def dense_walk(cam: Tensor, affinity: Tensor) -> Tensor:
    """The same by squaring."""
    channels, height, width = cam.shape
    index = torch.arange(height * width).view(height, width)
    matrix = torch.eye(height * width, dtype=cam.dtype)
    for weights, (dy, dx) in zip(affinity**8, half_plane_offsets(), strict=True):
        rows, columns = slice(0, height - dy), slice(max(0, -dx), width - max(0, dx))
        first, second = index[rows, columns], index[dy:, max(0, dx) : width - max(0, -dx)]
        matrix[first, second] = matrix[second, first] = weights[rows, columns]
    matrix /= matrix.sum(0)
    for _ in range(8):
        matrix = matrix @ matrix
    return (cam.view(channels, -1) @ matrix).view_as(cam)


WALKS = {"ours": sparse_walk, "dense": dense_walk}


def agreement() -> list[Row]:
    """Largest difference from the dense formula in float64, relative to the largest score."""
    exact = dense_walk(*scene(56, torch.float64))
    cases = {"ours float64": random_walk(*scene(56, torch.float64)), "ours float32": random_walk(*scene(56))}
    cases["dense float32"] = dense_walk(*scene(56))
    return [
        {"what": what, "relative error": float((walked - exact).abs().max() / exact.max())}
        for what, walked in cases.items()
    ]


def seconds(function: Callable[[], object], repeats: int = 1) -> list[float]:
    """Seconds of each of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


def contest(repeats: int) -> list[Row]:
    """Both sides in turns at 56 x 56; ours runs ten times a turn."""
    inputs = scene(56)
    times: dict[str, list[float]] = {"ours": [], "dense": []}
    sparse_walk(*inputs)
    for _ in range(repeats):
        times["dense"] += seconds(lambda: dense_walk(*inputs))
        times["ours"] += seconds(lambda: sparse_walk(*inputs), 10)
    rows = []
    for side, measured in times.items():
        row = {"what": side, "runs": len(measured), "best ms": 1e3 * min(measured)}
        rows.append({**row, "median ms": 1e3 * statistics.median(measured), "peak MB": peak(side, 56)})
    ours, dense = rows
    ratios = {key: ratio(dense[key], ours[key]) for key in ("best ms", "median ms", "peak MB")}
    return [*rows, {"what": "times less", "runs": "", **ratios}]


def ratio(more: Any, less: Any) -> Any:
    """Quotient of what was measured."""
    return more / less if isinstance(more, float) and isinstance(less, float) else NOT_MEASURED


def peak(side: str, size: int) -> float | str:
    """Peak memory of a fresh process over what it had after its imports, in MB; its input counts."""
    if not Path("/proc/self/clear_refs").exists():  # only Linux tells the peak of a part of a process's life
        return NOT_MEASURED
    command = [sys.executable, __file__, "--run", side, str(size), str(torch.get_num_threads())]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak_of(side: str, size: str, threads: str) -> float:
    """The same, inside that process."""
    torch.set_num_threads(int(threads))
    WALKS[side](*scene(8))  # libraries set up their own buffers
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    WALKS[side](*scene(int(size)))
    return status("VmHWM") - before


def status(field: str) -> float:
    """A number of MB that Linux keeps of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def growth(limit: float, dense: Row) -> list[Row]:
    """Time (best) and memory against the side of the map; what would take the dense side too long is extrapolated."""
    rows = []
    for side in SIDES:
        inputs = scene(side)
        ours = 1e3 * min(seconds(lambda: sparse_walk(*inputs), 5))  # noqa: B023
        row = {"side": side, "N": side**2, "ours ms": ours, "ours MB": peak("ours", side)}
        rows.append({**row, **dense_row(side, limit, dense)})
    return rows


def dense_row(side: int, limit: float, dense: Row) -> Row:
    """The dense side, measured or, marked by a tilde, as N^3 and N^2 from 56 x 56."""
    more = (side / 56) ** 2
    expected, room = dense["best ms"] * more**3, 3 * 4 * side**4
    if expected > 1e3 * limit or room > available():
        known = isinstance(dense["peak MB"], float)
        memory = f"~{dense['peak MB'] * more**2:.0f}" if known else NOT_MEASURED
        return {"dense ms": f"~{expected:.0f}", "dense MB": memory}
    inputs = scene(side)
    return {"dense ms": 1e3 * min(seconds(lambda: dense_walk(*inputs))), "dense MB": peak("dense", side)}


def available() -> float:
    """Bytes of free memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def aims(report: dict[str, list[Row]]) -> list[Row]:
    """What was to be reached; a number that was not measured does not reach it."""
    less, exact = report["56x56"][2], report["agreement"][0]["relative error"]
    wanted = [(f"{FASTER} times faster, {kind}", less[f"{kind} ms"], FASTER) for kind in ("best", "median")]
    wanted.append((f"1/{SMALLER} of the memory", less["peak MB"], SMALLER))
    rows = [{"aim": aim, "found": found, "met": at_least(found, least)} for aim, found, least in wanted]
    return [*rows, {"aim": f"float64 within {CLOSE}", "found": exact, "met": exact <= CLOSE}]


def at_least(found: Any, wanted: float) -> bool:
    """Whether a number was measured and is large enough."""
    return isinstance(found, float) and found >= wanted


if __name__ == "__main__":
    main()
