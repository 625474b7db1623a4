"""`ssdd sweep`: score the merge for a grid of biases, and how well difference maps rank K and A."""

import argparse
import json
from pathlib import Path

from ssdd_lightning.cli.merge import add_parts
from ssdd_lightning.data.classes import VOC_CLASSES, read_classes
from ssdd_lightning.data.splits import read_list
from ssdd_lightning.storage.files import atomic_write
from ssdd_lightning.storage.score_maps import mask_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd sweep`."""
    add_parts(parser)
    parser.add_argument("--truth", type=Path, required=True, metavar="DIR", help="folder of ground truth masks")
    parser.add_argument("--split", type=Path, metavar="FILE", help="list of the images to score (default: all found)")
    _add_values(parser, "dd_bias", [-0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5], "b_dd")
    _add_values(parser, "class_bias", [0.0, 1.0], "b_class")
    _add_values(parser, "background_bias", [0.0, 0.1, 0.2], "b_bg")
    parser.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="class names of the dataset, one per line, background first, or a JSON object of index to name "
        "(default: those of PASCAL VOC)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all scores, as fractions, to this file")


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
        with atomic_write(args.json) as stream:
            stream.write(json.dumps(result.to_dict(), indent=2).encode())
    return 0


def _add_values(parser: argparse.ArgumentParser, option: str, values: list[float], symbol: str) -> None:
    shown = " ".join(f"{value:g}" for value in values)
    parser.add_argument(
        f"--{option}", type=float, nargs="+", default=values, metavar="X", help=f"values of {symbol} (default: {shown})"
    )
