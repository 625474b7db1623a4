"""`ssdd run`: all stages of an experiment folder in order, nothing twice, with a table and pictures at the end."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssdd_lightning.constants import WEIGHT_OPTIONS
from ssdd_lightning.data.choice import data_module_class
from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.data.splits import Splits
from ssdd_lightning.errors import InputError, Interrupted
from ssdd_lightning.pipeline.config import StageConfig, parse_value
from ssdd_lightning.pipeline.experiments import experiment_folder
from ssdd_lightning.pipeline.photos import GivenData, find_photos
from ssdd_lightning.pipeline.results import Scores, results_table, write_picture
from ssdd_lightning.pipeline.status import Status
from ssdd_lightning.pipeline.steps import Command, CRFStep, PARStep, StageStep, Step
from ssdd_lightning.pipeline.whole import run_ledger, sources_of
from ssdd_lightning.storage.files import write_text
from ssdd_lightning.storage.ledger import Ledger
from ssdd_lightning.storage.lock import locked

if TYPE_CHECKING:
    from ssdd_lightning.data.datamodule import WeakDataModule
    from ssdd_lightning.data.dataset import Record

_NESTED = (("model", "init_args"), ("data", "splits"), ("data", "augmentation"))
"""Options of a stage that are looked up here before the parser sees them."""
SEEDS = "static/predictions"
SOURCES = {"cam": ("knowledge", "advice"), "random_walk": ("random_walk", "random_walk_crf")}
"""What can be refined: activation maps or their random walk; where a run keeps them and their CRF."""
PAR = "par"
ADVICES = ("crf", PAR)
"""Mapping functions that can make the advice; anything else is a folder of masks or score maps."""
GUIDES = ("data.knowledge", "data.advice", "data.maps")
"""Settings that name the folder of an earlier step."""
STARTS = tuple(f"model.init_args.{option}" for option in WEIGHT_OPTIONS)
"""Settings that may name the checkpoint of an earlier step."""
BASELINES = ("advice", "knowledge", "seeds")
"""Masks that a plain segmentation network can be trained on."""
RETRAIN = "retrain"
"""Step that trains a fresh network on the dynamic model's masks."""
LONGER = "baseline_longer"
"""Step that trains the baseline on as long as a dynamic stage that starts from it, so that the two can be compared."""
OWN_FOLDER = ("default_root_dir", "logger", "callbacks")
"""Options of a trainer that a step does not take over from another one, ..."""
TRAINED_ON = ("batch_size", "augmentation")
LEARNT_BY = ("optimization", "per_class_loss")
"""and those of data and model that it does."""
MODELS = {
    **{f"baseline_{masks}": f"baseline on {masks}" for masks in BASELINES},
    LONGER: "baseline on seeds, goes on",
    "dynamic": "dynamic model",
    RETRAIN: "retrained on masks of the dynamic model",
}
"""Folders of models, and what the table calls them."""
ROWS = (
    *("knowledge K", "advice A", "static refinement m_D0", "oracle merge of K and A"),
    *("activation maps", "CRF of activation maps", *MODELS.values()),
)
"""Rows of the table in their order."""
SAME = ("finished", "kept", "left as it is")
"""What a plan says of steps that change nothing."""
PHOTO_SETTINGS = ("root", "images", "labels", "class_names", "truth")
"""Settings of the data that say where photos, labels and ground truth lie."""


@dataclass(frozen=True)
class Chosen:
    """Steps of a run, by name.

    Args:
        first: The one to begin at; those before it are left as they are. None means the first of all.
        last: The one to end with.
        keep: Those whose products stay although something changed.
    """

    first: str | None = None
    last: str | None = None
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refined:
    """What a run refines.

    Args:
        knowledge: The knowledge, of `SOURCES`.
        advice: What makes the advice of it, of `ADVICES`, here and in the dynamic stage; or a folder that holds it.
    """

    knowledge: str = "cam"
    advice: str = "crf"


