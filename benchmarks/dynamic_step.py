"""Time of a training step, and what of it the networks do not take: plain and dynamic, in single and mixed precision.

    python benchmarks/dynamic_step.py
    python benchmarks/dynamic_step.py --backbone resnet38 --head largefov --crop 448 --width 256 --classes 21

Steps of a plain and of two dynamic stages alternate, so that all meet the same load. Images and masks are drawn.
The GPU is used if there is one. TFLOP/s are the operations of a step, forward and backward as torch counts them, over
its median time; CRF, losses and normalisation count nothing but take time. On a GPU the lines of the package at which a
step waits for it are listed. The trainer's hooks are no part of the step: `stages/loss_guard.py` waits once in them.
"""

import argparse
import time
import traceback
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from machine import NOT_MEASURED, report
from tables import Row
from torch.utils.flop_counter import FlopCounterMode

import ssdd_lightning
from ssdd_lightning import DynamicRefinementModule, SegmentationModule, SegmentationNetwork
from ssdd_lightning.nn import SSDD
from ssdd_lightning.stages.base import Batch, Stage
from ssdd_lightning.stages.values import LabelRefinement

PACKAGE = Path(ssdd_lightning.__file__).parent
WAIT = "called a synchronizing CUDA operation"
"""torch's warning of a wait."""


def drawn_batch(options: argparse.Namespace, device: torch.device) -> Batch:
    """Smooth images, and masks of blobs of every class."""
    generator = torch.Generator().manual_seed(0)
    size = options.batch, options.crop, options.crop
    coarse = torch.rand(options.batch, 3, 8, 8, generator=generator) * 255
    image = torch.nn.functional.interpolate(coarse, size[1:], mode="bicubic").clamp(0, 255).byte().to(device)
    blobs = torch.rand(options.batch, options.classes, 6, 6, generator=generator)
    mask = torch.nn.functional.interpolate(blobs, size[1:], mode="bilinear").argmax(1).to(device)
    labels = torch.ones(options.batch, options.classes, dtype=torch.bool, device=device)
    names = [f"drawn{number}" for number in range(options.batch)]
    valid = torch.ones(size, dtype=torch.bool, device=device)
    guides = {"knowledge": mask, "advice": mask.roll(8, 2), "valid": valid}
    return {"image": image, "image_raw": image, "image_labels": labels, "name": names, **guides}  # type: ignore[typeddict-item]


def stages(options: argparse.Namespace) -> dict[str, Stage]:
    """The plain and the dynamic stage, with the same network."""

    def network(num_classes: int) -> SegmentationNetwork:
        decoder = (
            {} if options.head == "largefov" else {"decoder_pyramid_channels": 64, "decoder_segmentation_channels": 64}
        )
        stride = 8 if options.backbone == "resnet38" else 32
        return SegmentationNetwork(
            num_classes, options.backbone, options.head, output_stride=stride, decoder_options=decoder
        )

    def ssdd(num_classes: int, high: int, low: int) -> SSDD:
        return SSDD(num_classes, high, low, width=options.width)

    plain = SegmentationModule(options.classes, network, backbone_weights=None)
    dynamic = DynamicRefinementModule(options.classes, network, ssdd, backbone_weights=None)
    stay = LabelRefinement(train_ddnets=False)
    frozen = DynamicRefinementModule(options.classes, network, ssdd, refinement=stay, static_checkpoint="not loaded")
    return {"plain": plain, "dynamic": dynamic, "dynamic, DD-Nets stay": frozen}


def step(stage: Stage, batch: Batch, optimizer: torch.optim.Optimizer, mixed: bool) -> float:
    """Seconds of one step: forward, CRF, losses, backward and optimizer."""
    device = batch["image"].device
    _wait(device)
    start = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16) if mixed else nullcontext():
        loss = stage.training_step(batch, 0)  # type: ignore[operator]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def operations(stage: Stage, batch: Batch, optimizer: torch.optim.Optimizer) -> int:
    """Floating-point operations of a step, two for a multiplication and addition."""
    with FlopCounterMode(display=False) as counter:
        step(stage, batch, optimizer, mixed=False)
    return int(counter.get_total_flops())


def waits(stage: Stage, batch: Batch, optimizer: torch.optim.Optimizer) -> list[str]:
    """Where a step in mixed precision waits for the GPU: lines of the package, or of `step` for what is outside it."""
    if batch["image"].device.type == "cpu":
        return [NOT_MEASURED]
    found = []

    def note(message: Warning | str, *_: object) -> None:
        if WAIT not in str(message):
            return
        for frame in reversed(traceback.extract_stack()):
            path = Path(frame.filename)
            if path.is_relative_to(PACKAGE):
                found.append(f"{path.relative_to(PACKAGE)}:{frame.lineno} {frame.name}")
                return
            if frame.name == "step" and path == Path(__file__):
                found.append(f"{path.name}:{frame.lineno} {frame.line}")
                return

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step(stage, batch, optimizer, mixed=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return list(dict.fromkeys(found)) or ["nowhere"]


def step_options(description: str | None) -> argparse.ArgumentParser:
    """Options of a benchmark of these steps."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--head", default="fpn")
    parser.add_argument("--width", type=int, default=64, help="channels inside DD-Net")
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the CPU; default: all")
    parser.add_argument("--json", type=Path)
    return parser


def main() -> None:
    """Time the steps, print the table and write it as JSON if asked to."""
    parser = step_options(__doc__)
    parser.add_argument("--peak", type=float, help="of the device in bf16, TFLOP/s; adds its share")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")  # the stages log without a trainer
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    batch = drawn_batch(options, device)
    made = {name: stage.to(device).train() for name, stage in stages(options).items()}
    optimizers = {
        name: torch.optim.SGD([p for p in stage.parameters() if p.requires_grad], lr=1e-4)
        for name, stage in made.items()
    }
    count = {name: operations(stage, batch, optimizers[name]) / 1e12 for name, stage in made.items()}
    found: dict[tuple[str, bool], list[float]] = {}
    for number in range(options.steps + 1):
        for name, stage in made.items():
            for mixed in (False, True):
                took = step(stage, batch, optimizers[name], mixed)
                if number:  # the first one compiles
                    found.setdefault((name, mixed), []).append(took)
    rows: list[Row] = []
    for (name, mixed), seconds in found.items():
        rate = count[name] / float(np.median(seconds))
        row: Row = {
            "step": name,
            "precision": "bf16-mixed" if mixed else "32-true",
            "seconds, least": round(min(seconds), 4),
            "median": round(float(np.median(seconds)), 4),
            "over plain": round(float(np.median(np.divide(seconds, found["plain", mixed]))), 2),
            "TFLOP/s": rate,
        }
        if options.peak and mixed:
            row["of the peak, %"] = 100 * rate / options.peak
        rows.append(row)
    for name, stage in made.items():
        rows += [{"step": name, "waits for the GPU": line} for line in waits(stage, batch, optimizers[name])]
    report("training steps", rows, options)


if __name__ == "__main__":
    main()
