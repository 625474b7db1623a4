r"""What the method is worth: every row of the comparison on real photos, from photos and image-level labels alone.

    python benchmarks/claims.py --root VOCdevkit --labels cls_labels.npy --truth SegmentationClassAug --out runs/claims
    python benchmarks/claims.py --root VOCdevkit --labels cls_labels.npy --truth SegmentationClassAug --out runs/short \
        --short

It runs the experiment up to its seed masks, trains and tests every row with every seed, and prints the tables:
mean and spread over the seeds, the share of full supervision, and the difference to plain training on m_D0 with its
95 % interval over the images. Finished work is kept, and an interrupted run goes on.

Training has two parts. In the first, a plain model is trained on each kind of mask. In the second, each goes on from
there, as long and at the rates as the YAML of the dynamic stage says: plain on its masks, or dynamic from the plain
model on m_D0. So the rows that are compared (those that "go on", the dynamic ones) have the same network, start, loss,
steps, rates, augmentation, optimizer and testing protocol; only the labels they learn from differ.

A model of the first part is tested only if its row is asked for. The ablations (`--rows frozen random_choice ...`)
are dynamic rows with other options.

Nothing is redone silently: a result whose recorded settings or inputs differ from today's is refused.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from paired_bootstrap import confusions, difference, ious, pooled
from tables import print_table

from ssdd_lightning.constants import WEIGHT_OPTIONS
from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.config import parse_settings
from ssdd_lightning.pipeline.photos import GivenData
from ssdd_lightning.pipeline.provenance import git_revision
from ssdd_lightning.pipeline.run import SEEDS, Chosen, Pipeline, RunOptions, run_experiment
from ssdd_lightning.pipeline.steps import Step

REFERENCE = "longer"
"""Row that the others are compared with, unless --than names another."""
FULL = "truth_longer"
"""Row of which the others' shares are given."""
ARGUMENTS = "model.init_args."
SHORT = {f"{ARGUMENTS}testing.scales": [0.75, 1.0, 1.25]}
"""What --short changes in the models, beside taking half of the photos in all stages, ..."""
SHORT_EPOCHS = 8
"""and the epochs of the first part."""
THRICE, FORTY = 9, 120
"""Epochs of the second part in the rows that have three and forty times as many as the YAML of voc2012_animals; the
latter are for a GPU."""
PIXEL_MEAN = {f"{ARGUMENTS}per_class_loss": False}
"""What L_seg is in the authors' code."""


def adamw(learning_rate: float) -> dict[str, Any]:
    """AdamW with a tenth of SGD's rates, and the weight decay of voc2012_modern, which spares biases from it."""
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"weight_decay": 0.05}}
    given = {"learning_rate": learning_rate, "new_learning_rate": 10 * learning_rate, "optimizer": optimizer}
    return {f"{ARGUMENTS}optimization.{key}": value for key, value in given.items()}


PAPER_GAINS = {"bg": 0.8, "cat": 11.9, "cow": 17.7, "dog": 3.7, "horse": 15.0, "person": -4.1, "sheep": 13.3}
"""The paper's gains over PSA on VOC's val, in points of IoU (Table 1)."""
Found = Mapping[tuple[str, str], Mapping[int, npt.NDArray[np.int64]]]
"""By row and folder of masks ("test", "no_crf"), then by seed: images x C x (C + 1) confusions."""


@dataclass(frozen=True)
class Row:
    """A model of the comparison.

    Args:
        what: What the table calls it.
        masks: Folder of the masks it learns from, in the run; "" for the ground truth.
        start: The row that it goes on from, with the same seed; "" for the first part of the training.
        stage: The stage that is trained.
        settings: What differs from the stage's YAML.
        ablation: Whether it is only run if it is named.
    """

    what: str
    masks: str = SEEDS
    start: str = ""
    stage: str = "baseline"
    settings: Mapping[str, Any] = field(default_factory=dict)
    ablation: bool = False


def going_on(what: str, stage: str, epochs: int) -> Row:
    """A model that goes on for longer."""
    return Row(what, start="seeds", stage=stage, settings={"trainer.max_epochs": epochs}, ablation=True)


def other_stage(what: str, name: str) -> Row:
    """A dynamic model of a stage in ablated.py."""
    return Row(what, start="seeds", stage="dynamic", settings={"model.class_path": f"ablated.{name}"}, ablation=True)


def ablation(what: str, **settings: Any) -> Row:
    """A dynamic model with other arguments, __ for a dot."""
    given = {f"{ARGUMENTS}{key.replace('__', '.')}": value for key, value in settings.items()}
    return Row(what, start="seeds", stage="dynamic", settings=given, ablation=True)


