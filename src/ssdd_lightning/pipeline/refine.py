"""SSDD between any two folders of masks or maps: a static stage on them, its merged masks, and their scores."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ssdd_lightning.data.classes import ClassTable, class_table
from ssdd_lightning.data.folder import FolderDataModule
from ssdd_lightning.data.labels import Labels, read_label_file, table_of_labels
from ssdd_lightning.errors import InputError, check_folder
from ssdd_lightning.evaluation.folder import evaluate_folders
from ssdd_lightning.evaluation.scorecard import Scorecard
from ssdd_lightning.pipeline.advice import MAPPINGS, make_advice
from ssdd_lightning.pipeline.config import StageConfig
from ssdd_lightning.pipeline.lightning import build_stage, run_stage
from ssdd_lightning.pipeline.pairs import complete_names, guide_names, shown_labels
from ssdd_lightning.pipeline.refine_options import Recipe, default_crop, stage_config
from ssdd_lightning.storage.files import write_text
from ssdd_lightning.storage.images import find_images, image_size
from ssdd_lightning.storage.lock import locked
from ssdd_lightning.storage.names import check_name
from ssdd_lightning.storage.score_maps import mask_path
from ssdd_lightning.storage.threads import with_bar
from ssdd_lightning.weights.backbone import load_backbone_weights


@dataclass(frozen=True)
class RefineOptions:
    """What to refine, and how.

    Args:
        images: Folder of photos.
        knowledge: Folder of masks `<name>.png` or maps `<name>.map.png`.
        advice: A folder like `knowledge`, from another source, or the mapping function that makes it of the knowledge,
            of `MAPPINGS`.
        out: Folder for everything that is written.
        labels: File of image-level labels; None takes the classes that each knowledge mask shows.
        classes: File of class names or their number; None takes them from the labels, see `table_of_labels`.
        truth: Folder of ground truth masks, for scoring only.
        skip_missing: Leave out images that lack a photo, knowledge, advice or labels.
        recipe: Network and training.
        device: cpu, cuda or auto.
    """

    images: Path
    knowledge: Path
    advice: Path | str
    out: Path
    labels: Path | None = None
    classes: str | None = None
    truth: Path | None = None
    skip_missing: bool = False
    recipe: Recipe = field(default_factory=Recipe)
    device: str = "auto"


def refine(options: RefineOptions) -> Scorecard | None:
    """Train a static stage on knowledge and advice, then merge them.

    Writes `refined/<name>.png` (merged masks), `refined/d_knowledge` and `refined/d_advice` (difference maps), with a
    mapping function also `advice`, and with truth `scores.json`, all under `out`. A second call continues where the
    first one stopped, and redoes what depends on changed inputs; see `ssdd_lightning.storage.ledger`.

    Returns:
        Scores of the merged masks beside knowledge, advice and oracle; None without truth.

    Raises:
        InputError: Files are missing, damaged or do not fit together, or another run works in `out`.
    """
    torch.empty(0, device=_device(options.device))
    job = _Refinement(options)
    job.check_folders()
    with locked(options.out):
        job.prepare()
        job.configure()
        job.check_network()
        if options.truth is not None:
            job.check_truth(options.truth)
        if options.advice in MAPPINGS:
            job.make_advice()
        job.check()
        run_stage("fit", job.config)
        run_stage("predict", job.config.with_settings({"output.output_dir": str(job.refined)}))
        return None if options.truth is None else job.score(options.truth)


def _device(name: str) -> str:
    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"cannot run on device {name!r}; expected auto, cpu, or cuda where there is a GPU.")
    return "cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu"


class _Refinement:
    """One refinement: its images, their labels, and its files."""

    def __init__(self, options: RefineOptions) -> None:
        self.options = options
        self.out = options.out
        self.advice = options.out / "advice" if options.advice in MAPPINGS else Path(options.advice)
        self.refined = options.out / "refined"
        self.checkpoint = options.out / "static" / "checkpoints" / "last.ckpt"
        self.images = find_images(options.images)
        for name, path in self.images.items():
            check_name(name, path.parent)
        self.table, self.labels = self._find_labels()

    @property
    def begun(self) -> bool:
        """Whether a training left a checkpoint."""
        return self.checkpoint.is_file()

    @property
    def names(self) -> list[str]:
        """Images to refine."""
        return list(self.labels)

    @cached_property
    def scored_names(self) -> list[str]:
        """Images to refine that have ground truth."""
        truth = self.options.truth
        return [] if truth is None else [name for name in self.names if mask_path(truth, name).is_file()]

    def check_folders(self) -> None:
        """Refuse an output folder that is also an input, and ground truth that matches no image."""
        truth, out = self.options.truth, self.out
        inputs = (self.options.images, self.options.knowledge, self.options.advice, truth)
        written = {folder.resolve() for folder in (out, out / "advice", self.refined)}
        if read := [folder for folder in inputs if isinstance(folder, Path) and folder.resolve() in written]:
            raise InputError(
                f"the refinement would write into {read[0]}, which is one of its inputs; choose another --out."
            )
        if truth is not None:
            check_folder(truth, "folder of ground truth masks")
        if truth is not None and not self.scored_names:
            raise InputError(
                f"folder {truth} holds a ground truth mask <name>.png for none of the {len(self.names)} images."
            )

    def prepare(self) -> None:
        """Write labels and classes."""
        # with a suffix, because readers of label files drop one image suffix
        labels = json.dumps({f"{name}.jpg": shown for name, shown in self.labels.items()})
        write_text(self.out / "labels.json", labels)
        write_text(self.out / "classes.json", json.dumps(dict(enumerate(self.table.names))))

    def make_advice(self) -> None:
        """Make the advice of the knowledge."""
        options = self.options
        device = _device(options.device)
        make_advice(str(options.advice), options.images, options.knowledge, self.labels, self.advice, device)

    def check(self) -> None:
        """Read everything once, so that no bad file stops the training halfway."""
        if self.begun:
            return
        data = FolderDataModule(**self.data_options())
        data.setup("predict")
        dataset = data.datasets["predict"]
        for _ in with_bar(dataset.__getitem__, range(len(dataset)), "check"):
            pass

    def configure(self) -> None:
        """Write the stage's configuration, for this device and number of workers."""
        crop = self.options.recipe.crop_size or default_crop([image_size(self.images[name]) for name in self.names])
        device = _device(self.options.device)
        config = stage_config(self.options.recipe, self.data_options(), crop, device, len(self.names))
        config["trainer"]["default_root_dir"] = str(self.out / "static")
        write_text(self.config_path, yaml.safe_dump(config, sort_keys=False))

    def check_network(self) -> None:
        """Build the stage and read its weights before any long step."""
        if self.begun:
            return
        stage = build_stage(self.config).model
        if stage.backbone_weights:
            load_backbone_weights(stage.network.backbone, stage.backbone_weights)

    def check_truth(self, truth: Path) -> None:
        """Score the knowledge before any long step, so that unusable ground truth fails now and not at the end."""
        if not self.begun:
            evaluate_folders(self.options.knowledge, truth, self.scored_names, dict(enumerate(self.table.names)))

    def score(self, truth: Path) -> Scorecard:
        """Score merged masks, knowledge, advice and oracle; write `scores.json`."""
        classes = dict(enumerate(self.table.names))
        given = evaluate_folders(self.options.knowledge, truth, self.scored_names, classes, self.advice)
        merged = evaluate_folders(self.refined, truth, self.scored_names, classes)
        companions = {"knowledge": Scorecard(given.confusion, classes, given.images), **given.companions}
        without = len(self.names) - len(self.scored_names)
        notes = (f"{without} refined images have no ground truth mask and are not scored",) if without else ()
        card = Scorecard(merged.confusion, classes, merged.images, companions, notes)
        write_text(self.out / "scores.json", card.to_json())
        return card

    @property
    def config_path(self) -> Path:
        """The stage's configuration, as `ssdd fit` takes it."""
        return self.out / "static.yaml"

    def data_options(self) -> dict[str, Any]:
        """Arguments of `FolderDataModule`."""
        chosen = sorted({index for shown in self.labels.values() for index in shown})
        return {
            "images": str(self.options.images),
            "labels": str(self.out / "labels.json"),
            "class_names": str(self.out / "classes.json"),
            "classes": [self.table.names[index] for index in chosen],
            "knowledge": str(self.options.knowledge),
            "advice": str(self.advice),
        }

    @property
    def config(self) -> StageConfig:
        """The stage's configuration, with the user's further settings."""
        return StageConfig((self.config_path,), self.options.recipe.settings)

    def _find_labels(self) -> tuple[ClassTable, dict[str, Labels]]:
        """The dataset's classes, and the labels of the images that are complete."""
        options = self.options
        parts: dict[str, Any] = {"image": self.images, "knowledge": guide_names(options.knowledge, "knowledge")}
        if options.advice not in MAPPINGS:
            parts["advice"] = guide_names(self.advice, "advice")
        guides = [part for part in parts if part != "image"]
        if options.labels is None:
            return self._labels_of_knowledge(parts, guides)
        table = table_of_labels(options.labels) if options.classes is None else class_table(options.classes)
        labels = read_label_file(options.labels, table)
        labelled = [name for name, shown in labels.items() if shown]
        names = complete_names({**parts, "label": set(labelled)}, guides, options.skip_missing)
        return table, {name: labels[name] for name in names}

    def _labels_of_knowledge(
        self, parts: Mapping[str, Any], guides: Sequence[str]
    ) -> tuple[ClassTable, dict[str, Labels]]:
        options = self.options
        names = complete_names(parts, guides, options.skip_missing)
        print("There are no --labels, so an image's labels are the classes that its knowledge shows.")
        shown = shown_labels(options.knowledge, names)
        labels = {name: classes for name, classes in shown.items() if classes}
        if len(labels) < len(names):
            print(f"{len(names) - len(labels)} images show only background, so there is nothing to refine.")
        highest = max(np.concatenate([[0], *labels.values()]).astype(int).tolist())
        if not highest:
            raise InputError(f"folder {options.knowledge} shows only background; give masks with objects.")
        return class_table(str(highest + 1) if options.classes is None else options.classes), labels
