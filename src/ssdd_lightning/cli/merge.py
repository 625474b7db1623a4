"""`ssdd merge`: write merged masks from two folders of masks and their difference maps."""

import argparse

from ssdd_lightning.cli.launched import launched
from ssdd_lightning.cli.options import add_options

PARTS = {
    "--knowledge DIR": "folder of K, masks or score maps",
    "--advice DIR": "folder of A, masks or score maps",
    "--differences DIR": "folder with d_knowledge/ and d_advice/, written by `ssdd predict` of the static stage",
}
"""Options that name what is merged."""
NEEDED = ("knowledge", "advice", "differences")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd merge`."""
    options = {
        **PARTS,
        "--out DIR": "folder for the merged masks",
        "--dd_bias X": "b_dd, lean towards the advice",
        "--class_bias X": "b_class, keep a vanishing class",
        "--background_bias X": "b_bg, lean towards background",
    }
    add_options(parser, options, (*NEEDED, "out"), dd_bias=0.4, class_bias=1.0, background_bias=0.0)


def run(args: argparse.Namespace) -> int:
    """Merge the folders.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.folders.merge import MergeFolders, merge_folder
    from ssdd_lightning.functional.refinement import MergeBiases

    folders = MergeFolders(args.knowledge, args.advice, args.differences)
    biases = MergeBiases(args.dd_bias, args.class_bias, args.background_bias)
    with launched() as team:
        merge_folder(folders, args.out, biases, team=team)
    return 0
