r"""How much of a difference between models is only how far each leans to background, which a constant can change.

    python benchmarks/lean.py --models runs/short/models/longer runs/short/models/pixel_mean_longer \
        runs/short/models/dynamic --seeds 0 1 2 --masks runs/short/static/predictions --trained runs/short/half.txt \
        --photos VOCdevkit/VOC2012/JPEGImages --truth VOCdevkit/VOC2012/SegmentationClassAug \
        --split val.txt --others held_out.txt --scales 0.75 1 1.25 --json lean.json

A lean is added to the logits at test: so much of the log of each class's share in the masks that the models learnt from
(`refinement.prior` of the dynamic stage does the same while it trains). For each model and testing protocol, the lean
that is best on --others with the first seed is the one that --split is scored with, with every seed. So every model is
tuned alike, and on other photos. The last of --models is the one that the others are compared with.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from claims import difference, pooled
from machine import report
from torch import Tensor

from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.data.splits import read_list
from ssdd_lightning.errors import InputError
from ssdd_lightning.folders.cores import on_cores
from ssdd_lightning.folders.segment_checkpoint import change_protocol, load_stage
from ssdd_lightning.functional.refinement import present_argmax
from ssdd_lightning.metrics.confusion import confusion_matrix
from ssdd_lightning.nn.inference import multi_scale_probabilities, scaled_views
from ssdd_lightning.stages.dynamic import log_of_shares
from ssdd_lightning.storage.masks import read_image, read_mask
from ssdd_lightning.storage.progress import Progress

LEANS = (-0.5, -0.25, 0.0, 0.25, 0.5)
PROTOCOLS = "protocol", "no CRF, one scale"
Counts = npt.NDArray[np.int64]
Leans = tuple[Sequence[float], Sequence[float]]
"""For each protocol."""


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
    def confusions(self, photos: Path, truth: Path, leans: Leans, name: str) -> list[Counts]:
        """Confusions of a photo with some leans, for each protocol: leans x C x (C + 1)."""
        stage, scales = self.stage, self.stage.testing.scales
        image = torch.from_numpy(read_image(photos / f"{name}.jpg")).permute(2, 0, 1)[None]
        true = read_mask(truth / f"{name}.png")
        views = [stage.network(view)[-1] for view in scaled_views(image, scales, flip=True)]
        alone = views[list(scales).index(1)][:1]
        every = torch.ones(1, len(self.indices), dtype=torch.bool)
        found = []
        for given, scaled, flip, tried in ((views, scales, True, leans[0]), ([alone], (1.0,), False, leans[1])):
            made = []
            for lean in tried:
                logits = iter([view + lean * self.shares for view in given])
                p = multi_scale_probabilities(lambda _, logits=logits: next(logits), image, scaled, flip)
                if flip:
                    assert stage.test_crf is not None
                    p = stage.test_crf(image, p, every)
                mask = self.indices[present_argmax(p, every)[0].numpy()]
                made.append(confusion_matrix(mask, true, len(VOC_CLASSES)))
            found.append(np.stack(made))
        return found

    def of_all(self, photos: Path, truth: Path, leans: Leans, names: Sequence[str]) -> list[dict[float, Counts]]:
        """For each protocol: lean -> confusions of all photos, images x C x (C + 1)."""
        made = on_cores(partial(self.confusions, photos, truth, leans), names)
        each = [counts for counts, _ in zip(made, Progress(names, "lean", unit="image"), strict=True)]
        return [
            dict(zip(tried, np.stack([counts[number] for counts in each], axis=1), strict=True))
            for number, tried in enumerate(leans)
        ]


def table(
    models: Sequence[str],
    chosen: Mapping[tuple[str, int], float],
    scored: Mapping[tuple[str, int], Sequence[Mapping[float, Counts]]],
) -> list[dict[str, Any]]:
    """One row a model without and one with the lean of each protocol; `scored` has the counts of every seed by lean."""
    rows = []
    for model, tuned in product(models, (False, True)):
        row: dict[str, Any] = {"model": model, "lean": "best on the others" if tuned else "none"}
        for number, title in enumerate(PROTOCOLS):
            seeds, reference = (
                [counts[chosen[name, number] if tuned else 0.0] for counts in scored[name, number]]
                for name in (model, models[-1])
            )
            scores = pooled(seeds)
            spread = f" ± {scores.std(ddof=1):.2f}" if len(scores) > 1 else ""
            row[title] = f"{scores.mean():.2f}{spread}" + (f" ({chosen[model, number]:g})" if tuned else "")
            pixels = np.sum([counts.sum(0) for counts in seeds], axis=0)
            row[f"{title}, background"] = f"{100 * pixels[:, 0].sum() / pixels.sum():.1f} %"
            if model != models[-1]:
                mean, low, high = difference(reference, seeds)
                row[f"{title}, {models[-1]} over it"] = f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"
        rows.append(row)
    return rows


def main() -> None:
    """Tune and score every model, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="folders that hold seed0, seed1, ...")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--masks", type=Path, required=True, help="what the models learnt from")
    parser.add_argument("--trained", type=Path, required=True, help="list of the photos they learnt from")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--others", type=Path, required=True)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.5, 0.75, 1.0, 1.25, 1.5])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    trained, split, others = (read_list(path) for path in (options.trained, options.split, options.others))
    if 1 not in options.scales or len({folder.name for folder in options.models}) < len(options.models):
        parser.error("expected 1 among --scales, and another last name for each of --models")
    if set(others) & {*split, *trained}:
        parser.error("--others: expected photos that are in neither --split nor --trained")
    chosen: dict[tuple[str, int], float] = {}
    scored: dict[tuple[str, int], list[Mapping[float, Counts]]] = {}
    tried: dict[tuple[str, str], str] = {}
    for folder, seed in product(options.models, options.seeds):
        name = folder.name
        model = Model(folder / f"seed{seed}/checkpoints/last.ckpt", options.masks, trained, options.scales)
        score = partial(model.of_all, options.photos, options.truth)
        if (name, 0) not in chosen:
            for number, found in enumerate(score((LEANS, LEANS), others)):
                by_lean = {lean: float(pooled([counts])[0]) for lean, counts in found.items()}
                tried[name, PROTOCOLS[number]] = ", ".join(f"{miou:.2f}" for miou in by_lean.values())
                chosen[name, number] = max(by_lean, key=lambda lean: by_lean[lean])
        first, second = (sorted({0.0, chosen[name, number]}) for number in range(len(PROTOCOLS)))
        for number, counts in enumerate(score((first, second), split)):
            scored.setdefault((name, number), []).append(counts)
    rows = table([folder.name for folder in options.models], chosen, scored)
    for row in rows[1::2]:
        row |= {f"{title}, others by lean": tried[row["model"], title] for title in PROTOCOLS}
    report(
        f"mIoU of {len(split)} photos, {len(options.seeds)} seeds; leans {', '.join(map(str, LEANS))}", rows, options
    )


if __name__ == "__main__":
    main()
