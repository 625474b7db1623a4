r"""Where the dynamic stage wins and loses: its masks against ground truth, at the crops and resolution of training.

    python benchmarks/dynamic_diagnosis.py --split look.txt --truth VOCdevkit/VOC2012/SegmentationClassAug \
        --checkpoints runs/x/static/checkpoints/last.ckpt runs/x/dynamic/checkpoints/last.ckpt \
        --config experiments/voc2012_animals/dynamic.yaml --set data.root=VOCdevkit --set data.labels=cls_labels.npy \
        --set data.truth=SegmentationClassAug --set data.knowledge=runs/x/static/predictions \
        --set model.init_args.network_checkpoint=runs/x/baseline_seeds/checkpoints/last.ckpt

A static stage's checkpoint stands for the first step of the dynamic stage, which starts from it and from
`network_checkpoint`.
Each checkpoint runs the step's forward pass, augmentation included, on the photos of the list, with dropout as in
training and once more as it is evaluated; every checkpoint sees the same crops. With `--scales` K1 comes from the mean
over these scales and their flips, without dropout, instead of from the step's own forward pass. With `--sharpen` its
logits are multiplied before the CRF takes them; K1 itself stays. With `--ddnets` both SSDD modules have the weights of
a static stage, as if they had not learned since. Truth is for scoring alone: what is chosen by these
figures must be reported on other photos.

The shares of a module are of the pixels where exactly one of knowledge and advice is right: `advice true` is how often
it is the advice (the method needs more than a half, 3.2), `taken` how often the merge takes it, then how often it is
right where taken and where refused, and the area under the ROC curve of w = d_K - d_A. Where the sub branch sides with
one of the second module's masks, `w sides with sub` says how often the sign of w sides with it, too; then how often the
sub branch and how often w is right there, of the pixels where exactly one mask is.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.data.dataset import Sample
from ssdd_lightning.functional.refinement import MergeBiases, bad_samples, ssdd_merge
from ssdd_lightning.metrics.difference import area_under_roc
from ssdd_lightning.nn.inference import multi_scale_probabilities
from ssdd_lightning.nn.ssdd import SSDDOutput, resize_mask
from ssdd_lightning.pipeline.config import StageConfig, parse_settings
from ssdd_lightning.pipeline.lightning import build_stage
from ssdd_lightning.stages import DynamicRefinementModule
from ssdd_lightning.stages.base import Batch
from ssdd_lightning.stages.dynamic import log_shares
from ssdd_lightning.stages.segmentation import static_start
from ssdd_lightning.storage.safe_torch import load_torch

MASKS = ("K1", "A1", "D1", "D0", "D2", "sub")
BIASES = (-0.4, -0.2, 0.0, 0.2, 0.4)


class Merges:
    """Pooled counts of one SSDD module's decisions.

    Args:
        classes: C.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = torch.zeros(2, 2)  # [advice is right, advice was taken], pixels where exactly one is right
        self.ranks = torch.zeros(2, 401)  # [advice is right], histogram of w in steps of 0.005
        self.swept = {(dd, c): torch.zeros(classes, classes + 1) for c in (0.0, 1.0) for dd in BIASES}
        self.bad, self.images = 0, 0
        self.votes = torch.zeros(5)  # pixels with a vote, agreed; one mask right, sub right, w right

    def update(
        self, knowledge: Tensor, advice: Tensor, output: SSDDOutput, truth: Tensor, labels: Tensor, good: Tensor
    ) -> None:
        """Add a batch; masks B x H x W long, labels B x C bool, good B bool (no bad sample)."""
        d_k, d_a = (logits.float().sigmoid()[:, 0] for logits in (output.knowledge_logits, output.advice_logits))
        one_right = ((knowledge == truth) != (advice == truth)) & (truth != IGNORE) & (knowledge != IGNORE)
        right, taken = (advice == truth)[one_right].long(), (output.mask == advice)[one_right].long()
        self.counts += torch.bincount(2 * right + taken, minlength=4).view(2, 2)
        level = (200 * (d_k - d_a)[one_right]).round().long() + 200
        self.ranks += torch.bincount(401 * right + level, minlength=802).view(2, 401)
        for (dd, class_bias), confusion in self.swept.items():
            merged = ssdd_merge(knowledge, advice, d_k, d_a, labels, MergeBiases(dd, class_bias), output.failed)
            confusion += confusion_of(merged, truth, self.classes)
        self.bad, self.images = self.bad + int((~good).sum()), self.images + len(good)

    def compare(self, knowledge: Tensor, advice: Tensor, output: SSDDOutput, truth: Tensor, sub: Tensor) -> None:
        """Add how w and the sub branch's mask decide; masks B x H x W long."""
        by_w = (output.knowledge_logits >= output.advice_logits)[:, 0]
        voted = (knowledge != advice) & ((sub == knowledge) | (sub == advice)) & (knowledge != IGNORE)
        one_right = voted & ((knowledge == truth) != (advice == truth)) & (truth != IGNORE)
        counted = (voted, voted & (by_w == (sub == advice)), one_right)
        right = (one_right & (sub == truth), one_right & (by_w == (advice == truth)))
        self.votes += torch.stack([pixels.sum() for pixels in (*counted, *right)])

    def summary(self) -> dict[str, Any]:
        """Shares in percent, and the mIoU of each pair of biases."""
        (false_refused, false_taken), (true_refused, true_taken) = self.counts.tolist()
        total = max(float(self.counts.sum()), 1)
        voted, agreed, one_right, sub_right, w_right = self.votes.tolist()
        votes = {
            "w sides with sub": 100 * agreed / max(voted, 1),
            "sub is right": 100 * sub_right / max(one_right, 1),
            "w is right": 100 * w_right / max(one_right, 1),
        }
        return {
            "advice true": 100 * (true_refused + true_taken) / total,
            "taken": 100 * (false_taken + true_taken) / total,
            "true among taken": 100 * true_taken / max(false_taken + true_taken, 1),
            "true among refused": 100 * true_refused / max(false_refused + true_refused, 1),
            "AUC of w": area_under_roc(*self.ranks),
            "bad samples": 100 * self.bad / max(self.images, 1),
            **(votes if voted else {}),
            "mIoU by b_dd, b_class": {f"{dd:g}, {c:g}": miou(m) for (dd, c), m in self.swept.items()},
        }


