"""`ssdd run`: all stages of an experiment folder in order."""

import argparse
from pathlib import Path
from typing import Any

from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.experiments import experiment_folder, packaged_experiments
from ssdd_lightning.pipeline.run import BASELINES, SOURCES, default_out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd run`."""
    parser.add_argument(
        "experiment",
        type=Path,
        help=f"an experiment of the package ({', '.join(packaged_experiments())}), or a folder with "
        "classification.yaml, static.yaml, baseline.yaml and dynamic.yaml; `ssdd init` writes one to edit",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for everything it writes (default: runs/NAME)")
    data = parser.add_argument_group("data", "a devkit, or photos of your own")
    data.add_argument(
        "--root", type=Path, metavar="DIR", help="folder that holds the devkit VOCdevkit/VOC2012 (default: the YAML's)"
    )
    data.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of your own photos, with --labels; as `ssdd prepare folder` and --config in one",
    )
    data.add_argument(
        "--labels", type=Path, metavar="FILE", help="image-level labels (default: the devkit's Annotations/*.xml)"
    )
    data.add_argument(
        "--config",
        dest="configs",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="one more YAML for every stage, such as data.yaml of `ssdd prepare folder`; may be repeated",
    )
    data.add_argument(
        "--truth",
        metavar="DIR",
        help="ground truth, for scoring only: a folder in the devkit (default: SegmentationClass), or one of masks of "
        "your own photos (default: none)",
    )
    parser.add_argument("--seed_split", default="train", help="split on which seed masks are scored (default: train)")
    parser.add_argument(
        "--baselines",
        nargs="*",
        choices=BASELINES,
        default=["seeds"],
        help="masks to train plain segmentation networks on (default: seeds)",
    )
    parser.add_argument(
        "--retrain",
        action="store_true",
        help="at the end, train a fresh network on the masks that the dynamic model makes of the training images",
    )
    parser.add_argument(
        "--knowledge",
        choices=sorted(SOURCES),
        default="cam",
        help="what to refine: activation maps, or their random walk, which needs affinity.yaml (default: cam)",
    )
    parser.add_argument(
        "--classifier_weights",
        help="weights the classifier starts from, as backbone_weights of the stages (default: the YAML's)",
    )
    parser.add_argument("--pictures", type=int, default=12, help="images to draw (default: 12)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option for every stage, such as trainer.max_epochs=1; may be repeated",
    )
    steps = parser.add_argument_group("steps", "--dry-run lists their names: classification, knowledge, static, ...")
    steps.add_argument(
        "--from", dest="first", metavar="STEP", help="begin at this step; leave those before it as they are"
    )
    steps.add_argument("--until", dest="last", metavar="STEP", help="end with this step")
    steps.add_argument("--only", metavar="STEP", help="do this step alone")
    steps.add_argument("--dry-run", action="store_true", help="only say what would be done, and why")
    steps.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="STEP",
        help="keep the result of a step although its inputs changed; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Run what is not finished, or say what that would be.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.pipeline.config import parse_settings
    from ssdd_lightning.pipeline.run import RunOptions, plan_experiment, run_experiment

    given = dict(vars(args))
    settings, dry_run = parse_settings(given.pop("set")), given.pop("dry_run")
    only = given.pop("only")
    if only is not None:
        if args.first is not None or args.last is not None:
            raise InputError("--only goes without --from and --until; give one or the other.")
        given |= {"first": only, "last": only}
    if args.images is not None:
        given |= _own_photos(args)
    given.pop("images")
    given |= {key: tuple(given[key]) for key in ("baselines", "keep", "configs")}
    options = RunOptions(**given, settings=settings)
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
