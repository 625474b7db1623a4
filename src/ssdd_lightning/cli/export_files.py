"""`ssdd export`: our score maps as files of PSA or IRN."""

import argparse
from pathlib import Path

from ssdd_lightning.interop.export_folder import WRITERS, export_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd export`."""
    parser.add_argument("source", type=Path, help="folder of score maps <name>.map.png")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--to",
        dest="format",
        choices=sorted(WRITERS),
        required=True,
        help="psa-cam (out_cam, without background), psa-aff (out_aff, 0 = background) or irn",
    )
    parser.add_argument("--num_workers", type=int, help="threads (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Write the files; finished ones are kept.

    Returns:
        The exit status, 0.
    """
    written = export_folder(**vars(args))
    print(f"{args.out}: {written} files written.")
    return 0
