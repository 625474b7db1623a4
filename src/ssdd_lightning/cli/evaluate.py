"""`ssdd evaluate`: score a folder of predictions from the command line, without loading torch."""

import argparse
from pathlib import Path

from ssdd_lightning.data.classes import read_classes
from ssdd_lightning.data.splits import read_list
from ssdd_lightning.evaluation.chart import write_chart
from ssdd_lightning.evaluation.folder import evaluate_folders
from ssdd_lightning.evaluation.table import scores_csv, scores_table
from ssdd_lightning.storage.files import atomic_write
from ssdd_lightning.storage.score_maps import mask_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd evaluate`."""
    parser.add_argument(
        "--predictions",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of indexed PNG masks <name>.png (255 = no label) or score maps <name>.map.png (arg max)",
    )
    parser.add_argument("--truth", type=Path, required=True, metavar="DIR", help="folder of ground truth masks")
    parser.add_argument(
        "--split",
        type=Path,
        metavar="FILE",
        help="list of the images to score, one name per line, such as ImageSets/Segmentation/val.txt "
        "(default: every prediction found, so that a missing one goes unnoticed)",
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
        help="class names of the dataset, one per line, background first, or a JSON object of index to name "
        "(default: those of PASCAL VOC)",
    )
    parser.add_argument(
        "--boundary",
        action="store_true",
        help="also measure boundary IoU, and the mIoU within narrow bands around ground truth contours",
    )
    parser.add_argument(
        "--curves",
        action="store_true",
        help="also measure the mIoU of score maps for each background: constants, and (1 - max) ** alpha",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all scores, as fractions, to this file")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the scores of the classes to this file")
    parser.add_argument(
        "--png", type=Path, metavar="FILE", help="also draw bars of the classes and the curves to this file"
    )


def run(args: argparse.Namespace) -> int:
    """Score, print the table and write the requested files.

    Returns:
        The exit status, 0.

    Raises:
        InputError: A folder, file or value is wrong; then nothing is written.
    """
    names = None
    if args.split is not None:
        names = read_list(args.split, lambda name: mask_path(args.truth, name).is_file())
    card = evaluate_folders(
        args.predictions,
        args.truth,
        names=names,
        class_names=None if args.classes is None else read_classes(args.classes),
        advice=args.advice,
        boundary=args.boundary,
        curves=args.curves,
    )
    title = "knowledge" if args.advice else "predictions"
    print(scores_table(card, title))
    if args.json is not None:
        _write(args.json, card.to_json())
    if args.csv is not None:
        _write(args.csv, scores_csv(card, title))
    if args.png is not None:
        write_chart(args.png, card, title)
    return 0


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as stream:
        stream.write(text.encode())
