"""`ssdd sweep`: score the merge for a grid of biases, and how well difference maps rank K and A."""

import argparse
import json
from typing import Any

from ssdd_lightning.cli.merge import NEEDED, PARTS
from ssdd_lightning.cli.options import CLASS_NAMES, add_options
from ssdd_lightning.data.classes import VOC_CLASSES, read_classes
from ssdd_lightning.data.splits import read_list
from ssdd_lightning.evaluation.chart import write_figure
from ssdd_lightning.storage.files import write_text
from ssdd_lightning.storage.score_maps import mask_path

SYMBOLS = {"dd_bias": "b_dd", "class_bias": "b_class", "background_bias": "b_bg"}
VALUES: dict[str, Any] = {
    "dd_bias": [-0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
    "class_bias": [0.0, 1.0],
    "background_bias": [0.0, 0.1, 0.2],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd sweep`."""
    options = {
        **PARTS,
        "--truth DIR": "folder of ground truth masks",
        "--split FILE": "list of the images to score (default: all found)",
        **{f"--{option} X ...": f"values of {symbol}" for option, symbol in SYMBOLS.items()},
        "--classes FILE": CLASS_NAMES,
        "--json FILE": "also write all scores, as fractions, to this file",
        "--png FILE": "also draw the scores over b_dd to this file",
    }
    add_options(parser, options, (*NEEDED, "truth"), **VALUES)


def run(args: argparse.Namespace) -> int:
    """Sweep and print the table.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.folders.merge import MergeFolders
    from ssdd_lightning.folders.sweep import sweep_biases

    folders = MergeFolders(args.knowledge, args.advice, args.differences)
    names = folders.names()
    if args.split is not None:
        names = read_list(args.split, lambda name: mask_path(args.truth, name).is_file())
    grid = (args.dd_bias, args.class_bias, args.background_bias)
    classes = range(len(VOC_CLASSES)) if args.classes is None else read_classes(args.classes)
    result = sweep_biases(folders, args.truth, names, *grid, num_classes=max(classes, default=0) + 1)
    print(result.table())
    if args.json is not None:
        write_text(args.json, json.dumps(result.to_dict(), indent=2))
    if args.png is not None:
        write_figure(args.png, result.draw())
    return 0