def main() -> None:
    """Measure every checkpoint and print one table each."""
    options, settings = arguments()
    found = {}
    for path in options.checkpoints:
        module, batches = load(path, options, settings)
        modes = ("train", "eval")
        found[str(path)] = {
            mode: diagnose(module, batches, mode == "train", options.scales, options.sharpen) for mode in modes
        }
        report(str(path), found[str(path)])
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))


def load(
    path: Path, options: argparse.Namespace, settings: dict[str, Any]
) -> tuple[DynamicRefinementModule, DataLoader[Sample]]:
    """The stage with a checkpoint's weights, and the batches; true masks travel as `advice`, which the step ignores."""
    own = {"data.splits.train": str(options.split), "data.advice": str(options.truth), "data.num_workers": 0}
    line = build_stage(StageConfig((options.config,), {**settings, **own}))
    module = line.model
    assert isinstance(module, DynamicRefinementModule)
    weights = load_torch(path)["state_dict"]
    if any(name.startswith("ssdd.") for name in weights):
        module.static_checkpoint = str(path)
        for start in module.starts():
            start.load()
    else:
        module.load_state_dict(weights)
    if options.ddnets:
        static_start(str(options.ddnets), [(module.ssdd1, "ssdd."), (module.ssdd2, "ssdd.")]).load()
    line.datamodule.seed = 0
    line.datamodule.setup("fit")
    return module, line.datamodule.train_dataloader()


@torch.no_grad()
def diagnose(
    module: DynamicRefinementModule,
    batches: DataLoader[Sample],
    training: bool,
    scales: Sequence[float] = (),
    sharpen: float = 1.0,
) -> dict[str, Any]:
    """Pool the step's masks and decisions over all batches."""
    classes = module.network.num_classes
    confusions = {name: torch.zeros(classes, classes + 1) for name in (*MASKS, "oracle of K1, A1", "oracle of D0, D1")}
    first, second = Merges(classes), Merges(classes)
    for number, batch in enumerate(batches_of_epoch_0(batches)):
        torch.manual_seed(number)
        module.train(training)
        with sharpened(module, sharpen), averaged(module, batch, scales) if scales else nullcontext():
            step, labels = module.refine(batch), batch["image_labels"]
        truth = resize_mask(batch["advice"], step.seeds.shape[-2:])
        m_d1, m_d2 = step.first.mask, step.second.mask
        made = (step.knowledge, step.advice, m_d1, step.seeds, m_d2, step.sub_mask)
        best = (torch.where(a == truth, a, k) for k, a in ((step.knowledge, step.advice), (step.seeds, m_d1)))
        for confusion, mask in zip(confusions.values(), (*made, *best), strict=True):
            confusion += confusion_of(mask, truth, classes)
        first_good, second_good = (~bad_samples(made.failed) for made in (step.first, step.second))
        first.update(step.knowledge, step.advice, step.first, truth, labels, first_good)
        second.update(step.seeds, m_d1, step.second, truth, labels, second_good)
        second.compare(step.seeds, m_d1, step.second, truth, step.sub_mask)
    return {
        "mIoU": {name: miou(confusion) for name, confusion in confusions.items()},
        "per class": {name: [round(v, 1) for v in ious(confusions[name]).tolist()] for name in MASKS},
        "background, share of pixels": {name: share(confusions[name]) for name in MASKS},
        "first module": first.summary(),
        "second module": second.summary(),
    }


