"""`ssdd par`: refine a folder of score maps with pixel-adaptive refinement."""

import argparse

from ssdd_lightning.cli.crf import add_mapping
from ssdd_lightning.cli.launched import launched


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd par`."""
    options = {
        "--iterations N": "averagings over the neighbours",
        "--dilations N ...": "distances of the neighbours in pixels (default: 1 2 4 8 12 24)",
    }
    add_mapping(parser, options)


def run(args: argparse.Namespace) -> int:
    """Refine the folder; finished outputs are kept.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.folders.par import PARJob

    options = vars(args)
    workers, dilations = options.pop("num_workers"), options.pop("dilations")
    if dilations is not None:
        options["dilations"] = tuple(dilations)
    with launched() as team:
        PARJob(**options).run(workers, team=team)
    return 0
