"""Time of everything around the networks in a dynamic step: ours, and written as the authors' code does it.

    python benchmarks/reference_step.py
    python benchmarks/reference_step.py --batch 8 --size 112 --classes 21 --shown 3

Both get the same logits of both branches and of both DD-Nets, the same seed masks and images, and yield K1, A1, D1,
D2, all losses, and their gradients for the logits. The peer copies the logits to the host, runs the CRF image by image
in the main process, and loops over images and over classes. Its CRF is pydensecrf where that is installed, and else our
drop-in, which is 2 to 3 times faster. The script ends with an error if the two do not agree. The GPU is used if there
is one.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from machine import NOT_MEASURED, report
from tables import Row
from torch import Tensor
from torch.nn import functional as F

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.crf import CRFOptions, DenseCRF
from ssdd_lightning.functional.losses import difference_losses, segmentation_loss
from ssdd_lightning.functional.refinement import (
    MergeBiases,
    bad_samples,
    failed_classes,
    present_argmax,
    ssdd_merge,
)
from ssdd_lightning.stages.dynamic import DynamicRefinementModule

try:
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_softmax

    PEER_CRF = "pydensecrf"
except ImportError:
    from ssdd_lightning.crf.pydensecrf.densecrf import DenseCRF2D
    from ssdd_lightning.crf.pydensecrf.utils import unary_from_softmax

    PEER_CRF = "our drop-in for pydensecrf"

ITERATIONS = 3
BIASES = MergeBiases()
CRF = CRFOptions().settings


@dataclass
class Given:
    """What both start from: logits of the branches (B x C x H x W) and of the DD-Nets, images, labels and seeds."""

    main: Tensor
    sub: Tensor
    detectors: list[Tensor]
    image: Tensor
    labels: Tensor
    seeds: Tensor

    @property
    def logits(self) -> list[Tensor]:
        """All that the losses are differentiated by."""
        return [self.main, self.sub, *self.detectors]


@dataclass
class Made:
    """What both yield."""

    masks: dict[str, Tensor]
    losses: dict[str, Tensor]


def main() -> None:
    """Compare, print the table, write the JSON."""
    options = arguments()
    rows = []
    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            rows.append({"device": device, "part": "all", "ours, ms": NOT_MEASURED})
            continue
        rows += compare(given(options, torch.device(device)), options.rounds)
    report(f"around the networks; the peer's CRF is {PEER_CRF}", rows, options)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=112, help="side of the masks (default: 112, of crops of 448)")
    parser.add_argument("--classes", type=int, default=21, help="with background (default: 21)")
    parser.add_argument("--shown", type=int, default=3, help="classes of an image, with background (default: 3)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    return parser.parse_args()


def given(options: argparse.Namespace, device: torch.device) -> Given:
    """Smooth logits, images and seed masks; a few classes an image."""
    generator = torch.Generator().manual_seed(0)
    batch, classes, side = options.batch, options.classes, options.size

    def smooth(channels: int, scale: float, size: int = side) -> Tensor:
        coarse = torch.randn(batch, channels, 9, 9, generator=generator) * scale
        return F.interpolate(coarse, (size, size), mode="bicubic").to(device)

    labels = torch.zeros(batch, classes, dtype=torch.bool)
    for number in range(batch):
        labels[number, 1 + torch.randperm(classes - 1, generator=generator)[: options.shown - 1]] = True
    labels[:, 0] = True
    labels = labels.to(device)
    seeds = present_argmax(smooth(classes, 3), labels)
    seeds[smooth(1, 1)[:, 0] > 1.5] = IGNORE
    image = (smooth(3, 60, 4 * side) + 128).clamp(0, 255).byte()
    logits = [smooth(classes, 3), smooth(classes, 3), *(smooth(1, 2) for _ in range(4))]
    main_logits, sub, *detectors = (one.requires_grad_() for one in logits)
    return Given(main_logits, sub, detectors, image, labels, seeds)


def compare(step: Given, rounds: int) -> list[Row]:
    """Both in turns; the first round compiles and is left out."""
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        made = {}
        for name, work in (("ours", ours), ("peer", peer)):
            for logits in step.logits:
                logits.grad = None
            start = now(step.main.device)
            made[name] = work(step)
            torch.stack(list(made[name].losses.values())).sum().backward()
            if number:
                seconds.setdefault(name, []).append(now(step.main.device) - start)
            made[name].losses["gradients"] = torch.cat([logits.grad.flatten() for logits in step.logits])
        check(made["ours"], made["peer"])
    least = {name: 1e3 * min(values) for name, values in seconds.items()}
    ratio = float(np.median(np.divide(seconds["peer"], seconds["ours"])))
    row = {"device": step.main.device.type, "part": "K1, A1, D1, D2, losses and gradients"}
    numbers = {"ours, ms": least["ours"], "the authors' way, ms": least["peer"], "times": ratio}
    return [{**row, **{name: round(value, 3) for name, value in numbers.items()}}]


def check(one: Made, other: Made) -> None:
    """End with an error where the two differ."""
    for name, mask in one.masks.items():
        share = float((mask.cpu() == other.masks[name].cpu()).double().mean())
        if share < 0.9999:
            sys.exit(f"{name}: only {100 * share:.2f} % of the pixels are the same")
    for name, loss in one.losses.items():
        far = float((loss.detach().cpu() - other.losses[name].detach().cpu()).abs().max())
        if far > 1e-3 * (1 + float(loss.detach().abs().max())):
            sys.exit(f"{name} differs by {far:.2g}")


def now(device: torch.device) -> float:
    """Seconds, when the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def ours(step: Given) -> Made:
    """As `DynamicRefinementModule` does it, with its own code."""
    mapping = SimpleNamespace(mapping=DenseCRF(iterations=ITERATIONS))
    labels, seeds = step.labels, step.seeds
    with torch.no_grad():
        knowledge, advice = DynamicRefinementModule.knowledge_and_advice(mapping, step.main, step.image, labels)  # type: ignore[arg-type]
        first, failed1 = merged(knowledge, advice, step.detectors[:2], labels)
        second, failed2 = merged(seeds, first, step.detectors[2:], labels)
        sub = present_argmax(step.sub, labels)
    bad1, bad2 = bad_samples(failed1), bad_samples(failed2)
    terms1 = [(detector, knowledge, advice) for detector in step.detectors[:2]]
    terms2 = [(step.detectors[2], seeds, sub), (step.detectors[3], sub, first)]
    losses = {
        "main": segmentation_loss(step.main, second),
        "sub": 0.5 * segmentation_loss(step.sub, seeds) + 0.5 * segmentation_loss(step.sub, second),
        "diff1": difference_losses(terms1, ~bad1),
        "diff2": difference_losses(terms2, ~bad2, per_image=False),
    }
    return Made({"K1": knowledge, "A1": advice, "D1": first, "D2": second}, losses)