ROWS = {
    "knowledge": Row("plain training on K", "knowledge"),
    "knowledge_longer": Row("plain training on K, goes on", "knowledge", "knowledge"),
    "advice": Row("plain training on A", "advice"),
    "advice_longer": Row("plain training on A, goes on", "advice", "advice"),
    "seeds": Row("plain training on m_D0"),
    REFERENCE: Row("plain training on m_D0, goes on", start="seeds"),
    "dynamic": Row("dynamic SSDD", start="seeds", stage="dynamic"),
    "truth": Row("full supervision", ""),
    FULL: Row("full supervision, goes on", "", "truth"),
    "longer_thrice": going_on("plain training on m_D0, goes on three times as long", "baseline", THRICE),
    "dynamic_thrice": going_on("dynamic SSDD, three times as long", "dynamic", THRICE),
    "longer_forty": going_on("plain training on m_D0, goes on forty times as long", "baseline", FORTY),
    "dynamic_forty": going_on("dynamic SSDD, forty times as long", "dynamic", FORTY),
    "frozen": ablation("DD-Nets stay as the static stage left them", refinement__train_ddnets=False),
    "frozen_0.1": ablation(
        "DD-Nets stay, b_dd 0.1", refinement__train_ddnets=False, ssdd__init_args__biases__dd_bias=0.1
    ),
    "frozen_weak_prior": ablation(
        "DD-Nets stay, b_dd 0.1, prior 0.25",
        refinement__train_ddnets=False,
        refinement__prior=0.25,
        ssdd__init_args__biases__dd_bias=0.1,
    ),
    "paper": ablation(
        "the paper's b_class, CRF and prior",
        ssdd__init_args__biases__class_bias=1.0,
        refinement__crf_weight=1.0,
        refinement__prior=0.0,
    ),
    "full_crf": ablation("CRF of full weight (paper)", refinement__crf_weight=1.0),
    "no_prior": ablation("no prior (paper)", refinement__prior=0.0),
    "everywhere": ablation("the advice everywhere: D2 = D1 = A1", ssdd__init_args__biases__dd_bias=2.0),
    "first_module_alone": other_stage("the first module alone: D2 = D1", "FirstModuleAlone"),
    "second_stays": other_stage("the second DD-Net stays as the static stage left it", "SecondModuleStays"),
    "averaged_knowledge": other_stage("K1 from averaged weights, without dropout", "AveragedKnowledge"),
    "ramped_bias": other_stage("b_dd grows from -1 within half of the steps", "RampedBias"),
    "guarded_knowledge": other_stage("D1 = K1 where more than half of a batch are bad samples", "GuardedKnowledge"),
    "random_choice": ablation("random choice", ssdd__class_path="ablated.RandomChoice"),
    "fixed_threshold": ablation("no threshold by d_A", ssdd__class_path="ablated.FixedThreshold"),
    "bad_samples_kept": ablation("bad samples kept", ssdd__class_path="ablated.BadSamplesKept"),
    "pixel_mean_seeds": Row("plain training on m_D0, pixel mean in L_seg", settings=PIXEL_MEAN, ablation=True),
    "pixel_mean_longer": Row(
        "plain training, pixel mean, goes on", start="pixel_mean_seeds", settings=PIXEL_MEAN, ablation=True
    ),
    "pixel_mean": Row(
        "dynamic SSDD, pixel mean in L_seg, no prior",
        start="pixel_mean_seeds",
        stage="dynamic",
        settings={**PIXEL_MEAN, f"{ARGUMENTS}refinement.prior": 0.0},
        ablation=True,
    ),
    "adamw_seeds": Row("plain training on m_D0, AdamW", settings=adamw(1e-4), ablation=True),
    "adamw_longer": Row("plain training, AdamW, goes on", start="adamw_seeds", settings=adamw(3e-5), ablation=True),
    "adamw": Row("dynamic SSDD, AdamW", start="adamw_seeds", stage="dynamic", settings=adamw(3e-5), ablation=True),
    "adamw_then_sgd_longer": Row("plain training, AdamW, goes on with SGD", start="adamw_seeds", ablation=True),
    "adamw_then_sgd": Row("dynamic SSDD with SGD, from AdamW", start="adamw_seeds", stage="dynamic", ablation=True),
    **{f"b_dd_{v:g}": ablation(f"b_dd {v:g}", ssdd__init_args__biases__dd_bias=v) for v in (0.0, 0.2)},
    **{f"b_class_{v:g}": ablation(f"b_class {v:g}", ssdd__init_args__biases__class_bias=v) for v in (0.5, 1.0, 2.0)},
    **{f"alpha_{v:g}": ablation(f"alpha {v:g}", refinement__alpha=v) for v in (0.0, 0.25, 0.75, 1.0)},
}


