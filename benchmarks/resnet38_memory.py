"""Memory and time of a training step of the static stage on ResNet-38, with and without activation checkpointing.

    python benchmarks/resnet38_memory.py --json resnet38_memory.json
    python benchmarks/resnet38_memory.py --device cuda --batch 16

A step is what the paper's second stage does with a batch: segmentation network and DD-Net forward, both losses,
backward, SGD with momentum. Each row runs in a process of its own; on the CPU its peak is the resident memory of the
whole process, on a GPU the memory allocated for tensors.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from ssdd_lightning.functional import difference_loss, difference_target, segmentation_loss
from ssdd_lightning.nn import SSDD, SegmentationNetwork
from ssdd_lightning.nn.ssdd import resize_logits

CLASSES = 21


def main() -> None:
    """Measure both settings, print the table, write the JSON."""
    options = arguments()
    if options.row is not None:
        print(json.dumps(measure(options.row == "yes", options)))
        return
    words = ["--batch", str(options.batch), "--size", str(options.size), "--device", options.device]
    words += ["--threads", str(options.threads)]
    rows = [row([*words, "--row", setting]) for setting in ("no", "yes")]
    print(f"{platform.processor() or platform.machine()}, {options.device}, torch {torch.__version__}")
    print("| checkpointing | batch | size | parameters GiB | peak GiB | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for r in rows:
        numbers = (f"{r[key]:.2f}" for key in ("parameters", "peak", "seconds"))
        print(f"| {r['checkpointing']} | {options.batch} | {options.size} | {' | '.join(numbers)} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--row", choices=("no", "yes"), help=argparse.SUPPRESS)
    return parser.parse_args()


def row(words: list[str]) -> dict[str, float | str]:
    """Measure one setting in a fresh process."""
    run = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float | str] = json.loads(run.stdout.splitlines()[-1])
    return result


def measure(checkpointing: bool, options: argparse.Namespace) -> dict[str, float | str]:
    """Do one step; memory in GiB."""
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    network = SegmentationNetwork(
        CLASSES, "resnet38", output_stride=8, freeze_norm=True, frozen_layers=["conv1a"], checkpointing=checkpointing
    )
    ssdd = SSDD(CLASSES, network.high_channels, network.low_channels)
    model = torch.nn.ModuleList([network, ssdd]).to(device, memory_format=torch.channels_last)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=1e-3, momentum=0.9, weight_decay=2e-4)
    image = torch.randint(0, 256, (options.batch, 3, options.size, options.size), dtype=torch.uint8, device=device)
    start = time.perf_counter()
    step(network, ssdd, image)
    optimizer.step()
    peak = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    if device.type == "cuda":
        torch.cuda.synchronize()
        peak = float(torch.cuda.max_memory_allocated())
    return {
        "checkpointing": "yes" if checkpointing else "no",
        "parameters": sum(p.numel() * p.element_size() for p in model.parameters()) / 2**30,
        "peak": peak / 2**30,
        "seconds": time.perf_counter() - start,
    }


def step(network: SegmentationNetwork, ssdd: SSDD, image: torch.Tensor) -> None:
    """Forward and backward of the static stage on random masks."""
    size = (image.shape[-2] // 4, image.shape[-1] // 4)
    shape = (image.shape[0], *size)
    knowledge, advice = (torch.randint(0, CLASSES, shape, device=image.device) for _ in range(2))
    labels = torch.ones(image.shape[0], CLASSES, dtype=torch.bool, device=image.device)
    output = network(image)
    refined = ssdd(output.high, output.low, knowledge, advice, labels)
    target = difference_target(knowledge, advice)
    loss = segmentation_loss(resize_logits(output.logits, size), knowledge)
    for logits in (refined.knowledge_logits, refined.advice_logits):
        loss = loss + difference_loss(logits, target)
    loss.backward()


if __name__ == "__main__":
    main()
