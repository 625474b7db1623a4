"""`ssdd doctor`: check a devkit."""

import argparse

from ssdd_lightning.cli.options import CLASSES, WORKERS, add_options
from ssdd_lightning.storage.files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd doctor`."""
    options = {
        "root DIR": "folder that holds VOCdevkit/VOC2012 or VOC2012, or a devkit itself",
        "--labels FILE": "label file (default: the devkit's labels.csv or .json, else Annotations)",
        "--truth NAME ...": "folders of ground truth masks (default: SegmentationClass, SegmentationClassAug)",
        CLASSES: "file of class names, or their number (default: classes.txt of the devkit, else VOC's)",
        "--subset": "the devkit is a selection: do not report the sizes of its splits",
        "--json FILE": "also write everything that was found to this file",
    }
    add_options(parser, options | WORKERS)


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
