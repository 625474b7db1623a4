"""`ssdd prepare`: published datasets, or your own photos, for the stages."""

import argparse
import importlib

KINDS = {
    "voc": ("ssdd_lightning.cli.prepare_voc", "VOC 2012 and SBD: devkit, SegmentationClassAug, trainaug, labels"),
    "coco": ("ssdd_lightning.cli.prepare_coco", "COCO 2014: photos, masks of 81 classes, labels"),
    "folder": ("ssdd_lightning.cli.prepare_folder", "your own photos with a file of labels"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd prepare`: those of each dataset."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="|".join(KINDS))
    for kind, (module, text) in KINDS.items():
        child = kinds.add_parser(kind, help=text, description=text, allow_abbrev=False)
        importlib.import_module(module).add_arguments(child)


def run(args: argparse.Namespace) -> int:
    """Prepare the dataset.

    Returns:
        The exit status, 0.
    """
    status: int = importlib.import_module(KINDS[args.kind][0]).run(args)
    return status
