"""`ssdd merge`: write merged masks from two folders of masks and their difference maps."""

import argparse
from pathlib import Path


def add_parts(parser: argparse.ArgumentParser) -> None:
    """Declare the folders of the parts of a merge."""
    parser.add_argument("--knowledge", type=Path, required=True, metavar="DIR", help="folder of K, masks or score maps")
    parser.add_argument("--advice", type=Path, required=True, metavar="DIR", help="folder of A, masks or score maps")
    parser.add_argument(
        "--differences",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with d_knowledge/ and d_advice/, written by `ssdd predict` of the static stage",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd merge`."""
    add_parts(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the merged masks")
    parser.add_argument("--dd_bias", type=float, default=0.4, help="b_dd, lean towards the advice (default: 0.4)")
    parser.add_argument("--class_bias", type=float, default=1.0, help="b_class, keep a vanishing class (default: 1)")
    parser.add_argument("--background_bias", type=float, default=0.0, help="b_bg, lean towards background (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Merge the folders.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.folders.merge import MergeFolders, merge_folder
    from ssdd_lightning.functional.refinement import MergeBiases

    folders = MergeFolders(args.knowledge, args.advice, args.differences)
    merge_folder(folders, args.out, MergeBiases(args.dd_bias, args.class_bias, args.background_bias))
    return 0
