"""`ssdd run`: all stages of an experiment folder in order."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ssdd_lightning.cli.mistakes import check_stage
from ssdd_lightning.cli.options import add_options, add_repeated
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.experiments import experiment_folder, packaged_experiments
from ssdd_lightning.pipeline.run import BASELINES, SOURCES, default_out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd run`."""
    experiment = (
        f"an experiment of the package ({', '.join(packaged_experiments())}), or a folder with classification.yaml, "
        "static.yaml, baseline.yaml and dynamic.yaml; `ssdd init` writes one to edit"
    )
    out = "folder for everything it writes (default: runs/NAME)"
    add_options(parser, {"experiment DIR": experiment, "--out DIR": out})
    data = parser.add_argument_group("data", "a devkit, or photos of your own")
    text = "one more YAML for every stage, such as data.yaml of `ssdd prepare folder`"
    add_repeated(data, "--config", "FILE", text, dest="configs", type=Path)
    options = {
        "--root DIR": "folder that holds the devkit VOCdevkit/VOC2012 (default: the YAML's)",
        "--images DIR": "folder of your own photos, with --labels; as `ssdd prepare folder` and --config in one",
        "--labels FILE": "image-level labels (default: the devkit's Annotations/*.xml)",
        "--truth NAME|DIR": "ground truth, for scoring only: a folder in the devkit (default: SegmentationClass), or "
        "one of masks of your own photos (default: none)",
    }
    add_options(data, options)
    options = {
        "--seed_split NAME": "split on which seed masks are scored",
        "--retrain": "at the end, train a fresh network on the dynamic model's masks of the training images",
        "--knowledge NAME": "what to refine: activation maps, or their random walk, which needs affinity.yaml",
        "--advice crf|par|DIR": "what to refine it with: its dense CRF, its pixel-adaptive refinement (also in "
        "the dynamic stage), or a folder of other masks or score maps",
        "--classifier_weights SOURCE": "weights the classifier starts from (default: the YAML's)",
        "--pictures N": "images to draw",
        "--trusted_classes": "refuse YAML files that name classes of others than this package, torch, Lightning, "
        "torchmetrics, timm and segmentation-models-pytorch",
    }
    defaults = {"seed_split": "train", "knowledge": "cam", "advice": "crf", "pictures": 12}
    add_options(parser, options, (), {"knowledge": sorted(SOURCES)}, **defaults)
    text = "masks to train plain segmentation networks on, and to score (default: seeds)"
    parser.add_argument("--baselines", nargs="*", choices=BASELINES, default=["seeds"], help=text)
    add_repeated(parser, "--set", "KEY=VALUE", "an option for every stage, such as trainer.max_epochs=1")
    steps = parser.add_argument_group("steps", "--dry-run lists their names: classification, knowledge, static, ...")
    text = "begin at this step; leave those before it as they are"
    steps.add_argument("--from", dest="first", metavar="STEP", help=text)
    steps.add_argument("--until", dest="last", metavar="STEP", help="end with this step")
    add_options(steps, {"--only STEP": "do this step alone", "--dry-run": "only say what would be done, and why"})
    add_repeated(steps, "--keep", "STEP", "keep the result of a step although its inputs changed")


def run(args: argparse.Namespace) -> int:
    """Run what is not finished, or say what that would be.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.pipeline.config import parse_settings
    from ssdd_lightning.pipeline.photos import GivenData
    from ssdd_lightning.pipeline.run import Chosen, Pipeline, Refined, RunOptions, plan_experiment, run_experiment
    from ssdd_lightning.pipeline.steps import StageStep

    given = dict(vars(args))
    settings, dry_run = parse_settings(given.pop("set")), given.pop("dry_run")
    only, trusted = given.pop("only"), given.pop("trusted_classes")
    if only is not None:
        if args.first is not None or args.last is not None:
            raise InputError("--only goes without --from and --until; give one or the other.")
        given |= {"first": only, "last": only}
    if args.images is not None:
        given |= _own_photos(args)
    given.pop("images")
    given |= {key: tuple(given[key]) for key in ("baselines", "keep", "configs")}
    data = GivenData(*(given.pop(name) for name in ("root", "labels", "truth")))
    chosen = Chosen(*(given.pop(name) for name in ("first", "last", "keep")))
    refined = Refined(given.pop("knowledge"), given.pop("advice"))
    options = RunOptions(**given, data=data, refined=refined, settings=settings, chosen=chosen)
    contents = [(step, step.config.content()) for step in Pipeline(options).steps if isinstance(step, StageStep)]
    with ExitStack() as held:
        if trusted:
            from ssdd_lightning.stages.trusted import check_trusted, only_trusted_imports

            check_trusted([content for _, content in contents])
            held.enter_context(only_trusted_imports())
        for step, content in contents:
            check_stage(content, str(content.get("dataset") or "voc"), [step.command, *step.config.words()])
        if dry_run:
            for name, state in plan_experiment(options):
                print(f"{name}: {state}")
        else:
            run_experiment(options)
    return 0


def _own_photos(args: argparse.Namespace) -> dict[str, Any]:
    """Prepare a folder of photos below the run's own folder; the options that say where they are now."""
    from ssdd_lightning.prepare.folder import CONFIG, FolderOptions, prepare_folder

    if args.root is not None or args.labels is None:
        raise InputError("--images goes with --labels, and without --root.")
    folder = default_out(experiment_folder(args.experiment), args.out) / "data"
    if not args.dry_run:
        truth = None if args.truth is None else Path(args.truth)
        prepared = prepare_folder(FolderOptions(args.images, args.labels, folder, truth=truth))
        if truth is not None and not prepared.val:
            raise InputError(
                f"--truth: expected photos to spare for scoring, found none among {len(prepared.train)}; choose their "
                "share with `ssdd prepare folder --val`, and give its data.yaml with --config."
            )
    elif not (folder / CONFIG).is_file():
        raise InputError(f"--dry-run: the photos were not prepared yet in {folder}; run once without it.")
    return {"configs": [folder / CONFIG, *args.configs], "labels": None, "truth": None}
