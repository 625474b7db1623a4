"""Time of segmenting whole photos: the network alone, with the dense CRF; in batches, one by one, one on each core.

    python benchmarks/inference.py
    python benchmarks/inference.py --backbone resnet38 --head largefov --classes 21 --scales 0.5 0.75 1 1.25 1.5

The photos are drawn in two sizes, as a dataset's are, and every way gets them in turns. `flips apart` is a loop over
scales and flips with one photo a call, as PSA's code does it. `a core each` is what `ssdd segment` does on a CPU. All
ways must give the same masks. The GPU is used if there is one, and then the table has the share of the time in which
it computes: its kernels by torch's profiler, over the time without the profiler.
"""

import argparse
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch
from machine import NOT_MEASURED, report
from tables import Row
from torch import Tensor
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from ssdd_lightning import SegmentationModule, SegmentationNetwork
from ssdd_lightning.data.sampling import like_sized
from ssdd_lightning.folders.cores import on_cores
from ssdd_lightning.nn.inference import multi_scale_probabilities
from ssdd_lightning.nn.ssdd import resize_logits
from ssdd_lightning.stages.values import TestProtocol

BATCH = 4
"""Photos of one size that are segmented together, with `eval_batch_size: 4`."""
Way = Callable[[SegmentationModule, list[Tensor]], list[Tensor]]
WITH_CRF = {
    "batches": "network + CRF, batches",
    "one": "network + CRF, one by one",
    "cores": "network + CRF, a core each",
}


def main() -> None:
    """Compare, print the table, write the JSON."""
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            rows.append({"device": device, "way": "all", "ms a photo": NOT_MEASURED})
        else:
            rows += compare(options, torch.device(device))
    report("whole photos", rows, options)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--head", default="fpn")
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.5, 1.0, 1.5])
    parser.add_argument("--side", type=int, default=384, help="longest side of the photos (default: 384)")
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of the CPU; default: all")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    return parser.parse_args()


def compare(options: argparse.Namespace, device: torch.device) -> list[Row]:
    """Every way in turns; the first round compiles and is left out."""
    stage = made(options).eval().to(device)
    photos = [photo.to(device) for photo in drawn(options.photos, options.side)]
    ways: dict[str, Way] = {
        "network, batches": network_in_batches,
        "network, one by one": network_one_by_one,
        "network, one by one, flips apart": network_flips_apart,
        WITH_CRF["batches"]: segmented_in_batches,
        WITH_CRF["one"]: segmented_one_by_one,
    }
    if device.type == "cpu":
        ways["network, a core each"] = lambda stage, photos: a_core_each(network_one_by_one, stage, photos)
        ways[WITH_CRF["cores"]] = lambda stage, photos: a_core_each(segmented_one_by_one, stage, photos)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        masks = {}
        for name, way in ways.items():
            start = now(device)
            with torch.no_grad():
                masks[name] = way(stage, photos)
            if number:
                seconds[name].append((now(device) - start) / len(photos))
        check(masks)
    rows = []
    for name, values in seconds.items():
        alone = seconds[name.replace(" + CRF", "")]
        rows.append(
            {
                "device": device.type,
                "way": name,
                "ms a photo": round(1e3 * min(values), 2),
                "photos a second": round(1 / min(values), 2),
                "over the network alone": round(float(np.median(np.divide(values, alone))), 3),
                "GPU busy, %": busy(ways[name], stage, photos, float(np.median(values)), device),
            }
        )
    return rows


def busy(way: Way, stage: SegmentationModule, photos: list[Tensor], wall: float, device: torch.device) -> float | str:
    """Part of the time in which kernels run, of `wall` seconds a photo; all are in one stream, so none overlap."""
    if device.type == "cpu":
        return NOT_MEASURED
    with profile(activities=[ProfilerActivity.CUDA]) as seen, torch.no_grad():
        way(stage, photos)
        now(device)
    micro = sum(
        event.time_range.elapsed_us()
        for event in seen.events()
        if event.device_type == DeviceType.CUDA and not event.name.startswith(("Memcpy", "Memset"))
    )
    return round(100 * float(micro) / 1e6 / (wall * len(photos)), 1)