class Claims:
    """The steps of every row and seed.

    Args:
        options: The run that makes the seed masks.
        short: Whether the run is the reduced one.
    """

    def __init__(self, options: RunOptions, short: bool) -> None:
        self.options = replace(options, chosen=Chosen(last=SEEDS))
        self.short = short
        self.pipeline = Pipeline(self.options)

    def seeds_made(self) -> list[dict[str, Any]]:
        """Make the seed masks, unless they are there, and return the scores of K, A and m_D0."""
        for step in self.pipeline.chosen:
            if step.made:
                refuse_other(step)
        return run_experiment(self.options)

    def steps(self, name: str, seed: int) -> tuple[Step, Step]:
        """Fit and test of a row with a seed."""
        row, pipeline = ROWS[name], self.pipeline
        masks = pipeline.out / row.masks if row.masks else pipeline.photos.truth
        root = pipeline.out / "models" / name
        settings = {
            "seed_everything": seed,
            "data.knowledge": str(masks),
            **(SHORT if self.short else {}),
            **({"trainer.max_epochs": SHORT_EPOCHS} if self.short and not row.start else {}),
        }
        if row.start:
            static = pipeline.refined / "static" / "checkpoints" / "last.ckpt"
            start = pipeline.out / "models" / row.start / f"seed{seed}" / "checkpoints" / "last.ckpt"
            settings |= (
                {f"{ARGUMENTS}network_checkpoint": str(start), f"{ARGUMENTS}static_checkpoint": str(static)}
                if row.stage == "dynamic"
                else pipeline.going_on(start)
            )
        settings |= row.settings
        stage = {key: value for key, value in settings.items() if key == "model.class_path"}
        fit = pipeline.fit(row.stage, root, {**self.kept(row), **settings}, f"seed{seed}")
        tested = {**(self.kept(row) if stage else {}), **stage, **(SHORT if self.short else {})}
        (test,) = pipeline.test(row.stage, root, f"seed{seed}", tested)
        return fit, test

    def kept(self, row: Row) -> dict[str, Any]:
        """The YAML's arguments of a class in whose place a row has another, which would lose them."""
        model = self.pipeline.content(row.stage)["model"]
        parts = {"model": model, f"{ARGUMENTS}ssdd": (model.get("init_args") or {}).get("ssdd") or {}}
        return {
            f"{part}.init_args.{key}": value
            for part, given in parts.items()
            if f"{part}.class_path" in row.settings
            for key, value in given.get("init_args", {}).items()
            if key not in WEIGHT_OPTIONS
        }

    def run(self, name: str, seed: int, tested: bool) -> None:
        """Train a row with a seed and, if asked for, test it, unless it is done."""
        fit, test = self.steps(name, seed)
        for step in (fit, test) if tested else (fit,):
            print(f"== {step.command} {step.name}", flush=True)
            refuse_other(step)
            step.run()
        if not tested:
            return
        plain = fit.folder / "no_crf"
        words = [str(fit.folder / "checkpoints" / "last.ckpt"), *map(str, self.photos()), f"--out={plain}"]
        segment = [sys.executable, "-m", "ssdd_lightning", "segment", *words, "--scales=1", "--no-flip", "--no-crf"]
        here = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
        subprocess.run([*segment, "--import=ablated"], check=True, env={**os.environ, "PYTHONPATH": here})

    def photos(self) -> list[Path]:
        """The photos that models are scored on."""
        split = self.pipeline.photos.split(self.pipeline.content("baseline")["data"], "test")
        return [self.pipeline.photos.images / f"{name}.jpg" for name in self.pipeline.scored(split)]

    def found(self, seeds: Sequence[int]) -> Found:
        """Confusions of everything that is finished."""
        truth, names = self.pipeline.photos.truth, [path.stem for path in self.photos()]
        assert truth is not None
        found = {}
        for name, folder in product(ROWS, ("test", "no_crf")):
            steps = {seed: self.steps(name, seed) for seed in seeds}
            paths = {seed: fit.folder / folder for seed, (fit, _) in steps.items()}
            there = {seed: path for seed, path in paths.items() if len(list(path.glob("*.png"))) >= len(names)}
            for step in (step for seed in there for step in steps[seed]):
                refuse_other(step)
            if there:
                found[name, folder] = {seed: confusions(path, truth, names) for seed, path in there.items()}
        return found

    def table(self, found: Found, seeds: Sequence[int], ablations: bool, than: str) -> list[dict[str, Any]]:
        """One row a model, or one an ablation: scores of every seed with and without CRF, against the row `than`."""
        rows = []
        for name in ROWS:
            if (name, "test") in found and ROWS[name].ablation == ablations:
                shown = {"model": ROWS[name].what, "seeds": len(found[name, "test"])}
                for folder, title in (("test", "protocol"), ("no_crf", "no CRF, one scale")):
                    shown |= compared(found, name, folder, title, than)
                fits = [self.steps(name, seed)[0] for seed in seeds]
                shown["minutes a fit"] = float(np.mean([f.seconds / 60 for f in fits if f.made]))
                rows.append(shown)
        return rows


