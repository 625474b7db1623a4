"""`ssdd evaluate`: score a folder of predictions from the command line, without loading torch."""

import argparse
from pathlib import Path

from ssdd_lightning.data.classes import read_classes
from ssdd_lightning.data.files import atomic_write
from ssdd_lightning.data.splits import read_list
from ssdd_lightning.evaluation.folder import evaluate_folders

DESCRIPTION = "score a folder of masks or score maps: pooled mIoU as PASCAL VOC counts it, per class, and coverage"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd evaluate`."""
    parser.add_argument(
        "--predictions",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of indexed PNG masks <name>.png (255 = no label) or score maps <name>.map.png (arg max)",
    )
    parser.add_argument("--truth", type=Path, required=True, metavar="DIR", help="folder of true masks <name>.png")
    parser.add_argument(
        "--split",
        type=Path,
        metavar="FILE",
        help="list of the images to score, one name a line, such as ImageSets/Segmentation/val.txt; "
        "without it every prediction found is scored and a missing one goes unnoticed",
    )
    parser.add_argument(
        "--advice",
        type=Path,
        metavar="DIR",
        help="second folder of predictions: adds its scores and the oracle merge (best of both per pixel)",
    )
    parser.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="class names of the dataset, one a line, background first, or a JSON object of index to name; "
        "default: the 21 of PASCAL VOC",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all scores, as fractions, to this file")


def run(args: argparse.Namespace) -> int:
    """Score, print the table and write the JSON file if asked to.

    Returns:
        The exit status, 0.

    Raises:
        InputError: A folder, file or value is wrong; nothing has been written then.
    """
    card = evaluate_folders(
        args.predictions,
        args.truth,
        names=None if args.split is None else read_list(args.split),
        classes=None if args.classes is None else read_classes(args.classes),
        advice=args.advice,
    )
    print(card.table("knowledge" if args.advice else "IoU"))
    if args.json is not None:
        with atomic_write(args.json) as stream:
            stream.write(card.to_json().encode())
    return 0
