"""`ssdd devkit`: write the synthetic VOC devkit."""

import argparse
from pathlib import Path

from ssdd_lightning.synthetic.devkit import write_synthetic_devkit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd devkit`."""
    parser.add_argument("root", type=Path, help="folder that receives VOCdevkit/VOC2012")
    parser.add_argument("--num_train", type=int, default=240, help="training images (default: 240)")
    parser.add_argument("--num_val", type=int, default=80, help="validation images (default: 80)")
    parser.add_argument("--num_test", type=int, default=0, help="test images, without ground truth (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything in the devkit (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Write what is missing of the devkit.

    Returns:
        The exit status, 0.
    """
    print(write_synthetic_devkit(**vars(args)))
    return 0
