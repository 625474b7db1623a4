"""`ssdd run`: all stages of an experiment folder in order."""

import argparse
from pathlib import Path

from ssdd_lightning.pipeline.run import BASELINES, SOURCES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd run`."""
    parser.add_argument(
        "experiment",
        type=Path,
        help="folder with classification.yaml, static.yaml, baseline.yaml, dynamic.yaml (random_walk: affinity.yaml)",
    )
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder that holds VOCdevkit/VOC2012")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for everything the run writes")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="image-level labels (default: Annotations/*.xml)")
    parser.add_argument(
        "--truth",
        default="SegmentationClass",
        help="folder of ground truth masks, for scoring only (default: SegmentationClass)",
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
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done, and why")
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="STEP",
        help="keep the result of a step although its inputs changed; --dry-run lists the names of the steps (static, "
        "dynamic/test, ...); may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Run what is not finished, or say what that would be.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.pipeline.config import parse_settings
    from ssdd_lightning.pipeline.run import RunOptions, plan_experiment, run_experiment

    given = vars(args)
    settings, dry_run = parse_settings(given.pop("set")), given.pop("dry_run")
    given |= {"baselines": tuple(args.baselines), "keep": tuple(args.keep)}
    options = RunOptions(**given, settings=settings)
    if dry_run:
        for name, state in plan_experiment(options):
            print(f"{name}: {state}")
    else:
        run_experiment(options)
    return 0
