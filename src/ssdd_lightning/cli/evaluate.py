"""`ssdd evaluate`: score a folder of predictions from the command line, without loading torch."""

import argparse

from ssdd_lightning.cli.launched import launched
from ssdd_lightning.cli.options import CLASS_NAMES, add_options
from ssdd_lightning.data.classes import read_classes
from ssdd_lightning.data.splits import read_list
from ssdd_lightning.evaluation.chart import write_chart
from ssdd_lightning.evaluation.folder import evaluate_folders
from ssdd_lightning.evaluation.scorecard import Scorecard
from ssdd_lightning.evaluation.table import scores_csv, scores_table
from ssdd_lightning.storage.files import write_text
from ssdd_lightning.storage.score_maps import mask_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd evaluate`."""
    options = {
        "--predictions DIR": "folder of indexed PNG masks <name>.png (255 = no label) or score maps <name>.map.png",
        "--truth DIR": "folder of ground truth masks",
        "--split FILE": "list of the images to score, one name per line, such as ImageSets/Segmentation/val.txt "
        "(default: every prediction found, so that a missing one goes unnoticed)",
        "--advice DIR": "second folder of predictions: adds its scores and the oracle merge (best of both per pixel)",
        "--classes FILE": CLASS_NAMES,
        "--boundary": "also measure boundary IoU, and the mIoU within narrow bands around ground truth contours",
        "--curves": "also measure the mIoU of score maps for each background: constants, and (1 - max) ** alpha",
        "--json FILE": "also write all scores, as fractions, to this file",
        "--csv FILE": "also write the scores of the classes to this file",
        "--png FILE": "also draw bars of the classes and the curves to this file",
    }
    add_options(parser, options, ("predictions", "truth"))


def run(args: argparse.Namespace) -> int:
    """Score, print the table and write the requested files.

    Returns:
        The exit status, 0.

    Raises:
        InputError: A folder, file or value is wrong; then nothing is written.
    """
    with launched() as team:
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
            team=team,
        )
        if not team.rank:
            _write(args, card)
    return 0


def _write(args: argparse.Namespace, card: Scorecard) -> None:
    title = "knowledge" if args.advice else "predictions"
    print(scores_table(card, title))
    if args.json is not None:
        write_text(args.json, card.to_json())
    if args.csv is not None:
        write_text(args.csv, scores_csv(card, title))
    if args.png is not None:
        write_chart(args.png, card, title)