def class_table(found: Found, than: str) -> list[dict[str, Any]]:
    """One row a class: the mean IoU over the seeds under the protocol, the gain over `than`, and the paper's."""
    tested = {name: made for (name, f), made in found.items() if f == "test" and not ROWS[name].ablation}
    means = {name: np.mean([ious(c.sum(0)) for c in made.values()], axis=0) for name, made in tested.items()}
    indices = [index for index in range(len(VOC_CLASSES)) if all(np.isfinite(m[index]) for m in means.values())]
    rows = []
    for index in indices:
        label = "bg" if index == 0 else VOC_CLASSES[index]
        row: dict[str, Any] = {"class": label, **{ROWS[name].what: float(m[index]) for name, m in means.items()}}
        if {than, "dynamic"} <= means.keys():
            row["gain"] = float(means["dynamic"][index] - means[than][index])
            row["the paper's gain over PSA"] = PAPER_GAINS.get(label, "")
        rows.append(row)
    return rows


def compared(found: Found, name: str, folder: str, title: str, than: str) -> dict[str, Any]:
    """Columns of one testing protocol: mean and spread, share, and difference and its interval over common seeds.

    If it is of several seeds, that of each seed stands behind it.
    """
    if (name, folder) not in found:
        return {}
    mine = found[name, folder]
    scores = pooled(list(mine.values()))
    columns: dict[str, Any] = {
        title: f"{scores.mean():.2f}" + (f" ± {scores.std(ddof=1):.2f}" if len(scores) > 1 else "")
    }
    ours, theirs = common(mine, found.get((FULL, folder), {}))
    if ours:
        columns[f"{title}, share"] = f"{100 * pooled(ours).mean() / pooled(theirs).mean():.1f} %"
    ours, theirs = common(mine, found.get((than, folder), {}))
    if ours and name != than:
        mean, low, high = difference(ours, theirs)
        each = ", ".join(f"{gain:+.2f}" for gain in pooled(ours) - pooled(theirs)) if len(ours) > 1 else ""
        columns[f"{title}, difference"] = f"{mean:+.2f} ({low:+.2f} to {high:+.2f})" + (f": {each}" if each else "")
    return columns


def common(ours: Mapping[int, Any], theirs: Mapping[int, Any]) -> tuple[list[Any], list[Any]]:
    """What two rows have of the seeds that both have."""
    seeds = sorted(ours.keys() & theirs.keys())
    return [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]


def refuse_other(step: Step) -> None:
    """Refuse a result that was made with other settings or inputs than today's.

    Raises:
        InputError: It was.
    """
    if step.made and (changed := step.ledger().difference):
        raise InputError(
            f"{step.folder} holds a result of other settings ({changed}); expected today's, or give another --out."
        )