@dataclass(frozen=True)
class RunOptions:
    """What to run, on what, and where.

    Args:
        experiment: Folder with classification.yaml, static.yaml, baseline.yaml and dynamic.yaml, or the name of an
            experiment of the package.
        out: Folder for everything the run writes; None means the experiment's name below `runs`.
        data: Where photos, labels and ground truth lie, as far as the YAML should not say it.
        configs: More YAML files for every stage, such as the data.yaml of `ssdd prepare folder`.
        seed_split: Split of a devkit on which seed masks are scored.
        baselines: Masks to train plain segmentation networks on, of `BASELINES`. The one on seeds is always trained if
            the dynamic stage goes on from it; if it is asked for and there is ground truth, it also goes on as long.
        retrain: Also train a fresh network on the masks that the dynamic model makes of the training images.
        refined: Knowledge and advice.
        classifier_weights: Weights the classifier starts from, "null" for none; None goes by the YAML.
        pictures: How many images to draw.
        settings: Settings of every stage, {"trainer.max_epochs": 1}.
        chosen: Which steps.
    """

    experiment: Path
    out: Path | None = None
    data: GivenData = GivenData()
    configs: tuple[Path, ...] = ()
    seed_split: str = "train"
    baselines: tuple[str, ...] = ("seeds",)
    retrain: bool = False
    refined: Refined = Refined()
    classifier_weights: str | None = None
    pictures: int = 12
    settings: Mapping[str, Any] = field(default_factory=dict)
    chosen: Chosen = Chosen()


def default_out(experiment: Path, out: Path | None) -> Path:
    """The folder of a run, by the experiment's name if none was given."""
    return out or Path("runs") / experiment.resolve().name


def run_experiment(options: RunOptions) -> list[dict[str, Any]]:
    """Run what is not finished, print the table, write `results.json` and `pictures/`.

    Returns:
        The rows of the table.

    Raises:
        InputError: A file is missing, an option is wrong, or another run works in the folder.
    """
    pipeline = Pipeline(options)
    results = pipeline.refined / "results.json"
    with locked(pipeline.out):
        before = pipeline.ledger()
        if pipeline.whole and not options.chosen.keep and before.finished:
            rows: list[dict[str, Any]] = json.loads(results.read_text())
            print(f"run: finished in {pipeline.out}, nothing to do.\n{results_table(rows)}")
            print(f"{pipeline.refined / 'pictures'} holds the pictures.")
            return rows
        status = Status([step.name for step in pipeline.steps])
        rows, changed, outdated = [], set[str](), list[str]()
        with status.shown():
            for step in pipeline.steps:
                if step in pipeline.chosen:
                    print(f"== {step.command} {step.name}", flush=True)
                    status.begin(step)
                    earlier = step.entry.read_bytes() if step.made else b""
                    try:
                        step.run(keep=step.name in options.chosen.keep)
                    except Interrupted as stop:
                        raise Interrupted(stop.signum) from None  # how to go on is said by the pipeline's own command
                    changed |= {step.name} if step.entry.read_bytes() != earlier else set()
                elif step.made and changed.intersection(step.needs):
                    changed.add(step.name)
                    outdated.append(step.name)
                made = pipeline.scores_after(step) if step.made and step.name not in outdated else []
                rows += made
                status.end(step, made, shown=step in pipeline.chosen)
        if outdated:
            print(f"Not scored, because what they were made from changed: {', '.join(outdated)}. Run these steps, too.")
        rows.sort(key=lambda row: ROWS.index(row["what"]))
        write_text(results, json.dumps(rows, indent=2))
        if rows:
            print(results_table(rows))
        elif pipeline.photos.truth is None:
            print("There is no ground truth, so nothing was scored.")
        if pipeline.seeds_made:
            print(f"{pipeline.draw()} holds the pictures.")
        if (masks := pipeline.step("dynamic/masks")) is not None and masks.made:
            print(f"{masks.folder} holds the masks of the photos.")
        after = pipeline.ledger()
        if pipeline.whole and after.reads_like(before):  # else something changed, and the next run looks at every step
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
        if step not in pipeline.chosen:
            state = "left as it is"
        elif step.name in options.chosen.keep and step.made:
            state = "kept"
        elif earlier:
            state = f"{'made again' if step.made else 'made'}, because {earlier[0]} is {changed[earlier[0]]}"
        else:
            state = step.state()
        if state not in SAME:
            changed[step.name] = "made again" if step.made else "made"
        plan.append((step.name, state))
    again = any(state not in SAME for _, state in plan)
    plan.append(("results", "made again" if again or not pipeline.ledger().finished else "finished"))
    return plan