def merged(knowledge: Tensor, advice: Tensor, detectors: list[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """The refined mask, and the classes that failed."""
    failed = failed_classes(knowledge, advice, labels)
    return ssdd_merge(knowledge, advice, *(d.sigmoid()[:, 0] for d in detectors), labels, BIASES, failed), failed


def peer(step: Given) -> Made:
    """The same in loops over images and classes, on the host."""
    made: dict[str, list[np.ndarray]] = {name: [] for name in ("K1", "A1", "D1", "D2", "sub")}
    bad: list[tuple[bool, bool]] = []
    for number in range(len(step.main)):
        classes = np.flatnonzero(step.labels[number].cpu().numpy())
        scores = step.main[number].detach().cpu().numpy()[classes]
        made["K1"].append(classes[scores.argmax(0)])
        made["A1"].append(classes[looped_crf(step.image[number], scores).argmax(0)])
        detectors = [1 / (1 + np.exp(-d[number, 0].detach().cpu().numpy())) for d in step.detectors]
        seeds = step.seeds[number].cpu().numpy()
        first, lost1 = looped_merge(made["K1"][-1], made["A1"][-1], detectors[:2], classes)
        second, lost2 = looped_merge(seeds, first, detectors[2:], classes)
        made["D1"].append(first)
        made["D2"].append(second)
        made["sub"].append(classes[step.sub[number].detach().cpu().numpy()[classes].argmax(0)])
        bad.append((bool(lost1), bool(lost2)))
    masks = {name: torch.from_numpy(np.stack(arrays)).to(step.main.device) for name, arrays in made.items()}
    knowledge, advice, first, second, sub = masks.values()
    seeds = step.seeds
    losses = {
        "main": looped_segmentation_loss(step.main, second),
        "sub": 0.5 * looped_segmentation_loss(step.sub, seeds) + 0.5 * looped_segmentation_loss(step.sub, second),
        "diff1": looped_difference_losses(step.detectors[:2], [(knowledge, advice)] * 2, [one for one, _ in bad]),
        "diff2": pooled_difference_losses(step.detectors[2:], [(seeds, sub), (sub, first)], [two for _, two in bad]),
    }
    return Made({name: masks[name] for name in ("K1", "A1", "D1", "D2")}, losses)


def looped_crf(image: Tensor, scores: np.ndarray) -> np.ndarray:
    """The CRF on one image: softmax over its classes, unary energies, both kernels, three iterations."""
    risen = np.exp(scores - scores.max(0))
    probabilities = (risen / risen.sum(0)).astype(np.float32)
    count, height, width = scores.shape
    small = F.interpolate(image[None].float(), (height, width), mode="bilinear", align_corners=False, antialias=True)
    colours = small[0].round().byte().cpu().numpy().transpose(1, 2, 0)
    crf = DenseCRF2D(width, height, count)
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
    crf.addPairwiseGaussian(sxy=CRF.gaussian_sxy, compat=CRF.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=CRF.bilateral_sxy,
        srgb=CRF.bilateral_srgb,
        rgbim=np.ascontiguousarray(colours),
        compat=CRF.bilateral_compat,
    )
    return np.array(crf.inference(ITERATIONS)).reshape(scores.shape)


def looped_merge(
    knowledge: np.ndarray, advice: np.ndarray, detectors: list[np.ndarray], classes: np.ndarray
) -> tuple[np.ndarray, list[int]]:
    """Merge two masks of one image, class by class."""
    both = (knowledge != IGNORE) & (advice != IGNORE)
    bias = np.full(knowledge.shape, BIASES.dd_bias)
    lost = []
    for index in classes[1:]:
        kept = ((advice == index) & both).sum() / max(((knowledge == index) & both).sum(), 1)
        if kept < BIASES.failed_ratio:
            lost.append(int(index))
            bias[knowledge == index] -= BIASES.class_bias
            bias[advice == index] += BIASES.class_bias
    taken = ((detectors[0] - detectors[1] + bias >= 0) & (advice != IGNORE)) | (knowledge == IGNORE)
    return np.where(taken, advice, knowledge), lost


def looped_segmentation_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean cross entropy of each class, and mean over the classes that occur."""
    logarithms = logits.log_softmax(1)
    means = []
    for index in range(logits.shape[1]):
        inside = mask == index
        if inside.any():
            means.append(-logarithms[:, index][inside].mean())
    return torch.stack(means).mean()


def looped_difference_losses(detectors: list[Tensor], pairs: list[tuple[Tensor, Tensor]], bad: list[bool]) -> Tensor:
    """Balanced cross entropy of each image that is not bad, and mean over these."""
    losses = []
    for detector, (one, other) in zip(detectors, pairs, strict=True):
        means = [
            balanced_loss(detector[number : number + 1, 0], one[number : number + 1], other[number : number + 1])
            for number in range(len(detector))
            if not bad[number]
        ]
        means = [mean for mean in means if mean is not None]
        losses.append(torch.stack(means).mean() if means else 0 * detector.sum())
    return torch.stack(losses).sum()


def pooled_difference_losses(detectors: list[Tensor], pairs: list[tuple[Tensor, Tensor]], bad: list[bool]) -> Tensor:
    """Balanced cross entropy of the pixels of all images that are not bad."""
    kept = [number for number, is_bad in enumerate(bad) if not is_bad]
    losses = []
    for detector, (one, other) in zip(detectors, pairs, strict=True):
        loss = balanced_loss(detector[kept, 0], one[kept], other[kept]) if kept else None
        losses.append(0 * detector.sum() if loss is None else loss)
    return torch.stack(losses).sum()


def balanced_loss(logits: Tensor, one: Tensor, other: Tensor) -> Tensor | None:
    """Mean over the pixels that differ and mean over those that agree, averaged; None without any."""
    both = (one != IGNORE) & (other != IGNORE)
    loss = F.binary_cross_entropy_with_logits(logits, (one != other).float(), reduction="none")
    sides = [loss[both & chosen] for chosen in (one != other, one == other)]
    means = [side.mean() for side in sides if len(side)]
    return torch.stack(means).mean() if means else None


if __name__ == "__main__":
    main()