def halved(pipeline: Pipeline, out: Path) -> dict[str, Any]:
    """Half of the training photos, those of the scored split among them, as settings; the list lies in the run."""
    names = [
        record.name for record in pipeline.records(pipeline.photos.split(pipeline.content("static")["data"], "train"))
    ]
    scored = set(pipeline.scored(pipeline.seed_split))
    path = out / "half.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = [*(name for name in names if name in scored), *(name for name in names if name not in scored)]
    path.write_text("\n".join(sorted(chosen[: max(len(names) // 2, len(scored))])) + "\n")
    return {"data.splits.train": str(path), "data.splits.predict": str(path)}


def main() -> int:
    """Run what is missing, and print and store the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, default=Path("voc2012_animals"))
    parser.add_argument("--root", type=Path, required=True, help="folder that holds the devkit")
    parser.add_argument("--labels", type=Path, help="file of image-level labels")
    parser.add_argument("--truth", default="SegmentationClass", help="folder of ground truth in the devkit")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 2, with --short 0")
    parser.add_argument(
        "--rows", choices=ROWS, nargs="+", help=f"default: all but the ablations; --short: {REFERENCE} dynamic"
    )
    parser.add_argument("--jobs", type=int, default=1, help="models trained at once, each with its share of the cores")
    parser.add_argument("--short", action="store_true", help="half of the photos, fewer steps, one seed, two rows")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option for every stage")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # the name and seed of a child's model
    parser.add_argument("--than", choices=ROWS, default=REFERENCE, help=f"row to compare with (default: {REFERENCE})")
    parser.add_argument("--report", action="store_true", help="only tables of what is finished")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs: expected at least 1, found {options.jobs}")
    seeds = options.seeds or ([0] if options.short else [0, 1, 2])
    rows = options.rows or ([REFERENCE, "dynamic"] if options.short else [n for n, r in ROWS.items() if not r.ablation])
    trained = [name for name in ROWS if name in rows or any(ROWS[other].start == name for other in rows)]
    data = GivenData(options.root, options.labels, options.truth)
    run = RunOptions(options.experiment, options.out, data, settings=parse_settings(options.set))
    if options.short:
        run = replace(run, settings={**halved(Pipeline(run), options.out), **run.settings})
    claims = Claims(run, options.short)
    if options.one:
        claims.run(options.one[0], int(options.one[1]), tested=options.one[0] in rows)
        return 0
    path = options.out / ("claims.json" if options.than == REFERENCE else f"claims_over_{options.than}.json")
    masks = kept_masks(options.out) if options.report else claims.seeds_made()
    threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
    for first in (True, False) if not options.report else ():
        pairs = product(seeds, [name for name in trained if (not ROWS[name].start) == first])
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda pair: alone(*pair, threads), pairs))
    found = claims.found(seeds)
    models, ablations = (claims.table(found, seeds, ablated, options.than) for ablated in (False, True))
    classes = class_table(found, options.than)
    if (options.than, "test") not in found:
        print(f"no differences: the row {options.than} has no finished model")
    print_table("models, mIoU", models)
    if ablations:
        print_table("ablations, mIoU", ablations)
    print_table("classes, IoU under the protocol", classes)
    shown = {
        "masks": masks,
        "than": options.than,
        "models": models,
        "ablations": ablations,
        "classes": classes,
        "provenance": provenance(claims, seeds, {name for name, _ in found}),
    }
    path.write_text(json.dumps(shown, indent=2))
    return 0


def kept_masks(out: Path) -> list[dict[str, Any]]:
    """Scores of the seed masks in the tables of the run that made them, for tables that make nothing."""
    path = out / "claims.json"
    kept: list[dict[str, Any]] = json.loads(path.read_text())["masks"] if path.is_file() else []
    return kept


def alone(seed: int, name: str, threads: str) -> None:
    """Run one model in a process of its own.

    Raises:
        InputError: It failed; the process said why.
    """
    words = [sys.executable, __file__, *sys.argv[1:], "--one", name, str(seed)]
    if subprocess.run(words, check=False, env={"OMP_NUM_THREADS": threads, **os.environ}).returncode:
        raise InputError(f"the row {name} with seed {seed} is not finished; repeat the command to go on.")


def provenance(claims: Claims, seeds: Sequence[int], rows: Collection[str]) -> dict[str, Any]:
    """What a reader must know to repeat the tables; every step's settings are in its own ledger entry."""
    packages = ("ssdd-lightning", "torch", "pytorch-lightning", "timm", "segmentation-models-pytorch")
    run, pipeline = claims.options, claims.pipeline
    content = pipeline.content("baseline")
    model = content["model"].get("init_args") or {}
    return {
        "command": sys.argv,
        "experiment": str(run.experiment),
        "settings": dict(run.settings),
        "seeds": list(seeds),
        "rows": {name: asdict(ROWS[name]) for name in ROWS if name in rows},
        "seed masks": f"seed 0, scored on {pipeline.seed_split}",
        "models": f"scored on {pipeline.photos.split(content['data'], 'test')}",
        "testing": SHORT if claims.short else model.get("testing"),
        "test CRF": model.get("crf") or "the default",
        "truth": run.data.truth,
        "image-level labels at test": False,
        "versions": {name: version(name) for name in packages},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "git": git_revision(Path(__file__).parent),
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"claims: {error}")