def made(options: argparse.Namespace) -> SegmentationModule:
    """A stage with random weights."""

    def network(num_classes: int) -> SegmentationNetwork:
        stride = 8 if options.backbone == "resnet38" else 32
        return SegmentationNetwork(num_classes, options.backbone, options.head, output_stride=stride)

    torch.manual_seed(0)
    testing = TestProtocol(scales=tuple(options.scales), flip=True, crf=True)
    return SegmentationModule(options.classes, network, testing=testing, backbone_weights=None)


def drawn(count: int, side: int) -> list[Tensor]:
    """Smooth photos, upright and across in turns, 3 x H x W uint8."""
    generator = torch.Generator().manual_seed(0)
    photos = []
    for number in range(count):
        coarse = torch.rand(1, 3, 12, 12, generator=generator) * 255
        size = (side, side * 3 // 4) if number % 2 else (side * 3 // 4, side)
        photos.append(F.interpolate(coarse, size, mode="bicubic")[0].clamp(0, 255).byte())
    return photos


def in_batches(photos: list[Tensor], work: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """What `work` makes of photos of one size together, in the order of the photos."""
    sizes = [(photo.shape[1], photo.shape[2]) for photo in photos]
    found: dict[int, Tensor] = {}
    for batch in like_sized(sizes, BATCH):
        found.update(zip(batch, work(torch.stack([photos[n] for n in batch])), strict=True))
    return [found[number] for number in range(len(photos))]


def probabilities(stage: SegmentationModule, image: Tensor) -> Tensor:
    """The network at every scale and flip."""
    return multi_scale_probabilities(lambda view: stage.network(view)[-1], image, stage.testing.scales, True)


def network_in_batches(stage: SegmentationModule, photos: list[Tensor]) -> list[Tensor]:
    """No CRF, photos of one size together."""
    return in_batches(photos, lambda image: probabilities(stage, image).argmax(1))


def network_one_by_one(stage: SegmentationModule, photos: list[Tensor]) -> list[Tensor]:
    """No CRF, one photo with its flipped copy."""
    return [probabilities(stage, photo[None]).argmax(1)[0] for photo in photos]


def network_flips_apart(stage: SegmentationModule, photos: list[Tensor]) -> list[Tensor]:
    """No CRF, one photo a call."""
    masks = []
    for photo in photos:
        image, size, total = photo[None].float(), photo.shape[-2:], 0.0
        for scale, flip in product(stage.testing.scales, (False, True)):
            smaller = [max(1, round(length * scale)) for length in size]
            view = F.interpolate(image, smaller, mode="bilinear", align_corners=False, antialias=scale < 1)
            logits = stage.network(view.flip(-1) if flip else view)[-1]
            logits = logits.flip(-1) if flip else logits
            total = total + resize_logits(logits.float(), size).softmax(1)
        masks.append(total.argmax(1)[0])
    return masks


def segmented_in_batches(stage: SegmentationModule, photos: list[Tensor]) -> list[Tensor]:
    """As `test` and `predict` do it with an `eval_batch_size` above 1."""
    return in_batches(photos, stage.segment)


def segmented_one_by_one(stage: SegmentationModule, photos: list[Tensor]) -> list[Tensor]:
    """As `test`, `predict` and `segment` do it."""
    return [stage.segment(photo[None])[0] for photo in photos]


def a_core_each(way: Way, stage: SegmentationModule, photos: list[Tensor]) -> list[Tensor]:
    """As `segment` does it: as many photos at once as there are cores."""
    return list(on_cores(torch.no_grad()(lambda photo: way(stage, [photo])[0]), photos))


def check(masks: dict[str, list[Tensor]]) -> None:
    """End with an error where two ways give other masks."""
    for name, found in masks.items():
        kind = WITH_CRF["one"] if "CRF" in name else "network, one by one"
        same = [float((a == b).double().mean()) for a, b in zip(found, masks[kind], strict=True)]
        if min(same) < 0.999:
            sys.exit(f"{name}: only {100 * min(same):.2f} % of a photo's pixels are those of {kind}")


def now(device: torch.device) -> float:
    """Seconds, when the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    main()
