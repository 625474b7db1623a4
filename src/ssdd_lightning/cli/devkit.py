"""`ssdd devkit`: write the synthetic VOC devkit."""

import argparse

from ssdd_lightning.cli.options import add_options
from ssdd_lightning.synthetic.devkit import write_synthetic_devkit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd devkit`."""
    options = {
        "root DIR": "folder that receives VOCdevkit/VOC2012",
        "--num_train N": "training images",
        "--num_val N": "validation images",
        "--num_test N": "test images, without ground truth",
        "--seed N": "seed of everything in the devkit",
    }
    add_options(parser, options, **(write_synthetic_devkit.__kwdefaults__ or {}))
    parser.set_defaults(**(write_synthetic_devkit.__kwdefaults__ or {}))


def run(args: argparse.Namespace) -> int:
    """Write what is missing of the devkit.

    Returns:
        The exit status, 0.
    """
    print(write_synthetic_devkit(**vars(args)))
    return 0
