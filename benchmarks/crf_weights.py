r"""Static refinement under other weights of the dense CRF (the paper's Fig. 6): K, A and m_D0 for each pair of weights.

    python benchmarks/crf_weights.py --root VOCdevkit --labels cls_labels.npy --truth SegmentationClassAug \
        --out runs/claims --json crf_weights.json --plot crf_weights.png

--out holds a finished run up to the activation maps (of `ssdd run` or of claims.py), or with `--knowledge random_walk`
up to their random walk. For each pair a CRF makes the advice, and a static stage is trained on it; what is finished is
kept. Biases and everything else are the experiment's. With `--once` no stage is trained: the run's own, which learnt
from the CRF of its YAML, sees the advice of every pair. That takes a tenth of the time and says less: DD-Net predicts
the changes of one CRF and meets those of others.
"""

import argparse
from itertools import product
from pathlib import Path

from machine import report
from paired_bootstrap import confusions, mious
from tables import Row

from ssdd_lightning.errors import InputError
from ssdd_lightning.evaluation.chart import COLOURS
from ssdd_lightning.folders.merge import MergeFolders
from ssdd_lightning.folders.sweep import sweep_biases
from ssdd_lightning.pipeline.config import parse_settings
from ssdd_lightning.pipeline.photos import GivenData
from ssdd_lightning.pipeline.run import SOURCES, Pipeline, Refined, RunOptions
from ssdd_lightning.pipeline.steps import CRFStep


def main() -> None:
    """Train what is missing, print the table, write the JSON and the plot."""
    options = arguments()
    data = GivenData(options.root, options.labels, options.truth)
    refined, settings = Refined(options.knowledge), parse_settings(options.set)
    pipeline = Pipeline(RunOptions(options.experiment, options.out, data, refined=refined, settings=settings))
    if not pipeline.knowledge.is_dir():
        raise InputError(f"{pipeline.knowledge} is missing; run the experiment up to its knowledge first.")
    pairs = product(options.w_g, options.w_rgb)
    rows = [refine(pipeline, appearance, smoothness, options.once) for smoothness, appearance in pairs]
    report("static refinement by the weights of the CRF, mIoU on the seeds' split", rows, options)
    if options.plot:
        plot(rows, options.plot)


def refine(pipeline: Pipeline, appearance: float, smoothness: float, once: bool) -> Row:
    """Make advice and seed masks with a pair of weights, and score them."""
    home = pipeline.refined / "crf_weights" / f"rgb{appearance:g}_g{smoothness:g}"
    given = pipeline.content("static")["model"]["init_args"].get("crf") or {}
    crf = {**given, "bilateral_compat": appearance, "gaussian_compat": smoothness}
    advice = home / "advice"
    CRFStep(str(advice), advice, (), pipeline.photos.images, pipeline.knowledge, crf).run()
    guides = {"data.knowledge": str(pipeline.knowledge), "data.advice": str(advice)}
    split = {"data.splits.predict": pipeline.seed_split}
    if not once:
        pipeline.fit("static", home, guides).run()
    trained = pipeline.refined if once else home
    masks = pipeline.predict("static", trained, home / "predictions", {**guides, **split})
    masks.run()
    truth, names = pipeline.photos.truth, pipeline.scored(pipeline.seed_split)
    assert truth is not None
    found = sweep_biases(MergeFolders(pipeline.knowledge, advice, masks.folder), truth, names, [0.0], [0.0], [0.0])
    merged = float(mious(confusions(masks.folder, truth, names).sum(0).astype(float)))
    return {
        "w_g": smoothness,
        "w_rgb": appearance,
        "K": 100 * found.knowledge,
        "A": 100 * found.advice,
        "m_D0": merged,
        "oracle": 100 * found.oracle,
        "over the better input": merged - 100 * max(found.knowledge, found.advice),
        "AUC of w": found.auc["w"],
    }


def plot(rows: list[Row], path: Path) -> None:
    """The three masks over w_rgb, one line style a w_g."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for style, smoothness in zip(("-", "--", ":"), sorted({row["w_g"] for row in rows}), strict=False):
        chosen = [row for row in rows if row["w_g"] == smoothness]
        for what, colour in zip(("K", "A", "m_D0"), COLOURS, strict=False):
            values = [row[what] for row in chosen]
            label = f"{what}, w_g {smoothness:g}"
            axes.plot([row["w_rgb"] for row in chosen], values, f"o{style}", color=colour, label=label, markersize=4)
    axes.set(xlabel="w_rgb", ylabel="mIoU, %", xscale="log")
    ticks = sorted({row["w_rgb"] for row in rows})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, default=Path("voc2012_animals"))
    parser.add_argument("--root", type=Path, required=True, help="folder that holds the devkit")
    parser.add_argument("--labels", type=Path, help="file of image-level labels")
    parser.add_argument("--truth", default="SegmentationClass", help="folder of ground truth in the devkit")
    parser.add_argument("--out", type=Path, required=True, help="the run")
    parser.add_argument("--knowledge", choices=SOURCES, default="cam", help="what is refined")
    parser.add_argument("--w_rgb", type=float, nargs="+", default=[1, 3, 10, 20], help="bilateral_compat")
    parser.add_argument("--w_g", type=float, nargs="+", default=[1, 3], help="gaussian_compat")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option for every stage")
    parser.add_argument("--once", action="store_true", help="merge with the run's own static stage")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--plot", type=Path, help="file for the picture")
    return parser.parse_args()


if __name__ == "__main__":
    main()
