r"""The arithmetic of an experiment, counted and not run: what the networks of every stage cost on a number of photos.

    python benchmarks/compute.py --experiment voc2012 --rate 100
    python benchmarks/compute.py --experiment voc2012_modern --rate 100

The networks run on tensors without content (torch's meta device) while torch counts their floating-point operations. A
training step is three times its forward pass, four times where activations are computed again. CRF, losses and input
are left out. `--rate` is what the device sustains in TFLOP/s; `benchmarks/dynamic_step.py` tells it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tables import print_table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ssdd_lightning.nn import SSDD
from ssdd_lightning.pipeline.config import StageConfig
from ssdd_lightning.pipeline.experiments import config_file
from ssdd_lightning.pipeline.lightning import build_stage

STAGES = ("classification", "affinity", "static", "baseline", "dynamic")


def main() -> None:
    """Count every stage, print the table and write it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="voc2012")
    parser.add_argument("--photos", type=int, default=10582, help="for training; VOC with SBD: 10582")
    parser.add_argument("--tested", type=int, default=1449, help="for testing; val of VOC: 1449")
    parser.add_argument("--side", type=int, nargs=2, default=(375, 500), help="height and width of a photo")
    parser.add_argument("--rate", type=float, default=100.0, help="TFLOP/s that the device sustains")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [row for stage in STAGES for row in rows_of(stage, options)]
    total = sum(row["PFLOP"] for row in rows)
    rows.append({"stage": "all", "PFLOP": total, "hours": hours(total, options.rate)})
    print_table(f"{options.experiment}, {options.photos} photos, {options.rate:g} TFLOP/s", rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


def rows_of(stage: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for the training of a stage, and one for what it writes or is tested on."""
    config = StageConfig((config_file(Path(options.experiment) / stage),), {"trainer.precision": "32-true"})
    line = build_stage(config)
    module, epochs = line.model.to("meta"), line.trainer.max_epochs or 0
    again = any(getattr(part, "_checkpoints", False) for part in module.modules())
    crop = line.config.data.augmentation.crop_size
    step = forward_flops(module, 1, (crop, crop)) * (4 if again else 3)
    training = step * options.photos * epochs
    if stage == "classification":
        views, photos = [(scale, 1 + module.flip) for scale in module.scales], options.photos
    elif stage in ("baseline", "dynamic"):
        views, photos = [(scale, 1 + module.testing.flip) for scale in module.testing.scales], options.tested
    else:
        views, photos = [(1.0, 1)], options.photos
    sizes = [(count, tuple(round(side * scale) for side in options.side)) for scale, count in views]
    whole = stage == "static"  # the others predict with the network alone
    written = photos * sum(forward_flops(module if whole else module.network, count, size) for count, size in sizes)
    what = f"{epochs} epochs, crop {crop}, {step / 1e9:.0f} GFLOP an image"
    return [
        {"stage": stage, "what": what, "PFLOP": training / 1e15, "hours": hours(training / 1e15, options.rate)},
        {
            "stage": "",
            "what": f"{photos} photos, {sum(count for _, count in views)} views",
            "PFLOP": written / 1e15,
            "hours": hours(written / 1e15, options.rate),
        },
    ]


def hours(petaflop: float, rate: float) -> float:
    """Hours at a rate in TFLOP/s."""
    return petaflop * 1000 / rate / 3600


@torch.no_grad()
def forward_flops(module: torch.nn.Module, images: int, size: tuple[int, ...]) -> int:
    """Operations of a forward pass, two for a multiplication and addition: network, second head and SSDD modules."""
    network = getattr(module.eval(), "network", module)
    image = torch.empty(images, 3, *size, device="meta")
    with FlopCounterMode(display=False) as counter:
        if isinstance(network, torch.nn.Module) and hasattr(network, "head") and hasattr(network, "low"):
            features = network.backbone(image)
            high, _ = network.head(features)
            if hasattr(module, "sub_head"):
                module.sub_head(features)
            for ssdd in module.modules() if module is not network else ():
                if isinstance(ssdd, SSDD):
                    detect(ssdd, high, network.low(features), size)
        else:
            network(image)
    return counter.get_total_flops()


def detect(ssdd: SSDD, high: Tensor, low: Tensor, size: tuple[int, ...]) -> None:
    """Run DD-Net on two masks at a quarter of the image's size."""
    quarter = (-(-size[0] // 4), -(-size[1] // 4))
    features = ssdd.ddnet.image_features(high, low, quarter)
    for _ in range(2):
        ssdd.ddnet(features, torch.zeros(len(high), *quarter, dtype=torch.long, device="meta"))


if __name__ == "__main__":
    main()
