"""What a report shows of a run: which folders `ssdd run` or `ssdd refine` filled, from what, and how far they came."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ssdd_lightning.data.choice import DEVKITS
from ssdd_lightning.data.classes import VOC_CLASSES, class_table
from ssdd_lightning.errors import InputError, check_folder
from ssdd_lightning.pipeline.config import parse_value
from ssdd_lightning.pipeline.photos import Photos, find_photos, split_of
from ssdd_lightning.pipeline.run import ADVICES, BASELINES, LONGER, MODELS, RETRAIN, SEEDS, SOURCES, split_title
from ssdd_lightning.report.curves import Curve, read_curves
from ssdd_lightning.report.material import (
    ADVICE,
    KNOWLEDGE,
    PREDICTION,
    REFINED,
    FolderOptions,
    Masks,
    Material,
    check_folders,
)
from ssdd_lightning.storage.ledger import read_entry

COMMANDS = ("fit", "predict", *ADVICES, "test")
"""Commands whose entries in the ledger are the steps of a run."""
_DEEPEST = 4
_FROM = "from_"


def run_material(run: Path, options: FolderOptions) -> Material:
    """What a report of a run shows, however far it came.

    Args:
        run: `--out` of `ssdd run` or `ssdd refine`, or its folder `from_random_walk`.
        options: Folders to take instead of those that the run recorded.

    Raises:
        InputError: It is no folder of a run, or nothing says where its photos lie.
    """
    check_folder(run, remedy="expected the --out of `ssdd run` or `ssdd refine`")
    check_folders([options.truth, options.knowledge, options.advice])
    return _Run(run, options).material()


@dataclass(frozen=True)
class _Run:
    folder: Path
    options: FolderOptions

    def material(self) -> Material:
        """Collect everything."""
        masks = self.masks()
        if not masks:
            raise InputError(
                f"folder {self.folder} holds no masks of a run; expected the --out of `ssdd run` or `ssdd refine` "
                "after its first prediction, or name a folder of masks with --predictions."
            )
        merged = next((one.folder for one in masks if one.key == REFINED), None)
        return Material(
            title=self.folder.resolve().name,
            images=self.images,
            masks=masks,
            differences=merged,
            truth=self.truth,
            class_names=self.class_names,
            facts=tuple(self.facts()),
            steps=tuple(self.steps),
            curves=tuple(self.curves()),
            notes=tuple(self.notes()),
        )

    @cached_property
    def home(self) -> Path:
        """Where the folders of the first steps lie."""
        return self.folder.resolve().parent if self.folder.resolve().name.startswith(_FROM) else self.folder

    @cached_property
    def refined_home(self) -> Path:
        """Where the static stage and those after it lie."""
        others = [self.home / f"{_FROM}{source}" for source in SOURCES]
        there = [folder for folder in others if folder.is_dir()]
        return there[0] if there and self.folder == self.home and not (self.home / SEEDS).is_dir() else self.folder

    @cached_property
    def source(self) -> str:
        """What was refined, of `SOURCES`."""
        name = self.refined_home.resolve().name.removeprefix(_FROM)
        return name if self.refined_home != self.home and name in SOURCES else "cam"

    @cached_property
    def is_refinement(self) -> bool:
        """Whether `ssdd refine` wrote it."""
        return (self.folder / "static.yaml").is_file() and not (self.folder / SEEDS).is_dir()

    def masks(self) -> tuple[Masks, ...]:
        """Every folder of masks that holds some."""
        found = self._refinement_masks() if self.is_refinement else self._run_masks()
        given = {KNOWLEDGE: self.options.knowledge, ADVICE: self.options.advice}
        found = [replace(one, folder=given.get(one.key) or one.folder) for one in found]
        listed = self.options.listed()
        if self.options.split is not None:
            found = [replace(one, split=self.options.split.stem, listed=listed) for one in found]
        return tuple(one for one in found if one.names)

    def _run_masks(self) -> list[Masks]:
        """The rows of `ssdd run`'s table, in its order."""
        knowledge, by_crf = (self.home / name for name in SOURCES[self.source])
        advice = self.chosen_advice or by_crf
        seeds = self.refined_home / SEEDS
        listed = self.split_names(self.seed_split)
        split = split_title(self.seed_split)
        rows = [
            Masks(KNOWLEDGE, "knowledge K", knowledge, split, listed, self.seconds(knowledge, "predict")),
            Masks(ADVICE, "advice A", advice, split, listed, self._mapped(advice)),
            Masks(REFINED, "static refinement m_D0", seeds, split, listed, self._trained(seeds, seeds.parent)),
        ]
        if self.source != "cam":
            maps, refined = (self.home / name for name in SOURCES["cam"])
            rows.append(Masks("maps", "activation maps", maps, split, listed, self.seconds(maps, "predict")))
            rows.append(Masks("crf", "CRF of activation maps", refined, split, listed, self._mapped(refined)))
        first, *others = (f"baseline_{name}" for name in reversed(BASELINES))
        keys = [first, LONGER, *others, "dynamic", RETRAIN]
        for key in keys:
            home, split = self.refined_home / key, self.test_split
            made = home / "test"
            row = Masks(key, MODELS[key], made, split_title(split), self.split_names(split), self._trained(made, home))
            if key == "dynamic" and not row.names:  # without ground truth there is no test
                made = home / "masks"
                row = Masks(key, MODELS[key], made, split_title(""), None, self._trained(made, home))
            rows.append(replace(row, key=PREDICTION) if key == "dynamic" else row)
        return rows

    def _refinement_masks(self) -> list[Masks]:
        """What `ssdd refine` read and wrote."""
        knowledge, refined = self.data.get("knowledge"), self.folder / "refined"
        advice = self.options.advice or Path(str(self.data.get("advice")))
        rows = [] if knowledge is None else [Masks(KNOWLEDGE, "knowledge K", self.options.knowledge or Path(knowledge))]
        rows.append(Masks(ADVICE, "advice A", advice, seconds=self._mapped(advice)))
        rows.append(Masks(REFINED, "refined", refined, seconds=self._trained(refined, self.folder / "static")))
        return rows

    def seconds(self, folder: Path, command: str) -> float | None:
        """How long a step took; None where the ledger does not know."""
        entry = self.entries.get(folder / f"{command}.json")
        return None if entry is None else float(entry["seconds"])

    def _mapped(self, folder: Path) -> float | None:
        """How long the mapping function took that filled a folder last."""
        made = [path for path in self.entries if path.parent == folder and path.stem in ADVICES]
        return self.seconds(folder, made[-1].stem) if made else None

    @cached_property
    def chosen_advice(self) -> Path | None:
        """The advice that the static stage learnt from; None where nothing says it or it is gone."""
        static = self.refined_home / "static"
        configs = _files(static, ("config.yaml",)) if static.is_dir() else ()
        newest = max(configs, key=lambda path: path.stat().st_mtime_ns, default=None)
        named = (_yaml(newest).get("data") or {}).get("advice") if newest else None
        places = [] if named is None else [self.home / Path(named).name, Path(named)]  # the run may have moved
        return next((place for place in places if place.is_dir()), None)

    def _trained(self, product: Path, home: Path) -> float | None:
        """How long the training took, and what it wrote."""
        command = "test" if product.name == "test" else "predict"
        parts = [self.seconds(home, "fit"), self.seconds(product, command)]
        known = [part for part in parts if part is not None]
        return sum(known) if known else None

    @cached_property
    def entries(self) -> dict[Path, dict[str, Any]]:
        """The ledger's entries of all steps, in the order of their making; those of other versions are left out."""
        found = {}
        for path in _files(self.home, tuple(f"{command}.json" for command in COMMANDS)):
            try:
                entry = read_entry(path)
            except InputError:
                continue
            if entry is not None:
                found[path] = entry
        return dict(sorted(found.items(), key=lambda item: str(item[1]["started"])))

    @cached_property
    def steps(self) -> list[dict[str, Any]]:
        """One row per entry."""
        return [
            {
                "name": str(path.parent.relative_to(self.home)),
                "command": path.stem,
                "state": "finished" if entry["finished"] else "not finished",
                "started": str(entry["started"]),
                "seconds": float(entry["seconds"]),
                "settings": entry["settings"],
                "results": entry["results"],
            }
            for path, entry in self.entries.items()
        ]

    def curves(self) -> Iterator[Curve]:
        """What each training logged, in the order of the steps."""
        trainings = [path.parent for path in self.entries if path.stem == "fit"]
        others = sorted(path.parent for path in _files(self.home, ("lightning_logs",)))
        for folder in dict.fromkeys([*trainings, *others]):
            yield from read_curves(str(folder.relative_to(self.home)), folder)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The newest configuration of a stage that names its data; empty if there is none."""
        names = ("config.yaml", "static.yaml", *(f"{command}.yaml" for command in COMMANDS))
        for path in sorted(_files(self.home, names), key=lambda path: path.stat().st_mtime_ns, reverse=True):
            content = _yaml(path)
            if isinstance(content.get("data"), dict):
                return content
        return {}

    @property
    def data(self) -> Mapping[str, Any]:
        """Options of the data module."""
        data: Mapping[str, Any] = self.config.get("data", {})
        return data

    @property
    def dataset(self) -> str:
        """Name of the dataset, see `DATASETS`."""
        return str(self.config.get("dataset") or ("folder" if "images" in self.data else "voc"))

    @cached_property
    def photos(self) -> Photos | None:
        """Where photos, lists and ground truth lie, if that was recorded and is still so."""
        try:
            return find_photos(self.data, self.dataset)
        except InputError:
            return None

    @property
    def images(self) -> Path:
        """Folder of photos."""
        recorded = self.photos.images if self.photos else self.data.get("images")
        folder = self.options.images or (None if recorded is None else Path(recorded))
        if folder is None or (self.options.images is None and not folder.is_dir()):
            root = self.data.get("images") or self.data.get("root")
            where = f"recorded that its photos lie in {root}, where none are" if root else "did not record its photos"
            raise InputError(f"run {self.folder} {where}; name the folder of photos with --images.")
        return folder

    @cached_property
    def truth(self) -> Path | None:
        """Folder of ground truth, if there is one."""
        if self.options.truth is not None:
            return self.options.truth
        folder = None if self.photos is None else self.photos.truth
        return folder if folder is not None and folder.is_dir() else None

    @cached_property
    def class_names(self) -> Mapping[int, str]:
        """The dataset's classes by their index."""
        if self.options.classes is not None:
            return self.options.class_names()
        own = self.photos.images.with_name("classes.txt") if self.photos and self.dataset == "coco" else None
        named = own or self.data.get("class_names")
        if named is None or not (str(named).isdecimal() or Path(str(named)).is_file()):
            return dict(enumerate(VOC_CLASSES))
        return dict(enumerate(class_table(named).names))

    @cached_property
    def whole(self) -> Mapping[str, Any]:
        """Settings of the entry of a whole run; empty before its end."""
        try:
            entry = read_entry(self.refined_home / "run.json")
        except InputError:
            return {}
        settings: Mapping[str, Any] = {} if entry is None else entry["settings"]
        return settings

    @property
    def seed_split(self) -> str:
        """Split that seed masks are scored on."""
        own = split_of(self.data, self.dataset, "predict")
        return str(self.whole.get("seed_split") or "train") if self.dataset in DEVKITS else own

    @property
    def test_split(self) -> str:
        """Split that models are tested on."""
        return split_of(self.data, self.dataset, "test")

    def split_names(self, split: str) -> frozenset[str] | None:
        """Names in a list of the devkit; None, which stands for all, if there is no such list."""
        try:
            names = None if self.photos is None else self.photos.location.names(split)
            return None if names is None else frozenset(names)
        except InputError:
            return None

    def facts(self) -> Iterator[tuple[str, str]]:
        """What was run, and on what."""
        yield "run", str(self.folder)
        yield "command", "ssdd refine" if self.is_refinement else "ssdd run"
        yield (
            "dataset",
            {"voc": "VOC 2012", "coco": "COCO 2014", "folder": "photos of a folder"}.get(self.dataset, self.dataset),
        )
        yield "photos", str(self.images)
        if self.truth is not None:
            yield "ground truth", str(self.truth)
        yield "image-level labels", str(self.data.get("labels") or "annotations of the devkit")
        if chosen := self.data.get("classes"):
            yield "classes", ", ".join(map(str, chosen))
        if not self.is_refinement:
            yield "refined", {"cam": "class activation maps"}.get(self.source, self.source.replace("_", " "))
        if self.entries:
            versions = sorted({str(entry.get("version")) for entry in self.entries.values()})
            yield "version", ", ".join(versions)
            yield "started", str(next(iter(self.entries.values()))["started"])[:16].replace("T", " ")

    def notes(self) -> Iterator[str]:
        """What the reader should know."""
        if unfinished := [f"{step['command']} {step['name']}" for step in self.steps if step["state"] != "finished"]:
            yield f"The run is not finished: {', '.join(unfinished)}. Scores are of the images that are there."
        if not self.entries:
            yield "The ledger has no entries of this run, so its steps and times are unknown."
        if self.truth is None:
            yield "There is no ground truth, so nothing is scored."
        other = self.home / f"{_FROM}random_walk"
        if self.refined_home == self.home and other.is_dir():
            yield f"{other.name} holds the refinement of the random walk, which has a report of its own."


def _files(folder: Path, names: tuple[str, ...], depth: int = _DEEPEST) -> Iterator[Path]:
    """Files and folders of some names, at most `depth` folders down; see `_is_foreign`."""
    for path in sorted(folder.iterdir()):
        if path.name in names:
            yield path
        if depth > 1 and path.suffix == "" and path.is_dir() and not _is_foreign(path):
            yield from _files(path, names, depth - 1)


def _yaml(path: Path) -> dict[str, Any]:
    """The sections of a configuration; empty if it cannot be read."""
    try:
        content = parse_value(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_foreign(folder: Path) -> bool:
    """Whether a folder is not of the stages: hidden, of a devkit, or of a report."""
    return folder.name.startswith(".") or any(
        (folder / name).exists() for name in ("VOC2012", "JPEGImages", "VOCdevkit")
    )
