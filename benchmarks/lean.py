r"""How much of a difference between models is only how far each leans to background, which a constant can change.

    python benchmarks/lean.py --models runs/short/models/longer runs/short/models/pixel_mean_longer \
        runs/short/models/dynamic --seeds 0 1 2 --masks runs/short/static/predictions --trained runs/short/half.txt \
        --photos VOCdevkit/VOC2012/JPEGImages --truth VOCdevkit/VOC2012/SegmentationClassAug \
        --split val.txt --others held_out.txt --scales 0.75 1 1.25 --json lean.json --plot lean.png

A lean is added to the logits at test: so much of the log of each class's share in the masks that the models learnt from
(`refinement.prior` of the dynamic stage does the same while it trains). For each model and testing protocol, --split is
scored with the lean that is best on --others, in the mean over the seeds. Without --others, each half of --split is
scored with the lean that is best on the other half. So every model is tuned alike, and no photo is scored with a lean
that it helped to choose. The last of --models is the one that the others are compared with.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from machine import report
from paired_bootstrap import difference, pooled
from torch import Tensor

from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.data.splits import read_list
from ssdd_lightning.errors import InputError
from ssdd_lightning.evaluation.chart import COLOURS
from ssdd_lightning.folders.cores import on_cores
from ssdd_lightning.folders.segment_checkpoint import change_protocol, load_stage
from ssdd_lightning.functional.refinement import present_argmax
from ssdd_lightning.metrics.confusion import confusion_matrix
from ssdd_lightning.nn.inference import multi_scale_probabilities, scaled_views
from ssdd_lightning.stages.dynamic import log_of_shares
from ssdd_lightning.storage.masks import read_image, read_mask
from ssdd_lightning.storage.progress import Progress

LEANS = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
PROTOCOLS = "protocol", "no CRF, one scale"
Counts = npt.NDArray[np.int64]
"""Confusions: leans x images x C x (C + 1)."""
Found = Mapping[tuple[str, str], Sequence[Counts]]
"""By model and protocol, those of every seed."""


def log_shares(masks: Path, names: Sequence[str], indices: Sequence[int]) -> Tensor:
    """What the dynamic stage's prior is of a batch, of all masks that were trained on."""
    counts = np.zeros(256, np.int64)
    for name in names:
        if (path := masks / f"{name}.png").exists():  # a static stage writes no mask of a photo without labels
            counts += np.bincount(read_mask(path).ravel(), minlength=256)
    if not counts.any():
        raise InputError(f"{masks} holds no mask of the photos that were trained on; check --masks and --trained.")
    return log_of_shares(torch.from_numpy(counts[list(indices)]))


class Model:
    """A trained model, with any lean.

    Args:
        checkpoint: File of `ssdd fit`.
        masks: Folder of the masks whose shares are the lean.
        trained: Names of those masks.
        scales: Scales of the testing protocol.
    """

    def __init__(self, checkpoint: Path, masks: Path, trained: Sequence[str], scales: Sequence[float]) -> None:
        self.stage, table = load_stage(checkpoint, torch.device("cpu"), modules=["ablated"])
        change_protocol(self.stage, scales, True, True)
        self.indices = np.array(table.indices, np.uint8)
        self.shares = log_shares(masks, trained, table.indices)

    @torch.no_grad()
    def confusions(self, photos: Path, truth: Path, name: str) -> Counts:
        """Confusions of a photo: protocols x leans x C x (C + 1)."""
        stage, scales = self.stage, self.stage.testing.scales
        image = torch.from_numpy(read_image(photos / f"{name}.jpg")).permute(2, 0, 1)[None]
        true = read_mask(truth / f"{name}.png")
        views = [stage.network(view)[-1] for view in scaled_views(image, scales, flip=True)]
        alone = views[list(scales).index(1)][:1]
        every = torch.ones(1, len(self.indices), dtype=torch.bool)
        found = []
        for (given, scaled, flip), lean in product(((views, scales, True), ([alone], (1.0,), False)), LEANS):
            logits = iter([view + lean * self.shares for view in given])
            p = multi_scale_probabilities(lambda _, logits=logits: next(logits), image, scaled, flip)
            if flip:
                assert stage.test_crf is not None
                p = stage.test_crf(image, p, every)
            mask = self.indices[present_argmax(p, every)[0].numpy()]
            found.append(confusion_matrix(mask, true, len(VOC_CLASSES)))
        return np.stack(found).reshape(len(PROTOCOLS), len(LEANS), *found[0].shape)

    def of_all(self, photos: Path, truth: Path, names: Sequence[str]) -> Counts:
        """Confusions of all photos: protocols x leans x images x C x (C + 1)."""
        made = on_cores(partial(self.confusions, photos, truth), names)
        return np.stack([counts for counts, _ in zip(made, Progress(names, "lean", unit="image"), strict=True)], axis=2)


@dataclass(frozen=True)
class Fold:
    """Photos that are scored with the lean that is best on others, as positions among all."""

    others: Sequence[int]
    scored: Sequence[int]

    def best(self, seeds: Sequence[Counts]) -> float:
        """The lean that is best on the others."""
        return max(LEANS, key=lambda lean: miou(at_lean(seeds, lean, self.others)))


def folds_of(others: int, split: int) -> list[Fold]:
    """One of all, or two halves of the split if there are no others, which come first among the photos."""
    if others:
        return [Fold(range(others), range(others, others + split))]
    first, second = range(0, split, 2), range(1, split, 2)
    return [Fold(second, first), Fold(first, second)]


