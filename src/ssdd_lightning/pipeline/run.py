"""`ssdd run`: all stages of an experiment folder in order, nothing twice, with a table and pictures at the end."""

import argparse
import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ssdd_lightning.errors import InputError, Interrupted
from ssdd_lightning.pipeline.results import refinement_picture, results_table, score_row
from ssdd_lightning.storage.files import atomic_write
from ssdd_lightning.storage.lock import locked

SEEDS = "static/predictions"
SOURCES = {"cam": ("knowledge", "advice"), "random_walk": ("random_walk", "random_walk_crf")}
"""What can be refined: activation maps or their random walk; where a run keeps them and their CRF."""
SHARED = ("classification", "affinity", "affinity_low", "affinity_high", *SOURCES["cam"], *SOURCES["random_walk"])
"""Folders and steps that come before the choice of what is refined; runs of both choices share them."""
BASELINES = ("advice", "knowledge", "seeds")
"""Masks that a plain segmentation network can be trained on."""


def run_experiment(args: argparse.Namespace) -> int:
    """Run what has not been run, print the table, write `results.json` and `pictures/`.

    Returns:
        The exit status, 0.

    Raises:
        InputError: A file is missing or an option is wrong.
    """
    pipeline = Pipeline(args)
    with locked(args.out):
        pipeline.train_and_predict()
        rows = pipeline.scores()
        with atomic_write(pipeline.refined / "results.json") as stream:
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
        from ssdd_lightning.data.choice import data_module_class
        from ssdd_lightning.data.devkit import DevkitDataModule
        from ssdd_lightning.data.layout import find_devkit

        self.out: Path = self.args.out
        config = self.config("static")
        data = config.get("data", {})
        options = {"labels": self.args.labels, "truth": self.args.truth, "classes": data.get("classes")}
        module = data_module_class(config.get("dataset") or "voc")
        if not issubclass(module, DevkitDataModule):
            raise InputError(
                "`ssdd run` works on devkits, such as VOC's and COCO's; for photos of your own run stage by stage, see "
                "docs/howto/own_photos.md"
            )
        self.devkit = find_devkit(self.args.root)
        self.data = module(root=self.args.root, **options)
        self.val_split = str(data.get("test_split", "val"))
        if self.args.knowledge == "random_walk":
            self.config_path("affinity")  # complains now rather than after the classifier
        self.refined = self.out if self.args.knowledge == "cam" else self.out / f"from_{self.args.knowledge}"
        self.knowledge, self.advice = self.folders(self.args.knowledge)
        self.masks = {"knowledge": self.knowledge, "advice": self.advice, "seeds": self.refined / SEEDS}

    def folders(self, source: str) -> tuple[Path, Path]:
        """Where maps of one of `SOURCES` and their CRF lie."""
        maps, refined = SOURCES[source]
        return self.out / maps, self.out / refined

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
        """Run every stage in the paper's order; each command leaves what its ledger calls finished as it is."""
        cam, refined = self.folders("cam")
        self.fit("classification", backbone_weights=self.args.classifier_weights)
        self.predict("classification", cam)
        self.crf(cam, refined)
        if self.args.knowledge == "random_walk":
            self.random_walk(cam)
        guides = (f"--data.knowledge={self.knowledge}", f"--data.advice={self.advice}")
        self.fit("static", *guides)
        self.predict("static", self.masks["seeds"], *guides)
        for source in self.args.baselines:
            self.fit("baseline", f"--data.knowledge={self.masks[source]}", folder=f"baseline_{source}")
            self.test("baseline", f"baseline_{source}")
        self.fit("dynamic", f"--data.knowledge={self.masks['seeds']}")
        self.test("dynamic", "dynamic")

    def random_walk(self, cam: Path) -> None:
        """Spread activation maps along learnt affinities (PSA), and pass the result through the CRF."""
        walked, refined = self.folders("random_walk")
        low, high = self.out / "affinity" / "low", self.out / "affinity" / "high"
        self.crf(cam, low, "--background_alpha=4")
        self.crf(cam, high, "--background_alpha=32")
        guides = (f"--data.knowledge={low}", f"--data.advice={high}", f"--data.maps={cam}")
        self.fit("affinity", *guides)
        self.predict("affinity", walked, *guides)
        self.crf(walked, refined)

    def step(self, command: str, folder: Path, words: list[str]) -> None:
        """Run a command; its product and its entry in the ledger lie in the folder."""
        print(f"== {command} {folder.relative_to(self.out)}", flush=True)
        try:
            if command != "crf" and self.several_processes:
                _ssdd_apart([command, *words])
            else:
                _ssdd([command, *words])
        except Interrupted as stop:
            raise Interrupted(stop.signum) from None  # how to go on is said by the pipeline's own command

    @property
    def several_processes(self) -> bool:
        """Whether the stages run in several processes; Lightning starts them by the command of this one."""
        given = dict(option.split("=", 1) for option in self.args.set if "=" in option)
        return given.get("trainer.devices", "1") != "1" or given.get("trainer.num_nodes", "1") != "1"

    def home(self, name: str) -> Path:
        """Where a stage's folder lies."""
        return self.out if name in SHARED else self.refined

    def fit(self, stage: str, *options: str, folder: str | None = None, backbone_weights: str | None = None) -> None:
        """Train a stage, all but the classifier from the classifier's backbone."""
        folder = folder or stage
        words = [*self.common(stage, folder), *options]
        if stage != "classification":
            backbone_weights = str(self.checkpoint("classification"))
        if backbone_weights is not None:
            words.append(f"--model.init_args.backbone_weights={backbone_weights}")
        if self.config(stage)["model"].get("init_args", {}).get("static_checkpoint"):
            words.append(f"--model.init_args.static_checkpoint={self.checkpoint('static')}")
        self.step("fit", self.home(folder) / folder, words)

    def predict(self, stage: str, out: Path, *options: str) -> None:
        """Write a stage's product for all training images."""
        self.step("predict", out, [*self.common(stage, stage), f"--output.output_dir={out}", *options])

    def test(self, stage: str, folder: str) -> None:
        """Write masks under the testing protocol."""
        self.step("test", self.home(folder) / folder / "test", self.common(stage, folder))

    def crf(self, maps: Path, out: Path, *options: str) -> None:
        """Pass score maps through the dense CRF at image size, with the widths of the static stage's YAML."""
        chosen = self.config("static")["model"].get("init_args", {}).get("crf") or {}
        words = [f"--images={self.devkit / 'JPEGImages'}", f"--maps={maps}", f"--out={out}"]
        self.step("crf", out, [*words, *(f"--{name}={value}" for name, value in chosen.items()), *options])

    def common(self, stage: str, folder: str) -> list[str]:
        """Options of every stage command."""
        words = [
            f"--config={self.config_path(stage)}",
            f"--data.root={self.args.root}",
            f"--data.truth={self.args.truth}",
        ]
        if self.args.labels is not None:
            words.append(f"--data.labels={self.args.labels}")
        return [
            *words,
            f"--trainer.default_root_dir={self.home(folder) / folder}",
            "--trainer.devices=1",  # unless `--set` says otherwise
            *(f"--{option}" for option in self.args.set),
        ]

    def checkpoint(self, folder: str) -> Path:
        """Where a fit leaves its last epoch."""
        return self.home(folder) / folder / "checkpoints" / "last.ckpt"

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
        classes = dict(enumerate(self.data.table.names))
        seed_names, val_names = self.names(self.args.seed_split), self.names(self.val_split)
        card = evaluate_folders(self.knowledge, truth, seed_names, classes, advice=self.advice)
        seeds = evaluate_folders(self.masks["seeds"], truth, seed_names, classes)
        split = self.args.seed_split
        made = self.seconds(self.knowledge / "predict.json")
        merged = self.seconds(self.refined / "static" / "fit.json", self.masks["seeds"] / "predict.json")
        rows = [
            score_row("knowledge K", split, card, made),
            score_row("advice A", split, card.companions["advice"], self.seconds(self.advice / "crf.json")),
            score_row("static refinement m_D0", split, seeds, merged),
            score_row("oracle merge of K and A", split, card.companions["oracle"], None),
        ]
        if self.args.knowledge == "random_walk":
            rows += self.activation_maps(truth, seed_names)
        models = [(f"baseline on {s}", f"baseline_{s}") for s in self.args.baselines] + [("dynamic model", "dynamic")]
        for what, folder in models:
            home = self.refined / folder
            scored = evaluate_folders(home / "test", truth, val_names, classes)
            seconds = self.seconds(home / "fit.json", home / "test" / "test.json")
            rows.append(score_row(what, self.val_split, scored, seconds))
        return rows

    def activation_maps(self, truth: Path, names: list[str]) -> list[dict[str, Any]]:
        """Score what the random walk started from."""
        from ssdd_lightning.evaluation.folder import evaluate_folders

        maps, refined = self.folders("cam")
        classes = dict(enumerate(self.data.table.names))
        card = evaluate_folders(maps, truth, names, classes, advice=refined)
        split = self.args.seed_split
        return [
            score_row("activation maps", split, card, self.seconds(maps / "predict.json")),
            score_row("CRF of activation maps", split, card.companions["advice"], self.seconds(refined / "crf.json")),
        ]

    def seconds(self, *entries: Path) -> float:
        """How long products took, by their entries in the ledger."""
        return float(sum(json.loads(path.read_text())["seconds"] for path in entries))

    def draw(self, count: int) -> Path:
        """Draw image, K, d_K, A, d_A, refined and truth of some images of the seed split, always the same."""
        from ssdd_lightning.callbacks.panels import write_panel

        names = self.names(self.args.seed_split)
        chosen = random.Random(0).sample(names, min(count, len(names)))  # every n-th could be of one class
        classes = dict(zip(self.data.class_indices, self.data.class_names, strict=True))
        for name in chosen:
            photo, truth = self.devkit / "JPEGImages" / f"{name}.jpg", self.devkit / self.args.truth / f"{name}.png"
            row = refinement_picture(name, photo, self.knowledge, self.advice, self.masks["seeds"], truth)
            write_panel(self.refined / "pictures" / f"{name}.png", [row], classes)
        return self.refined / "pictures"


def _ssdd_apart(words: list[str]) -> None:
    status = subprocess.run([sys.executable, "-m", "ssdd_lightning", *words], check=False).returncode
    if status > 128:
        raise Interrupted(status - 128)
    if status:
        sys.exit(status)  # it said why


def _ssdd(words: list[str]) -> None:
    from ssdd_lightning.cli.main import main

    main(words)
