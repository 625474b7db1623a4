"""`ssdd convert-weights`: turn published weights into files of this package."""

import argparse

from ssdd_lightning.cli.options import add_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd convert-weights`."""
    sources = (
        "MXNet .params or a .pth of PSA, IRN, SSDD or timm; several are joined (SSDD writes its segmentation network "
        "and its DD-Nets into two files)"
    )
    out = (
        "file to write: .pth for a state dict (resnet38 with PSA's names), .ckpt for a checkpoint that --ckpt_path of "
        "`ssdd predict` and `ssdd test` takes"
    )
    options = {"sources FILE ...": sources, "out FILE": out, "--arch NAME": "backbone: resnet38 or a timm name"}
    add_options(parser, options, arch="resnet38")


def run(args: argparse.Namespace) -> int:
    """Convert, and print what was loaded, skipped and missing.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.weights.conversion import convert_weights

    print(convert_weights(args.sources, args.out, args.arch))
    print(f"{args.out} was written.")
    return 0
