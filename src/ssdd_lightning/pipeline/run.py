"""`ssdd run`: all stages of an experiment folder in order, nothing twice, with a table and pictures at the end."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssdd_lightning.data.choice import DEVKITS, data_module_class
from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.data.layout import find_devkit
from ssdd_lightning.errors import InputError, Interrupted
from ssdd_lightning.pipeline.config import StageConfig, parse_value
from ssdd_lightning.pipeline.results import Scores, results_table, write_picture
from ssdd_lightning.pipeline.steps import Command, CRFStep, StageStep, Step
from ssdd_lightning.pipeline.whole import photos_of, run_ledger, sources_of
from ssdd_lightning.storage.files import write_text
from ssdd_lightning.storage.ledger import Ledger
from ssdd_lightning.storage.lock import locked

if TYPE_CHECKING:
    from ssdd_lightning.data.devkit import DevkitDataModule

SEEDS = "static/predictions"
SOURCES = {"cam": ("knowledge", "advice"), "random_walk": ("random_walk", "random_walk_crf")}
"""What can be refined: activation maps or their random walk; where a run keeps them and their CRF."""
GUIDES = ("data.knowledge", "data.advice", "data.maps")
"""Settings that name the folder of an earlier step."""
STARTS = ("model.init_args.backbone_weights", "model.init_args.static_checkpoint")
"""Settings that name the checkpoint of an earlier step."""
BASELINES = ("advice", "knowledge", "seeds")
"""Masks that a plain segmentation network can be trained on."""


@dataclass(frozen=True)
class RunOptions:
    """What to run, on what, and where.

    Args:
        experiment: Folder with classification.yaml, static.yaml, baseline.yaml and dynamic.yaml.
        root: Folder that holds the devkit.
        out: Folder for everything the run writes.
        labels: File of image-level labels; None takes the devkit's annotations.
        truth: Folder of ground truth in the devkit, for scoring only.
        seed_split: Split on which seed masks are scored.
        baselines: Masks to train plain segmentation networks on, of `BASELINES`.
        knowledge: What is refined, of `SOURCES`.
        classifier_weights: Weights the classifier starts from, "null" for none; None goes by the YAML.
        pictures: How many images to draw.
        settings: Settings of every stage, {"trainer.max_epochs": 1}.
        keep: Names of steps whose products stay although something changed.
    """

    experiment: Path
    root: Path
    out: Path
    labels: Path | None = None
    truth: str = "SegmentationClass"
    seed_split: str = "train"
    baselines: tuple[str, ...] = ("seeds",)
    knowledge: str = "cam"
    classifier_weights: str | None = None
    pictures: int = 12
    settings: Mapping[str, Any] = field(default_factory=dict)
    keep: tuple[str, ...] = ()


def run_experiment(options: RunOptions) -> list[dict[str, Any]]:
    """Run what is not finished, print the table, write `results.json` and `pictures/`.

    Returns:
        The rows of the table.

    Raises:
        InputError: A file is missing, an option is wrong, or another run works in the folder.
    """
    pipeline = Pipeline(options)
    results = pipeline.refined / "results.json"
    with locked(options.out):
        before = pipeline.ledger()
        if not options.keep and before.finished:
            rows: list[dict[str, Any]] = json.loads(results.read_text())
            print(f"run: finished in {options.out}, nothing to do.\n{results_table(rows)}")
            print(f"{pipeline.refined / 'pictures'} holds the pictures.")
            return rows
        for step in pipeline.steps:
            print(f"== {step.command} {step.name}", flush=True)
            try:
                step.run(keep=step.name in options.keep)
            except Interrupted as stop:
                raise Interrupted(stop.signum) from None  # the pipeline's own command says how to continue
        rows = pipeline.scores()
        write_text(results, json.dumps(rows, indent=2))
        print(results_table(rows))
        print(f"{pipeline.draw()} holds the pictures.")
        after = pipeline.ledger()
        if after.reads_like(before):  # otherwise an input changed meanwhile, and the next run checks every step
            after.settle()
    return rows


def plan_experiment(options: RunOptions) -> list[tuple[str, str]]:
    """Say what a run would do, and why, and do nothing.

    Returns:
        Name of each step, and what would become of it.

    Raises:
        InputError: As `run_experiment`.
    """
    changed: dict[str, str] = {}
    plan = []
    pipeline = Pipeline(options)
    for step in pipeline.steps:
        earlier = [name for name in step.needs if name in changed]
        if step.name in options.keep and step.made:
            state = "kept"
        elif earlier:
            state = f"{'made again' if step.made else 'made'}, because {earlier[0]} is {changed[earlier[0]]}"
        else:
            state = step.state()
        if state not in ("finished", "kept"):
            changed[step.name] = "made again" if step.made else "made"
        plan.append((step.name, state))
    again = any(state not in ("finished", "kept") for _, state in plan)
    plan.append(("results", "made again" if again or not pipeline.ledger().finished else "finished"))
    return plan


class Pipeline:
    """One run of an experiment: its steps, and what they make.

    Args:
        options: See `RunOptions`.

    Raises:
        InputError: A YAML is missing, a step to keep does not exist, or the data is not a devkit's.
    """

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        config = self.content("static")
        self.dataset = str(config.get("dataset") or "voc")
        if self.dataset not in DEVKITS:
            raise InputError(
                "`ssdd run` works on devkits, such as VOC's and COCO's; for photos of your own run stage by stage, see "
                "docs/howto/own_photos.md."
            )
        self.devkit = find_devkit(options.root)
        self.labels = options.labels or config["data"].get("labels")
        self.refined = options.out if options.knowledge == "cam" else options.out / f"from_{options.knowledge}"
        self.knowledge, self.advice = (options.out / folder for folder in SOURCES[options.knowledge])
        self.seeds = self.refined / SEEDS
        if unknown := sorted(set(options.keep) - {step.name for step in self.steps}):
            known = ", ".join(step.name for step in self.steps)
            raise InputError(f"--keep: expected the name of a step ({known}), found {unknown[0]!r}.")

    @cached_property
    def data(self) -> "DevkitDataModule":
        """The dataset; building it loads torch, which a finished run can do without."""
        options: dict[str, Any] = {"root": self.options.root, "labels": self.labels, "truth": self.options.truth}
        module: Any = data_module_class(self.dataset)
        data: DevkitDataModule = module(**options, classes=self.content("static")["data"].get("classes"))
        return data

    @cached_property
    def steps(self) -> list[Step]:
        """Every step, in the paper's order; each has a ledger of its own."""
        out, refined = self.options.out, self.refined
        cam, cam_crf = (out / folder for folder in SOURCES["cam"])
        weights = self.options.classifier_weights
        start = {} if weights is None else {"model.init_args.backbone_weights": parse_value(weights)}
        steps: list[Step] = [
            self.fit("classification", out, start),
            self.predict("classification", out, cam),
            self.crf(cam, cam_crf),
        ]
        if self.options.knowledge == "random_walk":
            walked, walked_crf = (out / folder for folder in SOURCES["random_walk"])
            low, high = out / "affinity" / "low", out / "affinity" / "high"
            guides = {"data.knowledge": str(low), "data.advice": str(high), "data.maps": str(cam)}
            steps += [self.crf(cam, low, 4.0), self.crf(cam, high, 32.0)]
            steps += [self.fit("affinity", out, guides), self.predict("affinity", out, walked, guides)]
            steps += [self.crf(walked, walked_crf)]
        guides = {"data.knowledge": str(self.knowledge), "data.advice": str(self.advice)}
        steps += [self.fit("static", refined, guides), self.predict("static", refined, self.seeds, guides)]
        masks = {"knowledge": self.knowledge, "advice": self.advice, "seeds": self.seeds}
        for source in self.options.baselines:
            name = f"baseline_{source}"
            steps += [self.fit("baseline", refined, {"data.knowledge": str(masks[source])}, name)]
            steps += [self.test("baseline", refined, name)]
        steps += [self.fit("dynamic", refined, {"data.knowledge": str(self.seeds)}), self.test("dynamic", refined)]
        return steps

    def fit(self, stage: str, home: Path, settings: Mapping[str, Any], folder: str | None = None) -> Step:
        """Train a stage, all but the classifier from the classifier's backbone."""
        chosen = dict(settings)
        if stage != "classification":
            chosen["model.init_args.backbone_weights"] = str(_checkpoint(self.options.out / "classification"))
        if self.content(stage)["model"].get("init_args", {}).get("static_checkpoint"):
            chosen["model.init_args.static_checkpoint"] = str(_checkpoint(self.refined / "static"))
        return self._step("fit", stage, home / (folder or stage), home / (folder or stage), chosen)

    def predict(self, stage: str, home: Path, out: Path, settings: Mapping[str, Any] | None = None) -> Step:
        """Write a stage's product for all training images."""
        return self._step("predict", stage, home / stage, out, {**(settings or {}), "output.output_dir": str(out)})

    def test(self, stage: str, home: Path, folder: str | None = None) -> Step:
        """Write masks under the testing protocol."""
        root = home / (folder or stage)
        return self._step("test", stage, root, root / "test", {})

    def crf(self, maps: Path, out: Path, background_alpha: float | None = None) -> Step:
        """Pass score maps through the dense CRF at image size, with the widths of the static stage's YAML."""
        chosen = self.content("static")["model"].get("init_args", {}).get("crf") or {}
        images = self.devkit / "JPEGImages"
        return CRFStep(self._name(out), out, (self._name(maps),), images, maps, chosen, background_alpha)

    def _step(self, command: Command, stage: str, root: Path, folder: Path, settings: Mapping[str, Any]) -> Step:
        options = self.options
        common = {
            "data.root": str(options.root),
            "data.truth": options.truth,
            **({} if options.labels is None else {"data.labels": str(options.labels)}),
            "trainer.default_root_dir": str(root),
            "trainer.devices": 1,  # unless the user's settings say otherwise
        }
        config = self.config(stage).with_settings({**common, **settings, **options.settings})
        needs = [Path(settings[key]) for key in GUIDES if key in settings]
        needs += [Path(settings[key]).parents[1] for key in STARTS if key in settings and stage != "classification"]
        needs += [] if command == "fit" else [root]
        return StageStep(self._name(folder), folder, tuple(map(self._name, needs)), command, config)

    def _name(self, folder: Path) -> str:
        """What a step is called: where its product lies."""
        return str(folder.relative_to(self.options.out)) if folder.is_relative_to(self.options.out) else str(folder)

    def content(self, stage: str) -> dict[str, Any]:
        """The YAML of a stage with the user's settings.

        Raises:
            InputError: A section is not a mapping.
        """
        content = self.config(stage).with_settings(self.options.settings).content()
        for section in ("model", "data", "trainer"):
            if not isinstance(content.setdefault(section, {}), dict):
                raise InputError(f"{stage}.yaml: expected options below {section}, found {content[section]!r}.")
        return content

    def test_split(self, stage: str) -> str:
        """Split that a model is tested on."""
        return str((self.content(stage)["data"].get("splits") or {}).get("test") or DEVKITS[self.dataset][1])

    def config(self, stage: str) -> StageConfig:
        """The YAML of a stage."""
        path = self.options.experiment / f"{stage}.yaml"
        if not path.is_file():
            raise InputError(
                f"the experiment folder {self.options.experiment} lacks {path.name}; expected one YAML a stage."
            )
        return StageConfig((path,))

    def ledger(self) -> Ledger:
        """The ledger of the run as a whole."""
        options = self.options
        own = {"truth": options.truth, "seed_split": options.seed_split, "pictures": options.pictures}
        sources = sources_of(self.steps, self.devkit, DEVKITS[self.dataset])
        sources += photos_of([options.seed_split], self.devkit, options.truth)
        sources += [] if self.labels is None else [Path(self.labels)]
        return run_ledger(self.refined, self.steps, own, sources)

    def names(self, split: str) -> list[str]:
        """Images of a split that the experiment's classes keep."""
        from ssdd_lightning.data.dataset import select_records

        records, source = self.data.find_records(split, truth=False)
        return [record.name for record in select_records(records, self.data.table, source)]

    @property
    def table(self) -> ClassTable:
        """The dataset's classes and the experiment's choice of them."""
        return self.data.table

    def scores(self) -> list[dict[str, Any]]:
        """Score everything: seed masks on the seed split, models on the test split.

        Returns:
            Rows with `what`, `split`, `miou` and `coverage` (fractions) and `seconds` (of the step that made it).
        """
        options = self.options
        classes = dict(enumerate(self.table.names))
        scores = Scores(self.devkit / options.truth, classes)
        split, names = options.seed_split, self.names(options.seed_split)
        seconds = {(step.name, step.command): step.seconds for step in self.steps}
        knowledge, advice, seeds = (self._name(folder) for folder in (self.knowledge, self.advice, self.seeds))
        static = seconds[self._name(self.refined / "static"), "fit"] + seconds[seeds, "predict"]
        card = scores.card(self.knowledge, names, self.advice)
        rows = [
            scores.row("knowledge K", split, card, seconds[knowledge, "predict"]),
            scores.row("advice A", split, card.companions["advice"], seconds[advice, "crf"]),
            scores.row("static refinement m_D0", split, scores.card(self.seeds, names), static),
            scores.row("oracle merge of K and A", split, card.companions["oracle"], None),
        ]
        if options.knowledge == "random_walk":
            maps, refined = SOURCES["cam"]
            card = scores.card(options.out / maps, names, options.out / refined)
            rows.append(scores.row("activation maps", split, card, seconds[maps, "predict"]))
            rows.append(scores.row("CRF of activation maps", split, card.companions["advice"], seconds[refined, "crf"]))
        models = [(f"baseline on {s}", f"baseline_{s}") for s in options.baselines] + [("dynamic model", "dynamic")]
        for what, folder in models:
            home, split = self.refined / folder, self.test_split(folder.partition("_")[0])
            took = seconds[self._name(home), "fit"] + seconds[self._name(home / "test"), "test"]
            rows.append(scores.row(what, split, scores.card(home / "test", self.names(split)), took))
        return rows

    def draw(self) -> Path:
        """Draw image, K, d_K, A, d_A, refined and ground truth of some images of the seed split, always the same."""
        names = self.names(self.options.seed_split)
        # at random: every n-th image could show the same class
        chosen = random.Random(0).sample(names, min(self.options.pictures, len(names)))
        classes = dict(zip(self.data.class_indices, self.data.class_names, strict=True))
        for name in chosen:
            photo, truth = self.devkit / "JPEGImages" / f"{name}.jpg", self.devkit / self.options.truth / f"{name}.png"
            out = self.refined / "pictures" / f"{name}.png"
            write_picture(out, photo, (self.knowledge, self.advice, self.seeds), truth, classes)
        return self.refined / "pictures"


def _checkpoint(root: Path) -> Path:
    """Where a fit leaves its last epoch."""
    return root / "checkpoints" / "last.ckpt"