def averaged(module: DynamicRefinementModule, batch: Batch, scales: Sequence[float]) -> AbstractContextManager[object]:
    """Take K1 from the mean of the evaluated network's probabilities over scales and flips of the un-jittered crop."""
    training, size = module.training, module.mask_size(batch["image"])
    probabilities = multi_scale_probabilities(
        lambda view: module.eval().network(view)[2], batch["image_raw"], scales, flip=True
    )
    module.train(training)
    shares = log_shares(resize_mask(module.guide(batch, "knowledge"), size), probabilities.shape[1])
    logits = F.adaptive_avg_pool2d(probabilities, size).clamp(min=1e-6).log() + module.refinement.prior * shares
    original = module.knowledge_and_advice
    return patch.object(module, "knowledge_and_advice", lambda _, *inputs: original(logits, *inputs))


def sharpened(module: DynamicRefinementModule, factor: float) -> AbstractContextManager[object]:
    """Multiply the logits that K1 and the unary of the step's CRF are made of."""
    original = module.knowledge_and_advice
    return patch.object(module, "knowledge_and_advice", lambda logits, *inputs: original(factor * logits, *inputs))


def batches_of_epoch_0(loader: DataLoader[Sample]) -> Iterator[dict[str, Any]]:
    """The same crops whenever it is asked."""
    loader.sampler.set_epoch(0)  # type: ignore[attr-defined]
    yield from loader


def confusion_of(mask: Tensor, truth: Tensor, classes: int) -> Tensor:
    """C x (C + 1) counts, truth by prediction, the last column for predictions of 255; truth of 255 is left out."""
    scored = truth != IGNORE
    index = truth[scored] * (classes + 1) + mask[scored].clamp(max=classes)
    return torch.bincount(index, minlength=classes * (classes + 1)).view(classes, classes + 1).float()


def ious(confusion: Tensor) -> Tensor:
    """IoU of each class in percent."""
    hits = confusion.diagonal()
    return 100 * hits / (confusion.sum(1) + confusion[:, :-1].sum(0) - hits)


def miou(confusion: Tensor) -> float:
    """Mean over the classes that occur, percent."""
    return float(ious(confusion).nanmean())


def share(confusion: Tensor) -> list[float]:
    """Share of background in the mask and in the truth, percent."""
    shares = torch.stack((confusion[:, 0].sum(), confusion[0].sum())) / confusion.sum()
    return [round(100 * v, 1) for v in shares.tolist()]


def report(name: str, found: dict[str, Any]) -> None:
    """Print one checkpoint's table."""
    print(f"\n{name}")
    for mode, values in found.items():
        print(f"  {mode}: mIoU " + ", ".join(f"{k} {v:.2f}" for k, v in values["mIoU"].items()))
        print(f"    background (mask, truth): {values['background, share of pixels']}")
        for which in ("first module", "second module"):
            summary = dict(values[which])
            swept = summary.pop("mIoU by b_dd, b_class")
            print(f"    {which}: " + ", ".join(f"{k} {v:.3g}" for k, v in summary.items()))
            print("      mIoU by b_dd, b_class: " + "; ".join(f"({k}) {v:.2f}" for k, v in swept.items()))
        for mask, row in values["per class"].items():
            print(f"    {mask:4}" + "".join(f"{v:7.1f}" for v in row))


def arguments() -> tuple[argparse.Namespace, dict[str, Any]]:
    """Options of this script, and settings of the dynamic stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, nargs="+", required=True)
    parser.add_argument("--split", type=Path, required=True, help="list of photos to look at")
    parser.add_argument("--truth", type=Path, required=True, help="folder of their true masks")
    parser.add_argument("--scales", type=float, nargs="+", default=[], help="K1 from the mean over these and flips")
    parser.add_argument("--sharpen", type=float, default=1.0, help="factor of the logits that the step's CRF takes")
    parser.add_argument("--ddnets", type=Path, help="static stage whose DD-Nets stand in for the checkpoints' own")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--config", type=Path, required=True, help="YAML of the dynamic stage")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of it; may be repeated"
    )
    options = parser.parse_args()
    return options, parse_settings(options.set)


if __name__ == "__main__":
    main()
