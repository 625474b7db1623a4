"""`ssdd init`: copies of an experiment's YAML files to read and edit."""

import argparse
from pathlib import Path

from ssdd_lightning.cli.options import add_options
from ssdd_lightning.pipeline.config import read_config
from ssdd_lightning.pipeline.experiments import packaged_experiments, write_experiment

SYNTHETIC = "quickstart"
"""The experiment whose data the package can draw."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd init`."""
    names = packaged_experiments()
    parser.add_argument("experiment", choices=names, help=f"one of {', '.join(names)}", metavar="EXPERIMENT")
    add_options(parser, {"--out DIR": "folder for the YAML files (default: ./EXPERIMENT)"})


def run(args: argparse.Namespace) -> int:
    """Write the files, and for the quickstart its synthetic photos; say what to do next.

    Returns:
        The exit status, 0.
    """
    out = args.out or Path(args.experiment)
    files = write_experiment(args.experiment, out)
    print(f"{out} holds {', '.join(path.name for path in files)}.")
    data = read_config(out / "static.yaml")
    if args.experiment == SYNTHETIC:
        from ssdd_lightning.synthetic.devkit import write_synthetic_devkit

        root = Path(data["data"]["root"])
        if not (root / "VOCdevkit").exists():  # one that is there may have other numbers of images
            write_synthetic_devkit(root)
        print(f"{root} holds synthetic photos.")
    folder = data.get("dataset") == "folder"
    needs = " --config PREPARED/data.yaml" if folder else "" if args.experiment == SYNTHETIC else " --root DEVKIT"
    print(f"Next: ssdd run {out}{needs}")
    return 0
