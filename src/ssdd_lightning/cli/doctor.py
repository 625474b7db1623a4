"""`ssdd doctor`: check a devkit."""

import argparse
from pathlib import Path

from ssdd_lightning.storage.files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd doctor`."""
    add = parser.add_argument
    add("root", type=Path, help="folder that holds VOCdevkit/VOC2012 or VOC2012, or a devkit itself")
    add(
        "--labels",
        type=Path,
        metavar="FILE",
        help="label file (default: the devkit's labels.csv or .json, else Annotations)",
    )
    add(
        "--truth",
        nargs="+",
        metavar="NAME",
        help="folders of ground truth masks (default: SegmentationClass, SegmentationClassAug)",
    )
    add(
        "--classes",
        metavar="FILE|N",
        help="file of class names, or their number (default: classes.txt of the devkit, else VOC's)",
    )
    add("--subset", action="store_true", help="the devkit is a selection: do not report the sizes of its splits")
    add("--json", type=Path, metavar="FILE", help="also write everything that was found to this file")
    add("--num_workers", type=int, help="threads (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Examine the devkit and print what was found.

    Returns:
        The exit status: 0 if nothing is wrong, 1 if something is.
    """
    from ssdd_lightning.doctor.examine import examine

    report = examine(args.root, args.labels, args.truth, args.classes, args.subset, args.num_workers)
    print(report.table())
    if args.json is not None:
        write_text(args.json, report.to_json())
    return 0 if report.healthy else 1