class Pipeline:
    """One run of an experiment: its steps, and what they make.

    Args:
        options: See `RunOptions`.

    Raises:
        InputError: A YAML is missing, a named step does not exist, or the photos are not where the options say.
    """

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.experiment = experiment_folder(options.experiment)
        out = self.out = default_out(self.experiment, options.out)
        config = self.content("static")
        self.dataset = str(config.get("dataset") or "voc")
        self.photos = find_photos(config["data"], self.dataset, options.data)
        self.refined = out if options.refined.knowledge == "cam" else out / f"from_{options.refined.knowledge}"
        self.knowledge, by_crf = (out / folder for folder in SOURCES[options.refined.knowledge])
        by_par = out / f"{by_crf.name.removesuffix('_crf')}_{PAR}"
        advice = options.refined.advice
        self.advice = {"crf": by_crf, PAR: by_par}.get(advice, Path(advice))
        if advice not in ADVICES and not self.advice.is_dir():
            raise InputError(
                f"--advice: expected {', '.join(ADVICES)} or a folder of masks or score maps, found {advice!r}."
            )
        self.seeds = self.refined / SEEDS
        names = [step.name for step in self.steps]
        chosen = options.chosen
        asked = [("--keep", name) for name in chosen.keep]
        asked += [(flag, name) for flag, name in (("--from", chosen.first), ("--until", chosen.last)) if name]
        for flag, name in asked:
            if name not in names:
                raise InputError(f"{flag}: expected the name of a step ({', '.join(names)}), found {name!r}.")
        begin, end = names.index(chosen.first or names[0]), names.index(chosen.last or names[-1])
        if begin > end:
            raise InputError(f"--from {names[begin]} comes after --until {names[end]}; expected steps in their order.")
        self.chosen = self.steps[begin : end + 1]
        self.whole = len(self.chosen) == len(names)

    @cached_property
    def data(self) -> "WeakDataModule":
        """The dataset; building it loads torch, which a finished run can do without."""
        data = self.content("static")["data"]
        options = {key: value for key, value in data.items() if key in (*PHOTO_SETTINGS, "classes")}
        options |= {key.removeprefix("data."): value for key, value in self.photos.settings.items()}
        module: Any = data_module_class(self.dataset)
        found: WeakDataModule = module(**options, splits=Splits(**(data.get("splits") or {})))
        return found

    @cached_property
    def steps(self) -> list[Step]:
        """Every step, in the paper's order; each one's ledger says what of it is finished."""
        out, refined = self.out, self.refined
        cam, cam_crf = (out / folder for folder in SOURCES["cam"])
        weights = self.options.classifier_weights
        start = {} if weights is None else {"model.init_args.backbone_weights": parse_value(weights)}
        steps: list[Step] = [
            self.fit("classification", out, start),
            self.predict("classification", out, cam),
        ]
        walks = self.options.refined.knowledge == "random_walk"
        if walks or self.options.refined.advice == "crf":
            steps += [self.crf(cam, cam_crf)]
        if walks:
            walked, walked_crf = (out / folder for folder in SOURCES["random_walk"])
            low, high = out / "affinity" / "low", out / "affinity" / "high"
            guides = {"data.knowledge": str(low), "data.advice": str(high), "data.maps": str(cam)}
            steps += [self.crf(cam, low, 4.0), self.crf(cam, high, 32.0)]
            steps += [self.fit("affinity", out, guides), self.predict("affinity", out, walked, guides)]
            steps += [self.crf(walked, walked_crf)] if self.options.refined.advice == "crf" else []
        if self.options.refined.advice == PAR:
            steps += [self.par(self.knowledge, self.advice)]
        guides = {"data.knowledge": str(self.knowledge), "data.advice": str(self.advice)}
        steps += [self.fit("static", refined, guides), self.predict("static", refined, self.seeds, guides)]
        steps += self.baselines()
        in_training = {"model.init_args.refinement.advice": PAR} if self.options.refined.advice == PAR else {}
        guides = {"data.knowledge": str(self.seeds), **in_training}
        steps += [self.fit("dynamic", refined, guides), *self.test("dynamic", refined)]
        if self.options.retrain or self.photos.truth is None:
            everything = {"data.splits.predict": None} if self.photos.own else {}
            made = refined / "dynamic" / "masks"
            steps += [self.predict("dynamic", refined, made, {"data.knowledge": None, **everything})]
        if self.options.retrain:
            first = self.arguments("classification")
            fresh = {"model.init_args.static_checkpoint": None}
            fresh |= start or {"model.init_args.backbone_weights": first.get("backbone_weights", "imagenet")}
            steps += [self.fit("baseline", refined, {"data.knowledge": str(made), **fresh}, RETRAIN)]
            steps += self.test("baseline", refined, RETRAIN)
        return steps

    def baselines(self) -> list[Step]:
        """Plain models, among them the one that the dynamic stage goes on from and is compared with."""
        home, asked = self.refined, self.options.baselines
        masks = {"knowledge": self.knowledge, "advice": self.advice, "seeds": self.seeds}
        start = ("seeds",) if self.arguments("dynamic").get("network_checkpoint") else ()
        steps: list[Step] = []
        for source in dict.fromkeys((*asked, *start)):
            name = f"baseline_{source}"
            steps += [self.fit("baseline", home, {"data.knowledge": str(masks[source])}, name)]
            steps += self.test("baseline", home, name) if source in asked else []
        if start and "seeds" in asked and self.photos.truth is not None:
            longer = {"data.knowledge": str(self.seeds), **self.going_on(_checkpoint(home / "baseline_seeds"))}
            steps += [self.fit("baseline", home, longer, LONGER), *self.test("baseline", home, LONGER)]
        return steps

    def step(self, name: str) -> Step | None:
        """A step by its name, below `from_random_walk` if that is refined."""
        folder = self.refined / name
        return next((step for step in self.steps if step.folder == folder), None)

    def fit(self, stage: str, home: Path, settings: Mapping[str, Any], folder: str | None = None) -> Step:
        """Train a stage, all but the classifier from the classifier's backbone."""
        starts: dict[str, Any] = {}
        if stage != "classification":
            starts["model.init_args.backbone_weights"] = str(_checkpoint(self.out / "classification"))
        earlier = {"static_checkpoint": "static", "network_checkpoint": "baseline_seeds"}
        given = self.arguments(stage)
        starts |= {
            f"model.init_args.{option}": str(_checkpoint(self.refined / made))
            for option, made in earlier.items()
            if given.get(option)
        }
        return self._step("fit", stage, home / (folder or stage), home / (folder or stage), {**starts, **settings})

    def going_on(self, start: Path) -> dict[str, Any]:
        """Settings with which a baseline trains on from a checkpoint as the dynamic stage does: steps, rates, crops."""
        content, arguments = self.content("dynamic"), self.arguments("dynamic")
        trainer = {f"trainer.{name}": value for name, value in content["trainer"].items() if name not in OWN_FOLDER}
        data = {f"data.{name}": content["data"][name] for name in TRAINED_ON if name in content["data"]}
        model = {f"model.init_args.{name}": arguments[name] for name in LEARNT_BY if name in arguments}
        return {**trainer, **data, **model, "model.init_args.static_checkpoint": str(start)}

    def predict(self, stage: str, home: Path, out: Path, settings: Mapping[str, Any] | None = None) -> Step:
        """Write a stage's product for all training images."""
        return self._step("predict", stage, home / stage, out, {**(settings or {}), "output.output_dir": str(out)})

    def test(
        self, stage: str, home: Path, folder: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> list[Step]:
        """Write masks under the testing protocol, if there is ground truth to score them."""
        root = home / (folder or stage)
        return [] if self.photos.truth is None else [self._step("test", stage, root, root / "test", settings or {})]

    def crf(self, maps: Path, out: Path, background_alpha: float | None = None) -> Step:
        """Pass score maps through the dense CRF at image size, with the widths of the static stage's YAML."""
        chosen = self.arguments("static").get("crf") or {}
        images = self.photos.images
        return CRFStep(self._name(out), out, (self._name(maps),), images, maps, chosen, background_alpha)

    def par(self, maps: Path, out: Path) -> Step:
        """Pass score maps through pixel-adaptive refinement at image size."""
        return PARStep(self._name(out), out, (self._name(maps),), self.photos.images, maps)

    def _step(self, command: Command, stage: str, root: Path, folder: Path, settings: Mapping[str, Any]) -> Step:
        options = self.options
        common = {
            **self.photos.settings,
            "trainer.default_root_dir": str(root),
            "trainer.devices": 1,  # unless the user's settings say otherwise
        }
        config = self.config(stage).with_settings({**common, **settings, **options.settings})
        needs = [Path(settings[key]) for key in GUIDES if settings.get(key)]
        checkpoints = [Path(str(settings[key])) for key in STARTS if settings.get(key)]
        needs += [path.parents[1] for path in checkpoints if path.is_relative_to(self.out)]
        needs += [] if command == "fit" else [root]
        return StageStep(self._name(folder), folder, tuple(map(self._name, needs)), command, config)

    def _name(self, folder: Path) -> str:
        """What a step is called: where its product lies."""
        return str(folder.relative_to(self.out)) if folder.is_relative_to(self.out) else str(folder)

    def content(self, stage: str) -> dict[str, Any]:
        """The YAML of a stage with the user's settings.

        Raises:
            InputError: A section is not a mapping.
        """
        content = self.config(stage).with_settings(self.options.settings).content()
        for section in ("model", "data", "trainer"):
            if not isinstance(content.setdefault(section, {}), dict):
                raise InputError(f"{stage}.yaml: expected options below {section}, found {content[section]!r}.")
        for section, name in _NESTED:
            if not isinstance(content[section].get(name) or {}, dict):
                found = content[section][name]
                raise InputError(f"{stage}.yaml: expected options below {section}.{name}, found {found!r}.")
        return content

    def arguments(self, stage: str) -> dict[str, Any]:
        """What the YAML of a stage gives its module."""
        return self.content(stage)["model"].get("init_args") or {}

    def config(self, stage: str) -> StageConfig:
        """The YAML of a stage."""
        path = self.experiment / f"{stage}.yaml"
        if not path.is_file():
            raise InputError(f"the experiment folder {self.experiment} lacks {path.name}; expected one YAML a stage.")
        return StageConfig((path, *self.options.configs))

    def ledger(self) -> Ledger:
        """What is finished of the run as a whole."""
        data = self.content("static")["data"] | {"truth": self.photos.settings.get("data.truth")}
        own = {"seed_split": self.options.seed_split, "pictures": self.options.pictures}
        sources = [*sources_of(self.steps, self.photos), *self.photos.files(data, self.seed_split)]
        return run_ledger(self.refined, self.steps, own, sources)

    @property
    def seed_split(self) -> str:
        """Split on which seed masks are scored."""
        own = self.photos.own
        return self.photos.split(self.content("static")["data"], "predict") if own else self.options.seed_split

    def records(self, split: str) -> "list[Record]":
        """Images of a split that the experiment's classes keep."""
        from ssdd_lightning.data.dataset import select_records

        records, source = self.data.find_records(split, truth=False)
        return select_records(records, self.data.table, source)

    def scored(self, split: str) -> list[str]:
        """Names of those that have ground truth."""
        return self.photos.scored([record.name for record in self.records(split)])

    @property
    def table(self) -> ClassTable:
        """The dataset's classes and the experiment's choice of them."""
        return self.data.table

    def scores_after(self, step: Step) -> list[dict[str, Any]]:
        """Score what a finished step made: masks of training images on the seed split, models on the test split.

        Returns:
            Rows with `what`, `split`, `miou` and `coverage` (fractions) and `seconds` (of the step that made it).
        """
        if self.photos.truth is None:
            return []
        cam, cam_crf = (self.out / folder for folder in SOURCES["cam"])
        last = self.advice if self.options.refined.advice in ADVICES else self.knowledge
        refined = {cam_crf: (cam, cam_crf), last: (self.knowledge, self.advice)}
        scores = Scores(self.photos.truth, dict(enumerate(self.table.names)))
        tested = step.folder.parent
        if step.command == "test":
            split = self.photos.split(step.settings()["data"], "test")
            what, took = MODELS[tested.name], self._seconds(tested) + step.seconds
            names = self.scored(split)
            return [scores.row(what, split_title(split), scores.card(step.folder, names), took)] if names else []
        split = self.seed_split
        names = self.scored(split) if step.folder in (self.seeds, *refined) else []
        if not names:
            return []
        shown = split_title(split)
        if step.folder == self.seeds:
            card, took = scores.card(self.seeds, names), self._seconds(self.refined / "static") + step.seconds
            return [scores.row("static refinement m_D0", shown, card, took)]
        maps, advice = refined[step.folder]
        card = scores.card(maps, names, advice)
        own = advice == self.advice
        rows = [scores.row("knowledge K" if own else "activation maps", shown, card, self._seconds(maps))]
        what = "advice A" if own else "CRF of activation maps"
        took_advice = step.seconds if step.folder == advice else None
        rows += [scores.row(what, shown, card.companions["advice"], took_advice)]
        rows += [scores.row("oracle merge of K and A", shown, card.companions["oracle"], None)] if own else []
        return rows

    def _seconds(self, folder: Path) -> float:
        """How long the step took whose product lies in a folder."""
        return next(step.seconds for step in self.steps if step.folder == folder)

    @property
    def seeds_made(self) -> bool:
        """Whether there are seed masks to draw."""
        return any(step.folder == self.seeds and step.made for step in self.steps)

    def draw(self) -> Path:
        """Draw image, K, d_K, A, d_A, refined and ground truth of some images of the seed split, always the same."""
        records = self.records(self.seed_split)
        # by chance: every n-th could be of one class
        chosen = random.Random(0).sample(records, min(self.options.pictures, len(records)))
        classes = dict(zip(self.data.class_indices, self.data.class_names, strict=True))
        for record in chosen:
            truth = None if self.photos.truth is None else self.photos.truth / f"{record.name}.png"
            out = self.refined / "pictures" / f"{record.name}.png"
            write_picture(out, record.image, (self.knowledge, self.advice, self.seeds), truth, classes)
        return self.refined / "pictures"


def split_title(split: str) -> str:
    """A split as the table shows it."""
    return Path(split).stem if split else "all"


def _checkpoint(root: Path) -> Path:
    """Where a fit leaves its last epoch."""
    return root / "checkpoints" / "last.ckpt"
