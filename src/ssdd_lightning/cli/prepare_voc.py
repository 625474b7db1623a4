"""`ssdd prepare voc`."""

import argparse

from ssdd_lightning.cli.options import add_obtaining, add_options
from ssdd_lightning.data.official import VOC_COUNTS
from ssdd_lightning.prepare.download import Obtaining


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd prepare voc`."""
    options = {
        "--out DIR": "folder that receives VOCdevkit/VOC2012",
        "--voc FILE|DIR": "VOCtrainval_11-May-2012.tar, or the folder unpacked from it",
        "--sbd FILE|DIR": "SBD's benchmark.tgz, or the folder unpacked from it",
    }
    add_options(parser, options, ("out",))
    add_obtaining(parser, "VOC 2.0 GB, SBD 1.4 GB")


def run(args: argparse.Namespace) -> int:
    """Prepare VOC and print a summary.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.evaluation.text_table import text_table
    from ssdd_lightning.prepare.voc import LABEL_FILE, prepare_voc

    made = prepare_voc(args.out, Obtaining.of(args), args.voc, args.sbd, args.num_workers)
    rows = [[split, str(count), str(VOC_COUNTS[split])] for split, count in made.splits.items()]
    print(text_table(["split", "images", "official"], rows))
    print(f"{made.devkit / LABEL_FILE} holds the labels of {made.labelled} images.")
    if "trainaug" not in made.splits:
        print("There is no trainaug and no SegmentationClassAug; give SBD with `--sbd` or `--download`.")
    return 0
