"""`ssdd prepare coco`."""

import argparse

from ssdd_lightning.cli.options import add_obtaining, add_options
from ssdd_lightning.data.official import COCO_COUNTS
from ssdd_lightning.prepare.download import Obtaining


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd prepare coco`."""
    options = {
        "--out DIR": "folder that receives COCO2014",
        "--coco DIR": "folder of train2014.zip, val2014.zip and annotations_trainval2014.zip, or of their content",
    }
    add_options(parser, options, ("out",))
    add_obtaining(parser, "20 GB in all")


def run(args: argparse.Namespace) -> int:
    """Prepare COCO and print a summary.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.evaluation.text_table import text_table
    from ssdd_lightning.prepare.coco import REPORT, prepare_coco

    made = prepare_coco(args.out, Obtaining.of(args), args.coco, args.num_workers)
    rows = [
        [split, str(count), str(COCO_COUNTS[split]), str(made.left_out[split])] for split, count in made.splits.items()
    ]
    print(text_table(["split", "images", "usual", "without an object"], rows))
    print(f"{made.devkit / REPORT} lists the images without an object, which are left out.")
    print(f"{made.devkit / 'classes.txt'} names the {made.num_classes} classes.")
    return 0