def at_lean(seeds: Sequence[Counts], lean: float, photos: Sequence[int]) -> list[Counts]:
    """Confusions of some photos with a lean."""
    return [counts[LEANS.index(lean), photos] for counts in seeds]


def scored(seeds: Sequence[Counts], folds: Sequence[Fold], leans: Sequence[float]) -> list[Counts]:
    """Confusions of every fold with a lean of its own."""
    parts = [at_lean(seeds, lean, fold.scored) for fold, lean in zip(folds, leans, strict=True)]
    return [np.concatenate(of_seed) for of_seed in zip(*parts, strict=True)]


def miou(seeds: Sequence[Counts]) -> float:
    """Mean over the seeds."""
    return float(pooled(seeds).mean())


def table(models: Sequence[str], found: Found, folds: Sequence[Fold]) -> list[dict[str, Any]]:
    """Rows of every model: without a lean, and by lean; with the best on others, and these by lean."""
    rows = []
    last, none = models[-1], [0.0] * len(folds)
    best = {key: [fold.best(seeds) for fold in folds] for key, seeds in found.items()}
    for model, tuned in product(models, (False, True)):
        row: dict[str, Any] = {"model": model, "lean": "best on others" if tuned else "none"}
        for title in PROTOCOLS:
            seeds = found[model, title]
            leans, theirs = (best[name, title] if tuned else none for name in (model, last))
            made = scored(seeds, folds, leans)
            row[title] = mean_and_spread(made) + (f" ({', '.join(f'{lean:g}' for lean in leans)})" if tuned else "")
            pixels = np.sum([counts.sum(0) for counts in made], axis=0)
            row[f"{title}, background"] = f"{100 * pixels[:, 0].sum() / pixels.sum():.1f} %"
            if model != last:
                row[f"{title}, {last} over it"] = gain(scored(found[last, title], folds, theirs), made)
            if model != last and tuned:
                row[f"{title}, {last} without one over it"] = gain(scored(found[last, title], folds, none), made)
            if tuned:
                row[f"{title}, others by lean"] = "; ".join(curve(seeds, fold.others) for fold in folds)
            else:
                row[f"{title}, by lean"] = curve(seeds, all_scored(folds))
        rows.append(row)
    return rows


def mean_and_spread(seeds: Sequence[Counts]) -> str:
    """The mIoU, as a table shows it."""
    scores = pooled(seeds)
    return f"{scores.mean():.2f}" + (f" ± {scores.std(ddof=1):.2f}" if len(scores) > 1 else "")


def gain(ours: Sequence[Counts], theirs: Sequence[Counts]) -> str:
    """A difference and its interval, as a table shows them."""
    mean, low, high = difference(ours, theirs)
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def by_lean(seeds: Sequence[Counts], photos: Sequence[int]) -> list[float]:
    """The mean over the seeds, for every lean."""
    return [miou(at_lean(seeds, lean, photos)) for lean in LEANS]


def curve(seeds: Sequence[Counts], photos: Sequence[int]) -> str:
    """The same, as a table shows it."""
    return ", ".join(f"{value:.2f}" for value in by_lean(seeds, photos))


def all_scored(folds: Sequence[Fold]) -> list[int]:
    """The photos of all folds."""
    return [number for fold in folds for number in fold.scored]


def plot(models: Sequence[str], found: Found, folds: Sequence[Fold], path: Path) -> None:
    """Scores of every model by lean, one picture a protocol."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots(1, len(PROTOCOLS))
    for axis, title in zip(axes, PROTOCOLS, strict=True):
        for model, colour in zip(models, COLOURS, strict=False):
            scores = by_lean(found[model, title], all_scored(folds))
            axis.plot(LEANS, scores, "o-", color=colour, label=model, markersize=4)
        axis.set(title=title, xlabel="lean", ylabel="mIoU, %")
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Tune and score every model, and print the table."""
    options = arguments()
    trained, split = (read_list(path) for path in (options.trained, options.split))
    others = read_list(options.others) if options.others else []
    if set(others) & {*split, *trained}:
        raise InputError(
            f"expected photos that are in neither --split nor --trained, found some of them in {options.others}."
        )
    models = [folder.name for folder in options.models]
    found: dict[tuple[str, str], list[Counts]] = {}
    for folder, seed in product(options.models, options.seeds):
        model = Model(folder / f"seed{seed}/checkpoints/last.ckpt", options.masks, trained, options.scales)
        counts = model.of_all(options.photos, options.truth, [*others, *split])
        for number, title in enumerate(PROTOCOLS):
            found.setdefault((folder.name, title), []).append(counts[number])
    folds = folds_of(len(others), len(split))
    title = f"mIoU of {len(split)} photos, {len(options.seeds)} seeds; leans {', '.join(map(str, LEANS))}"
    report(title, table(models, found, folds), options)
    if options.plot:
        plot(models, found, folds, options.plot)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="folders that hold seed0, seed1, ...")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--masks", type=Path, required=True, help="what the models learnt from")
    parser.add_argument("--trained", type=Path, required=True, help="list of the photos they learnt from")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--split", type=Path, required=True, help="list of the photos that are scored")
    parser.add_argument("--others", type=Path, help="list of the photos that leans are chosen on")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.5, 0.75, 1.0, 1.25, 1.5])
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--plot", type=Path, help="file for the picture")
    options = parser.parse_args()
    if 1 not in options.scales:
        parser.error("expected 1 among --scales")
    if len({folder.name for folder in options.models}) < len(options.models):
        parser.error("expected another last name for each of --models")
    return options


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"lean: {error}")
