"""`ssdd devkit`: write the synthetic VOC devkit."""

import argparse
from pathlib import Path

from ssdd_lightning.synthetic.devkit import write_synthetic_devkit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd devkit`."""
    parser.add_argument("root", type=Path, help="folder that receives VOCdevkit/VOC2012")
    parser.set_defaults(**(write_synthetic_devkit.__kwdefaults__ or {}))
    parser.add_argument("--num_train", type=int, help="training images (default: %(default)s)")
    parser.add_argument("--num_val", type=int, help="validation images (default: %(default)s)")
    parser.add_argument("--num_test", type=int, help="test images, without ground truth (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="seed of everything in the devkit (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write what is missing of the devkit.

    Returns:
        The exit status, 0.
    """
    print(write_synthetic_devkit(**vars(args)))
    return 0
