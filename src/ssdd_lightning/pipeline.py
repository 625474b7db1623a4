"""`ssdd run`: all stages of an experiment folder in order, each step once, with a table and pictures at the end."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ssdd_lightning.data.files import atomic_write
from ssdd_lightning.errors import InputError
from ssdd_lightning.steps import run_step

BASELINES = {"knowledge": "knowledge", "advice": "advice", "seeds": "static/predictions"}
"""Masks that a plain segmentation network can be trained on, and where a run keeps them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd run`."""
    parser.add_argument(
        "experiment", type=Path, help="folder with classification.yaml, static.yaml, baseline.yaml and dynamic.yaml"
    )
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder that holds VOCdevkit/VOC2012")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for everything the run writes")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="image-level labels (default: Annotations/*.xml)")
    parser.add_argument("--truth", default="SegmentationClass", help="folder of true masks, for scoring only")
    parser.add_argument("--seed_split", default="train", help="split on which seed masks are scored (default: train)")
    parser.add_argument(
        "--baselines",
        nargs="*",
        choices=sorted(BASELINES),
        default=["seeds"],
        help="masks to train plain segmentation networks on (default: seeds)",
    )
    parser.add_argument(
        "--classifier_weights",
        help="weights the classifier starts from, as backbone_weights of the stages (default: YAML)",
    )
    parser.add_argument("--pictures", type=int, default=12, help="images to draw (default: 12)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option for every stage, such as trainer.max_epochs=1; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Run what has not been run, print the table, write `results.json` and `pictures/`.

    Returns:
        The exit status, 0.

    Raises:
        InputError: A file is missing or an option is wrong.
    """
    pipeline = Pipeline(args)
    pipeline.train_and_predict()
    rows = pipeline.scores()
    with atomic_write(args.out / "results.json") as stream:
        stream.write(json.dumps(rows, indent=2).encode())
    print(results_table(rows))
    folder = pipeline.draw(args.pictures)
    print(f"pictures: {folder}")
    return 0


@dataclass
class Pipeline:
    """One run of an experiment.

    Args:
        args: The parsed options of `ssdd run`.
    """

    args: argparse.Namespace

    def __post_init__(self) -> None:
        from ssdd_lightning.data.voc import VOCDataModule, find_devkit

        self.out: Path = self.args.out
        self.devkit = find_devkit(self.args.root)
        data = self.config("static").get("data", {})
        options = {"labels": self.args.labels, "truth": self.args.truth, "classes": data.get("classes")}
        self.data = VOCDataModule(self.args.root, **options)
        self.val_split = str(data.get("test_split", "val"))

    def config(self, stage: str) -> dict[str, Any]:
        """Read the YAML of a stage."""
        path = self.config_path(stage)
        content: dict[str, Any] = yaml.safe_load(path.read_text())
        return content

    def config_path(self, stage: str) -> Path:
        """Where the YAML of a stage lies."""
        path: Path = self.args.experiment / f"{stage}.yaml"
        if not path.is_file():
            raise InputError(
                f"the experiment folder {self.args.experiment} lacks {path.name}; expected one YAML a stage."
            )
        return path

    def train_and_predict(self) -> None:
        """Run every stage in the paper's order; the steps that were finished before are left alone."""
        knowledge, advice, seeds = self.out / "knowledge", self.out / "advice", self.out / BASELINES["seeds"]
        self.fit("classification", backbone_weights=self.args.classifier_weights)
        self.step("knowledge", lambda: self.predict("classification", f"--output.output_dir={knowledge}"))
        self.step("advice", lambda: self.crf(knowledge, advice))
        guides = (f"--data.knowledge={knowledge}", f"--data.advice={advice}")
        self.fit("static", *guides)
        self.step("seeds", lambda: self.predict("static", *guides))
        for source in self.args.baselines:
            given = f"--data.knowledge={self.out / BASELINES[source]}"
            self.fit("baseline", given, folder=f"baseline_{source}")
            self.step(f"test_baseline_{source}", lambda s=source: self.test("baseline", f"baseline_{s}"))  # type: ignore[misc]
        self.fit("dynamic", f"--data.knowledge={seeds}")
        self.step("test_dynamic", lambda: self.test("dynamic", "dynamic"))

    def step(self, name: str, action: Callable[[], object]) -> None:
        """Run a step of this run, once; see `run_step`."""
        run_step(self.out, name, action)

    def fit(self, stage: str, *options: str, folder: str | None = None, backbone_weights: str | None = None) -> None:
        """Train a stage, all but the classifier from the classifier's backbone; resumes an interrupted fit."""
        folder = folder or stage
        words = ["fit", *self.common(stage, folder), *options]
        if stage != "classification":
            backbone_weights = str(self.checkpoint("classification"))
        if backbone_weights is not None:
            words.append(f"--model.init_args.backbone_weights={backbone_weights}")
        last = self.checkpoint(folder)
        resume = [f"--ckpt_path={last}"] if last.is_file() else []
        self.step(f"fit_{folder}", lambda: _ssdd([*words, *resume]))

    def predict(self, stage: str, *options: str) -> None:
        """Write a stage's product for all training images."""
        _ssdd(["predict", *self.common(stage, stage), *options, f"--ckpt_path={self.checkpoint(stage)}"])

    def test(self, stage: str, folder: str) -> None:
        """Write masks under the testing protocol."""
        _ssdd(["test", *self.common(stage, folder), f"--ckpt_path={self.checkpoint(folder)}"])

    def crf(self, knowledge: Path, advice: Path) -> None:
        """Turn knowledge maps into advice maps by the dense CRF at image size."""
        _ssdd(["crf", f"--images={self.devkit / 'JPEGImages'}", f"--maps={knowledge}", f"--out={advice}"])

    def common(self, stage: str, folder: str) -> list[str]:
        """Options of every stage command."""
        words = [
            f"--config={self.config_path(stage)}",
            f"--data.root={self.args.root}",
            f"--data.truth={self.args.truth}",
        ]
        if self.args.labels is not None:
            words.append(f"--data.labels={self.args.labels}")
        return [*words, f"--trainer.default_root_dir={self.out / folder}", *(f"--{option}" for option in self.args.set)]

    def checkpoint(self, folder: str) -> Path:
        """Where a fit leaves its last epoch."""
        return self.out / folder / "checkpoints" / "last.ckpt"

    def names(self, split: str) -> list[str]:
        """Images of a split that the experiment's classes keep."""
        from ssdd_lightning.data.dataset import select_records

        records, source = self.data.find_records(split, truth=False)
        return [record.name for record in select_records(records, self.data.table, source)]

    def scores(self) -> list[dict[str, Any]]:
        """Score everything: seed masks on the seed split, models on the test split.

        Returns:
            Rows with `what`, `split`, `miou` and `coverage` (fractions) and `seconds` (of the step that made it).
        """
        from ssdd_lightning.evaluation.folder import evaluate_folders

        truth = self.devkit / self.args.truth
        seed_names, val_names = self.names(self.args.seed_split), self.names(self.val_split)
        card = evaluate_folders(self.out / "knowledge", truth, seed_names, advice=self.out / "advice")
        seeds = evaluate_folders(self.out / BASELINES["seeds"], truth, seed_names)
        split = self.args.seed_split
        rows = [
            _row("knowledge K", split, card, self.seconds("knowledge")),
            _row("advice A", split, card.companions["advice"], self.seconds("advice")),
            _row("static refinement m_D0", split, seeds, self.seconds("fit_static", "seeds")),
            _row("oracle merge of K and A", split, card.companions["oracle"], None),
        ]
        models = [(f"baseline on {s}", f"baseline_{s}") for s in self.args.baselines] + [("dynamic model", "dynamic")]
        for what, folder in models:
            scored = evaluate_folders(self.out / folder / "test", truth, val_names)
            rows.append(_row(what, self.val_split, scored, self.seconds(f"fit_{folder}", f"test_{folder}")))
        return rows

    def seconds(self, *steps: str) -> float:
        """How long steps took."""
        marks = [json.loads((self.out / "steps" / f"{step}.json").read_text()) for step in steps]
        return float(sum(mark["seconds"] for mark in marks))

    def draw(self, count: int) -> Path:
        """Draw image, K, d_K, A, d_A, refined and truth of evenly spaced images of the seed split."""
        from ssdd_lightning.callbacks.panels import write_panel

        names = self.names(self.args.seed_split)
        chosen = names[:: max(1, len(names) // max(1, count))][:count]
        classes = dict(zip(self.data.class_indices, self.data.class_names, strict=True))
        for name in chosen:
            write_panel(self.out / "pictures" / f"{name}.png", [self.picture(name)], classes)
        return self.out / "pictures"

    def picture(self, name: str) -> dict[str, Any]:
        """One row of the picture folder, with dataset indices."""
        import numpy as np

        from ssdd_lightning.data.masks import read_image, read_mask
        from ssdd_lightning.evaluation.folder import read_prediction

        seeds = self.out / BASELINES["seeds"]
        return {
            "image": read_image(self.devkit / "JPEGImages" / f"{name}.jpg"),
            "knowledge": read_prediction(self.out / "knowledge", name),
            "d_knowledge": read_mask(seeds / "d_knowledge" / f"{name}.png") / np.float32(255),
            "advice": read_prediction(self.out / "advice", name),
            "d_advice": read_mask(seeds / "d_advice" / f"{name}.png") / np.float32(255),
            "refined": read_mask(seeds / f"{name}.png"),
            "truth": read_mask(self.devkit / self.args.truth / f"{name}.png"),
        }


def results_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows of `Pipeline.scores`: percent with two decimals."""
    lines = [f"{'':<26}{'split':<10}{'mIoU':>8}{'coverage':>10}{'seconds':>9}"]
    for row in rows:
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        lines.append(
            f"{row['what']:<26}{row['split']:<10}{row['miou'] * 100:8.2f}{row['coverage'] * 100:10.2f}{seconds:>9}"
        )
    return "\n".join(lines)


def _row(what: str, split: str, card: Any, seconds: float | None) -> dict[str, Any]:  # noqa: ANN401
    return {"what": what, "split": split, "miou": card.miou, "coverage": card.coverage, "seconds": seconds}


def _ssdd(words: list[str]) -> None:
    from ssdd_lightning.cli import main

    main(words)
